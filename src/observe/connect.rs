//! A connect, its workers, and what its connectors need, as they were seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::{join_all, try_join_all};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::DynamicObject;
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, ResourceExt};
use rivven_fsm::cluster::{Prerequisite, Presence};
use rivven_fsm::connect::{self as fsm, Asked, Connector, NewTopic, Object, Role, Runs, TopicRules, Topics};
use rivven_fsm::topic::Cluster;
use rivven_fsm::{Reason, Refusal};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::live::{presence, value};
use super::{ObserveError, Observer, Remembered, pod, redact};
use crate::api::RivvenConnect;
use crate::api::connectors::{SinkConnector, SourceConnector};
use crate::broker::{BrokerAddress, Token, topic_config};
use crate::names;
use crate::render::connect::translate::{self, SecretData, Translated};
use crate::render::connect::{self as render, File};

/// What was seen of a connect, and what the steps that may follow write.
pub struct ConnectSight {
    /// What decisions are made from.
    pub observation: fsm::Observation,
    /// The objects that are wanted.
    pub desired: BTreeMap<Object, Value>,
    /// The objects that are there.
    pub live: BTreeMap<Object, Value>,
    /// What the workers' Secrets are to hold.
    pub secrets: BTreeMap<u32, WorkerSecret>,
    /// The broker that is asked, and which start of it: the controller's leader, where there is one.
    pub broker: Option<(BrokerAddress, String)>,
    /// Name of the cluster, by which its brokers have their node ids.
    pub cluster: String,
    /// The token of the brokers' admin API, where the cluster replicates.
    pub token: Option<Token>,
    /// The topics that each sink reads.
    reads: BTreeMap<Connector, Vec<String>>,
}

/// What the Secrets hold that connectors name. `None`: there is none of the name.
type Secrets = BTreeMap<String, Option<Arc<SecretData>>>;

/// What a worker's Secret is to hold.
pub struct WorkerSecret {
    /// The variables.
    pub variables: BTreeMap<String, String>,
    /// What their hash is salted with, if the Secret is there.
    pub salt: Option<Vec<u8>>,
}

/// The topics of a cluster, or why they are not known.
type Names = Result<BTreeSet<String>, String>;

/// The workers as they are there.
struct There {
    deployments: BTreeMap<u32, (Arc<Deployment>, fsm::Deployment)>,
    pods: BTreeMap<u32, Vec<Arc<Pod>>>,
}

impl There {
    fn indices(&self) -> BTreeSet<u32> {
        self.deployments.keys().chain(self.pods.keys()).copied().collect()
    }
}

impl Observer {
    /// Looks at a connect.
    pub async fn connect(&self, connect: &RivvenConnect) -> Result<ConnectSight, ObserveError> {
        let (namespace, name) = (connect.namespace().unwrap_or_default(), connect.name_any());
        let uid = connect.uid().unwrap_or_default();
        let spec = &connect.spec;
        let there = self.workers_of(&namespace, &name, &uid);
        let cluster = self.referred(&namespace, &spec.cluster_ref);
        let mut sight = ConnectSight {
            observation: fsm::Observation {
                recorded: connect.status.as_ref().and_then(|status| status.phase).map(Into::into),
                deletion: connect.metadata.deletion_timestamp.as_ref().map(pod::time),
                finalizer: connect.finalizers().iter().any(|f| f == names::FINALIZER),
                paused: spec.paused,
                wish: fsm::Wish {
                    replicas: spec.replicas,
                    connectors: enabled(connect).map(|id| fsm::Wanted { id, refusal: None }).collect(),
                    problems: spec.problems(&name),
                    unsupported: [spec.unsupported(), translate::lacking(spec)].concat(),
                },
                cluster,
                prerequisites: Vec::new(),
                topics: Topics::NotAsked,
                placement: fsm::Placement { runs: as_it_runs(&there), waiting: Vec::new() },
                objects: Vec::new(),
                workers: Vec::new(),
                health: spec.settings.health.enabled,
                unmonitored: false,
                lags: BTreeMap::new(),
            },
            desired: BTreeMap::new(),
            live: BTreeMap::new(),
            secrets: BTreeMap::new(),
            broker: None,
            cluster: spec.cluster_ref.name.clone(),
            token: None,
            reads: BTreeMap::new(),
        };
        let o = &sight.observation;
        let can_be = o.deletion.is_none() && o.wish.problems.is_empty() && o.wish.unsupported.is_empty();
        // Also to keep them out of what workers say.
        let secrets = match o.deletion {
            None => self.secrets_of(connect, &namespace).await?,
            Some(_) => Secrets::new(),
        };
        if can_be && matches!(o.cluster, Cluster::Ready { .. }) {
            self.wanted(connect, &there, &secrets, &mut sight).await?;
        }
        let templates = templates(&sight.desired);
        sight.observation.workers = self.workers(connect, &there, &sight.observation.placement.runs, &templates).await;
        let values = hidden(&secrets);
        sight.observation.workers.iter_mut().for_each(|worker| hide(worker, &values));
        sight.observation.lags = self.lags(connect, &sight).await;
        Ok(sight)
    }

