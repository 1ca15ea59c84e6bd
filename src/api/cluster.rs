//! `RivvenCluster`: the spec.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, EnvVar, LocalObjectReference, ResourceRequirements, Toleration, TopologySpreadConstraint,
};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{MetricsSpec, defaults, is_false, is_zero};
use super::security::{AuthSpec, TlsSpec};
use super::status::RivvenClusterStatus;

/// A cluster of Rivven brokers.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "rivven.io",
    version = "v1alpha1",
    kind = "RivvenCluster",
    doc = "A cluster of Rivven brokers.",
    namespaced,
    status = "RivvenClusterStatus",
    shortname = "rvc",
    category = "rivven",
    derive = "PartialEq",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.ready"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Storage", type_ = "string", json_path = ".status.storage"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason", priority = "1"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = "1"),
    validation = Rule::new("!self.metadata.name.contains('.')").message("metadata.name must have no dot: no Service name may have one"),
    validation = Rule::new("self.metadata.name.size() <= 45").message("metadata.name must have at most 45 characters: the names of pods and services are made from it")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.config) || !has(self.config.defaultReplicationFactor) || self.config.defaultReplicationFactor <= self.replicas").message("config.defaultReplicationFactor must not be greater than replicas"),
    validation = Rule::new("!has(self.auth) || !has(self.auth.enabled) || !self.auth.enabled || !has(self.auth.mechanism) || self.auth.mechanism != 'mtls' || (has(self.tls) && has(self.tls.enabled) && self.tls.enabled && has(self.tls.clientCaSecretName))").message("auth.mechanism mtls needs tls.enabled and tls.clientCaSecretName")
)]
pub struct RivvenClusterSpec {
    /// Number of brokers.
    #[serde(default = "replicas")]
    #[schemars(range(min = 1, max = 99))]
    pub replicas: u32,
    /// Version of Rivven: the tag of the image.
    #[serde(default = "version")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9_][A-Za-z0-9._-]*$"))]
    pub version: String,
    /// Image. A tag or a digest in it wins over `version`.
    #[serde(default = "image")]
    #[schemars(length(min = 1, max = 255), regex(pattern = "^[a-zA-Z0-9][a-zA-Z0-9._:@/-]*$"))]
    pub image: String,
    /// When the image is pulled. Default: the cluster's own rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<PullPolicy>,
    /// Secrets for the registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Volumes of the brokers.
    #[serde(default)]
    pub storage: StorageSpec,
    /// CPU and memory of each broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Configuration of the brokers.
    #[serde(default)]
    pub config: BrokerConfig,
    /// TLS to clients and between brokers.
    #[serde(default)]
    pub tls: TlsSpec,
    /// Authentication of clients.
    #[serde(default)]
    pub auth: AuthSpec,
    /// Prometheus metrics.
    #[serde(default)]
    pub metrics: MetricsSpec,
    /// Where brokers run. Default: apart by host and by zone, where that is possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// How brokers are spread over zones and hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Taints that brokers tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,
    /// Labels of the nodes that brokers run on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,
    /// Priority class of the brokers' pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub priority_class_name: Option<String>,
    /// Annotations of the brokers' pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub pod_annotations: BTreeMap<String, String>,
    /// Labels of the brokers' pods, beside the operator's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub pod_labels: BTreeMap<String, String>,
    /// Service account of the brokers. Its token is not mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub service_account_name: Option<String>,
    /// Environment variables beside the operator's own. A name that the operator sets itself is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<EnvVar>,
    /// Seconds a broker has to stop. A released broker needs up to 45.
    #[serde(default = "grace")]
    #[schemars(range(min = 30, max = 3600))]
    pub termination_grace_period_seconds: i64,
    /// User and group of the brokers.
    #[serde(default)]
    pub security_context: SecurityContextSpec,
    /// Write nothing but the status.
    #[serde(default, skip_serializing_if = "is_false")]
    pub paused: bool,
    /// Seconds that a restarted broker must have been ready before the next one is restarted.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 3600))]
    pub min_ready_seconds: u32,
    /// When brokers may be restarted. Empty: always. Healing never waits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub maintenance_windows: Vec<MaintenanceWindow>,
    /// Namespaces whose topics and connects may refer to this cluster, beside its own. `*` is every namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        inner(length(min = 1, max = 63), regex(pattern = r"^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$"))
    )]
    pub allowed_namespaces: Vec<String>,
    /// Who may reach the brokers.
    #[serde(default)]
    pub network_policy: NetworkPolicySpec,
    /// Clients from outside the Kubernetes cluster: a Service `rivven-{name}-{ordinal}-ext` for each broker, for the client
    /// port only. Clients must be given the addresses in `status.brokers[].external`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_access: Option<ExternalAccessSpec>,
    /// Ingress for the HTTP API and the dashboard; its controller's namespace must be in `networkPolicy.ingressFrom`. What
    /// changes something asks for the token of Secret `rivven-{name}-auth`; health, metrics and the page of the dashboard
    /// are open to whoever reaches the host. Clients of the broker need `externalAccess`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<IngressSpec>,
    /// Move replicas between brokers until no broker holds two more than another. Otherwise brokers that join hold only
    /// what is created later.
    #[serde(default, skip_serializing_if = "is_false")]
    pub rebalance: bool,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "Kubernetes' names")]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// Volumes of the brokers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageSpec {
    /// Size of each broker's volume, as a quantity. It can grow, never shrink.
    #[serde(default = "size")]
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[0-9]+(\.[0-9]+)?(k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"))]
    pub size: String,
    /// Storage class. Empty: the default class.
    #[serde(default)]
    #[schemars(
        length(max = 253),
        regex(pattern = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$")
    )]
    pub storage_class_name: String,
    /// What becomes of the volumes when the cluster is deleted. Only volumes that are proven to be the cluster's are
    /// ever deleted.
    #[serde(default)]
    pub reclaim_policy: ReclaimPolicy,
    /// What becomes of the volume of a broker that is scaled in. By then nothing lives only there. A volume that was kept
    /// is not joined again unasked.
    #[serde(default = "scale_in")]
    pub scale_in_policy: ReclaimPolicy,
}

