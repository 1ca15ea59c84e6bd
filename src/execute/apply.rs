//! Writing one desired object: created if absent, replaced if ours and different, never touched otherwise.

use kube::api::{DeleteParams, DynamicObject, PostParams, Preconditions};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt};
use serde_json::{Map, Value};

use super::StepError;
use crate::names;
use crate::observe::compare::{APART, DESIRED_HASH, hash};

/// Field manager of every write.
pub const MANAGER: &str = "rivven-operator";

/// Prefixes of the labels and annotations that are the operator's to take away again.
const OURS: [&str; 2] = ["rivven.io/", "app.kubernetes.io/"];

/// The API for a manifest's kind in its namespace.
pub(crate) fn api_of(client: &Client, manifest: &Value) -> Result<Api<DynamicObject>, StepError> {
    let text = |pointer: &str| manifest.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = text("/apiVersion").split_once('/').unwrap_or(("", text("/apiVersion")));
    let kind = GroupVersionKind::gvk(group, version, text("/kind"));
    let resource = kube::core::ApiResource::from_gvk(&kind);
    match text("/metadata/namespace") {
        "" => Err(StepError::Internal("a rendered object has no namespace".to_owned())),
        namespace => Ok(Api::namespaced_with(client.clone(), namespace, &resource)),
    }
}

/// Creates the object. Only if it is absent: `POST`, so that an object somebody else made in the meantime is answered
/// with 409 and stays as it is. `secret` is written with it and is no part of the hash: a digest of a token is nobody's
/// to read.
pub(crate) async fn create(client: &Client, desired: &Value, secret: Option<Value>) -> Result<(), StepError> {
    let mut object = stamped(desired);
    if let Some(secret) = secret {
        object["stringData"] = secret;
    }
    let object = parse(&object)?;
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    api_of(client, desired)?.create(&params, &object).await?;
    Ok(())
}

/// Replaces the live object by the desired one. The `resourceVersion` is the one it was compared at: a stale read is
/// answered with 409 and writes nothing.
pub(crate) async fn replace(client: &Client, desired: &Value, live: &Value) -> Result<(), StepError> {
    replace_with(client, desired, live, None).await
}

/// As [`replace()`], with what a Secret is to hold.
pub(crate) async fn replace_with(
    client: &Client,
    desired: &Value,
    live: &Value,
    secret: Option<Value>,
) -> Result<(), StepError> {
    let mut object = merged(desired, live);
    if let Some(secret) = secret {
        object["stringData"] = secret;
    }
    let object = parse(&object)?;
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    api_of(client, desired)?.replace(&object.name_any(), &params, &object).await?;
    Ok(())
}

/// Deletes this very object and no other of its name.
pub(crate) async fn delete(client: &Client, live: &Value, uid: &str) -> Result<(), StepError> {
    let name = live.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let preconditions = Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
    match api_of(client, live)?.delete(name, &DeleteParams { preconditions, ..DeleteParams::default() }).await {
        // Somebody was faster, or the cache does not show yet that it was us.
        Err(kube::Error::Api(status)) if status.code == 404 => Err(StepError::Moved(status.message)),
        done => Ok(done.map(drop)?),
    }
}

fn parse(value: &Value) -> Result<DynamicObject, StepError> {
    serde_json::from_value(value.clone())
        .map_err(|error| StepError::Internal(format!("a rendered object is malformed: {error}")))
}

fn stamped(desired: &Value) -> Value {
    let mut object = desired.clone();
    object["metadata"]["annotations"][DESIRED_HASH] = Value::String(hash(desired));
    object
}

/// The desired object with what others own of its metadata: their labels, annotations, finalizers and owners stay.
fn merged(desired: &Value, live: &Value) -> Value {
    let mut object = stamped(desired);
    let none = Value::Null;
    let (whole, live) = (live, live.get("metadata").unwrap_or(&none));
    let noted = live["annotations"][names::ANNOTATIONS].as_str().unwrap_or_default();
    let is_ours = |field, key: &str| {
        OURS.iter().any(|prefix| key.starts_with(prefix))
            || (field == "annotations" && noted.split(',').any(|noted| noted == key))
    };
    for field in ["labels", "annotations"] {
        let mut all: Map<String, Value> = live
            .get(field)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter(|(key, _)| !is_ours(field, key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if let Some(ours) = object["metadata"][field].as_object() {
            all.extend(ours.clone());
        }
        object["metadata"][field] = Value::Object(all);
    }
    if object["kind"] == "StatefulSet" {
        for field in APART {
            object["spec"][field] = whole["spec"][field].clone();
        }
    }
    // The API server gave it the default class when it was made, if the spec names none.
    if object["kind"] == "Ingress" && object["spec"]["ingressClassName"].is_null() {
        object["spec"]["ingressClassName"] = whole["spec"]["ingressClassName"].clone();
    }
    for field in ["uid", "resourceVersion", "finalizers"] {
        if let Some(value) = live.get(field) {
            object["metadata"][field] = value.clone();
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_others_wrote_stays_and_what_is_ours_no_more_goes() {
        let desired = json!({"metadata": {"name": "x", "labels": {"rivven.io/cluster": "x"}}, "spec": {"a": 1}});
        let live = json!({
            "metadata": {
                "name": "x", "uid": "u", "resourceVersion": "7", "finalizers": ["foreign/hold"],
                "labels": {"rivven.io/cluster": "x", "rivven.io/gone": "1", "team": "orders"},
                "annotations": {
                    "foreign/note": "n", "rivven.io/desired-hash": "old", "rivven.io/annotations": "a/of-the-spec,b",
                    "a/of-the-spec": "1", "b": "2",
                },
            },
            "spec": {"a": 2, "b": 3},
        });
        let object = merged(&desired, &live);
        assert_eq!(object["metadata"]["labels"], json!({"rivven.io/cluster": "x", "team": "orders"}));
        assert_eq!(object["metadata"]["annotations"], json!({"foreign/note": "n", DESIRED_HASH: hash(&desired)}));
        assert_eq!(object["metadata"]["resourceVersion"], "7");
        assert_eq!(object["metadata"]["finalizers"], json!(["foreign/hold"]));
        assert_eq!(object["spec"], json!({"a": 1}));
    }
}
