//! Scenarios. What a random log leads to, and what a restart makes of it, is in `replay`.

mod joint;
mod replay;
mod world;

use event::{ColumnType, TableKind};

use self::world::{World, append, bulk, keyed, versioned};
use super::*;
use crate::command::{Command, Delete, Entry, Install, Joined, SchemaChange};
use crate::testing::{INTERVAL_US, small_rows, table};

const DONE: Outcome = Outcome::Done { rows: 0 };

fn done(rows: u64) -> Outcome {
    Outcome::Done { rows }
}

/// A group with shard 1 (table 1) and shard 2 (table 2), both at version 1.
fn world() -> World {
    let mut world = World::new();
    assert_eq!(world.run(world::put(1, 1)), DONE);
    assert_eq!(world.run(world::put(2, 1)), DONE);
    world
}

fn times(world: &World, shard: u64) -> Vec<i64> {
    let lines = world.contents(shard).unwrap();
    let mut times: Vec<i64> = lines.iter().map(|line| line.split('|').next().unwrap().parse().unwrap()).collect();
    times.sort_unstable();
    times
}

#[test]
fn rows_lie_in_their_splits() {
    let mut world = world();
    assert_eq!(world.run(append(1, 1, &[5, 1999, 7, -1, 1000])), done(5));
    let (table, snapshot) = world.reader().snapshot(ShardId(1)).unwrap();
    assert_eq!((table.version, snapshot.index), (SchemaVersion(1), 3));
    let splits: Vec<_> = snapshot.memory.iter().map(|m| (m.split.0, m.rows, m.time_min_us, m.time_max_us)).collect();
    assert_eq!(splits, [(-1, 1, Some(-1), Some(-1)), (0, 2, Some(5), Some(7)), (1, 2, Some(1000), Some(1999))]);
    assert_eq!(world.contents(2).unwrap(), Vec::<String>::new());
    assert_eq!(world.contents(3), None);
}

#[test]
fn reference_rows_lie_in_split_0() {
    let mut world = World::new();
    let columns = [("k", ColumnType::BigInt, false)];
    let definition = Arc::new(table(9, &columns, TableKind::Reference));
    world.run(vec![Command::Schema(SchemaChange::Put { shard: ShardId(9), table: Arc::clone(&definition) })]);
    let keys: arrow::array::ArrayRef = Arc::new(arrow::array::Int64Array::from(vec![i64::MAX, 3]));
    let rows = arrow::array::RecordBatch::try_new(definition.arrow_schema(), vec![keys]).unwrap();
    world.run(vec![Command::Append { shard: ShardId(9), version: SchemaVersion(1), rows }]);
    let snapshot = world.reader().snapshot(ShardId(9)).unwrap().1;
    assert_eq!(snapshot.memory.len(), 1);
    assert_eq!((snapshot.memory[0].split.0, snapshot.memory[0].time_min_us), (0, None));
    world.seal();
    assert_eq!(world.install(), done(2));
    assert_eq!(world.reader().snapshot(ShardId(9)).unwrap().1.segments[0].meta.time_min_us, None);
}

#[test]
fn a_statement_that_expects_no_rows_since_is_refused_when_some_came() {
    let mut world = World::new();
    let append = keyed(&mut world);
    let expect = |index: u64| Command::Expect { shard: ShardId(9), index };
    assert_eq!(world.run(vec![expect(1), append(1)]), done(1), "entry 2");
    assert_eq!(world.run(vec![expect(1), append(2)]), Outcome::Conflict);
    // Of two statements in one entry the second did not see the first.
    let both = world.run_entry(vec![vec![expect(3), append(2)], vec![expect(3), append(3)]]);
    assert_eq!(both, [done(1), Outcome::Conflict]);
    world.seal();
    world.install();
    let mut restored = Shards::restore(GroupId(1), &world.shards.checkpoint().unwrap().bytes).unwrap();
    std::mem::swap(&mut world.shards, &mut restored);
    assert_eq!(world.run(vec![expect(3), append(3)]), Outcome::Conflict, "a restart does not forget");
    assert_eq!(world.run(vec![expect(4), append(3)]), done(1));
}

