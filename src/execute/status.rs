//! Writing the status: only if it differs, with true transition times, and gone fields taken away.

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use kube::{Api, Resource};
use rivven_fsm::Decision;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Executor, StepError};

/// Kubernetes' form of a time, to the second as it keeps it.
pub fn kubernetes_time(now: DateTime<Utc>) -> Time {
    Time(k8s_openapi::jiff::Timestamp::from_second(now.timestamp()).unwrap_or_default())
}

/// The conditions to record: those decided, each with the transition time it had while its status stays the same.
/// A condition that is decided no more is dropped.
pub fn conditions<S>(
    decision: &Decision<S>,
    before: &[Condition],
    generation: Option<i64>,
    now: &Time,
) -> Vec<Condition> {
    decision
        .conditions
        .iter()
        .map(|decided| {
            let kept =
                before.iter().find(|old| old.type_ == decided.kind.as_str() && old.status == decided.status.as_str());
            Condition {
                type_: decided.kind.as_str().to_owned(),
                status: decided.status.as_str().to_owned(),
                reason: decided.reason.as_str().to_owned(),
                message: decided.message.clone(),
                observed_generation: generation,
                last_transition_time: kept.map_or_else(|| now.clone(), |old| old.last_transition_time.clone()),
            }
        })
        .collect()
}

impl Executor {
    /// Writes the status if it differs from the one that was read. Returns the object's
    /// metadata after that, if it was written: a step that follows must not be refused for this very write.
    ///
    /// The patch names the object's uid: a status must not land on an object of the same name made since. It names the
    /// version that was looked at as well: an API server that has not caught up shows a new process the past, and a phase
    /// decided from it must not replace a later one ([`StepError::Moved`]).
    pub async fn write_status<K>(
        &self,
        meta: &ObjectMeta,
        before: &impl Serialize,
        after: &impl Serialize,
    ) -> Result<Option<ObjectMeta>, StepError>
    where
        K: Resource<DynamicType = ()>,
    {
        let value =
            |status: Result<Value, serde_json::Error>| status.map_err(|error| StepError::Internal(error.to_string()));
        let changes = merge_patch(&value(serde_json::to_value(before))?, &value(serde_json::to_value(after))?);
        if changes.as_object().is_none_or(Map::is_empty) {
            return Ok(None);
        }
        self.may_write()?;
        let patch =
            json!({ "metadata": { "uid": meta.uid, "resourceVersion": meta.resource_version }, "status": changes });
        // As a dynamic object: the answer need not be readable as its type, and a malformed object is told so here too.
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &ApiResource::erase::<K>(&()));
        let name = meta.name.as_deref().unwrap_or_default();
        let written = api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(Some(written.metadata))
    }
}

/// The JSON merge patch (RFC 7386) that makes `after` of `before`.
fn merge_patch(before: &Value, after: &Value) -> Value {
    let (Value::Object(before), Value::Object(after)) = (before, after) else { return after.clone() };
    let gone = before
        .iter()
        .filter(|(key, value)| !value.is_null() && after.get(*key).is_none_or(Value::is_null))
        .map(|(key, _)| (key.clone(), Value::Null));
    let changed = after.iter().filter(|(_, value)| !value.is_null()).filter_map(|(key, value)| match before.get(key) {
        Some(old) if old == value => None,
        Some(old) => Some((key.clone(), merge_patch(old, value))),
        None => Some((key.clone(), value.clone())),
    });
    Value::Object(gone.chain(changed).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_patch_holds_changes_only_and_takes_away_what_is_gone() {
        let before = json!({"a": 1, "b": {"x": 1, "y": 2}, "c": [1], "d": "gone"});
        let after = json!({"a": 1, "b": {"x": 1, "y": 3}, "c": [1, 2], "e": null});
        assert_eq!(merge_patch(&before, &after), json!({"b": {"y": 3}, "c": [1, 2], "d": null}));
        assert_eq!(merge_patch(&after, &after), json!({}));
    }
}
