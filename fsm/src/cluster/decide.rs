//! What to do next for a cluster.
//!
//! Order of precedence: deletion, then the verdict on the spec, then objects, then brokers. The phase is a summary of
//! what was found on that way; it decides nothing.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::admission::Admission;
use super::diagnosis::{Health, SCHEDULING_GRACE, diagnose};
use super::formation::{self, Formation};
use super::observation::{Object, Observation, Presence};
use super::rollout::{self, Rollout};
use super::teardown;
use crate::decision::{Blocked, ConditionType, Decision};
use crate::guard::Refusal;
use crate::phase::{Kind, Phase};
use crate::reason::Reason;

/// One write. Each names what it acts on so that the API server refuses it if the world has moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Put the finalizer on the cluster, before anything is created that deletion must take down in order.
    AddFinalizer,
    /// Create the object, or bring it back to what is wanted.
    Apply(Object),
    /// Mark the claim as this cluster's.
    AdoptVolume {
        /// Name of the claim.
        claim: String,
        /// Its uid.
        uid: String,
    },
    /// Tell a broker who the first members of the cluster are: all that the spec asks for.
    Bootstrap {
        /// Which broker is told.
        founder: u32,
    },
    /// Note on the cluster that it was formed.
    MarkFormed,
    /// Evict the pod; the StatefulSet makes it anew at the wanted revision.
    RestartPod {
        /// Which broker.
        ordinal: u32,
        /// The pod's uid.
        uid: String,
    },
    /// Delete the StatefulSet and, before it, its pods.
    DeleteStatefulSet {
        /// Its uid.
        uid: String,
    },
    /// Delete a volume claim.
    DeleteVolume {
        /// Name of the claim.
        claim: String,
        /// Its uid.
        uid: String,
    },
    /// Take the finalizer off: the operator has nothing more to do for this object.
    RemoveFinalizer,
}

impl Step {
    /// The metric label.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::AddFinalizer => "AddFinalizer",
            Self::Apply(_) => "Apply",
            Self::AdoptVolume { .. } => "AdoptVolume",
            Self::Bootstrap { .. } => "Bootstrap",
            Self::MarkFormed => "MarkFormed",
            Self::RestartPod { .. } => "RestartPod",
            Self::DeleteStatefulSet { .. } => "DeleteStatefulSet",
            Self::DeleteVolume { .. } => "DeleteVolume",
            Self::RemoveFinalizer => "RemoveFinalizer",
        }
    }

    /// Whether it takes a broker out of service. Volumes are deleted when no broker is left to be taken out.
    pub const fn is_disruptive(&self) -> bool {
        matches!(self, Self::RestartPod { .. } | Self::DeleteStatefulSet { .. })
    }
}

/// How soon a prerequisite that no watch reports, such as a Secret, is looked for again.
pub const PREREQUISITE_RETRY: Duration = Duration::from_secs(10);
/// How soon brokers are asked again while their answers are waited for.
pub const SILENT_RETRY: Duration = Duration::from_millis(500);

/// Decides what to record and what to do next. Pure: the same observation and time give the same decision.
pub fn decide(observed: &Observation, now: DateTime<Utc>) -> Decision<Step> {
    if let Some(deletion) = observed.deletion {
        return teardown::decide(observed, deletion);
    }
    let decision = match &observed.admission {
        Admission::Refused(refusals) => return refused(observed, refusals),
        Admission::Kept(_) | Admission::Accepted => in_force(observed, now),
    };
    with_spec_condition(decision, observed.admission.refusals())
}

/// The decision for an object that cannot be read as its type: say so on the object, touch nothing.
pub fn malformed(recorded: Option<Phase>, message: &str) -> Decision<Step> {
    Decision::malformed(Kind::Cluster, recorded, message)
}