#[test]
fn rows_of_events_are_expected_by_shard() {
    let mut world = world();
    let expect = |shard: u64, index: u64| vec![Command::Expect { shard: ShardId(shard), index }];
    let before = world.log.len() as u64;
    assert_eq!(world.run(append(1, 1, &[1])), done(1));
    assert_eq!(world.run(expect(1, before)), Outcome::Conflict);
    assert_eq!(world.run(expect(2, before)), done(0), "another shard");
    assert_eq!(world.run(expect(1, before + 1)), done(0));
    world.seal();
    world.install();
    assert_eq!(world.run(expect(1, before)), Outcome::Conflict, "wherever the rows lie");
    assert_eq!(world.run(expect(1, before + 1)), done(0));
}

#[test]
fn sequence_numbers_count_within_entry_and_shard() {
    let mut world = world();
    let statements = vec![append(1, 1, &[1]), append(2, 1, &[2]), append(1, 7, &[3]), append(1, 1, &[4, 5])];
    let outcomes = world.run_entry(statements);
    assert_eq!(outcomes[2], Outcome::SchemaMismatch { version: Some(SchemaVersion(1)) });
    let base = 3 << 24;
    let expected: Vec<String> =
        [("1|h1|1", 0), ("4|h1|4", 1), ("5|h2|5", 2)].map(|(row, n)| format!("{row}|{}", base + n)).into();
    assert_eq!(world.contents(1).unwrap(), expected);
    assert_eq!(world.contents(2).unwrap(), [format!("2|h2|2|{base}")]);
}

#[test]
fn a_refused_statement_leaves_no_trace() {
    let mut world = world();
    let before = (world.contents(1), world.reader().figures());
    let mut commands = append(1, 1, &[1]);
    commands.extend(world::put(3, 1));
    commands.extend(world::put(1, 2));
    commands.push(Command::Schema(SchemaChange::Drop { shard: ShardId(2) }));
    commands.push(Command::Seal);
    commands.extend(append(1, 1, &[2]));
    assert_eq!(world.run(commands), Outcome::SchemaMismatch { version: Some(SchemaVersion(2)) });
    assert_eq!((world.contents(1), world.reader().figures()), before);
    assert_eq!(world.reader().snapshot(ShardId(3)).map(|s| s.0.version), None);
    assert_eq!(world.run(append(2, 1, &[1])), done(1));
}

#[test]
fn rows_of_another_shape_are_refused() {
    let mut world = world();
    let rows = small_rows(&[1]).project(&[0, 1]).unwrap();
    let command = Command::Append { shard: ShardId(1), version: SchemaVersion(1), rows };
    assert!(matches!(world.run(vec![command]), Outcome::Invalid { .. }));
    assert_eq!(world.contents(1).unwrap().len(), 0);
}

#[test]
fn late_rows_open_a_sealed_split_again() {
    let mut world = world();
    world.run(append(1, 1, &[1, 2]));
    world.seal();
    world.run(append(1, 1, &[3]));
    assert_eq!(times(&world, 1), [1, 2, 3]);
    let snapshot = world.reader().snapshot(ShardId(1)).unwrap().1;
    assert_eq!((snapshot.memory.len(), snapshot.memory[0].rows), (1, 3));
    assert_eq!(world.install(), done(2));
    assert_eq!(times(&world, 1), [1, 2, 3]);
    world.seal();
    assert_eq!(world.install(), done(1));
    let snapshot = world.reader().snapshot(ShardId(1)).unwrap().1;
    assert_eq!((snapshot.memory.len(), snapshot.segments.len()), (0, 2));
    assert_eq!(times(&world, 1), [1, 2, 3]);
}

#[test]
fn seals_install_in_order_and_once() {
    let mut world = world();
    world.run(append(1, 1, &[1]));
    world.seal();
    let first = world.install_commands();
    world.run(append(1, 1, &[2]));
    world.seal();
    let second = Install { seal: Some(6), segments: Vec::new() };
    assert!(matches!(world.run(vec![Command::Install(second)]), Outcome::Invalid { .. }), "out of order");
    assert_eq!(world.run(first.clone()), done(1));
    assert_eq!(world.run(first), DONE, "installed already");
    assert_eq!(world.reader().figures().seals_outstanding, 1);
    assert_eq!(world.install(), done(1));
    assert_eq!(times(&world, 1), [1, 2]);
    assert_eq!(world.shards.checkpoint().unwrap().seal, 6);
}

