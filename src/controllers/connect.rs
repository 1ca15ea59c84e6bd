//! One reconcile of a connect: observe, decide, execute.

use std::sync::Arc;
use std::time::Instant;

use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use rivven_fsm::connect::{Step, decide, malformed, step_failed};
use rivven_fsm::{Decision, Kind};

use super::context::{Context, ReconcileError};
use crate::api::{RivvenConnect, RivvenConnectStatus};
use crate::execute::{StepError, report};
use crate::observe::ConnectSight;

const KIND: Kind = Kind::Connect;

pub(super) async fn reconcile(
    object: Arc<DeserializeGuard<RivvenConnect>>,
    ctx: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let began = Instant::now();
    ctx.observer.caches().synced().await;
    if let Some(wait) = ctx.lags(object.meta()) {
        return Ok(wait);
    }
    let connect = match &object.0 {
        Ok(connect) => connect,
        Err(invalid) => {
            let before = ctx.observer.recorded_status::<RivvenConnect>(&invalid.metadata).await?;
            let decision = malformed(before.phase, &invalid.error.clone());
            ctx.report_malformed::<RivvenConnect, _>(KIND, &invalid.metadata, &before, &decision).await?;
            return Ok(ctx.next(KIND, &invalid.metadata, &decision, began));
        }
    };
    let sight = ctx.observer.connect(connect).await?;
    let decision = decide(&sight.observation, ctx.now());
    let mut connect = connect.clone();
    let uid = connect.uid().unwrap_or_default();
    let fault = ctx.faults.standing(&uid, &decision);
    match &fault {
        None => record(&ctx, &mut connect, &sight, &decision).await?,
        Some(fault) => {
            let failed = step_failed(&decision, &decision.steps[fault.step], &fault.error);
            record(&ctx, &mut connect, &sight, &failed).await?;
            if !fault.wait.is_zero() {
                return Ok(Action::requeue(fault.wait));
            }
        }
    }
    let connect = &mut connect;
    for (index, step) in decision.steps.iter().enumerate() {
        let outcome = ctx.executor.connect_step(connect, &sight, ctx.observer.brokers(), step).await;
        ctx.tell_step(KIND, connect, step.name(), &outcome).await;
        if let Err(error) = outcome {
            if error.is_fault() {
                ctx.faults.note(&uid, &decision, index, error.to_string());
                let failed = step_failed(&decision, step, &error.to_string());
                record(&ctx, connect, &sight, &failed).await?;
            }
            return Err(error.into());
        }
    }
    if fault.is_some() {
        record(&ctx, connect, &sight, &decision).await?;
    }
    if decision.steps.iter().any(Step::releases) {
        // The object may be gone by now, and what is counted of it now nobody would take away. If it stays, for others
        // hold it, this write brings it here again.
        ctx.forget(KIND, connect.meta());
        return Ok(Action::await_change());
    }
    Ok(ctx.next(KIND, connect.meta(), &decision, began))
}

async fn record(
    ctx: &Context,
    connect: &mut RivvenConnect,
    sight: &ConnectSight,
    decision: &Decision<Step>,
) -> Result<(), StepError> {
    let none = RivvenConnectStatus::default();
    let before = connect.status.as_ref().unwrap_or(&none);
    let after = report::connect(connect, &sight.observation, decision, ctx.now());
    let written = ctx.executor.write_status::<RivvenConnect>(connect.meta(), before, &after).await?;
    if let Some(written) = written {
        ctx.wrote(&written);
        connect.metadata = written;
        connect.status = Some(after);
        ctx.tell(KIND, connect, sight.observation.recorded, decision).await;
    }
    Ok(())
}

#[allow(clippy::needless_pass_by_value, reason = "the signature is kube's")]
pub(super) fn back_off(
    object: Arc<DeserializeGuard<RivvenConnect>>,
    error: &ReconcileError,
    ctx: Arc<Context>,
) -> Action {
    ctx.back_off(KIND, object.meta(), error)
}
