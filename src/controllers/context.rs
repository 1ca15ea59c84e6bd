//! What every reconcile has at hand.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::runtime::controller::Action;
use rivven_fsm::{Decision, Kind, Phase};
use serde_json::json;
use tracing::{error, info, warn};

use super::backoff::Backoffs;
use super::faults::Faults;
use crate::execute::{Executor, StepError, status};
use crate::names;
use crate::observe::{ObserveError, Observer, RecordedStatus};
use crate::process::metrics::{Category, Metrics, Outcome, StepOutcome};

/// How soon to look again at an object whose own last write the cache does not show yet.
const CACHE_LAG: Duration = Duration::from_millis(50);

/// What every reconcile has at hand.
pub struct Context {
    /// Looks.
    pub observer: Observer,
    /// Writes.
    pub executor: Executor,
    /// Counts.
    pub metrics: Metrics,
    /// How often every object is looked at again although nothing happened.
    pub resync: Duration,
    /// Objects that failed.
    pub(super) backoffs: Backoffs,
    pub(super) faults: Faults,
    written: Mutex<HashMap<String, u64>>,
    clock: Clock,
}

/// Tells the time.
type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// A reconcile that failed: a fault, retried with back-off.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The world could not be looked at.
    #[error("cannot observe: {0}")]
    Observe(#[from] ObserveError),
    /// A write failed.
    #[error("{0}")]
    Step(#[from] StepError),
}

impl ReconcileError {
    pub(super) const fn category(&self) -> Category {
        match self {
            Self::Observe(ObserveError::Kubernetes(_) | ObserveError::NoSuchKind { .. })
            | Self::Step(StepError::Kubernetes(_)) => Category::Kubernetes,
            Self::Step(StepError::Moved(_) | StepError::Held(_) | StepError::NotLeading) => Category::Conflict,
            Self::Step(StepError::Broker(_)) => Category::Broker,
            Self::Observe(ObserveError::Internal(_)) | Self::Step(StepError::Internal(_)) => Category::Internal,
        }
    }
}

impl Context {
    /// A context.
    pub fn new(observer: Observer, executor: Executor, metrics: Metrics, resync: Duration) -> Self {
        let clock = Arc::new(Utc::now);
        let (backoffs, faults) = (Backoffs::default(), Faults::default());
        Self { observer, executor, metrics, resync, backoffs, faults, written: Mutex::default(), clock }
    }

    /// The same with another clock: where time is a model, decisions take the model's.
    #[must_use]
    pub fn with_clock(self, clock: impl Fn() -> DateTime<Utc> + Send + Sync + 'static) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    /// Now, as decisions take it.
    pub(super) fn now(&self) -> DateTime<Utc> {
        (self.clock)()
    }

    /// Whether the cache is behind this process's own last write to the object. Closes the race between a write and the
    /// watch that brings it back: deciding from the status before would write, and tell, the same transition twice.
    pub(super) fn lags(&self, meta: &ObjectMeta) -> Option<Action> {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let behind = version(meta.resource_version.as_deref()) < written.get(meta.uid.as_deref()?).copied();
        behind.then(|| Action::requeue(CACHE_LAG))
    }

    /// Notes this process's own write to an object.
    pub(super) fn wrote(&self, written: &ObjectMeta) {
        if let (Some(uid), Some(version)) = (&written.uid, version(written.resource_version.as_deref())) {
            self.written.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.clone(), version);
        }
    }

    /// Forgets an object that is gone.
    pub(super) fn forget(&self, kind: Kind, meta: &ObjectMeta) {
        self.metrics.forget(
            kind,
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        );
        if let (Kind::Cluster, Some(namespace), Some(name)) = (kind, &meta.namespace, &meta.name) {
            self.observer.brokers().forget(namespace, |pod| names::ordinal(name, pod).is_some());
        }
        if let (Kind::Connect, Some(namespace), Some(name)) = (kind, &meta.namespace, &meta.name) {
            let is_one = |worker: &str| (0..=99).any(|index| names::worker(name, index) == worker);
            self.observer.brokers().forget_workers(namespace, is_one);
        }
        if let Some(uid) = &meta.uid {
            self.written.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
            self.backoffs.reset(uid);
            self.faults.forget(uid);
        }
    }

    /// Logs, counts and tells what was decided, if it is a change of phase.
    pub(super) async fn tell<K, S>(&self, kind: Kind, object: &K, recorded: Option<Phase>, decision: &Decision<S>)
    where
        K: Resource<DynamicType = ()>,
    {
        if self.count_transition(kind, object, recorded, decision) {
            self.executor.tell_transition(object, recorded, decision).await;
        }
    }

    /// Logs and counts what was decided, if it is a change of phase, and says whether it is.
    pub(super) fn count_transition<K, S>(
        &self,
        kind: Kind,
        object: &K,
        recorded: Option<Phase>,
        decision: &Decision<S>,
    ) -> bool
    where
        K: Resource<DynamicType = ()>,
    {
        if let Some(refused) = &decision.refused {
            error!(%refused, "a change of phase outside the table was refused");
            self.metrics.illegal_transition(refused);
        }
        let changes = recorded != Some(decision.phase);
        if changes {
            info!(%kind, name = ?object.meta().name, from = recorded.map_or("none", Phase::as_str), to = %decision.phase, reason = %decision.reason, message = decision.message);
            self.metrics.transition(kind, recorded, decision.phase);
        }
        changes
    }

    /// Reports an object that cannot be read as its type on the object itself, and touches nothing else.
    pub(super) async fn report_malformed<K, S>(
        &self,
        kind: Kind,
        meta: &ObjectMeta,
        before: &RecordedStatus,
        decision: &Decision<S>,
    ) -> Result<(), StepError>
    where
        K: Resource<DynamicType = ()>,
    {
        let mut after = before.raw.clone();
        after["phase"] = json!(decision.phase.as_str());
        after["reason"] = json!(decision.reason.as_str());
        after["message"] = json!(decision.message);
        after["conditions"] = json!(status::conditions(
            decision,
            &before.conditions,
            meta.generation,
            &status::kubernetes_time(self.now())
        ));
        let written = self.executor.write_status::<K>(meta, &before.raw, &after).await?;
        if let Some(written) = written {
            self.wrote(&written);
            warn!(%kind, name = ?meta.name, message = decision.message, "malformed object");
        }
        Ok(())
    }

    /// Logs, counts and tells one step.
    pub(super) async fn tell_step<K>(
        &self,
        kind: Kind,
        object: &K,
        step: &'static str,
        outcome: &Result<String, StepError>,
    ) where
        K: Resource<DynamicType = ()>,
    {
        self.count_step(kind, object, step, outcome);
        match outcome {
            Ok(note) => self.executor.tell_step(object, step, Ok(note.clone())).await,
            Err(error) if error.is_fault() => self.executor.tell_step(object, step, Err(error.to_string())).await,
            Err(_) => {}
        }
    }

    /// Logs and counts one step.
    pub(super) fn count_step<K>(&self, kind: Kind, object: &K, step: &'static str, outcome: &Result<String, StepError>)
    where
        K: Resource<DynamicType = ()>,
    {
        let name = &object.meta().name;
        let counted = match outcome {
            Ok(note) => {
                info!(%kind, ?name, step, note);
                StepOutcome::Done
            }
            Err(error) if error.is_fault() => {
                warn!(%kind, ?name, step, %error);
                StepOutcome::Failed
            }
            Err(error) => {
                info!(%kind, ?name, step, %error, "will look anew");
                StepOutcome::Moved
            }
        };
        self.metrics.step(kind, step, counted);
    }

    /// When to look again after a decision was carried out.
    pub(super) fn next<S>(&self, kind: Kind, meta: &ObjectMeta, decision: &Decision<S>, began: Instant) -> Action {
        let (namespace, name) =
            (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
        self.metrics.object(kind, namespace, name, decision.phase, decision.blocked_by.iter().map(|b| b.reason));
        let outcome = match (decision.steps.is_empty(), decision.blocked_by.is_empty()) {
            (false, _) => Outcome::Progressing,
            (true, false) => Outcome::Waiting,
            (true, true) => Outcome::Converged,
        };
        self.metrics.reconciled(kind, outcome, began.elapsed());
        if let Some(uid) = &meta.uid {
            self.backoffs.reset(uid);
            self.faults.forget(uid);
        }
        Action::requeue(decision.requeue.unwrap_or_else(|| spread(self.resync, meta)).max(CACHE_LAG))
    }

    /// How long to wait after a failure. What is no fault is looked at anew when a watch brings what moved; where none
    /// does, or an API server is too busy, asking at one pace for ever would not help.
    pub(super) fn back_off(&self, kind: Kind, meta: &ObjectMeta, error: &ReconcileError) -> Action {
        self.metrics.failed(kind, error.category());
        let uid = meta.uid.as_deref().unwrap_or_default();
        let wait = self.backoffs.next(uid);
        self.faults.wait(uid, wait);
        if !matches!(error, ReconcileError::Step(step) if !step.is_fault()) {
            warn!(%kind, name = ?meta.name, %error, wait_ms = wait.as_millis(), "reconcile failed");
        }
        Action::requeue(wait)
    }
}

/// The resync of each object at a time of its own, within a tenth, so that a thousand objects do not come at once.
fn spread(resync: Duration, meta: &ObjectMeta) -> Duration {
    let part = meta
        .uid
        .as_deref()
        .unwrap_or_default()
        .bytes()
        .fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()))
        % 100;
    resync.mul_f64(1.0 - f64::from(part) / 1000.0)
}

/// A `resourceVersion` as the number it is.
fn version(text: Option<&str>) -> Option<u64> {
    text?.parse().ok()
}
