//! Raft's messages to other brokers: JSON over their API port.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{OptionalSend, Snapshot, SnapshotMeta, Vote};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Node, NodeId, Types};
use crate::http::Caller;

/// A snapshot on its way.
#[derive(Serialize, Deserialize)]
pub(crate) struct SnapshotRequest {
    pub(crate) vote: Vote<NodeId>,
    pub(crate) meta: SnapshotMeta<NodeId, Node>,
    pub(crate) data: Vec<u8>,
}

#[derive(Clone)]
pub(super) struct Network {
    pub(super) caller: Arc<Caller>,
    /// Between two tries to reach a broker that did not answer.
    pub(super) pause: Duration,
}

pub(super) struct Peer {
    network: Network,
    base: String,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, _target: NodeId, node: &Node) -> Peer {
        Peer { network: self.clone(), base: node.addr.clone() }
    }
}

impl Peer {
    async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        path: &str,
        request: &Q,
        limit: Duration,
    ) -> Result<A, Unreachable> {
        let answer = self.network.caller.post(&self.base, path, request, limit).await;
        answer.map_err(|error| Unreachable::new(&io::Error::other(error)))
    }
}

type Failure = RPCError<NodeId, Node, RaftError<NodeId>>;

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, Failure> {
        Ok(self.call("/raft/append", &rpc, option.hard_ttl()).await?)
    }

    async fn vote(&mut self, rpc: VoteRequest<NodeId>, option: RPCOption) -> Result<VoteResponse<NodeId>, Failure> {
        Ok(self.call("/raft/vote", &rpc, option.hard_ttl()).await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<NodeId>,
        snapshot: Snapshot<Types>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<NodeId>, StreamingError<Types, Fatal<NodeId>>> {
        let request = SnapshotRequest { vote, meta: snapshot.meta, data: *snapshot.snapshot };
        Ok(self.call("/raft/snapshot", &request, option.hard_ttl()).await?)
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(self.network.pause))
    }
}
