//! What to do next for a cluster.
//!
//! Order of precedence: deletion, then the verdict on the spec, then objects, then brokers. The phase is a summary of
//! what was found on that way; it decides nothing.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::admission::Admission;
use super::diagnosis::{Health, SCHEDULING_GRACE, diagnose};
use super::formation;
use super::observation::{Broker, Move, Object, Observation, Presence};
use super::partitions::Leadership;
use super::plan::Plan;
use super::rollout;
use super::scale;
use super::storage;
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
    /// Delete an object that is wanted no more.
    DeleteObject {
        /// Which.
        object: Object,
        /// Its uid.
        uid: String,
    },
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
    /// Give partitions other leaders.
    ElectLeaders {
        /// Which, and who.
        leaders: Vec<Leadership>,
    },
    /// Note on the StatefulSet that the rollout of its template was halted, and why: the last proven spec is in force then.
    HaltRollout {
        /// The broker that did not come back.
        broker: u32,
        /// The revision it did not come back on.
        revision: String,
        /// What is wrong with it.
        reason: Reason,
        /// The same for a person.
        message: String,
    },
    /// Ask for a size of a claim: more, or less than was asked for before and not provisioned.
    ExpandVolume {
        /// Name of the claim.
        claim: String,
        /// Its uid.
        uid: String,
        /// The size in bytes.
        bytes: u64,
    },
    /// Delete the StatefulSet and leave its pods: it is made anew around them.
    OrphanStatefulSet {
        /// Its uid.
        uid: String,
    },
    /// Set how many brokers the StatefulSet has. It takes a broker away if that is fewer than it had.
    Scale {
        /// The StatefulSet's uid.
        uid: String,
        /// How many.
        replicas: u32,
    },
    /// Tell the controller's leader of a broker that is to learn what the others know.
    AddLearner {
        /// Which broker.
        ordinal: u32,
    },
    /// Tell the controller's leader who has a vote: a member that is left out is one no more.
    ChangeVoters {
        /// All of them, by ordinal.
        voters: Vec<u32>,
    },
    /// Have the controller's leader hand over to another broker.
    TransferController {
        /// To which.
        to: u32,
    },
    /// Note on the cluster which replicas are on the move, before they are. None: take the note off.
    NoteMoves {
        /// All of them.
        moves: Vec<Move>,
    },
    /// Set the replicas of a partition.
    Reassign {
        /// Its topic.
        topic: String,
        /// Its number in the topic.
        partition: u32,
        /// All of them, by ordinal.
        replicas: Vec<u32>,
    },
    /// Note on a claim since when its broker has been empty. `None`: take the note off.
    NoteEmpty {
        /// Name of the claim.
        claim: String,
        /// Its uid.
        uid: String,
        /// Since when.
        since: Option<DateTime<Utc>>,
    },
    /// Evict the pod; the StatefulSet makes it anew at the wanted revision.
    RestartPod {
        /// Which broker.
        ordinal: u32,
        /// The pod's uid.
        uid: String,
    },
    /// Stop a broker that no StatefulSet keeps any more.
    DeletePod {
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
    /// With it the object goes, unless others hold it.
    pub fn releases(&self) -> bool {
        matches!(self, Self::RemoveFinalizer)
    }

    /// The metric label.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::AddFinalizer => "AddFinalizer",
            Self::Apply(_) => "Apply",
            Self::DeleteObject { .. } => "DeleteObject",
            Self::AdoptVolume { .. } => "AdoptVolume",
            Self::Bootstrap { .. } => "Bootstrap",
            Self::MarkFormed => "MarkFormed",
            Self::ElectLeaders { .. } => "ElectLeaders",
            Self::TransferController { .. } => "TransferController",
            Self::HaltRollout { .. } => "HaltRollout",
            Self::ExpandVolume { .. } => "ExpandVolume",
            Self::OrphanStatefulSet { .. } => "OrphanStatefulSet",
            Self::Scale { .. } => "Scale",
            Self::AddLearner { .. } => "AddLearner",
            Self::ChangeVoters { .. } => "ChangeVoters",
            Self::NoteMoves { .. } => "NoteMoves",
            Self::Reassign { .. } => "Reassign",
            Self::NoteEmpty { .. } => "NoteEmpty",
            Self::RestartPod { .. } => "RestartPod",
            Self::DeletePod { .. } => "DeletePod",
            Self::DeleteStatefulSet { .. } => "DeleteStatefulSet",
            Self::DeleteVolume { .. } => "DeleteVolume",
            Self::RemoveFinalizer => "RemoveFinalizer",
        }
    }

    /// Whether it is asked of a broker: no watch tells what came of it.
    pub const fn asks_a_broker(&self) -> bool {
        matches!(self, Self::Bootstrap { .. } | Self::ElectLeaders { .. } | Self::TransferController { .. })
    }

    /// Whether it takes a broker out of service, whatever there is. [`Step::Scale`] does so if it lowers, and always if to
    /// none. Volumes are deleted when no broker is left to be taken out.
    pub const fn is_disruptive(&self) -> bool {
        matches!(self, Self::RestartPod { .. } | Self::DeleteStatefulSet { .. } | Self::Scale { replicas: 0, .. })
    }
}

