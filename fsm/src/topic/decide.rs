//! What to do next for a topic.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::observation::{Cluster, Deletion, Observation, Seen};
use super::placement;
use crate::decision::{Blocked, ConditionType, Decision};
use crate::guard::{Guard, refusals};
use crate::phase::{Kind, Phase};
use crate::reason::Reason;

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write the mark "this topic is ours", after the topic was seen absent and before it is created, and with it the
    /// finalizer, as from now on there is something that deletion must look at.
    Claim {
        /// The cluster's uid.
        cluster_uid: String,
    },
    /// Create the topic. "Already exists" as an answer means that it is not ours: the mark is taken back.
    Create {
        /// Number of partitions.
        partitions: u32,
        /// The replicas of each, by ordinal, the leader first. Empty where brokers do not replicate.
        assignments: Vec<Vec<u32>>,
    },
    /// Add partitions up to this number.
    Grow {
        /// Number of partitions.
        partitions: u32,
    },
    /// Alter these keys of the topic's configuration.
    Configure {
        /// Keys and values.
        entries: BTreeMap<String, String>,
    },
    /// Delete the topic.
    DeleteTopic,
    /// Take the finalizer off, and say why in an Event.
    RemoveFinalizer {
        /// What became of the topic.
        reason: Reason,
    },
}

impl Step {
    /// With it the object goes, unless others hold it.
    pub fn releases(&self) -> bool {
        matches!(self, Self::RemoveFinalizer { .. })
    }

    /// The metric label.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Claim { .. } => "Claim",
            Self::Create { .. } => "Create",
            Self::Grow { .. } => "Grow",
            Self::Configure { .. } => "Configure",
            Self::DeleteTopic => "DeleteTopic",
            Self::RemoveFinalizer { .. } => "RemoveFinalizer",
        }
    }

    /// Whether the change of phase that follows says it as well: there may be thousands of topics, and each Event is a write.
    pub const fn is_told_by_the_phase(&self) -> bool {
        matches!(self, Self::Claim { .. } | Self::Create { .. } | Self::Grow { .. } | Self::Configure { .. })
    }

    /// Whether the broker is asked to do it; the others are writes to Kubernetes.
    pub const fn asks_broker(&self) -> bool {
        matches!(self, Self::Create { .. } | Self::Grow { .. } | Self::Configure { .. } | Self::DeleteTopic)
    }
}

/// How long a deletion waits for a broker that does not answer before the topic is left as it is.
pub const RELEASE_AFTER: Duration = Duration::from_mins(1);
/// How soon a broker that gave no usable answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// The guards on a topic's spec: what stands against it before the broker is asked to do anything.
pub const GUARDS: &[Guard<Observation>] = &[
    Guard {
        reason: Reason::InvalidSpec,
        refuses: |o| (!o.wish.problems.is_empty()).then(|| o.wish.problems.join("; ")),
    },
    Guard { reason: Reason::BrokerCannotReplicate, refuses: cannot_replicate },
    Guard { reason: Reason::NotEnoughBrokers, refuses: more_replicas_than_brokers },
    Guard { reason: Reason::TopicConflict, refuses: conflict },
    Guard { reason: Reason::TopicExists, refuses: exists_and_is_not_ours },
    Guard { reason: Reason::PartitionShrinkRefused, refuses: shrinks },
    Guard { reason: Reason::ReplicationChangeRefused, refuses: replication_differs },
];

fn cannot_replicate(o: &Observation) -> Option<String> {
    (matches!(o.cluster, Cluster::Ready { replicates: false, .. }) && o.wish.replication > 1).then(|| {
        format!(
            "replicationFactor {} is asked for, and the brokers of this cluster do not replicate: set it to 1",
            o.wish.replication
        )
    })
}

fn more_replicas_than_brokers(o: &Observation) -> Option<String> {
    match o.cluster {
        Cluster::Ready { replicates: true, brokers, .. } if o.wish.replication > brokers => Some(format!(
            "replicationFactor {} is asked for, and the cluster has {brokers} brokers: set it to at most {brokers}",
            o.wish.replication
        )),
        _ => None,
    }
}

