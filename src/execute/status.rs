//! Writing the status: only if it differs, with true transition times, and gone fields taken away.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use rivven_fsm::Decision;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{Executor, StepError};

/// The conditions to record: those decided, each with the transition time it had while its status stays the same.
/// A condition that is decided no more is dropped.
pub fn conditions<S>(decision: &Decision<S>, before: &[Condition], generation: Option<i64>, now: &Time) -> Vec<Condition> {
    decision
        .conditions
        .iter()
        .map(|decided| {
            let kept = before.iter().find(|old| old.type_ == decided.kind.as_str() && old.status == decided.status.as_str());
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
    /// Writes the status if it differs from the one that was read. Returns whether it was written.
    ///
    /// The patch names the object's uid: a status must not land on an object of the same name made since.
    pub async fn write_status<K>(&self, api: &Api<K>, object: &K, before: &Value, after: &Value) -> Result<bool, StepError>
    where
        K: Resource + DeserializeOwned + Clone + std::fmt::Debug,
    {
        let changes = merge_patch(before, after);
        if changes.as_object().is_none_or(Map::is_empty) {
            return Ok(false);
        }
        self.may_write()?;
        let patch = json!({ "metadata": { "uid": object.meta().uid }, "status": changes });
        api.patch_status(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(true)
    }
}

/// The JSON merge patch (RFC 7386) that makes `after` of `before`.
fn merge_patch(before: &Value, after: &Value) -> Value {
    let (Value::Object(before), Value::Object(after)) = (before, after) else { return after.clone() };
    let gone = before.keys().filter(|key| after.get(*key).is_none_or(Value::is_null)).map(|key| (key.clone(), Value::Null));
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