/// What becomes of a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReclaimPolicy {
    /// It stays.
    #[default]
    Retain,
    /// It is deleted.
    Delete,
}

/// Configuration of the brokers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.minInsyncReplicas) || !has(self.defaultReplicationFactor) || self.minInsyncReplicas <= self.defaultReplicationFactor").message("config.minInsyncReplicas must not be greater than config.defaultReplicationFactor: no write could ever succeed")
)]
pub struct BrokerConfig {
    /// Partitions of a topic that is created without a number.
    #[serde(default = "default_partitions")]
    #[schemars(range(min = 1, max = 1000))]
    pub default_partitions: u32,
    /// Copies of a partition of a topic that is created without a number.
    #[serde(default = "default_replication_factor")]
    #[schemars(range(min = 1, max = 99))]
    pub default_replication_factor: u32,
    /// Copies that must be in sync for a write to be acknowledged, where a topic does not say.
    #[serde(default = "min_insync_replicas")]
    #[schemars(range(min = 1, max = 99))]
    pub min_insync_replicas: u32,
    /// How long records are kept, in hours, where a topic does not say.
    #[serde(default = "log_retention_hours")]
    #[schemars(range(min = 1, max = 876_000))]
    pub log_retention_hours: u32,
    /// How many bytes of a partition are kept, where a topic does not say; -1 is no limit.
    #[serde(default = "log_retention_bytes")]
    #[schemars(range(min = -1, max = 9_007_199_254_740_991_i64))]
    pub log_retention_bytes: i64,
    /// Size of a segment file in bytes.
    #[serde(default = "log_segment_bytes")]
    #[schemars(range(min = 1024, max = 9_007_199_254_740_991_i64))]
    pub log_segment_bytes: i64,
    /// Largest request in bytes. The protocol's own limit is 10 MiB.
    #[serde(default = "max_request_bytes")]
    #[schemars(range(min = 1024, max = 10_485_760))]
    pub max_request_bytes: u32,
    /// Seconds after which an idle client connection is closed.
    #[serde(default = "idle_timeout_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub idle_timeout_seconds: u32,
    /// Connections of one client address.
    #[serde(default = "max_connections_per_ip")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections_per_ip: u32,
    /// Log filter of the brokers, as in `RUST_LOG`.
    #[serde(default = "log_level")]
    #[schemars(length(min = 1, max = 256))]
    pub log_level: String,
}

