//! A cluster, as it was seen.

use std::collections::BTreeMap;

use futures::future::join_all;
use kube::ResourceExt;
use rivven_fsm::cluster as fsm;
use rivven_fsm::cluster::{Object, Presence};
use serde_json::Value;

use super::{ObserveError, Observer, live, pod};
use crate::api::{ReclaimPolicy, RivvenCluster, RivvenClusterSpec};
use crate::broker::{BrokerAddress, capabilities_with};
use crate::{names, render};

/// What was seen of a cluster, and what the steps that may follow need.
pub struct ClusterSight {
    /// What decisions are made from.
    pub observation: fsm::Observation,
    /// What is wanted of each object, by the spec in force.
    pub desired: BTreeMap<Object, Value>,
    /// The live objects that the desired ones were held against, with their `resourceVersion`.
    pub live: BTreeMap<Object, Value>,
}

impl Observer {
    /// Looks at a cluster.
    pub async fn cluster(&self, cluster: &RivvenCluster) -> Result<ClusterSight, ObserveError> {
        let name = cluster.name_any();
        let namespace = cluster.namespace().unwrap_or_default();
        let uid = cluster.uid().unwrap_or_default();
        let finalizer = cluster.finalizers().iter().any(|f| f == names::FINALIZER);
        let deletion = cluster.metadata.deletion_timestamp.as_ref().map(|at| fsm::Deletion {
            requested_at: pod::time(at),
            reclaim: match cluster.spec.storage.reclaim_policy {
                ReclaimPolicy::Retain => fsm::ReclaimPolicy::Retain,
                ReclaimPolicy::Delete => fsm::ReclaimPolicy::Delete,
            },
        });

        // Before the finalizer is on, nothing was ever created, so there is nothing to ask the API server for.
        let set = if finalizer { self.live(&namespace, &name, Object::StatefulSet).await? } else { None };
        let ours = set
            .as_ref()
            .filter(|set| !matches!(live::presence(&Value::Null, Some(set), &uid), Presence::Foreign { .. }));
        let accepted = ours.and_then(accepted_spec);
        let override_ = cluster.annotations().get(crate::broker::capabilities::ANNOTATION).map(String::as_str);

        let (admission, in_force, capabilities) = self.admit(cluster, &namespace, accepted, override_).await;
        let mut desired = BTreeMap::new();
        let mut live = BTreeMap::new();
        let mut objects = Vec::new();
        if let (Some(spec), None) = (&in_force, deletion) {
            let input = render::Input {
                name: &name,
                namespace: &namespace,
                uid: &uid,
                spec,
                capabilities,
                domain: &self.domain,
            };
            desired = render::cluster(&input);
            let unreadable;
            (live, unreadable) = self.live_objects(&namespace, &name, set.as_ref()).await;
            for (object, wanted) in &desired {
                let presence = match (object, unreadable.get(object)) {
                    (Object::AuthSecret, _) => self.auth_secret(&namespace, &name, &uid).await,
                    (_, Some(why)) => Presence::Unknown { why: why.clone() },
                    _ => live::presence(wanted, live.get(object), &uid),
                };
                objects.push((*object, presence));
            }
        }

        let replicas = in_force.as_ref().map_or(cluster.spec.replicas, |spec| spec.replicas);
        let mut brokers = self.brokers_of(&namespace, &name, &uid, replicas).await;
        if finalizer && in_force.is_some() && deletion.is_none() && ours.is_none() {
            // A StatefulSet takes any claim of the needed name, so each is looked for before there is one.
            for broker in brokers.iter_mut().filter(|broker| broker.ordinal < replicas && broker.claim.is_none()) {
                broker.claim = self.unwatched_claim(&namespace, &names::claim(&name, broker.ordinal), &uid).await?;
            }
        }
        let stateful_set = ours.map(stateful_set);
        let partitions = if capabilities.partition_metadata {
            self.partitions_of(&namespace, &name, stateful_set.as_ref(), &brokers).await
        } else {
            fsm::Partitions::Unreplicated
        };
        let observation = fsm::Observation {
            recorded: cluster.status.as_ref().and_then(|status| status.phase).map(Into::into),
            deletion,
            finalizer,
            paused: cluster.spec.paused,
            adopt_volumes: cluster.annotations().get(names::ADOPT_VOLUMES).is_some_and(|value| value == "true"),
            admission,
            objects,
            stateful_set,
            brokers,
            partitions,
            replicas,
            capabilities,
            dependents: if deletion.is_some() { self.dependents(&namespace, &name) } else { Vec::new() },
        };
        Ok(ClusterSight { observation, desired, live })
    }

