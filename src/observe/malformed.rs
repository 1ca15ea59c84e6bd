//! The status of an object that cannot be read as its type.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::api::DynamicObject;
use kube::core::ApiResource;
use kube::{Api, Resource};
use rivven_fsm::Phase;
use serde_json::{Value, json};

use super::{ObserveError, Observer};

/// As much of a status as can be read.
pub struct RecordedStatus {
    /// The status as it stands.
    pub raw: Value,
    /// Its phase.
    pub phase: Option<Phase>,
    /// Its conditions.
    pub conditions: Vec<Condition>,
}

impl Observer {
    /// Reads the status of an object that the cache holds as malformed: the API server is asked, since the cache keeps
    /// its metadata only.
    pub async fn recorded_status<K>(&self, meta: &ObjectMeta) -> Result<RecordedStatus, ObserveError>
    where
        K: Resource<DynamicType = ()>,
    {
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &ApiResource::erase::<K>(&()));
        let object = api.get(meta.name.as_deref().unwrap_or_default()).await?;
        let raw = object.data.get("status").cloned().filter(Value::is_object).unwrap_or_else(|| json!({}));
        let phase = raw["phase"].as_str().and_then(|text| Phase::ALL.into_iter().find(|phase| phase.as_str() == text));
        let conditions = serde_json::from_value(raw["conditions"].clone()).unwrap_or_default();
        Ok(RecordedStatus { raw, phase, conditions })
    }
}
