//! What a decision is made of.

use std::time::Duration;

use crate::phase::{IllegalTransition, Kind, Phase};
use crate::reason::Reason;

/// The types of condition the operator writes. A closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The object does what its spec says, by observation.
    Ready,
    /// The spec is one that can be carried out; `False` names the first guard that refused it.
    SpecAccepted,
    /// The operator has steps to run or waits for one to take effect.
    Progressing,
    /// Something is not as it should be.
    Degraded,
    /// A change will take, or takes, the object out of service, because nobody can keep it up.
    DowntimeExpected,
    /// Access rules are in force at the broker.
    AclsApplied,
    /// The brokers' certificate can be used, and will be for a while.
    CertificateValid,
    /// Every enabled connector is one that the workers can run.
    ConnectorsAccepted,
    /// What Prometheus needs to find the pods is there.
    Monitored,
}

impl ConditionType {
    /// The name as it stands in `status.conditions[].type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::SpecAccepted => "SpecAccepted",
            Self::Progressing => "Progressing",
            Self::Degraded => "Degraded",
            Self::DowntimeExpected => "DowntimeExpected",
            Self::AclsApplied => "AclsApplied",
            Self::CertificateValid => "CertificateValid",
            Self::ConnectorsAccepted => "ConnectorsAccepted",
            Self::Monitored => "Monitored",
        }
    }
}

/// `True`, `False` or `Unknown`, as in Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionStatus {
    /// Holds.
    True,
    /// Does not hold.
    False,
    /// Could not be found out. Never counted as `True`.
    Unknown,
}

impl ConditionStatus {
    /// The name as it stands in `status.conditions[].status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// One condition. Times are not part of it: the writer keeps the transition time while the status stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Which.
    pub kind: ConditionType,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, as a code.
    pub reason: Reason,
    /// Why, for a person.
    pub message: String,
}

/// "Not yet" as a value: what a step waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// The guard that holds the step back.
    pub reason: Reason,
    /// The broker, claim or object concerned.
    pub on: Option<String>,
    /// What is waited for, for a person.
    pub message: String,
}

/// A step that will come, as things are now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its name.
    pub step: &'static str,
    /// The broker, claim or object concerned.
    pub on: String,
}

/// The outcome of one `decide`: what to record and what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<Step> {
    /// The phase to record: the recorded one, or one edge further.
    pub phase: Phase,
    /// Why, as a code.
    pub reason: Reason,
    /// Why, for a person.
    pub message: String,
    /// What to do, in order. A failure of one ends the run; the next observation decides anew.
    pub steps: Vec<Step>,
    /// What holds and what does not.
    pub conditions: Vec<Condition>,
    /// What the operator waits for.
    pub blocked_by: Vec<Blocked>,
    /// The steps that will come, in order.
    pub plan: Vec<Planned>,
    /// When to look again although no watch reports anything. `None`: a watch will tell.
    pub requeue: Option<Duration>,
    /// Set when the world called for a phase that the table does not allow from the recorded one.
    pub refused: Option<IllegalTransition>,
}

impl<Step> Decision<Step> {
    /// A decision for the phase `target`, or for the next phase on the way to it.
    ///
    /// A phase on the way is reported with the target's reason, and the object is looked at again at once.
    pub fn toward(
        kind: Kind,
        recorded: Option<Phase>,
        target: Phase,
        reason: Reason,
        message: impl Into<String>,
    ) -> Self {
        let (phase, refused) = match kind.table().next_hop(recorded, target) {
            Ok(phase) => (phase, None),
            // A pair outside the table: keep what is recorded. An object without a phase always has an edge to Pending.
            Err(refused) => (recorded.unwrap_or(Phase::Pending), Some(refused)),
        };
        let on_the_way = phase != target && refused.is_none();
        Self {
            phase,
            reason,
            message: message.into(),
            steps: Vec::new(),
            conditions: Vec::new(),
            blocked_by: Vec::new(),
            plan: Vec::new(),
            requeue: on_the_way.then_some(Duration::ZERO),
            refused,
        }
    }

    /// Adds the steps to run.
    #[must_use]
    pub fn with_steps(mut self, steps: impl IntoIterator<Item = Step>) -> Self {
        self.steps.extend(steps);
        self
    }

    /// The decision for an object that cannot be read as its type: say so on the object, touch nothing.
    pub fn malformed(kind: Kind, recorded: Option<Phase>, message: &str) -> Self {
        let reason = Reason::Malformed;
        Self::toward(kind, recorded, Phase::waiting(recorded), reason, message)
            .with_condition(ConditionType::Ready, false, reason, message)
            .with_condition(ConditionType::SpecAccepted, false, reason, message)
    }

    /// This decision after one of its steps failed: what to record until it is tried again.
    ///
    /// What was found out before the step ran stays true; only what the failure says is replaced.
    #[must_use]
    pub fn failed(&self, kind: Kind, target: Phase, reason: Reason, message: impl Into<String>) -> Self {
        let message = message.into();
        let mut failed = Self::toward(kind, Some(self.phase), target, reason, message.clone());
        failed.conditions.clone_from(&self.conditions);
        failed.blocked_by.clone_from(&self.blocked_by);
        failed.plan.clone_from(&self.plan);
        failed.with_condition(ConditionType::Ready, false, reason, message.clone()).with_condition(
            ConditionType::Degraded,
            true,
            reason,
            message,
        )
    }

    /// The condition of a type, if the decision says anything about it.
    pub fn condition(&self, kind: ConditionType) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }

    /// Sets a condition. There is one of each type, as in `status.conditions`: the newest word counts.
    #[must_use]
    pub fn with_condition(
        mut self,
        kind: ConditionType,
        status: impl Into<ConditionStatus>,
        reason: Reason,
        message: impl Into<String>,
    ) -> Self {
        let condition = Condition { kind, status: status.into(), reason, message: message.into() };
        match self.conditions.iter_mut().find(|other| other.kind == kind) {
            Some(other) => *other = condition,
            None => self.conditions.push(condition),
        }
        self
    }

    /// Looks again after `after` at the latest.
    #[must_use]
    pub fn look_again_in(mut self, after: Duration) -> Self {
        self.requeue = Some(self.requeue.map_or(after, |sooner| sooner.min(after)));
        self
    }
}
