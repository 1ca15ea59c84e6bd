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
        topic: &mut RivvenTopic,
        sight: &TopicSight,
        brokers: &Brokers,
        step: &Step,
    ) -> Result<String, StepError> {
        self.may_write()?;
        let name = &sight.observation.wish.topic;
        match step {
            Step::RemoveFinalizer { reason } => {
                return self
                    .set_finalizer(topic, false)
                    .await
                    .map(|()| format!("finalizer removed: {}", reason.meaning().trim()));
            }
            Step::Claim { cluster_uid } => {
                self.claim(topic, cluster_uid).await?;
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
                        self.disclaim(topic).await?;
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
            _ => match brokers.delete_topic(address, incarnation, name).await {
                Ok(()) => Ok(format!("topic {name} deleted")),
                Err(error) if error.is_not_found() => Ok(format!("topic {name} was gone already")),
                Err(error) => Err(error.into()),
            },
        }
    }

    /// Mark and finalizer in one write.
    async fn claim(&self, topic: &mut RivvenTopic, cluster_uid: &str) -> Result<(), StepError> {
        let mut finalizers = topic.finalizers().to_vec();
        if !finalizers.iter().any(|name| name == names::FINALIZER) {
            finalizers.push(names::FINALIZER.to_owned());
        }
        let annotations = json!({ names::TOPIC_MARK: cluster_uid });
        // A merge patch replaces the whole list: with the resourceVersion it cannot undo what somebody else just wrote.
        let version = topic.resource_version();
        self.write_metadata(
            topic,
            json!({ "resourceVersion": version, "finalizers": finalizers, "annotations": annotations }),
        )
        .await
    }

    /// Takes the mark back.
    async fn disclaim(&self, topic: &mut RivvenTopic) -> Result<(), StepError> {
        let uid = topic.uid();
        self.write_metadata(topic, json!({ "uid": uid, "annotations": { names::TOPIC_MARK: Value::Null } })).await
    }

    /// The steps that follow, and the next look, must know of the version that this makes.
    async fn write_metadata(&self, topic: &mut RivvenTopic, metadata: Value) -> Result<(), StepError> {
        let api = Api::<RivvenTopic>::namespaced(self.client.clone(), &topic.namespace().unwrap_or_default());
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        topic.metadata = api.patch_metadata(&topic.name_any(), &PatchParams::default(), &patch).await?.metadata;
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
