//! What to do next for a connect.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::observation::{NewTopic, Object, Observation, Topics, Wanted, Worker};
use super::state::{State, states};
use crate::cluster::Presence;
use crate::cluster::diagnosis::pod_trouble;
use crate::decision::{Blocked, ConditionStatus, ConditionType, Decision};
use crate::guard::{Guard, refusals};
use crate::phase::{Kind, Phase};
use crate::reason::Reason;
use crate::topic::{Cluster, placement::assign};

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Put the finalizer on the object, before anything runs that deletion must stop.
    AddFinalizer,
    /// Create a topic that a connector needs: a sink that starts before its topic exists reads one partition of it only.
    CreateTopic {
        /// What is made.
        topic: NewTopic,
        /// The replicas of each partition, by ordinal, the leader first. Empty where brokers do not replicate.
        assignments: Vec<Vec<u32>>,
    },
    /// Create the object, or bring it back to what is wanted.
    Apply(Object),
    /// Delete the Deployment of a worker that runs no connector any more.
    DeleteWorker {
        /// Which.
        index: u32,
        /// This very Deployment, and no other of its name.
        uid: String,
    },
    /// Take the finalizer off.
    RemoveFinalizer,
}

impl Step {
    /// With it the object goes, unless others hold it.
    pub fn releases(&self) -> bool {
        matches!(self, Self::RemoveFinalizer)
    }

    /// The metric label.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::AddFinalizer => "AddFinalizer",
            Self::CreateTopic { .. } => "CreateTopic",
            Self::Apply(_) => "Apply",
            Self::DeleteWorker { .. } => "DeleteWorker",
            Self::RemoveFinalizer => "RemoveFinalizer",
        }
    }
}

/// How long a deletion waits for workers that do not go, as on a node that is lost, before the object is let go.
pub const RELEASE_AFTER: Duration = Duration::from_mins(2);
/// How often workers are asked for their connectors: a connector fails without anything in Kubernetes telling.
pub const ASK_AGAIN: Duration = Duration::from_secs(30);
/// How soon something that no watch tells of is looked at again.
const SOON: Duration = Duration::from_secs(2);
/// How soon a prerequisite is looked for again.
const PREREQUISITE_RETRY: Duration = Duration::from_secs(10);

/// The guards on a connect: what stands against it as a whole before anything is done. What stands against one connector
/// is said where it is translated, and refuses that one alone.
pub const GUARDS: &[Guard<Observation>] = &[
    Guard { reason: Reason::InvalidSpec, refuses: |o| list(&o.wish.problems) },
    Guard { reason: Reason::NotSupportedByOperator, refuses: |o| list(&o.wish.unsupported) },
    Guard { reason: Reason::PrerequisiteMissing, refuses: prerequisite_missing },
    Guard { reason: Reason::NameCollision, refuses: name_is_taken },
];

fn list(problems: &[String]) -> Option<String> {
    (!problems.is_empty()).then(|| problems.join("; "))
}

fn prerequisite_missing(o: &Observation) -> Option<String> {
    let missing: Vec<String> = o
        .prerequisites
        .iter()
        .filter_map(|needed| match needed.present {
            Some(true) => None,
            Some(false) => Some(format!("{} does not exist", needed.what)),
            None => Some(format!("whether {} exists could not be found out", needed.what)),
        })
        .collect();
    list(&missing)
}

fn name_is_taken(o: &Observation) -> Option<String> {
    let taken: Vec<String> = o
        .objects
        .iter()
        .filter_map(|(object, presence)| match presence {
            Presence::Foreign { owner } => Some(format!("{} of worker or connect belongs to {owner}", object.kind())),
            _ => None,
        })
        .collect();
    list(&taken).map(|taken| format!("a name that is needed is taken: {taken}"))
}

/// Decides what to record and what to do next.
pub fn decide(o: &Observation, now: DateTime<Utc>) -> Decision<Step> {
    decide_with(GUARDS, o, now)
}

