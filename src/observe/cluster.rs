//! A cluster, as it was seen.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::future::join_all;
use kube::ResourceExt;
use rivven_fsm::cluster as fsm;
use rivven_fsm::cluster::{Object, Presence};
use serde_json::{Value, json};

use super::history::{self, History};
use super::{ObserveError, Observer, certificate, live, moves, pod};
use crate::api::quantity::bytes;
use crate::api::{ReclaimPolicy, RivvenCluster, RivvenClusterSpec};
use crate::broker::{self, BrokerAddress, Freshness, Inquiry, Member, Tls, Token, capabilities_of};
use crate::{names, render};

/// What was seen of a cluster, and what the steps that may follow need.
pub struct ClusterSight {
    /// What decisions are made from.
    pub observation: fsm::Observation,
    /// What is wanted of each object, by the spec in force.
    pub desired: BTreeMap<Object, Value>,
    /// The live objects that the desired ones were held against, with their `resourceVersion`.
    pub live: BTreeMap<Object, Value>,
    /// The brokers by ordinal, those that should be there and those that are, as members of one cluster, and where they
    /// are.
    pub members: Vec<(Member, BrokerAddress)>,
    /// The token of their admin API.
    pub token: Option<Token>,
    /// The hash of the pod template that the spec asks for.
    pub template: String,
}

