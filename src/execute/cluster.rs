//! The steps of a cluster.

use chrono::SecondsFormat;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::{Api, ResourceExt};
use rivven_fsm::cluster::storage::quantity;
use rivven_fsm::cluster::{Leadership, Object, Step, scale};
use serde_json::{Value, json};

use super::{Executor, StepError, apply};
use crate::api::RivvenCluster;
use crate::broker::{self, BrokerAddress, Brokers, Member, Token};
use crate::names;
use crate::observe::{ClusterSight, Halt, moves};

/// Bytes of randomness in an admin token.
const TOKEN_BYTES: usize = 32;

impl Executor {
    /// Runs one step of a cluster. The answer is what was done, for a person.
    pub async fn cluster_step(
        &self,
        cluster: &RivvenCluster,
        sight: &ClusterSight,
        brokers: &Brokers,
        step: &Step,
    ) -> Result<String, StepError> {
        self.may_write()?;
        let namespace = cluster.namespace().unwrap_or_default();
        let name = cluster.name_any();
        match step {
            Step::AddFinalizer => self.set_finalizer(cluster, true).await.map(|()| "finalizer added".to_owned()),
            Step::RemoveFinalizer => self.set_finalizer(cluster, false).await.map(|()| "finalizer removed".to_owned()),
            Step::Apply(object) => self.apply(sight, *object).await,
            Step::DeleteObject { object, uid } => {
                let live = sight.live.get(object).unwrap_or(&Value::Null);
                apply::delete(&self.client, live, uid).await?;
                let name = live["metadata"]["name"].as_str().unwrap_or_default();
                Ok(format!("{} {name} deleted", object.kind()))
            }
            Step::AdoptVolume { claim, uid } => {
                // All labels: the watches see it by them.
                let mut labels = json!(names::labels(&name));
                labels[names::CLUSTER_UID] = json!(cluster.uid());
                let patch = json!({ "metadata": { "uid": uid, "labels": labels } });
                self.merge::<PersistentVolumeClaim>(&namespace, claim, patch).await?;
                Ok(format!("volume claim {claim} adopted"))
            }
            Step::Bootstrap { founder } => bootstrap(sight, brokers, *founder).await,
            Step::MarkFormed => {
                let mark = json!({ names::FORMED: cluster.uid() });
                let patch = json!({ "metadata": { "uid": cluster.uid(), "annotations": mark } });
                self.merge::<RivvenCluster>(&namespace, &name, patch).await?;
                Ok("noted that the cluster was formed".to_owned())
            }
            Step::HaltRollout { broker, revision, reason, message } => {
                self.halt(&namespace, &name, sight, (*broker, revision), &format!("{reason}: {message}")).await
            }
            Step::ExpandVolume { claim, uid, bytes } => {
                let patch = json!({
                    "metadata": { "uid": uid, "annotations": { names::ASKED: bytes.to_string() } },
                    "spec": { "resources": { "requests": { "storage": quantity(*bytes) } } },
                });
                self.merge::<PersistentVolumeClaim>(&namespace, claim, patch).await?;
                Ok(format!("{} asked for of volume claim {claim}", quantity(*bytes)))
            }
            Step::OrphanStatefulSet { uid } => {
                let set = names::stateful_set(&name);
                self.delete::<StatefulSet>(&namespace, &set, uid, Some(PropagationPolicy::Orphan)).await?;
                Ok(format!("StatefulSet {set} taken away from around its brokers; it is made anew"))
            }
            Step::Scale { uid, replicas } => {
                let set = names::stateful_set(&name);
                // By the version that was looked at: a larger one that somebody just asked for is not lowered unseen.
                let live = sight.live.get(&Object::StatefulSet).unwrap_or(&Value::Null);
                let metadata = json!({ "uid": uid, "resourceVersion": live["metadata"]["resourceVersion"] });
                let patch = json!({ "metadata": metadata, "spec": { "replicas": replicas } });
                self.merge::<StatefulSet>(&namespace, &set, patch).await?;
                Ok(format!("StatefulSet {set} scaled to {replicas}"))
            }
            Step::DeletePod { ordinal, uid } => {
                let pod = names::pod(&name, *ordinal);
                self.delete::<Pod>(&namespace, &pod, uid, None).await?;
                Ok(format!("pod {pod}, which no StatefulSet keeps, is stopped"))
            }
            Step::NoteMoves { moves } => {
                let note = if moves.is_empty() { Value::Null } else { json!(moves::text(moves)) };
                // With the version: a note that was made from a view of the past must not replace a later one.
                let version = cluster.resource_version();
                let metadata =
                    json!({ "uid": cluster.uid(), "resourceVersion": version, "annotations": { names::MOVES: note } });
                self.merge::<RivvenCluster>(&namespace, &name, json!({ "metadata": metadata })).await?;
                Ok(format!("noted that {} replicas are on the move", moves.len()))
            }
            Step::NoteEmpty { claim, uid, since } => {
                let since = since.map(|since| since.to_rfc3339_opts(SecondsFormat::Millis, true));
                let patch = json!({ "metadata": { "uid": uid, "annotations": { names::EMPTY_SINCE: since } } });
                self.merge::<PersistentVolumeClaim>(&namespace, claim, patch).await?;
                Ok(format!("noted on volume claim {claim} whether its broker is empty"))
            }
            Step::AddLearner { .. }
            | Step::ChangeVoters { .. }
            | Step::TransferController { .. }
            | Step::ElectLeaders { .. }
            | Step::Reassign { .. } => {
                let outcome = at_leader(&name, sight, brokers, step).await;
                // What was said before the call says nothing any more, whether it took effect or its reply was lost.
                brokers.ask_anew(sight.members.iter().map(|(_, address)| address)).await;
                outcome
            }
            Step::RestartPod { ordinal, uid } => {
                let pod = names::pod(&name, *ordinal);
                self.evict(&namespace, &pod, uid).await?;
                Ok(format!("pod {pod} evicted; it restarts at the wanted revision"))
            }
            Step::DeleteStatefulSet { uid } => {
                // Foreground: the set stays until its pods are gone, so "the set is gone" means that the brokers stopped.
                let set = names::stateful_set(&name);
                self.delete::<StatefulSet>(&namespace, &set, uid, Some(PropagationPolicy::Foreground)).await?;
                Ok(format!("StatefulSet {set} deleted; its brokers stop first"))
            }
            Step::DeleteVolume { claim, uid } => {
                self.delete::<PersistentVolumeClaim>(&namespace, claim, uid, None).await?;
                Ok(format!("volume claim {claim} deleted"))
            }
        }
    }

