//! The order in which brokers restart onto a new revision: one at a time, those that are not ready first, then the
//! followers, the controller's leader last. Evaluated anew at each look, never as a plan that is carried on.

use std::cmp::Reverse;

use super::decide::Step;
use super::observation::{Answer, Broker, Observation, Pod};
use crate::decision::Blocked;
use crate::guard::{Guard, refusals};
use crate::reason::Reason;

/// What the rollout does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rollout {
    /// Every pod is at the revision that is wanted.
    Done,
    /// A broker may restart now.
    Restart(Step),
    /// Brokers are outdated, and something holds the next restart back.
    Waiting(Vec<Blocked>),
}

/// The guards on a restart of the broker that is [`next`] in order.
pub const GUARDS: &[Guard<Observation>] = &[
    Guard {
        reason: Reason::Paused,
        refuses: |observed| observed.paused.then(|| "reconciliation is paused".to_owned()),
    },
    Guard { reason: Reason::BrokerRestarting, refuses: already_restarting },
    Guard { reason: Reason::AnotherBrokerDown, refuses: another_broker_down },
];

/// Plans the next restart.
pub fn plan(observed: &Observation) -> Rollout {
    let Some(set) = &observed.stateful_set else { return Rollout::Done };
    // Closes the race between a changed template and the controller that computes its revision: before it has caught
    // up, pods would be compared with the revision before.
    if set.update_revision.is_none() {
        return Rollout::Waiting(vec![Blocked {
            reason: Reason::RevisionUnknown,
            on: None,
            message: "the StatefulSet controller has not yet acted on the newest template".to_owned(),
        }]);
    }
    let Some((broker, pod)) = next(observed) else { return Rollout::Done };
    let refused = refusals(GUARDS, observed);
    if refused.is_empty() {
        return Rollout::Restart(Step::RestartPod { ordinal: broker.ordinal, uid: pod.uid.clone() });
    }
    let on = Some(broker.ordinal.to_string());
    Rollout::Waiting(
        refused.into_iter().map(|r| Blocked { reason: r.reason, on: on.clone(), message: r.message }).collect(),
    )
}

/// The outdated broker whose turn it is.
pub fn next(observed: &Observation) -> Option<(&Broker, &Pod)> {
    let wanted = observed.stateful_set.as_ref()?.update_revision.as_ref()?;
    observed
        .brokers
        .iter()
        .filter_map(|broker| broker.pod.as_ref().map(|pod| (broker, pod)))
        .filter(|(_, pod)| pod.revision != *wanted)
        .min_by_key(|(broker, _)| (rank(broker), Reverse(broker.ordinal)))
}

/// Not ready first: they serve nobody, and a broken revision is mended by them. The leader last: one election only.
fn rank(broker: &Broker) -> u8 {
    match (&broker.pod, &broker.answer) {
        (Some(pod), _) if !pod.is_up() => 0,
        (_, Answer::Said { leader: true, .. }) => 2,
        _ => 1,
    }
}

fn already_restarting(observed: &Observation) -> Option<String> {
    let (broker, pod) = next(observed)?;
    pod.terminating.then(|| format!("broker {} is stopping", broker.ordinal))
}

fn another_broker_down(observed: &Observation) -> Option<String> {
    let (candidate, pod) = next(observed)?;
    // A broker that is down itself takes nothing more away by its restart; several broken ones could never heal otherwise.
    if !pod.is_up() {
        return None;
    }
    let down: Vec<String> = observed
        .brokers
        .iter()
        .filter(|other| other.ordinal != candidate.ordinal && other.ordinal < observed.replicas)
        .filter(|other| !other.pod.as_ref().is_some_and(Pod::is_up))
        .map(|other| other.ordinal.to_string())
        .collect();
    (!down.is_empty()).then(|| format!("broker {} is down", down.join(", ")))
}