fn conflict(o: &Observation) -> Option<String> {
    o.older.as_ref().map(|older| {
        format!("topic {} is managed by the older RivvenTopic {older}: delete one of the two", o.wish.topic)
    })
}

/// The mark carries the cluster's uid: a topic made on a cluster that was replaced since says nothing about this one.
fn is_marked(o: &Observation) -> bool {
    matches!(&o.cluster, Cluster::Ready { uid, .. } if o.mark.as_ref() == Some(uid))
}

fn exists_and_is_not_ours(o: &Observation) -> Option<String> {
    (matches!(o.seen, Seen::Present { .. }) && !is_marked(o) && !o.adopt).then(|| {
        format!(
            "topic {} exists and was not made by this object: set the annotation rivven.io/adopt: \"true\" to manage it, or choose another topicName",
            o.wish.topic
        )
    })
}

fn shrinks(o: &Observation) -> Option<String> {
    match o.seen {
        Seen::Present { partitions, .. } if partitions > o.wish.partitions => Some(format!(
            "topic {} has {partitions} partitions, and partitions cannot be taken away: set partitions to at least {partitions}",
            o.wish.topic
        )),
        _ => None,
    }
}

fn replication_differs(o: &Observation) -> Option<String> {
    match o.seen {
        Seen::Present { replication: Some(replicas), .. } if replicas != o.wish.replication => Some(format!(
            "topic {} has {replicas} replicas and replicationFactor asks for {}, which this release does not change: set it to {replicas}",
            o.wish.topic, o.wish.replication
        )),
        _ => None,
    }
}

/// Decides what to record and what to do next.
pub fn decide(o: &Observation, now: DateTime<Utc>) -> Decision<Step> {
    decide_with(GUARDS, o, now)
}

/// As [`decide()`], under `guards`: what a test takes out, the decision must miss.
pub fn decide_with(guards: &[Guard<Observation>], o: &Observation, now: DateTime<Utc>) -> Decision<Step> {
    if let Some(deletion) = o.deletion {
        return terminating(o, deletion, now);
    }
    let stuck = Phase::waiting(o.recorded);
    let refused = refusals(guards, o);
    if let Some(first) = refused.first() {
        let message: Vec<&str> = refused.iter().map(|r| r.message.as_str()).collect();
        return waiting(o, stuck, first.reason, message.join("; ")).with_condition(
            ConditionType::SpecAccepted,
            false,
            first.reason,
            message.join("; "),
        );
    }
    let decision = match &o.cluster {
        Cluster::Missing => {
            waiting(o, stuck, Reason::ClusterNotFound, "the cluster that clusterRef names does not exist")
        }
        Cluster::NotAllowed => waiting(
            o,
            stuck,
            Reason::NamespaceNotAllowed,
            "the cluster does not allow topics of this namespace (spec.allowedNamespaces)",
        ),
        Cluster::Terminating => waiting(o, stuck, Reason::ClusterTerminating, "the cluster is being deleted"),
        Cluster::NotReady { phase } => waiting(o, stuck, Reason::ClusterNotReady, format!("the cluster is {phase}")),
        Cluster::Ready { uid, acls, .. } => on_cluster(o, uid, *acls),
    };
    decision.with_condition(ConditionType::SpecAccepted, true, Reason::Accepted, "the spec is in force")
}

/// The decision for an object that cannot be read as its type.
pub fn malformed(recorded: Option<Phase>, message: &str) -> Decision<Step> {
    Decision::malformed(Kind::Topic, recorded, message)
}

