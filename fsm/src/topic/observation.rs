//! What was seen of one topic, as plain values.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::phase::Phase;

/// What the spec asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The topic's name at the broker.
    pub topic: String,
    /// `spec.partitions`
    pub partitions: u32,
    /// `spec.replicationFactor`
    pub replication: u32,
    /// `spec.config`, with the broker's keys and its way of writing values.
    pub config: BTreeMap<String, String>,
    /// `spec.acls` is not empty.
    pub acls: bool,
    /// What is wrong with the spec by itself, each as `field: what and what to do`.
    pub problems: Vec<String>,
}

/// The cluster that the topic refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cluster {
    /// It does not exist.
    Missing,
    /// It exists in another namespace and does not allow topics of this one.
    NotAllowed,
    /// It is being deleted.
    Terminating,
    /// It is not Ready, so it is not asked to do anything.
    NotReady {
        /// Its phase.
        phase: Phase,
    },
    /// It is Ready.
    Ready {
        /// `metadata.uid`
        uid: String,
        /// Its brokers replicate.
        replicates: bool,
        /// How many brokers it has.
        brokers: u32,
        /// Access rules are enforced.
        acls: bool,
    },
}

/// What the broker said about the topic. Unknown is never "absent".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It was not asked, as the cluster is not Ready.
    NotAsked,
    /// It was asked and gave no usable answer.
    Unknown {
        /// Why, for a person.
        why: String,
    },
    /// There is no such topic.
    Absent,
    /// There is one.
    Present {
        /// Number of partitions.
        partitions: u32,
        /// Replicas of a partition, where the broker tells it.
        replication: Option<u32>,
        /// Its configuration, as the broker describes it.
        config: BTreeMap<String, String>,
    },
}

/// The deletion of the object was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// When.
    pub requested_at: DateTime<Utc>,
    /// `spec.deleteOnRemove`
    pub delete_topic: bool,
}

/// Everything `decide` looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// `status.phase`
    pub recorded: Option<Phase>,
    /// Set once the object is being deleted.
    pub deletion: Option<Deletion>,
    /// The operator's finalizer is on the object.
    pub finalizer: bool,
    /// What is asked for.
    pub wish: Wish,
    /// The cluster it refers to.
    pub cluster: Cluster,
    /// The mark "this topic is ours": the uid of the cluster on which this object made or adopted its topic.
    pub mark: Option<String>,
    /// The annotation that lets the object take over a topic it did not make.
    pub adopt: bool,
    /// An older object that manages the same topic, as `namespace/name`.
    pub older: Option<String>,
    /// What the broker said.
    pub seen: Seen,
}