/// As [`decide()`], under `guards`: what a test takes out, the decision must miss.
pub fn decide_with(guards: &[Guard<Observation>], o: &Observation, now: DateTime<Utc>) -> Decision<Step> {
    if let Some(requested_at) = o.deletion {
        return terminating(o, requested_at, now);
    }
    let refused = refusals(guards, o);
    if let Some(first) = refused.first() {
        let words: Vec<&str> = refused.iter().map(|refusal| refusal.message.as_str()).collect();
        let message = words.join("; ");
        let decision = waiting(o, Phase::waiting(o.recorded), first.reason, message.clone());
        let again = refused.iter().any(|refusal| refusal.reason != Reason::InvalidSpec);
        let decision = if again { decision.look_again_in(PREREQUISITE_RETRY) } else { decision };
        return decision.with_condition(ConditionType::SpecAccepted, false, first.reason, message);
    }
    let stuck = Phase::waiting(o.recorded);
    let decision = match &o.cluster {
        Cluster::Missing => {
            waiting(o, stuck, Reason::ClusterNotFound, "the cluster that clusterRef names does not exist")
        }
        Cluster::NotAllowed => waiting(
            o,
            stuck,
            Reason::NamespaceNotAllowed,
            "the cluster does not allow connects of this namespace (spec.allowedNamespaces)",
        ),
        Cluster::Terminating => waiting(o, stuck, Reason::ClusterTerminating, "the cluster is being deleted"),
        Cluster::NotReady { phase } => waiting(o, stuck, Reason::ClusterNotReady, format!("the cluster is {phase}")),
        Cluster::Ready { .. } if o.paused => paused(o, now),
        Cluster::Ready { .. } => on_cluster(o, now),
    };
    with_connectors(o, decision).with_condition(
        ConditionType::SpecAccepted,
        true,
        Reason::Accepted,
        "the spec is in force",
    )
}

/// The decision for an object that cannot be read as its type.
pub fn malformed(recorded: Option<Phase>, message: &str) -> Decision<Step> {
    Decision::malformed(Kind::Connect, recorded, message)
}

/// The decision after a step failed: what to record until it is tried again.
pub fn step_failed(decided: &Decision<Step>, step: &Step, error: &str) -> Decision<Step> {
    let stays = matches!(decided.phase, Phase::Terminating | Phase::Pending);
    let target = if stays { decided.phase } else { Phase::Degraded };
    let reason = if matches!(step, Step::CreateTopic { .. }) { Reason::BrokerRefused } else { Reason::StepFailed };
    decided.failed(Kind::Connect, target, reason, format!("{} failed: {error}", step.name()))
}

/// Paused: nothing is written but the truth about what is seen.
fn paused(o: &Observation, now: DateTime<Utc>) -> Decision<Step> {
    let message = "reconciliation is paused";
    let decision = on_cluster(o, now);
    let decision = if decision.steps.is_empty() {
        decision
    } else {
        waiting(o, Phase::waiting(o.recorded), Reason::Paused, format!("{message}; not applied: {}", decision.message))
    };
    decision.with_condition(ConditionType::Progressing, false, Reason::Paused, message)
}

fn toward(o: &Observation, target: Phase, reason: Reason, message: impl Into<String>) -> Decision<Step> {
    let message = message.into();
    Decision::toward(Kind::Connect, o.recorded, target, reason, message.clone())
        .with_condition(ConditionType::Ready, target == Phase::Ready, reason, message.clone())
        .with_condition(ConditionType::Degraded, target == Phase::Degraded, reason, message)
}

fn waiting(o: &Observation, target: Phase, reason: Reason, message: impl Into<String>) -> Decision<Step> {
    let message = message.into();
    let mut decision = toward(o, target, reason, message.clone());
    decision.blocked_by.push(Blocked { reason, on: None, message });
    decision
}

/// The connectors that are not run, each with its name and why.
fn refused(o: &Observation) -> Vec<String> {
    let words = |wanted: &Wanted| Some(format!("{}: {}", wanted.id, wanted.refusal.as_ref()?.message));
    o.wish.connectors.iter().filter_map(words).collect()
}

