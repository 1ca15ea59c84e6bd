//! The CRDs' schemas: structural, described, bounded, and with the defaults that the types have.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::fmt::Debug;

use rivven_operator::api::{RivvenCluster, RivvenConnect, RivvenTopic, crds};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// Fields whose inside is a type of Kubernetes' own.
const KUBERNETES: [&str; 7] =
    ["affinity", "resources", "topologySpreadConstraints", "tolerations", "env", "imagePullSecrets", "conditions"];

fn schema(kind: &str) -> Value {
    let crd = crds().into_iter().find(|crd| crd.spec.names.kind == kind).unwrap();
    json!(crd.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema)
}

/// Calls `visit` with each node's path, the node, and whether it is inside a type of Kubernetes' own.
fn walk(node: &Value, path: &str, inside: bool, visit: &mut impl FnMut(&str, &Value, bool)) {
    visit(path, node, inside);
    for (name, child) in node["properties"].as_object().into_iter().flatten() {
        walk(child, &format!("{path}.{name}"), inside || KUBERNETES.contains(&name.as_str()), visit);
    }
    for (key, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let Some(child) = node.get(key).filter(|child| child.is_object()) {
            walk(child, &format!("{path}{mark}"), inside, visit);
        }
    }
}

/// Every node of every schema.
fn nodes() -> Vec<(String, Value, bool)> {
    let mut all = Vec::new();
    for kind in ["RivvenCluster", "RivvenConnect", "RivvenTopic"] {
        walk(&schema(kind), kind, false, &mut |path, node, inside| all.push((path.to_owned(), node.clone(), inside)));
    }
    all
}

#[test]
fn schemas_are_structural() {
    let nodes = nodes();
    for (path, node, _) in &nodes {
        for key in ["$ref", "allOf", "anyOf", "oneOf", "not", "definitions", "$defs"] {
            assert!(node.get(key).is_none(), "{path} has {key}");
        }
        let is = |key: &str| node[key] == true;
        assert!(
            node["type"].is_string() || is("x-kubernetes-preserve-unknown-fields") || is("x-kubernetes-int-or-string"),
            "{path} has no type: {node}"
        );
        assert_ne!(node["additionalProperties"], false, "{path}");
        assert!(node["type"] != "array" || node["items"].is_object(), "{path} has no items");
    }
    println!("nodes: {}", nodes.len());
    assert!(nodes.len() > 500);
}

#[test]
fn every_field_is_described() {
    let mut fields = 0;
    for (path, node, _) in nodes() {
        // Plain items and values of maps are described by the field that holds them; `metadata` is Kubernetes' own.
        if !path.ends_with(['}', ']']) {
            fields += 1;
            let description = node["description"].as_str().unwrap_or_default();
            assert!(description.len() > 3 && !description.starts_with("Auto-generated"), "{path}: {description:?}");
        }
    }
    println!("described fields: {fields}");
}

#[test]
fn numbers_are_bounded_everywhere() {
    let mut numbers = 0;
    for (path, node, _) in nodes().into_iter().filter(|(_, node, _)| node["type"] == "integer") {
        assert!(node["minimum"].is_number() && node["maximum"].is_number(), "{path} has no bound: {node}");
        numbers += 1;
    }
    println!("bounded numbers: {numbers}");
}

#[test]
fn what_users_write_is_bounded() {
    let mut bounded = 0;
    for (path, node, inside) in nodes().into_iter().filter(|(path, _, inside)| path.contains(".spec.") && !inside) {
        let has = |key: &str| node.get(key).is_some();
        let plain = !path.ends_with('}') && !inside;
        let fine = match node["type"].as_str() {
            Some("number") => has("minimum") && has("maximum"),
            Some("string") => !plain || has("maxLength") || has("enum"),
            Some("array") => has("maxItems"),
            Some("object") => node["additionalProperties"].is_null() || has("maxProperties"),
            _ => true,
        };
        assert!(fine, "{path} has no bound: {node}");
        bounded += 1;
        // Numbers pass through JSON readers that know only floating point.
        for key in ["minimum", "maximum"] {
            assert!(node[key].as_f64().is_none_or(|bound| bound.abs() <= 9_007_199_254_740_991.0), "{path}: {node}");
        }
    }
    println!("bounded fields: {bounded}");
}