/// How soon a prerequisite that no watch reports, such as a Secret, is looked for again.
pub const PREREQUISITE_RETRY: Duration = Duration::from_secs(10);
/// How soon it is looked whether a certificate was renewed.
const RENEWED_RETRY: Duration = Duration::from_mins(1);
/// How soon it is looked whether a certificate was issued: no watch tells of it.
const ISSUED_RETRY: Duration = Duration::from_secs(2);
/// How soon it is looked whether what was refused may be asked for again.
const REFUSAL_RETRY: Duration = Duration::from_mins(1);
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
    let refusals = observed.admission.refusals();
    let mut decision = with_certificate_condition(with_spec_condition(decision, refusals), observed);
    // Where there is no other news, the refusal is: it must be seen by `kubectl get` alone.
    if let (Some(refusal), Phase::Ready) = (refusals.first(), decision.phase) {
        decision.reason = refusal.reason;
        decision.message = format!("{}; the last accepted spec is in force: {}", refusal.message, decision.message);
    }
    decision
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
    let waits = refusals.iter().any(|refusal| {
        matches!(
            refusal.reason,
            Reason::PrerequisiteMissing | Reason::CertificateInvalid | Reason::CertificateNotTrusted
        )
    });
    let decision = if waits { decision.look_again_in(PREREQUISITE_RETRY) } else { decision };
    if refusals.is_empty() {
        return decision.with_condition(ConditionType::SpecAccepted, true, Reason::Accepted, "the spec is in force");
    }
    let all: Vec<&str> = refusals.iter().map(|refusal| refusal.message.as_str()).collect();
    decision.with_condition(ConditionType::SpecAccepted, false, refusals[0].reason, all.join("; "))
}