#[test]
fn an_install_covers_whole_splits() {
    let mut world = world();
    world.run(append(1, 1, &[1, 2, 1001]));
    world.seal();
    let Command::Install(install) = world.install_commands().remove(0) else { panic!("no install") };
    let refused = |world: &mut World, meta: SegmentMeta| {
        let install = Install { segments: vec![install.segments[1].clone(), meta], ..install.clone() };
        assert!(matches!(world.run(vec![Command::Install(install)]), Outcome::Invalid { .. }));
        assert_eq!(world.reader().figures().segments, 0);
    };
    refused(&mut world, SegmentMeta { rows: 1, ..install.segments[0].clone() });
    refused(&mut world, SegmentMeta { split: event::SplitId(5), ..install.segments[0].clone() });
    refused(&mut world, install.segments[1].clone());
    assert!(matches!(world.run(vec![Command::Install(install.clone()); 2]), Outcome::Invalid { .. }), "twice");
    assert_eq!(times(&world, 1), [1, 2, 1001]);
    assert_eq!(world.run(vec![Command::Install(install)]), done(3));
}

#[test]
fn a_seal_can_be_installed_in_parts() {
    let mut world = world();
    world.run(append(1, 1, &[1, 1001, 2001]));
    world.seal();
    let Command::Install(install) = world.install_commands().remove(0) else { panic!("no install") };
    let part = Install { segments: install.segments[1..2].to_vec(), ..install.clone() };
    assert_eq!(world.run(vec![Command::Install(part.clone())]), done(1));
    assert!(matches!(world.run(vec![Command::Install(part)]), Outcome::Invalid { .. }), "again");
    assert_eq!((world.reader().frozen().unwrap().splits.len(), world.shards.checkpoint()), (2, None));
    assert_eq!(times(&world, 1), [1, 1001, 2001]);
    assert_eq!(world.install(), done(2));
    assert_eq!(world.shards.checkpoint().unwrap().seal, 4);
    let restored = Shards::restore(GroupId(1), &world.shards.checkpoint().unwrap().bytes).unwrap();
    assert_eq!(world::contents(&restored.reader(), 1, &world.objects), world.contents(1));
}

#[test]
fn a_seal_takes_the_whole_entry() {
    let mut world = world();
    world.run_entry(vec![append(1, 1, &[1]), vec![Command::Seal], append(1, 1, &[2]), vec![Command::Seal]]);
    let figures = world.reader().figures();
    assert_eq!((figures.open_rows, figures.frozen_rows, figures.seals_outstanding), (0, 2, 1));
    world.install();
    let restored = Shards::restore(GroupId(1), &world.shards.checkpoint().unwrap().bytes).unwrap();
    assert_eq!(world::contents(&restored.reader(), 1, &world.objects), world.contents(1));
}

#[test]
fn a_seal_without_rows_makes_a_checkpoint_too() {
    let mut world = world();
    world.seal();
    assert_eq!(world.reader().frozen().unwrap().splits.len(), 0);
    assert_eq!(world.install(), DONE);
    assert_eq!(world.shards.checkpoint().unwrap().seal, 3);
}

#[test]
fn dropping_frees_memory_and_lets_the_seal_go_on() {
    let mut world = world();
    world.run(append(1, 1, &[1]));
    world.run(append(2, 1, &[1]));
    world.seal();
    let install = world.install_commands();
    world.run(vec![Command::Schema(SchemaChange::Drop { shard: ShardId(1) })]);
    assert_eq!(world.contents(1), None);
    assert_eq!(world.reader().figures().frozen_rows, 1);
    assert_eq!(world.run(append(1, 1, &[1])), Outcome::SchemaMismatch { version: None });
    assert_eq!(world.run(world::put(1, 1)), Outcome::SchemaMismatch { version: None }, "never revived");
    assert_eq!(world.run(install), done(1));
    assert_eq!(times(&world, 2), [1]);
    assert!(world.reader().live_segments().iter().all(|name| name.starts_with("2/")));
}