#[test]
fn rules_have_messages_and_their_lists_have_an_end() {
    let mut rules = 0;
    for (path, node, _) in nodes() {
        for rule in node["x-kubernetes-validations"].as_array().into_iter().flatten() {
            rules += 1;
            let text = rule["rule"].as_str().unwrap();
            assert!(rule["message"].as_str().is_some_and(|message| message.len() > 10), "{path}: {text}");
            // Whatever a rule may walk over.
            walk(&node, &path, false, &mut |below, list, inside| {
                let named =
                    below.rsplit('.').next().is_some_and(|name| text.contains(name.trim_end_matches(['[', ']'])));
                let written = below.contains(".spec") && !inside && !KUBERNETES.iter().any(|name| below.contains(name));
                if list["type"] == "array" && (named || written) {
                    assert!(
                        list.get("maxItems").is_some(),
                        "{below}, under the rule {text:?} of {path}, has no maxItems"
                    );
                }
            });
        }
    }
    println!("rules: {rules}");
    assert!(rules >= 18, "{rules}");
}

/// What the API server makes of `given`: every default filled in, from the outside in.
fn defaulted(schema: &Value, mut given: Value) -> Value {
    if let Some(object) = given.as_object_mut() {
        for (name, child) in schema["properties"].as_object().into_iter().flatten() {
            if let (None, Some(default)) = (object.get(name), child.get("default")) {
                object.insert(name.clone(), default.clone());
            }
            if let Some(value) = object.remove(name) {
                object.insert(name.clone(), defaulted(child, value));
            }
        }
    }
    if let Some(items) = given.as_array_mut() {
        for item in items {
            *item = defaulted(&schema["items"], item.take());
        }
    }
    given
}

/// Bounds are floating point in a schema.
#[allow(clippy::cast_possible_truncation, reason = "bounds are whole numbers")]
fn whole(bound: &Value) -> i64 {
    bound.as_f64().unwrap_or_default() as i64
}

/// The least that the schema takes: required fields only.
fn least(schema: &Value) -> Value {
    match schema["type"].as_str() {
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            required.map(|name| (name.to_owned(), least(&schema["properties"][name]))).collect::<Map<_, _>>().into()
        }
        Some("array") => json!([least(&schema["items"])]),
        Some("integer") => json!(whole(&schema["minimum"])),
        Some("boolean") => json!(false),
        _ => schema["enum"][0].as_str().map_or_else(|| json!("abc-def-ghi"), |word| json!(word)),
    }
}

/// Every field, and of it the least.
fn most(schema: &Value) -> Value {
    match schema["type"].as_str() {
        Some("object") if schema["properties"].is_object() => {
            let fields = schema["properties"]
                .as_object()
                .unwrap()
                .iter()
                .filter(|(name, _)| !KUBERNETES.contains(&name.as_str()));
            fields
                .filter(|(_, child)| {
                    child.get("default").is_none() || child["type"] == "object" || child["type"] == "array"
                })
                .map(|(name, child)| (name.clone(), most(child)))
                .collect::<Map<_, _>>()
                .into()
        }
        Some("array") => json!([most(&schema["items"])]),
        _ => least(schema),
    }
}

