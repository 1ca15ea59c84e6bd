//! What the end-to-end tests share: a real Kubernetes, the operator in it from its own chart, and conditions to wait for.
//!
//! `cargo xtask e2e` gives the environment. Without it every test fails and says so: a test that is not run is no test.

pub mod audit;
pub mod broker;
pub mod exchange;
pub mod load;
pub mod operator;
pub mod postgres;
pub mod wait;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use rivven_operator::api::{
    Phase, RivvenCluster, RivvenClusterStatus, RivvenConnect, RivvenConnectStatus, RivvenTopic,
};
use rivven_operator::names;
use serde_json::{Value, json};

/// A variable that `cargo xtask e2e` sets.
pub fn variable(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set: run the end-to-end tests by `cargo xtask e2e`"))
}

/// A client of the real API server.
pub async fn client() -> Result<Client> {
    variable("KUBECONFIG")?;
    let mut config = kube::Config::infer().await?;
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

/// A namespace of its own for a test, in which only pods that meet the standard `restricted` may run.
pub struct Place {
    /// The client.
    pub client: Client,
    /// Name of the namespace.
    pub namespace: String,
}

/// What namespaces of tests are known by.
const LABEL: &str = "rivven.io/test";

static COUNT: AtomicU32 = AtomicU32::new(0);

impl Place {
    /// Makes the namespace.
    pub async fn new(name: &str) -> Result<Self> {
        Self::with(name, "restricted").await
    }

    /// Makes the namespace when what tests before have deleted is gone: for whoever measures.
    pub async fn alone(name: &str) -> Result<Self> {
        let (api, ours) = (Api::<Namespace>::all(client().await?), ListParams::default().labels(LABEL));
        wait::until("the namespaces of other tests gone", || async {
            let left = api.list(&ours).await?.items;
            Ok(left.iter().all(|namespace| namespace.metadata.deletion_timestamp.is_none()).then_some(()))
        })
        .await?;
        Self::new(name).await
    }

    /// Makes a namespace that enforces another standard of pod security.
    pub async fn with(name: &str, enforced: &str) -> Result<Self> {
        let client = client().await?;
        let namespace = format!("{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let labels = json!({ "pod-security.kubernetes.io/enforce": enforced, LABEL: "true" });
        let object = serde_json::from_value(json!({ "metadata": { "name": namespace, "labels": labels } }))?;
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &object).await?;
        Ok(Self { client, namespace })
    }

    /// The API of a kind in this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates a cluster of one released broker, with `spec` laid over.
    pub async fn cluster(&self, name: &str, spec: Value) -> Result<RivvenCluster> {
        let mut all = json!({ "replicas": 1, "version": "0.0.22", "storage": { "size": "320Mi" } });
        overlay(&mut all, spec);
        let object = json!({ "apiVersion": "rivven.io/v1alpha1", "kind": "RivvenCluster", "metadata": { "name": name }, "spec": all });
        Ok(self.api::<RivvenCluster>().create(&PostParams::default(), &serde_json::from_value(object)?).await?)
    }

    /// Creates a cluster of three brokers that replicate, with `spec` laid over.
    pub async fn clustered(&self, name: &str, spec: Value) -> Result<RivvenCluster> {
        let mut all = json!({
            "replicas": 3,
            "version": "0.1.0",
            "image": "localhost/rivven-test-broker",
            "config": { "defaultReplicationFactor": 3, "minInsyncReplicas": 2 },
        });
        overlay(&mut all, spec);
        self.cluster(name, all).await
    }

    /// Creates a topic of three partitions, with `spec` laid over.
    pub async fn topic(&self, name: &str, cluster: &str, spec: Value) -> Result<RivvenTopic> {
        let mut all = json!({ "clusterRef": { "name": cluster }, "partitions": 3 });
        overlay(&mut all, spec);
        let object = json!({ "apiVersion": "rivven.io/v1alpha1", "kind": "RivvenTopic", "metadata": { "name": name }, "spec": all });
        Ok(self.api::<RivvenTopic>().create(&PostParams::default(), &serde_json::from_value(object)?).await?)
    }

    /// Waits until the cluster is in `phase`.
    pub async fn cluster_is(&self, name: &str, phase: Phase) -> Result<RivvenCluster> {
        let api = self.api::<RivvenCluster>();
        wait::until(&format!("cluster {name} {phase:?}"), || async {
            Ok(api.get_opt(name).await?.filter(|c| c.status.as_ref().and_then(|s| s.phase) == Some(phase)))
        })
        .await
    }

    /// Waits until the topic is in `phase`.
    pub async fn topic_is(&self, name: &str, phase: Phase) -> Result<RivvenTopic> {
        let api = self.api::<RivvenTopic>();
        wait::until(&format!("topic {name} {phase:?}"), || async {
            Ok(api.get_opt(name).await?.filter(|t| t.status.as_ref().and_then(|s| s.phase) == Some(phase)))
        })
        .await
    }

    /// Creates a connect of the released worker, with `spec` laid over.
    pub async fn pipeline(&self, name: &str, cluster: &str, spec: Value) -> Result<RivvenConnect> {
        let mut all = json!({
            "clusterRef": { "name": cluster }, "version": "0.0.22", "image": "localhost/rivven-connect",
        });
        overlay(&mut all, spec);
        let object = json!({ "apiVersion": "rivven.io/v1alpha1", "kind": "RivvenConnect", "metadata": { "name": name }, "spec": all });
        Ok(self.api::<RivvenConnect>().create(&PostParams::default(), &serde_json::from_value(object)?).await?)
    }

    /// Changes the spec of a connect, and waits until the operator has seen the change and `so` holds of the status.
    pub async fn pipeline_changed(
        &self,
        name: &str,
        spec: Value,
        so: impl Fn(&RivvenConnectStatus) -> bool,
    ) -> Result<RivvenConnectStatus> {
        let api = self.api::<RivvenConnect>();
        let patch = Patch::Merge(json!({ "spec": spec }));
        let generation = api.patch(name, &PatchParams::default(), &patch).await?.metadata.generation;
        let seen = |status: &RivvenConnectStatus| status.observed_generation >= generation && so(status);
        self.pipeline_says(name, seen).await
    }

    /// Waits until `so` holds of the status of a connect.
    pub async fn pipeline_says(
        &self,
        name: &str,
        so: impl Fn(&RivvenConnectStatus) -> bool,
    ) -> Result<RivvenConnectStatus> {
        let api = self.api::<RivvenConnect>();
        wait::until(&format!("connect {name}"), || async {
            Ok(api.get(name).await?.status.filter(|status| so(status)))
        })
        .await
    }

    /// The pods of a connect.
    pub async fn workers(&self, connect: &str) -> Result<Vec<Pod>> {
        let selector = ListParams::default().labels(&format!("{}={connect}", names::CONNECT));
        Ok(self.api::<Pod>().list(&selector).await?.items)
    }

    /// Where pods reach this process: the address by which it reaches their node.
    pub async fn host(&self) -> Result<IpAddr> {
        let nodes = Api::<Node>::all(self.client.clone()).list(&ListParams::default()).await?;
        let addresses = nodes.items.first().and_then(|node| node.status.as_ref()?.addresses.clone());
        let internal = addresses.unwrap_or_default().into_iter().find(|address| address.type_ == "InternalIP");
        let node = internal.context("the node's address")?.address;
        let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
        // Sends nothing.
        socket.connect((node.as_str(), 9))?;
        Ok(socket.local_addr()?.ip())
    }

    /// Changes the spec of a cluster.
    pub async fn change(&self, name: &str, spec: Value) -> Result<()> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.api::<RivvenCluster>().patch(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// What is said of a cluster.
    pub async fn status(&self, name: &str) -> Result<RivvenClusterStatus> {
        self.api::<RivvenCluster>().get(name).await?.status.context("a status")
    }

    /// Waits until the status gives this reason.
    pub async fn cluster_says(&self, name: &str, reason: &str) -> Result<RivvenClusterStatus> {
        wait::closely(reason, || async {
            let status = self.api::<RivvenCluster>().get(name).await?.status;
            Ok(status.filter(|status| status.reason.as_deref() == Some(reason)))
        })
        .await
    }

    /// Waits until the latest spec was looked at and all is so.
    pub async fn as_wanted(&self, name: &str) -> Result<RivvenClusterStatus> {
        let api = self.api::<RivvenCluster>();
        wait::until(&format!("cluster {name} as wanted"), || async {
            let cluster = api.get(name).await?;
            let generation = cluster.metadata.generation;
            let so = |status: &RivvenClusterStatus| {
                status.observed_generation == generation
                    && status.phase == Some(Phase::Ready)
                    && status.reason.as_deref() == Some("AsWanted")
            };
            Ok(cluster.status.filter(so))
        })
        .await
    }

    /// The uids of a cluster's pods, by name.
    pub async fn pods(&self, name: &str) -> Result<BTreeMap<String, String>> {
        let selector = ListParams::default().labels(&format!("{}={name}", names::CLUSTER));
        let pods = self.api::<Pod>().list(&selector).await?.items;
        Ok(pods.iter().map(|pod| (pod.name_any(), pod.uid().unwrap_or_default())).collect())
    }

    /// Deletes the cluster and waits until it is gone.
    pub async fn delete_cluster(&self, name: &str) -> Result<()> {
        let api = self.api::<RivvenCluster>();
        api.delete(name, &DeleteParams::default()).await?;
        wait::until(&format!("cluster {name} gone"), || async { Ok(api.get_opt(name).await?.is_none().then_some(())) })
            .await
    }

    /// Removes the namespace and all in it. Nobody waits for it but [`Self::alone`] and the end of all tests.
    pub async fn done(self) -> Result<()> {
        Api::<Namespace>::all(self.client.clone()).delete(&self.namespace, &DeleteParams::default()).await?;
        Ok(())
    }
}

fn overlay(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                overlay(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}
