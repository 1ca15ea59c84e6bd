//! RivvenConnect: on the same frame as the others. This release decides whether a connect could run and says so; workers
//! are not made yet.

use chrono::{DateTime, Utc};

use crate::decision::{Blocked, ConditionType, Decision};
use crate::phase::{Kind, Phase};
use crate::reason::Reason;
use crate::topic::Cluster;

/// One write. No step exists yet: nothing is made, so nothing is taken down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {}

/// Everything `decide` looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// `status.phase`
    pub recorded: Option<Phase>,
    /// The object is being deleted.
    pub deleting: bool,
    /// What is wrong with the spec by itself, each as `field: what and what to do`.
    pub problems: Vec<String>,
    /// The cluster it refers to.
    pub cluster: Cluster,
}

/// Decides what to record.
pub fn decide(o: &Observation, _now: DateTime<Utc>) -> Decision<Step> {
    if o.deleting {
        return Decision::toward(
            Kind::Connect,
            o.recorded,
            Phase::Terminating,
            Reason::Deleting,
            "the object is being deleted",
        )
        .with_condition(ConditionType::Ready, false, Reason::Deleting, "the object is being deleted");
    }
    let accepted = o.problems.is_empty();
    let (reason, message) = if accepted { waits_for(o) } else { (Reason::InvalidSpec, o.problems.join("; ")) };
    let mut decision = Decision::toward(Kind::Connect, o.recorded, Phase::waiting(o.recorded), reason, message.clone())
        .with_condition(ConditionType::Ready, false, reason, message.clone())
        .with_condition(
            ConditionType::SpecAccepted,
            accepted,
            if accepted { Reason::Accepted } else { reason },
            if accepted { "the spec is one that could be carried out" } else { message.as_str() },
        );
    decision.blocked_by.push(Blocked { reason, on: None, message });
    decision
}

/// The decision for an object that cannot be read as its type.
pub fn malformed(recorded: Option<Phase>, message: &str) -> Decision<Step> {
    Decision::malformed(Kind::Connect, recorded, message)
}

fn waits_for(o: &Observation) -> (Reason, String) {
    match &o.cluster {
        Cluster::Missing => (Reason::ClusterNotFound, "the cluster that clusterRef names does not exist".to_owned()),
        Cluster::NotAllowed => (
            Reason::NamespaceNotAllowed,
            "the cluster does not allow connects of this namespace (spec.allowedNamespaces)".to_owned(),
        ),
        Cluster::Terminating => (Reason::ClusterTerminating, "the cluster is being deleted".to_owned()),
        Cluster::NotReady { phase } => (Reason::ClusterNotReady, format!("the cluster is {phase}")),
        Cluster::Ready { .. } => {
            (Reason::NotSupportedByOperator, "this release of the operator does not run workers yet".to_owned())
        }
    }
}