#[test]
fn staged_segments_become_visible_at_their_index() {
    let mut world = world();
    let commands = bulk(&mut world, 1, 1, &[1, 2, 1003]);
    let stale = bulk(&mut world, 1, 1, &[4]);
    assert_eq!(world.run(commands), done(3));
    let base = 3u64 << 24;
    let expected: Vec<String> =
        [("1003|h1|1003", 2), ("1|h1|1", 0), ("2|h2|2", 1)].map(|(row, n)| format!("{row}|{}", base + n)).into();
    assert_eq!(world.contents(1).unwrap(), expected);
    world.run(world::put(1, 2));
    assert_eq!(world.run(stale), Outcome::SchemaMismatch { version: Some(SchemaVersion(2)) });
}

#[test]
fn staged_segments_outside_their_split_are_refused() {
    let mut world = world();
    let mut commands = bulk(&mut world, 1, 1, &[1]);
    let Command::Install(install) = &mut commands[0] else { panic!("no install") };
    install.segments[0].split = event::SplitId(1);
    assert!(matches!(world.run(commands), Outcome::Invalid { .. }));
}

#[test]
fn a_newer_schema_adapts_rows_in_memory() {
    let mut world = world();
    world.run(append(1, 1, &[1]));
    world.seal();
    world.run(append(1, 1, &[2]));
    assert_eq!(world.run(world::put(1, 2)), DONE);
    assert_eq!(world.run(world::put(1, 1)), DONE, "an older version is there already");
    world.run(append(1, 2, &[3]));
    let (table, snapshot) = world.reader().snapshot(ShardId(1)).unwrap();
    assert_eq!(table.version, SchemaVersion(2));
    let columns: Vec<usize> = snapshot.memory[0].batches.iter().map(|batch| batch.num_columns()).collect();
    assert!(columns.iter().all(|count| *count == 5), "{columns:?}");
    assert_eq!(world.contents(1).unwrap().len(), 3);
    assert_eq!(world.install(), done(1));
    assert_eq!(world.contents(1).unwrap().len(), 3);
    let mut narrower = versioned(1, 3);
    narrower.columns[1].nullable = false;
    let put = Command::Schema(SchemaChange::Put { shard: ShardId(1), table: Arc::new(narrower) });
    assert_eq!(world.run(vec![put]), Outcome::SchemaMismatch { version: Some(SchemaVersion(2)) });
}

#[test]
fn a_snapshot_stays_as_it_was() {
    let mut world = world();
    world.run(append(1, 1, &[1]));
    let reader = world.reader();
    let snapshot = reader.snapshot(ShardId(1)).unwrap().1;
    world.run(append(1, 1, &[2]));
    world.seal();
    world.install();
    assert_eq!((snapshot.index, snapshot.memory[0].rows, snapshot.segments.len()), (3, 1, 0));
    assert_eq!(crate::testing::lines(&snapshot.memory[0].batches, 0).len(), 1);
    assert_eq!(reader.applied(), world.reader().applied());
}

#[test]
fn figures_tell_when_to_seal() {
    let mut world = world();
    world.run(append(1, 1, &[1, 2]));
    world.run(append(1, 1, &[1500]));
    let figures = world.reader().figures();
    assert_eq!((figures.open_rows, figures.open_splits, figures.open_since_us), (3, 2, Some(3)));
    assert!(figures.open_bytes > 3 * 16);
    assert_eq!(world.reader().ended_since_us(INTERVAL_US - 1), None);
    assert_eq!(world.reader().ended_since_us(INTERVAL_US), Some(3));
    world.seal();
    let sealed = world.reader().figures();
    assert_eq!((sealed.open_rows, sealed.frozen_rows, sealed.frozen_bytes), (0, 3, figures.open_bytes));
    assert_eq!((sealed.sealed, sealed.checkpointed, sealed.seals_outstanding), (5, 0, 1));
    world.install();
    let installed = world.reader().figures();
    assert_eq!((installed.frozen_bytes, installed.segments, installed.checkpointed), (0, 2, 5));
}

