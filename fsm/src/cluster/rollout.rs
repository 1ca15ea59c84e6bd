//! The order in which brokers restart onto a new revision: one at a time, those that are not ready first, then the
//! followers, the controller's leader last. Evaluated anew at each look, never as a plan that is carried on.
//!
//! A broker that serves hands over first what it leads. One that does not come back halts the rollout.

use std::cmp::Reverse;
use std::time::Duration;

use super::decide::Step;
use super::diagnosis::{Health, diagnose};
use super::observation::{Answer, Broker, Container, Observation, Pod};
use super::partitions;
use super::plan::Plan;
use crate::decision::{Blocked, Planned};
use crate::guard::{Guard, refusals};
use crate::reason::Reason;
use crate::window;

/// How long a broker may take to come back, from when its pod was made.
pub const BACK_WITHIN: Duration = Duration::from_mins(10);

/// The guards on a restart of the broker that is [`next`] in order.
pub const GUARDS: &[Guard<Observation>] = &[
    Guard {
        reason: Reason::Paused,
        refuses: |observed| observed.paused.then(|| "reconciliation is paused".to_owned()),
    },
    Guard { reason: Reason::RolloutHalted, refuses: halted },
    Guard { reason: Reason::BrokerRestarting, refuses: already_restarting },
    Guard { reason: Reason::BrokerSilent, refuses: not_heard_of },
    Guard { reason: Reason::AnotherBrokerDown, refuses: another_broker_down },
    Guard { reason: Reason::BrokersStarting, refuses: another_on_its_way },
    Guard { reason: Reason::PartitionsUnknown, refuses: partitions::not_known },
    Guard { reason: Reason::ReplicaOutOfSync, refuses: partitions::others_behind },
    Guard { reason: Reason::BrokerSettling, refuses: another_settling },
    Guard { reason: Reason::OutsideMaintenanceWindow, refuses: no_window },
];

/// Plans the next restart under [`GUARDS`].
pub fn plan(observed: &Observation) -> Plan {
    plan_with(GUARDS, observed)
}

/// Plans the next restart under `guards`: what a test takes out, the plan must miss.
pub fn plan_with(guards: &[Guard<Observation>], observed: &Observation) -> Plan {
    // Closes the race between a changed template and the controller that computes its revision: before it has caught
    // up, pods would be compared with the revision before.
    if observed.stateful_set.as_ref().is_none_or(|set| set.update_revision.is_none()) {
        let message = "the StatefulSet controller has not yet acted on the newest template";
        return Plan::wait(Reason::RevisionUnknown, message, None);
    }
    if let Some(halt) = halt(observed) {
        return halt;
    }
    let Some((broker, pod)) = next(observed) else { return Plan::Done };
    let refused = refusals(guards, observed);
    if refused.is_empty() {
        if let Some(handover) = hand_over(observed, broker) {
            return handover;
        }
        let step = Step::RestartPod { ordinal: broker.ordinal, uid: pod.uid.clone() };
        if let Some(words) = &pod.held {
            let message = format!("broker {} cannot be restarted: {words}", broker.ordinal);
            let on = Some(broker.ordinal.to_string());
            return Plan::Next(vec![step], Blocked { reason: Reason::EvictionHeld, on, message });
        }
        return Plan::next(step, Reason::RevisionOutdated, "brokers restart one at a time onto the new revision");
    }
    let on = Some(broker.ordinal.to_string());
    let blocked = refused.into_iter().map(|r| Blocked { reason: r.reason, on: on.clone(), message: r.message });
    Plan::Waiting(blocked.collect(), time_tells(observed))
}

/// The restarts that will come, in order, as things are now.
pub fn ahead(observed: &Observation) -> Vec<Planned> {
    let mut brokers: Vec<(&Broker, &Pod)> = outdated(observed).collect();
    brokers.sort_by_key(|(broker, pod)| turn(observed, broker, pod));
    let restart = |(broker, _): (&Broker, &Pod)| Planned { step: "RestartPod", on: broker.ordinal.to_string() };
    brokers.into_iter().map(restart).collect()
}

/// A broker on the wanted revision did not come back while others are still on another: the wanted revision is what is
/// wrong, or may be. Nothing is halted that has nowhere to go back to.
fn halt(observed: &Observation) -> Option<Plan> {
    let set = observed.stateful_set.as_ref()?;
    let wanted = set.update_revision.as_ref()?;
    if !set.proven || is_halted(observed) || observed.paused {
        return None;
    }
    let pods = || (0..observed.replicas).filter_map(|ordinal| observed.broker(ordinal)?.pod.as_ref());
    if pods().all(|pod| pod.revision == *wanted) {
        return None;
    }
    let failed = (0..observed.replicas).filter_map(|ordinal| observed.broker(ordinal)).find(|broker| {
        broker.pod.as_ref().is_some_and(|pod| pod.revision == *wanted && does_not_come_back(pod, observed))
    })?;
    let (reason, message) = match diagnose(failed, observed.seen_at) {
        Health::Trouble(reason, message) => (reason, message),
        Health::Coming(_, message) => (Reason::BrokerNotBack, message),
        Health::Well => return None,
    };
    let step = Step::HaltRollout { broker: failed.ordinal, revision: wanted.clone(), reason, message: message.clone() };
    Some(Plan::next(step, reason, message))
}

