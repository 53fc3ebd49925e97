//! DELETE and UPDATE against a plain list of rows, over memory, segments, compaction and restarts.

use super::super::tests::{Numbers, World, tag, world};
use crate::session::Session;

const SPLITS: u64 = 4;

/// What the table must hold: (hour, id, value).
type Model = Vec<(u64, u64, u64)>;

async fn compare(session: &mut Session, model: &Model, after: &str) {
    let mut expected: Vec<String> = model.iter().map(|(_, id, value)| format!("{id}|{value}")).collect();
    expected.sort();
    expected.insert(0, "id|v".to_owned());
    let shown = tag(session, "select id, v from k order by id::text || '|' || v::text").await;
    let mut shown: Vec<&str> = shown.lines().collect();
    shown[1..].sort_unstable();
    assert_eq!(shown, expected, "after {after}");
    let counted = tag(session, "select count(*) as n from k").await;
    assert_eq!(counted, format!("n\n{}", model.len()), "after {after}");
}

fn rows(numbers: &mut Numbers, next: &mut u64, model: &mut Model) -> String {
    let count = 1 + numbers.below(20);
    let rows = (0..count).map(|_| {
        let (hour, id) = (numbers.below(24 * SPLITS), *next);
        *next += 1;
        model.push((hour, id, 0));
        format!("('2013-01-01'::timestamptz + {hour} * interval '1 hour', {id}, 0)")
    });
    format!("insert into k values {}", rows.collect::<Vec<_>>().join(", "))
}

/// One change, in the table and in the model.
async fn step(numbers: &mut Numbers, next: &mut u64, session: &mut Session, model: &mut Model) -> String {
    let (every, rest) = (2 + numbers.below(9), numbers.below(9));
    let hours = (numbers.below(24 * SPLITS), numbers.below(24 * SPLITS));
    let during = format!(
        "ts >= '2013-01-01'::timestamptz + {} * interval '1 hour' and ts < '2013-01-01'::timestamptz + {} * interval '1 hour'",
        hours.0, hours.1
    );
    let is_during = |hour: u64| hour >= hours.0 && hour < hours.1;
    let before = model.len();
    let (sql, expected) = match numbers.below(6) {
        0..3 => {
            let sql = rows(numbers, next, model);
            (sql, format!("INSERT 0 {}", model.len() - before))
        }
        3 => {
            model.retain(|(_, id, _)| id % every != rest);
            (format!("delete from k where id % {every} = {rest}"), format!("DELETE {}", before - model.len()))
        }
        4 => {
            model.retain(|(hour, _, _)| !is_during(*hour));
            (format!("delete from k where {during}"), format!("DELETE {}", before - model.len()))
        }
        _ => {
            let changed = model.iter_mut().filter(|(hour, id, _)| id % every == rest && is_during(*hour));
            let count = changed.map(|row| row.2 += 1).count();
            (format!("update k set v = v + 1 where id % {every} = {rest} and {during}"), format!("UPDATE {count}"))
        }
    };
    assert_eq!(tag(session, &sql).await, expected, "{sql}");
    sql
}

async fn walk(seed: u64) {
    let mut world: World = world().await;
    let mut session = world.session();
    let (mut numbers, mut next, mut model) = (Numbers(seed), 0, Model::new());
    let create = "create table k (ts timestamptz not null, id bigint not null, v bigint, primary key (id, ts))";
    tag(&mut session, create).await;
    for _ in 0..70 {
        let did = match numbers.below(12) {
            0 => tag(&mut session, "select annal.flush() is null as done").await,
            1 => tag(&mut session, "select annal.compact('k') is null as done").await,
            2 => {
                drop(session);
                world = world.restarted().await;
                session = world.session();
                "a restart".to_owned()
            }
            3 => {
                let kept = model.clone();
                tag(&mut session, "begin").await;
                step(&mut numbers, &mut next, &mut session, &mut model).await;
                tag(&mut session, "savepoint a").await;
                let at_savepoint = model.clone();
                step(&mut numbers, &mut next, &mut session, &mut model).await;
                step(&mut numbers, &mut next, &mut session, &mut model).await;
                compare(&mut session, &model, "changes in a block").await;
                if numbers.below(2) == 0 {
                    model = at_savepoint;
                    tag(&mut session, "rollback to a").await;
                    compare(&mut session, &model, "rollback to a savepoint").await;
                }
                if numbers.below(3) == 0 {
                    model = kept;
                    tag(&mut session, "rollback").await
                } else {
                    tag(&mut session, "commit").await
                }
            }
            _ => step(&mut numbers, &mut next, &mut session, &mut model).await,
        };
        compare(&mut session, &model, &did).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_agree_with_a_plain_list() {
    for seed in 1..4 {
        walk(seed).await;
    }
}

/// Many sessions count one number up: no change is lost, none is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_updates_are_evaluated_again() {
    let world = world().await;
    let mut first = world.session();
    tag(&mut first, "create table c (n bigint)").await;
    tag(&mut first, "insert into c values (0)").await;
    let sessions = (0..8).map(|_| {
        let mut session = world.session();
        async move {
            for _ in 0..5 {
                assert_eq!(tag(&mut session, "update c set n = n + 1").await, "UPDATE 1");
            }
        }
    });
    futures::future::join_all(sessions).await;
    assert_eq!(tag(&mut first, "select n from c").await, "n\n40");
}