#[test]
fn segments_are_pinned_while_anything_names_them() {
    let mut world = world();
    world.run(append(1, 1, &[1]));
    world.seal();
    world.install();
    let reader = world.reader();
    let snapshot = reader.snapshot(ShardId(1)).unwrap().1;
    let name = snapshot.segments[0].meta.name.clone();
    assert_eq!(reader.live_segments(), vec![name.clone()]);
    world.run(vec![Command::Schema(SchemaChange::Drop { shard: ShardId(1) })]);
    assert_eq!(reader.live_segments(), vec![name.clone()], "the checkpoint still names it");
    world.seal();
    world.install();
    assert_eq!(reader.live_segments(), vec![name.clone()], "the newer checkpoint is not saved");
    world.shards.checkpoint_saved(world.shards.checkpoint().unwrap().seal);
    assert_eq!(reader.live_segments(), Vec::<String>::new());
    assert!(reader.is_pinned(&name), "the snapshot still reads it");
    drop(snapshot);
    assert!(!reader.is_pinned(&name));
}

#[test]
fn a_checkpoint_of_version_1_opens() {
    let mut world = world();
    world.run(append(1, 1, &[1, 1001]));
    world.run(vec![Command::Schema(SchemaChange::Drop { shard: ShardId(2) })]);
    world.seal();
    world.install();
    let checkpoint = world.shards.checkpoint().unwrap();
    let golden = crate::testing::golden("checkpoint-v1.bin", &checkpoint.bytes);
    let restored = Shards::restore(GroupId(1), &golden).unwrap().reader();
    assert_eq!(restored.applied(), checkpoint.seal);
    let segments = |reader: &ShardsReader| {
        let snapshot = reader.snapshot(ShardId(1)).unwrap().1;
        snapshot.segments.iter().map(|segment| (segment.meta.split, segment.meta.rows)).collect::<Vec<_>>()
    };
    assert_eq!(segments(&restored), segments(&world.reader()));
    assert_eq!(restored.shards(), world.reader().shards());
}

#[test]
fn a_damaged_checkpoint_is_refused() {
    let mut world = world();
    world.seal();
    world.install();
    let bytes = world.shards.checkpoint().unwrap().bytes;
    assert!(Shards::restore(GroupId(1), &bytes).is_ok());
    assert!(Shards::restore(GroupId(2), &bytes).is_err());
    for position in 0..bytes.len() {
        let mut damaged = bytes.to_vec();
        damaged[position] ^= 1;
        assert!(Shards::restore(GroupId(1), &damaged).is_err(), "byte {position}");
        assert!(Shards::restore(GroupId(1), &bytes[..position]).is_err(), "cut at {position}");
    }
}

