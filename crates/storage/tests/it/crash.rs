//! Power loss at every sync of a workload: what was acknowledged is there, what was not is a prefix, nothing else is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use event::GroupId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use storage::disk::Frozen;
use storage::{Log, LogRecord, SimulatedDisk};

const GROUPS: u64 = 3;
const FILE_LEN: u64 = 8 << 10;
const STEPS: u32 = 40;
const LIVES: u32 = 3;
/// Files used again in all lives.
static RECYCLED: AtomicU64 = AtomicU64::new(0);

/// What a group should look like.
#[derive(Clone, Debug, Default, PartialEq)]
struct Expected {
    vote: Option<Bytes>,
    purged: Option<(u64, [u8; 16])>,
    records: Vec<LogRecord>,
}

impl Expected {
    fn next_index(&self) -> u64 {
        let last = self.records.last().map(|record| record.index).or(self.purged.map(|(index, _)| index));
        last.map_or(1, |last| last + 1)
    }
}

type State = BTreeMap<u64, Expected>;

/// The states a log may be found in: after each frame that was asked for, in order.
struct History {
    states: Vec<State>,
    /// Index of the last state that was acknowledged while the disk still kept its promises.
    acknowledged: Arc<AtomicUsize>,
    committed: BTreeMap<u64, Vec<Bytes>>,
}

impl History {
    fn from(state: State) -> History {
        History { states: vec![state], acknowledged: Arc::default(), committed: BTreeMap::new() }
    }

    fn now(&self) -> &State {
        self.states.last().unwrap()
    }

    /// Adds the state after one more frame.
    fn push(&mut self, group: u64, change: impl FnOnce(&mut Expected)) {
        let mut state = self.now().clone();
        change(state.entry(group).or_default());
        self.states.push(state);
    }

    /// Notes that everything up to state `at` is acknowledged.
    fn acknowledge(acknowledged: &AtomicUsize, disk: &SimulatedDisk, at: usize) {
        if !disk.is_frozen() {
            acknowledged.fetch_max(at, Ordering::SeqCst);
        }
    }
}

/// One step of the workload; an error when the log has stopped.
async fn step(
    log: &Log,
    disk: &Arc<SimulatedDisk>,
    history: &mut History,
    random: &mut StdRng,
) -> Result<(), storage::Error> {
    let id = random.random_range(0..GROUPS);
    let group = GroupId(id);
    let expected = history.now().get(&id).cloned().unwrap_or_default();
    let unique: u64 = random.random();
    match random.random_range(0..20) {
        0..=10 => return append(log, disk, history, random, id).await,
        11..=13 => {
            let vote = Bytes::copy_from_slice(&unique.to_le_bytes());
            history.push(id, |group| group.vote = Some(vote.clone()));
            log.save_vote(group, vote).await?;
        }
        14 | 15 if !expected.records.is_empty() => {
            let keep = random.random_range(0..=expected.records.len());
            let after = match expected.records[..keep].last() {
                Some(last) => Some(last.index),
                None => expected.purged.map(|(index, _)| index),
            };
            history.push(id, |group| group.records.truncate(keep));
            log.truncate_after(group, after).await?;
        }
        16 | 17 => {
            // Sometimes beyond the last record, as when a snapshot is installed.
            let index = expected.next_index() - 1 + random.random_range(0..3) / 2;
            let index = index.saturating_sub(random.random_range(0..4));
            if index == 0 || expected.purged.is_some_and(|(purged, _)| purged >= index) {
                return Ok(());
            }
            history.push(id, |group| {
                group.records.retain(|record| record.index > index);
                group.purged = Some((index, [9; 16]));
            });
            log.purge(group, index, [9; 16]).await?;
        }
        18 => {
            let committed = Bytes::copy_from_slice(&unique.to_le_bytes());
            history.committed.entry(id).or_default().push(committed.clone());
            return log.save_committed(group, committed).await;
        }
        _ => {
            for _ in 0..random.random_range(0..20) {
                tokio::task::yield_now().await;
            }
            return Ok(());
        }
    }
    History::acknowledge(&history.acknowledged, disk, history.states.len() - 1);
    Ok(())
}

async fn append(
    log: &Log,
    disk: &Arc<SimulatedDisk>,
    history: &mut History,
    random: &mut StdRng,
    id: u64,
) -> Result<(), storage::Error> {
    let mut records = Vec::new();
    for _ in 0..random.random_range(1..4) {
        let index = history.now().get(&id).cloned().unwrap_or_default().next_index();
        let mut payload = vec![0; [0, 7, 100, 700, 3000][random.random_range(0..5)]];
        random.fill(payload.as_mut_slice());
        let record = LogRecord { index, term: random.random(), kind: random.random(), payload: payload.into() };
        history.push(id, |group| group.records.push(record.clone()));
        records.push(record);
    }
    let (acknowledged, disk, at) = (history.acknowledged.clone(), disk.clone(), history.states.len() - 1);
    let done = Box::new(move |outcome: std::io::Result<()>| {
        if outcome.is_ok() {
            History::acknowledge(&acknowledged, &disk, at);
        }
    });
    log.append(GroupId(id), records, done).await?;
    let last = history.now()[&id].records.last().unwrap();
    let read = log.read(GroupId(id), last.index..last.index + 1, 1).await?;
    assert_eq!(read, std::slice::from_ref(last), "a record is readable at once");
    Ok(())
}