/// The decision after a step failed: what to record until it is tried again.
pub fn step_failed(decided: &Decision<Step>, step: &Step, error: &str) -> Decision<Step> {
    let target = if decided.phase.has_served() { Phase::Degraded } else { decided.phase };
    decided.failed(Kind::Cluster, target, Reason::StepFailed, format!("{} failed: {error}", step.name()))
}

/// No spec was ever accepted: nothing is created.
fn refused(observed: &Observation, refusals: &[Refusal]) -> Decision<Step> {
    let (reason, message) = first(refusals);
    with_spec_condition(concluded(observed, Phase::waiting(observed.recorded), reason, message), refusals)
}

fn first(refusals: &[Refusal]) -> (Reason, &str) {
    refusals.first().map_or((Reason::InvalidSpec, ""), |refusal| (refusal.reason, refusal.message.as_str()))
}

fn with_spec_condition(decision: Decision<Step>, refusals: &[Refusal]) -> Decision<Step> {
    // A Secret comes and goes without a watch telling, so a spec that waits for one is looked at again.
    let waits = refusals.iter().any(|refusal| refusal.reason == Reason::PrerequisiteMissing);
    let decision = if waits { decision.look_again_in(PREREQUISITE_RETRY) } else { decision };
    if refusals.is_empty() {
        return decision.with_condition(ConditionType::SpecAccepted, true, Reason::Accepted, "the spec is in force");
    }
    let all: Vec<&str> = refusals.iter().map(|refusal| refusal.message.as_str()).collect();
    decision.with_condition(ConditionType::SpecAccepted, false, refusals[0].reason, all.join("; "))
}

/// A spec is in force: bring objects and brokers to it.
fn in_force(observed: &Observation, now: DateTime<Utc>) -> Decision<Step> {
    if observed.paused {
        return paused(observed, now);
    }
    // The finalizer comes first: nothing is created that its deletion would not take down in order.
    let objects = if observed.finalizer { object_steps(observed) } else { Objects::Apply(vec![Step::AddFinalizer]) };
    let decision = match objects {
        Objects::Held(blocked) => held(observed, blocked),
        Objects::Apply(steps) => {
            let message = format!("applying {}", describe(&steps));
            if observed.stateful_set.is_none() {
                // Once brokers have served, a missing StatefulSet means that none is left and all start anew.
                concluded(observed, Phase::Provisioning, Reason::Applying, message).with_steps(steps)
            } else {
                // A restart waits until the objects are as wanted: the template decides what the pod restarts onto.
                summary(observed, now).decision(observed, Some((Reason::Applying, message))).with_steps(steps)
            }
        }
        Objects::Current => summary(observed, now).decision(observed, None),
    };
    let decision = if observed.finalizer { decision } else { decision.look_again_in(Duration::ZERO) };
    if decision.steps.is_empty() {
        return decision;
    }
    // Also what is Degraded is worked on while there are steps.
    let (reason, message) = (decision.reason, decision.message.clone());
    decision.with_condition(ConditionType::Progressing, true, reason, message)
}

/// An object holds everything: nothing is half created, and what runs goes on running.
fn held(observed: &Observation, blocked: Blocked) -> Decision<Step> {
    let target = match (Phase::waiting(observed.recorded), observed.stateful_set.is_some()) {
        (Phase::Pending, true) => Phase::Provisioning,
        (waiting, _) => waiting,
    };
    let mut decision = concluded(observed, target, blocked.reason, blocked.message.clone());
    // No watch tells of objects that are not ours, nor of one that could not be read.
    if blocked.reason != Reason::WaitingForDeletion {
        decision = decision.look_again_in(PREREQUISITE_RETRY);
    }
    decision.blocked_by.push(blocked);
    decision
}

/// The decision for `target`, with the conditions that follow from it.
fn concluded(observed: &Observation, target: Phase, reason: Reason, message: impl Into<String>) -> Decision<Step> {
    let message = message.into();
    let target = reachable(observed, target);
    Decision::toward(Kind::Cluster, observed.recorded, target, reason, message.clone())
        .with_condition(ConditionType::Ready, target == Phase::Ready, reason, message.clone())
        .with_condition(
            ConditionType::Progressing,
            matches!(target, Phase::Provisioning | Phase::Scaling | Phase::Upgrading),
            reason,
            message.clone(),
        )
        .with_condition(ConditionType::Degraded, target == Phase::Degraded, reason, message)
}