    /// The verdict on the spec, the spec in force, and what its broker version can do.
    async fn admit(
        &self,
        cluster: &RivvenCluster,
        namespace: &str,
        accepted: Option<RivvenClusterSpec>,
        override_: Option<&str>,
    ) -> (fsm::Admission, Option<RivvenClusterSpec>, fsm::Capabilities) {
        let name = cluster.name_any();
        let mut wish = cluster.spec.wish(&name);
        let capabilities = capabilities_with(&cluster.spec.version, override_).unwrap_or_else(|problem| {
            wish.problems.push(format!("annotation {}: {problem}", crate::broker::capabilities::ANNOTATION));
            crate::broker::capabilities(&cluster.spec.version)
        });
        let mut prerequisites = Vec::new();
        let tls = &cluster.spec.tls;
        for secret in [&tls.cert_secret_name, &tls.client_ca_secret_name].into_iter().flatten().filter(|_| tls.enabled)
        {
            let present = self.secret_exists(namespace, secret).await;
            prerequisites.push(fsm::Prerequisite { what: format!("Secret {secret}"), present });
        }
        let candidate = fsm::Candidate {
            wish,
            accepted: accepted.as_ref().map(|spec| spec.wish(&name)),
            capabilities,
            prerequisites,
        };
        let admission = fsm::admit(&candidate);
        let in_force = match &admission {
            fsm::Admission::Accepted => Some(cluster.spec.clone()),
            fsm::Admission::Kept(_) => accepted,
            fsm::Admission::Refused(_) => None,
        };
        let capabilities = match &in_force {
            Some(spec) => capabilities_with(&spec.version, override_)
                .unwrap_or_else(|_| crate::broker::capabilities(&spec.version)),
            None => capabilities,
        };
        (admission, in_force, capabilities)
    }

    /// The live objects, and why those are unknown that could not be read.
    async fn live_objects(
        &self,
        namespace: &str,
        cluster: &str,
        set: Option<&Value>,
    ) -> (BTreeMap<Object, Value>, BTreeMap<Object, String>) {
        let others =
            Object::ALL.into_iter().filter(|object| !matches!(object, Object::AuthSecret | Object::StatefulSet));
        let found =
            join_all(others.map(|object| async move { (object, self.live(namespace, cluster, object).await) })).await;
        let mut live: BTreeMap<Object, Value> = set.map(|set| (Object::StatefulSet, set.clone())).into_iter().collect();
        let mut unreadable = BTreeMap::new();
        for (object, outcome) in found {
            match outcome {
                Ok(Some(value)) => drop(live.insert(object, value)),
                Ok(None) => {}
                Err(error) => drop(unreadable.insert(object, error.to_string())),
            }
        }
        (live, unreadable)
    }

    /// Every broker that should be or is there: by pod, by claim, by number.
    async fn brokers_of(&self, namespace: &str, cluster: &str, uid: &str, replicas: u32) -> Vec<fsm::Broker> {
        let is_ours =
            |labels: &BTreeMap<String, String>| labels.get(names::CLUSTER).map(String::as_str) == Some(cluster);
        let pods = self.caches.pods.select(namespace, |pod| is_ours(pod.labels()));
        let mut ordinals: std::collections::BTreeSet<u32> = (0..replicas).collect();
        ordinals.extend(pods.iter().filter_map(|pod| names::ordinal(cluster, &pod.name_any())));
        let claims = self.caches.claims.select(namespace, |claim| is_ours(claim.labels()));
        ordinals
            .extend(claims.iter().filter_map(|claim| names::ordinal(cluster, claim.name_any().strip_prefix("data-")?)));

        join_all(ordinals.into_iter().map(|ordinal| async move {
            let pod = self.caches.pods.get(namespace, &names::pod(cluster, ordinal));
            let facts = pod.as_deref().map(pod::facts);
            let incarnation = pod.as_deref().and_then(pod::incarnation);
            let answer = match (facts.as_ref().is_some_and(fsm::Pod::is_up), incarnation) {
                (true, Some(incarnation)) => {
                    self.brokers.ask(&self.address(namespace, cluster, ordinal), incarnation).await
                }
                _ => fsm::Answer::NotAsked,
            };
            let claim = self.caches.claims.get(namespace, &names::claim(cluster, ordinal));
            fsm::Broker { ordinal, pod: facts, answer, claim: claim.map(|claim| pod::claim(&claim, uid)) }
        }))
        .await
    }