    /// How far the sinks that run are behind.
    async fn lags(&self, connect: &RivvenConnect, sight: &ConnectSight) -> BTreeMap<Connector, u64> {
        let Some((address, incarnation)) = &sight.broker else { return BTreeMap::new() };
        let running: BTreeSet<Connector> = fsm::states(&sight.observation)
            .into_iter()
            .filter(|connector| connector.state == fsm::State::Running)
            .map(|connector| connector.id)
            .collect();
        let mut lags = BTreeMap::new();
        for sink in connect.spec.sinks.iter().filter(|sink| running.contains(&sink_id(sink))) {
            let topics = sight.reads.get(&sink_id(sink)).map_or(&[][..], Vec::as_slice);
            if let Some(lag) = self.brokers.lag(address, incarnation, &sink.consumer_group, topics).await {
                lags.insert(sink_id(sink), lag);
            }
        }
        lags
    }

    /// What is wanted of a connect whose cluster is Ready: its topics, its secrets, who runs what, and the objects.
    async fn wanted(
        &self,
        connect: &RivvenConnect,
        there: &There,
        secrets: &Secrets,
        sight: &mut ConnectSight,
    ) -> Result<(), ObserveError> {
        let (namespace, name) = (connect.namespace().unwrap_or_default(), connect.name_any());
        let uid = connect.uid().unwrap_or_default();
        let spec = &connect.spec;
        let home = spec.cluster_ref.namespace.clone().unwrap_or_else(|| namespace.clone());
        let topics = self.topics_of(&home, sight).await;
        let tls = self.certificates(connect, &namespace, &mut sight.observation.prerequisites).await?;
        let promised = self.promised(connect, &home);
        let rules = rules(connect, &sight.observation.cluster, topics.as_ref().ok(), &promised);
        let (translated, refused) = translated(connect, &rules, secrets);
        let reads = |sink: &SinkConnector| Some((sink_id(sink), read_by(sink, &rules).ok()?));
        sight.reads = spec.sinks.iter().filter_map(reads).collect();
        for wanted in &mut sight.observation.wish.connectors {
            wanted.refusal = refused.get(&wanted.id).cloned();
        }
        sight.observation.topics = match &topics {
            Ok(_) => Topics::Known { missing: missing_topics(connect, &rules, &translated) },
            // Nobody knows what a pattern stands for, nor who is refused for a topic: all stays as it is.
            Err(why) => {
                sight.observation.topics = Topics::Unknown { why: why.clone() };
                return Ok(());
            }
        };

        let ledger = self.live_object(&namespace, &name, Object::ConfigMap).await?;
        let ours = ledger.as_ref().filter(|map| !foreign(map, &uid));
        let may_run = may_run(there, ours);
        let unsettled = there.deployments.values().any(|(_, deployment)| !deployment.observed);
        let placement = fsm::place(translated.keys(), spec.replicas, &may_run, unsettled);

        let broker = format!(
            "{}.{home}.svc.{}:{}",
            names::client_service(&spec.cluster_ref.name),
            self.domain,
            names::CLIENT_PORT
        );
        let files = render::files(spec, &broker, tls.as_ref(), &placement.runs, &translated);
        let hashes = self.worker_secrets(&namespace, &name, &uid, &files, sight).await?;
        let monitor = if spec.settings.metrics.enabled && spec.settings.metrics.service_monitor {
            self.monitor(&namespace, &name, &uid).await?
        } else {
            Monitor::NotAsked
        };
        sight.observation.unmonitored = matches!(monitor, Monitor::NoSuchKind);
        sight.desired = render::objects(&render::Input {
            name: &name,
            namespace: &namespace,
            uid: &uid,
            spec,
            restarted_at: connect.annotations().get(names::RESTARTED_AT).map(String::as_str),
            runs: &placement.runs,
            files: &files,
            secrets: &hashes,
            monitors: matches!(monitor, Monitor::Missing | Monitor::There(_)),
        });
        sight.observation.placement = placement;
        if let Some(ledger) = ledger {
            sight.live.insert(Object::ConfigMap, ledger);
        }
        if let Monitor::There(Some(live)) = monitor {
            sight.live.insert(Object::ServiceMonitor, live);
        }
        self.compare(&namespace, &name, &uid, sight).await
    }