#[test]
fn segments_are_swapped_only_while_they_are_there() {
    let mut world = World::new();
    world.run(world::put(1, 1));
    for times in [[1, 2], [3, 4], [5, 6]] {
        world.run(append(1, 1, &times));
        world.seal();
        world.install();
    }
    let before = world.contents(1);
    let (_, reading) = world.reader().snapshot(ShardId(1)).unwrap();
    let old: Vec<String> = reading.segments.iter().map(|segment| segment.meta.name.clone()).collect();
    let commands = world.replace_commands(1, 1, 0).unwrap();
    assert_eq!(world.run(commands.clone()), Outcome::Done { rows: 4 });
    assert_eq!(world.contents(1), before);
    assert_eq!(world.reader().snapshot(ShardId(1)).unwrap().1.segments.len(), 2);
    assert_eq!(world.run(commands.clone()), Outcome::Superseded, "the inputs are gone");
    assert_eq!(world.contents(1), before);
    let checkpoint = world.shards.checkpoint().unwrap();
    let live = world.reader().live_segments();
    assert!(old.iter().all(|name| live.contains(name)), "the newest checkpoint still names the inputs");
    // A later checkpoint, once saved, lets them go; who reads them keeps them.
    world.seal();
    world.install();
    world.shards.checkpoint_saved(world.shards.checkpoint().unwrap().seal);
    assert!(checkpoint.seal < world.shards.checkpoint().unwrap().seal);
    let reader = world.reader();
    assert!(!reader.live_segments().contains(&old[0]) && reader.is_pinned(&old[0]));
    drop(reading);
    assert!(!reader.is_pinned(&old[0]));

    // Written by a definition older than an input's.
    world.run(world::put(1, 2));
    world.run(append(1, 2, &[7]));
    world.seal();
    world.install();
    let outdated = world.replace_commands(1, 1, 3).unwrap();
    let Command::Replace(replace) = &outdated[0] else { unreachable!() };
    assert_eq!(replace.inputs.len(), 3, "one of them has the newer version");
    assert_eq!(world.run(outdated.clone()), Outcome::Superseded);

    // Of another split, twice the same, more rows than there were, of no table: defects of the proposer.
    let Command::Replace(sound) = &world.replace_commands(1, 2, 0).unwrap()[0] else { unreachable!() };
    let mut wrong = [(); 5].map(|()| sound.clone());
    wrong[0].split = event::SplitId(1);
    wrong[1].inputs[1] = wrong[1].inputs[0].clone();
    wrong[2].outputs[0].rows += 1;
    wrong[3].outputs[0].sequence_base = 1;
    wrong[4].inputs.clear();
    for replace in wrong {
        let outcome = world.run(vec![Command::Replace(replace)]);
        assert!(matches!(outcome, Outcome::Invalid { .. }), "{outcome:?}");
    }
    world.run(vec![Command::Schema(SchemaChange::Drop { shard: ShardId(1) })]);
    assert_eq!(world.run(vec![Command::Replace(sound.clone())]), Outcome::Superseded);
}

#[test]
fn whole_splits_are_forgotten_open_frozen_and_in_segments() {
    let mut world = World::new();
    world.run(world::put(1, 1));
    world.run(append(1, 1, &[1, 1001, 2001]));
    world.seal();
    world.install();
    world.run(append(1, 1, &[2, 1002, 2002]));
    world.seal();
    world.run(append(1, 1, &[3, 1003, 2003]));
    let expire = |before_us| vec![Command::Expire { shard: ShardId(1), before_us }];
    assert_eq!(world.run(expire(999)), Outcome::Done { rows: 0 }, "the first window ends at 1000");
    assert_eq!(world.run(expire(2000)), Outcome::Done { rows: 6 });
    assert_eq!(world.contents(1).unwrap().len(), 3);
    // The seal's segments were encoded before its rows were forgotten: those that are left install.
    world.run(append(1, 1, &[4]));
    world.install();
    assert_eq!(world.contents(1).unwrap().len(), 4, "late rows begin the window anew");
    world.seal();
    world.install();
    let mut restored = Shards::restore(GroupId(1), &world.shards.checkpoint().unwrap().bytes).unwrap();
    assert_eq!(world::contents(&restored.reader(), 1, &world.objects), world.contents(1));
    restored.checkpoint_saved(0);
    assert_eq!(world.run(vec![Command::Expire { shard: ShardId(9), before_us: 0 }]), Outcome::Done { rows: 0 });
}

/// The flusher encodes what it saw frozen; an Expire may come between that and its Install.
#[test]
fn an_install_that_was_encoded_before_an_expire_brings_nothing_back() {
    let mut world = World::new();
    world.run(world::put(1, 1));
    world.run(append(1, 1, &[1, 1001]));
    world.seal();
    let encoded = world.install_commands();
    world.run(vec![Command::Expire { shard: ShardId(1), before_us: 1000 }]);
    assert_eq!(world.run(encoded), Outcome::Done { rows: 1 });
    assert_eq!(world.contents(1).unwrap().len(), 1);
    assert!(world.shards.checkpoint().is_some(), "the seal is complete");
}

