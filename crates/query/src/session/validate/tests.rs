//! Which rows are looked at, and that none slips through while others write.

use std::sync::atomic::{AtomicBool, Ordering};

use event::{Column, ColumnType, Compression, TableKind};

use super::super::tests::{run, tag, world};
use super::*;

fn table(checks: &[(&str, &str, bool)], required: bool) -> TableDefinition {
    let column = |id: u32, name: &str| Column {
        id: ColumnId(id),
        name: name.to_owned(),
        stored: None,
        column_type: ColumnType::Integer,
        nullable: true,
        required: required && id == 1,
        default: None,
        initial: None,
        identity: None,
        modifier: None,
    };
    let check = |(name, expression, validated): &(&str, &str, bool)| Check {
        name: (*name).to_owned(),
        expression: (*expression).to_owned(),
        validated: *validated,
    };
    TableDefinition {
        id: TableId(1),
        namespace: "public".to_owned(),
        name: "t".to_owned(),
        version: SchemaVersion(1),
        columns: vec![column(1, "a"), column(2, "b")],
        primary_key: Vec::new(),
        primary_key_named: None,
        unique: Vec::new(),
        kind: TableKind::Reference,
        compression: Compression::Zstd,
        checks: checks.iter().map(check).collect(),
        consistency: event::Consistency::Strong,
        replicas: event::Replicas::default(),
        dropped: Vec::new(),
    }
}

/// Whether rows are looked at, and whether others may come meanwhile.
fn check(before: &TableDefinition, next: &TableDefinition) -> (bool, bool) {
    let demands = Demands::between(before, next);
    (!demands.is_empty(), demands.of_new_rows)
}

#[test]
fn rows_are_looked_at_unless_they_obey_already() {
    let plain = table(&[], false);
    assert_eq!(check(&plain, &table(&[], true)), (true, true));
    assert_eq!(check(&table(&[], true), &plain), (false, false));
    assert_eq!(check(&plain, &table(&[("c", "a > 0", true)], false)), (true, true));
    assert_eq!(check(&plain, &table(&[("c", "a > 0", false)], false)), (false, false), "NOT VALID");
    // What was written since a constraint is there obeys it.
    let enforced = table(&[("c", "a > 0", false)], false);
    assert_eq!(check(&enforced, &table(&[("c", "a > 0", true)], false)), (true, false));
    assert_eq!(check(&enforced, &table(&[("c", "a > 1", true)], false)), (true, true), "another one of that name");
    let not_null = |validated| table(&[("n", "\"a\" IS NOT NULL", validated)], false);
    assert_eq!(check(&not_null(false), &table(&[], true)), (true, false));
    assert_eq!(check(&not_null(true), &table(&[], true)), (false, false));
    assert_eq!(check(&table(&[("n", "b IS NOT NULL", true)], false), &table(&[], true)), (true, true));
}

#[test]
fn a_constraint_follows_its_columns() {
    let before = table(&[("c", "a > b", true), ("n", "a IS NOT NULL", false)], false);
    let mut next = table(&[("c", "b > a", true), ("n", "b IS NOT NULL", false)], true);
    (next.columns[0].name, next.columns[1].name) = ("b".to_owned(), "a".to_owned());
    assert_eq!(check(&before, &next), (true, false), "only the new NOT NULL, which new rows obey");
    next.columns[0].required = false;
    assert_eq!(check(&before, &next), (false, false));
}

#[test]
fn a_key_is_known_by_its_columns() {
    let keyed = |name: &str, columns: &[usize]| TableDefinition {
        unique: vec![UniqueKey { name: name.to_owned(), columns: columns.to_vec() }],
        ..table(&[], false)
    };
    assert_eq!(check(&table(&[], false), &keyed("k", &[0])), (true, true));
    assert_eq!(check(&keyed("k", &[0]), &keyed("l", &[0])), (false, false));
    assert_eq!(check(&keyed("k", &[0]), &keyed("k", &[1])), (true, true));
}

#[test]
fn only_what_asks_more_of_rows_takes_steps() {
    let steps = |before: &TableDefinition, next: &TableDefinition| Demands::between(before, next).are_all(before, next);
    let plain = table(&[("kept", "b > 0", true)], false);
    let mut next = table(&[("kept", "b > 0", true), ("c", "a > 0", true)], true);
    assert!(steps(&plain, &next));
    assert!(steps(&table(&[("kept", "b > 0", false)], false), &plain), "VALIDATE CONSTRAINT");
    next.columns[1].name = "x".to_owned();
    assert!(!steps(&plain, &next));
    assert!(!steps(&plain, &table(&[("c", "a > 0", true)], false)), "one constraint goes");
    let keyed = TableDefinition { unique: vec![UniqueKey { name: "k".to_owned(), columns: vec![0] }], ..plain.clone() };
    assert!(!steps(&plain, &keyed));
}

