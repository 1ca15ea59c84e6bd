//! The order in which brokers restart onto a new revision: one at a time, those that are not ready first, then the
//! followers, the controller's leader last. Evaluated anew at each look, never as a plan that is carried on.

use std::cmp::Reverse;

use super::decide::Step;
use super::observation::{Answer, Broker, Container, Observation, Pod};
use super::partitions;
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
    Guard { reason: Reason::BrokerSilent, refuses: not_heard_of },
    Guard { reason: Reason::AnotherBrokerDown, refuses: another_broker_down },
    Guard { reason: Reason::BrokersStarting, refuses: another_on_its_way },
    Guard { reason: Reason::PartitionsUnknown, refuses: partitions::not_known },
    Guard { reason: Reason::ReplicaOutOfSync, refuses: partitions::others_behind },
];

/// Plans the next restart under [`GUARDS`].
pub fn plan(observed: &Observation) -> Rollout {
    plan_with(GUARDS, observed)
}

/// Plans the next restart under `guards`: what a test takes out, the plan must miss.
pub fn plan_with(guards: &[Guard<Observation>], observed: &Observation) -> Rollout {
    // Closes the race between a changed template and the controller that computes its revision: before it has caught
    // up, pods would be compared with the revision before.
    if observed.stateful_set.as_ref().is_none_or(|set| set.update_revision.is_none()) {
        return Rollout::Waiting(vec![Blocked {
            reason: Reason::RevisionUnknown,
            on: None,
            message: "the StatefulSet controller has not yet acted on the newest template".to_owned(),
        }]);
    }
    let Some((broker, pod)) = next(observed) else { return Rollout::Done };
    let refused = refusals(guards, observed);
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
        .filter(|broker| broker.ordinal < observed.replicas)
        .filter_map(|broker| broker.pod.as_ref().map(|pod| (broker, pod)))
        .filter(|(_, pod)| pod.revision != *wanted)
        .min_by_key(|(broker, _)| (rank(broker), Reverse(broker.ordinal)))
}

/// Those known to serve nobody first: their restart takes nothing away, and it mends a broken revision. Then those that
/// are not heard of, so that they are waited for before a well one goes. The leader last: one election only.
fn rank(broker: &Broker) -> u8 {
    match &broker.answer {
        _ if !broker.pod.as_ref().is_some_and(Pod::is_up) => 0,
        Answer::Said { healthy: false, .. } => 1,
        Answer::NotAsked | Answer::Silent { .. } => 2,
        Answer::Said { leader: false, .. } => 3,
        Answer::Said { leader: true, .. } => 4,
    }
}

/// Its pod is not up, or it says of itself that it is not healthy.
pub(super) fn is_known_down(broker: &Broker) -> bool {
    !broker.pod.as_ref().is_some_and(Pod::is_up) || matches!(broker.answer, Answer::Said { healthy: false, .. })
}

/// Unknown is never "yes": a pod that is ready by its probes does not prove that its broker serves.
fn is_known_well(broker: &Broker) -> bool {
    !is_known_down(broker) && matches!(broker.answer, Answer::Said { healthy: true, .. })
}

fn not_heard_of(observed: &Observation) -> Option<String> {
    let (broker, _) = next(observed)?;
    (!is_known_down(broker) && !is_known_well(broker)).then(|| {
        format!("broker {} has not answered the operator, so nobody knows what its restart takes away", broker.ordinal)
    })
}

fn already_restarting(observed: &Observation) -> Option<String> {
    let (broker, pod) = next(observed)?;
    pod.terminating.then(|| format!("broker {} is stopping", broker.ordinal))
}

fn another_broker_down(observed: &Observation) -> Option<String> {
    let (candidate, _) = next(observed)?;
    // A broker that is down itself takes nothing more away by its restart; several broken ones could never heal otherwise.
    if is_known_down(candidate) {
        return None;
    }
    let down: Vec<String> = (0..observed.replicas)
        .filter(|ordinal| *ordinal != candidate.ordinal && !observed.broker(*ordinal).is_some_and(is_known_well))
        .map(|ordinal| ordinal.to_string())
        .collect();
    (!down.is_empty()).then(|| format!("broker {} is not known to be well", down.join(", ")))
}

/// One at a time, also of those that are down: without a quorum every broker says that it is not healthy, and it may be
/// the restart of another that took the quorum away.
fn another_on_its_way(observed: &Observation) -> Option<String> {
    let (candidate, _) = next(observed)?;
    if !is_known_down(candidate) {
        return None;
    }
    let coming = (0..observed.replicas)
        .filter(|ordinal| *ordinal != candidate.ordinal)
        .find(|ordinal| observed.broker(*ordinal).is_none_or(is_on_its_way))?;
    Some(format!("broker {coming} is on its way"))
}

/// It stops, or starts without anything wrong so far, and has not answered since.
fn is_on_its_way(broker: &Broker) -> bool {
    let Some(pod) = &broker.pod else { return true };
    if pod.terminating {
        return true;
    }
    let starts = match &pod.container {
        Container::Unreported | Container::Running => pod.last_exit.is_none(),
        Container::Waiting { reason, .. } => matches!(reason.as_str(), "" | "ContainerCreating" | "PodInitializing"),
        Container::Terminated => false,
    };
    let answered = matches!(broker.answer, Answer::Said { .. });
    starts && !pod.ready && !answered && pod.unschedulable.is_none() && pod.failed.is_none()
}