impl Observer {
    /// Looks at a cluster.
    #[allow(clippy::too_many_lines, reason = "one look, in the order in which each thing depends on those before")]
    pub async fn cluster(&self, cluster: &RivvenCluster, now: DateTime<Utc>) -> Result<ClusterSight, ObserveError> {
        let name = cluster.name_any();
        let namespace = cluster.namespace().unwrap_or_default();
        let uid = cluster.uid().unwrap_or_default();
        let finalizer = cluster.finalizers().iter().any(|f| f == names::FINALIZER);
        let deletion = deletion(cluster);

        // Before the finalizer is on, nothing was ever created, so there is nothing to ask the API server for.
        let set = if finalizer { self.live(&namespace, &name, Object::StatefulSet).await? } else { None };
        let ours = set
            .as_ref()
            .filter(|set| !matches!(live::presence(&Value::Null, Some(set), &uid), Presence::Foreign { .. }));
        let history = ours.map_or_else(|| self.outlived(&namespace, &name, &uid), History::of);
        let override_ = cluster.annotations().get(broker::capabilities::ANNOTATION).map(String::as_str);
        // What runs is looked at as what it was accepted as; whether a change can be carried out depends on it.
        let running = history.accepted.as_ref().unwrap_or(&cluster.spec);
        let able = capabilities_of(&running.version, running.replicas, override_)
            .unwrap_or_else(|_| broker::capabilities(&running.version));
        let serves = deletion.is_none() && history.accepted.is_some();
        let mut secret = if serves { Some(self.auth_secret(&namespace, &name, &uid).await) } else { None };
        let token = secret.as_ref().and_then(|(_, token)| token.as_ref());
        let mut stateful_set = ours.map(stateful_set);
        let (moves, freshness) = in_motion(cluster, running, stateful_set.as_ref());
        let tls = if serves { self.tls_to(&namespace, &name, &running.tls).await } else { None };
        let place = Place { namespace: &namespace, cluster: &name, uid: &uid, freshness, tls: tls.as_ref() };
        let wanted = stateful_set.as_ref().and_then(|set| set.update_revision.as_deref());
        let mut brokers = self.brokers_of(&place, running.replicas, wanted, able, token).await;
        let replicates = as_reported(able, running, &brokers).partition_metadata;
        let partitions = self.partitions_of(&place, wanted, &brokers, replicates).await;
        let formed = cluster.annotations().get(names::FORMED) == Some(&uid);

        let carried = self.carried(&namespace, &name, ours);
        let whose = (namespace.as_str(), name.as_str());
        let verdict =
            self.judge_certificate(whose, (&cluster.spec.tls, cluster.spec.replicas), carried.as_ref(), now).await;
        let specs = [Some(&cluster.spec), history.accepted.as_ref(), history.proven.as_ref()].into_iter().flatten();
        let rules = self.rules(&namespace, specs, ours).await;
        let input = render::Input {
            rules: &rules,
            name: &name,
            namespace: &namespace,
            uid: &uid,
            spec: &cluster.spec,
            capabilities: able,
            domain: &self.domain,
            restarted_at: cluster.annotations().get(names::RESTARTED_AT).map(String::as_str),
            certificate: verdict.material.as_ref(),
        };
        let template_of = |spec: &RivvenClusterSpec| history::template(&input, spec, override_);
        let template = template_of(&cluster.spec);
        if let (Some(set), Some(proven)) = (&mut stateful_set, &history.proven) {
            set.proven = template_of(proven) != template_of(running);
        }
        let halt = history.standing_halt(&template, &brokers);
        let state = Running {
            able: history.accepted.is_some().then_some(able),
            // In a halted rollout the last proven spec is in force.
            accepted: if halt.is_some() { history.proven.clone() } else { history.accepted.clone() },
            halted: halt.map(|halt| halt.message.clone()),
            partitions: if formed { partitions.clone() } else { before_formation(&brokers, &partitions) },
            moves: moves.clone(),
            provisioned_bytes: provisioned(&brokers),
            certificate: &verdict,
        };
        let (admission, in_force, capabilities) = self.admit(cluster, state, override_).await;
        let replicas = in_force.as_ref().map_or(cluster.spec.replicas, |spec| spec.replicas);
        // A refused spec may name another certificate than the one in force.
        let other = in_force.as_ref().filter(|spec| spec.tls != cluster.spec.tls);
        let other = match other.map(|spec| (&spec.tls, spec.replicas)) {
            Some(asked) => Some(self.judge_certificate(whose, asked, carried.as_ref(), now).await),
            None => None,
        };
        let verdict = other.as_ref().unwrap_or(&verdict);
        let (mut desired, mut live, mut objects) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        if let (Some(spec), None) = (&in_force, deletion) {
            let certificate = verdict.material.as_ref();
            let input = render::Input { spec, capabilities, certificate, ..input };
            desired = wanted_objects(&input, &history, halt, stateful_set.as_ref(), &brokers);
            (live, objects) = self.objects(&place, (spec, &brokers), &desired, set.as_ref(), &mut secret).await?;
        }
        let token = secret.and_then(|(_, token)| token);

        let storage_bytes = bytes(&in_force.as_ref().unwrap_or(&cluster.spec).storage.size).unwrap_or(0);
        make_up(&mut brokers, replicas);
        self.note_refusals(&mut brokers, storage_bytes);
        if finalizer && in_force.is_some() && deletion.is_none() {
            let there = stateful_set.as_ref().map_or(0, |set| set.replicas);
            self.unwatched_claims(&place, &mut brokers, there..replicas).await?;
        }
        let capabilities = in_force.as_ref().map_or(capabilities, |spec| as_reported(capabilities, spec, &brokers));
        let spec = in_force.as_ref().unwrap_or(&cluster.spec);
        let observation = fsm::Observation {
            seen_at: now,
            windows: spec.windows(),
            min_ready: Duration::from_secs(spec.min_ready_seconds.into()),
            recorded: cluster.status.as_ref().and_then(|status| status.phase).map(Into::into),
            deletion,
            finalizer,
            paused: cluster.spec.paused,
            adopt_volumes: cluster.annotations().get(names::ADOPT_VOLUMES).is_some_and(|value| value == "true"),
            admission,
            certificate: spec.tls.enabled.then(|| verdict.seen()),
            objects,
            stateful_set,
            brokers,
            formed,
            partitions,
            moves,
            replicas,
            rebalance: spec.rebalance,
            scale_in: policy(spec.storage.scale_in_policy),
            storage_bytes,
            capabilities,
            dependents: if deletion.is_some() { self.dependents(&namespace, &name) } else { Vec::new() },
        };
        let members = self.members(&place, &observation.brokers);
        Ok(ClusterSight { observation, desired, live, members, token, template })
    }

    /// A StatefulSet takes any claim of the needed name, so each is looked for before there is a pod for it.
    async fn unwatched_claims(
        &self,
        place: &Place<'_>,
        brokers: &mut [fsm::Broker],
        ordinals: std::ops::Range<u32>,
    ) -> Result<(), ObserveError> {
        let comes = |broker: &&mut fsm::Broker| ordinals.contains(&broker.ordinal) && broker.claim.is_none();
        for broker in brokers.iter_mut().filter(comes) {
            let name = names::claim(place.cluster, broker.ordinal);
            broker.claim = self.unwatched_claim(place.namespace, &name, place.uid).await?;
        }
        Ok(())
    }