/// Which connectors are run, and whether what was asked for beside them is there.
fn with_connectors(o: &Observation, decision: Decision<Step>) -> Decision<Step> {
    let refused = refused(o);
    let decision = if !matches!(o.topics, Topics::Known { .. }) {
        let words = "not looked at: it takes a cluster that is Ready and tells its topics";
        decision.with_condition(
            ConditionType::ConnectorsAccepted,
            ConditionStatus::Unknown,
            Reason::ClusterNotReady,
            words,
        )
    } else if refused.is_empty() {
        decision.with_condition(
            ConditionType::ConnectorsAccepted,
            true,
            Reason::Accepted,
            "every enabled connector can be run",
        )
    } else {
        decision.with_condition(ConditionType::ConnectorsAccepted, false, Reason::ConnectorRefused, refused.join("; "))
    };
    if o.unmonitored {
        return decision.with_condition(
            ConditionType::Monitored,
            false,
            Reason::NoServiceMonitors,
            "settings.metrics.serviceMonitor is set, and this Kubernetes has no ServiceMonitor: install the Prometheus operator",
        );
    }
    decision
}

fn on_cluster(o: &Observation, now: DateTime<Utc>) -> Decision<Step> {
    let served = o.recorded.is_some_and(Phase::has_served);
    let starts = if served { Phase::Upgrading } else { Phase::Provisioning };
    if !o.finalizer {
        return toward(o, starts, Reason::Applying, "the finalizer is being added")
            .with_steps([Step::AddFinalizer])
            .look_again_in(Duration::ZERO);
    }
    let missing = match &o.topics {
        Topics::Known { missing } => missing.as_slice(),
        Topics::NotAsked => return unknown_topics(o, "the broker has not been asked yet"),
        Topics::Unknown { why } => return unknown_topics(o, &format!("the broker gave no answer: {why}")),
    };
    if let Some(decision) = nothing_can_run(o) {
        return decision;
    }
    let (steps, what) = steps(o, missing);
    let scaling = changes_workers(o);
    let moving = if scaling { Phase::Scaling } else { Phase::Upgrading };
    let moving = if served { moving } else { Phase::Provisioning };
    if !steps.is_empty() {
        let reason = if scaling { Reason::WorkersChanging } else { Reason::Applying };
        // No watch shows a Secret, and the Deployment that takes from it waits for it.
        let unwatched = steps.iter().any(|step| matches!(step, Step::Apply(Object::Secret(_))));
        return toward(o, moving, reason, format!("{} being brought to what is wanted", what.join(", ")))
            .with_condition(ConditionType::Progressing, true, reason, what.join(", "))
            .with_steps(steps)
            .look_again_in(if unwatched { Duration::ZERO } else { SOON });
    }
    let troubles: Vec<(Reason, String)> = o.workers.iter().filter_map(|worker| trouble(worker, now)).collect();
    let waits = waits(o);
    if let Some((reason, message)) = troubles.first() {
        let mut decision = toward(o, Phase::Degraded, *reason, message.clone());
        decision.blocked_by = waits;
        return decision.look_again_in(ASK_AGAIN);
    }
    if let Some(first) = waits.first() {
        // A worker that served and went down without a change of what is wanted is a failure, not a rollout.
        let down = first.reason == Reason::WorkersStarting
            && matches!(o.recorded, Some(Phase::Ready | Phase::Degraded))
            && !scaling;
        let (target, reason) =
            if down { (Phase::Degraded, Reason::WorkerNotReady) } else { (moving_on(o, first, moving), first.reason) };
        let mut decision = toward(o, target, reason, first.message.clone()).with_condition(
            ConditionType::Progressing,
            true,
            reason,
            first.message.clone(),
        );
        decision.blocked_by = waits;
        return decision.look_again_in(SOON);
    }
    settled(o)
}

/// While a scaling is waited for it stays one, although the last worker has just gone.
fn moving_on(o: &Observation, first: &Blocked, moving: Phase) -> Phase {
    match (o.recorded, first.reason) {
        (Some(Phase::Scaling), Reason::WorkersStarting | Reason::ConnectorMoving) => Phase::Scaling,
        _ => moving,
    }
}

fn unknown_topics(o: &Observation, message: &str) -> Decision<Step> {
    let target = if o.recorded.is_some_and(Phase::has_served) { Phase::Degraded } else { Phase::Provisioning };
    waiting(o, target, Reason::BrokerUnreachable, message).look_again_in(SOON)
}

