//! Tables that keep one row of each key against a plain map: over memory, segments, late rows, compaction, blocks and restarts.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::super::tests::{Numbers, World, run, tag, world};
use crate::error::Error;
use crate::session::Session;

const DAYS: u64 = 3;
const IDS: u64 = 5;

/// (id, hour) and what is there.
type Model = BTreeMap<(u64, u64), u64>;

struct Walk {
    numbers: Numbers,
    model: Model,
    keeps_last: bool,
    next: u64,
}

async fn compare(session: &mut Session, model: &Model, after: &str) {
    let mut expected: Vec<String> = model.iter().map(|((id, hour), v)| format!("{id}|{hour}|{v}")).collect();
    expected.sort();
    let hour = "cast((extract(epoch from ts) - extract(epoch from '2013-01-01'::timestamptz)) / 3600 as bigint)";
    let shown = tag(session, &format!("select id, {hour} as h, v from k")).await;
    let mut shown: Vec<&str> = shown.lines().skip(1).collect();
    shown.sort_unstable();
    assert_eq!(shown, expected, "after {after}");
    // What does not name the key is judged for the rows that are there, not for those whose place they took.
    let sum: u64 = model.values().filter(|v| *v % 2 == 0).sum();
    let all: u64 = model.values().sum();
    let counted = tag(session, "select count(*) as n, coalesce(sum(v), 0) as v from k where v % 2 = 0").await;
    let even = model.values().filter(|v| *v % 2 == 0).count();
    assert_eq!(counted, format!("n|v\n{even}|{sum}"), "after {after}");
    let counted = tag(session, "select count(*) as n, coalesce(sum(v), 0) as v from k").await;
    assert_eq!(counted, format!("n|v\n{}|{all}", model.len()), "after {after}");
    let counted = tag(session, "select count(*) as n from k where id = 2 and ts < '2013-01-02'").await;
    let few = model.keys().filter(|(id, hour)| *id == 2 && *hour < 24).count();
    assert_eq!(counted, format!("n\n{few}"), "after {after}");
}

impl Walk {
    /// Rows of any keys, some of them twice unless each shall come once.
    fn rows(&mut self, once: bool) -> Vec<((u64, u64), u64)> {
        let count = 1 + self.numbers.below(15);
        let mut rows: Vec<((u64, u64), u64)> = Vec::new();
        for _ in 0..count {
            let key = (self.numbers.below(IDS), self.numbers.below(24 * DAYS));
            self.next += 1;
            if !once || rows.iter().all(|(other, _)| *other != key) {
                rows.push((key, self.next));
            }
        }
        rows
    }

    fn put(&mut self, key: (u64, u64), v: u64) {
        match self.model.entry(key) {
            Entry::Vacant(vacant) => _ = vacant.insert(v),
            Entry::Occupied(mut occupied) if self.keeps_last => _ = occupied.insert(v),
            Entry::Occupied(_) => {}
        }
    }

    /// One statement, in the table and in the model.
    async fn step(&mut self, session: &mut Session) -> String {
        let (every, rest) = (2 + self.numbers.below(5), self.numbers.below(5));
        let from = self.numbers.below(24 * DAYS);
        let later = format!("ts >= '2013-01-01'::timestamptz + {from} * interval '1 hour'");
        let (sql, expected) = match self.numbers.below(8) {
            0..3 => {
                let rows = self.rows(false);
                rows.iter().for_each(|(key, v)| self.put(*key, *v));
                (insert(&rows), format!("INSERT 0 {}", rows.len()))
            }
            3 => {
                let rows = self.rows(false);
                let before = self.model.len();
                rows.iter().for_each(|(key, v)| _ = self.model.entry(*key).or_insert(*v));
                (format!("{} on conflict do nothing", insert(&rows)), format!("INSERT 0 {}", self.model.len() - before))
            }
            4 => {
                let rows = self.rows(true);
                rows.iter().for_each(|(key, v)| *self.model.entry(*key).or_insert(0) += v);
                let sql = format!("{} on conflict (id, ts) do update set v = k.v + excluded.v", insert(&rows));
                (sql, format!("INSERT 0 {}", rows.len()))
            }
            5 => {
                let before = self.model.len();
                self.model.retain(|(_, hour), v| *v % every != rest || *hour < from);
                let sql = format!("delete from k where v % {every} = {rest} and {later}");
                (sql, format!("DELETE {}", before - self.model.len()))
            }
            6 => {
                let before = self.model.len();
                self.model.retain(|(id, hour), _| id % every != rest || *hour < from);
                let sql = format!("delete from k as d where d.id % {every} = {rest} and {later}");
                (sql, format!("DELETE {}", before - self.model.len()))
            }
            _ => {
                let changed = self.model.iter_mut().filter(|((id, hour), _)| id % every == rest && *hour >= from);
                let count = changed.map(|(_, v)| *v += 1).count();
                (format!("update k set v = v + 1 where id % {every} = {rest} and {later}"), format!("UPDATE {count}"))
            }
        };
        assert_eq!(tag(session, &sql).await, expected, "{sql}");
        sql
    }
}