    /// Every broker that should be there or is, by ordinal, as a member.
    fn members(&self, place: &Place<'_>, brokers: &[fsm::Broker]) -> Vec<(Member, BrokerAddress)> {
        let end = brokers.iter().map(|broker| broker.ordinal + 1).max().unwrap_or(0);
        (0..end).map(|ordinal| self.member(place, ordinal)).collect()
    }

    /// The verdict on the spec, the spec in force, and what its broker version can do.
    async fn admit(
        &self,
        cluster: &RivvenCluster,
        running: Running<'_>,
        override_: Option<&str>,
    ) -> (fsm::Admission, Option<RivvenClusterSpec>, fsm::Capabilities) {
        let name = cluster.name_any();
        let mut wish = cluster.spec.wish(&name);
        let capabilities =
            capabilities_of(&cluster.spec.version, cluster.spec.replicas, override_).unwrap_or_else(|problem| {
                wish.problems.push(format!("annotation {}: {problem}", broker::capabilities::ANNOTATION));
                broker::capabilities(&cluster.spec.version)
            });
        let missing = running.certificate.missing.clone();
        let mut prerequisites: Vec<_> =
            missing.into_iter().map(|(what, present)| fsm::Prerequisite { what, present }).collect();
        if let Some(name) = cluster.spec.rules() {
            let present = self
                .content(&cluster.namespace().unwrap_or_default(), name)
                .await
                .ok()
                .map(|content| content.is_some());
            prerequisites.push(fsm::Prerequisite { what: format!("ConfigMap {name}"), present });
        }
        let candidate = fsm::Candidate {
            wish,
            accepted: running.accepted.as_ref().map(|spec| spec.wish(&name)),
            capabilities,
            prerequisites,
            clusters: running.able.unwrap_or(capabilities).clustering,
            partitions: running.partitions,
            moves: running.moves,
            provisioned_bytes: running.provisioned_bytes,
            certificate_problem: running.certificate.problem.clone(),
            certificate_divides: running.certificate.divides.clone(),
            halted: running.halted,
            forced_version: cluster.annotations().get(names::FORCE_VERSION).cloned(),
        };
        let admission = fsm::admit(&candidate);
        let in_force = match &admission {
            fsm::Admission::Accepted => Some(cluster.spec.clone()),
            fsm::Admission::Kept(_) => running.accepted,
            fsm::Admission::Refused(_) => None,
        };
        let capabilities = match &in_force {
            Some(spec) => capabilities_of(&spec.version, spec.replicas, override_)
                .unwrap_or_else(|_| broker::capabilities(&spec.version)),
            None => capabilities,
        };
        (admission, in_force, capabilities)
    }

    fn note_refusals(&self, brokers: &mut [fsm::Broker], storage_bytes: u64) {
        for claim in brokers.iter_mut().filter_map(|broker| broker.claim.as_mut()) {
            claim.refused = self.refusals.of(&claim.uid, fsm::storage::wanted(claim, storage_bytes));
        }
        for pod in brokers.iter_mut().filter_map(|broker| broker.pod.as_mut()) {
            pod.held = self.refusals.held(&pod.uid);
        }
    }

    /// What the StatefulSet carried, while it is being replaced: the ConfigMap carries it too. Where no volume is the
    /// cluster's, nothing ever ran, and nothing is in force.
    fn outlived(&self, namespace: &str, cluster: &str, uid: &str) -> History {
        let claims = self.caches.claims.select(namespace, |claim| pod::claim(claim, uid).ours);
        let map = self.cached(namespace, cluster, Object::ConfigMap).ok().flatten();
        let map = map.filter(|map| !matches!(live::presence(&Value::Null, Some(map), uid), Presence::Foreign { .. }));
        match map {
            Some(map) if !claims.is_empty() => History::of(&map),
            _ => History::default(),
        }
    }

