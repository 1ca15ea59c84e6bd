//! The controllers of a cluster, as plain functions over the store: each call does all that can be done at once.

mod deployment;
mod disruption;
mod gc;
mod kubelet;
mod statefulset;
mod volumes;

use serde_json::{Value, json};

use crate::store::Store;

pub use kubelet::Behaviour;
pub(crate) use kubelet::restart;
pub use volumes::VolumeBehaviour;

type Rule = Box<dyn Fn(&Value) -> Option<Behaviour> + Send>;

/// How the world below the API behaves.
#[derive(Default)]
pub(crate) struct Nodes {
    /// The rule added last decides first.
    pub(crate) rules: Vec<Rule>,
    pub(crate) volumes: VolumeBehaviour,
}

/// A controller of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of Kubernetes")]
pub enum Controller {
    StatefulSet,
    Deployment,
    Scheduler,
    Kubelet,
    Volumes,
    Disruption,
    GarbageCollector,
    Namespaces,
}

impl Controller {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::StatefulSet,
        Self::Deployment,
        Self::Scheduler,
        Self::Kubelet,
        Self::Volumes,
        Self::Disruption,
        Self::GarbageCollector,
        Self::Namespaces,
    ];

    pub(crate) fn run(self, store: &mut Store, nodes: &Nodes) {
        match self {
            Self::StatefulSet => statefulset::run(store),
            Self::Deployment => deployment::run(store),
            Self::Scheduler => kubelet::schedule(store, nodes),
            Self::Kubelet => kubelet::run(store, nodes),
            Self::Volumes => volumes::run(store, nodes.volumes),
            Self::Disruption => disruption::run(store),
            Self::GarbageCollector => gc::run(store),
            Self::Namespaces => gc::namespaces(store),
        }
    }
}

/// What a new cluster has.
pub(crate) fn furniture() -> Vec<Value> {
    let namespace = |name: &str| json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
    let class = |name: &str, grows: bool| {
        json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "model", "allowVolumeExpansion": grows,
            "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate",
            "metadata": { "name": name, "annotations": { "storageclass.kubernetes.io/is-default-class": grows.to_string() } },
        })
    };
    let node = |zone: &str| {
        let name = format!("node-{zone}");
        json!({
            "apiVersion": "v1", "kind": "Node", "spec": {},
            "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone } },
        })
    };
    vec![
        namespace("default"),
        namespace("kube-system"),
        class("standard", true),
        class("fixed", false),
        node("a"),
        node("b"),
        node("c"),
    ]
}
