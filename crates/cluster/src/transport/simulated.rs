//! A network in one process, whose links can be cut, slowed and mended.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Answers, Lane, Messages, Transport, TransportError};
use crate::door::Door;
use crate::proof::Proof;

/// The network. Cheap to clone.
#[derive(Clone)]
pub struct SimulatedNetwork {
    state: Arc<Mutex<State>>,
    /// Bumped with every change of the links, so that who waits looks again.
    changes: watch::Sender<u64>,
    begun: Instant,
}

#[derive(Default)]
struct State {
    doors: BTreeMap<String, Door>,
    /// How many processes have ended at each address: what an earlier one sends arrives nowhere.
    ended: BTreeMap<String, u64>,
    /// Ordered pairs of addresses: nothing gets from the first to the second.
    cut: BTreeSet<(String, String)>,
    /// How long every message is under way.
    latency: Duration,
    /// How much longer it is from the first to the second address.
    delays: BTreeMap<(String, String), Duration>,
    /// Addresses whose messages wait on their way, in both directions.
    held: BTreeSet<String>,
    /// Messages and streams that were not delivered because nothing gets to their address.
    refused: u64,
    /// Messages that arrived.
    messages: u64,
    /// Follows from all of them.
    trace: DefaultHasher,
}

impl Default for SimulatedNetwork {
    fn default() -> Self {
        Self { state: Arc::default(), changes: watch::Sender::new(0), begun: Instant::now() }
    }
}

impl SimulatedNetwork {
    /// The transport of the node at `address`, until that leaves.
    pub fn at(&self, address: &str) -> Arc<dyn Transport> {
        let process = self.process(address);
        Arc::new(SimulatedTransport { network: self.clone(), address: address.to_owned(), process })
    }

    /// Nothing arrives at the address any more, and nothing comes from it: its process has ended.
    pub fn leave(&self, address: &str) {
        let mut state = self.state.lock();
        state.doors.remove(address);
        state.held.remove(address);
        *state.ended.entry(address.to_owned()).or_default() += 1;
        drop(state);
        self.change();
    }

    /// Cuts the link between two addresses, both ways.
    pub fn cut(&self, one: &str, other: &str) {
        self.cut_from(one, other);
        self.cut_from(other, one);
    }

    /// Nothing gets from the first to the second any more; the other way stays as it is.
    pub fn cut_from(&self, from: &str, to: &str) {
        self.state.lock().cut.insert((from.to_owned(), to.to_owned()));
        self.change();
    }

    /// Cuts an address off from all others.
    pub fn isolate(&self, address: &str) {
        let others: Vec<String> = self.state.lock().doors.keys().filter(|other| *other != address).cloned().collect();
        others.iter().for_each(|other| self.cut(address, other));
    }

    /// Every message is under way for so long.
    pub fn set_latency(&self, latency: Duration) {
        self.state.lock().latency = latency;
    }

    /// Messages from the first to the second address take so much longer. They stay in order only within a stream.
    pub fn delay(&self, from: &str, to: &str, longer: Duration) {
        self.state.lock().delays.insert((from.to_owned(), to.to_owned()), longer);
    }

    /// Messages to and from an address stay under way until [`SimulatedNetwork::mend`], as when its process is stopped.
    pub fn hold(&self, address: &str) {
        self.state.lock().held.insert(address.to_owned());
        self.change();
    }

    /// Mends all links: nothing is cut, slowed or held any more.
    pub fn mend(&self) {
        let mut state = self.state.lock();
        state.cut.clear();
        state.delays.clear();
        state.held.clear();
        drop(state);
        self.change();
    }

    /// How often somebody found an address unreachable.
    pub fn refused(&self) -> u64 {
        self.state.lock().refused
    }

    /// How many messages arrived anywhere.
    pub fn messages(&self) -> u64 {
        self.state.lock().messages
    }

    /// Follows from every message that arrived: when, from where, where, and what it said.
    pub fn trace(&self) -> u64 {
        self.state.lock().trace.finish()
    }

    fn arrived(&self, from: &str, to: &str, message: &[u8]) {
        let at = self.begun.elapsed();
        let what = (at, from, to, message.len(), crc32c::crc32c(message));
        let mut state = self.state.lock();
        state.messages += 1;
        what.hash(&mut state.trace);
    }

    fn change(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    fn process(&self, address: &str) -> u64 {
        self.state.lock().ended.get(address).copied().unwrap_or_default()
    }

    fn passes(&self, from: &str, to: &str) -> bool {
        !self.state.lock().cut.contains(&(from.to_owned(), to.to_owned()))
    }
}

/// One process of the network on the way to another.
#[derive(Clone)]
struct Link {
    network: SimulatedNetwork,
    from: String,
    to: String,
    /// Which processes they are.
    processes: (u64, u64),
}

impl Link {
    fn is_there(&self) -> bool {
        let now = (self.network.process(&self.from), self.network.process(&self.to));
        now == self.processes && self.network.state.lock().doors.contains_key(&self.to)
    }