async fn found(log: &Log) -> State {
    let mut state = State::new();
    for group in log.groups() {
        let known = log.group(group);
        let first = known.purged.map_or(1, |(purged, _)| purged + 1);
        let records = log.read(group, first..u64::MAX, usize::MAX).await.unwrap();
        let last = records.last().map(|record| (record.index, record.term)).or(known.purged);
        assert_eq!(known.last, last);
        state.insert(group.0, Expected { vote: known.vote, purged: known.purged, records });
    }
    state
}

/// Which state of the history was found; groups nobody spoke of count as empty ones.
fn position(history: &History, found: &State) -> Option<usize> {
    let empty = Expected::default();
    let same =
        |state: &State| (0..GROUPS).all(|id| state.get(&id).unwrap_or(&empty) == found.get(&id).unwrap_or(&empty));
    history.states.iter().rposition(same)
}

/// One life of the process: opens, checks, works until the freeze or the end of the workload.
async fn live(disk: &Arc<SimulatedDisk>, before: History, random: &mut StdRng, what: &str) -> History {
    let log = match Log::open_with_file_len(disk.clone(), "log", FILE_LEN).await {
        Ok(log) => log,
        // Power went while the log was being opened.
        Err(storage::Error::Io { .. }) if disk.is_frozen() => return before,
        Err(error) => panic!("{what}: {error}"),
    };
    let state = found(&log).await;
    let at = position(&before, &state).unwrap_or_else(|| panic!("{what}: never asked for: {state:#?}"));
    let acknowledged = before.acknowledged.load(Ordering::SeqCst);
    assert!(at >= acknowledged, "{what}: acknowledged up to {acknowledged}, found {at}");
    for group in log.groups() {
        if let Some(committed) = log.group(group).committed {
            let saved = before.committed.get(&group.0).is_some_and(|saved| saved.contains(&committed));
            assert!(saved, "{what}: a commit position nobody saved");
        }
    }
    if disk.is_frozen() {
        // Power went while the log was being opened: the next life may find what this one did not.
        return before;
    }
    let mut history = History::from(state);
    history.committed = before.committed;
    let fails_at = random.random_range(0..4 * STEPS);
    // Seldom, since the log then waits in real time.
    let full_at = random.random_range(0..50 * STEPS);
    for at in 0..STEPS {
        if at == fails_at {
            disk.fail_next_sync();
        }
        if at == full_at {
            disk.fail_for_lack_of_room(random.random_range(0..2), random.random_range(0..2));
        }
        if step(&log, disk, &mut history, random).await.is_err() {
            break;
        }
    }
    RECYCLED.fetch_add(log.statistics().files_recycled, Ordering::SeqCst);
    if random.random_bool(0.3) && log.close().await.is_ok() {
        History::acknowledge(&history.acknowledged, disk, history.states.len() - 1);
    }
    history
}

async fn run(seed: u64, freeze_at: u64) -> bool {
    let random = &mut StdRng::seed_from_u64(seed);
    let mut disk = Arc::new(SimulatedDisk::new(seed));
    let mut history = History::from(State::new());
    let mut frozen = false;
    for life in 0..LIVES {
        let then = if random.random_bool(0.5) { Frozen::Succeed } else { Frozen::Fail };
        disk.freeze_at_sync(freeze_at, then);
        let what = format!("seed {seed}, sync {freeze_at}, life {life}");
        history = live(&disk, history, random, &what).await;
        frozen |= disk.is_frozen();
        // The old process may go on; nobody hears what it acknowledges.
        history.acknowledged = Arc::new(AtomicUsize::new(history.acknowledged.load(Ordering::SeqCst)));
        // The process alone may die too; then nothing is lost, and yet nothing more is durable than was.
        let dies_alone = !disk.is_frozen() && random.random_bool(0.4);
        let next_seed = random.random();
        disk = Arc::new(if dies_alone { disk.restart(next_seed) } else { disk.crash(next_seed) });
    }
    live(&disk, history, random, &format!("seed {seed}, sync {freeze_at}, last life")).await;
    frozen
}

#[tokio::test]
async fn acknowledged_frames_survive_power_loss_at_every_sync() {
    for seed in 0..6 {
        let mut freeze_at = 1;
        while run(seed, freeze_at).await {
            freeze_at += 1;
        }
        assert!(freeze_at > 10, "seed {seed} ended after {freeze_at} syncs");
    }
    let recycled = RECYCLED.load(Ordering::SeqCst);
    assert!(recycled > 100, "only {recycled} files were recycled");
}
