//! Transactions of several groups, as one of them sees them.

use event::{NodeId, SplitId, StatementId};

use super::world::{World, append, bulk, keyed, put};
use super::*;
use crate::command::{Command, Delete, Joined};
use crate::sequences::SequenceSet;

fn transaction(counter: u64) -> StatementId {
    StatementId { node: NodeId(2), boot: 1, counter }
}

fn prepare(counter: u64, commands: Vec<Command>) -> Vec<Command> {
    let first = Command::Prepare { transaction: transaction(counter), decider: GroupId(7), until_us: 1000 };
    std::iter::once(first).chain(commands).collect()
}

fn conclude(counter: u64, commit: bool) -> Vec<Command> {
    let joined = vec![Joined { group: GroupId(7), index: 40 }];
    vec![Command::Conclude { transaction: transaction(counter), commit, joined }]
}

/// The world as a restart from its newest checkpoint and the log behind that finds it.
fn restarted(world: &World) -> World {
    let checkpoint = world.shards.checkpoint().unwrap();
    let mut again = World::new();
    again.shards = Shards::restore(GroupId(1), &checkpoint.bytes).unwrap();
    again.objects = world.objects.clone();
    again.log = world.log.clone();
    for (index, bytes) in (1..).zip(&world.log).filter(|(index, _)| *index > checkpoint.seal) {
        again.shards.apply(index, &crate::Entry::decode(bytes).unwrap());
    }
    again
}

#[test]
fn a_part_is_seen_when_it_is_concluded_and_not_before() {
    let mut world = world();
    assert_eq!(world.run(prepare(1, append(1, 1, &[1, 2]))), DONE);
    assert_eq!(world.run(prepare(2, append(1, 1, &[3]))), DONE);
    assert_eq!(times(&world, 1), Vec::<i64>::new());
    assert_eq!(world.run(prepare(1, append(1, 1, &[1, 2]))), DONE, "it may be repeated");
    assert_eq!(world.run(append(1, 1, &[9])), done(1), "others go on");
    assert_eq!(world.run(conclude(1, true)), done(2));
    assert_eq!(world.run(conclude(1, true)), DONE, "once");
    assert_eq!(world.run(conclude(2, false)), DONE);
    assert_eq!(world.run(conclude(2, true)), DONE, "it is forgotten");
    assert_eq!(times(&world, 1), [1, 2, 9]);
    assert!(world.reader().joint().prepared.is_empty());
}

#[test]
fn a_checkpoint_keeps_what_waits_for_a_decision() {
    let mut world = world();
    world.run(prepare(1, append(1, 1, &[1, 2])));
    let staged = bulk(&mut world, 2, 1, &[5, 1005]);
    world.run(prepare(2, staged));
    world.run(append(1, 1, &[3]));
    world.seal();
    world.install();
    let waiting = world.reader().checkpoint_segments().unwrap().1;
    assert_eq!(waiting.len(), 3, "one of the seal, two that will be installed");
    let bytes = world.shards.checkpoint().unwrap().bytes;
    assert_eq!(crate::checkpoint_segments(&bytes).unwrap().len(), 3);
    assert!(waiting.iter().all(|segment| world.reader().pinned(&segment.meta.name).as_ref() == Some(&segment.meta)));
    let mut again = restarted(&world);
    for world in [&mut world, &mut again] {
        assert_eq!(world.run(conclude(1, true)), done(2));
        assert_eq!(world.run(conclude(2, true)), done(2));
        assert_eq!((times(world, 1), times(world, 2)), (vec![1, 2, 3], vec![5, 1005]));
    }
    assert_eq!(world.contents(1), again.contents(1));
    assert_eq!(world.contents(2), again.contents(2));
}

#[test]
fn a_part_is_checked_when_it_is_prepared() {
    let mut world = world();
    let refused = Outcome::SchemaMismatch { version: Some(SchemaVersion(1)) };
    assert_eq!(world.run(prepare(1, append(1, 2, &[1]))), refused);
    assert!(world.reader().joint().prepared.is_empty());
    let late = vec![Command::Prepare { transaction: transaction(2), decider: GroupId(7), until_us: 0 }];
    assert_eq!(world.run(late), Outcome::Conflict, "nobody could commit it any more");
    assert!(matches!(world.run(prepare(3, vec![Command::Seal])), Outcome::Invalid { .. }));
    let inside = append(1, 1, &[1]).into_iter().chain(conclude(1, true)).collect();
    assert!(matches!(world.run(inside), Outcome::Invalid { .. }));
}

