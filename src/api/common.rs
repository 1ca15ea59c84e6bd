//! What the kinds share.

use kube::KubeSchema;
use rivven_fsm::Phase as FsmPhase;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A value for the serde and schema defaults of a field.
macro_rules! defaults {
    ($($name:ident: $type:ty = $value:expr;)+) => { $(pub(crate) fn $name() -> $type { $value.into() })+ };
}
pub(crate) use defaults;

/// `skip_serializing_if` for switches that are off.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
pub(crate) const fn is_false(value: &bool) -> bool {
    !*value
}

/// `skip_serializing_if` for numbers that are not set.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
pub(crate) const fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// Where an object is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Serves nothing yet and waits for something the reason names.
    Pending,
    /// Its objects are applied and it is coming up for the first time.
    Provisioning,
    /// As the spec wants it, by observation.
    Ready,
    /// Its size is changing.
    Scaling,
    /// It is moving to a new revision.
    Upgrading,
    /// Something is not as it should be; it may still serve.
    Degraded,
    /// It is being deleted, in order.
    Terminating,
}

macro_rules! mirror {
    ($($phase:ident),+) => {
        impl From<FsmPhase> for Phase {
            fn from(phase: FsmPhase) -> Self {
                match phase { $(FsmPhase::$phase => Self::$phase,)+ }
            }
        }
        impl From<Phase> for FsmPhase {
            fn from(phase: Phase) -> Self {
                match phase { $(Phase::$phase => Self::$phase,)+ }
            }
        }
    };
}
mirror!(Pending, Provisioning, Ready, Scaling, Upgrading, Degraded, Terminating);

/// Refers to a `RivvenCluster`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterRef {
    /// Name of the RivvenCluster.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Namespace of the RivvenCluster. Default: the namespace of this object. Another namespace must be allowed by the
    /// cluster (`spec.allowedNamespaces`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// A step that waits, and what it waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockedBy {
    /// Reason code of the guard that holds the step back.
    pub reason: String,
    /// The broker, claim or object concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// What is waited for, for a person.
    #[serde(default)]
    pub message: String,
}

impl From<&rivven_fsm::Blocked> for BlockedBy {
    fn from(blocked: &rivven_fsm::Blocked) -> Self {
        Self { reason: blocked.reason.as_str().to_owned(), on: blocked.on.clone(), message: blocked.message.clone() }
    }
}

/// Prometheus metrics of the pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricsSpec {
    /// Let Prometheus scrape the pods. Off removes the scraping, not the port, which also serves health and admin.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Port of the metrics.
    #[serde(default = "broker_metrics_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Make a `ServiceMonitor`, if its CRD is installed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub service_monitor: bool,
}

defaults! {
    yes: bool = true;
    broker_metrics_port: u16 = 9090_u16;
}

impl Default for MetricsSpec {
    fn default() -> Self {
        Self { enabled: true, port: broker_metrics_port(), service_monitor: false }
    }
}
