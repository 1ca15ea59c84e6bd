//! One reconcile of a topic: observe, decide, execute.

use std::sync::Arc;
use std::time::Instant;

use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use rivven_fsm::topic::{Step, decide, malformed, step_failed};
use rivven_fsm::{Decision, Kind, Phase};

use super::context::{Context, ReconcileError};
use crate::api::{RivvenTopic, RivvenTopicStatus};
use crate::execute::{StepError, report};
use crate::observe::TopicSight;
use crate::process::topics::TopicFacts;

const KIND: Kind = Kind::Topic;

pub(super) async fn reconcile(
    object: Arc<DeserializeGuard<RivvenTopic>>,
    ctx: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let began = Instant::now();
    ctx.observer.caches().synced().await;
    if let Some(wait) = ctx.lags(object.meta()) {
        return Ok(wait);
    }
    let topic = match &object.0 {
        Ok(topic) => topic,
        Err(invalid) => {
            let before = ctx.observer.recorded_status::<RivvenTopic>(&invalid.metadata).await?;
            let decision = malformed(before.phase, &invalid.error.clone());
            ctx.report_malformed::<RivvenTopic, _>(KIND, &invalid.metadata, &before, &decision).await?;
            return Ok(ctx.next(KIND, &invalid.metadata, &decision, began));
        }
    };
    let sight = ctx.observer.topic(topic).await;
    let decision = decide(&sight.observation, ctx.now());
    if let Some(state) = &sight.state {
        let facts = TopicFacts {
            topic: sight.observation.wish.topic.clone(),
            partitions: state.partitions,
            replicas: state.replication,
            in_sync: state.in_sync,
            records: state.records,
            labels: topic.spec.topic_labels.clone(),
        };
        ctx.metrics.topic(&topic.namespace().unwrap_or_default(), &topic.name_any(), facts);
    }
    let mut topic = topic.clone();
    let uid = topic.uid().unwrap_or_default();
    let fault = ctx.faults.standing(&uid, &decision);
    match &fault {
        None => record(&ctx, &mut topic, &sight, &decision).await?,
        Some(fault) => {
            let failed = step_failed(&decision, &decision.steps[fault.step], &fault.error);
            record(&ctx, &mut topic, &sight, &failed).await?;
            if !fault.wait.is_zero() {
                return Ok(Action::requeue(fault.wait));
            }
        }
    }
    let topic = &mut topic;
    for (index, step) in decision.steps.iter().enumerate() {
        let outcome = ctx.executor.topic_step(topic, &sight, ctx.observer.brokers(), step).await;
        ctx.wrote(&topic.metadata);
        if outcome.is_ok() && step.is_told_by_the_phase() {
            ctx.count_step(KIND, topic, step.name(), &outcome);
        } else {
            ctx.tell_step(KIND, topic, step.name(), &outcome).await;
        }
        if let Err(error) = outcome {
            if error.is_fault() {
                ctx.faults.note(&uid, &decision, index, error.to_string());
                let failed = step_failed(&decision, step, &error.to_string());
                record(&ctx, topic, &sight, &failed).await?;
            }
            return Err(error.into());
        }
    }
    if fault.is_some() {
        record(&ctx, topic, &sight, &decision).await?;
    }
    if decision.steps.iter().any(Step::releases) {
        // The object may be gone by now, and what is counted of it now nobody would take away. If it stays, for others
        // hold it, this write brings it here again.
        ctx.forget(KIND, topic.meta());
        return Ok(Action::await_change());
    }
    Ok(ctx.next(KIND, topic.meta(), &decision, began))
}

async fn record(
    ctx: &Context,
    topic: &mut RivvenTopic,
    sight: &TopicSight,
    decision: &Decision<Step>,
) -> Result<(), StepError> {
    let none = RivvenTopicStatus::default();
    let before = topic.status.as_ref().unwrap_or(&none);
    let after = report::topic(topic, &sight.observation, decision, ctx.now());
    let written = ctx.executor.write_status::<RivvenTopic>(topic.meta(), before, &after).await?;
    if let Some(written) = written {
        ctx.wrote(&written);
        topic.metadata = written;
        topic.status = Some(after);
        let recorded = sight.observation.recorded;
        if (recorded, decision.phase) == (None, Phase::Provisioning) {
            // Its Event is that of the phase which follows.
            ctx.count_transition(KIND, topic, recorded, decision);
        } else {
            ctx.tell(KIND, topic, recorded, decision).await;
        }
    }
    Ok(())
}

#[allow(clippy::needless_pass_by_value, reason = "the signature is kube's")]
pub(super) fn back_off(
    object: Arc<DeserializeGuard<RivvenTopic>>,
    error: &ReconcileError,
    ctx: Arc<Context>,
) -> Action {
    ctx.back_off(KIND, object.meta(), error)
}