/// The decision after a step failed: what to record until it is tried again.
pub fn step_failed(decided: &Decision<Step>, step: &Step, error: &str) -> Decision<Step> {
    let message = format!("{} failed: {error}", step.name());
    // Terminating absorbs; a topic that could not be made is Degraded, by the table.
    let target = if decided.phase == Phase::Terminating || decided.phase == Phase::Pending {
        decided.phase
    } else {
        Phase::Degraded
    };
    decided.failed(
        Kind::Topic,
        target,
        if step.asks_broker() { Reason::BrokerRefused } else { Reason::StepFailed },
        message,
    )
}

fn toward(o: &Observation, target: Phase, reason: Reason, message: impl Into<String>) -> Decision<Step> {
    let message = message.into();
    // The table leads to Provisioning through Degraded once the topic has served.
    let target = match (o.recorded, target) {
        (Some(Phase::Ready | Phase::Scaling | Phase::Upgrading), Phase::Provisioning) => Phase::Degraded,
        _ => target,
    };
    Decision::toward(Kind::Topic, o.recorded, target, reason, message.clone())
        .with_condition(ConditionType::Ready, target == Phase::Ready, reason, message.clone())
        .with_condition(ConditionType::Degraded, target == Phase::Degraded, reason, message)
}

fn waiting(o: &Observation, target: Phase, reason: Reason, message: impl Into<String>) -> Decision<Step> {
    let message = message.into();
    let mut decision = toward(o, target, reason, message.clone());
    decision.blocked_by.push(Blocked { reason, on: None, message });
    decision
}

fn on_cluster(o: &Observation, uid: &str, acls_enforced: bool) -> Decision<Step> {
    let served = o.recorded.is_some_and(Phase::has_served);
    let claim = || Step::Claim { cluster_uid: uid.to_owned() };
    let decision = match &o.seen {
        Seen::NotAsked => waiting(
            o,
            if served { Phase::Degraded } else { Phase::Provisioning },
            Reason::BrokerUnreachable,
            "the broker has not been asked yet",
        )
        .look_again_in(ASK_AGAIN),
        Seen::Unknown { why } => waiting(
            o,
            if served { Phase::Degraded } else { Phase::Provisioning },
            Reason::BrokerUnreachable,
            format!("the broker gave no answer: {why}"),
        )
        .look_again_in(ASK_AGAIN),
        Seen::Absent => {
            let claim = (!is_marked(o) || !o.finalizer).then(claim);
            let configure = (!o.wish.config.is_empty()).then(|| Step::Configure { entries: o.wish.config.clone() });
            toward(o, Phase::Provisioning, Reason::TopicCreating, format!("topic {} is being created", o.wish.topic))
                .with_steps(claim.into_iter().chain([create(o)]).chain(configure))
                .look_again_in(Duration::ZERO)
        }
        // Without the mark it is reached only with the annotation that adopts; the guards refuse it otherwise.
        Seen::Present { .. } if !is_marked(o) || !o.finalizer => {
            let target = if is_marked(o) && served { Phase::Upgrading } else { Phase::Provisioning };
            toward(o, target, Reason::TopicCreating, format!("topic {} is being marked as this object's", o.wish.topic))
                .with_steps([claim()])
                .look_again_in(Duration::ZERO)
        }
        Seen::Present { partitions, config, .. } => present(o, *partitions, config),
    };
    match (o.wish.acls, acls_enforced) {
        (true, false) => decision.with_condition(
            ConditionType::AclsApplied,
            false,
            Reason::NotSupportedByBroker,
            "the brokers of this cluster enforce no access rules",
        ),
        (true, true) => decision.with_condition(
            ConditionType::AclsApplied,
            false,
            Reason::NotSupportedByOperator,
            "this release of the operator does not write access rules yet",
        ),
        (false, _) => decision,
    }
}

fn create(o: &Observation) -> Step {
    let assignments = match o.cluster {
        Cluster::Ready { replicates: true, brokers, .. } => {
            // Where the round begins differs from topic to topic and is the same at each look.
            let start = o.wish.topic.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
            placement::assign(o.wish.partitions, o.wish.replication, brokers, start)
        }
        _ => Vec::new(),
    };
    Step::Create { partitions: o.wish.partitions, assignments }
}

