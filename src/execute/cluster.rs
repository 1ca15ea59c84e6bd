//! The steps of a cluster.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::{Api, ResourceExt};
use rivven_fsm::cluster::{Object, Step};
use serde_json::{Value, json};

use super::{Executor, StepError, apply};
use crate::api::RivvenCluster;
use crate::broker::{Brokers, Member};
use crate::names;
use crate::observe::ClusterSight;

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
            Step::AdoptVolume { claim, uid } => {
                // All labels: the watches see it by them.
                let mut labels = json!(names::labels(&name));
                labels[names::CLUSTER_UID] = json!(cluster.uid());
                let patch = json!({ "metadata": { "uid": uid, "labels": labels } });
                let api = Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), &namespace);
                api.patch(claim, &PatchParams::default(), &Patch::Merge(patch)).await?;
                Ok(format!("volume claim {claim} adopted"))
            }
            Step::Bootstrap { founder } => bootstrap(sight, brokers, *founder).await,
            Step::MarkFormed => {
                let mark = json!({ names::FORMED: cluster.uid() });
                let patch = json!({ "metadata": { "uid": cluster.uid(), "annotations": mark } });
                let api = Api::<RivvenCluster>::namespaced(self.client.clone(), &namespace);
                api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await?;
                Ok("noted that the cluster was formed".to_owned())
            }
            Step::RestartPod { ordinal, uid } => {
                let pod = names::pod(&name, *ordinal);
                self.evict(&namespace, &pod, uid).await?;
                Ok(format!("pod {pod} evicted; it restarts at the wanted revision"))
            }
            Step::DeleteStatefulSet { uid } => {
                // Foreground: the set stays until its pods are gone, so "the set is gone" means that the brokers stopped.
                let params = DeleteParams {
                    preconditions: Some(only(uid)),
                    propagation_policy: Some(PropagationPolicy::Foreground),
                    ..DeleteParams::default()
                };
                let set = names::stateful_set(&name);
                Api::<StatefulSet>::namespaced(self.client.clone(), &namespace).delete(&set, &params).await?;
                Ok(format!("StatefulSet {set} deleted; its brokers stop first"))
            }
            Step::DeleteVolume { claim, uid } => {
                let params = DeleteParams { preconditions: Some(only(uid)), ..DeleteParams::default() };
                Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), &namespace)
                    .delete(claim, &params)
                    .await?;
                Ok(format!("volume claim {claim} deleted"))
            }
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
                apply::create(&self.client, desired, Some(json!({ names::TOKEN_KEY: token()? }))).await?;
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
    let members: Vec<Member> = sight.members.iter().map(|(member, _)| member.clone()).collect();
    brokers.bootstrap(address, token, &members).await?;
    Ok(format!("{} was told of {} members", address.pod, members.len()))
}

fn only(uid: &str) -> Preconditions {
    Preconditions { uid: Some(uid.to_owned()), resource_version: None }
}

/// A new token for the admin API of the brokers.
fn token() -> Result<String, StepError> {
    use std::fmt::Write;
    let mut bytes = [0_u8; TOKEN_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| StepError::Internal(format!("no randomness for a token: {error}")))?;
    Ok(bytes.iter().fold(String::with_capacity(2 * TOKEN_BYTES), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    }))
}
