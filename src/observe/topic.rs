//! A topic, and the cluster that another object refers to, as they were seen.

use std::sync::Arc;

use kube::ResourceExt;
use rivven_fsm::topic as fsm;

use super::{Observer, pod};
use crate::api::{ClusterRef, Phase, RivvenTopic};
use crate::broker::{BrokerAddress, Token, TopicState, capabilities};
use crate::names;

/// Every namespace, in `spec.allowedNamespaces`.
const EVERY_NAMESPACE: &str = "*";

/// What was seen of a topic, and where the steps that may follow go.
pub struct TopicSight {
    /// What decisions are made from.
    pub observation: fsm::Observation,
    /// The broker that is asked, and which start of it: the controller's leader, where there is one.
    pub broker: Option<(BrokerAddress, String)>,
    /// Name of the cluster, by which its brokers have their node ids.
    pub cluster: String,
    /// The token of the brokers' admin API.
    pub token: Option<Token>,
    /// What the broker said of it, if there is such a topic.
    pub state: Option<Arc<TopicState>>,
}

impl Observer {
    /// Looks at a topic.
    pub async fn topic(&self, topic: &RivvenTopic) -> TopicSight {
        let wish = topic.wish();
        let namespace = topic.namespace().unwrap_or_default();
        let cluster = self.referred(&namespace, &topic.spec.cluster_ref);
        let (mut broker, mut token, mut replicates) = (None, None, false);
        if let fsm::Cluster::Ready { uid, replicates: able, brokers, .. } = &cluster {
            let reference = &topic.spec.cluster_ref;
            let home = reference.namespace.as_deref().unwrap_or(&namespace);
            broker = self.broker_of(home, &reference.name, *brokers).await;
            replicates = *able;
            token = self.auth_secret(home, &reference.name, uid).await.1;
        }
        let older = self.older(topic);
        let mut state = None;
        let seen = match &broker {
            Some((address, incarnation)) if wish.problems.is_empty() && older.is_none() => {
                match self.brokers.describe_topic(address, incarnation, &wish.topic, replicates, token.as_ref()).await {
                    // A standalone broker holds one copy of each partition; one that replicates tells by partition.
                    Ok(Some(known)) => {
                        let known = state.insert(known);
                        fsm::Seen::Present {
                            partitions: known.partitions,
                            replication: if replicates { known.replication } else { Some(1) },
                            config: (*known.config).clone(),
                        }
                    }
                    Ok(None) => fsm::Seen::Absent,
                    Err(error) => fsm::Seen::Unknown { why: error.to_string() },
                }
            }
            _ => fsm::Seen::NotAsked,
        };
        let observation = fsm::Observation {
            recorded: topic.status.as_ref().and_then(|status| status.phase).map(Into::into),
            deletion: topic
                .metadata
                .deletion_timestamp
                .as_ref()
                .map(|at| fsm::Deletion { requested_at: pod::time(at), delete_topic: topic.spec.delete_on_remove }),
            finalizer: topic.finalizers().iter().any(|f| f == names::FINALIZER),
            wish,
            cluster,
            mark: topic.annotations().get(names::TOPIC_MARK).cloned(),
            adopt: topic.annotations().get(names::ADOPT_TOPIC).is_some_and(|value| value == "true"),
            older,
            seen,
        };
        TopicSight { observation, broker, cluster: topic.spec.cluster_ref.name.clone(), token, state }
    }

    /// The cluster that an object in `namespace` refers to.
    pub(super) fn referred(&self, namespace: &str, reference: &ClusterRef) -> fsm::Cluster {
        let home = reference.namespace.as_deref().unwrap_or(namespace);
        let Some(found) = self.caches.clusters.get(home, &reference.name) else { return fsm::Cluster::Missing };
        let Ok(cluster) = &found.0 else { return fsm::Cluster::NotReady { phase: rivven_fsm::Phase::Pending } };
        let allowed = |name: &String| name == namespace || name == EVERY_NAMESPACE;
        if home != namespace && !cluster.spec.allowed_namespaces.iter().any(allowed) {
            return fsm::Cluster::NotAllowed;
        }
        if cluster.metadata.deletion_timestamp.is_some() {
            return fsm::Cluster::Terminating;
        }
        let status = cluster.status.as_ref();
        match status.and_then(|status| status.phase) {
            Some(Phase::Ready) => {
                // As the brokers report it: the spec's version is what somebody wished for.
                let version = status.and_then(|status| status.version.as_deref()).unwrap_or_default();
                let able = capabilities(version);
                fsm::Cluster::Ready {
                    uid: cluster.uid().unwrap_or_default(),
                    replicates: able.partition_metadata,
                    brokers: status.and_then(|status| status.ready_replicas).unwrap_or(0),
                    acls: able.acls,
                }
            }
            phase => fsm::Cluster::NotReady { phase: phase.unwrap_or(Phase::Pending).into() },
        }
    }

    /// The controller's leader, or else the first broker that runs.
    pub(super) async fn broker_of(&self, home: &str, cluster: &str, brokers: u32) -> Option<(BrokerAddress, String)> {
        let tls = self.tls_of(home, cluster).await;
        let mut first = None;
        for ordinal in 0..brokers {
            let Some(pod) = self.caches.pods.get(home, &names::pod(cluster, ordinal)) else { continue };
            let Some(incarnation) = pod::incarnation(&pod) else { continue };
            let address = self.address((home, cluster), ordinal, tls.as_ref());
            let leads = matches!(
                self.brokers.said(&address, incarnation).await,
                Some(rivven_fsm::cluster::Answer::Said { leader: true, .. })
            );
            let found = (address, incarnation.to_owned());
            if leads {
                return Some(found);
            }
            first.get_or_insert(found);
        }
        first
    }

    /// The oldest other object that manages the same topic of the same cluster, if it is older than this one.
    fn older(&self, topic: &RivvenTopic) -> Option<String> {
        let key = |t: &RivvenTopic| {
            let home = t.spec.cluster_ref.namespace.clone().or_else(|| t.namespace()).unwrap_or_default();
            (home, t.spec.cluster_ref.name.clone(), t.topic_name())
        };
        let age = |t: &RivvenTopic| (t.metadata.creation_timestamp.as_ref().map(pod::time), t.uid());
        let (wanted, own_age) = (key(topic), age(topic));
        let rivals: Vec<_> = self
            .caches
            .topic_names
            .others(topic)
            .into_iter()
            .filter_map(|(namespace, name)| self.caches.topics.get(&namespace, &name))
            .filter(|other| {
                other.0.as_ref().is_ok_and(|other| {
                    other.metadata.deletion_timestamp.is_none() && key(other) == wanted && age(other) < own_age
                })
            })
            .collect();
        let oldest = rivals.iter().filter_map(|rival| rival.0.as_ref().ok()).min_by_key(|rival| age(rival))?;
        Some(format!("{}/{}", oldest.namespace().unwrap_or_default(), oldest.name_any()))
    }
}