    /// The wanted objects held against the live ones.
    async fn compare(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        sight: &mut ConnectSight,
    ) -> Result<(), ObserveError> {
        for (object, desired) in &sight.desired {
            let found = match object {
                Object::Secret(_) | Object::ConfigMap | Object::ServiceMonitor => sight.live.get(object).cloned(),
                Object::Service | Object::Worker(_) => self.live_object(namespace, name, *object).await?,
            };
            let presence = match object {
                Object::Secret(index) => secret_presence(found.as_ref(), sight.secrets.get(index), uid),
                // One that was seen a while ago and is as wanted.
                Object::ServiceMonitor if found.is_none() && self.remembered(&monitor_key(uid, name)).is_some() => {
                    Presence::Current
                }
                _ => presence(desired, found.as_ref(), uid),
            };
            if *object == Object::ServiceMonitor && presence == Presence::Current {
                self.remember(monitor_key(uid, name), Remembered { at: Instant::now(), token: None, data: None });
            }
            if let Some(found) = found {
                sight.live.insert(*object, found);
            }
            sight.observation.objects.push((*object, presence));
        }
        Ok(())
    }

    /// The names of all topics, by the broker that leads or any that runs.
    async fn topics_of(&self, home: &str, sight: &mut ConnectSight) -> Names {
        let Cluster::Ready { uid, replicates, brokers, .. } = &sight.observation.cluster else {
            return Err("the cluster is not Ready".to_owned());
        };
        sight.broker = self.broker_of(home, &sight.cluster, *brokers).await;
        sight.token = self.auth_secret(home, &sight.cluster, uid).await.1;
        let Some((address, incarnation)) = &sight.broker else {
            return Err("no broker runs".to_owned());
        };
        let listing = self.brokers.topics(address, incarnation, *replicates, sight.token.as_ref()).await;
        listing.map(|listing| listing.names()).map_err(|error| error.to_string())
    }

    /// The topics of this connect that a `RivvenTopic` is about, which is there to make them.
    fn promised(&self, connect: &RivvenConnect, home: &str) -> BTreeMap<String, String> {
        let cluster = &connect.spec.cluster_ref.name;
        let maker = |topic: &str| {
            self.caches.topic_names.of(topic).into_iter().find(|(namespace, name)| {
                self.caches.topics.get(namespace, name).is_some_and(|found| {
                    found.0.as_ref().is_ok_and(|found| {
                        let of = &found.spec.cluster_ref;
                        let there = of.namespace.as_ref().unwrap_or(namespace);
                        found.metadata.deletion_timestamp.is_none() && there == home && of.name == *cluster
                    })
                })
            })
        };
        let sources = connect.spec.sources.iter().filter(|source| source.enabled).map(|source| &source.topic);
        let sinks = connect.spec.sinks.iter().filter(|sink| sink.enabled).flat_map(|sink| &sink.topics);
        let promised = sources.chain(sinks).filter_map(|topic| {
            let (namespace, name) = maker(topic)?;
            Some((topic.clone(), format!("{namespace}/{name}")))
        });
        promised.collect()
    }

