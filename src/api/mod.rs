//! The custom resources of `rivven.io/v1alpha1`.

pub mod cluster;
pub mod common;
pub mod connect;
pub mod connectors;
mod crd;
pub mod quantity;
pub mod security;
pub mod status;
pub mod topic;
mod wish;

pub use cluster::{ExternalAccessSpec, IngressSpec, ReclaimPolicy, RivvenCluster, RivvenClusterSpec};
pub use common::{BlockedBy, ClusterRef, Phase};
pub use connect::{RivvenConnect, RivvenConnectSpec, RivvenConnectStatus};
pub use crd::{crd_file, crd_yaml, crds};
pub use security::TlsSpec;
pub use status::{BrokerStatus, PlannedStep, RivvenClusterStatus, VolumeStatus};
pub use topic::{RivvenTopic, RivvenTopicSpec, RivvenTopicStatus};
