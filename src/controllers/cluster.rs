//! One reconcile of a cluster: observe, decide, execute.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use rivven_fsm::cluster::{Step, decide, malformed, step_failed};
use rivven_fsm::{Decision, Kind};

use super::context::{Context, ReconcileError};
use crate::api::{RivvenCluster, RivvenClusterStatus};
use crate::execute::{StepError, report};
use crate::observe::ClusterSight;
use crate::process::metrics::StepOutcome;

const KIND: Kind = Kind::Cluster;

pub(super) async fn reconcile(
    object: Arc<DeserializeGuard<RivvenCluster>>,
    ctx: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let began = Instant::now();
    ctx.observer.caches().synced().await;
    if let Some(wait) = ctx.lags(object.meta()) {
        return Ok(wait);
    }
    let cluster = match &object.0 {
        Ok(cluster) => cluster,
        Err(invalid) => {
            let before = ctx.observer.recorded_status::<RivvenCluster>(&invalid.metadata).await?;
            let decision = malformed(before.phase, &invalid.error.clone());
            ctx.report_malformed::<RivvenCluster, _>(KIND, &invalid.metadata, &before, &decision).await?;
            return Ok(ctx.next(KIND, &invalid.metadata, &decision, began));
        }
    };
    let now = ctx.now();
    let sight = ctx.observer.cluster(cluster, now).await?;
    let decision = decide(&sight.observation, now);
    let mut cluster = cluster.clone();
    let uid = cluster.uid().unwrap_or_default();
    let fault = ctx.faults.standing(&uid, &decision);
    match &fault {
        None => record(&ctx, &mut cluster, &sight, &decision).await?,
        Some(fault) => {
            let failed = step_failed(&decision, &decision.steps[fault.step], &fault.error);
            record(&ctx, &mut cluster, &sight, &failed).await?;
            if !fault.wait.is_zero() {
                return Ok(Action::requeue(fault.wait));
            }
        }
    }
    let cluster = &mut cluster;
    let mut refused = false;
    for (index, step) in decision.steps.iter().enumerate() {
        let outcome = ctx.executor.cluster_step(cluster, &sight, ctx.observer.brokers(), step).await;
        if let Step::ExpandVolume { uid, bytes, .. } = step {
            match &outcome {
                Ok(_) => ctx.observer.refusals().forget(uid),
                // Said as what holds the volumes back, and no reason not to go on with the rest.
                Err(error) if error.is_refusal() => {
                    ctx.observer.refusals().note(uid, *bytes, error.to_string());
                    ctx.metrics.step(KIND, step.name(), StepOutcome::Failed);
                    refused = true;
                    continue;
                }
                Err(_) => {}
            }
        }
        if let Step::RestartPod { uid, .. } = step {
            match &outcome {
                Ok(_) => ctx.observer.refusals().forget(uid),
                Err(StepError::Held(words)) => ctx.observer.refusals().note_held(uid, words.clone()),
                Err(_) => {}
            }
        }
        ctx.tell_step(KIND, cluster, step.name(), &outcome).await;
        if let Err(error) = outcome {
            if error.is_fault() {
                ctx.faults.note(&uid, &decision, index, error.to_string());
                let failed = step_failed(&decision, step, &error.to_string());
                record(&ctx, cluster, &sight, &failed).await?;
            }
            return Err(error.into());
        }
    }
    if refused {
        return Ok(Action::requeue(Duration::from_millis(100)));
    }
    if fault.is_some() {
        record(&ctx, cluster, &sight, &decision).await?;
    }
    if decision.steps.iter().any(Step::releases) {
        // The object may be gone by now, and what is counted of it now nobody would take away. If it stays, for others
        // hold it, this write brings it here again.
        ctx.forget(KIND, cluster.meta());
        return Ok(Action::await_change());
    }
    Ok(ctx.next(KIND, cluster.meta(), &decision, began))
}

/// Tells and records a decision. Before its steps, so that a person sees what is about to happen.
async fn record(
    ctx: &Context,
    cluster: &mut RivvenCluster,
    sight: &ClusterSight,
    decision: &Decision<Step>,
) -> Result<(), StepError> {
    let none = RivvenClusterStatus::default();
    let before = cluster.status.as_ref().unwrap_or(&none);
    let after = report::cluster(cluster, &sight.observation, decision, ctx.now());
    let written = ctx.executor.write_status::<RivvenCluster>(cluster.meta(), before, &after).await?;
    if let Some(written) = written {
        ctx.wrote(&written);
        cluster.metadata = written;
        cluster.status = Some(after);
        ctx.tell(KIND, cluster, sight.observation.recorded, decision).await;
    }
    Ok(())
}

#[allow(clippy::needless_pass_by_value, reason = "the signature is kube's")]
pub(super) fn back_off(
    object: Arc<DeserializeGuard<RivvenCluster>>,
    error: &ReconcileError,
    ctx: Arc<Context>,
) -> Action {
    ctx.back_off(KIND, object.meta(), error)
}
