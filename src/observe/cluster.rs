//! A cluster, as it was seen.

use std::collections::BTreeMap;

use futures::future::join_all;
use kube::ResourceExt;
use rivven_fsm::cluster as fsm;
use rivven_fsm::cluster::{Object, Presence};
use serde_json::Value;

use super::{ObserveError, Observer, live, pod};
use crate::api::{ReclaimPolicy, RivvenCluster, RivvenClusterSpec};
use crate::broker::{self, BrokerAddress, Inquiry, Member, Token, capabilities_of};
use crate::{names, render};

/// What was seen of a cluster, and what the steps that may follow need.
pub struct ClusterSight {
    /// What decisions are made from.
    pub observation: fsm::Observation,
    /// What is wanted of each object, by the spec in force.
    pub desired: BTreeMap<Object, Value>,
    /// The live objects that the desired ones were held against, with their `resourceVersion`.
    pub live: BTreeMap<Object, Value>,
    /// The brokers that should be there, as members of one cluster, and where they are.
    pub members: Vec<(Member, BrokerAddress)>,
    /// The token of their admin API.
    pub token: Option<Token>,
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
        let override_ = cluster.annotations().get(broker::capabilities::ANNOTATION).map(String::as_str);

        let (admission, in_force, capabilities) = self.admit(cluster, &namespace, accepted, override_).await;
        let mut desired = BTreeMap::new();
        let mut live = BTreeMap::new();
        let mut objects = Vec::new();
        let mut token = None;
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
                    (Object::AuthSecret, _) => {
                        let (presence, found) = self.auth_secret(&namespace, &name, &uid).await;
                        token = found;
                        presence
                    }
                    (_, Some(why)) => Presence::Unknown { why: why.clone() },
                    _ => live::presence(wanted, live.get(object), &uid),
                };
                objects.push((*object, presence));
            }
        }

        let replicas = in_force.as_ref().map_or(cluster.spec.replicas, |spec| spec.replicas);
        let stateful_set = ours.map(stateful_set);
        let place = Place { namespace: &namespace, cluster: &name, uid: &uid };
        let wanted = stateful_set.as_ref().and_then(|set| set.update_revision.as_deref());
        let mut brokers = self.brokers_of(&place, replicas, wanted, capabilities, token.as_ref()).await;
        if finalizer && in_force.is_some() && deletion.is_none() && ours.is_none() {
            // A StatefulSet takes any claim of the needed name, so each is looked for before there is one.
            for broker in brokers.iter_mut().filter(|broker| broker.ordinal < replicas && broker.claim.is_none()) {
                broker.claim = self.unwatched_claim(&namespace, &names::claim(&name, broker.ordinal), &uid).await?;
            }
        }
        let capabilities = as_reported(capabilities, in_force.as_ref(), &brokers);
        let partitions = if capabilities.partition_metadata {
            self.partitions_of(&place, wanted, &brokers).await
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
            formed: cluster.annotations().get(names::FORMED) == Some(&uid),
            partitions,
            replicas,
            capabilities,
            dependents: if deletion.is_some() { self.dependents(&namespace, &name) } else { Vec::new() },
        };
        let members = (0..replicas).map(|ordinal| self.member(&namespace, &name, ordinal)).collect();
        Ok(ClusterSight { observation, desired, live, members, token })
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
        let capabilities =
            capabilities_of(&cluster.spec.version, cluster.spec.replicas, override_).unwrap_or_else(|problem| {
                wish.problems.push(format!("annotation {}: {problem}", broker::capabilities::ANNOTATION));
                broker::capabilities(&cluster.spec.version)
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
            Some(spec) => capabilities_of(&spec.version, spec.replicas, override_)
                .unwrap_or_else(|_| broker::capabilities(&spec.version)),
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

    /// Every broker that should be or is there: by pod, by claim, by number. `wanted` is the revision that their pods
    /// should have.
    async fn brokers_of(
        &self,
        place: &Place<'_>,
        replicas: u32,
        wanted: Option<&str>,
        capabilities: fsm::Capabilities,
        token: Option<&Token>,
    ) -> Vec<fsm::Broker> {
        let Place { namespace, cluster, uid } = *place;
        let is_ours =
            |labels: &BTreeMap<String, String>| labels.get(names::CLUSTER).map(String::as_str) == Some(cluster);
        let pods = self.caches.pods.select(namespace, |pod| is_ours(pod.labels()));
        let mut ordinals: std::collections::BTreeSet<u32> = (0..replicas).collect();
        ordinals.extend(pods.iter().filter_map(|pod| names::ordinal(cluster, &pod.name_any())));
        let claims = self.caches.claims.select(namespace, |claim| is_ours(claim.labels()));
        ordinals
            .extend(claims.iter().filter_map(|claim| names::ordinal(cluster, claim.name_any().strip_prefix("data-")?)));
        let mut brokers: Vec<fsm::Broker> = ordinals
            .into_iter()
            .map(|ordinal| {
                let pod = self.caches.pods.get(namespace, &names::pod(cluster, ordinal));
                let claim = self.caches.claims.get(namespace, &names::claim(cluster, ordinal));
                fsm::Broker {
                    ordinal,
                    pod: pod.as_deref().map(pod::facts),
                    answer: fsm::Answer::NotAsked,
                    claim: claim.map(|claim| pod::claim(&claim, uid)),
                }
            })
            .collect();
        let token = token.filter(|_| capabilities.clustering);
        if capabilities.clustering && token.is_none() {
            return brokers;
        }
        let settled = (0..replicas).all(|ordinal| {
            let pod = brokers.iter().find(|broker| broker.ordinal == ordinal).and_then(|broker| broker.pod.as_ref());
            pod.is_some_and(|pod| pod.is_up() && Some(pod.revision.as_str()) == wanted)
        });
        self.ask(place, &mut brokers, settled, token).await;
        // Pods that are all well do not make answers of different times one picture: then all are asked anew.
        if settled && token.is_some() && !agree(&brokers) {
            self.ask(place, &mut brokers, false, token).await;
        }
        brokers
    }

    /// Asks every broker that can answer. One that is to become a member is asked before its pod is ready, for it is
    /// not ready before it is a member.
    async fn ask(&self, place: &Place<'_>, brokers: &mut [fsm::Broker], settled: bool, token: Option<&Token>) {
        let Place { namespace, cluster, .. } = *place;
        let member = |url: &str| names::ordinal_at(cluster, namespace, url, &self.domain);
        let inquiry = Inquiry { settled, token, member: &member };
        let inquiry = &inquiry;
        let answers = brokers.iter().map(|broker| async move {
            let pod = self.caches.pods.get(namespace, &names::pod(cluster, broker.ordinal));
            let can = |facts: &fsm::Pod| facts.is_up() || (token.is_some() && !facts.terminating);
            match (broker.pod.as_ref().is_some_and(can), pod.as_deref().and_then(pod::incarnation)) {
                (true, Some(incarnation)) => {
                    self.brokers.ask(&self.address(namespace, cluster, broker.ordinal), incarnation, inquiry).await
                }
                _ => fsm::Answer::NotAsked,
            }
        });
        let answers = join_all(answers).await;
        for (broker, answer) in brokers.iter_mut().zip(answers) {
            broker.answer = answer;
        }
    }

    /// What the brokers' metadata says of the partitions: the controller's leader is asked, or else any that answers.
    async fn partitions_of(&self, place: &Place<'_>, wanted: Option<&str>, brokers: &[fsm::Broker]) -> fsm::Partitions {
        let Place { namespace, cluster, .. } = *place;
        let answers = |broker: &&fsm::Broker| matches!(broker.answer, fsm::Answer::Said { healthy: true, .. });
        let leads = |broker: &&fsm::Broker| matches!(broker.answer, fsm::Answer::Said { leader: true, .. });
        let asked = brokers.iter().filter(answers).max_by_key(|broker| leads(broker));
        let pod = asked.and_then(|broker| self.caches.pods.get(namespace, &names::pod(cluster, broker.ordinal)));
        let (Some(asked), Some(incarnation)) = (asked, pod.as_deref().and_then(pod::incarnation)) else {
            return fsm::Partitions::Unknown { why: "no broker answers".to_owned() };
        };
        let settled = brokers.iter().all(|broker| {
            let as_wanted = |pod: &fsm::Pod| pod.is_up() && Some(pod.revision.as_str()) == wanted;
            answers(&broker) && broker.pod.as_ref().is_some_and(as_wanted)
        });
        let ordinal = |node: &str| names::ordinal(cluster, node);
        self.brokers.partitions(&self.address(namespace, cluster, asked.ordinal), incarnation, settled, ordinal).await
    }

    fn member(&self, namespace: &str, cluster: &str, ordinal: u32) -> (Member, BrokerAddress) {
        let member = Member {
            node_id: names::pod(cluster, ordinal),
            addr: names::api_url(cluster, namespace, ordinal, &self.domain),
        };
        (member, self.address(namespace, cluster, ordinal))
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

/// Where a cluster is.
struct Place<'a> {
    namespace: &'a str,
    cluster: &'a str,
    uid: &'a str,
}

/// All answer that they are well, one leads, and all know the same members.
fn agree(brokers: &[fsm::Broker]) -> bool {
    let said = brokers.iter().filter_map(|broker| match &broker.answer {
        fsm::Answer::Said { healthy: true, leader, membership, .. } => Some((*leader, membership)),
        _ => None,
    });
    let said: Vec<_> = said.collect();
    said.len() == brokers.len()
        && said.iter().filter(|(leader, _)| *leader).count() == 1
        && said.windows(2).all(|pair| pair[0].1 == pair[1].1)
}

/// A version that says nothing is known as soon as the brokers report theirs. How they are run stays as it was decided
/// without knowing: it is in their template.
fn as_reported(
    capabilities: fsm::Capabilities,
    spec: Option<&RivvenClusterSpec>,
    brokers: &[fsm::Broker],
) -> fsm::Capabilities {
    let unknown = broker::capabilities("");
    if spec.is_none_or(|spec| broker::capabilities(&spec.version) != unknown) {
        return capabilities;
    }
    let mut versions = brokers.iter().filter_map(|broker| match &broker.answer {
        fsm::Answer::Said { version, .. } => Some(version.as_str()),
        _ => None,
    });
    match versions.next() {
        Some(first) if versions.all(|other| other == first) => {
            fsm::Capabilities { clustering: capabilities.clustering, ..broker::capabilities(first) }
        }
        _ => capabilities,
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