fn check_defaults<T: DeserializeOwned + Serialize + PartialEq + Debug>(kind: &str) {
    let spec = &schema(kind)["properties"]["spec"];
    for given in [least(spec), most(spec)] {
        let by_server = defaulted(spec, given.clone());
        let object = |spec: &Value| json!({ "apiVersion": "rivven.io/v1alpha1", "kind": kind, "metadata": { "name": "x" }, "spec": spec });
        let read = |spec: &Value| {
            serde_json::from_value::<T>(object(spec)).unwrap_or_else(|error| panic!("{kind}: {error}: {spec}"))
        };
        let (by_server, by_type) = (read(&by_server), read(&given));
        assert_eq!(by_server, by_type, "{kind}: the schema's defaults are not the type's");
    }
}

#[test]
fn the_defaults_of_schema_and_type_are_the_same() {
    check_defaults::<RivvenCluster>("RivvenCluster");
    check_defaults::<RivvenConnect>("RivvenConnect");
    check_defaults::<RivvenTopic>("RivvenTopic");

    // One by one: each default, alone, is what the type makes of its absence.
    let mut defaults = 0;
    for kind in ["RivvenCluster", "RivvenConnect", "RivvenTopic"] {
        let spec = schema(kind)["properties"]["spec"].clone();
        let written = |given: Value| match kind {
            "RivvenCluster" => json!(serde_json::from_value::<rivven_operator::api::RivvenClusterSpec>(given).unwrap()),
            "RivvenConnect" => json!(serde_json::from_value::<rivven_operator::api::RivvenConnectSpec>(given).unwrap()),
            _ => json!(serde_json::from_value::<rivven_operator::api::RivvenTopicSpec>(given).unwrap()),
        };
        let by_type = written(most(&spec));
        walk(&spec, "", false, &mut |path, node, _| {
            if let Some(default) = node.get("default") {
                let pointer = path.replace("[]", ".0").replace('.', "/");
                // A switch that is off is not written; absent is what it means.
                let found = by_type.pointer(&pointer).cloned().unwrap_or(json!(false));
                if node["type"] != "object" && node["type"] != "array" {
                    assert_eq!(&found, default, "{kind}{path}");
                    defaults += 1;
                }
            }
        });
    }
    println!("defaults: {defaults}");
    assert!(defaults >= 40, "{defaults}");
}

#[test]
fn the_documented_defaults() {
    let cluster = defaulted(&schema("RivvenCluster")["properties"]["spec"], json!({}));
    let connect = defaulted(&schema("RivvenConnect")["properties"]["spec"], json!({ "clusterRef": { "name": "a" } }));
    let topic = defaulted(&schema("RivvenTopic")["properties"]["spec"], json!({ "clusterRef": { "name": "a" } }));
    for (object, pointer, default) in [
        (&cluster, "/replicas", json!(3)),
        (&cluster, "/version", json!("latest")),
        (&cluster, "/image", json!("ghcr.io/hupe1980/rivven")),
        (&cluster, "/storage/size", json!("10Gi")),
        (&cluster, "/storage/storageClassName", json!("")),
        (&cluster, "/tls/enabled", json!(false)),
        (&cluster, "/metrics/enabled", json!(true)),
        (&cluster, "/metrics/port", json!(9090)),
        (&connect, "/replicas", json!(1)),
        (&connect, "/version", json!("latest")),
        (&connect, "/sources", json!([])),
        (&connect, "/sinks", json!([])),
        (&connect, "/settings/topic/autoCreate", json!(true)),
        (&connect, "/settings/retry/maxRetries", json!(10)),
        (&connect, "/tls/enabled", json!(false)),
        (&topic, "/config/retentionMs", json!(604_800_000)),
        (&topic, "/config/retentionBytes", json!(-1)),
        (&topic, "/config/segmentBytes", json!(1_073_741_824)),
        (&topic, "/config/cleanupPolicy", json!("delete")),
        (&topic, "/config/compressionType", json!("lz4")),
        (&topic, "/config/minInsyncReplicas", json!(1)),
        (&topic, "/config/maxMessageBytes", json!(1_048_576)),
    ] {
        assert_eq!(object.pointer(pointer), Some(&default), "{pointer}");
    }
}