fn with_certificate_condition(decision: Decision<Step>, observed: &Observation) -> Decision<Step> {
    let Some(certificate) = &observed.certificate else { return decision };
    let is_of = |reason| matches!(reason, Reason::CertificateInvalid | Reason::CertificateNotTrusted);
    let refused = observed.admission.refusals().iter().find(|refusal| is_of(refusal.reason));
    let (holds, reason, message) = match (refused, &certificate.awaited) {
        (Some(refusal), _) => (false, refusal.reason, refusal.message.as_str()),
        (None, Some(why)) => (false, Reason::CertificateNotIssued, why.as_str()),
        (None, None) if certificate.ends_soon => {
            (false, Reason::CertificateEnding, "the certificate ends within two weeks; put a newer one into its Secret")
        }
        (None, None) => (true, Reason::AsWanted, "the certificate can be used for every broker"),
    };
    // A Secret is not watched: a certificate that was renewed is found by looking.
    decision.look_again_in(RENEWED_RETRY).with_condition(ConditionType::CertificateValid, holds, reason, message)
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
            if is_being_replaced(observed) {
                let message = "the StatefulSet is made anew with the new size of volumes";
                concluded(observed, Phase::Scaling, Reason::ReplacingStatefulSet, message).with_steps(steps)
            } else if observed.stateful_set.is_none() {
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

/// Brokers that served go on without their StatefulSet, or with one that is on its way out and leaves them.
fn is_being_replaced(observed: &Observation) -> bool {
    let stays = |broker: &Broker| broker.pod.as_ref().is_some_and(|pod| !pod.terminating);
    let stopped = observed.recorded.is_some_and(|recorded| recorded == Phase::Scaling && took_down(observed, recorded));
    let served =
        observed.recorded.is_some_and(|phase| matches!(phase, Phase::Ready | Phase::Scaling | Phase::Degraded));
    served
        && observed.stateful_set.as_ref().is_none_or(|set| set.deleting)
        && (stopped || (0..observed.replicas).any(|ordinal| observed.broker(ordinal).is_some_and(stays)))
}

/// An object holds everything: nothing is half created, and what runs goes on running.
fn held(observed: &Observation, blocked: Blocked) -> Decision<Step> {
    let target = match (Phase::waiting(observed.recorded), observed.stateful_set.is_some()) {
        (Phase::Degraded, _) if blocked.reason == Reason::WaitingForDeletion && is_being_replaced(observed) => {
            Phase::Scaling
        }
        (Phase::Pending, true) => Phase::Provisioning,
        (waiting, _) => waiting,
    };
    let mut decision = concluded(observed, target, blocked.reason, blocked.message.clone());
    // No watch tells of objects that are not ours, nor of one that could not be read.
    let again = if blocked.reason == Reason::CertificateNotIssued { ISSUED_RETRY } else { PREREQUISITE_RETRY };
    if blocked.reason != Reason::WaitingForDeletion {
        decision = decision.look_again_in(again);
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
        .with_condition(ConditionType::Degraded, target == Phase::Degraded, reason, way_out(target, reason, message))
}

/// What is wrong, with what to do about it: who is woken by it reads it here first.
fn way_out(target: Phase, reason: Reason, message: String) -> String {
    if target == Phase::Degraded { format!("{message}. {}", reason.remedy()) } else { message }
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
            Presence::Missing | Presence::Current | Presence::Drifted | Presence::Unwanted { .. } => {}
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
    steps.extend(observed.objects.iter().filter_map(|(object, presence)| match presence {
        Presence::Missing | Presence::Drifted => Some(Step::Apply(*object)),
        Presence::Unwanted { uid } => Some(Step::DeleteObject { object: *object, uid: uid.clone() }),
        _ => None,
    }));
    if let Some(why) = observed.certificate.as_ref().and_then(|certificate| certificate.awaited.as_ref()) {
        // A broker that is started without its certificate hangs on a Secret that is not there.
        let needs_it = |step: &Step| matches!(step, Step::Apply(Object::ConfigMap | Object::StatefulSet));
        steps.retain(|step| !needs_it(step));
        if steps.is_empty() {
            let message = format!("the certificate of the brokers is awaited: {why}");
            return Objects::Held(Blocked { reason: Reason::CertificateNotIssued, on: None, message });
        }
    }
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
    let mut parts: Vec<String> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Apply(object) => Some(object.kind().to_owned()),
            Step::DeleteObject { object, .. } => Some(format!("the removal of {}", object.kind())),
            Step::AddFinalizer => Some("the finalizer".to_owned()),
            _ => None,
        })
        .collect();
    // There is a Service for each broker.
    parts.dedup();
    parts.join(", ")
}

/// A load balancer is somebody else's to give. The brokers serve without it, so it is said and holds nothing up.
fn without_address(observed: &Observation) -> impl Iterator<Item = Blocked> + '_ {
    let waits = |broker: &&Broker| broker.external.as_ref().is_some_and(|e| e.balanced && e.addresses.is_empty());
    observed.brokers.iter().filter(waits).map(|broker| Blocked {
        reason: Reason::ExternalAddressPending,
        on: Some(broker.ordinal.to_string()),
        message: format!("the load balancer of broker {} has no address yet", broker.ordinal),
    })
}

/// A part of what a cluster has to become. They are worked on in this order, one at a time; but a volume grows whatever
/// else is going on, for a full disk is often why it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// A broker that serves nobody moves to the wanted revision.
    Heal,
    /// The brokers become one cluster.
    Form,
    /// Volumes grow. Does not wait for the two before.
    Storage,
    /// Brokers are added, and replicas that are on the move arrive.
    ScaleOut,
    /// Brokers move to the wanted revision.
    Upgrade,
    /// Brokers are taken away.
    ScaleIn,
}

impl Part {
    /// It changes how many brokers there are.
    const fn scales(self) -> bool {
        matches!(self, Self::ScaleOut | Self::ScaleIn)
    }
}

/// What the brokers are like, all together, and what is to be done about it.
struct Summary {
    well: usize,
    trouble: Option<(Reason, String)>,
    coming: Vec<Blocked>,
    /// The kubelet takes a broker for ready that is not known to be well.
    unheard: bool,
    unscheduled: bool,
    parts: Vec<(Part, Plan)>,
    partitions: Option<Blocked>,
}

