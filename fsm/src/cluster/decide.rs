//! What to do next for a cluster.
//!
//! Order of precedence: deletion, then the verdict on the spec, then objects, then brokers. The phase is a summary of
//! what was found on that way; it decides nothing.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::admission::Admission;
use super::diagnosis::{Health, SCHEDULING_GRACE, diagnose};
use super::observation::{Broker, Object, Observation, Presence};
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
            Self::RestartPod { .. } => "RestartPod",
            Self::DeleteStatefulSet { .. } => "DeleteStatefulSet",
            Self::DeleteVolume { .. } => "DeleteVolume",
            Self::RemoveFinalizer => "RemoveFinalizer",
        }
    }

    /// Whether it takes a broker out of service.
    pub const fn is_disruptive(&self) -> bool {
        matches!(self, Self::RestartPod { .. } | Self::DeleteStatefulSet { .. } | Self::DeleteVolume { .. })
    }
}

/// How soon a prerequisite that no watch reports, such as a Secret, is looked for again.
pub const PREREQUISITE_RETRY: Duration = Duration::from_secs(10);
/// How soon a broker that is ready and did not answer is asked again.
pub const SILENT_RETRY: Duration = Duration::from_secs(1);

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
    let target = if recorded.is_some_and(Phase::has_served) { Phase::Degraded } else { Phase::Pending };
    Decision::toward(Kind::Cluster, recorded, target, Reason::Malformed, message).with_condition(
        ConditionType::SpecAccepted,
        false,
        Reason::Malformed,
        message,
    )
}

/// The decision after a step failed: what to record until it is tried again.
pub fn step_failed(decided: &Decision<Step>, step: &Step, error: &str) -> Decision<Step> {
    let message = format!("{} failed: {error}", step.name());
    let target = if decided.phase.has_served() { Phase::Degraded } else { decided.phase };
    let mut failed = Decision::toward(Kind::Cluster, Some(decided.phase), target, Reason::StepFailed, message.clone());
    failed
        .conditions
        .extend(decided.conditions.iter().filter(|c| matches!(c.kind, ConditionType::SpecAccepted)).cloned());
    failed.blocked_by.clone_from(&decided.blocked_by);
    failed.with_condition(ConditionType::Ready, false, Reason::StepFailed, message.clone()).with_condition(
        ConditionType::Degraded,
        true,
        Reason::StepFailed,
        message,
    )
}

/// No spec was ever accepted: nothing is created.
fn refused(observed: &Observation, refusals: &[Refusal]) -> Decision<Step> {
    let (reason, message) = first(refusals);
    // Pending is for clusters that serve nothing yet; one whose StatefulSet was taken away is Degraded.
    let target = if observed.recorded.is_some_and(Phase::has_served) { Phase::Degraded } else { Phase::Pending };
    let decision = Decision::toward(Kind::Cluster, observed.recorded, target, reason, message).with_condition(
        ConditionType::Ready,
        false,
        reason,
        message,
    );
    with_spec_condition(decision, refusals)
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
    if !observed.finalizer {
        return toward(observed, Phase::Provisioning, Reason::Applying, "the finalizer is being added")
            .with_steps([Step::AddFinalizer])
            .look_again_in(Duration::ZERO);
    }
    let objects = object_steps(observed);
    let brokers = summary(observed, now);
    match objects {
        Objects::Held(reason, blocked) => {
            let message = blocked.message.clone();
            let target = match (observed.recorded.is_some_and(Phase::has_served), observed.stateful_set.is_some()) {
                (true, _) => Phase::Degraded,
                (false, true) => Phase::Provisioning,
                (false, false) => Phase::Pending,
            };
            let mut decision = toward(observed, target, reason, message.clone())
                .with_condition(ConditionType::Ready, false, reason, message.clone())
                .with_condition(ConditionType::Degraded, target == Phase::Degraded, reason, message);
            decision.blocked_by.push(blocked);
            decision
        }
        Objects::Apply(steps) if observed.stateful_set.is_none() => {
            let message = format!("applying {}", describe(&steps));
            // Once brokers have served, a missing StatefulSet means that none is left and all start anew.
            toward(observed, Phase::Provisioning, Reason::Applying, message.clone())
                .with_steps(steps)
                .with_condition(ConditionType::Ready, false, Reason::Applying, message.clone())
                .with_condition(ConditionType::Progressing, true, Reason::Applying, message)
        }
        // A restart waits until the objects are as wanted: the template decides what the pod restarts onto.
        Objects::Apply(steps) => brokers.decision(observed, false).with_steps(steps),
        Objects::Current => brokers.decision(observed, true),
    }
}