#[test]
fn truncate_takes_all_rows_that_came_before_wherever_they_are() {
    let mut world = World::new();
    world.run(world::put(1, 1));
    world.run(append(1, 1, &[1, 1001]));
    world.seal();
    world.install();
    world.run(append(1, 1, &[2, 1002]));
    world.seal();
    world.run(append(1, 1, &[3]));
    // Encoded before the rows were taken away.
    let encoded = world.install_commands();
    assert_eq!(world.run(vec![Command::Truncate { shard: ShardId(1) }]), Outcome::Done { rows: 5 });
    assert_eq!(world.contents(1).unwrap().len(), 0);
    world.run(append(1, 1, &[4]));
    assert_eq!(world.run(encoded), Outcome::Done { rows: 0 });
    assert_eq!(world.contents(1).unwrap().len(), 1);
    let delete = Delete { shard: ShardId(1), version: SchemaVersion(1), read: 3, splits: Vec::new() };
    assert_eq!(world.run(vec![Command::Delete(delete)]), Outcome::Conflict, "it was evaluated before");
    world.seal();
    world.install();
    let restored = Shards::restore(GroupId(1), &world.shards.checkpoint().unwrap().bytes).unwrap();
    assert_eq!(world::contents(&restored.reader(), 1, &world.objects), world.contents(1));
    assert_eq!(world.run(vec![Command::Truncate { shard: ShardId(9) }]), Outcome::Done { rows: 0 });
}

/// Rows that a seal froze go with their table, their window or all others before they are in a segment. The seal's checkpoint lacks them, and says
/// from which entry on that is right (seed 3280).
#[test]
fn a_checkpoint_that_lacks_rows_says_when_that_is_right() {
    let drop = Command::Schema(SchemaChange::Drop { shard: ShardId(1) });
    let expire = Command::Expire { shard: ShardId(1), before_us: INTERVAL_US };
    for (taking, is_there) in [(drop, false), (expire, true), (Command::Truncate { shard: ShardId(1) }, true)] {
        let what = format!("{taking:?}");
        let mut world = world();
        world.run(append(1, 1, &[1, 2]));
        world.run(append(2, 1, &[3]));
        world.seal();
        let seal = world.log.len() as u64;
        world.run(append(2, 1, &[4]));
        world.run(vec![taking]);
        let taken = world.log.len() as u64;
        world.install();
        assert!(world.reader().joint().is_whole(), "{what}: it has all of it");
        let checkpoint = world.shards.checkpoint().unwrap();
        assert_eq!(checkpoint.seal, seal);
        let mut restored = Shards::restore(GroupId(1), &checkpoint.bytes).unwrap();
        assert_eq!(restored.reader().joint().whole_from, taken, "{what}");
        assert_eq!(restored.reader().checkpoint().unwrap().bytes, checkpoint.bytes, "{what}: it says so again");
        for index in seal + 1..=taken {
            assert!(!restored.reader().joint().is_whole(), "{what}: before entry {index}");
            restored.apply(index, &Entry::decode(&world.log[index as usize - 1]).unwrap());
        }
        assert!(restored.reader().joint().is_whole(), "{what}");
        assert_eq!(world::contents(&restored.reader(), 1, &world.objects), is_there.then(Vec::new), "{what}");
        // A later seal is as others have it.
        world.run(append(2, 1, &[5]));
        world.seal();
        world.install();
        let later = Shards::restore(GroupId(1), &world.shards.checkpoint().unwrap().bytes).unwrap();
        assert_eq!(later.reader().joint().whole_from, 0, "{what}");
    }
}

/// A seal that a restored state comes to before it is whole waits for the same entry as on replicas that have all of it.
#[test]
fn checkpoints_of_a_restored_state_are_those_of_others() {
    let mut world = world();
    world.run(append(1, 1, &[1]));
    world.run(append(2, 1, &[2]));
    world.seal();
    let seal = world.log.len();
    world.run(append(2, 1, &[3]));
    world.seal();
    world.run(vec![Command::Expire { shard: ShardId(2), before_us: INTERVAL_US }]);
    world.run(vec![Command::Schema(SchemaChange::Drop { shard: ShardId(1) })]);
    let taken = world.log.len() as u64;
    world.install();
    let mut restored = Shards::restore(GroupId(1), &world.shards.checkpoint().unwrap().bytes).unwrap();
    world.install();
    for (index, entry) in (1..).zip(&world.log).skip(seal) {
        restored.apply(index, &Entry::decode(entry).unwrap());
    }
    let expected = world.shards.checkpoint().unwrap();
    assert_eq!(restored.checkpoint().unwrap().bytes, expected.bytes);
    let later = Shards::restore(GroupId(1), &expected.bytes).unwrap();
    assert_eq!(later.reader().joint().whole_from, taken);
}

