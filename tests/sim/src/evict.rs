//! The eviction subresource of pods.

use serde_json::{Value, json};

use crate::json::{condition, deleting, int, text};
use crate::refusal::Refusal;
use crate::selector::Selector;
use crate::store::{Key, Store};

/// Deletes a pod if its disruption budget has room.
pub(crate) fn evict(store: &mut Store, namespace: &str, name: &str, body: &Value) -> Result<(), Refusal> {
    let pods = store.kind("", "pods").unwrap().clone();
    let key = Key::core("pods", namespace, name);
    if text(body, "/metadata/name") != name {
        return Err(Refusal::of(400, "name in URL does not match name in Eviction object"));
    }
    let pod = store.get(&key).cloned().ok_or_else(|| Refusal::not_found(&pods, name))?;
    let options = body.get("deleteOptions").cloned().unwrap_or_default();
    let mut unready_anyway = None;
    let exempt = deleting(&pod) || matches!(text(&pod, "/status/phase"), "Pending" | "Succeeded" | "Failed");
    if !exempt {
        let budgets: Vec<_> = store
            .list("policy", "poddisruptionbudgets", Some(namespace))
            .filter(|(_, b)| Selector::of(&b["spec"]["selector"]).matches(&pod))
            .map(|(k, b)| (k.clone(), b.clone()))
            .collect();
        if budgets.len() > 1 {
            let why =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Refusal::of(500, why));
        }
        if let Some((budget_key, budget)) = budgets.first() {
            let unready = condition(&pod, "Ready") != "True";
            let healthy = int(budget, "/status/currentHealthy", 0) >= int(budget, "/status/desiredHealthy", 0);
            let free = match text(budget, "/spec/unhealthyPodEvictionPolicy") {
                "AlwaysAllow" => unready,
                _ => unready && healthy && int(budget, "/status/desiredHealthy", 0) > 0,
            };
            if free {
                unready_anyway = Some(budget_key.name.clone());
            } else {
                take(store, budget_key, budget, name)?;
            }
        }
    }
    // The budget is charged before the preconditions are looked at; and where an unready pod needs none, a failed
    // precondition reads like a busy budget.
    match (store.delete(&pods, &key, &options), unready_anyway) {
        (Err(refusal), Some(budget)) if refusal.code == 409 => Err(busy(&budget)),
        (result, _) => result.map(|_| ()),
    }
}

fn refuse(why: &str) -> Refusal {
    let mut refusal = Refusal::of(429, "Cannot evict pod as it would violate the pod's disruption budget.");
    refusal.details = json!({ "causes": [{ "reason": "DisruptionBudget", "message": why }], "retryAfterSeconds": 10 });
    refusal
}

fn busy(budget: &str) -> Refusal {
    refuse(&format!("The disruption budget {budget} is still being processed by the server."))
}

/// Takes one allowed disruption.
fn take(store: &mut Store, key: &Key, budget: &Value, pod: &str) -> Result<(), Refusal> {
    if int(budget, "/status/observedGeneration", 0) < int(budget, "/metadata/generation", 0) {
        return Err(busy(&key.name));
    }
    let allowed = int(budget, "/status/disruptionsAllowed", 0);
    if allowed < 1 {
        let (desired, current) = (int(budget, "/status/desiredHealthy", 0), int(budget, "/status/currentHealthy", 0));
        let name = &key.name;
        return Err(refuse(&format!(
            "The disruption budget {name} needs {desired} healthy pods and has {current} currently"
        )));
    }
    let now = store.timestamp();
    store.edit(key, |b| {
        b["status"]["disruptionsAllowed"] = (allowed - 1).into();
        b["status"]["disruptedPods"][pod] = now.into();
    });
    Ok(())
}
