//! What was seen of one cluster, as plain values.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::admission::Admission;
use super::formation::Membership;
use super::partitions::Partitions;
use crate::phase::Phase;
use crate::window::Window;

/// What the broker version in use can do. The table by version is the operator's (`src/broker/capabilities.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::struct_excessive_bools, reason = "a row of the capability table is a set of yes and no")]
pub struct Capabilities {
    /// Several brokers form one cluster.
    pub clustering: bool,
    /// Host names are understood in the advertised address and in seeds.
    pub dns_addresses: bool,
    /// TLS can be served.
    pub tls: bool,
    /// Clients can be authenticated.
    pub auth: bool,
    /// Access rules are enforced.
    pub acls: bool,
    /// Leader, replicas and in-sync set of each partition can be read.
    pub partition_metadata: bool,
    /// Topic configuration survives a restart.
    pub durable_topic_config: bool,
    /// A volume that was full may grow under the running broker.
    pub online_growth_when_full: bool,
    /// `/health/live`, `/health/ready` and `/health/startup` exist.
    pub health_split: bool,
}

/// What a spec asks for, as far as decisions depend on it. The rest of a spec only reaches the rendered objects.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of the spec")]
pub struct Wish {
    /// `spec.replicas`
    pub replicas: u32,
    /// `spec.version` as written.
    pub version: String,
    /// `spec.storage.size` in bytes.
    pub storage_bytes: u64,
    /// `spec.storage.storageClassName`, empty for the default class.
    pub storage_class: String,
    /// `spec.tls.enabled`
    pub tls: bool,
    /// `spec.auth.enabled`
    pub auth: bool,
    /// What is wrong with the spec by itself, each as `field: what and what to do`.
    pub problems: Vec<String>,
    /// What is asked for that this release of the operator does not do yet, each as `field: what`.
    pub unsupported: Vec<String>,
}

/// `spec.storage.reclaimPolicy`, and `spec.storage.scaleInPolicy` for the volumes of brokers that leave
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReclaimPolicy {
    /// Volumes stay when the cluster is deleted.
    Retain,
    /// Volumes are deleted with the cluster, if they are proven to be the cluster's.
    Delete,
}

/// One of the objects the operator keeps for a cluster. The order is the order in which they are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Object {
    /// Secret `rivven-{name}-auth`: the token of the admin API, made once.
    AuthSecret,
    /// cert-manager's Certificate `rivven-{name}`, where the spec names an issuer.
    Certificate,
    /// ConfigMap `rivven-{name}-config`
    ConfigMap,
    /// Service `rivven-{name}-headless`
    HeadlessService,
    /// Service `rivven-{name}`
    ClientService,
    /// `PodDisruptionBudget` `rivven-{name}-pdb`
    PodDisruptionBudget,
    /// `NetworkPolicy` `rivven-{name}`
    NetworkPolicy,
    /// StatefulSet `rivven-{name}`
    StatefulSet,
    /// Service `rivven-{name}-{ordinal}-ext`: a broker for clients from outside. It and the next are applied last, as
    /// nothing waits for them.
    ExternalService(u32),
    /// Ingress `rivven-{name}`
    Ingress,
}

impl Object {
    /// What every cluster has, in the order in which they are applied. The others come and go with the spec.
    pub const ALL: [Self; 7] = [
        Self::AuthSecret,
        Self::ConfigMap,
        Self::HeadlessService,
        Self::ClientService,
        Self::PodDisruptionBudget,
        Self::NetworkPolicy,
        Self::StatefulSet,
    ];

    /// The Kubernetes kind.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::AuthSecret => "Secret",
            Self::Certificate => "Certificate",
            Self::ConfigMap => "ConfigMap",
            Self::HeadlessService | Self::ClientService | Self::ExternalService(_) => "Service",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::StatefulSet => "StatefulSet",
            Self::Ingress => "Ingress",
        }
    }
}

/// How one object stands to what is wanted of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Presence {
    /// Not there.
    Missing,
    /// There, ours and as wanted.
    Current,
    /// There and ours, but not as wanted.
    Drifted,
    /// There, ours and being deleted.
    Deleting,
    /// There and ours, and not wanted any more.
    Unwanted {
        /// Its uid, the precondition of its deletion.
        uid: String,
    },
    /// There under the name, but not ours: the owner or the missing owner is said.
    Foreign {
        /// Who owns it, for a person.
        owner: String,
    },
    /// Could not be found out. Nothing is done about it.
    Unknown {
        /// Why, for a person.
        why: String,
    },
}

/// The StatefulSet of the cluster, if it is there and ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatefulSet {
    /// `metadata.uid`, the precondition of its deletion.
    pub uid: String,
    /// `spec.replicas`
    pub replicas: u32,
    /// `status.updateRevision`, once `status.observedGeneration` has caught up; before that nothing is known.
    pub update_revision: Option<String>,
    /// Size that its claim template asks for, in bytes.
    pub claim_bytes: u64,
    /// There is a spec that every broker ran well on, with another template than this.
    pub proven: bool,
    /// It is being deleted.
    pub deleting: bool,
}

