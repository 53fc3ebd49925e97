//! A network in one process, whose links can be cut and mended.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Answers, Lane, Messages, Transport, TransportError};
use crate::door::Door;

/// The network. Cheap to clone.
#[derive(Clone)]
pub struct SimulatedNetwork {
    state: Arc<Mutex<State>>,
    /// Bumped with every change of the links, so that who waits looks again.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    doors: BTreeMap<String, Door>,
    /// Ordered pairs of addresses: nothing gets from the first to the second.
    cut: BTreeSet<(String, String)>,
}

impl Default for SimulatedNetwork {
    fn default() -> Self {
        Self { state: Arc::default(), changes: watch::Sender::new(0) }
    }
}

impl SimulatedNetwork {
    /// The transport of the node at `address`.
    pub fn at(&self, address: &str) -> Arc<dyn Transport> {
        Arc::new(SimulatedTransport { network: self.clone(), address: address.to_owned() })
    }

    /// Nothing arrives at the address any more, and nothing comes from it: its process has ended.
    pub fn leave(&self, address: &str) {
        self.state.lock().doors.remove(address);
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

    /// Mends all links.
    pub fn mend(&self) {
        self.state.lock().cut.clear();
        self.change();
    }

    fn change(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    fn passes(&self, from: &str, to: &str) -> bool {
        !self.state.lock().cut.contains(&(from.to_owned(), to.to_owned()))
    }

    /// Completes once nothing gets from one to the other, or the other is gone.
    async fn breaks(&self, one: &str, other: &str) {
        let mut changes = self.changes.subscribe();
        loop {
            let is_there = self.state.lock().doors.contains_key(other);
            if !is_there || !self.passes(one, other) || !self.passes(other, one) {
                return;
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

/// The transport of one node of the network.
struct SimulatedTransport {
    network: SimulatedNetwork,
    address: String,
}

impl SimulatedTransport {
    fn door(&self, to: &str) -> Result<Door, TransportError> {
        let unreachable =
            |reason: &str| TransportError::Unreachable { address: to.to_owned(), reason: reason.to_owned() };
        if !self.network.passes(&self.address, to) || !self.network.passes(to, &self.address) {
            return Err(unreachable("the link is cut"));
        }
        self.network.state.lock().doors.get(to).cloned().ok_or_else(|| unreachable("nobody listens"))
    }

    fn lost(&self, address: &str) -> TransportError {
        TransportError::Lost { address: address.to_owned(), reason: "the link was cut".to_owned() }
    }
}

#[async_trait]
impl Transport for SimulatedTransport {
    async fn serve(&self, door: Door) {
        self.network.state.lock().doors.insert(self.address.clone(), door);
        self.network.change();
    }

    async fn call(&self, to: &str, _: Lane, message: Bytes, timeout: Duration) -> Result<Bytes, TransportError> {
        let door = self.door(to)?;
        // What was sent is worked on, whether its answer is waited for or not.
        let answer = tokio::spawn(async move { door.call(message).await });
        tokio::select! {
            answer = answer => answer.map_err(|_| self.lost(to)),
            () = self.network.breaks(&self.address, to) => Err(self.lost(to)),
            () = tokio::time::sleep(timeout) => Err(self.lost(to)),
        }
    }

    async fn stream(&self, to: &str, _: Lane, messages: Messages) -> Result<Answers, TransportError> {
        let door = self.door(to)?;
        let broken = |network: SimulatedNetwork, one: String, other: String| async move {
            network.breaks(&one, &other).await;
        };
        let until = broken(self.network.clone(), self.address.clone(), to.to_owned());
        let answers = door.stream(messages.take_until(until).boxed()).await;
        let until = broken(self.network.clone(), self.address.clone(), to.to_owned());
        Ok(answers.take_until(until).map(Ok).boxed())
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
