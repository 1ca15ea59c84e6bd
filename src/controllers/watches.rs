//! The watches of one scope: each fills a cache and tells which object of ours it concerns.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{Stream, StreamExt};
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::broadcast;
use tracing::warn;

use crate::api::{RivvenCluster, RivvenConnect};
use crate::names;
use crate::observe::caches::Progress;
use crate::observe::pod::incarnation;

/// A namespace, or all of them.
#[derive(Clone, Debug)]
pub struct Scope(pub Option<String>);

/// How many changes of clusters a slow reader may be behind before it looks at everything.
const BACKLOG: usize = 1024;

impl Scope {
    fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match &self.0 {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        }
    }

    /// A watch of one of the custom resources, whole.
    pub(super) fn own<K>(
        &self,
        client: &Client,
        progress: &Progress,
    ) -> (Store<K>, impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send + use<K>)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        fill(self.api(client), watcher::Config::default(), progress)
    }

    /// A watch of objects that the operator made, by their label.
    pub(super) fn owned<K>(
        &self,
        client: &Client,
        progress: &Progress,
    ) -> (Store<K>, impl Stream<Item = Result<K, watcher::Error>> + Send + use<K>)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let (key, value) = names::MANAGED_BY;
        let (reader, events) =
            fill(self.api(client), watcher::Config::default().labels(&format!("{key}={value}")), progress);
        (reader, events.touched_objects())
    }
}

fn fill<K>(
    api: Api<K>,
    config: watcher::Config,
    progress: &Progress,
) -> (Store<K>, impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send + use<K>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (reader, writer) = store();
    let mut listed = progress.one_more();
    let events = watcher(api, config)
        .default_backoff()
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(writer)
        .inspect(move |event| match event {
            Ok(watcher::Event::InitDone) => listed(),
            Err(error) => warn!(kind = %K::kind(&()), %error, "a watch failed and is started again"),
            Ok(_) => {}
        });
    (reader, events)
}

/// The cluster that an object of ours belongs to, by its label. A forged label only makes a cluster look once more.
pub(super) fn cluster_of<K: Resource<DynamicType = ()>>(
    object: &K,
) -> Option<ObjectRef<DeserializeGuard<RivvenCluster>>> {
    let cluster = object.labels().get(names::CLUSTER)?;
    Some(ObjectRef::new(cluster).within(object.namespace().as_deref()?))
}

/// Turns a watch into the clusters it concerns.
pub(super) fn clusters<K: Resource<DynamicType = ()>>(
    events: impl Stream<Item = Result<K, watcher::Error>> + Send + 'static,
) -> impl Stream<Item = ObjectRef<DeserializeGuard<RivvenCluster>>> + Send + 'static {
    events.filter_map(|event| std::future::ready(event.ok().as_ref().and_then(cluster_of)))
}

/// The connect that an object of ours belongs to, by its label.
pub(super) fn connect_of<K: Resource<DynamicType = ()>>(
    object: &K,
) -> Option<ObjectRef<DeserializeGuard<RivvenConnect>>> {
    let connect = object.labels().get(names::CONNECT)?;
    Some(ObjectRef::new(connect).within(object.namespace().as_deref()?))
}

/// Tells those who refer to clusters when something that matters to them changed: phase, identity, or the start of the
/// broker that serves them. Anything else, a status message say, would wake thousands of topics for nothing.
#[derive(Clone)]
pub(super) struct ClusterNews {
    sender: broadcast::Sender<(String, String)>,
    last: Arc<Mutex<HashMap<(String, String), String>>>,
}

impl ClusterNews {
    pub(super) fn new() -> Self {
        Self { sender: broadcast::channel(BACKLOG).0, last: Arc::default() }
    }

    pub(super) fn cluster(&self, cluster: &DeserializeGuard<RivvenCluster>) {
        let Ok(found) = &cluster.0 else { return };
        let status = found.status.as_ref();
        let print = format!(
            "{:?} {:?} {:?} {:?}",
            found.metadata.uid,
            found.metadata.deletion_timestamp,
            status.and_then(|s| s.phase),
            found.spec.allowed_namespaces
        );
        self.changed((found.namespace().unwrap_or_default(), found.name_any()), "cluster", &print);
    }

    pub(super) fn pod(&self, pod: &k8s_openapi::api::core::v1::Pod) {
        let Some(cluster) = pod.labels().get(names::CLUSTER) else { return };
        let print = incarnation(pod).unwrap_or_default();
        self.changed((pod.namespace().unwrap_or_default(), cluster.clone()), &pod.name_any(), print);
    }

    fn changed(&self, cluster: (String, String), part: &str, print: &str) {
        let key = (format!("{}/{}", cluster.0, cluster.1), part.to_owned());
        let before = self.last.lock().unwrap_or_else(PoisonError::into_inner).insert(key, print.to_owned());
        if before.as_deref() != Some(print) {
            // Nobody listening is no fault: whoever comes later looks at everything first.
            let _ = self.sender.send(cluster);
        }
    }

    /// The objects of `store` that refer to a cluster that changed.
    pub(super) fn dependents<K>(
        &self,
        store: Store<DeserializeGuard<K>>,
        refers: impl Fn(&K, &(String, String)) -> bool + Send + Sync + Clone + 'static,
    ) -> impl Stream<Item = ObjectRef<DeserializeGuard<K>>> + Send + 'static
    where
        K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
    {
        let news = self.sender.subscribe();
        futures::stream::unfold(news, |mut news| async move {
            match news.recv().await {
                Ok(cluster) => Some((Some(cluster), news)),
                // Too far behind to know which: look at all of them.
                Err(broadcast::error::RecvError::Lagged(_)) => Some((None, news)),
                Err(broadcast::error::RecvError::Closed) => None,
            }
        })
        .flat_map(move |changed| {
            let concerned = store.state_filter(|object| {
                object.0.as_ref().is_ok_and(|object| changed.as_ref().is_none_or(|cluster| refers(object, cluster)))
            });
            futures::stream::iter(concerned.into_iter().map(|object| ObjectRef::from_obj(object.as_ref())))
        })
    }
}

/// Whether a reference made in `namespace` is to `cluster`.
pub(super) fn refers(
    reference: &crate::api::ClusterRef,
    namespace: Option<String>,
    cluster: &(String, String),
) -> bool {
    reference.name == cluster.1 && reference.namespace.clone().or(namespace).as_deref() == Some(cluster.0.as_str())
}
