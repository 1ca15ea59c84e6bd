//! `RivvenConnect`.

use k8s_openapi::api::core::v1::{Affinity, LocalObjectReference, ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::common::{BlockedBy, ClusterRef, MetricsSpec, Phase, defaults, is_false};
use super::connectors::{SinkConnector, SourceConnector};
use super::security::TlsSpec;

/// Connectors between a RivvenCluster and other systems, and the workers that run them.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "rivven.io",
    version = "v1alpha1",
    kind = "RivvenConnect",
    doc = "Connectors between a RivvenCluster and other systems, and the workers that run them.",
    namespaced,
    status = "RivvenConnectStatus",
    shortname = "rvcon",
    category = "rivven",
    derive = "PartialEq",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(name = "Workers", type_ = "string", json_path = ".status.ready"),
    printcolumn(name = "Connectors", type_ = "string", json_path = ".status.running"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason", priority = "1"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = "1"),
    validation = Rule::new("!self.metadata.name.contains('.')").message("metadata.name must have no dot: no Service name may have one"),
    validation = Rule::new("self.metadata.name.size() <= 42").message("metadata.name must have at most 42 characters: the names of pods and services are made from it")
)]
#[serde(rename_all = "camelCase")]
pub struct RivvenConnectSpec {
    /// The cluster to connect to.
    pub cluster_ref: ClusterRef,
    /// Number of workers.
    #[serde(default = "replicas")]
    #[schemars(range(min = 0, max = 99))]
    pub replicas: u32,
    /// Version of Rivven Connect: the tag of the image.
    #[serde(default = "version")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9_][A-Za-z0-9._-]*$"))]
    pub version: String,
    /// Image. A tag or a digest in it wins over `version`.
    #[serde(default = "image")]
    #[schemars(length(min = 1, max = 255), regex(pattern = "^[a-zA-Z0-9][a-zA-Z0-9._:@/-]*$"))]
    pub image: String,
    /// Secrets for the registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Connectors that write into topics.
    #[serde(default)]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub sources: Vec<SourceConnector>,
    /// Connectors that read from topics.
    #[serde(default)]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub sinks: Vec<SinkConnector>,
    /// Settings of the workers.
    #[serde(default)]
    pub settings: ConnectSettings,
    /// TLS to the brokers.
    #[serde(default)]
    pub tls: TlsSpec,
    /// CPU and memory of each worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Where workers run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Taints that workers tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,
    /// Labels of the nodes that workers run on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,
    /// Write nothing but the status.
    #[serde(default, skip_serializing_if = "is_false")]
    pub paused: bool,
}

/// Settings of the workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectSettings {
    /// Topics that connectors need.
    #[serde(default)]
    pub topic: ConnectTopicSettings,
    /// Retries of a connector.
    #[serde(default)]
    pub retry: RetrySettings,
    /// The workers' health endpoint.
    #[serde(default)]
    pub health: HealthSettings,
    /// Prometheus metrics of the workers.
    #[serde(default)]
    pub metrics: WorkerMetrics,
}

/// Topics that connectors need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectTopicSettings {
    /// Create missing topics.
    #[serde(default = "super::common::yes")]
    pub auto_create: bool,
    /// Partitions of a topic that is created.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub default_partitions: u32,
    /// Copies of each partition of a topic that is created.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 99))]
    pub default_replication_factor: u32,
}

/// Retries of a connector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.initialBackoffMs) || !has(self.maxBackoffMs) || self.initialBackoffMs <= self.maxBackoffMs").message("retry.initialBackoffMs must not be greater than retry.maxBackoffMs")
)]
pub struct RetrySettings {
    /// How often a failed call is tried again.
    #[serde(default = "max_retries")]
    #[schemars(range(min = 0, max = 1000))]
    pub max_retries: u32,
    /// Milliseconds before the first retry.
    #[serde(default = "initial_backoff_ms")]
    #[schemars(range(min = 1, max = 3_600_000))]
    pub initial_backoff_ms: u32,
    /// Milliseconds between retries at most.
    #[serde(default = "max_backoff_ms")]
    #[schemars(range(min = 1, max = 3_600_000))]
    pub max_backoff_ms: u32,
}

/// The workers' health endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthSettings {
    /// Serve it.
    #[serde(default = "super::common::yes")]
    pub enabled: bool,
    /// Its port.
    #[serde(default = "health_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

/// Prometheus metrics of the workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerMetrics {
    /// Serve them.
    #[serde(default = "super::common::yes")]
    pub enabled: bool,
    /// Their port.
    #[serde(default = "metrics_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Make a `ServiceMonitor`, if its CRD is installed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub service_monitor: bool,
}

defaults! {
    one: u32 = 1_u32;
    replicas: u32 = 1_u32;
    version: String = "latest";
    image: String = "ghcr.io/hupe1980/rivven-connect";
    max_retries: u32 = 10_u32;
    initial_backoff_ms: u32 = 100_u32;
    max_backoff_ms: u32 = 30_000_u32;
    health_port: u16 = 8080_u16;
    metrics_port: u16 = 9091_u16;
}

impl Default for ConnectTopicSettings {
    fn default() -> Self {
        Self { auto_create: true, default_partitions: 1, default_replication_factor: 1 }
    }
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self { max_retries: max_retries(), initial_backoff_ms: initial_backoff_ms(), max_backoff_ms: max_backoff_ms() }
    }
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self { enabled: true, port: health_port() }
    }
}

impl Default for WorkerMetrics {
    fn default() -> Self {
        Self { enabled: true, port: metrics_port(), service_monitor: false }
    }
}

impl From<&WorkerMetrics> for MetricsSpec {
    fn from(metrics: &WorkerMetrics) -> Self {
        Self { enabled: metrics.enabled, port: metrics.port, service_monitor: metrics.service_monitor }
    }
}

/// What was observed of a connect.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RivvenConnectStatus {
    /// Where the connect is in its life.
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
    /// Workers whose pods exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// Ready workers of wanted ones, as `2/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// Running connectors of enabled ones, as `4/5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<String>,
    /// Label selector of the workers' pods, for autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// What holds and what does not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Each connector.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into(), "type".into()]))]
    pub connectors: Vec<ConnectorStatus>,
    /// What the operator waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked_by: Vec<BlockedBy>,
}

/// What was observed of a connector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectorStatus {
    /// Name of the connector.
    pub name: String,
    /// Source or sink.
    #[serde(rename = "type")]
    pub type_: ConnectorType,
    /// Its state: `Running`, `Failing`, `Waiting`, `Refused` or `Unknown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Why it is not running, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Pod that runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// Errors since its worker started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<u64>,
    /// The last error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// How often it was started again, by its worker or with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<u32>,
    /// Records that a sink has yet to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
}

/// Source or sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the name says it")]
pub enum ConnectorType {
    Source,
    Sink,
}