fn toward(observed: &Observation, target: Phase, reason: Reason, message: impl Into<String>) -> Decision<Step> {
    Decision::toward(Kind::Cluster, observed.recorded, reachable(observed, target), reason, message)
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
    let (target, reason) = if observed.stateful_set.is_some() {
        let mut decision = summary(observed, now).decision(observed, false);
        decision.steps.clear();
        return decision.with_condition(ConditionType::Progressing, false, Reason::Paused, message);
    } else if observed.recorded.is_some_and(Phase::has_served) {
        (Phase::Degraded, Reason::Paused)
    } else {
        (Phase::Pending, Reason::Paused)
    };
    toward(observed, target, reason, message)
        .with_condition(ConditionType::Ready, false, reason, message)
        .with_condition(ConditionType::Progressing, false, reason, message)
}

enum Objects {
    Current,
    Apply(Vec<Step>),
    Held(Reason, Blocked),
}

/// What the objects need. A foreign, stale or unreadable one holds everything: nothing is half created.
fn object_steps(observed: &Observation) -> Objects {
    for (object, presence) in &observed.objects {
        let held =
            |reason, message| Objects::Held(reason, Blocked { reason, on: Some(object.kind().to_owned()), message });
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
        match stale_volumes(observed) {
            Some(blocked) if !observed.adopt_volumes => return Objects::Held(Reason::StaleVolume, blocked),
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
}

fn summary(observed: &Observation, now: DateTime<Utc>) -> Summary {
    let mut summary = Summary {
        well: 0,
        trouble: None,
        coming: Vec::new(),
        silent: false,
        unscheduled: false,
        rollout: rollout::plan(observed),
    };
    for broker in observed.brokers.iter().filter(|b| b.ordinal < observed.replicas) {
        summary.unscheduled |= broker.pod.as_ref().is_some_and(|pod| pod.unschedulable.is_some());
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
    summary
}

impl Summary {
    /// The phase the brokers call for, with the restart that may happen now if `may_restart`.
    fn decision(self, observed: &Observation, may_restart: bool) -> Decision<Step> {
        let served = observed.recorded.is_some_and(Phase::has_served);
        let wanted = observed.replicas;
        let (target, reason, message) = self.target(observed, served);
        let ready = target == Phase::Ready;
        let mut decision = toward(observed, target, reason, message.clone())
            .with_condition(ConditionType::Ready, ready, reason, message.clone())
            .with_condition(
                ConditionType::Progressing,
                matches!(target, Phase::Provisioning | Phase::Scaling | Phase::Upgrading),
                reason,
                message.clone(),
            )
            .with_condition(ConditionType::Degraded, target == Phase::Degraded, reason, message);
        match self.rollout {
            Rollout::Done => {}
            Rollout::Restart(step) => {
                decision = downtime(decision, observed, served && wanted == 1);
                if may_restart {
                    decision = decision.with_steps([step]);
                }
            }
            Rollout::Waiting(blocked) => decision.blocked_by.extend(blocked),
        }
        decision.blocked_by.extend(self.coming);
        if self.silent {
            decision = decision.look_again_in(SILENT_RETRY);
        }
        if self.unscheduled && self.trouble.is_none() {
            decision = decision.look_again_in(SCHEDULING_GRACE);
        }
        decision
    }

    fn target(&self, observed: &Observation, served: bool) -> (Phase, Reason, String) {
        let wanted = observed.replicas;
        let outdated = !matches!(self.rollout, Rollout::Done);
        if let Some((reason, message)) = &self.trouble {
            return (Phase::Degraded, *reason, message.clone());
        }
        if outdated && served {
            let (reason, message) = match &self.rollout {
                Rollout::Waiting(blocked) => {
                    blocked.first().map_or((Reason::RevisionOutdated, String::new()), |blocked| {
                        (blocked.reason, blocked.message.clone())
                    })
                }
                _ => (Reason::RevisionOutdated, "brokers restart one at a time onto the new revision".to_owned()),
            };
            return (Phase::Upgrading, reason, message);
        }
        match self.coming.first() {
            None if self.well == wanted as usize && !outdated => {
                (Phase::Ready, Reason::AsWanted, format!("{wanted} of {wanted} brokers ready"))
            }
            Some(first) if served => {
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
            Some(first) => (
                Phase::Provisioning,
                first.reason,
                format!("{} of {wanted} brokers ready: {}", self.well, first.message),
            ),
            None => (
                if served { Phase::Degraded } else { Phase::Provisioning },
                Reason::BrokersStarting,
                format!("{} of {wanted} brokers ready", self.well),
            ),
        }
    }
}

/// Nobody can keep a single broker's data available while it restarts: say so beforehand.
fn downtime(decision: Decision<Step>, observed: &Observation, only_copy: bool) -> Decision<Step> {
    if !only_copy {
        return decision;
    }
    let down: Vec<&Broker> = observed.brokers.iter().filter(|b| b.pod.is_some()).collect();
    let message = format!(
        "broker {} is the only one; its data is unavailable while it restarts",
        down.first().map_or(0, |b| b.ordinal)
    );
    decision.with_condition(ConditionType::DowntimeExpected, true, Reason::NoOtherCopy, message)
}