/// The table has no edge from a cluster that served to Provisioning but through Degraded.
fn reachable(observed: &Observation, target: Phase) -> Phase {
    match (observed.recorded, target) {
        (Some(recorded), Phase::Provisioning)
            if !Kind::Cluster.table().allows(Some(recorded), target) && recorded.has_served() =>
        {
            Phase::Degraded
        }
        _ => target,
    }
}

/// Paused: nothing is written but the truth about what is seen.
fn paused(observed: &Observation, now: DateTime<Utc>) -> Decision<Step> {
    let message = "reconciliation is paused";
    let decision = if observed.stateful_set.is_some() {
        let left = match object_steps(observed) {
            Objects::Current => None,
            Objects::Apply(steps) => Some((Reason::Paused, format!("{message}; not applied: {}", describe(&steps)))),
            Objects::Held(blocked) => Some((blocked.reason, blocked.message)),
        };
        let mut decision = summary(observed, now).decision(observed, left);
        decision.steps.clear();
        decision
    } else {
        concluded(observed, Phase::waiting(observed.recorded), Reason::Paused, message)
    };
    decision.with_condition(ConditionType::Progressing, false, Reason::Paused, message)
}

enum Objects {
    Current,
    Apply(Vec<Step>),
    Held(Blocked),
}

/// What the objects need. A foreign, stale or unreadable one holds everything: nothing is half created.
fn object_steps(observed: &Observation) -> Objects {
    for (object, presence) in &observed.objects {
        let held = |reason, message| Objects::Held(Blocked { reason, on: Some(object.kind().to_owned()), message });
        match presence {
            Presence::Foreign { owner } => {
                return held(
                    Reason::NameCollision,
                    format!(
                        "{} of the needed name exists and belongs to {owner}; rename this cluster or remove it",
                        object.kind()
                    ),
                );
            }
            Presence::Unknown { why } => return held(Reason::Unreadable, format!("{}: {why}", object.kind())),
            Presence::Deleting => {
                return held(Reason::WaitingForDeletion, format!("{} is still being deleted", object.kind()));
            }
            Presence::Missing | Presence::Current | Presence::Drifted => {}
        }
    }
    let mut steps = Vec::new();
    if observed.stateful_set.is_none() {
        if let Some(blocked) = going_volumes(observed) {
            return Objects::Held(blocked);
        }
        match stale_volumes(observed) {
            Some(blocked) if !observed.adopt_volumes => return Objects::Held(blocked),
            _ => steps.extend(adoptions(observed)),
        }
    }
    steps.extend(
        observed
            .objects
            .iter()
            .filter(|(_, presence)| matches!(presence, Presence::Missing | Presence::Drifted))
            .map(|(object, _)| Step::Apply(*object)),
    );
    if steps.is_empty() { Objects::Current } else { Objects::Apply(steps) }
}

/// A volume that is being deleted serves nobody: a pod that is given it would never start.
fn going_volumes(observed: &Observation) -> Option<Blocked> {
    let claim = observed.brokers.iter().filter_map(|b| b.claim.as_ref()).find(|claim| claim.deleting)?;
    Some(Blocked {
        reason: Reason::WaitingForDeletion,
        on: Some(claim.name.clone()),
        message: format!("volume claim {} is still being deleted", claim.name),
    })
}

/// A volume of the name of ours that nothing proves to be ours: records of another cluster could be in it.
fn stale_volumes(observed: &Observation) -> Option<Blocked> {
    let stale: Vec<&str> =
        observed.brokers.iter().filter_map(|b| b.claim.as_ref()).filter(|c| !c.ours).map(|c| c.name.as_str()).collect();
    (!stale.is_empty()).then(|| Blocked {
        reason: Reason::StaleVolume,
        on: Some(stale.join(", ")),
        message: format!(
            "volume claims {} exist and nothing proves that they are this cluster's; delete them, or adopt them with the annotation rivven.io/adopt-volumes: \"true\"",
            stale.join(", ")
        ),
    })
}