    /// Which keys the Secret with the certificates has. `None`: TLS is not asked for, or there is none.
    async fn certificates(
        &self,
        connect: &RivvenConnect,
        namespace: &str,
        prerequisites: &mut Vec<Prerequisite>,
    ) -> Result<Option<BTreeSet<String>>, ObserveError> {
        let tls = &connect.spec.tls;
        let Some(name) = tls.cert_secret_name.as_ref().filter(|_| tls.enabled) else { return Ok(None) };
        let secret = self.data_of(namespace, name).await?;
        prerequisites.push(Prerequisite { what: format!("Secret {name}"), present: Some(secret.is_some()) });
        Ok(secret.map(|data| data.keys().cloned().collect()))
    }

    /// The Secrets that the enabled connectors name. `None`: there is none of the name.
    async fn secrets_of(&self, connect: &RivvenConnect, namespace: &str) -> Result<Secrets, ObserveError> {
        let sources = connect.spec.sources.iter().filter(|s| s.enabled).filter_map(|s| s.config_secret_ref.as_ref());
        let sinks = connect.spec.sinks.iter().filter(|s| s.enabled).filter_map(|s| s.config_secret_ref.as_ref());
        let names: BTreeSet<&String> = sources.chain(sinks).collect();
        let read = names
            .into_iter()
            .map(|name| async move { Ok::<_, ObserveError>((name.clone(), self.data_of(namespace, name).await?)) });
        Ok(try_join_all(read).await?.into_iter().collect())
    }

    /// What a Secret holds. It is read again after a while, so that a change of it is seen.
    async fn data_of(&self, namespace: &str, name: &str) -> Result<Option<Arc<SecretData>>, ObserveError> {
        let key = (namespace.to_owned(), format!("data of {name}"));
        if let Some(data) = self.remembered(&key).and_then(|seen| seen.data) {
            return Ok(Some(data));
        }
        let Some(secret) = Api::<Secret>::namespaced(self.client.clone(), namespace).get_opt(name).await? else {
            return Ok(None);
        };
        let data: SecretData = secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
        let data = Arc::new(data);
        self.remember(key, Remembered { at: Instant::now(), token: None, data: Some(data.clone()) });
        Ok(Some(data))
    }

    /// The workers' own Secrets: those that are there, and the salted hash of what each is to hold.
    async fn worker_secrets(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        files: &BTreeMap<u32, File>,
        sight: &mut ConnectSight,
    ) -> Result<BTreeMap<u32, String>, ObserveError> {
        let mut hashes = BTreeMap::new();
        for (index, file) in files.iter().filter(|(_, file)| !file.variables.is_empty()) {
            let found = self.worker_secret(namespace, &names::worker(name, *index), uid, file).await?;
            let salt = found.as_ref().filter(|live| !foreign(live, uid)).and_then(salt);
            if let Some(salt) = &salt {
                hashes.insert(*index, render::secret_hash(salt, &file.variables));
            }
            if let Some(found) = found {
                sight.live.insert(Object::Secret(*index), found);
            }
            sight.secrets.insert(*index, WorkerSecret { variables: file.variables.clone(), salt });
        }
        Ok(hashes)
    }

    /// A worker's Secret. One that was seen to be as wanted is not read again for a while.
    async fn worker_secret(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        file: &File,
    ) -> Result<Option<Value>, ObserveError> {
        let key = (uid.to_owned(), format!("variables of {name}"));
        if let Some(data) = self.remembered(&key).and_then(|seen| seen.data)
            && holds(&data, &file.variables)
        {
            return Ok(Some(as_secret(uid, &data)));
        }
        let Some(secret) = Api::<Secret>::namespaced(self.client.clone(), namespace).get_opt(name).await? else {
            return Ok(None);
        };
        let live = value(&secret)?;
        let data: SecretData = secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
        if !foreign(&live, uid) && live["metadata"]["deletionTimestamp"].is_null() && holds(&data, &file.variables) {
            self.remember(key, Remembered { at: Instant::now(), token: None, data: Some(Arc::new(data)) });
        }
        Ok(Some(live))
    }