/// A window in which brokers may be restarted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MaintenanceWindow {
    /// When it opens, as a cron expression of five fields.
    #[schemars(length(min = 9, max = 128))]
    pub schedule: String,
    /// Time zone of the schedule, by its IANA name.
    #[serde(default = "time_zone")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: String,
    /// How long it stays open, in minutes.
    #[schemars(range(min = 5, max = 10_080))]
    pub duration_minutes: u32,
}

/// User and group of the brokers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecurityContextSpec {
    /// User id. Never root.
    #[serde(default = "user")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub run_as_user: i64,
    /// Group id that owns the volume.
    #[serde(default = "user")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub fs_group: i64,
}

/// Who may reach the brokers. Not every network plugin enforces it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicySpec {
    /// Make a `NetworkPolicy`: the client port is open, the cluster port and the HTTP API only to the brokers and the
    /// operator, and the HTTP API to `monitoringFrom` and `ingressFrom`.
    #[serde(default = "super::common::yes")]
    pub enabled: bool,
    /// Namespaces, by name, from which Prometheus scrapes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")))]
    pub monitoring_from: Vec<String>,
    /// Namespaces, by name, from which an Ingress controller reaches the HTTP API: `ingress` needs the controller's here.
    /// One that runs in the network of its node belongs to no namespace in the eyes of a policy; let its nodes in by a
    /// policy of your own, they add up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")))]
    pub ingress_from: Vec<String>,
}

/// Clients from outside the Kubernetes cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalAccessSpec {
    /// Kind of the Service of each broker. `NodePort`: the broker answers on a port of the node that it runs on, and moves
    /// with it.
    #[serde(rename = "type")]
    pub type_: ExternalAccessType,
    /// Annotations of the Services, as controllers of load balancers read them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub annotations: BTreeMap<String, String>,
}

/// Kind of Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "Kubernetes' names")]
pub enum ExternalAccessType {
    LoadBalancer,
    NodePort,
}

/// Ingress for the HTTP API and the dashboard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!self.host.matches('^[0-9]+([.][0-9]+){3}$')").message("ingress.host must be a name and not an address")
)]
pub struct IngressSpec {
    /// Host name; `*.` in front of it is every name below it.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub host: String,
    /// Ingress class. Default: the default class of the Kubernetes cluster when the Ingress is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub class_name: Option<String>,
    /// Secret with the certificate, for the Ingress controller: it is the controller's to look for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub tls_secret_name: Option<String>,
    /// Annotations of the Ingress.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub annotations: BTreeMap<String, String>,
}

defaults! {
    replicas: u32 = 3_u32;
    version: String = "latest";
    image: String = "ghcr.io/hupe1980/rivven";
    grace: i64 = 60;
    user: i64 = 65532;
    size: String = "10Gi";
    scale_in: ReclaimPolicy = ReclaimPolicy::Delete;
    default_partitions: u32 = 3_u32;
    default_replication_factor: u32 = 1_u32;
    min_insync_replicas: u32 = 1_u32;
    log_retention_hours: u32 = 168_u32;
    log_retention_bytes: i64 = -1_i64;
    log_segment_bytes: i64 = 1_073_741_824_i64;
    max_request_bytes: u32 = 10_485_760_u32;
    idle_timeout_seconds: u32 = 120_u32;
    max_connections_per_ip: u32 = 100_u32;
    log_level: String = "info";
    time_zone: String = "UTC";
}

impl Default for StorageSpec {
    fn default() -> Self {
        Self {
            size: size(),
            storage_class_name: String::new(),
            reclaim_policy: ReclaimPolicy::Retain,
            scale_in_policy: scale_in(),
        }
    }
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            default_partitions: default_partitions(),
            default_replication_factor: default_replication_factor(),
            min_insync_replicas: min_insync_replicas(),
            log_retention_hours: log_retention_hours(),
            log_retention_bytes: log_retention_bytes(),
            log_segment_bytes: log_segment_bytes(),
            max_request_bytes: max_request_bytes(),
            idle_timeout_seconds: idle_timeout_seconds(),
            max_connections_per_ip: max_connections_per_ip(),
            log_level: log_level(),
        }
    }
}

impl Default for SecurityContextSpec {
    fn default() -> Self {
        Self { run_as_user: user(), fs_group: user() }
    }
}

impl Default for NetworkPolicySpec {
    fn default() -> Self {
        Self { enabled: true, monitoring_from: Vec::new(), ingress_from: Vec::new() }
    }
}