fn adoptions(observed: &Observation) -> impl Iterator<Item = Step> + '_ {
    observed
        .brokers
        .iter()
        .filter_map(|b| b.claim.as_ref())
        .filter(|c| !c.ours)
        .map(|c| Step::AdoptVolume { claim: c.name.clone(), uid: c.uid.clone() })
}

fn describe(steps: &[Step]) -> String {
    let kinds: Vec<&str> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Apply(object) => Some(object.kind()),
            Step::AddFinalizer => Some("the finalizer"),
            _ => None,
        })
        .collect();
    kinds.join(", ")
}

/// What the brokers are like, all together.
struct Summary {
    well: usize,
    trouble: Option<(Reason, String)>,
    coming: Vec<Blocked>,
    silent: bool,
    unscheduled: bool,
    rollout: Rollout,
    formation: Formation,
    partitions: Option<Blocked>,
}

fn summary(observed: &Observation, now: DateTime<Utc>) -> Summary {
    let mut summary = Summary {
        well: 0,
        trouble: None,
        coming: Vec::new(),
        silent: false,
        unscheduled: false,
        rollout: rollout::plan(observed),
        formation: formation::plan(observed),
        partitions: observed.partitions.trouble(),
    };
    for ordinal in 0..observed.replicas {
        let Some(broker) = observed.broker(ordinal) else {
            let message = format!("broker {ordinal} was not looked at");
            summary.coming.push(Blocked { reason: Reason::BrokersStarting, on: Some(ordinal.to_string()), message });
            continue;
        };
        summary.unscheduled |= broker.pod.as_ref().is_some_and(|pod| !pod.ready && pod.unschedulable.is_some());
        match diagnose(broker, now) {
            Health::Well => summary.well += 1,
            Health::Coming(reason, message) => {
                summary.silent |= reason == Reason::BrokerSilent;
                summary.coming.push(Blocked { reason, on: Some(broker.ordinal.to_string()), message });
            }
            Health::Trouble(reason, message) => {
                summary.trouble.get_or_insert((reason, message));
            }
        }
    }
    match &summary.formation {
        Formation::Complete => {}
        // Once they were a cluster, what keeps a broker from answering is said of the broker itself.
        Formation::Waiting(blocked) if observed.formed && blocked.reason == Reason::BrokersStarting => {}
        Formation::Next(_, blocked) | Formation::Waiting(blocked) => {
            // Brokers are not ready before they are a cluster: that they are not is then not the news.
            let at = if observed.formed { summary.coming.len() } else { 0 };
            summary.coming.insert(at, blocked.clone());
        }
        Formation::Broken(blocked) => {
            summary.trouble.get_or_insert((blocked.reason, blocked.message.clone()));
        }
    }
    // After the brokers: a broker that is away is why its replicas are behind.
    summary.coming.extend(summary.partitions.clone());
    summary
}

impl Summary {
    /// The phase the brokers call for, and the restart that may happen now. `left` is what is to be done to the objects:
    /// while there is something, no broker is restarted and nothing is as wanted.
    fn decision(self, observed: &Observation, left: Option<(Reason, String)>) -> Decision<Step> {
        let may_restart = left.is_none();
        let (target, reason, message) = self.target(observed, left);
        let mut decision = downtime(concluded(observed, target, reason, message), observed);
        match self.rollout {
            Rollout::Restart(step) if may_restart => decision = decision.with_steps([step]),
            Rollout::Done | Rollout::Restart(_) => {}
            Rollout::Waiting(blocked) => decision.blocked_by.extend(blocked),
        }
        match self.formation {
            Formation::Complete => {}
            // A broker that restarts now is told when it is back.
            Formation::Next(step, _) if may_restart && decision.steps.is_empty() => {
                decision = decision.with_steps([step]).look_again_in(SILENT_RETRY);
            }
            _ => decision = decision.look_again_in(SILENT_RETRY),
        }
        decision.blocked_by.extend(self.coming);
        // No watch tells of an answer that is missing, nor of a replica that has caught up.
        if self.silent || self.partitions.is_some() {
            decision = decision.look_again_in(SILENT_RETRY);
        }
        if self.unscheduled && self.trouble.is_none() {
            decision = decision.look_again_in(SCHEDULING_GRACE);
        }
        decision
    }