/// The state of the broker's container, as the kubelet reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Container {
    /// Nothing is reported yet.
    Unreported,
    /// It waits, with the kubelet's reason and message (`ImagePullBackOff`, `CrashLoopBackOff`, …).
    Waiting {
        /// The kubelet's reason.
        reason: String,
        /// The kubelet's message.
        message: String,
    },
    /// It runs.
    Running,
    /// It ended and has not been started again.
    Terminated,
}

/// How the container ended the last time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastExit {
    /// Exit code.
    pub code: i32,
    /// The kubelet's reason (`Error`, `OOMKilled`, `Completed`).
    pub reason: String,
    /// The last log lines, with secrets taken out.
    pub log: String,
}

/// The scheduler found no node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unschedulable {
    /// The scheduler's words.
    pub message: String,
    /// Since when (`lastTransitionTime` of the condition `PodScheduled`).
    pub since: DateTime<Utc>,
}

/// The pod of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Pod {
    /// `metadata.uid`, the precondition of its eviction.
    pub uid: String,
    /// The label `controller-revision-hash`.
    pub revision: String,
    /// The condition `Ready`.
    pub ready: bool,
    /// Since when, to the second.
    pub ready_since: Option<DateTime<Utc>>,
    /// When it was made, to the second.
    pub created: DateTime<Utc>,
    /// It has no controller: its StatefulSet is being replaced.
    pub orphan: bool,
    /// Somebody asked for its restart by the annotation on it.
    pub restart_asked: bool,
    /// The API server has held its eviction back for longer than a broker takes to be noticed as ready, and in what words.
    pub held: Option<String>,
    /// It is being deleted.
    pub terminating: bool,
    /// Why the scheduler cannot place it, if it cannot.
    pub unschedulable: Option<Unschedulable>,
    /// `status.phase` is `Failed`: the kubelet gave it up (evicted, node lost). It never runs again.
    pub failed: Option<String>,
    /// The broker's container.
    pub container: Container,
    /// How often the container was started again.
    pub restarts: u32,
    /// How it ended the last time.
    pub last_exit: Option<LastExit>,
}

impl Pod {
    /// It is ready and stays: not on its way out.
    pub const fn is_up(&self) -> bool {
        self.ready && !self.terminating
    }
}

/// What a broker said when it was asked. Unknown is never "yes".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was not asked, as its pod is not ready.
    NotAsked,
    /// It was asked and did not answer.
    Silent {
        /// Why, for a person.
        why: String,
    },
    /// It answered.
    Said {
        /// `/health` answered 200, and the controller's leader can read its metadata linearizably.
        healthy: bool,
        /// The version it reports (`rivven_info{version}`).
        version: String,
        /// The node id it reports.
        node_id: String,
        /// It is the controller's leader (a standalone broker is its own).
        leader: bool,
        /// The cluster that it is in.
        membership: Membership,
    },
}

/// One broker, by ordinal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Ordinal in the StatefulSet.
    pub ordinal: u32,
    /// Its pod, if there is one and it belongs to our StatefulSet.
    pub pod: Option<Pod>,
    /// What it said.
    pub answer: Answer,
    /// Its volume claim, if there is one.
    pub claim: Option<Claim>,
    /// Its Service for clients from outside, if there is one and it is ours.
    pub external: Option<External>,
}

impl Broker {
    /// One of which nothing is there yet.
    pub const fn unseen(ordinal: u32) -> Self {
        Self { ordinal, pod: None, answer: Answer::NotAsked, claim: None, external: None }
    }
}

/// The Service of a broker for clients from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct External {
    /// Where it is reached, as `host:port`.
    pub addresses: Vec<String>,
    /// It is of type `LoadBalancer`: somebody else has to give it an address.
    pub balanced: bool,
}

/// A volume claim of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// `metadata.name`
    pub name: String,
    /// `metadata.uid`, the precondition of its deletion.
    pub uid: String,
    /// It carries this cluster's uid, so it is proven to be ours.
    pub ours: bool,
    /// `status.phase` is `Bound`.
    pub bound: bool,
    /// It is being deleted.
    pub deleting: bool,
    /// Requested size in bytes.
    pub requested: u64,
    /// The size in bytes that the operator asked for last, by the annotation on the claim. Another request is a person's.
    pub asked: Option<u64>,
    /// How far its growth is.
    pub resize: Resize,
    /// The API server refused to let it grow to what is wanted.
    pub refused: Option<Refused>,
    /// `status.capacity` in bytes, once bound.
    pub capacity: Option<u64>,
    /// It is noted on it that its broker held no replica, and since when. Taken off when that is so no more.
    pub empty_since: Option<DateTime<Utc>>,
}

/// A replica on its way from one broker to another, as it is noted before it moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The topic of its partition.
    pub topic: Arc<str>,
    /// The number of its partition.
    pub partition: u32,
    /// The broker that gives it away, by ordinal.
    pub from: u32,
    /// The broker that takes it, by ordinal.
    pub to: u32,
    /// How many replicas the partition has when none of them is on the move: with one more, this one is.
    pub copies: u32,
}

