//! Random logs: the state is what a plain list of rows says, and every restart comes back to it.

use std::collections::BTreeMap;

use event::GroupId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::world::{Objects, World, append, bulk, contents, put, rows};
use super::*;
use crate::testing::lines;

const SHARDS: u64 = 3;

/// What is there, kept as plain rows of text.
#[derive(Clone, Default)]
struct Model {
    /// Version and rows of each shard that exists.
    shards: BTreeMap<u64, (u32, Vec<String>)>,
}

impl Model {
    fn add(&mut self, shard: u64, times: &[i64], index: u64, first: u64) {
        let (version, found) = self.shards.get_mut(&shard).unwrap();
        let table = versioned(shard, *version);
        let schema = crate::sequence::sequenced_schema(&table);
        let base = index << 24;
        let batch = crate::sequence::with_sequence(&schema, &rows(*version, times), base, first).unwrap();
        found.extend(lines([&batch], 0));
        found.sort();
    }

    /// A further column, NULL in the rows that are there.
    fn widen(&mut self, shard: u64) {
        let (version, found) = self.shards.get_mut(&shard).unwrap();
        *version += 1;
        for line in found.iter_mut() {
            let (row, sequence) = line.rsplit_once('|').unwrap();
            *line = format!("{row}|NULL|{sequence}");
        }
        found.sort();
    }

    /// Without the rows of splits that end at or before that time; how many those were.
    fn expire(&mut self, shard: u64, before_us: i64) -> u64 {
        let (_, found) = self.shards.get_mut(&shard).unwrap();
        let before = found.len();
        let end = |line: &String| {
            let time: i64 = line.split('|').next().unwrap().parse().unwrap();
            (time.div_euclid(INTERVAL_US) + 1) * INTERVAL_US
        };
        found.retain(|line| end(line) > before_us);
        (before - found.len()) as u64
    }

    /// Without rows; how many there were.
    fn truncate(&mut self, shard: u64) -> u64 {
        let (_, found) = self.shards.get_mut(&shard).unwrap();
        std::mem::take(found).len() as u64
    }

    fn contents(&self, shard: u64) -> Option<Vec<String>> {
        self.shards.get(&shard).map(|(_, rows)| rows.clone())
    }
}

/// Shard, split, rows.
type FrozenRows = (u64, i64, Vec<String>);

/// All that must be equal after a restart.
#[derive(Debug, PartialEq)]
struct Observed {
    contents: Vec<Option<Vec<String>>>,
    /// The oldest seal with its rows by shard and split.
    frozen: Option<(u64, Vec<FrozenRows>)>,
    checkpoint: Option<Checkpoint>,
    live: Vec<String>,
    figures: Figures,
}

fn observe(reader: &ShardsReader, objects: &Objects) -> Observed {
    let frozen = reader.frozen().map(|frozen| {
        let splits = frozen.splits.iter();
        let rows = splits.map(|part| (part.shard.0, part.memory.split.0, lines(&part.memory.batches, 0)));
        (frozen.seal, rows.collect())
    });
    Observed {
        contents: (1..=SHARDS).map(|shard| contents(reader, shard, objects)).collect(),
        frozen,
        checkpoint: reader.checkpoint(),
        live: reader.live_segments(),
        figures: Figures { rows_applied: 0, ..reader.figures() },
    }
}

/// Compares part by part, so that a failure shows only the part that differs.
fn assert_same(found: &Observed, expected: &Observed, when: &str) {
    assert_eq!(found.figures, expected.figures, "{when}");
    assert_eq!(found.live, expected.live, "{when}");
    assert_eq!(found.checkpoint, expected.checkpoint, "{when}");
    assert_eq!(found.frozen, expected.frozen, "{when}");
    assert_eq!(found.contents, expected.contents, "{when}");
}