/// Every connector is refused, and none ever ran: nothing is made, and what stands against the first is the reason.
fn nothing_can_run(o: &Observation) -> Option<Decision<Step>> {
    let words = refused(o);
    let all = words.len() == o.wish.connectors.len();
    let idle = o.workers.iter().all(|worker| worker.deployment.is_none() && worker.pods.is_empty());
    let first = o.wish.connectors.first()?.refusal.as_ref().filter(|_| all && idle)?;
    Some(waiting(o, Phase::waiting(o.recorded), first.reason, words.join("; ")).look_again_in(PREREQUISITE_RETRY))
}

/// What is to be written now, in order, and what that is for a person.
fn steps(o: &Observation, missing: &[NewTopic]) -> (Vec<Step>, Vec<String>) {
    let (mut steps, mut what) = (Vec::new(), Vec::new());
    for topic in missing {
        what.push(format!("topic {}", topic.topic));
        steps.push(Step::CreateTopic { topic: topic.clone(), assignments: assignments(o, topic) });
    }
    let differs = |presence: &Presence| matches!(presence, Presence::Missing | Presence::Drifted);
    let to_apply: Vec<Object> =
        o.objects.iter().filter(|(_, presence)| differs(presence)).map(|(object, _)| *object).collect();
    let is_worker = |object: &Object| matches!(object, Object::Worker(_));
    for object in to_apply.iter().filter(|object| !is_worker(object)) {
        what.push(object.kind().to_owned());
        steps.push(Step::Apply(*object));
    }
    for worker in &o.workers {
        let idle = !o.placement.runs.contains_key(&worker.index);
        if let Some(deployment) = worker.deployment.as_ref().filter(|deployment| idle && !deployment.deleting) {
            what.push(format!("worker {}", worker.index));
            steps.push(Step::DeleteWorker { index: worker.index, uid: deployment.uid.clone() });
        }
    }
    for object in to_apply.iter().filter(|object| is_worker(object)) {
        if let Object::Worker(index) = object {
            what.push(format!("worker {index}"));
        }
        steps.push(Step::Apply(*object));
    }
    (steps, what)
}

fn assignments(o: &Observation, topic: &NewTopic) -> Vec<Vec<u32>> {
    match o.cluster {
        Cluster::Ready { replicates: true, brokers, .. } => {
            let start = topic.topic.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
            assign(topic.partitions, topic.replication.min(brokers), brokers, start)
        }
        _ => Vec::new(),
    }
}

/// Workers come or go: there is one that runs nothing, or one that is wanted and not there, or a connector on its way.
fn changes_workers(o: &Observation) -> bool {
    let there = |worker: &Worker| worker.deployment.is_some() || !worker.pods.is_empty();
    let goes = o.workers.iter().any(|worker| there(worker) && !o.placement.runs.contains_key(&worker.index));
    let comes = o.placement.runs.keys().any(|index| o.worker(*index).is_none_or(|worker| !there(worker)));
    goes || comes || !o.placement.waiting.is_empty()
}

/// What is wrong with a worker that time alone does not mend.
fn trouble(worker: &Worker, now: DateTime<Utc>) -> Option<(Reason, String)> {
    let pod = worker.pods.iter().find(|pod| pod.current && !pod.pod.terminating)?;
    let (reason, message) = pod_trouble(&pod.pod, None, now)?;
    let reason = if reason == Reason::BrokerExited { Reason::WorkerExited } else { reason };
    // The released worker ends, and with success, when one of its sources does (observed on 0.0.22).
    let by_itself = pod.pod.last_exit.as_ref().is_some_and(|exit| exit.code == 0);
    let why = if by_itself { "; one of its sources ended, and took it down: its log names it" } else { "" };
    Some((reason, format!("worker {}: {message}{why}", worker.index)))
}

