//! Deletion in order: brokers first, with the time they need to stop; then the volumes, if the policy says so and they
//! are proven to be ours; then the finalizer. The rest goes with its owner.

use super::decide::{PREREQUISITE_RETRY, Step};
use super::observation::{Claim, Deletion, Observation, ReclaimPolicy};
use crate::decision::{Blocked, ConditionType, Decision};
use crate::phase::{Kind, Phase};
use crate::reason::Reason;

/// What to do next for a cluster that is being deleted.
pub fn decide(observed: &Observation, deletion: Deletion) -> Decision<Step> {
    let decision = |message: String| {
        let told = if observed.dependents.is_empty() {
            String::new()
        } else {
            format!("; still refer to it and are told: {}", observed.dependents.join(", "))
        };
        Decision::toward(
            Kind::Cluster,
            observed.recorded,
            Phase::Terminating,
            Reason::Deleting,
            format!("{message}{told}"),
        )
        .with_condition(ConditionType::Ready, false, Reason::Deleting, "the cluster is being deleted")
        .with_condition(ConditionType::Progressing, true, Reason::Deleting, message)
    };
    if !observed.finalizer {
        return decision("nothing is left for the operator to do".to_owned());
    }
    if let Some(set) = &observed.stateful_set {
        let steps = (!set.deleting).then(|| Step::DeleteStatefulSet { uid: set.uid.clone() });
        return wait(decision("brokers are being stopped".to_owned()).with_steps(steps), "the StatefulSet");
    }
    // Deleted in the midst of its replacement, a StatefulSet takes no broker with it. A pod that uses a volume of ours and
    // that nobody else keeps is ours to stop.
    let left = observed.brokers.iter().filter(|broker| broker.claim.as_ref().is_some_and(|claim| claim.ours));
    let orphans: Vec<Step> = left
        .filter_map(|broker| broker.pod.as_ref().map(|pod| (broker.ordinal, pod)))
        .filter(|(_, pod)| pod.orphan && !pod.terminating)
        .map(|(ordinal, pod)| Step::DeletePod { ordinal, uid: pod.uid.clone() })
        .collect();
    if !orphans.is_empty() {
        return wait(decision("brokers are being stopped".to_owned()).with_steps(orphans), "a broker");
    }
    let stopping: Vec<String> =
        observed.brokers.iter().filter(|b| b.pod.is_some()).map(|b| b.ordinal.to_string()).collect();
    if !stopping.is_empty() {
        let message = format!("broker {} is still stopping", stopping.join(", "));
        return wait(decision(message.clone()), &message);
    }
    let claims: Vec<&Claim> = observed.brokers.iter().filter_map(|b| b.claim.as_ref()).collect();
    match deletion.reclaim {
        ReclaimPolicy::Delete => {
            let doomed: Vec<Step> = claims
                .iter()
                .filter(|claim| claim.ours && !claim.deleting)
                .map(|claim| Step::DeleteVolume { claim: claim.name.clone(), uid: claim.uid.clone() })
                .collect();
            if !doomed.is_empty() {
                return decision("volume claims are being deleted".to_owned())
                    .with_steps(doomed)
                    .look_again_in(std::time::Duration::ZERO);
            }
            // The claims are asked to go, not gone: the finalizer stays until they are, or nobody would tell of one that hangs.
            let going: Vec<&str> = claims.iter().filter(|claim| claim.ours).map(|claim| claim.name.as_str()).collect();
            if !going.is_empty() {
                let message = format!("volume claims {} are being deleted", going.join(", "));
                return wait(decision(message), &going.join(", ")).look_again_in(PREREQUISITE_RETRY);
            }
            let foreign: Vec<&str> =
                claims.iter().filter(|claim| !claim.ours).map(|claim| claim.name.as_str()).collect();
            let kept = if foreign.is_empty() {
                String::new()
            } else {
                format!("; kept, as not proven to be the cluster's: {}", foreign.join(", "))
            };
            decision(format!("brokers stopped, volumes deleted{kept}")).with_steps([Step::RemoveFinalizer])
        }
        ReclaimPolicy::Retain => {
            let kept: Vec<&str> = claims.iter().map(|claim| claim.name.as_str()).collect();
            let kept = if kept.is_empty() {
                "no volume exists".to_owned()
            } else {
                format!("volume claims kept: {}", kept.join(", "))
            };
            decision(format!("brokers stopped, {kept}")).with_steps([Step::RemoveFinalizer])
        }
    }
}

fn wait(mut decision: Decision<Step>, what: &str) -> Decision<Step> {
    decision.blocked_by.push(Blocked {
        reason: Reason::WaitingForDeletion,
        on: None,
        message: format!("{what} is not gone yet"),
    });
    decision
}