/// What nobody misses makes nobody wait.
#[test]
fn a_checkpoint_that_lacks_nothing_is_whole() {
    let mut world = world();
    world.run(append(1, 1, &[1]));
    world.seal();
    world.run(vec![Command::Expire { shard: ShardId(1), before_us: 0 }]);
    world.run(vec![Command::Schema(SchemaChange::Drop { shard: ShardId(2) })]);
    world.install();
    let restored = Shards::restore(GroupId(1), &world.shards.checkpoint().unwrap().bytes).unwrap();
    assert_eq!(restored.reader().joint().whole_from, 0);
}

#[test]
fn the_first_decision_about_a_transaction_holds_until_it_is_settled() {
    let mut world = world();
    let transaction = |counter| event::StatementId { node: event::NodeId(1), boot: 1, counter };
    let decide = |counter, commit| Command::Decide {
        transaction: transaction(counter),
        commit,
        until_us: 1_000_000,
        joined: Vec::new(),
    };
    // What it decides about goes with it.
    let both = |counter, commit| append(1, 1, &[1]).into_iter().chain([decide(counter, commit)]).collect::<Vec<_>>();
    assert_eq!(world.run(both(1, true)), Outcome::Done { rows: 1 });
    assert_eq!(world.run(vec![decide(1, true)]), DONE, "it may be repeated");
    assert_eq!(world.run(vec![decide(1, false)]), Outcome::Conflict);
    assert_eq!(world.run(vec![decide(2, false)]), DONE);
    assert_eq!(world.run(both(2, true)), Outcome::Conflict);
    let rows =
        |world: &World| world.reader().snapshot(ShardId(1)).unwrap().1.memory.iter().map(|m| m.rows).sum::<u64>();
    assert_eq!(rows(&world), 1, "a refused decision brings no rows");
    let decided = |commit| Decision { commit, until_us: 1_000_000, joined: Vec::new() };
    let decisions = BTreeMap::from([(transaction(1), decided(true)), (transaction(2), decided(false))]);
    assert_eq!(*world.reader().decisions(), decisions);

    // A checkpoint keeps them, and the log behind it goes on from there.
    world.seal();
    world.run(vec![Command::Settle { transaction: transaction(1) }]);
    world.install();
    let restored = Shards::restore(GroupId(1), &world.reader().checkpoint().unwrap().bytes).unwrap();
    assert_eq!(*restored.reader().decisions(), decisions);
    assert_eq!(*world.reader().decisions(), BTreeMap::from([(transaction(2), decided(false))]));
    world.run(vec![Command::Settle { transaction: transaction(2) }]);
    assert_eq!(world.run(both(2, true)), Outcome::Conflict, "it could still come, and was refused for good");
}

#[test]
fn a_checkpoint_says_how_far_its_transactions_reach_into_other_groups() {
    let mut world = world();
    let transaction = event::StatementId { node: event::NodeId(1), boot: 1, counter: 1 };
    let part = |group, index| Joined { group: GroupId(group), index };
    // A group's own part says nothing of others.
    let joined = vec![part(3, 70), part(1, 5), part(4, 8)];
    let decide = Command::Decide { transaction, commit: true, until_us: 1_000_000, joined };
    assert_eq!(world.run(append(1, 1, &[1]).into_iter().chain([decide]).collect()), Outcome::Done { rows: 1 });
    world.seal();
    world.install();
    assert!(world.reader().joint().untraced.is_empty(), "what has a trace can be hidden");
    let bytes = world.reader().checkpoint().unwrap().bytes;
    let restored = Shards::restore(GroupId(1), &bytes).unwrap();
    assert_eq!(*restored.reader().joint().untraced, BTreeMap::from([(GroupId(3), 70), (GroupId(4), 8)]));
    assert_eq!(restored.reader().checkpoint().unwrap().bytes, bytes, "and says so in its own checkpoints");
}