/// Writers insert rows that break the constraint until they are refused; then there must be none.
async fn no_row_slips_through(create: &str, alter: &str, insert: &str, broken: &str) {
    let world = world().await;
    let mut session = world.session();
    tag(&mut session, create).await;
    let altered = Arc::new(AtomicBool::new(false));
    let writers = (0..3).map(|_| {
        let (mut session, altered, insert) = (world.session(), Arc::clone(&altered), insert.to_owned());
        tokio::spawn(async move {
            let mut written = 0_u64;
            while !altered.load(Ordering::SeqCst) {
                match run(&mut session, &insert).await {
                    Ok(_) => written += 1,
                    Err(error) => {
                        let condition = error.into_report().condition;
                        let refused = [Condition::NotNullViolation, Condition::CheckViolation];
                        // Between two steps, and after the last.
                        assert!(refused.contains(&condition), "{condition:?}");
                        // A refusal waits for nothing; the node needs the thread as well.
                        tokio::task::yield_now().await;
                    }
                }
            }
            written
        })
    });
    let writers: Vec<_> = writers.collect();
    let outcome = run(&mut session, alter).await;
    altered.store(true, Ordering::SeqCst);
    let mut written = 0;
    for writer in writers {
        written += writer.await.expect("a writer");
    }
    let left = tag(&mut session, broken).await;
    match outcome {
        Ok(_) => assert_eq!(left, "n\n0", "{alter}: {written} rows were written"),
        Err(error) => {
            let condition = error.into_report().condition;
            assert!(matches!(condition, Condition::NotNullViolation | Condition::CheckViolation), "{condition:?}");
            assert_ne!(left, "n\n0", "{alter}");
            // Nothing is left of it: rows that would break it are written as before.
            tag(&mut session, insert).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn concurrent_rows_are_seen_or_refused() {
    for create in [
        "create table m (ts timestamptz not null default now(), v integer)",
        "create table m (v integer, ts timestamptz)",
    ] {
        for (alter, insert) in [
            ("alter table m alter v set not null", "insert into m (v) values (null)"),
            ("alter table m add check (v > 0)", "insert into m (v) values (0)"),
        ] {
            let broken = "select count(*) as n from m where v is null or v <= 0";
            no_row_slips_through(create, alter, insert, broken).await;
        }
    }
}

/// Rows that obey keep coming: the constraint is made all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_constraint_is_made_while_rows_keep_coming() {
    let world = world().await;
    let mut session = world.session();
    tag(&mut session, "create table m (ts timestamptz not null default now(), v integer)").await;
    let done = Arc::new(AtomicBool::new(false));
    let writers = (0..3).map(|_| {
        let (mut session, done) = (world.session(), Arc::clone(&done));
        tokio::spawn(async move {
            while !done.load(Ordering::SeqCst) {
                if let Err(error) = run(&mut session, "insert into m (v) values (1)").await {
                    // The table changed once more often than a statement is begun anew.
                    assert_eq!(error.into_report().condition, Condition::SerializationFailure);
                }
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    for round in 0..5 {
        tag(&mut session, &format!("alter table m add constraint c{round} check (v > 0), alter v set not null")).await;
        tag(&mut session, &format!("alter table m alter v drop not null, drop constraint c{round}")).await;
    }
    done.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.expect("a writer");
    }
    let left = "select conname from pg_constraint where conrelid = 'm'::regclass";
    assert_eq!(tag(&mut session, left).await, "conname", "no step is left behind");
}

/// In a block rows of others may come between the statement and COMMIT.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_come_before_commit_are_looked_at() {
    for create in ["create table m (ts timestamptz not null, v integer)", "create table m (v integer, ts timestamptz)"]
    {
        let world = world().await;
        let (mut session, mut other) = (world.session(), world.session());
        tag(&mut session, create).await;
        tag(&mut session, "begin; alter table m alter v set not null").await;
        tag(&mut other, "insert into m (ts, v) values (now(), null)").await;
        let refused = run(&mut session, "commit").await.expect_err("a row breaks it").into_report();
        assert_eq!(refused.message, "column \"v\" of relation \"m\" contains null values");
        tag(&mut other, "insert into m (ts, v) values (now(), null)").await;
        assert_eq!(tag(&mut other, "select count(*) as n from m where v is null").await, "n\n2");
    }
}

/// What was required holds after a restart, and rows that were deleted before do not come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_required_lasts() {
    let world = world().await;
    let mut session = world.session();
    tag(&mut session, "create table m (ts timestamptz not null, v integer)").await;
    tag(&mut session, "insert into m values ('2013-01-01', null), ('2013-01-01', 1)").await;
    tag(&mut session, "delete from m where v is null; alter table m alter v set not null").await;
    tag(&mut session, "alter table m add constraint positive check (v > 1) not valid").await;
    drop(session);
    let world = world.restarted().await;
    let mut session = world.session();
    for (sql, condition) in [
        ("insert into m values ('2013-01-01', null)", Condition::NotNullViolation),
        ("insert into m values ('2013-01-01', 1)", Condition::CheckViolation),
        ("alter table m validate constraint positive", Condition::CheckViolation),
    ] {
        let refused = run(&mut session, sql).await.expect_err("it breaks a constraint").into_report();
        assert_eq!(refused.condition, condition, "{sql}");
    }
    assert_eq!(
        tag(&mut session, "select annal.flush('m') is not null; select v from m").await.lines().last(),
        Some("1")
    );
}
