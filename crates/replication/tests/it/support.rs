//! A machine whose state is what was told to it, and groups that replicate it.

use std::sync::Arc;

use bytes::Bytes;
use event::{Clock, GroupId, NodeId, Origin, StatementId};
use replication::{Error, Group, GroupOptions, MachineCheckpoint, StateMachine};
use serde::{Deserialize, Serialize};
use storage::{Disk, Log};

use crate::voters::{LEADER, Script, Voters};

/// A word that marks its entry as one to take a checkpoint of.
pub(crate) const CUT: &str = "cut";

/// Remembers every word with the index and time of its entry.
#[derive(Default)]
pub(crate) struct Diary {
    pub(crate) words: Vec<Word>,
    /// The last index the group told of.
    pub(crate) told: Option<u64>,
    cut: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Word {
    pub(crate) index: u64,
    pub(crate) time_us: i64,
    pub(crate) word: String,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Page {
    time_us: i64,
    words: Vec<String>,
}

impl StateMachine for Diary {
    type Statement = String;
    type Entry = Page;
    type Outcome = usize;

    fn encode(time_us: i64, words: Vec<String>) -> Result<(Bytes, Page), storage::Error> {
        let page = Page { time_us, words };
        Ok((serde_json::to_vec(&page).unwrap().into(), page))
    }

    fn statements(page: Page) -> Vec<String> {
        page.words
    }

    fn decode(bytes: &Bytes) -> Result<Page, storage::Error> {
        Ok(serde_json::from_slice(bytes).unwrap())
    }

    fn statement_bytes(word: &String) -> usize {
        word.len()
    }

    fn time_us(page: &Page) -> i64 {
        page.time_us
    }

    fn is_cut(page: &Page) -> bool {
        page.words.iter().any(|word| word == CUT)
    }

    fn origins(page: &Page) -> Vec<Option<Origin>> {
        page.words.iter().map(|word| origin(word)).collect()
    }

    fn apply(
        &mut self,
        index: u64,
        page: &Page,
        wanted: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Option<usize>>, storage::Error> {
        self.advance(index);
        let mut outcomes = Vec::new();
        for (place, word) in page.words.iter().enumerate() {
            if wanted(place) {
                self.words.push(Word { index, time_us: page.time_us, word: word.clone() });
            }
            outcomes.push(wanted(place).then_some(self.words.len()));
        }
        if Self::is_cut(page) {
            self.cut = Some(index);
        }
        Ok(outcomes)
    }

    fn advance(&mut self, index: u64) {
        assert!(self.told.is_none_or(|told| index == told + 1), "no index is left out");
        self.told = Some(index);
    }

    fn checkpoint(&self, _applied: u64) -> Result<Option<MachineCheckpoint>, storage::Error> {
        Ok(self.cut.map(|cut| {
            let words: Vec<&Word> = self.words.iter().filter(|w| w.index <= cut).collect();
            MachineCheckpoint { index: cut, state: serde_json::to_vec(&words).unwrap().into() }
        }))
    }

    fn checkpoint_index(&self, _applied: u64) -> Option<u64> {
        self.cut
    }

    fn checkpoint_saved(&mut self, _index: u64) {}

    fn restore(&mut self, index: u64, state: Bytes) -> Result<(), storage::Error> {
        *self = Diary { words: serde_json::from_slice(&state).unwrap(), told: Some(index), cut: Some(index) };
        Ok(())
    }
}

/// A word like `hello #7 of 3` is asked for by the statement 7 of a boot that has settled all below 3.
fn origin(word: &str) -> Option<Origin> {
    let (_, numbers) = word.split_once(" #")?;
    let (counter, settled) = numbers.split_once(" of ")?;
    let id = StatementId { node: NodeId(1), boot: 1, counter: counter.parse().ok()? };
    Some(Origin { id, settled: settled.parse().ok()? })
}

/// A group of one on `disk`, and its log.
pub(crate) async fn open(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>) -> Result<(Arc<Group<Diary>>, Log), Error> {
    let (group, log) = open_among(&Script::new([]), false, disk, clock).await?;
    group.ready().await?;
    Ok((group, log))
}

/// A group of this node and the voters of a script, and its log.
pub(crate) async fn open_among(
    script: &Arc<Script>,
    lease_reads: bool,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
) -> Result<(Arc<Group<Diary>>, Log), Error> {
    for dir in ["checkpoints", "tmp"] {
        disk.create_dir_all(dir).await.unwrap();
    }
    let log = Log::open(disk.clone(), "log").await?;
    let options = GroupOptions {
        group: GroupId(5),
        node: LEADER,
        disk,
        dirs: ("checkpoints".into(), "tmp".into()),
        log: log.clone(),
        clock,
        runtime: tokio::runtime::Handle::current(),
        founders: script.voters(),
        confirmed: script.confirmed.clone(),
        lease_reads,
    };
    let group = Group::open(options, Diary::default(), Voters(script.clone())).await?;
    Ok((group, log))
}

pub(crate) async fn words(group: &Group<Diary>) -> Vec<Word> {
    group.inspect(|diary| diary.words.clone()).await.unwrap()
}

/// Stops group and log, as a node does.
pub(crate) async fn close(group: Arc<Group<Diary>>, log: Log) {
    group.shutdown().await;
    log.close().await.unwrap();
}