/// The kubelet itself backs off, or it takes too long. An end or a failed pull that is tried again at once may pass.
fn does_not_come_back(pod: &Pod, observed: &Observation) -> bool {
    let age = observed.seen_at.signed_duration_since(pod.created).to_std().unwrap_or_default();
    let gave_up = match &pod.container {
        Container::Waiting { reason, .. } => {
            !matches!(reason.as_str(), "" | "ContainerCreating" | "PodInitializing" | "ErrImagePull")
        }
        _ => false,
    };
    !pod.ready && !pod.terminating && (gave_up || age > BACK_WITHIN)
}

/// Before a broker that serves is restarted: its partitions get other leaders, then the controller does.
fn hand_over(observed: &Observation, broker: &Broker) -> Option<Plan> {
    if is_known_down(broker) {
        return None;
    }
    let on = broker.ordinal;
    let heirs: Vec<u32> = (0..observed.replicas)
        .filter(|ordinal| *ordinal != on)
        .filter(|ordinal| observed.broker(*ordinal).is_some_and(|b| diagnose(b, observed.seen_at) == Health::Well))
        .collect();
    let leaders = partitions::new_leaders(&observed.partitions, on, &heirs);
    if !leaders.is_empty() {
        let message = format!("partitions that broker {on} leads get other leaders before it restarts");
        return Some(Plan::next(Step::ElectLeaders { leaders }, Reason::HandingOver, message));
    }
    let leads = matches!(broker.answer, Answer::Said { leader: true, .. });
    let to = *heirs.first().filter(|_| leads && observed.capabilities.clustering)?;
    let message = format!("broker {on} hands the controller over to broker {to} before it restarts");
    Some(Plan::next(Step::TransferController { to }, Reason::HandingOver, message))
}

/// When a guard lets pass that only time moves.
fn time_tells(observed: &Observation) -> Option<Duration> {
    let settled = settling(observed).map(|(_, left)| left);
    let opens = window::opens_in(&observed.windows, observed.seen_at).filter(|wait| !wait.is_zero());
    settled.into_iter().chain(opens).min()
}

/// The outdated broker whose turn it is.
pub fn next(observed: &Observation) -> Option<(&Broker, &Pod)> {
    outdated(observed).min_by_key(|(broker, pod)| turn(observed, broker, pod))
}

/// Brokers that are not at the wanted revision, or whose restart somebody asked for.
fn outdated(observed: &Observation) -> impl Iterator<Item = (&Broker, &Pod)> {
    let wanted = observed.stateful_set.as_ref().and_then(|set| set.update_revision.as_ref());
    observed
        .brokers
        .iter()
        .filter(|broker| broker.ordinal < observed.replicas)
        .filter_map(|broker| broker.pod.as_ref().map(|pod| (broker, pod)))
        .filter(move |(_, pod)| wanted.is_some_and(|wanted| pod.revision != *wanted) || pod.restart_asked)
}

/// In a halted rollout only those have a turn whose restart somebody asked for.
fn turn(observed: &Observation, broker: &Broker, pod: &Pod) -> (bool, u8, Reverse<u32>) {
    (is_halted(observed) && !pod.restart_asked, rank(broker), Reverse(broker.ordinal))
}

pub(super) fn is_halted(observed: &Observation) -> bool {
    observed.admission.refusals().iter().any(|refusal| refusal.reason == Reason::RolloutHalted)
}

/// Whether the next restart takes nothing away, as its broker serves nobody.
pub(super) fn heals(observed: &Observation) -> bool {
    next(observed).is_some_and(|(broker, _)| is_known_down(broker))
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
pub(super) fn is_known_well(broker: &Broker) -> bool {
    !is_known_down(broker) && matches!(broker.answer, Answer::Said { healthy: true, .. })
}

/// What is broken stays as it is, for a person to look at, and nothing else follows it.
fn halted(observed: &Observation) -> Option<String> {
    let (_, pod) = next(observed)?;
    let refusal = observed.admission.refusals().iter().find(|refusal| refusal.reason == Reason::RolloutHalted)?;
    (!pod.restart_asked).then(|| refusal.message.clone())
}

/// Who has been ready for the shortest time, and how long until that is long enough.
fn settling(observed: &Observation) -> Option<(u32, Duration)> {
    let candidate = next(observed)?.0.ordinal;
    let left = |broker: &Broker| {
        let since = broker.pod.as_ref().filter(|pod| pod.ready)?.ready_since?;
        let been = observed.seen_at.signed_duration_since(since).to_std().unwrap_or_default();
        observed.min_ready.checked_sub(been).filter(|left| !left.is_zero())
    };
    (0..observed.replicas)
        .filter(|ordinal| *ordinal != candidate)
        .filter_map(|ordinal| Some((ordinal, left(observed.broker(ordinal)?)?)))
        .max_by_key(|(_, left)| *left)
}

fn another_settling(observed: &Observation) -> Option<String> {
    if next(observed).is_none_or(|(broker, _)| is_known_down(broker)) {
        return None;
    }
    let (ordinal, _) = settling(observed)?;
    Some(format!("broker {ordinal} has not been ready for {} s yet", observed.min_ready.as_secs()))
}

/// Healing waits for no window: a broker that is down takes nothing more away by its restart.
fn no_window(observed: &Observation) -> Option<String> {
    let (broker, _) = next(observed)?;
    if is_known_down(broker) {
        return None;
    }
    match window::opens_in(&observed.windows, observed.seen_at) {
        Some(wait) if wait.is_zero() => None,
        Some(wait) => {
            let opens = observed.seen_at + wait;
            Some(format!("the next maintenance window opens at {}", opens.format("%Y-%m-%d %H:%M UTC")))
        }
        None => Some("no maintenance window ever opens".to_owned()),
    }
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