    /// The live objects, held against what is wanted of them. `secret`: the one with the token, if it was looked at.
    async fn objects(
        &self,
        place: &Place<'_>,
        (spec, brokers): (&RivvenClusterSpec, &[fsm::Broker]),
        desired: &BTreeMap<Object, Value>,
        set: Option<&Value>,
        secret: &mut Option<(Presence, Option<Token>)>,
    ) -> Result<(BTreeMap<Object, Value>, Vec<(Object, Presence)>), ObserveError> {
        let Place { namespace, cluster, uid, .. } = *place;
        let (mut live, unreadable) = self.live_objects(namespace, cluster, desired, set).await;
        let mut objects = Vec::new();
        for (object, wanted) in desired {
            let presence = match (object, unreadable.get(object)) {
                (Object::AuthSecret, _) => {
                    if secret.is_none() {
                        *secret = Some(self.auth_secret(namespace, cluster, uid).await);
                    }
                    secret.as_ref().map_or(Presence::Missing, |(presence, _)| presence.clone())
                }
                (_, Some(why)) => Presence::Unknown { why: why.clone() },
                _ => live::presence(wanted, live.get(object), uid),
            };
            objects.push((*object, presence));
        }
        let runs = |ordinal| brokers.iter().any(|broker| broker.ordinal == ordinal && broker.pod.is_some());
        let stays = |ordinal| spec.external_access.is_some() && runs(ordinal);
        for (object, found) in self.unwanted(place.key(), desired, stays)? {
            let uid = found["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
            objects.push((object, Presence::Unwanted { uid }));
            live.insert(object, found);
        }
        Ok((live, objects))
    }

    /// The certificate that brokers which run were rendered with.
    fn carried(&self, namespace: &str, cluster: &str, set: Option<&Value>) -> Option<render::Material> {
        let map = self.cached(namespace, cluster, Object::ConfigMap).ok().flatten();
        certificate::carried(set, map.as_ref())
    }

    /// The live objects, and why those are unknown that could not be read.
    async fn live_objects(
        &self,
        namespace: &str,
        cluster: &str,
        desired: &BTreeMap<Object, Value>,
        set: Option<&Value>,
    ) -> (BTreeMap<Object, Value>, BTreeMap<Object, String>) {
        let others =
            desired.keys().copied().filter(|object| !matches!(object, Object::AuthSecret | Object::StatefulSet));
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
        let Place { namespace, cluster, uid, .. } = *place;
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
                    external: self.external(place.key(), ordinal, pod.as_deref()),
                }
            })
            .collect();
        let token = token.filter(|_| capabilities.clustering);
        if capabilities.clustering && token.is_none() {
            return brokers;
        }
        let all_well = (0..replicas).all(|ordinal| {
            let pod = brokers.iter().find(|broker| broker.ordinal == ordinal).and_then(|broker| broker.pod.as_ref());
            pod.is_some_and(|pod| pod.is_up() && Some(pod.revision.as_str()) == wanted)
        });
        let freshness = if all_well { place.freshness.min(Freshness::Recent) } else { Freshness::Recent };
        self.ask(place, &mut brokers, freshness, token).await;
        // Pods that are all well do not make answers of different times one picture: then all are asked anew.
        if freshness == Freshness::Settled && token.is_some() && !agree(&brokers) {
            self.ask(place, &mut brokers, Freshness::Recent, token).await;
        }
        brokers
    }

    /// Asks every broker that can answer. One that is to become a member is asked before its pod is ready, for it is
    /// not ready before it is a member.
    async fn ask(&self, place: &Place<'_>, brokers: &mut [fsm::Broker], freshness: Freshness, token: Option<&Token>) {
        let Place { namespace, cluster, .. } = *place;
        let member = |url: &str| names::ordinal_at(cluster, namespace, url, &self.domain);
        let inquiry = Inquiry { freshness, token, member: &member };
        let inquiry = &inquiry;
        let answers = brokers.iter().map(|broker| async move {
            let pod = self.caches.pods.get(namespace, &names::pod(cluster, broker.ordinal));
            let can = |facts: &fsm::Pod| facts.is_up() || (token.is_some() && !facts.terminating);
            match (broker.pod.as_ref().is_some_and(can), pod.as_deref().and_then(pod::incarnation)) {
                (true, Some(incarnation)) => {
                    self.brokers
                        .ask(&self.address((namespace, cluster), broker.ordinal, place.tls), incarnation, inquiry)
                        .await
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
    async fn partitions_of(
        &self,
        place: &Place<'_>,
        wanted: Option<&str>,
        brokers: &[fsm::Broker],
        replicates: bool,
    ) -> fsm::Partitions {
        if !replicates {
            return fsm::Partitions::Unreplicated;
        }
        let Place { namespace, cluster, .. } = *place;
        let answers = |broker: &&fsm::Broker| matches!(broker.answer, fsm::Answer::Said { healthy: true, .. });
        let leads = |broker: &&fsm::Broker| matches!(broker.answer, fsm::Answer::Said { leader: true, .. });
        let asked = brokers.iter().filter(answers).max_by_key(|broker| leads(broker));
        let pod = asked.and_then(|broker| self.caches.pods.get(namespace, &names::pod(cluster, broker.ordinal)));
        let (Some(asked), Some(incarnation)) = (asked, pod.as_deref().and_then(pod::incarnation)) else {
            return fsm::Partitions::Unknown { why: "no broker answers".to_owned() };
        };
        let all_well = brokers.iter().filter(|broker| broker.pod.is_some()).all(|broker| {
            let as_wanted = |pod: &fsm::Pod| pod.is_up() && Some(pod.revision.as_str()) == wanted;
            answers(&broker) && broker.pod.as_ref().is_some_and(as_wanted)
        });
        let freshness = if all_well { place.freshness } else { place.freshness.max(Freshness::Recent) };
        let ordinal = |node: &str| names::ordinal(cluster, node);
        self.brokers
            .partitions(&self.address((namespace, cluster), asked.ordinal, place.tls), incarnation, freshness, ordinal)
            .await
    }

    fn member(&self, place: &Place<'_>, ordinal: u32) -> (Member, BrokerAddress) {
        let Place { namespace, cluster, tls, .. } = *place;
        let member = Member {
            node_id: names::pod(cluster, ordinal),
            addr: names::api_url(cluster, namespace, ordinal, &self.domain, tls.is_some()),
        };
        (member, self.address((namespace, cluster), ordinal, tls))
    }

    /// Where a broker is: by its names alone, never by a status.
    pub(super) fn address(&self, (namespace, cluster): (&str, &str), ordinal: u32, tls: Option<&Tls>) -> BrokerAddress {
        BrokerAddress {
            namespace: namespace.to_owned(),
            pod: names::pod(cluster, ordinal),
            host: names::host(cluster, namespace, ordinal, &self.domain),
            client_port: names::CLIENT_PORT,
            api_port: names::API_PORT,
            tls: tls.cloned(),
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

/// The replicas that are noted to be on the move, and how old the brokers' answers may be while this number of brokers is
/// wanted.
fn in_motion(
    cluster: &RivvenCluster,
    running: &RivvenClusterSpec,
    set: Option<&fsm::StatefulSet>,
) -> (Vec<fsm::Move>, Freshness) {
    let moves = cluster.annotations().get(names::MOVES).map(|note| moves::parse(note)).unwrap_or_default();
    let wanted = cluster.spec.replicas;
    let counts = running.replicas != wanted || set.is_some_and(|set| set.replicas != running.replicas);
    let freshness = match (wanted < running.replicas, counts || !moves.is_empty()) {
        // Whether fewer are possible is decided once: a topic made a moment ago must be seen.
        (true, _) => Freshness::Now,
        (false, true) => Freshness::Recent,
        (false, false) => Freshness::Settled,
    };
    (moves, freshness)
}

fn deletion(cluster: &RivvenCluster) -> Option<fsm::Deletion> {
    let requested_at = pod::time(cluster.metadata.deletion_timestamp.as_ref()?);
    Some(fsm::Deletion { requested_at, reclaim: policy(cluster.spec.storage.reclaim_policy) })
}

const fn policy(policy: ReclaimPolicy) -> fsm::ReclaimPolicy {
    match policy {
        ReclaimPolicy::Retain => fsm::ReclaimPolicy::Retain,
        ReclaimPolicy::Delete => fsm::ReclaimPolicy::Delete,
    }
}

/// What brokers hold that are not known to be a cluster yet: nothing, as long as the first one, which is told before all
/// others, knows of none. Then also a number of brokers that cannot be reached may be taken back.
fn before_formation(brokers: &[fsm::Broker], partitions: &fsm::Partitions) -> fsm::Partitions {
    let first = brokers.iter().find(|broker| broker.ordinal == fsm::formation::FOUNDER);
    match first.map(|broker| &broker.answer) {
        Some(fsm::Answer::Said { membership: fsm::Membership::Unknown, .. }) => {
            fsm::Partitions::Known(std::sync::Arc::new([]))
        }
        _ => partitions.clone(),
    }
}

/// The largest capacity of a volume that is proven to be the cluster's.
fn provisioned(brokers: &[fsm::Broker]) -> Option<u64> {
    let claims = brokers.iter().filter_map(|broker| broker.claim.as_ref());
    claims.filter(|claim| claim.ours).filter_map(|claim| claim.capacity).max()
}

/// What is wanted by the spec in force, with what must outlive the operator.
fn wanted_objects(
    input: &render::Input<'_>,
    history: &History,
    halt: Option<&history::Halt>,
    set: Option<&fsm::StatefulSet>,
    brokers: &[fsm::Broker],
) -> BTreeMap<Object, Value> {
    let mut desired = render::cluster(input);
    let proven = history.proven_then(input.spec, set, brokers);
    for object in [Object::ConfigMap, Object::StatefulSet] {
        if let Some(object) = desired.get_mut(&object) {
            history::carry(object, input.spec, proven, halt);
        }
    }
    cover(desired.get_mut(&Object::StatefulSet), brokers, input.spec.replicas);
    desired
}

/// A StatefulSet that is made anew is made around all brokers that run.
fn cover(set: Option<&mut Value>, brokers: &[fsm::Broker], replicas: u32) {
    let pods = brokers.iter().filter(|broker| broker.pod.is_some()).map(|broker| broker.ordinal + 1);
    if let Some(set) = set {
        set["spec"]["replicas"] = json!(pods.max().unwrap_or(0).max(replicas));
    }
}

/// Every broker that should be there, and every one of which something is.
fn make_up(brokers: &mut Vec<fsm::Broker>, replicas: u32) {
    brokers.retain(|broker| broker.ordinal < replicas || broker.pod.is_some() || broker.claim.is_some());
    let missing: Vec<u32> =
        (0..replicas).filter(|ordinal| brokers.iter().all(|broker| broker.ordinal != *ordinal)).collect();
    brokers.extend(missing.into_iter().map(fsm::Broker::unseen));
    brokers.sort_by_key(|broker| broker.ordinal);
}

/// What a change of the spec is held against.
struct Running<'a> {
    able: Option<fsm::Capabilities>,
    moves: Vec<fsm::Move>,
    accepted: Option<RivvenClusterSpec>,
    halted: Option<String>,
    partitions: fsm::Partitions,
    provisioned_bytes: Option<u64>,
    certificate: &'a certificate::Verdict,
}

/// Where a cluster is.
struct Place<'a> {
    namespace: &'a str,
    cluster: &'a str,
    uid: &'a str,
    /// How old the brokers' answers may be as far as the number of brokers and the places of replicas are concerned.
    freshness: Freshness,
    /// How TLS is spoken to its brokers, if it is.
    tls: Option<&'a Tls>,
}

impl<'a> Place<'a> {
    /// Namespace, name and uid.
    const fn key(&self) -> (&'a str, &'a str, &'a str) {
        (self.namespace, self.cluster, self.uid)
    }
}

/// All answer that they are well, one leads, and all know the same members.
fn agree(brokers: &[fsm::Broker]) -> bool {
    let running = || brokers.iter().filter(|broker| broker.pod.is_some());
    let said = running().filter_map(|broker| match &broker.answer {
        fsm::Answer::Said { healthy: true, leader, membership, .. } => Some((*leader, membership)),
        _ => None,
    });
    let said: Vec<_> = said.collect();
    said.len() == running().count()
        && said.iter().filter(|(leader, _)| *leader).count() == 1
        && said.windows(2).all(|pair| pair[0].1 == pair[1].1)
}

/// A version that says nothing is known as soon as the brokers report theirs. How they are run stays as it was decided
/// without knowing: it is in their template.
fn as_reported(
    capabilities: fsm::Capabilities,
    spec: &RivvenClusterSpec,
    brokers: &[fsm::Broker],
) -> fsm::Capabilities {
    let unknown = broker::capabilities("");
    if broker::capabilities(&spec.version) != unknown {
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

fn stateful_set(set: &Value) -> fsm::StatefulSet {
    let number = |pointer: &str| set.pointer(pointer).and_then(Value::as_i64);
    let caught_up = number("/status/observedGeneration") >= number("/metadata/generation");
    let revision =
        set.pointer("/status/updateRevision").and_then(Value::as_str).filter(|revision| !revision.is_empty());
    let claim = "/spec/volumeClaimTemplates/0/spec/resources/requests/storage";
    fsm::StatefulSet {
        proven: false,
        claim_bytes: set.pointer(claim).and_then(Value::as_str).and_then(bytes).unwrap_or(0),
        uid: set.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default().to_owned(),
        replicas: number("/spec/replicas").and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        update_revision: revision.filter(|_| caught_up).map(str::to_owned),
        deleting: set.pointer("/metadata/deletionTimestamp").is_some(),
    }
}