    /// The `ServiceMonitor`. Its kind is not Kubernetes' own, so it is neither watched nor taken to be there.
    async fn monitor(&self, namespace: &str, name: &str, uid: &str) -> Result<Monitor, ObserveError> {
        if self.remembered(&monitor_key(uid, name)).is_some() {
            return Ok(Monitor::There(None));
        }
        match self.api_of(namespace, Object::ServiceMonitor).get(&names::connect(name)).await {
            Ok(found) => Ok(Monitor::There(Some(value(&found)?))),
            // Where the kind is known, the answer names the object that is missing.
            Err(kube::Error::Api(status)) if status.code == 404 => {
                let names_it = status.details.as_ref().is_some_and(|details| !details.name.is_empty());
                Ok(if names_it { Monitor::Missing } else { Monitor::NoSuchKind })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// One object of a connect: from the cache or, as a foreign one need not carry our labels, from the API server.
    async fn live_object(&self, namespace: &str, name: &str, object: Object) -> Result<Option<Value>, ObserveError> {
        let wanted = object_name(name, object);
        let caches = &self.caches;
        let known = match object {
            Object::ConfigMap => caches.config_maps.get(namespace, &wanted).map(|found| value(found.as_ref())),
            Object::Service => caches.services.get(namespace, &wanted).map(|found| value(found.as_ref())),
            Object::Worker(_) => caches.deployments.get(namespace, &wanted).map(|found| value(found.as_ref())),
            Object::Secret(_) | Object::ServiceMonitor => None,
        };
        match known {
            Some(found) => found.map(Some),
            None => self.api_of(namespace, object).get_opt(&wanted).await?.map(|found| value(&found)).transpose(),
        }
    }

    fn api_of(&self, namespace: &str, object: Object) -> Api<DynamicObject> {
        let (group, version) = match object {
            Object::Worker(_) => ("apps", "v1"),
            Object::ServiceMonitor => ("monitoring.coreos.com", "v1"),
            Object::Secret(_) | Object::ConfigMap | Object::Service => ("", "v1"),
        };
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, object.kind()));
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }

    fn workers_of(&self, namespace: &str, name: &str, uid: &str) -> There {
        let is_ours = |labels: &BTreeMap<String, String>| labels.get(names::CONNECT).map(String::as_str) == Some(name);
        let index = |labels: &BTreeMap<String, String>| labels.get(names::WORKER).and_then(|index| index.parse().ok());
        let mut there = There { deployments: BTreeMap::new(), pods: BTreeMap::new() };
        for deployment in self.caches.deployments.select(namespace, |found| is_ours(found.labels())) {
            let controls = |owner: &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference| {
                owner.controller == Some(true) && owner.uid == uid
            };
            let owned = deployment.owner_references().iter().any(controls);
            if let Some(index) = index(deployment.labels()).filter(|_| owned) {
                let facts = facts(&deployment);
                there.deployments.insert(index, (deployment, facts));
            }
        }
        for pod in self.caches.pods.select(namespace, |found| is_ours(found.labels())) {
            // A pod that ended runs nothing, and stays until somebody takes it away.
            let ended = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            if let Some(index) = index(pod.labels()).filter(|_| !matches!(ended, Some("Failed" | "Succeeded"))) {
                there.pods.entry(index).or_default().push(pod);
            }
        }
        there
    }

    /// The workers that are wanted or there, each with what it says.
    async fn workers(
        &self,
        connect: &RivvenConnect,
        there: &There,
        runs: &Runs,
        templates: &BTreeMap<u32, String>,
    ) -> Vec<fsm::Worker> {
        let namespace = connect.namespace().unwrap_or_default();
        let health = &connect.spec.settings.health;
        let indices: BTreeSet<u32> = there.indices().into_iter().chain(runs.keys().copied()).collect();
        let worker = |index: u32| {
            let namespace = namespace.clone();
            async move {
                let pods = there.pods.get(&index).map_or(&[][..], Vec::as_slice);
                let wanted = templates.get(&index).cloned().or_else(|| {
                    let (deployment, _) = there.deployments.get(&index)?;
                    template_of(deployment)
                });
                let mut worker = fsm::Worker {
                    index,
                    deployment: there.deployments.get(&index).map(|(_, facts)| facts.clone()),
                    pods: pods.iter().map(|pod| worker_pod(pod, wanted.as_deref())).collect(),
                    answer: fsm::Answer::NotAsked,
                };
                if health.enabled
                    && let Some(up) = worker.current().filter(|_| worker.is_up())
                    && let Some(pod) = pods.iter().find(|pod| pod.name_any() == up.name)
                {
                    worker.answer = self.ask_worker(&namespace, connect, index, pod, health.port).await;
                }
                worker
            }
        };
        join_all(indices.into_iter().map(worker)).await
    }

    async fn ask_worker(
        &self,
        namespace: &str,
        connect: &RivvenConnect,
        index: u32,
        pod: &Pod,
        port: u16,
    ) -> fsm::Answer {
        let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
        let (Some(host), Some(incarnation)) = (ip, pod::incarnation(pod)) else { return fsm::Answer::NotAsked };
        let address = BrokerAddress {
            namespace: namespace.to_owned(),
            pod: pod.name_any(),
            host,
            client_port: port,
            api_port: port,
            tls: None,
        };
        self.brokers.worker(&address, &names::worker(&connect.name_any(), index), incarnation).await
    }
}

/// What became of the `ServiceMonitor` that is asked for.
enum Monitor {
    NotAsked,
    NoSuchKind,
    Missing,
    /// As it is there; `None`: as wanted, a while ago.
    There(Option<Value>),
}

fn monitor_key(uid: &str, name: &str) -> (String, String) {
    (uid.to_owned(), format!("ServiceMonitor of {name}"))
}

fn object_name(connect: &str, object: Object) -> String {
    match object {
        Object::Secret(index) | Object::Worker(index) => names::worker(connect, index),
        Object::ConfigMap => names::connect_config(connect),
        Object::Service | Object::ServiceMonitor => names::connect(connect),
    }
}

/// The enabled connectors of a spec.
fn enabled(connect: &RivvenConnect) -> impl Iterator<Item = Connector> {
    let sources = connect.spec.sources.iter().filter(|source| source.enabled).map(source_id);
    sources.chain(connect.spec.sinks.iter().filter(|sink| sink.enabled).map(sink_id))
}

fn source_id(source: &SourceConnector) -> Connector {
    Connector { role: Role::Source, name: source.name.clone() }
}

fn sink_id(sink: &SinkConnector) -> Connector {
    Connector { role: Role::Sink, name: sink.name.clone() }
}

/// The rules for topics, as the spec and the cluster have them.
fn rules<'a>(
    connect: &RivvenConnect,
    cluster: &Cluster,
    exist: Option<&'a BTreeSet<String>>,
    promised: &'a BTreeMap<String, String>,
) -> TopicRules<'a> {
    let settings = &connect.spec.settings.topic;
    let (replicates, brokers) = match cluster {
        Cluster::Ready { replicates, brokers, .. } => (*replicates, *brokers),
        _ => (false, 0),
    };
    TopicRules {
        exist,
        promised,
        auto_create: settings.auto_create,
        partitions: settings.default_partitions,
        replication: settings.default_replication_factor,
        brokers,
        replicates,
    }
}