fn summary(observed: &Observation, now: DateTime<Utc>) -> Summary {
    let rollout = if rollout::heals(observed) { Part::Heal } else { Part::Upgrade };
    let mut parts = vec![
        (Part::Form, formation::plan(observed)),
        (Part::Storage, storage::plan(observed)),
        (Part::ScaleOut, scale::plan_out(observed)),
        (rollout, restarts(observed, rollout)),
        (Part::ScaleIn, scale::plan_in(observed, now)),
    ];
    parts.sort_by_key(|(part, _)| *part);
    let mut summary = Summary {
        well: 0,
        trouble: None,
        coming: Vec::new(),
        unheard: false,
        unscheduled: false,
        parts,
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
                summary.unheard |= matches!(reason, Reason::BrokerSilent | Reason::BrokerNotReady);
                summary.coming.push(Blocked { reason, on: Some(broker.ordinal.to_string()), message });
            }
            Health::Trouble(reason, message) => {
                summary.trouble.get_or_insert((reason, message));
            }
        }
    }
    for (_, plan) in &summary.parts {
        if let Plan::Broken(blocked) = plan {
            summary.trouble.get_or_insert((blocked.reason, blocked.message.clone()));
        }
    }
    if let Some(blocked) = summary.plan(Part::Form).why().filter(|_| summary.is_going_on(Part::Form)) {
        // Once they were a cluster, what keeps a broker from answering is said of the broker itself. Before, brokers are
        // not ready until they are a cluster: that they are not is then not the news.
        if !observed.formed {
            summary.coming.insert(0, blocked.clone());
        } else if blocked.reason != Reason::BrokersStarting {
            summary.coming.push(blocked.clone());
        }
    }
    // After the brokers: a broker that is away is why its replicas are behind.
    summary.coming.extend(summary.partitions.clone());
    summary
}

/// The rollout, but no well broker restarts while one that is to leave has a vote and is away.
fn restarts(observed: &Observation, part: Part) -> Plan {
    match (rollout::plan(observed), scale::surplus_voter_down(observed)) {
        (Plan::Next(..), Some(down)) if part == Part::Upgrade => Plan::wait(
            Reason::AnotherBrokerDown,
            format!("broker {down} is to leave and is not known to be well"),
            None,
        ),
        (plan, _) => plan,
    }
}

impl Summary {
    fn plan(&self, part: Part) -> &Plan {
        self.parts.iter().find(|(other, _)| *other == part).map_or(&Plan::Done, |(_, plan)| plan)
    }

    fn is_going_on(&self, part: Part) -> bool {
        matches!(self.plan(part), Plan::Next(..) | Plan::Waiting(..))
    }