#[test]
fn a_part_follows_tables_that_were_altered_or_dropped_meanwhile() {
    let mut world = world();
    let both = append(1, 1, &[1]).into_iter().chain(append(2, 1, &[2])).collect();
    world.run(prepare(1, both));
    let staged = bulk(&mut world, 1, 1, &[5]);
    world.run(prepare(2, staged));
    assert_eq!(world.run(put(1, 2)), DONE);
    assert_eq!(world.run(vec![Command::Schema(SchemaChange::Drop { shard: ShardId(2) })]), DONE);
    assert_eq!(world.run(conclude(1, true)), done(1));
    assert_eq!(world.run(conclude(2, true)), done(1));
    assert_eq!(times(&world, 1), [1, 5]);
    assert_eq!(world.contents(2), None);
}

#[test]
fn rows_that_a_part_deletes_cannot_be_deleted_by_others() {
    let mut world = world();
    world.run(append(1, 1, &[1, 2, 3]));
    let delete = |first: u64, last: u64| {
        let splits = vec![(SplitId(0), SequenceSet::range((3 << 24) + first, (3 << 24) + last))];
        vec![Command::Delete(Delete { shard: ShardId(1), version: SchemaVersion(1), read: 3, splits })]
    };
    assert_eq!(world.run(prepare(1, delete(0, 1))), DONE);
    assert_eq!(world.run(delete(1, 2)), Outcome::Conflict);
    assert_eq!(world.run(prepare(2, delete(1, 2))), Outcome::Conflict);
    assert_eq!(world.run(delete(2, 2)), DONE, "other rows can");
    assert_eq!(world.run(conclude(1, true)), DONE);
    let deleted = world.reader().snapshot(ShardId(1)).unwrap().1.deleted[&SplitId(0)].len();
    assert_eq!(deleted, 3);
}

#[test]
fn where_a_part_has_looked_at_all_keys_nobody_brings_rows() {
    let mut world = World::new();
    let append = keyed(&mut world);
    let expect = |index: u64| Command::Expect { shard: ShardId(9), index };
    assert_eq!(world.run(prepare(1, vec![expect(1), append(1)])), DONE);
    assert_eq!(world.run(vec![expect(1), append(1)]), Outcome::Conflict);
    assert_eq!(world.run(vec![append(1)]), Outcome::Conflict);
    assert_eq!(world.run(conclude(1, true)), done(1));
    assert_eq!(world.run(vec![expect(1), append(2)]), Outcome::Conflict, "rows came");
    assert_eq!(world.run(vec![append(2)]), done(1));
}

#[test]
fn a_decision_is_made_in_time_or_not_at_all() {
    let mut world = world();
    let decide = |commit, until_us| {
        let joined = vec![Joined { group: GroupId(3), index: 5 }];
        vec![Command::Decide { transaction: transaction(1), commit, until_us, joined }]
    };
    assert_eq!(world.run(decide(true, 1)), Outcome::Conflict, "entry times are indexes here");
    assert_eq!(world.run(decide(false, 5)), DONE);
    assert_eq!(world.run(decide(true, 9)), Outcome::Conflict, "who refused was first");
    world.run(vec![Command::Settle { transaction: transaction(1) }]);
    assert_eq!(world.reader().decisions().len(), 0, "nobody can commit it any more");
}

#[test]
fn what_a_transaction_added_can_be_hidden() {
    let mut world = world();
    world.run(append(1, 1, &[1, 1001]));
    world.run(prepare(1, append(1, 1, &[2, 1002, 3])));
    let staged = bulk(&mut world, 2, 1, &[5, 1005]);
    world.run(prepare(2, staged));
    world.run(conclude(1, true));
    world.run(conclude(2, true));
    // Wherever the rows lie by now.
    world.seal();
    world.install();
    world.run(append(1, 1, &[4]));
    let (cuts, view) = world.reader().cut_of(&[ShardId(1), ShardId(2)]);
    assert_eq!(view.traces.len(), 2);
    let hidden = |trace: usize, shard: usize| {
        let mut snapshot = cuts[shard].as_ref().unwrap().1.clone();
        assert!(view.traces[trace].can_be_hidden());
        view.traces[trace].hide(&mut snapshot);
        snapshot.deleted.values().map(|rows| rows.len()).sum::<u64>()
    };
    // A set of consecutive numbers for each of two splits; the rows in them are counted by the next test that reads them.
    assert_eq!((hidden(0, 0), hidden(0, 1), hidden(1, 0)), (6, 0, 0));
    assert_eq!(hidden(1, 1), 4);
    assert!(!view.lacks(&transaction(1), 5) && view.lacks(&transaction(1), 500));
}