fn random_times(random: &mut StdRng) -> Vec<i64> {
    let count = random.random_range(1..30);
    let splits = random.random_range(1..4);
    (0..count).map(|_| random.random_range(-INTERVAL_US..splits * INTERVAL_US)).collect()
}

/// One random entry, in the world and in the model.
fn step(world: &mut World, model: &mut Model, random: &mut StdRng) {
    let index = world.log.len() as u64 + 1;
    let shard = random.random_range(1..=SHARDS);
    let version = model.shards.get(&shard).map_or(1, |(version, _)| *version);
    match random.random_range(0..24) {
        20 if model.shards.contains_key(&shard) => {
            let before_us = random.random_range(-INTERVAL_US..2 * INTERVAL_US);
            let expired = world.run(vec![Command::Expire { shard: ShardId(shard), before_us }]);
            assert_eq!(expired, Outcome::Done { rows: model.expire(shard, before_us) });
        }
        19 if model.shards.contains_key(&shard) => {
            let truncated = world.run(vec![Command::Truncate { shard: ShardId(shard) }]);
            assert_eq!(truncated, Outcome::Done { rows: model.truncate(shard) });
        }
        21.. => {
            let commands = world.replace_commands(shard, version, random.random_range(0..6));
            assert!(matches!(world.run(commands.unwrap_or_default()), Outcome::Done { .. }));
        }
        0..9 => random_appends(world, model, random, index),
        9..12 => {
            let times = random_times(random);
            let commands = bulk(world, shard, version, &times);
            if let Outcome::Done { .. } = world.run(commands) {
                model.add(shard, &times, index, 0);
            }
        }
        12..14 if world.reader().figures().seals_outstanding < 2 => world.seal(),
        14..17 if world.reader().frozen().is_some() => {
            let mut commands = world.install_commands();
            if let Command::Install(install) = &mut commands[0] {
                install.segments.truncate(random.random_range(1..12));
            }
            assert!(matches!(world.run(commands), Outcome::Done { .. }));
            if let Some(checkpoint) = world.shards.checkpoint() {
                world.shards.checkpoint_saved(checkpoint.seal);
            }
        }
        17 => match model.shards.contains_key(&shard) {
            true => {
                assert_eq!(world.run(put(shard, version + 1)), DONE);
                model.widen(shard);
            }
            false => drop(world.run(put(shard, 1))),
        },
        18 if random.random_range(0..6) == 0 => {
            world.run(vec![Command::Schema(SchemaChange::Drop { shard: ShardId(shard) })]);
            model.shards.remove(&shard);
        }
        _ => drop(world.run(append(shard, version + 1, &[1]))),
    }
}

/// An entry of several statements, some of which are refused as a whole.
fn random_appends(world: &mut World, model: &mut Model, random: &mut StdRng, index: u64) {
    let mut statements = Vec::new();
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    for _ in 0..random.random_range(1..5) {
        let mut commands = Vec::new();
        let mut effects = Vec::new();
        for _ in 0..random.random_range(1..3) {
            let shard = random.random_range(1..=SHARDS);
            let times = random_times(random);
            let version = model.shards.get(&shard).map_or(1, |(version, _)| *version);
            commands.extend(append(shard, version, &times));
            effects.push((shard, times));
        }
        let refused = random.random_range(0..4) == 0 || effects.iter().any(|(s, _)| !model.shards.contains_key(s));
        if refused {
            commands.extend(append(1, 99, &[1]));
        } else {
            for (shard, times) in effects {
                let first = next.entry(shard).or_default();
                model.add(shard, &times, index, *first);
                *first += times.len() as u64;
            }
        }
        statements.push((commands, refused));
    }
    if world.reader().figures().seals_outstanding < 2 && random.random_range(0..6) == 0 {
        statements.insert(random.random_range(0..=statements.len()), (vec![Command::Seal], false));
    }
    let (commands, refused): (Vec<_>, Vec<_>) = statements.into_iter().unzip();
    let outcomes = world.run_entry(commands);
    for (outcome, refused) in outcomes.iter().zip(refused) {
        assert_eq!(matches!(outcome, Outcome::SchemaMismatch { .. }), refused, "{outcome:?}");
    }
}

