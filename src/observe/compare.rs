//! Desired against live: is an object as it is wanted?
//!
//! Both tests must agree. The hash of the desired object, kept in an annotation of the live one, shows a field that is
//! wanted no more (a subset comparison cannot see it); the subset comparison shows what somebody else changed (a hash
//! cannot see it).

use std::borrow::Cow;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::api::quantity::nanos;

/// Annotation that carries the hash of the object as it was wanted when it was last written.
pub const DESIRED_HASH: &str = "rivven.io/desired-hash";

/// What of a StatefulSet's spec is not brought to what is wanted by writing the object: brokers come and go by steps of
/// their own, and claim templates cannot be changed at all.
pub const APART: [&str; 2] = ["replicas", "volumeClaimTemplates"];

/// The object without what is [`APART`].
fn comparable(desired: &Value) -> Cow<'_, Value> {
    if desired["kind"] != "StatefulSet" {
        return Cow::Borrowed(desired);
    }
    let mut rest = desired.clone();
    if let Some(spec) = rest["spec"].as_object_mut() {
        spec.retain(|field, _| !APART.contains(&field.as_str()));
    }
    Cow::Owned(rest)
}

/// The hash of a desired object, 16 hexadecimal digits. Maps are ordered, so equal objects have equal hashes.
pub fn hash(desired: &Value) -> String {
    Sha256::digest(comparable(desired).to_string().as_bytes()).iter().take(8).fold(
        String::with_capacity(16),
        |mut hex, byte| {
            use std::fmt::Write;
            let _ = write!(hex, "{byte:02x}");
            hex
        },
    )
}

/// Whether the live object is as wanted. `desired` carries no hash annotation itself.
pub fn is_current(desired: &Value, live: &Value) -> bool {
    let recorded = live.pointer("/metadata/annotations").and_then(|annotations| annotations.get(DESIRED_HASH));
    recorded.and_then(Value::as_str) == Some(hash(desired).as_str()) && is_subset(&comparable(desired), live, false)
}

/// Whether everything that `desired` says stands in `live`. Lists must have the same length: an element too many is a
/// difference. Nothing, an empty text, an empty list and an empty map are the same.
fn is_subset(desired: &Value, live: &Value, quantities: bool) -> bool {
    match (desired, live) {
        (Value::Object(desired), Value::Object(live)) => desired.iter().all(|(key, wanted)| match live.get(key) {
            Some(found) => is_subset(wanted, found, quantities || holds_quantities(key)),
            None => is_empty(wanted),
        }),
        (Value::Array(desired), Value::Array(live)) => {
            desired.len() == live.len()
                && desired.iter().zip(live).all(|(wanted, found)| is_subset(wanted, found, quantities))
        }
        (Value::String(desired), Value::String(live)) => {
            desired == live || (quantities && same_quantity(desired, live))
        }
        _ => desired == live || (is_empty(desired) && is_empty(live)),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        // The API server leaves out what is empty, such as the value of an environment variable.
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
        _ => false,
    }
}

/// The API server writes quantities in its own canonical form (`1000m` becomes `1`).
fn holds_quantities(key: &str) -> bool {
    matches!(key, "requests" | "limits" | "capacity" | "sizeLimit")
}

fn same_quantity(desired: &str, live: &str) -> bool {
    nanos(desired).is_some_and(|desired| nanos(live) == Some(desired))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(desired: &Value, mut live: Value) -> Value {
        live["metadata"]["annotations"][DESIRED_HASH] = json!(hash(desired));
        live
    }

    #[test]
    fn defaults_of_the_api_server_are_no_difference() {
        let desired =
            json!({"metadata": {"name": "x"}, "spec": {"replicas": 1, "selector": {}, "ports": [{"port": 1}]}});
        let live = json!({"metadata": {"name": "x", "uid": "u"}, "spec": {"replicas": 1, "ports": [{"port": 1, "protocol": "TCP"}], "x": 2}});
        assert!(is_current(&desired, &written(&desired, live)));
    }

    #[test]
    fn what_the_api_server_leaves_out_as_it_is_empty_is_no_difference() {
        let desired = json!({"metadata": {}, "spec": {"env": [{"name": "A", "value": ""}]}});
        let live = json!({"metadata": {}, "spec": {"env": [{"name": "A"}]}});
        assert!(is_current(&desired, &written(&desired, live)));
        let other = json!({"metadata": {}, "spec": {"env": [{"name": "A", "value": "1"}]}});
        assert!(!is_current(&desired, &written(&desired, other)));
    }

    #[test]
    fn quantities_are_compared_as_quantities() {
        let desired =
            json!({"metadata": {}, "spec": {"resources": {"requests": {"cpu": "1000m", "memory": "1024Mi"}}}});
        let live = json!({"metadata": {}, "spec": {"resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}});
        assert!(is_current(&desired, &written(&desired, live)));
        let other = json!({"metadata": {}, "spec": {"resources": {"requests": {"cpu": "1", "memory": "2Gi"}}}});
        assert!(!is_current(&desired, &written(&desired, other)));
    }

    #[test]
    fn a_changed_field_is_seen_although_the_hash_agrees() {
        let desired = json!({"metadata": {}, "spec": {"replicas": 1}});
        let live = json!({"metadata": {}, "spec": {"replicas": 2}});
        assert!(!is_current(&desired, &written(&desired, live)));
    }

    #[test]
    fn a_field_that_is_wanted_no_more_is_seen_although_the_rest_agrees() {
        let before = json!({"metadata": {}, "spec": {"replicas": 1, "extra": true}});
        let live = written(&before, before.clone());
        let desired = json!({"metadata": {}, "spec": {"replicas": 1}});
        assert!(!is_current(&desired, &live));
    }

    #[test]
    fn brokers_and_claims_of_a_stateful_set_are_no_difference() {
        let desired = json!({"kind": "StatefulSet", "metadata": {}, "spec": {"replicas": 3, "serviceName": "x"}});
        let mut live = written(&desired, desired.clone());
        live["spec"]["replicas"] = json!(5);
        assert!(is_current(&desired, &live));
        live["spec"]["serviceName"] = json!("y");
        assert!(!is_current(&desired, &live));
    }

    #[test]
    fn a_list_element_too_many_is_a_difference() {
        let desired = json!({"metadata": {}, "spec": {"ports": [1]}});
        let live = json!({"metadata": {}, "spec": {"ports": [1, 2]}});
        assert!(!is_current(&desired, &written(&desired, live)));
    }
}
