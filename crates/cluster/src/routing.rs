//! Statements and reads on their way to the leader of their group, wherever that is.
//!
//! Who does not hear what became of a statement asks again, at the same leader or the next: the statement carries its origin, so it is applied
//! once. When time is up and it may be in a log, its fate is unknown, and never called a failure.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use event::{GroupId, NodeId, Origin, StatementId, limits};
use parking_lot::Mutex;
use replication::{Group, Proposed, StateMachine};
use storage::{Command, Outcome, Statement};
use tokio::time::{Instant, timeout_at};

use crate::catalog::command::{CatalogCommand, CatalogOutcome, CatalogStatement};
use crate::error::Error;
use crate::message::{Refusal, Request, from_json, unpack};
use crate::network::CallError;
use crate::node::{ClientId, Node};
use crate::transport::Lane;

/// Between two tries, at least.
const PAUSE: Duration = Duration::from_millis(10);
/// Between two tries when no leader is known, at most.
const RETRY: Duration = Duration::from_millis(100);
/// How long a leader may work.
const WORK_WAIT: Duration = Duration::from_secs(600);
/// How long a node that has DDL waits for the others to follow, each of which looks again by itself.
const FOLLOW_WAIT: Duration = Duration::from_secs(2);

/// The statements of this boot that may still be asked for again.
#[derive(Debug, Default)]
pub(crate) struct Asking {
    next: u64,
    open: BTreeSet<u64>,
}

/// A statement that is being asked for; settled when dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) origin: Origin,
    asking: Arc<Mutex<Asking>>,
}

impl Ticket {
    pub(crate) fn new(asking: &Arc<Mutex<Asking>>, node: NodeId, boot: u64) -> Ticket {
        let mut open = asking.lock();
        let counter = open.next;
        open.next += 1;
        open.open.insert(counter);
        let settled = open.open.first().copied().unwrap_or(counter);
        let origin = Origin { id: StatementId { node, boot, counter }, settled };
        Ticket { origin, asking: Arc::clone(asking) }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.asking.lock().open.remove(&self.origin.id.counter);
    }
}

/// What one try came to.
enum Tried<T> {
    Done(T),
    /// It is in no log; whom to ask instead.
    NotThere(Option<NodeId>),
    /// It may be in a log.
    Unknown(String),
    /// It was refused, and asking again does not help.
    Refused(Error),
}

impl Node {
    /// Commits commands to the shards of a group: answers after commit, sync, and apply at the leader, who refuses none of them for being
    /// too many.
    pub(crate) async fn propose(&self, group: GroupId, commands: Vec<Command>) -> Result<Proposed<Outcome>, Error> {
        self.propose_of(None, group, commands).await
    }

    /// The same for a connection of this node, whose statements may be too many for the leader.
    pub(crate) async fn propose_of(
        &self,
        client: Option<ClientId>,
        group: GroupId,
        commands: Vec<Command>,
    ) -> Result<Proposed<Outcome>, Error> {
        let replica = &self.data_group(group)?.group;
        let ticket = Ticket::new(&self.asking, self.identity.node, self.identity.boot);
        let statement = Statement { origin: ticket.origin, commands };
        self.ask_leader(replica, client, statement).await
    }

    /// Commits a command to the catalog: answers once it is applied here, too.
    pub(crate) async fn propose_catalog(&self, command: CatalogCommand) -> Result<CatalogOutcome, Error> {
        let ticket = Ticket::new(&self.asking, self.identity.node, self.identity.boot);
        let statement = CatalogStatement { origin: ticket.origin, command };
        let proposed = self.ask_leader(&self.catalog, None, statement).await?;
        let behind = |_| Error::Unknown("this node does not follow the catalog, which has the change".into());
        tokio::time::timeout(patience(), self.catalog.applied(proposed.index)).await.map_err(behind)??;
        Ok(proposed.outcome)
    }

    /// Waits until everything acknowledged before the call is applied in this node's replica.
    pub(crate) async fn read_barrier<M: StateMachine>(&self, group: &Group<M>) -> Result<u64, Error> {
        let begun = Instant::now();
        let index = self.pass_barrier(group, begun).await?;
        self.freshness.note(group.id(), begun);
        Ok(index)
    }

