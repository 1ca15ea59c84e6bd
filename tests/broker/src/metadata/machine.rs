//! The state machine: the metadata in memory, its snapshots on disk.

use std::sync::Arc;

use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{
    Entry, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, SnapshotMeta, StorageError, StorageIOError,
    StoredMembership,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::command::Outcome;
use super::state::ClusterMetadata;
use super::store::Store;
use super::{Node, NodeId, Types};

type Failure = StorageError<NodeId>;

/// What a snapshot holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Applied {
    last: Option<LogId<NodeId>>,
    membership: StoredMembership<NodeId, Node>,
    metadata: Arc<ClusterMetadata>,
}

impl Applied {
    fn snapshot(&self) -> Result<Snapshot<Types>, Failure> {
        let bytes = serde_json::to_vec(self).map_err(|error| StorageIOError::write_snapshot(None, &error))?;
        let meta = SnapshotMeta {
            last_log_id: self.last,
            last_membership: self.membership.clone(),
            snapshot_id: self.last.map(|id| id.to_string()).unwrap_or_default(),
        };
        Ok(Snapshot { meta, snapshot: Box::new(bytes) })
    }
}

/// What has been applied, and where it is told.
pub(super) struct Machine {
    store: Store,
    applied: Applied,
    told: watch::Sender<Arc<ClusterMetadata>>,
}

impl Machine {
    /// Starts at the last snapshot; Raft applies the rest as soon as it knows what is committed.
    pub(super) fn open(store: Store) -> Result<(Self, watch::Receiver<Arc<ClusterMetadata>>), Failure> {
        let applied: Applied = store.fact("snapshot")?.unwrap_or_default();
        let (told, metadata) = watch::channel(Arc::clone(&applied.metadata));
        Ok((Self { store, applied, told }, metadata))
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId<NodeId>>, StoredMembership<NodeId, Node>), Failure> {
        Ok((self.applied.last, self.applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcome>, Failure>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut outcomes = Vec::new();
        for entry in entries {
            self.applied.last = Some(entry.log_id);
            let metadata = Arc::make_mut(&mut self.applied.metadata);
            outcomes.push(match entry.payload {
                EntryPayload::Normal(command) => metadata.apply(entry.log_id.index, command),
                EntryPayload::Membership(membership) => {
                    self.applied.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Outcome::Success
                }
                EntryPayload::Blank => Outcome::Success,
            });
            metadata.last_applied_index = entry.log_id.index;
        }
        self.told.send_replace(Arc::clone(&self.applied.metadata));
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { store: self.store.clone(), applied: self.applied.clone() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Vec<u8>>, Failure> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<NodeId, Node>,
        snapshot: Box<Vec<u8>>,
    ) -> Result<(), Failure> {
        let applied: Applied = serde_json::from_slice(&snapshot)
            .map_err(|error| StorageIOError::read_snapshot(Some(meta.signature()), &error))?;
        self.store.until_room().await;
        self.store.set_fact("snapshot", &applied)?;
        self.applied = applied;
        self.told.send_replace(Arc::clone(&self.applied.metadata));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, Failure> {
        let stored: Option<Applied> = self.store.fact("snapshot")?;
        stored.as_ref().map(Applied::snapshot).transpose()
    }
}

/// What had been applied when a snapshot was asked for.
pub(super) struct Builder {
    store: Store,
    applied: Applied,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, Failure> {
        self.store.until_room().await;
        self.store.set_fact("snapshot", &self.applied)?;
        self.applied.snapshot()
    }
}
