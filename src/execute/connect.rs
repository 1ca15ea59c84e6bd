//! The steps of a connect.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use kube::api::PropagationPolicy;
use rivven_fsm::connect::{NewTopic, Object, Step};
use serde_json::{Value, json};

use super::cluster::random_hex;
use super::{Executor, StepError, apply};
use crate::api::RivvenConnect;
use crate::broker::Brokers;
use crate::names;
use crate::observe::ConnectSight;

impl Executor {
    /// Runs one step of a connect. The answer is what was done, for a person.
    pub async fn connect_step(
        &self,
        connect: &RivvenConnect,
        sight: &ConnectSight,
        brokers: &Brokers,
        step: &Step,
    ) -> Result<String, StepError> {
        self.may_write()?;
        match step {
            Step::AddFinalizer => self.set_finalizer(connect, true).await.map(|()| "finalizer added".to_owned()),
            Step::RemoveFinalizer => self.set_finalizer(connect, false).await.map(|()| "finalizer removed".to_owned()),
            Step::CreateTopic { topic, assignments } => create_topic(sight, brokers, topic, assignments).await,
            Step::Apply(object) => self.apply_connect(sight, *object).await,
            Step::DeleteWorker { index, uid } => {
                // Foreground: the Deployment stays until its pods are gone, so that what it runs is told until then.
                let name = names::worker(&connect.name_any(), *index);
                let namespace = connect.namespace().unwrap_or_default();
                self.delete::<Deployment>(&namespace, &name, uid, Some(PropagationPolicy::Foreground)).await?;
                Ok(format!("Deployment {name} deleted"))
            }
        }
    }

    async fn apply_connect(&self, sight: &ConnectSight, object: Object) -> Result<String, StepError> {
        let Some(desired) = sight.desired.get(&object) else {
            return Err(StepError::Internal(format!("nothing was rendered for {object:?}")));
        };
        let name = desired.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let secret = match object {
            Object::Secret(index) => Some(secret_data(sight, index)?),
            _ => None,
        };
        if let Some(live) = sight.live.get(&object) {
            apply::replace_with(&self.client, desired, live, secret).await?;
            return Ok(format!("{} {name} brought to what is wanted", object.kind()));
        }
        apply::create(&self.client, desired, secret).await?;
        Ok(format!("{} {name} created", object.kind()))
    }
}

/// What a worker's Secret is to hold: its variables, and the salt that it has or a new one.
fn secret_data(sight: &ConnectSight, index: u32) -> Result<Value, StepError> {
    let Some(secret) = sight.secrets.get(&index) else {
        return Err(StepError::Internal(format!("worker {index} has no variables")));
    };
    let salt = match secret.salt.as_ref().and_then(|salt| String::from_utf8(salt.clone()).ok()) {
        Some(salt) => salt,
        None => random_hex()?,
    };
    let mut data: BTreeMap<&str, &str> =
        secret.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    data.insert(names::SALT_KEY, &salt);
    Ok(json!(data))
}

/// Creates a topic that a connector needs. That it was made meanwhile is as good.
async fn create_topic(
    sight: &ConnectSight,
    brokers: &Brokers,
    topic: &NewTopic,
    assignments: &[Vec<u32>],
) -> Result<String, StepError> {
    let Some((address, incarnation)) = &sight.broker else {
        return Err(StepError::Moved("no broker runs any more".to_owned()));
    };
    let outcome = if assignments.is_empty() {
        brokers.create_topic(address, incarnation, &topic.topic, topic.partitions).await
    } else {
        let Some(token) = &sight.token else {
            return Err(StepError::Moved("the token of the brokers' admin API is not known".to_owned()));
        };
        let node = |ordinal: &u32| names::pod(&sight.cluster, *ordinal);
        let nodes: Vec<Vec<String>> = assignments.iter().map(|replicas| replicas.iter().map(node).collect()).collect();
        brokers.create_replicated_topic(address, token, &topic.topic, 1, &nodes).await
    };
    match outcome {
        Ok(()) => Ok(format!("topic {} created with {} partitions", topic.topic, topic.partitions)),
        Err(error) if error.is_already_exists() => Ok(format!("topic {} exists", topic.topic)),
        Err(error) => Err(error.into()),
    }
}