    async fn pass_barrier<M: StateMachine>(&self, group: &Group<M>, begun: Instant) -> Result<u64, Error> {
        let deadline = begun + patience();
        let no_leader = |_| Error::from(replication::Error::NoLeader(group.id()));
        // A leader that nobody answers does not know that it leads no longer.
        let index = timeout_at(deadline, self.ask_barrier(group, deadline)).await.map_err(no_leader)??;
        if group.applied_index() < index {
            // A node without room on its disk follows nobody.
            let behind =
                |_| Error::Stale(format!("this node is behind in group {}, and does not catch up", group.id()));
            timeout_at(deadline, group.applied(index)).await.map_err(behind)??;
        }
        Ok(index)
    }

    /// The index that a read must wait for.
    async fn ask_barrier<M: StateMachine>(&self, group: &Group<M>, deadline: Instant) -> Result<u64, Error> {
        let mut hint = None;
        loop {
            let leader = hint.take().or_else(|| group.leader());
            let tried = match leader {
                Some(leader) if leader == self.identity.node => match group.read_index().await {
                    Ok(index) => return Ok(index),
                    Err(replication::Error::NoLeader(_)) => Tried::NotThere(None),
                    Err(error) => return Err(error.into()),
                },
                Some(leader) => {
                    let request = Request::ReadIndex { group: group.id() };
                    tokio::select! {
                        answer = self.network.call(leader, Lane::Heartbeat, &request, attempt()) => match answer {
                            Ok(bytes) => Tried::Done(unpack::<u64>(&bytes).map_err(Error::Peer)?),
                            Err(CallError::Refused(Refusal::NotLeader(other))) => Tried::NotThere(other),
                            Err(_) => Tried::NotThere(None),
                        },
                        () = group.leader_changes_from(Some(leader)) => Tried::NotThere(None),
                    }
                }
                None => Tried::NotThere(None),
            };
            match tried {
                Tried::Done(index) => return Ok(index),
                Tried::NotThere(other) => hint = other.filter(|other| Some(*other) != leader),
                Tried::Unknown(_) | Tried::Refused(_) => {}
            }
            if Instant::now() >= deadline {
                return Err(replication::Error::NoLeader(group.id()).into());
            }
            self.wait_for_leader(group, leader, hint).await?;
        }
    }

    /// Asks the leader of a group, which is another node, for work that may take its time and may be done twice.
    pub(crate) async fn ask_for_work<M: StateMachine>(&self, group: &Group<M>, request: Request) -> Result<(), Error> {
        let deadline = Instant::now() + patience();
        loop {
            let leader = group.leader();
            let answer = match leader {
                Some(leader) => self.network.call(leader, Lane::Log, &request, WORK_WAIT).await,
                None => Err(CallError::Refused(Refusal::NotLeader(None))),
            };
            match answer {
                Ok(_) => return Ok(()),
                Err(CallError::Refused(Refusal::NotLeader(_)) | CallError::Unreachable(_))
                    if Instant::now() < deadline =>
                {
                    self.wait_for_leader(group, leader, None).await?;
                }
                Err(CallError::Refused(refusal)) => return Err(refusal.into_error(group.id())),
                Err(error) => return Err(Error::Peer(error.to_string())),
            }
        }
    }

    /// Asks the leader of a group until it answers.
    async fn ask_leader<M: StateMachine>(
        &self,
        group: &Arc<Group<M>>,
        client: Option<ClientId>,
        statement: M::Statement,
    ) -> Result<Proposed<M::Outcome>, Error> {
        let deadline = Instant::now() + patience();
        let mut unknown: Option<String> = None;
        let mut hint = None;
        loop {
            let leader = hint.take().or_else(|| group.leader());
            let tried = match leader {
                Some(leader) if leader == self.identity.node => {
                    // A leader that no majority answers goes on leading, as far as it knows.
                    let unanswered = |_| Tried::Unknown("no majority has answered".into());
                    timeout_at(deadline, here(group, statement.clone())).await.unwrap_or_else(unanswered)
                }
                // What may be in a log already is not refused any more: its fate is what is asked for.
                Some(leader) => self.there(group, leader, client.filter(|_| unknown.is_none()), &statement).await,
                None => Tried::NotThere(None),
            };
            match tried {
                Tried::Done(proposed) => return Ok(proposed),
                Tried::NotThere(other) => hint = other.filter(|other| Some(*other) != leader),
                Tried::Unknown(reason) => unknown = Some(reason),
                // Nothing is asked of a node that has stopped.
                Tried::Refused(error @ Error::ShuttingDown(_)) => return Err(unknown.map_or(error, Error::Unknown)),
                // A try before may have been more successful.
                Tried::Refused(error) if unknown.is_none() => return Err(error),
                Tried::Refused(_) => {}
            }
            if Instant::now() >= deadline || *self.stop.borrow() {
                return Err(match unknown {
                    Some(reason) => Error::Unknown(reason),
                    None => replication::Error::NoLeader(group.id()).into(),
                });
            }
            if let Err(error) = self.wait_for_leader(group, leader, hint).await {
                return Err(unknown.map_or(error, Error::Unknown));
            }
        }
    }