    /// Notes on the StatefulSet that the rollout of its template was halted.
    async fn halt(
        &self,
        namespace: &str,
        cluster: &str,
        sight: &ClusterSight,
        (broker, revision): (u32, &str),
        why: &str,
    ) -> Result<String, StepError> {
        let halt = Halt {
            template: sight.template.clone(),
            revision: revision.to_owned(),
            broker,
            message: format!(
                "the rollout was halted, and the last spec that every broker ran well on is in force: {why}"
            ),
        };
        let live = sight.live.get(&Object::StatefulSet).unwrap_or(&Value::Null);
        // By the version that was looked at: the template must still be the one that is said to be broken.
        let metadata = json!({
            "uid": live["metadata"]["uid"],
            "resourceVersion": live["metadata"]["resourceVersion"],
            "annotations": { names::HALTED: json!(halt).to_string() },
        });
        let patch = json!({ "metadata": metadata });
        self.merge::<StatefulSet>(namespace, &names::stateful_set(cluster), patch).await?;
        Ok(halt.message)
    }

    /// Merges a patch into an object; preconditions stand in its metadata.
    async fn merge<K>(&self, namespace: &str, name: &str, patch: Value) -> Result<(), StepError>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + serde::de::DeserializeOwned
            + std::fmt::Debug,
    {
        let api = Api::<K>::namespaced(self.client.clone(), namespace);
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Deletes this very object and no other of its name.
    pub(super) async fn delete<K>(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        propagation_policy: Option<PropagationPolicy>,
    ) -> Result<(), StepError>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + serde::de::DeserializeOwned
            + std::fmt::Debug,
    {
        let preconditions = Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
        let params = DeleteParams { preconditions, propagation_policy, ..DeleteParams::default() };
        match Api::<K>::namespaced(self.client.clone(), namespace).delete(name, &params).await {
            Ok(_) => Ok(()),
            // Somebody was quicker.
            Err(kube::Error::Api(status)) if status.code == 404 => Err(StepError::Moved(status.message)),
            Err(error) => Err(error.into()),
        }
    }

    /// Evicts a pod: the API server counts it against the disruption budget, so that a drain and the operator never
    /// take two brokers at once. As a raw request: the client's own sends the options under a name that the API server
    /// does not know, and the uid with them.
    async fn evict(&self, namespace: &str, pod: &str, uid: &str) -> Result<(), StepError> {
        let eviction = json!({
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": { "name": pod, "namespace": namespace },
            "deleteOptions": { "preconditions": { "uid": uid } },
        });
        let request = http::Request::post(format!("/api/v1/namespaces/{namespace}/pods/{pod}/eviction"))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(eviction.to_string().into_bytes())
            .map_err(|error| StepError::Internal(error.to_string()))?;
        self.client.request::<Value>(request).await?;
        Ok(())
    }

    async fn apply(&self, sight: &ClusterSight, object: Object) -> Result<String, StepError> {
        let Some(desired) = sight.desired.get(&object) else {
            return Err(StepError::Internal(format!("nothing was rendered for {object:?}")));
        };
        let name = desired.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        match sight.live.get(&object) {
            Some(live) => {
                apply::replace(&self.client, desired, live).await?;
                Ok(format!("{} {name} brought back to what is wanted", object.kind()))
            }
            None if object == Object::AuthSecret => {
                apply::create(&self.client, desired, Some(json!({ names::TOKEN_KEY: random_hex()? }))).await?;
                Ok(format!("Secret {name} created"))
            }
            None => {
                apply::create(&self.client, desired, None).await?;
                Ok(format!("{} {name} created", object.kind()))
            }
        }
    }

    pub(super) async fn set_finalizer<K>(&self, object: &K, wanted: bool) -> Result<(), StepError>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + serde::de::DeserializeOwned
            + std::fmt::Debug,
    {
        self.may_write()?;
        let mut finalizers: Vec<String> =
            object.finalizers().iter().filter(|name| *name != names::FINALIZER).cloned().collect();
        if wanted {
            finalizers.push(names::FINALIZER.to_owned());
        }
        // A merge patch replaces the whole list: with the resourceVersion it cannot undo what somebody else just wrote.
        let patch = json!({ "metadata": { "resourceVersion": object.resource_version(), "finalizers": finalizers } });
        let api = Api::<K>::namespaced(self.client.clone(), &object.namespace().unwrap_or_default());
        match api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
            // The last finalizer went by another hand, and the object with it: what was wanted is so.
            Err(kube::Error::Api(status)) if status.code == 404 && !wanted => Ok(()),
            done => Ok(done.map(drop)?),
        }
    }
}