    fn target(&self, observed: &Observation, left: Option<(Reason, String)>) -> (Phase, Reason, String) {
        let wanted = observed.replicas;
        let served = observed.recorded.is_some_and(Phase::has_served);
        let changing = if served { Phase::Upgrading } else { Phase::Provisioning };
        if let Some((reason, message)) = &self.trouble {
            return (Phase::Degraded, *reason, message.clone());
        }
        let outdated = match &self.rollout {
            Rollout::Done => None,
            Rollout::Restart(_) => {
                Some((Reason::RevisionOutdated, "brokers restart one at a time onto the new revision".to_owned()))
            }
            Rollout::Waiting(blocked) => blocked.first().map(|blocked| (blocked.reason, blocked.message.clone())),
        };
        match (outdated, self.coming.first()) {
            // In the middle of a rollout the broker that is away is the one that was restarted, and not "another" one.
            (Some((Reason::AnotherBrokerDown, _)), Some(first)) if observed.recorded == Some(Phase::Upgrading) => (
                Phase::Upgrading,
                Reason::BrokerRestarting,
                format!("{} of {wanted} brokers ready: {}", self.well, first.message),
            ),
            (Some((reason, message)), _) if served => (changing, reason, message),
            (_, Some(first)) if served => {
                // A restart that the operator began is an upgrade until the broker is back, not a fault.
                let phase =
                    if observed.recorded == Some(Phase::Upgrading) { Phase::Upgrading } else { Phase::Degraded };
                let reason = match (phase, first.reason) {
                    (Phase::Upgrading, _) => Reason::BrokerRestarting,
                    (_, Reason::BrokersStarting | Reason::BrokerRestarting) => Reason::BrokerNotReady,
                    (_, other) => other,
                };
                (phase, reason, format!("{} of {wanted} brokers ready: {}", self.well, first.message))
            }
            (_, Some(first)) => (
                Phase::Provisioning,
                first.reason,
                format!("{} of {wanted} brokers ready: {}", self.well, first.message),
            ),
            (Some((reason, message)), None) => (changing, reason, message),
            (None, None) => left.map_or_else(
                || (Phase::Ready, Reason::AsWanted, format!("{wanted} of {wanted} brokers ready")),
                |(reason, message)| (changing, reason, message),
            ),
        }
    }
}

/// Nobody can keep data available that has no other copy while its broker restarts: say so beforehand, and while it
/// happens.
fn downtime(decision: Decision<Step>, observed: &Observation) -> Decision<Step> {
    let Some((broker, pod)) = rollout::next(observed) else { return decision };
    if !pod.ready && !pod.terminating {
        return decision;
    }
    let message = if observed.replicas == 1 {
        format!("broker {} is the only one; its data is unavailable while it restarts", broker.ordinal)
    } else if observed.replicas == 2 && observed.capabilities.clustering {
        format!("without broker {} the other is no majority; nothing can be written while it restarts", broker.ordinal)
    } else {
        let lost = observed.partitions.out_of_service_without(broker.ordinal);
        if lost.is_empty() {
            return decision;
        }
        format!("no replica can stand in for broker {} while it restarts: {lost}", broker.ordinal)
    };
    decision.with_condition(ConditionType::DowntimeExpected, true, Reason::NoOtherCopy, message)
}