    /// Before the next try: until another leader is known, or for a moment.
    async fn wait_for_leader<M: StateMachine>(
        &self,
        group: &Group<M>,
        leader: Option<NodeId>,
        hint: Option<NodeId>,
    ) -> Result<(), Error> {
        // Nodes that take each other for the leader would be asked in turn without a pause.
        tokio::time::sleep(PAUSE).await;
        let mut stop = self.stop.subscribe();
        if hint.is_some() {
            return Ok(());
        }
        tokio::select! {
            () = group.leader_changes_from(leader) => Ok(()),
            () = tokio::time::sleep(RETRY) => Ok(()),
            _ = stop.wait_for(|stop| *stop) => Err(Error::ShuttingDown("the node stops".into())),
        }
    }

    async fn there<M: StateMachine>(
        &self,
        group: &Group<M>,
        leader: NodeId,
        client: Option<ClientId>,
        statement: &M::Statement,
    ) -> Tried<Proposed<M::Outcome>> {
        let entry = match M::encode(0, vec![statement.clone()]) {
            Ok((entry, _)) => entry,
            Err(error) => return Tried::Refused(error.into()),
        };
        let request = Request::Propose { group: group.id(), entry, client: client.map(|client| client.0) };
        let answer = tokio::select! {
            answer = self.network.call(leader, Lane::Log, &request, attempt()) => answer,
            // It may be in the old leader's log.
            () = group.leader_changes_from(Some(leader)) => return Tried::Unknown("the leader changed".into()),
        };
        match answer {
            Ok(bytes) => match from_json(&bytes) {
                Ok((index, outcome)) => Tried::Done(Proposed { index, outcome }),
                Err(reason) => Tried::Unknown(reason),
            },
            Err(CallError::Unreachable(_)) => Tried::NotThere(None),
            Err(CallError::Lost(reason)) => Tried::Unknown(reason),
            Err(CallError::Refused(Refusal::NotLeader(other))) => Tried::NotThere(other),
            Err(CallError::Refused(Refusal::Unknown(reason))) => Tried::Unknown(reason),
            Err(CallError::Refused(refusal)) => Tried::Refused(refusal.into_error(group.id())),
        }
    }

    /// Waits until the other nodes have followed the catalog to `index`, as far as they can be reached: what one connection has changed,
    /// another finds, wherever it is connected.
    pub(crate) async fn wait_for_followers(&self) {
        let index = self.catalog.applied_index();
        let others = self.network.others();
        let request = Request::Applied { group: GroupId::CATALOG, index };
        // What they wait for is committed already; they are told now rather than with the next entries.
        self.network.commits_wanted.notify_waiters();
        let follow = others.iter().map(|node| self.network.call(*node, Lane::Heartbeat, &request, FOLLOW_WAIT));
        for (node, followed) in others.iter().zip(futures::future::join_all(follow).await) {
            if let Err(error) = followed {
                tracing::debug!(%node, %error, index, "a node follows the catalog later");
            }
        }
    }
}

/// How long a statement or read waits for a leader that a majority follows.
fn patience() -> Duration {
    Duration::from_millis(limits::LEADER_WAIT_MS)
}

/// How long one try may take.
fn attempt() -> Duration {
    Duration::from_millis(limits::LEADER_ATTEMPT_MS)
}

async fn here<M: StateMachine>(group: &Group<M>, statement: M::Statement) -> Tried<Proposed<M::Outcome>> {
    match group.propose(statement).await {
        Ok(proposed) => Tried::Done(proposed),
        Err(replication::Error::NoLeader(_)) => Tried::NotThere(None),
        Err(replication::Error::Unknown { reason, .. }) => Tried::Unknown(reason),
        Err(error) => Tried::Refused(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_says_what_is_settled() {
        let asking = Arc::default();
        let ticket = || Ticket::new(&asking, NodeId(1), 1);
        let (first, second) = (ticket(), ticket());
        assert_eq!((first.origin.id.counter, first.origin.settled), (0, 0));
        assert_eq!((second.origin.id.counter, second.origin.settled), (1, 0));
        drop(first);
        assert_eq!(ticket().origin.settled, 1, "the second is still asked for");
        drop(second);
        assert_eq!(ticket().origin.settled, 3, "the third was settled at once");
    }
}