/// Tells one broker of all. That another was faster shows in the refusal of the broker; the next look sees it.
async fn bootstrap(sight: &ClusterSight, brokers: &Brokers, founder: u32) -> Result<String, StepError> {
    let (Some((_, address)), Some(token)) = (sight.members.get(founder as usize), &sight.token) else {
        return Err(StepError::Internal("a bootstrap was decided without a broker or its token".to_owned()));
    };
    let wanted = sight.members.iter().take(sight.observation.replicas as usize);
    let members: Vec<Member> = wanted.map(|(member, _)| member.clone()).collect();
    brokers.bootstrap(address, token, &members).await?;
    Ok(format!("{} was told of {} members", address.pod, members.len()))
}

/// A change of the members or of the replicas: the controller's leader takes it. That another leads by now shows in its
/// refusal; the next look sees it.
async fn at_leader(cluster: &str, sight: &ClusterSight, brokers: &Brokers, step: &Step) -> Result<String, StepError> {
    let member = |ordinal: u32| sight.members.get(ordinal as usize);
    let (Some((_, leader)), Some(token)) = (scale::leader(&sight.observation).and_then(member), &sight.token) else {
        return Err(StepError::Moved("no broker leads the controller".to_owned()));
    };
    let nodes = |ordinals: &[u32]| -> Vec<String> { ordinals.iter().map(|o| names::pod(cluster, *o)).collect() };
    let (outcome, note) = match step {
        Step::AddLearner { ordinal } => {
            let Some((joins, _)) = member(*ordinal) else {
                return Err(StepError::Internal(format!("broker {ordinal} was not looked at")));
            };
            (brokers.add_learner(leader, token, joins).await, format!("{} learns what the others know", joins.node_id))
        }
        Step::ChangeVoters { voters } => {
            let voters = nodes(voters);
            (brokers.change_voters(leader, token, &voters).await, format!("the voters are {}", voters.join(", ")))
        }
        Step::TransferController { to } => {
            let to = names::pod(cluster, *to);
            (brokers.transfer_controller(leader, token, &to).await, format!("{} hands over to {to}", leader.pod))
        }
        Step::ElectLeaders { leaders } => {
            let outcome = elect_leaders(brokers, leader, token, cluster, leaders).await;
            (outcome, format!("{} partitions were given other leaders", leaders.len()))
        }
        Step::Reassign { topic, partition, replicas } => {
            let replicas = nodes(replicas);
            let note = format!("{topic}/{partition} is on {}", replicas.join(", "));
            (brokers.reassign(leader, token, (topic, *partition), &replicas).await, note)
        }
        other => return Err(StepError::Internal(format!("{} is no step for a leader", other.name()))),
    };
    match outcome {
        Ok(()) => Ok(note),
        // A broker that has much to learn takes its time: the next look sees how far it is, and nothing is called twice.
        Err(broker::Error::Timeout(limit)) => Ok(format!("{note}; not answered within {limit:?}")),
        Err(error) => Err(error.into()),
    }
}

async fn elect_leaders(
    brokers: &Brokers,
    leader: &BrokerAddress,
    token: &Token,
    cluster: &str,
    leaders: &[Leadership],
) -> Result<(), broker::Error> {
    for leadership in leaders {
        let partition = (leadership.topic.as_ref(), leadership.partition);
        brokers.elect_leader(leader, token, partition, &names::pod(cluster, leadership.to)).await?;
    }
    Ok(())
}

/// A new token for the admin API of the brokers, or whatever else nobody is to guess.
pub(super) fn random_hex() -> Result<String, StepError> {
    use std::fmt::Write;
    let mut bytes = [0_u8; TOKEN_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| StepError::Internal(format!("no randomness: {error}")))?;
    Ok(bytes.iter().fold(String::with_capacity(2 * TOKEN_BYTES), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    }))
}
