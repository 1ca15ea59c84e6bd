//! The commands that change metadata, in the JSON shapes of the released broker's `/api/v1/propose`.
//!
//! Four of them are this broker's own and are marked: nobody outside sends them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId {
    /// The topic.
    pub topic: String,
    /// The number within it.
    pub partition: u32,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// What a topic is created with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicConfig {
    /// Its name.
    pub name: String,
    /// Its partition count.
    pub partitions: u32,
    /// Its replicas per partition.
    pub replication_factor: u16,
    /// Kept and told, enforced by nobody.
    #[serde(default = "week")]
    pub retention_ms: u64,
    /// Kept and told, enforced by nobody.
    #[serde(default = "gibibyte")]
    pub segment_bytes: u64,
    /// In-sync replicas that a publish needs, unless `config` says otherwise.
    #[serde(default = "one")]
    pub min_isr: u16,
    /// What was set by name.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
}

fn week() -> u64 {
    604_800_000
}

fn gibibyte() -> u64 {
    1_073_741_824
}

fn one() -> u16 {
    1
}

/// A broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its node id.
    pub id: String,
    /// A name for people.
    #[serde(default)]
    pub name: Option<String>,
    /// Its rack.
    #[serde(default)]
    pub rack: Option<String>,
    /// Where clients reach it.
    pub client_addr: String,
    /// Where brokers reach it.
    pub cluster_addr: String,
    /// The version it runs.
    #[serde(default)]
    pub version: String,
    /// [`NodeInfo::disk`] and [`NodeInfo::incarnation`].
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

impl NodeInfo {
    /// What the data directory was marked with when it was made: another mark, other data.
    pub fn disk(&self) -> &str {
        self.tags.get("disk").map_or("", String::as_str)
    }

    /// What one run of the process is marked with.
    pub fn incarnation(&self) -> &str {
        self.tags.get("incarnation").map_or("", String::as_str)
    }
}

/// A change of the metadata.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are the released broker's")]
pub enum Command {
    /// Makes a topic; the first replica of each partition leads.
    CreateTopic { config: TopicConfig, partition_assignments: Vec<Vec<String>> },
    /// Removes a topic and its records.
    DeleteTopic { name: String },
    /// Sets some keys of a topic's configuration.
    UpdateTopicConfig { name: String, config: BTreeMap<String, String> },
    /// Own: sets keys and takes others back to their defaults, in one step.
    AlterTopicConfig { name: String, changes: BTreeMap<String, Option<String>> },
    /// Adds partitions.
    AddPartitions { topic: String, new_assignments: Vec<Vec<String>> },
    /// Makes an in-sync replica the leader. The epoch must be above the partition's.
    UpdatePartitionLeader { partition: PartitionId, leader: String, epoch: u64 },
    /// Sets the in-sync set; the epoch must be the partition's.
    UpdatePartitionIsr {
        partition: PartitionId,
        isr: BTreeSet<String>,
        leader_epoch: u64,
        /// The version of the partition that the proposer saw: a proposal that was overtaken changes nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<u64>,
    },
    /// Own: no in-sync replica is there, so nobody leads.
    TakePartitionOffline { partition: PartitionId, epoch: u64 },
    /// Sets the replicas. Those that leave are no longer in sync.
    ReassignPartition { partition: PartitionId, replicas: Vec<String> },
    /// A broker started.
    RegisterNode { info: NodeInfo },
    /// Forgets a broker.
    DeregisterNode { node_id: String },
    /// Own: a consumer group's position.
    CommitOffset { group: String, partition: PartitionId, offset: u64 },
    /// Own: forgets a consumer group.
    DeleteGroup { group: String },
    /// Nothing.
    Noop,
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are the released broker's")]
pub enum Outcome {
    Success,
    TopicCreated { name: String, partitions: u32 },
    TopicDeleted { name: String },
    PartitionLeaderUpdated { partition: PartitionId, leader: String },
    IsrUpdated { partition: PartitionId, isr: BTreeSet<String> },
    NodeRegistered { node_id: String },
    NodeDeregistered { node_id: String },
    Error { message: String },
}

impl Outcome {
    pub(crate) fn error(message: impl Into<String>) -> Self {
        Self::Error { message: message.into() }
    }
}
