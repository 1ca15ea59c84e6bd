//! The metadata of the cluster: which topics, partitions and brokers there are, agreed on through Raft.
#![allow(clippy::result_large_err, reason = "the errors are openraft's")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use hyper::StatusCode;
use openraft::error::{ClientWriteError, RaftError};
use openraft::{BasicNode, Raft, RaftMetrics, ServerState, SnapshotPolicy};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

pub mod command;
pub mod state;
pub mod topic_config;

mod machine;
mod network;
mod store;

use crate::Config;
use crate::faults::Faults;
use crate::http::{CallError, Caller};
use command::{Command, Outcome};
use machine::Machine;
pub(crate) use network::SnapshotRequest;
use state::ClusterMetadata;
use store::Store;

/// The Raft id of a node id.
pub type NodeId = u64;
/// What Raft's membership tells of a node: the URL of its API.
pub type Node = BasicNode;

openraft::declare_raft_types!(
    /// What Raft works with here.
    pub Types:
        D = Command,
        R = Outcome,
        NodeId = NodeId,
        Node = Node,
        SnapshotData = Vec<u8>,
);

/// How long a proposal may take, elections included.
const PROPOSAL_LIMIT: Duration = Duration::from_secs(5);

/// FNV-1a, as the released broker makes a Raft id from a node id.
pub fn raft_id(node_id: &str) -> NodeId {
    hash(node_id.as_bytes())
}

/// FNV-1a, 64 bits.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325;
    bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The body of `/api/v1/propose`.
#[derive(Serialize, Deserialize)]
pub(crate) struct Proposal {
    pub(crate) command: Command,
}

/// The answer of `/api/v1/propose`: a success even if the response is an error.
#[derive(Serialize, Deserialize)]
pub(crate) struct ProposalAnswer {
    pub(crate) success: bool,
    pub(crate) response: Option<Outcome>,
    pub(crate) error: Option<String>,
    pub(crate) redirect_to: Option<NodeId>,
}

/// This broker's part in the agreement.
pub(crate) struct Metadata {
    pub(crate) id: NodeId,
    pub(crate) raft: Raft<Types>,
    current: watch::Receiver<Arc<ClusterMetadata>>,
    caller: Arc<Caller>,
    faults: Arc<Faults>,
    pause: Duration,
}

impl Metadata {
    pub(crate) async fn open(config: &Config, caller: Arc<Caller>, faults: Arc<Faults>) -> anyhow::Result<Self> {
        let raft_config = openraft::Config {
            cluster_name: "rivven".to_owned(),
            heartbeat_interval: config.raft_heartbeat_ms,
            election_timeout_min: config.raft_election_min_ms,
            election_timeout_max: config.raft_election_max_ms,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(500),
            max_in_snapshot_log_to_keep: 100,
            ..openraft::Config::default()
        };
        let id = raft_id(&config.node_id);
        let store = Store::open(&config.data_dir.join("raft.redb"), Arc::clone(&faults))?;
        let (machine, current) = Machine::open(store.clone())?;
        let pause = Duration::from_millis(config.raft_heartbeat_ms);
        let network = network::Network { caller: Arc::clone(&caller), pause };
        let raft = Raft::new(id, Arc::new(raft_config.validate()?), network, store, machine).await?;
        Ok(Self { id, raft, current, caller, faults, pause })
    }

    /// What has been applied here.
    pub(crate) fn now(&self) -> Arc<ClusterMetadata> {
        Arc::clone(&self.current.borrow())
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Arc<ClusterMetadata>> {
        self.current.clone()
    }

    pub(crate) fn metrics(&self) -> RaftMetrics<NodeId, Node> {
        self.raft.metrics().borrow().clone()
    }

    pub(crate) fn leads(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        metrics.state == ServerState::Leader && metrics.current_leader == Some(self.id)
    }

    /// The API of the Raft leader, when it is known.
    pub(crate) fn leader_url(&self) -> Option<String> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let leader = metrics.current_leader?;
        metrics.membership_config.membership().get_node(&leader).map(|node| node.addr.clone())
    }

    /// Whether a node is a member.
    pub(crate) fn is_member(&self, node_id: &str) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        metrics.membership_config.membership().get_node(&raft_id(node_id)).is_some()
    }

    /// Proposes on this broker, which must lead.
    pub(crate) async fn propose_here(
        &self,
        command: Command,
    ) -> Result<Outcome, RaftError<NodeId, ClientWriteError<NodeId, Node>>> {
        Ok(self.raft.client_write(command).await?.data)
    }

    /// Proposes through whichever broker leads.
    pub(crate) async fn propose(&self, command: Command) -> anyhow::Result<Outcome> {
        let until = Instant::now() + PROPOSAL_LIMIT;
        let mut metrics = self.raft.metrics();
        loop {
            metrics.borrow_and_update();
            if self.leads() {
                self.faults.room()?;
                // Never sent elsewhere after this: what failed here may have happened.
                let limit = tokio::time::timeout_at(until, self.propose_here(command.clone())).await;
                match limit.context("no quorum agreed in time")? {
                    Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => {}
                    other => return Ok(other?),
                }
            } else if let Some(leader) = self.leader_url() {
                let limit = until.saturating_duration_since(Instant::now());
                let proposal = Proposal { command: command.clone() };
                match self.caller.post::<_, ProposalAnswer>(&leader, "/api/v1/propose", &proposal, limit).await {
                    // It died or leads no more: somebody else will.
                    Err(CallError::NotSent(_) | CallError::Refused(StatusCode::TEMPORARY_REDIRECT, _)) => {}
                    answer => return answer?.response.context("the leader answered without an outcome"),
                }
            }
            ensure!(Instant::now() < until, "no Raft leader is known");
            // Besides the leader's name, a leader that was not reached may be back.
            drop(tokio::time::timeout(self.pause, metrics.changed()).await);
        }
    }

    /// Waits until what is applied here is as wanted.
    pub(crate) async fn until(&self, wanted: impl Fn(&ClusterMetadata) -> bool) {
        let mut current = self.watch();
        let wait = current.wait_for(|metadata| wanted(metadata));
        // What was agreed on arrives with the next heartbeat; who waits longer than this is cut off.
        drop(tokio::time::timeout(PROPOSAL_LIMIT, wait).await);
    }

    /// Initialises the cluster, once.
    pub(crate) async fn bootstrap(&self, members: BTreeMap<NodeId, Node>) -> anyhow::Result<()> {
        Ok(self.raft.initialize(members).await?)
    }
}
