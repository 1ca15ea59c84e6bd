//! The watch caches, one per kind and watched namespace. Readers only: the controllers drive the watches that fill them.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};
use tokio::sync::watch;

use crate::api::{RivvenCluster, RivvenConnect, RivvenTopic};

/// The cache of one kind over all watched namespaces.
#[derive(Clone)]
pub struct Cache<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    scopes: Vec<Scope<K>>,
}

#[derive(Clone)]
struct Scope<K: Resource<DynamicType = ()> + Clone + 'static> {
    /// `None`: every namespace.
    namespace: Option<String>,
    store: Store<K>,
}

impl<K> Default for Cache<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    fn default() -> Self {
        Self { scopes: Vec::new() }
    }
}

impl<K> Cache<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + 'static,
    <K as Resource>::DynamicType: Eq + Hash + Clone,
{
    /// Adds the store of one watch.
    pub fn add(&mut self, namespace: Option<String>, store: Store<K>) {
        self.scopes.push(Scope { namespace, store });
    }

    /// One object by name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.in_namespace(namespace).find_map(|scope| scope.store.get(&ObjectRef::new(name).within(namespace)))
    }

    /// The objects of a namespace that `wanted` picks.
    pub fn select(&self, namespace: &str, wanted: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        self.in_namespace(namespace)
            .flat_map(|scope| {
                scope.store.state_filter(|object| object.namespace().as_deref() == Some(namespace) && wanted(object))
            })
            .collect()
    }

    /// The objects of every watched namespace that `wanted` picks. It goes through all of them.
    pub fn select_all(&self, wanted: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        self.scopes.iter().flat_map(|scope| scope.store.state_filter(&wanted)).collect()
    }

    fn in_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Scope<K>> {
        self.scopes.iter().filter(move |scope| scope.namespace.as_deref().is_none_or(|only| only == namespace))
    }
}

/// Which objects may be about a topic, by its name at the broker: among thousands they are not looked for one by one. Whoever
/// asks looks at the objects themselves, so one too many does no harm.
#[derive(Clone, Default)]
pub struct TopicNames(Arc<Mutex<ByTopic>>);

/// Namespaces and names of objects by the topic's name.
type ByTopic = HashMap<String, BTreeSet<(String, String)>>;

impl TopicNames {
    /// An object was seen. Called before it is reconciled.
    pub fn seen(&self, topic: &RivvenTopic) {
        self.all().entry(topic.topic_name()).or_default().insert(key(topic));
    }

    /// An object is gone. The others of its topic's name.
    pub fn gone(&self, topic: &RivvenTopic) -> Vec<(String, String)> {
        let (name, key) = (topic.topic_name(), key(topic));
        let mut all = self.all();
        let Some(objects) = all.get_mut(&name) else { return Vec::new() };
        objects.remove(&key);
        let others = objects.iter().cloned().collect();
        if objects.is_empty() {
            all.remove(&name);
        }
        others
    }

    /// Namespace and name of the other objects about the same topic, as far as its name tells.
    pub fn others(&self, topic: &RivvenTopic) -> Vec<(String, String)> {
        let own = key(topic);
        self.all().get(&topic.topic_name()).into_iter().flatten().filter(|other| **other != own).cloned().collect()
    }

    /// Namespace and name of the objects about a topic, as far as its name tells.
    pub fn of(&self, topic: &str) -> Vec<(String, String)> {
        self.all().get(topic).into_iter().flatten().cloned().collect()
    }

    fn all(&self) -> MutexGuard<'_, ByTopic> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(topic: &RivvenTopic) -> (String, String) {
    (topic.namespace().unwrap_or_default(), topic.name_any())
}

/// All caches.
#[derive(Clone, Default)]
#[allow(missing_docs, reason = "each field is the cache of the kind it names")]
pub struct Caches {
    pub progress: Progress,
    pub clusters: Cache<DeserializeGuard<RivvenCluster>>,
    pub topics: Cache<DeserializeGuard<RivvenTopic>>,
    pub topic_names: TopicNames,
    pub connects: Cache<DeserializeGuard<RivvenConnect>>,
    pub stateful_sets: Cache<StatefulSet>,
    pub deployments: Cache<Deployment>,
    pub services: Cache<Service>,
    pub config_maps: Cache<ConfigMap>,
    pub budgets: Cache<PodDisruptionBudget>,
    pub policies: Cache<NetworkPolicy>,
    pub ingresses: Cache<Ingress>,
    pub pods: Cache<Pod>,
    pub claims: Cache<PersistentVolumeClaim>,
}

impl Caches {
    /// Waits until every watch has listed once. Before that "not in the cache" means nothing.
    pub async fn synced(&self) {
        self.progress.wait().await;
    }
}

/// How many watches have yet to list. Many may wait for it: the stores' own `wait_until_ready` wakes only the one that
/// asked last (kube-runtime 5.0.0), and the controllers ask it already.
#[derive(Clone)]
pub struct Progress(watch::Sender<usize>);

impl Default for Progress {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Progress {
    /// One more watch; what is returned says, once or more often, that it has listed.
    pub fn one_more(&self) -> impl FnMut() + Send + use<> {
        self.0.send_modify(|pending| *pending += 1);
        let (sender, mut first) = (self.0.clone(), true);
        move || {
            if std::mem::take(&mut first) {
                sender.send_modify(|pending| *pending -= 1);
            }
        }
    }

    async fn wait(&self) {
        // The sender is ours, so it cannot be gone.
        let _ = self.0.subscribe().wait_for(|pending| *pending == 0).await;
    }
}