    /// Completes once nothing gets from one to the other or back, or one of them is gone.
    async fn breaks(self) {
        let mut changes = self.network.changes.subscribe();
        loop {
            let passes = self.network.passes(&self.from, &self.to) && self.network.passes(&self.to, &self.from);
            if !passes || !self.is_there() {
                return;
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// As long as a message takes in this direction.
    async fn travel(&self, from: &str, to: &str) {
        let duration = {
            let state = self.network.state.lock();
            let longer = state.delays.get(&(from.to_owned(), to.to_owned()));
            state.latency + longer.copied().unwrap_or_default()
        };
        if !duration.is_zero() {
            tokio::time::sleep(duration).await;
        }
        let mut changes = self.network.changes.subscribe();
        loop {
            let held = {
                let state = self.network.state.lock();
                state.held.contains(from) || state.held.contains(to)
            };
            if !held || changes.changed().await.is_err() {
                return;
            }
        }
    }

    async fn go(&self) {
        self.travel(&self.from, &self.to).await;
    }

    async fn come_back(&self) {
        self.travel(&self.to, &self.from).await;
    }

    /// Messages as they arrive, in order.
    fn carry(self, messages: Messages) -> Messages {
        let link = self.clone();
        let delayed = messages.then(move |message| {
            let link = link.clone();
            async move {
                link.go().await;
                link.network.arrived(&link.from, &link.to, &message);
                message
            }
        });
        delayed.take_until(self.breaks()).boxed()
    }
}

/// The transport of one node of the network.
struct SimulatedTransport {
    network: SimulatedNetwork,
    address: String,
    process: u64,
}

impl SimulatedTransport {
    fn link(&self, to: &str) -> Result<(Link, Door), TransportError> {
        let unreachable = |reason: &str| {
            self.network.state.lock().refused += 1;
            TransportError::Unreachable { address: to.to_owned(), reason: reason.to_owned() }
        };
        let processes = (self.process, self.network.process(to));
        let link = Link { network: self.network.clone(), from: self.address.clone(), to: to.to_owned(), processes };
        if !self.network.passes(&self.address, to) {
            return Err(unreachable("the link is cut"));
        }
        let door = self.network.state.lock().doors.get(to).cloned();
        let door = door.filter(|_| link.is_there()).ok_or_else(|| unreachable("nobody listens"))?;
        Ok((link, door))
    }

    fn lost(&self, address: &str) -> TransportError {
        TransportError::Lost { address: address.to_owned(), reason: "the link was cut".to_owned() }
    }
}

#[async_trait]
impl Transport for SimulatedTransport {
    async fn serve(&self, door: Door) {
        if self.process == self.network.process(&self.address) {
            self.network.state.lock().doors.insert(self.address.clone(), door);
            self.network.change();
        }
    }

    async fn call(&self, to: &str, _: Lane, message: Bytes, timeout: Duration) -> Result<Bytes, TransportError> {
        let (link, door) = self.link(to)?;
        let way = link.clone();
        // What was sent is worked on, whether its answer is waited for or not; unless the other side ends before it arrives.
        let answer = tokio::spawn(async move {
            way.go().await;
            if !way.is_there() {
                return None;
            }
            way.network.arrived(&way.from, &way.to, &message);
            let answer = door.call(message, &Proof::default()).await;
            way.come_back().await;
            way.network.arrived(&way.to, &way.from, &answer);
            Some(answer)
        });
        let broken = async {
            link.clone().breaks().await;
            link.come_back().await;
        };
        tokio::select! {
            answer = answer => answer.ok().flatten().ok_or_else(|| self.lost(to)),
            () = broken => Err(self.lost(to)),
            () = tokio::time::sleep(timeout) => Err(self.lost(to)),
        }
    }

    async fn stream(&self, to: &str, _: Lane, messages: Messages) -> Result<Answers, TransportError> {
        let (link, door) = self.link(to)?;
        let answers = door.stream(link.clone().carry(messages), &Proof::default()).await;
        let back = Link { from: link.to, to: link.from, processes: (link.processes.1, link.processes.0), ..link };
        Ok(back.carry(answers).map(Ok).boxed())
    }
}

impl fmt::Debug for SimulatedTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimulatedTransport({})", self.address)
    }
}

impl fmt::Debug for SimulatedNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        write!(f, "SimulatedNetwork({} nodes, {} links cut)", state.doors.len(), state.cut.len())
    }
}