    /// The phase the brokers call for, and what may be done now. `left` is what is to be done to the objects: while there
    /// is something, nothing is done to the brokers and nothing is as wanted.
    fn decision(mut self, observed: &Observation, left: Option<(Reason, String)>) -> Decision<Step> {
        let may_act = left.is_none();
        let (target, reason, message) = self.target(observed, left);
        let mut decision = downtime(concluded(observed, target, reason, message), observed);
        let grows = self.is_going_on(Part::Storage);
        let mut busy = false;
        for (part, plan) in std::mem::take(&mut self.parts) {
            // One thing at a time. What has to be there before brokers can become one cluster is not held by that.
            let may_act = may_act && !(busy && part.scales());
            busy |= match &plan {
                Plan::Next(..) => part != Part::Form,
                // These may wait for what scaling mends: brokers that are missing as somebody scaled by hand, or one that
                // is to leave and does not answer. Whether they hold it back is for its own guards.
                Plan::Waiting(..) => !matches!(part, Part::Form | Part::Heal | Part::Upgrade),
                Plan::Done | Plan::Broken(_) => false,
            };
            match plan {
                Plan::Done => continue,
                // It is said as trouble.
                Plan::Broken(_) if part == Part::Form => {}
                // No watch tells that a broker holds it no more.
                Plan::Broken(_) if part.scales() => decision = decision.look_again_in(PREREQUISITE_RETRY),
                Plan::Broken(blocked) => {
                    decision.blocked_by.push(blocked);
                    decision = decision.look_again_in(REFUSAL_RETRY);
                }
                // What comes after the volumes waits for them.
                _ if grows && part > Part::Storage => continue,
                Plan::Next(mut steps, _) if may_act && part == Part::Storage => {
                    // First: what another step is refused for must not hold it up. One broker out of service at a time.
                    if !steps.iter().any(Step::is_disruptive) {
                        steps.append(&mut decision.steps);
                    }
                    decision.steps = steps;
                }
                Plan::Next(steps, _) => {
                    // No watch tells of what changes at the brokers.
                    if part.scales() {
                        decision = decision.look_again_in(SILENT_RETRY);
                    }
                    // A broker that restarts now is told of the others when it is back.
                    if may_act && decision.steps.is_empty() {
                        if steps.iter().any(Step::asks_a_broker) {
                            decision = decision.look_again_in(Duration::ZERO);
                        }
                        decision = decision.with_steps(steps);
                    }
                }
                // What formation waits for is said with the brokers.
                Plan::Waiting(..) if part == Part::Form => {}
                Plan::Waiting(blocked, again) => {
                    decision.blocked_by.extend(blocked);
                    decision = again.into_iter().fold(decision, Decision::look_again_in);
                }
            }
            if part == Part::Form {
                decision = decision.look_again_in(SILENT_RETRY);
            }
        }
        if may_act && decision.steps.is_empty() {
            decision = decision.with_steps(storage::retries(observed));
        }
        decision.plan = storage::ahead(observed);
        decision.plan.extend(rollout::ahead(observed));
        decision.blocked_by.extend(self.coming);
        decision.blocked_by.extend(without_address(observed));
        // No watch tells of an answer that is missing or has changed, nor of a replica that has caught up.
        if self.unheard || self.partitions.is_some() {
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
        // Also out of trouble: a full disk is often what it is.
        let grows = self.plan(Part::Storage).why().filter(|_| self.is_going_on(Part::Storage));
        if let Some(blocked) = grows.filter(|_| served) {
            return (Phase::Scaling, blocked.reason, blocked.message.clone());
        }
        if let Some((reason, message)) = &self.trouble {
            return (Phase::Degraded, *reason, message.clone());
        }
        if let Some(blocked) = grows {
            return (Phase::Provisioning, blocked.reason, blocked.message.clone());
        }
        // What holds scaling back is said of the brokers, or is another part's.
        let scaling = [Part::ScaleOut, Part::ScaleIn].into_iter().find_map(|part| self.plan(part).why());
        let is_scaling = |blocked: &&Blocked| {
            matches!(blocked.reason, Reason::ScalingOut | Reason::ScalingIn | Reason::ReplicasMoving)
        };
        if let Some(blocked) = scaling.filter(is_scaling) {
            let phase = if served { Phase::Scaling } else { Phase::Provisioning };
            return (phase, blocked.reason, blocked.message.clone());
        }
        let rollout = [Part::Heal, Part::Upgrade].into_iter().find_map(|part| self.plan(part).why());
        let outdated = rollout.map(|blocked| (blocked.reason, blocked.message.clone()));
        match (outdated, self.coming.first()) {
            (Some((reason @ Reason::RolloutHalted, message)), _) if served => (Phase::Degraded, reason, message),
            // In the middle of a rollout the broker that is away is the one that was restarted, and not "another" one.
            (Some((Reason::AnotherBrokerDown, _)), Some(first)) if observed.recorded == Some(Phase::Upgrading) => (
                Phase::Upgrading,
                Reason::BrokerRestarting,
                format!("{} of {wanted} brokers ready: {}", self.well, first.message),
            ),
            (Some((reason, message)), _) if served => (changing, reason, message),
            (_, Some(first)) if served => {
                // A restart that the operator began is an upgrade until the broker is back, not a fault.
                let phase = observed.recorded.filter(|recorded| took_down(observed, *recorded));
                let phase = phase.unwrap_or(Phase::Degraded);
                let reason = match (phase, first.reason) {
                    (Phase::Upgrading | Phase::Scaling, _) => Reason::BrokerRestarting,
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
            (None, None) => match (left, scaling) {
                (Some((reason, message)), _) => (changing, reason, message),
                (None, Some(held)) => {
                    let phase = if served { Phase::Scaling } else { Phase::Provisioning };
                    (phase, held.reason, held.message.clone())
                }
                (None, None) => (Phase::Ready, Reason::AsWanted, format!("{wanted} of {wanted} brokers ready")),
            },
        }
    }
}

/// Whether the operator itself takes brokers down in this phase.
const fn took_down(observed: &Observation, phase: Phase) -> bool {
    match phase {
        Phase::Upgrading => true,
        Phase::Scaling => !observed.capabilities.online_growth_when_full,
        _ => false,
    }
}

/// Nobody can keep data available that has no other copy while its broker restarts: say so beforehand, and while it
/// happens.
fn downtime(decision: Decision<Step>, observed: &Observation) -> Decision<Step> {
    if storage::takes_down(observed) {
        let message = "this broker version is stopped while its volume grows; its data is unavailable meanwhile";
        return decision.with_condition(ConditionType::DowntimeExpected, true, Reason::NoOtherCopy, message);
    }
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