/// What a source says of its topic, if it does.
fn asked(source: &SourceConnector) -> Option<Asked> {
    let topic = source.topic_config.as_ref()?;
    Some(Asked { partitions: topic.partitions, replication: topic.replication_factor })
}

fn check_name(topic: &str) -> Result<(), Refusal> {
    topic_config::check_name(topic)
        .map_err(|problem| Refusal { reason: Reason::ConnectorRefused, message: format!("topic {topic:?}: {problem}") })
}

/// Each enabled connector as the worker takes it, or why it is not run.
fn translated(
    connect: &RivvenConnect,
    rules: &TopicRules<'_>,
    secrets: &Secrets,
) -> (BTreeMap<Connector, Translated>, BTreeMap<Connector, Refusal>) {
    let spec = &connect.spec;
    let secret = |name: Option<&String>| match name {
        None => Ok(None),
        Some(name) => match secrets.get(name) {
            Some(Some(data)) => Ok(Some(data.as_ref())),
            _ => Err(Refusal {
                reason: Reason::PrerequisiteMissing,
                message: format!("configSecretRef: Secret {name} does not exist"),
            }),
        },
    };
    let source = |source: &SourceConnector| {
        check_name(&source.topic)?;
        rules.check(&source.topic, asked(source).as_ref())?;
        translate::check_source(source, &spec.image, &spec.version)?;
        translate::source(source, &spec.image, secret(source.config_secret_ref.as_ref())?)
    };
    let sink = |sink: &SinkConnector| {
        let read = read_by(sink, rules)?;
        translate::sink(sink, &spec.image, &read, secret(sink.config_secret_ref.as_ref())?)
    };
    let sources = spec.sources.iter().filter(|s| s.enabled).map(|s| (source_id(s), source(s)));
    let sinks = spec.sinks.iter().filter(|s| s.enabled).map(|s| (sink_id(s), sink(s)));
    let (mut translated, mut refused) = (BTreeMap::new(), BTreeMap::new());
    for (id, outcome) in sources.chain(sinks) {
        match outcome {
            Ok(entry) => drop(translated.insert(id, entry)),
            Err(refusal) => drop(refused.insert(id, refusal)),
        }
    }
    (translated, refused)
}