/// How far the growth of a volume is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Resize {
    /// Nothing is said of it.
    Silent,
    /// The volume has grown, its file system grows when a pod uses it.
    FileSystem,
    /// The storage cannot do it.
    Failed {
        /// In its words.
        why: String,
    },
}

/// What the API server said to a request for growth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its words.
    pub words: String,
    /// It is long enough ago to ask again.
    pub retry: bool,
}

/// The deletion of the cluster was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// When.
    pub requested_at: DateTime<Utc>,
    /// What becomes of the volumes.
    pub reclaim: ReclaimPolicy,
}

/// The certificate of the brokers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// It was never there, and why not.
    pub awaited: Option<String>,
    /// It ends soon, and nobody is known who renews it.
    pub ends_soon: bool,
}

/// A prerequisite that is not the operator's: a Secret, a ConfigMap, an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prerequisite {
    /// What, as `Secret name`.
    pub what: String,
    /// It is there. `None`: could not be found out.
    pub present: Option<bool>,
}

/// What the spec is held against before anything is done: the input of [`super::admission::admit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What the spec asks for now.
    pub wish: Wish,
    /// What it asked for when it was last accepted: what runs. `None` while nothing was ever applied.
    pub accepted: Option<Wish>,
    /// What the broker version asked for can do.
    pub capabilities: Capabilities,
    /// What the spec refers to.
    pub prerequisites: Vec<Prerequisite>,
    /// The brokers that run are, or are about to be, one cluster. As `capabilities` while none run.
    pub clusters: bool,
    /// What the brokers that run say of the partitions.
    pub partitions: Partitions,
    /// The replicas that are noted to be on the move.
    pub moves: Vec<Move>,
    /// The largest capacity of a volume of the cluster in bytes, if one is bound.
    pub provisioned_bytes: Option<u64>,
    /// Why the brokers cannot use the certificate that the spec names.
    pub certificate_problem: Option<String>,
    /// Why brokers with that certificate and brokers that run would not believe each other.
    pub certificate_divides: Option<String>,
    /// Why the rollout of what the spec asks for was halted, if it was and nothing has changed since.
    pub halted: Option<String>,
    /// The version that may be taken although it is older, or skips one, by the annotation.
    pub forced_version: Option<String>,
}

impl Candidate {
    /// A first spec, of which nothing runs yet and which refers to nothing.
    pub const fn first(wish: Wish, capabilities: Capabilities) -> Self {
        Self {
            wish,
            accepted: None,
            capabilities,
            prerequisites: Vec::new(),
            clusters: capabilities.clustering,
            partitions: Partitions::Unreplicated,
            moves: Vec::new(),
            provisioned_bytes: None,
            certificate_problem: None,
            certificate_divides: None,
            halted: None,
            forced_version: None,
        }
    }
}

/// Everything `decide` looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Observation {
    /// When it was seen.
    pub seen_at: DateTime<Utc>,
    /// `status.phase`. It says where on the table the object stands, and nothing else is read from the status.
    pub recorded: Option<Phase>,
    /// Set once the object is being deleted.
    pub deletion: Option<Deletion>,
    /// The operator's finalizer is on the object.
    pub finalizer: bool,
    /// `spec.paused`
    pub paused: bool,
    /// The annotation that lets a cluster take over the volumes of one that is gone.
    pub adopt_volumes: bool,
    /// When brokers may be restarted. Empty: always.
    pub windows: Vec<Window>,
    /// How long a broker must have been ready before the next one is restarted.
    pub min_ready: Duration,
    /// The verdict on the spec.
    pub admission: Admission,
    /// The certificate of the brokers, where they serve TLS.
    pub certificate: Option<Certificate>,
    /// The operator's objects, held against what is wanted of them. Empty while no spec was ever accepted.
    pub objects: Vec<(Object, Presence)>,
    /// The StatefulSet, if it is there and ours.
    pub stateful_set: Option<StatefulSet>,
    /// The brokers `0..max(replicas, what exists)`, in order.
    pub brokers: Vec<Broker>,
    /// It is noted on the object that this very cluster was formed.
    pub formed: bool,
    /// What the brokers say of the partitions.
    pub partitions: Partitions,
    /// The replicas that are noted to be on the move.
    pub moves: Vec<Move>,
    /// How many brokers there should be, by the spec that is in force.
    pub replicas: u32,
    /// Replicas move onto brokers that hold fewer.
    pub rebalance: bool,
    /// What becomes of the volume of a broker that left.
    pub scale_in: ReclaimPolicy,
    /// How large their volumes should be, by the spec that is in force, in bytes.
    pub storage_bytes: u64,
    /// What the brokers that run can do.
    pub capabilities: Capabilities,
    /// Topics and connects that refer to this cluster, as `Kind namespace/name`.
    pub dependents: Vec<String>,
}

impl Observation {
    /// The broker of this ordinal, if it was looked at.
    pub fn broker(&self, ordinal: u32) -> Option<&Broker> {
        let in_order = self.brokers.get(ordinal as usize).filter(|broker| broker.ordinal == ordinal);
        in_order.or_else(|| self.brokers.iter().find(|broker| broker.ordinal == ordinal))
    }
}
