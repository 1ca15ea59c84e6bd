//! What was seen of one connect, as plain values.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, Utc};

use super::placement::Placement;
use crate::cluster::{Pod, Prerequisite, Presence};
use crate::guard::Refusal;
use crate::phase::Phase;
use crate::topic::Cluster;

/// Which way a connector carries records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Into a topic.
    Source,
    /// Out of topics.
    Sink,
}

impl Role {
    /// As it stands in the status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Sink => "sink",
        }
    }
}

/// A connector, by what tells it from the others of its connect.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connector {
    /// Source or sink.
    pub role: Role,
    /// Its name, unique in its role.
    pub name: String,
}

impl fmt::Display for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.role.as_str(), self.name)
    }
}

impl Connector {
    /// A connector as it is written by `Display`.
    pub fn parse(text: &str) -> Option<Self> {
        let (role, name) = text.split_once('/')?;
        let role = [Role::Source, Role::Sink].into_iter().find(|r| r.as_str() == role)?;
        (!name.is_empty()).then(|| Self { role, name: name.to_owned() })
    }
}

/// An enabled connector of the spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub id: Connector,
    /// Why it is not run, if it is not: it alone, the others run.
    pub refusal: Option<Refusal>,
}

/// What the spec asks for, as far as decisions depend on it. The rest of a spec only reaches the rendered objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// `spec.replicas`
    pub replicas: u32,
    /// The enabled connectors.
    pub connectors: Vec<Wanted>,
    /// What is wrong with the spec by itself, each as `field: what and what to do`.
    pub problems: Vec<String>,
    /// What is asked for that this release of the operator does not do yet, each as `field: what`.
    pub unsupported: Vec<String>,
}

/// A topic that a connector needs and that is made for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub topic: String,
    /// Number of partitions.
    pub partitions: u32,
    /// Copies of each.
    pub replication: u32,
}

/// What the broker said of the topics. Unknown is never "none".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topics {
    /// It was not asked, as the cluster is not Ready.
    NotAsked,
    /// It was asked and gave no usable answer.
    Unknown {
        /// Why, for a person.
        why: String,
    },
    /// It told all of them. These are missing, and to be made.
    Known {
        /// What is to be made.
        missing: Vec<NewTopic>,
    },
}

/// One of the objects the operator keeps for a connect. The order is the order in which they are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Object {
    /// Secret of a worker, with the name of its Deployment: what its configuration takes from the environment.
    Secret(u32),
    /// ConfigMap `rivven-connect-{name}-config`: a file for each worker, and the ledger of who may run what.
    ConfigMap,
    /// Service `rivven-connect-{name}`
    Service,
    /// `ServiceMonitor` `rivven-connect-{name}`
    ServiceMonitor,
    /// Deployment `rivven-connect-{name}`, or `rivven-connect-{name}-w{i}`.
    Worker(u32),
}

impl Object {
    /// The Kubernetes kind.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Secret(_) => "Secret",
            Self::ConfigMap => "ConfigMap",
            Self::Service => "Service",
            Self::ServiceMonitor => "ServiceMonitor",
            Self::Worker(_) => "Deployment",
        }
    }
}

/// What a worker said of one of its connectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How often it failed since the worker started, and was started again by it.
    pub errors: u64,
    /// How it failed last.
    pub last_error: Option<String>,
    /// It failed so short a while ago that it may be failing still. The worker itself says "starting" for ever.
    pub failing: bool,
}

/// What a worker said when it was asked. Unknown is never "yes".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was not asked, as its pod is not ready, or serves no health.
    NotAsked,
    /// It was asked and did not answer.
    Silent {
        /// Why, for a person.
        why: String,
    },
    /// It answered.
    Said(BTreeMap<Connector, Report>),
}

/// The Deployment of a worker, if it is there and ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// `metadata.uid`, the precondition of its deletion.
    pub uid: String,
    /// Which connectors its template runs.
    pub runs: BTreeSet<Connector>,
    /// `status.observedGeneration` has caught up: its controller has acted on what it says.
    pub observed: bool,
    /// It is being deleted.
    pub deleting: bool,
}

/// A pod of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerPod {
    /// Its name.
    pub name: String,
    /// Which connectors it runs.
    pub runs: BTreeSet<Connector>,
    /// It is of the template that is wanted.
    pub current: bool,
    /// How it is.
    pub pod: Pod,
}

/// One worker, by its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// Its number.
    pub index: u32,
    /// Its Deployment.
    pub deployment: Option<Deployment>,
    /// Its pods: one, or while it is replaced the old one until it is gone.
    pub pods: Vec<WorkerPod>,
    /// What the pod that is wanted said.
    pub answer: Answer,
}

impl Worker {
    /// Its pod of the template that is wanted, if it is there.
    pub fn current(&self) -> Option<&WorkerPod> {
        self.pods.iter().find(|pod| pod.current && !pod.pod.terminating)
    }

    /// It serves: its only pod is of the wanted template, and ready.
    pub fn is_up(&self) -> bool {
        self.pods.len() == 1 && self.current().is_some_and(|pod| pod.pod.is_up())
    }
}

/// Everything `decide` looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Observation {
    /// `status.phase`
    pub recorded: Option<Phase>,
    /// When the deletion of the object was asked for, if it was.
    pub deletion: Option<DateTime<Utc>>,
    /// The operator's finalizer is on the object.
    pub finalizer: bool,
    /// `spec.paused`
    pub paused: bool,
    /// What is asked for.
    pub wish: Wish,
    /// The cluster it refers to.
    pub cluster: Cluster,
    /// What the spec refers to beside it.
    pub prerequisites: Vec<Prerequisite>,
    /// What the broker said of topics.
    pub topics: Topics,
    /// Which worker runs what.
    pub placement: Placement,
    /// The operator's objects that are wanted, held against what is there.
    pub objects: Vec<(Object, Presence)>,
    /// The workers that are wanted or there.
    pub workers: Vec<Worker>,
    /// Workers serve their health, so that they can be asked.
    pub health: bool,
    /// A `ServiceMonitor` is asked for, and its CRD is not installed.
    pub unmonitored: bool,
    /// How many records sinks have yet to read, where that is known. Told, and nothing decided by it.
    pub lags: BTreeMap<Connector, u64>,
}

impl Observation {
    /// The worker of this number, if it was looked at.
    pub fn worker(&self, index: u32) -> Option<&Worker> {
        self.workers.iter().find(|worker| worker.index == index)
    }

    /// How a wanted object stands to the live one.
    pub fn presence(&self, object: Object) -> Option<&Presence> {
        self.objects.iter().find(|(other, _)| *other == object).map(|(_, presence)| presence)
    }
}