/// The topics that a sink reads, by name: the worker takes a pattern for a name.
fn read_by(sink: &SinkConnector, rules: &TopicRules<'_>) -> Result<Vec<String>, Refusal> {
    sink.topics.iter().filter(|topic| !topic.contains('*')).try_for_each(|topic| check_name(topic))?;
    rules.read(&sink.topics)
}

/// The topics that are to be made before the workers start.
fn missing_topics(
    connect: &RivvenConnect,
    rules: &TopicRules<'_>,
    translated: &BTreeMap<Connector, Translated>,
) -> Vec<NewTopic> {
    let spec = &connect.spec;
    let sources = spec.sources.iter().filter(|source| translated.contains_key(&source_id(source)));
    let sinks = spec.sinks.iter().filter(|sink| translated.contains_key(&sink_id(sink)));
    let of_sources = sources.filter_map(|source| rules.need(&source.topic, asked(source).as_ref()));
    let read = sinks.flat_map(|sink| sink.topics.iter().filter(|topic| !topic.contains('*')));
    let of_sinks = read.filter_map(|topic| rules.need(topic, None));
    let mut missing: BTreeMap<String, NewTopic> = BTreeMap::new();
    // What the source says of its topic counts before what a sink takes for granted.
    for topic in of_sources.chain(of_sinks) {
        missing.entry(topic.topic.clone()).or_insert(topic);
    }
    missing.into_values().collect()
}

/// What each worker may be running, by all that is seen: the ledger, its Deployment, each of its pods.
fn may_run(there: &There, ledger: Option<&Value>) -> Runs {
    let mut may = as_it_runs(there);
    for (index, pods) in &there.pods {
        may.entry(*index).or_default().extend(pods.iter().flat_map(|pod| runs_of(pod.annotations())));
    }
    let text = ledger.and_then(|map| map["metadata"]["annotations"][names::PLACEMENT].as_str());
    let noted: BTreeMap<String, Vec<String>> =
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    for (index, connectors) in noted {
        if let Ok(index) = index.parse() {
            may.entry(index).or_default().extend(connectors.iter().filter_map(|text| Connector::parse(text)));
        }
    }
    may
}

/// What the Deployments run.
fn as_it_runs(there: &There) -> Runs {
    there.deployments.iter().map(|(index, (_, deployment))| (*index, deployment.runs.clone())).collect()
}

fn runs_of(annotations: &BTreeMap<String, String>) -> BTreeSet<Connector> {
    let text = annotations.get(names::CONNECTORS).map_or("", String::as_str);
    text.split(',').filter_map(Connector::parse).collect()
}

fn template_annotations(deployment: &Deployment) -> Option<&BTreeMap<String, String>> {
    deployment.spec.as_ref()?.template.metadata.as_ref()?.annotations.as_ref()
}

fn template_of(deployment: &Deployment) -> Option<String> {
    template_annotations(deployment)?.get(names::TEMPLATE).cloned()
}

