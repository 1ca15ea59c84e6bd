//! The steps of a topic.

use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use rivven_fsm::topic::Step;
use serde_json::{Value, json};

use super::{Executor, StepError};
use crate::api::RivvenTopic;
use crate::broker::topic_config::MIN_INSYNC_REPLICAS;
use crate::broker::{self, BrokerAddress, Brokers};
use crate::names;
use crate::observe::TopicSight;

impl Executor {
    /// Runs one step of a topic. The answer is what was done, for a person.
    pub async fn topic_step(
        &self,
        topic: &RivvenTopic,
        sight: &TopicSight,
        brokers: &Brokers,
        step: &Step,
    ) -> Result<String, StepError> {
        self.may_write()?;
        let name = &sight.observation.wish.topic;
        match step {
            Step::AddFinalizer => return self.set_finalizer(topic, true).await.map(|()| "finalizer added".to_owned()),
            Step::RemoveFinalizer { reason } => {
                return self
                    .set_finalizer(topic, false)
                    .await
                    .map(|()| format!("finalizer removed: {}", reason.meaning().trim()));
            }
            Step::Mark { cluster_uid } => {
                self.mark(topic, json!(cluster_uid)).await?;
                return Ok(format!("topic {name} marked as this object's"));
            }
            Step::Create { .. } | Step::Grow { .. } | Step::Configure { .. } | Step::DeleteTopic => {}
        }
        let Some((address, incarnation)) = &sight.broker else {
            return Err(StepError::Internal("a step for a broker was decided without a broker".to_owned()));
        };
        match step {
            Step::Create { partitions, assignments } => {
                let created = if assignments.is_empty() {
                    brokers.create_topic(address, incarnation, name, *partitions).await
                } else {
                    create_replicated(brokers, sight, address, assignments).await
                };
                match created {
                    Ok(()) => Ok(format!("topic {name} created with {partitions} partitions")),
                    Err(error) if error.is_already_exists() => {
                        // Somebody made it between our look and our call: it is not ours, whatever the mark says.
                        self.mark(topic, Value::Null).await?;
                        Err(StepError::Moved(error.to_string()))
                    }
                    Err(error) => Err(error.into()),
                }
            }
            Step::Grow { partitions } => {
                brokers.grow_topic(address, incarnation, name, *partitions).await?;
                Ok(format!("topic {name} grown to {partitions} partitions"))
            }
            Step::Configure { entries } => {
                brokers.alter_topic(address, incarnation, name, entries).await?;
                let keys: Vec<&str> = entries.keys().map(String::as_str).collect();
                Ok(format!("configuration of topic {name} altered: {}", keys.join(", ")))
            }
            _ => {
                brokers.delete_topic(address, incarnation, name).await?;
                Ok(format!("topic {name} deleted"))
            }
        }
    }

    async fn mark(&self, topic: &RivvenTopic, value: Value) -> Result<(), StepError> {
        let patch = json!({ "metadata": { "uid": topic.uid(), "annotations": { names::TOPIC_MARK: value } } });
        let api = Api::<RivvenTopic>::namespaced(self.client.clone(), &topic.namespace().unwrap_or_default());
        api.patch(&topic.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }
}

async fn create_replicated(
    brokers: &Brokers,
    sight: &TopicSight,
    address: &BrokerAddress,
    assignments: &[Vec<u32>],
) -> Result<(), broker::Error> {
    let Some(token) = &sight.token else {
        return Err(broker::Error::Unreachable("the token of the brokers' admin API is not known".to_owned()));
    };
    let wish = &sight.observation.wish;
    let nodes: Vec<Vec<String>> = assignments
        .iter()
        .map(|replicas| replicas.iter().map(|ordinal| names::pod(&sight.cluster, *ordinal)).collect())
        .collect();
    let minimum = wish.config.get(MIN_INSYNC_REPLICAS).and_then(|value| value.parse().ok()).unwrap_or(1);
    brokers.create_replicated_topic(address, token, &wish.topic, minimum, &nodes).await
}