/// What is waited for, the most telling first.
fn waits(o: &Observation) -> Vec<Blocked> {
    let unreadable = o.objects.iter().filter_map(|(object, presence)| match presence {
        Presence::Unknown { why } => Some(Blocked {
            reason: Reason::Unreadable,
            on: None,
            message: format!("{} cannot be read: {why}", object.kind()),
        }),
        Presence::Deleting => Some(Blocked {
            reason: Reason::WaitingForDeletion,
            on: None,
            message: format!("{} is being deleted", object.kind()),
        }),
        _ => None,
    });
    let moving = o.placement.waiting.iter().map(|waiting| Blocked {
        reason: Reason::ConnectorMoving,
        on: Some(waiting.connector.to_string()),
        message: match waiting.on {
            Some(on) => {
                format!("{} stops on worker {on} before it starts on worker {}", waiting.connector, waiting.to)
            }
            None => format!("{} starts on worker {} when the last change was acted on", waiting.connector, waiting.to),
        },
    });
    let workers = o.workers.iter().filter_map(|worker| {
        let wanted = o.placement.runs.contains_key(&worker.index);
        let observed = worker.deployment.as_ref().is_none_or(|deployment| deployment.observed);
        let message = if !wanted {
            format!("worker {} is stopping", worker.index)
        } else if !observed || !worker.is_up() {
            format!("worker {} is starting", worker.index)
        } else {
            return None;
        };
        Some(Blocked { reason: Reason::WorkersStarting, on: Some(worker.index.to_string()), message })
    });
    unreadable.chain(moving).chain(workers).collect()
}

/// Every worker is as wanted: the connectors decide.
fn settled(o: &Observation) -> Decision<Step> {
    let states = states(o);
    let said = |wanted: &dyn Fn(&State) -> Option<&str>| -> Vec<String> {
        states.iter().filter_map(|c| wanted(&c.state).map(|words| format!("{}: {words}", c.id))).collect()
    };
    let failing = said(&|state| if let State::Failing(words) = state { Some(words) } else { None });
    let refused =
        said(&|state| if let State::Refused(refusal) = state { Some(refusal.message.as_str()) } else { None });
    let unknown = said(&|state| if let State::Unknown(words) = state { Some(words) } else { None });
    let decision = if !failing.is_empty() {
        toward(o, Phase::Degraded, Reason::ConnectorFailing, failing.join("; "))
    } else if !refused.is_empty() {
        toward(o, Phase::Degraded, Reason::ConnectorRefused, refused.join("; "))
    } else if !unknown.is_empty() {
        let served = o.recorded.is_some_and(Phase::has_served);
        let target = if served { Phase::Degraded } else { Phase::Provisioning };
        return waiting(o, target, Reason::ConnectorsUnknown, unknown.join("; ")).look_again_in(SOON);
    } else {
        let running = states.iter().filter(|c| c.state == State::Running).count();
        let workers = o.placement.runs.len();
        toward(o, Phase::Ready, Reason::AsWanted, format!("{running} connectors run on {workers} workers"))
    };
    if o.placement.runs.is_empty() || !o.health { decision } else { decision.look_again_in(ASK_AGAIN) }
}

fn terminating(o: &Observation, requested_at: DateTime<Utc>, now: DateTime<Utc>) -> Decision<Step> {
    let decision = |message: &str| {
        Decision::toward(Kind::Connect, o.recorded, Phase::Terminating, Reason::Deleting, message).with_condition(
            ConditionType::Ready,
            false,
            Reason::Deleting,
            message,
        )
    };
    if !o.finalizer {
        return decision("nothing is left for the operator to do");
    }
    let there: Vec<&Worker> =
        o.workers.iter().filter(|worker| worker.deployment.is_some() || !worker.pods.is_empty()).collect();
    let doomed: Vec<Step> = there
        .iter()
        .filter_map(|worker| {
            let deployment = worker.deployment.as_ref().filter(|deployment| !deployment.deleting)?;
            Some(Step::DeleteWorker { index: worker.index, uid: deployment.uid.clone() })
        })
        .collect();
    if !doomed.is_empty() {
        return decision("workers are being stopped").with_steps(doomed).look_again_in(SOON);
    }
    let waited = now.signed_duration_since(requested_at).to_std().unwrap_or_default();
    if there.is_empty() || waited >= RELEASE_AFTER {
        let message = if there.is_empty() { "workers stopped" } else { "workers did not stop in time; let go" };
        return decision(message).with_steps([Step::RemoveFinalizer]);
    }
    let mut decision = decision("workers are still stopping").look_again_in(SOON);
    decision.blocked_by.extend(there.iter().map(|worker| Blocked {
        reason: Reason::WaitingForDeletion,
        on: Some(worker.index.to_string()),
        message: format!("worker {} is not gone yet", worker.index),
    }));
    decision
}