/// Runs a random log; answers with what was seen after each entry, from index 0.
fn live(seed: u64, entries: usize) -> (World, Vec<Observed>) {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut world, mut model) = (World::new(), Model::default());
    let mut seen = vec![observe(&world.reader(), &world.objects)];
    for shard in 1..=SHARDS {
        world.run(put(shard, 1));
        model.shards.insert(shard, (1, Vec::new()));
        seen.push(observe(&world.reader(), &world.objects));
    }
    while world.log.len() < entries {
        step(&mut world, &mut model, &mut random);
        let observed = observe(&world.reader(), &world.objects);
        for shard in 1..=SHARDS {
            let expected = model.contents(shard);
            assert_eq!(observed.contents[shard as usize - 1], expected, "seed {seed}, entry {}", world.log.len());
        }
        seen.push(observed);
    }
    (world, seen)
}

fn replay(shards: &mut Shards, world: &World, from: u64, to: u64) {
    for index in from + 1..=to {
        shards.apply(index, &Entry::decode(&world.log[index as usize - 1]).unwrap());
        if let Some(checkpoint) = shards.checkpoint() {
            shards.checkpoint_saved(checkpoint.seal);
        }
    }
}

/// A crash after each entry: the newest checkpoint of that moment and the log behind it lead back to the same state.
#[test]
fn a_restart_at_any_index_comes_back() {
    for seed in 0..4 {
        let (world, seen) = live(seed, 60);
        assert!(seen.last().unwrap().checkpoint.is_some(), "seed {seed} never completed a checkpoint");
        for (index, expected) in seen.iter().enumerate() {
            let (mut shards, from) = match &expected.checkpoint {
                Some(checkpoint) => (Shards::restore(GroupId(1), &checkpoint.bytes).unwrap(), checkpoint.seal),
                None => (Shards::new(GroupId(1)), 0),
            };
            replay(&mut shards, &world, from, index as u64);
            assert_same(
                &observe(&shards.reader(), &world.objects),
                expected,
                &format!("seed {seed}, restart at {index}"),
            );
        }
    }
}

/// A checkpoint of any age and all of the log behind it lead to the state at every later index, installs included.
#[test]
fn any_checkpoint_leads_to_every_later_state() {
    for seed in 100..103 {
        let (world, seen) = live(seed, 60);
        let mut seals = BTreeMap::new();
        for (index, observed) in seen.iter().enumerate() {
            if let Some(checkpoint) = &observed.checkpoint {
                seals.entry(checkpoint.seal).or_insert((index, checkpoint.bytes.clone()));
            }
        }
        for (seal, (installed, bytes)) in seals {
            let mut shards = Shards::restore(GroupId(1), &bytes).unwrap();
            replay(&mut shards, &world, seal, installed as u64);
            for (index, expected) in seen.iter().enumerate().skip(installed) {
                if index > installed {
                    replay(&mut shards, &world, index as u64 - 1, index as u64);
                }
                assert_same(
                    &observe(&shards.reader(), &world.objects),
                    expected,
                    &format!("seed {seed}, seal {seal}, at {index}"),
                );
            }
        }
    }
}

/// The log from its beginning leads to the same state, to the byte of the checkpoint.
#[test]
fn two_replays_are_equal() {
    for seed in 200..202 {
        let (world, seen) = live(seed, 60);
        let mut shards = Shards::new(GroupId(1));
        for (index, expected) in seen.iter().enumerate().skip(1) {
            replay(&mut shards, &world, index as u64 - 1, index as u64);
            assert_same(&observe(&shards.reader(), &world.objects), expected, &format!("seed {seed}, at {index}"));
        }
    }
}
