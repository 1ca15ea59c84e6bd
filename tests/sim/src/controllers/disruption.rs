//! The disruption controller: how many pods of each budget may go.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::json::{condition, controller_uid, deleting, int, text};
use crate::selector::Selector;
use crate::store::{Key, Store};

pub(crate) fn run(store: &mut Store) {
    let budgets: Vec<(Key, Arc<Value>)> =
        store.list("policy", "poddisruptionbudgets", None).map(|(k, b)| (k.clone(), b.clone())).collect();
    for (key, budget) in budgets {
        let selector = Selector::of(&budget["spec"]["selector"]);
        let pods: Vec<Arc<Value>> = store
            .list("", "pods", Some(&key.namespace))
            .filter(|(_, p)| selector.matches(p))
            .map(|(_, p)| p.clone())
            .collect();
        // What the owners want counts, not what is there.
        let sets = store.list("apps", "statefulsets", Some(&key.namespace));
        let owners: i64 = sets
            .filter(|(_, s)| pods.iter().any(|p| controller_uid(p) == text(s, "/metadata/uid")))
            .map(|(_, s)| int(s, "/spec/replicas", 1))
            .sum();
        let expected = owners.max(pods.iter().filter(|p| controller_uid(p).is_empty()).count().try_into().unwrap());
        let share = |v: &Value| match v.as_str().and_then(|s| s.strip_suffix('%')) {
            Some(percent) => (expected * percent.parse().unwrap_or(0) + 99) / 100,
            None => v.as_i64().unwrap_or(0),
        };
        let desired = match &budget["spec"]["maxUnavailable"] {
            Value::Null => share(&budget["spec"]["minAvailable"]),
            most => (expected - share(most)).max(0),
        };
        // A pod whose eviction was granted counts as gone until it is; then its entry goes.
        let names = |p: &Value| text(p, "/metadata/name").to_owned();
        let disrupted: serde_json::Map<String, Value> = budget["status"]["disruptedPods"]
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(name, _)| pods.iter().any(|p| names(p) == **name && !deleting(p)))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        let healthy = pods
            .iter()
            .filter(|p| condition(p, "Ready") == "True" && !deleting(p) && !disrupted.contains_key(&names(p)));
        let healthy: i64 = healthy.count().try_into().unwrap();
        let generation = budget["metadata"]["generation"].clone();
        store.edit(&key, |b| {
            b["status"] = json!({
                "expectedPods": expected, "desiredHealthy": desired, "currentHealthy": healthy,
                "disruptionsAllowed": if expected > 0 { (healthy - desired).max(0) } else { 0 },
                "observedGeneration": generation,
            });
            if !disrupted.is_empty() {
                b["status"]["disruptedPods"] = disrupted.into();
            }
        });
    }
}
