//! Objects of a store that all nodes share: written once, and deleted when none of them needs them any more.
//!
//! Whoever leads a group deletes what nothing of it names; the leader of the catalog what no group knows. It asks every node of the cluster
//! first, and keeps what one of them needs or does not answer for. Only then it looks once more itself, after it has applied all that was in its
//! log: what a process that is gone had proposed before it was asked is named by then.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use event::{GroupId, NodeId, limits};
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::catalog::Catalog;
use crate::error::Error;
use crate::message::{Request, from_json, to_json};
use crate::node::Node;
use crate::segments::store_error;
use crate::transport::Lane;

/// How long a node may take to say what it needs.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

impl Node {
    /// Whether manifest, checkpoint, snapshot or statement of this node names the object.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.copies.is_incoming(name) || self.data.values().any(|data| data.reader().is_pinned(name))
    }

    /// Deletes objects of groups that this node leads and nobody needs.
    pub(crate) async fn collect_shared(&self) -> Result<(), Error> {
        let listed = self.objects().await?;
        let mut unwanted: BTreeMap<GroupId, BTreeSet<String>> = BTreeMap::new();
        {
            let catalog = self.catalog();
            for name in listed.into_keys().filter(|name| !self.wants(name)) {
                let group = group_of(&catalog, &name);
                if self.leads(group) {
                    unwanted.entry(group).or_default().insert(name);
                }
            }
        }
        for (group, names) in unwanted {
            for names in names.into_iter().collect::<Vec<_>>().chunks(limits::NAMES_ASKED_MAX) {
                self.delete_unneeded(group, names).await?;
            }
        }
        Ok(())
    }

    async fn delete_unneeded(&self, group: GroupId, names: &[String]) -> Result<(), Error> {
        let applied = self.status_of(group)?.applied;
        let request = Request::Needs { group, applied, names: to_json(&names) };
        let mut needed = BTreeSet::new();
        let others: Vec<NodeId> =
            self.catalog().nodes.keys().copied().filter(|node| *node != self.identity.node).collect();
        for node in others {
            let answer = self.network.call(node, Lane::Bulk, &request, ANSWER_WAIT).await;
            let Some(wanted) = answer.ok().and_then(|answer| from_json::<Vec<String>>(&answer).ok()) else {
                tracing::debug!(%node, "objects stay that a node does not answer for");
                return Ok(());
            };
            needed.extend(wanted);
        }
        let last = self.status_of(group)?.last;
        match group {
            GroupId::CATALOG => self.catalog.applied(last).await?,
            group => self.data_group(group)?.group.applied(last).await?,
        }
        if !self.leads(group) {
            return Ok(());
        }
        for name in names.iter().filter(|name| !needed.contains(*name) && !self.wants(name)) {
            self.copies.note_deleted(name);
            match self.store.delete(&Path::from(name.as_str())).await {
                Ok(()) => tracing::debug!(object = %name, "deleted an object that no node needs"),
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(store_error(error)),
            }
        }
        Ok(())
    }

    /// Which of the objects this node needs, for a leader that has applied so much of a group: all of them as long as this one has not.
    pub(crate) async fn needs(&self, group: GroupId, applied: u64, names: Vec<String>) -> Result<Vec<String>, Error> {
        if self.status_of(group)?.applied < applied {
            return Ok(names);
        }
        let (needed, unneeded): (Vec<String>, Vec<String>) = names.into_iter().partition(|name| self.wants(name));
        for name in unneeded {
            self.copies.note_deleted(&name);
            self.store.forget_copy(&Path::from(name)).await;
        }
        Ok(needed)
    }

    fn leads(&self, group: GroupId) -> bool {
        match group {
            GroupId::CATALOG => self.catalog.leads(),
            group => self.data.get(&group).is_some_and(|data| data.group.leads()),
        }
    }
}

/// The group whose segment has that name, `table/shard/…`; the catalog's for one that no table has.
fn group_of(catalog: &Catalog, name: &str) -> GroupId {
    let mut parts = name.split('/');
    let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok());
    let (Some(table), Some(shard)) = (number(), number()) else { return GroupId::CATALOG };
    let tables = catalog.tables.values().filter(|known| known.definition.id.0 == table);
    let mut shards = tables.flat_map(|table| &table.shards);
    shards.find(|placement| placement.shard.0 == shard).map_or(GroupId::CATALOG, |placement| placement.group)
}