/// The hash of each worker's wanted template.
fn templates(desired: &BTreeMap<Object, Value>) -> BTreeMap<u32, String> {
    let hash = |value: &Value| {
        let annotations = value.pointer("/spec/template/metadata/annotations")?;
        annotations[names::TEMPLATE].as_str().map(str::to_owned)
    };
    let of = |(object, value): (&Object, &Value)| match object {
        Object::Worker(index) => Some((*index, hash(value)?)),
        _ => None,
    };
    desired.iter().filter_map(of).collect()
}

fn facts(deployment: &Deployment) -> fsm::Deployment {
    let seen = deployment.status.as_ref().and_then(|status| status.observed_generation);
    fsm::Deployment {
        uid: deployment.uid().unwrap_or_default(),
        runs: template_annotations(deployment).map(runs_of).unwrap_or_default(),
        observed: seen >= deployment.metadata.generation,
        deleting: deployment.metadata.deletion_timestamp.is_some(),
    }
}

fn worker_pod(pod: &Pod, wanted: Option<&str>) -> fsm::WorkerPod {
    fsm::WorkerPod {
        name: pod.name_any(),
        runs: runs_of(pod.annotations()),
        current: wanted.is_some() && pod.annotations().get(names::TEMPLATE).map(String::as_str) == wanted,
        pod: pod::facts(pod),
    }
}

/// The values that the Secrets of connectors hold, the longest first: one may be a part of another. What is shorter than
/// four characters is hidden nowhere, or common words would be.
fn hidden(secrets: &Secrets) -> Vec<String> {
    let data = secrets.values().flatten().flat_map(|data| data.values());
    let mut values: Vec<String> = data
        .filter_map(|value| std::str::from_utf8(value).ok())
        .map(|value| value.trim().to_owned())
        .filter(|value| value.chars().count() >= 4)
        .collect();
    values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    values
}

/// Takes the values out of all that a worker says of itself, which goes into a status, Events and the log.
fn hide(worker: &mut fsm::Worker, values: &[String]) {
    let clean = |words: &mut String| *words = redact::without(words, values);
    match &mut worker.answer {
        fsm::Answer::NotAsked => {}
        fsm::Answer::Silent { why } => clean(why),
        fsm::Answer::Said(reports) => reports.values_mut().filter_map(|r| r.last_error.as_mut()).for_each(clean),
    }
    worker.pods.iter_mut().filter_map(|pod| pod.pod.last_exit.as_mut()).for_each(|exit| clean(&mut exit.log));
}

fn foreign(live: &Value, uid: &str) -> bool {
    matches!(presence(&Value::Null, Some(live), uid), Presence::Foreign { .. })
}

fn salt(live: &Value) -> Option<Vec<u8>> {
    let secret: Secret = serde_json::from_value(live.clone()).ok()?;
    secret.data?.remove(names::SALT_KEY).map(|salt| salt.0)
}

/// Whether a worker's Secret holds these variables, a salt, and nothing else.
fn holds(data: &SecretData, variables: &BTreeMap<String, String>) -> bool {
    data.len() == variables.len() + 1
        && data.contains_key(names::SALT_KEY)
        && variables.iter().all(|(name, value)| data.get(name).map(Vec::as_slice) == Some(value.as_bytes()))
}

/// As much of a Secret that was seen as is asked of it.
fn as_secret(uid: &str, data: &SecretData) -> Value {
    let data: BTreeMap<&String, k8s_openapi::ByteString> =
        data.iter().map(|(key, value)| (key, k8s_openapi::ByteString(value.clone()))).collect();
    json!({ "metadata": { "ownerReferences": [{ "controller": true, "uid": uid }] }, "data": data })
}

/// The Secret's labels and owners are as they were made; what can differ is what it holds.
fn secret_presence(live: Option<&Value>, wanted: Option<&WorkerSecret>, uid: &str) -> Presence {
    let (Some(live), Some(wanted)) = (live, wanted) else { return Presence::Missing };
    match presence(&Value::Null, Some(live), uid) {
        Presence::Current | Presence::Drifted => {
            let data = serde_json::from_value::<Secret>(live.clone()).ok().and_then(|secret| secret.data);
            let data: SecretData = data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
            if holds(&data, &wanted.variables) { Presence::Current } else { Presence::Drifted }
        }
        other => other,
    }
}
