//! `RivvenTopic`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{BlockedBy, ClusterRef, Phase, defaults, is_false};

/// A topic of a RivvenCluster.
#[allow(clippy::duplicated_attributes, reason = "the columns of two tables repeat a word")]
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "rivven.io",
    version = "v1alpha1",
    kind = "RivvenTopic",
    doc = "A topic of a RivvenCluster.",
    namespaced,
    status = "RivvenTopicStatus",
    shortname = "rvt",
    category = "rivven",
    derive = "PartialEq",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(name = "Partitions", type_ = "integer", json_path = ".status.partitions"),
    printcolumn(name = "Replication", type_ = "integer", json_path = ".status.replicationFactor"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason", priority = "1"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = "1")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.clusterRef == oldSelf.clusterRef").message("clusterRef cannot change: a topic does not move between clusters; create another RivvenTopic"),
    validation = Rule::new("has(self.topicName) == has(oldSelf.topicName) && (!has(self.topicName) || self.topicName == oldSelf.topicName)").message("topicName cannot change: create another RivvenTopic"),
    validation = Rule::new("!has(self.config) || !has(self.config.minInsyncReplicas) || self.config.minInsyncReplicas <= self.replicationFactor").message("config.minInsyncReplicas must not be greater than replicationFactor: no write could ever succeed")
)]
pub struct RivvenTopicSpec {
    /// The cluster that holds the topic. Cannot change.
    pub cluster_ref: ClusterRef,
    /// The topic's name at the broker. Default: the name of this object. Cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = "^[a-zA-Z0-9][a-zA-Z0-9._-]*$"))]
    #[x_kube(validation = Rule::new("!(self in ['wal', 'raft', 'offsets'])").message("wal, raft and offsets are directories of the broker's own: choose another topicName"))]
    pub topic_name: Option<String>,
    /// Number of partitions. May grow, never shrink.
    #[serde(default = "partitions")]
    #[schemars(range(min = 1, max = 1000))]
    pub partitions: u32,
    /// Copies of each partition.
    #[serde(default = "replication_factor")]
    #[schemars(range(min = 1, max = 99))]
    pub replication_factor: u32,
    /// Configuration of the topic.
    #[serde(default)]
    pub config: TopicConfig,
    /// Who may do what. Enforced only by brokers that can; the condition `AclsApplied` tells.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["principal".into()]))]
    pub acls: Vec<TopicAcl>,
    /// Delete the topic, and its records, when this object is deleted. Only ever a topic that this object made or adopted.
    #[serde(default, skip_serializing_if = "is_false")]
    pub delete_on_remove: bool,
    /// Labels of the topic's metrics.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub topic_labels: BTreeMap<String, String>,
}

/// Configuration of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopicConfig {
    /// How long records are kept, in milliseconds; -1 is for ever.
    #[serde(default = "retention_ms")]
    #[schemars(range(min = -1, max = 9_007_199_254_740_991_i64))]
    pub retention_ms: i64,
    /// How many bytes of a partition are kept; -1 is no limit.
    #[serde(default = "retention_bytes")]
    #[schemars(range(min = -1, max = 9_007_199_254_740_991_i64))]
    pub retention_bytes: i64,
    /// Size of a segment file in bytes.
    #[serde(default = "segment_bytes")]
    #[schemars(range(min = 1024, max = 9_007_199_254_740_991_i64))]
    pub segment_bytes: i64,
    /// What happens to old records.
    #[serde(default)]
    pub cleanup_policy: CleanupPolicy,
    /// How the broker compresses.
    #[serde(default)]
    pub compression_type: CompressionType,
    /// How many copies must be in sync for a write to be acknowledged.
    #[serde(default = "min_insync_replicas")]
    #[schemars(range(min = 1, max = 99))]
    pub min_insync_replicas: i32,
    /// Largest record batch in bytes.
    #[serde(default = "max_message_bytes")]
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_i64))]
    pub max_message_bytes: i64,
}

defaults! {
    partitions: u32 = 1_u32;
    replication_factor: u32 = 1_u32;
    retention_ms: i64 = 604_800_000_i64;
    retention_bytes: i64 = -1_i64;
    segment_bytes: i64 = 1_073_741_824_i64;
    min_insync_replicas: i32 = 1;
    max_message_bytes: i64 = 1_048_576_i64;
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            retention_ms: retention_ms(),
            retention_bytes: retention_bytes(),
            segment_bytes: segment_bytes(),
            cleanup_policy: CleanupPolicy::default(),
            compression_type: CompressionType::default(),
            min_insync_replicas: min_insync_replicas(),
            max_message_bytes: max_message_bytes(),
        }
    }
}

/// What happens to old records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CleanupPolicy {
    /// They are deleted.
    #[default]
    #[serde(rename = "delete")]
    Delete,
    /// The newest record of each key is kept.
    #[serde(rename = "compact")]
    Compact,
    /// Both.
    #[serde(rename = "delete,compact")]
    DeleteCompact,
    /// Both.
    #[serde(rename = "compact,delete")]
    CompactDelete,
}

/// How the broker compresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "each is the name of its algorithm")]
pub enum CompressionType {
    None,
    /// As the producer sent it.
    Producer,
    Gzip,
    Snappy,
    #[default]
    Lz4,
    Zstd,
}

/// Who may do what with a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopicAcl {
    /// Who, as `user:name`.
    #[schemars(length(min = 1, max = 255))]
    pub principal: String,
    /// What.
    #[schemars(length(min = 1, max = 16))]
    pub operations: Vec<AclOperation>,
}

/// What a principal may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "Kafka's names")]
pub enum AclOperation {
    Read,
    Write,
    Create,
    Delete,
    Alter,
    Describe,
    All,
}

/// What was observed of a topic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RivvenTopicStatus {
    /// Where the topic is in its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Why, as a code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The topic's name at the broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_name: Option<String>,
    /// The cluster on which it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_uid: Option<String>,
    /// Number of partitions, as read from the broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<u32>,
    /// Copies of each partition, as read from the broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication_factor: Option<u32>,
    /// Configuration, as read from the broker.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
    /// Labels of the topic's metrics.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub topic_labels: BTreeMap<String, String>,
    /// What holds and what does not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// What the operator waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked_by: Vec<BlockedBy>,
}
