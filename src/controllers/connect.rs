//! One reconcile of a connect: observe, decide, record.

use std::sync::Arc;
use std::time::Instant;

use kube::Resource;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use rivven_fsm::Kind;
use rivven_fsm::connect::{decide, malformed};

use super::context::{Context, ReconcileError};
use crate::api::{RivvenConnect, RivvenConnectStatus};
use crate::execute::report;

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
    let seen = ctx.observer.connect(connect);
    let decision = decide(&seen, ctx.now());
    let none = RivvenConnectStatus::default();
    let before = connect.status.as_ref().unwrap_or(&none);
    let after = report::connect(connect, &decision, ctx.now());
    let written = ctx.executor.write_status::<RivvenConnect>(connect.meta(), before, &after).await?;
    if let Some(written) = written {
        ctx.wrote(&written);
        ctx.tell(KIND, connect, seen.recorded, &decision).await;
    }
    Ok(ctx.next(KIND, connect.meta(), &decision, began))
}

#[allow(clippy::needless_pass_by_value, reason = "the signature is kube's")]
pub(super) fn back_off(
    object: Arc<DeserializeGuard<RivvenConnect>>,
    error: &ReconcileError,
    ctx: Arc<Context>,
) -> Action {
    ctx.back_off(KIND, object.meta(), error)
}
