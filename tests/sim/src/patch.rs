//! The patch forms the API server takes.

use serde_json::Value;

use crate::kinds::Kind;
use crate::refusal::Refusal;

/// The object a patch makes of the current one.
pub(crate) fn apply(kind: &Kind, content_type: &str, current: &Value, body: &[u8]) -> Result<Value, Refusal> {
    let malformed = |e: serde_json::Error| Refusal::of(400, format!("error decoding patch: {e}"));
    let mut target = current.clone();
    match content_type.split(';').next().unwrap_or_default() {
        "application/merge-patch+json" => merge(&mut target, &serde_json::from_slice(body).map_err(malformed)?),
        // Lists with merge keys are not merged item by item here, but replaced.
        "application/strategic-merge-patch+json" if !kind.custom => {
            merge(&mut target, &serde_json::from_slice(body).map_err(malformed)?);
        }
        "application/json-patch+json" => {
            let patch: json_patch::Patch = serde_json::from_slice(body).map_err(malformed)?;
            json_patch::patch(&mut target, &patch).map_err(|e| {
                Refusal::of(422, format!("the server rejected our request due to an error in our request: {e}"))
            })?;
        }
        other => {
            let why = format!("the body of the request was in an unknown format - {other} is not served here");
            return Err(Refusal::of(415, why));
        }
    }
    Ok(target)
}

/// RFC 7386.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    for (k, v) in patch {
        if v.is_null() {
            target.as_object_mut().unwrap().remove(k);
        } else {
            merge(&mut target[k], v);
        }
    }
}