fn present(o: &Observation, partitions: u32, config: &BTreeMap<String, String>) -> Decision<Step> {
    let served = o.recorded.is_some_and(Phase::has_served);
    if partitions < o.wish.partitions {
        let target = if served { Phase::Scaling } else { Phase::Provisioning };
        return toward(
            o,
            target,
            Reason::PartitionsGrowing,
            format!("partitions grow from {partitions} to {}", o.wish.partitions),
        )
        .with_steps([Step::Grow { partitions: o.wish.partitions }])
        .look_again_in(Duration::ZERO);
    }
    let entries: BTreeMap<String, String> = o
        .wish
        .config
        .iter()
        .filter(|(key, value)| config.get(*key) != Some(*value))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    if !entries.is_empty() {
        let target = if served { Phase::Upgrading } else { Phase::Provisioning };
        let keys: Vec<&str> = entries.keys().map(String::as_str).collect();
        return toward(
            o,
            target,
            Reason::ConfigAltering,
            format!("configuration is being altered: {}", keys.join(", ")),
        )
        .with_steps([Step::Configure { entries }])
        .look_again_in(Duration::ZERO);
    }
    toward(
        o,
        Phase::Ready,
        Reason::AsWanted,
        format!("topic {} was read back: {partitions} partitions, configuration as wanted", o.wish.topic),
    )
}

fn terminating(o: &Observation, deletion: Deletion, now: DateTime<Utc>) -> Decision<Step> {
    let decision = |message: &str| {
        Decision::toward(Kind::Topic, o.recorded, Phase::Terminating, Reason::Deleting, message).with_condition(
            ConditionType::Ready,
            false,
            Reason::Deleting,
            message,
        )
    };
    let release = |reason: Reason, message: &str| {
        let steps = o.finalizer.then_some(Step::RemoveFinalizer { reason });
        decision(message).with_steps(steps)
    };
    if !deletion.delete_topic {
        return release(Reason::TopicKept, "the topic stays on the broker");
    }
    // The mark of another cluster, or none, is no leave to delete: the topic is not this object's.
    let marked = o.mark.is_some();
    if !marked {
        return release(Reason::TopicKept, "this object never made a topic");
    }
    if let Some(older) = &o.older {
        return release(Reason::TopicKept, &format!("the topic is managed by the older RivvenTopic {older}"));
    }
    match &o.cluster {
        Cluster::Missing | Cluster::Terminating => {
            return release(Reason::TopicKept, "the cluster is gone or going, and its topics with it");
        }
        Cluster::NotAllowed => {
            return release(Reason::TopicKept, "the cluster no longer allows topics of this namespace");
        }
        Cluster::Ready { .. } if !is_marked(o) => {
            return release(Reason::TopicKept, "the cluster was replaced since the topic was made");
        }
        Cluster::Ready { .. } | Cluster::NotReady { .. } => {}
    }
    // Whose cluster it is, is known of a Ready one only: what was seen on another is no leave to delete.
    let seen = if is_marked(o) { &o.seen } else { &Seen::NotAsked };
    match seen {
        Seen::Absent => release(Reason::TopicDeleted, "the topic is gone"),
        Seen::Present { .. } => {
            decision("the topic is being deleted").with_steps([Step::DeleteTopic]).look_again_in(Duration::ZERO)
        }
        Seen::NotAsked | Seen::Unknown { .. } => {
            let waited = now.signed_duration_since(deletion.requested_at).to_std().unwrap_or_default();
            if waited >= RELEASE_AFTER {
                return release(Reason::TopicKept, "the broker did not answer in time; the topic stays");
            }
            let mut decision = decision("waiting for the broker to delete the topic").look_again_in(ASK_AGAIN);
            decision.blocked_by.push(Blocked {
                reason: Reason::BrokerUnreachable,
                on: None,
                message: "the broker does not answer".to_owned(),
            });
            decision
        }
    }
}