fn insert(rows: &[((u64, u64), u64)]) -> String {
    let row = |((id, hour), v): &((u64, u64), u64)| {
        format!("({id}, '2013-01-01'::timestamptz + {hour} * interval '1 hour', {v})")
    };
    format!("insert into k (id, ts, v) values {}", rows.iter().map(row).collect::<Vec<_>>().join(", "))
}

async fn walk(seed: u64, keeps: &str) {
    let mut world: World = world().await;
    let mut session = world.session();
    let create = format!(
        "create table k (ts timestamptz, id bigint, v bigint, primary key (id, ts)) with (dedup = '{keeps}', split_interval = '1 day')"
    );
    tag(&mut session, &create).await;
    let mut walk = Walk { numbers: Numbers(seed), model: Model::new(), keeps_last: keeps == "last", next: 0 };
    for _ in 0..60 {
        let did = match walk.numbers.below(10) {
            0 | 1 => tag(&mut session, "select annal.flush() is null as done").await,
            2 => tag(&mut session, "select annal.compact('k') is null as done").await,
            3 => {
                drop(session);
                world = world.restarted().await;
                session = world.session();
                "a restart".to_owned()
            }
            4 => {
                let kept = walk.model.clone();
                tag(&mut session, "begin").await;
                walk.step(&mut session).await;
                tag(&mut session, "savepoint a").await;
                let at_savepoint = walk.model.clone();
                walk.step(&mut session).await;
                walk.step(&mut session).await;
                compare(&mut session, &walk.model, "changes in a block").await;
                if walk.numbers.below(2) == 0 {
                    walk.model = at_savepoint;
                    tag(&mut session, "rollback to a").await;
                }
                if walk.numbers.below(3) == 0 {
                    walk.model = kept;
                    tag(&mut session, "rollback").await
                } else {
                    match run(&mut session, "commit").await {
                        Ok(tag) => tag,
                        // Compaction took deleted rows away meanwhile: whether those of the block were among them does not show.
                        Err(Error::Cluster(cluster::Error::Conflict)) => {
                            walk.model = kept;
                            "a commit that has to be repeated".to_owned()
                        }
                        Err(error) => panic!("commit: {error:?}"),
                    }
                }
            }
            _ => walk.step(&mut session).await,
        };
        compare(&mut session, &walk.model, &did).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_row_of_a_key_is_there() {
    for seed in 1..3 {
        walk(seed, "last").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_row_of_a_key_is_there() {
    for seed in 11..13 {
        walk(seed, "first").await;
    }
}

/// Sealed pieces without overlap are read as they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pieces_that_share_no_key_are_read_as_they_are() {
    let world = world().await;
    let mut session = world.session();
    tag(
        &mut session,
        "create table k (ts timestamptz, id bigint, v bigint, primary key (id, ts)) with (dedup = 'last')",
    )
    .await;
    let plan = "explain select sum(v) from k";
    tag(&mut session, &insert(&[((1, 1), 1), ((1, 1), 2), ((1, 30), 3)])).await;
    assert!(tag(&mut session, plan).await.contains("DedupExec: keeps=last, key=[id, ts]"));
    tag(&mut session, "select annal.flush()").await;
    let mixed = tag(&mut session, plan).await;
    assert!(mixed.contains("DedupExec") && mixed.contains("UnionExec"), "{mixed}");
    tag(&mut session, "select annal.compact('k')").await;
    let whole = tag(&mut session, plan).await;
    assert!(!whole.contains("DedupExec"), "{whole}");
    // Only the split with a second row of a key is looked at.
    tag(&mut session, &insert(&[((1, 1), 9)])).await;
    let mixed = tag(&mut session, plan).await;
    assert!(mixed.contains("DedupExec") && mixed.contains("UnionExec"), "{mixed}");
    assert_eq!(tag(&mut session, "select sum(v) as v from k").await, "v\n12");
}