    /// What the brokers' metadata says of the partitions: the controller's leader is asked, or else any that answers.
    async fn partitions_of(
        &self,
        namespace: &str,
        cluster: &str,
        set: Option<&fsm::StatefulSet>,
        brokers: &[fsm::Broker],
    ) -> fsm::Partitions {
        let answers = |broker: &&fsm::Broker| matches!(broker.answer, fsm::Answer::Said { healthy: true, .. });
        let leads = |broker: &&fsm::Broker| matches!(broker.answer, fsm::Answer::Said { leader: true, .. });
        let asked = brokers.iter().filter(answers).max_by_key(|broker| leads(broker));
        let pod = asked.and_then(|broker| self.caches.pods.get(namespace, &names::pod(cluster, broker.ordinal)));
        let (Some(asked), Some(incarnation)) = (asked, pod.as_deref().and_then(pod::incarnation)) else {
            return fsm::Partitions::Unknown { why: "no broker answers".to_owned() };
        };
        let wanted = set.and_then(|set| set.update_revision.as_ref());
        let settled = brokers.iter().all(|broker| {
            answers(&broker) && broker.pod.as_ref().is_some_and(|pod| pod.is_up() && Some(&pod.revision) == wanted)
        });
        let ordinal = |node: &str| names::ordinal(cluster, node);
        self.brokers.partitions(&self.address(namespace, cluster, asked.ordinal), incarnation, settled, ordinal).await
    }

    /// Where a broker is: by its names alone, never by a status.
    pub(super) fn address(&self, namespace: &str, cluster: &str, ordinal: u32) -> BrokerAddress {
        BrokerAddress {
            namespace: namespace.to_owned(),
            pod: names::pod(cluster, ordinal),
            host: names::host(cluster, namespace, ordinal, &self.domain),
            client_port: names::CLIENT_PORT,
            api_port: names::API_PORT,
        }
    }

    /// Topics and connects that refer to the cluster.
    fn dependents(&self, namespace: &str, cluster: &str) -> Vec<String> {
        let refers = |own: Option<String>, reference: &crate::api::ClusterRef| {
            reference.name == cluster && reference.namespace.clone().or(own).as_deref() == Some(namespace)
        };
        let name = |kind: &str, object: &dyn Fn() -> (Option<String>, String)| {
            let (namespace, name) = object();
            format!("{kind} {}/{name}", namespace.unwrap_or_default())
        };
        let topics = self
            .caches
            .topics
            .select_all(|topic| topic.0.as_ref().is_ok_and(|t| refers(t.namespace(), &t.spec.cluster_ref)));
        let connects = self
            .caches
            .connects
            .select_all(|connect| connect.0.as_ref().is_ok_and(|c| refers(c.namespace(), &c.spec.cluster_ref)));
        let mut all: Vec<String> =
            topics.iter().map(|t| name("RivvenTopic", &|| (t.namespace(), t.name_any()))).collect();
        all.extend(connects.iter().map(|c| name("RivvenConnect", &|| (c.namespace(), c.name_any()))));
        all.sort();
        all
    }
}

fn accepted_spec(set: &Value) -> Option<RivvenClusterSpec> {
    let text =
        set.pointer("/metadata/annotations").and_then(|a| a.get(names::ACCEPTED_SPEC)).and_then(Value::as_str)?;
    serde_json::from_str(text).ok()
}

fn stateful_set(set: &Value) -> fsm::StatefulSet {
    let number = |pointer: &str| set.pointer(pointer).and_then(Value::as_i64);
    let caught_up = number("/status/observedGeneration") >= number("/metadata/generation");
    let revision =
        set.pointer("/status/updateRevision").and_then(Value::as_str).filter(|revision| !revision.is_empty());
    fsm::StatefulSet {
        uid: set.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default().to_owned(),
        replicas: number("/spec/replicas").and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        update_revision: revision.filter(|_| caught_up).map(str::to_owned),
        deleting: set.pointer("/metadata/deletionTimestamp").is_some(),
    }
}
