//! Observe, from warm caches and given broker answers, and decide: for 5 brokers with 500 partitions and for 50 with
//! 5 000. The aim for the latter: under 1 ms.
//!
//! A cluster of several brokers is not accepted yet either; one whose accepted spec has them is kept, and that is measured.

#![allow(clippy::expect_used, reason = "a benchmark that cannot be set up fails")]

use std::fmt::Debug;
use std::hint::black_box;

use chrono::Utc;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use kube::client::Body;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::store;
use kube::runtime::watcher::Event;
use kube::{Client, Resource};
use rivven_fsm::cluster::partitions::Partition;
use rivven_fsm::cluster::{Answer, Membership, Object, Partitions, decide};
use rivven_operator::api::{RivvenCluster, RivvenClusterSpec};
use rivven_operator::broker::{Access, BrokerAddress, Brokers, capabilities};
use rivven_operator::observe::caches::Cache;
use rivven_operator::observe::{Caches, Observer, compare};
use rivven_operator::{names, render};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const UID: &str = "uid-x";
/// A version whose brokers tell of their partitions.
const VERSION: &str = "0.1.0";
const PARTITIONS_PER_BROKER: u32 = 100;

type Failure = Box<dyn std::error::Error>;

fn cache<K>(objects: Vec<Value>) -> Result<Cache<K>, Failure>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (reader, mut writer) = store::<K>();
    writer.apply_watcher_event(&Event::Init);
    for object in objects {
        writer.apply_watcher_event(&Event::InitApply(serde_json::from_value(object)?));
    }
    writer.apply_watcher_event(&Event::InitDone);
    let mut cache = Cache::default();
    cache.add(None, reader);
    // The store lives as long as its writer.
    std::mem::forget(writer);
    Ok(cache)
}

/// Each on three brokers, all in sync.
fn partitions(brokers: u32) -> Partitions {
    let of = |id: u32| {
        let replicas = vec![id % brokers, (id + 1) % brokers, (id + 2) % brokers];
        Partition {
            topic: "orders".into(),
            id,
            leader: replicas.first().copied(),
            in_sync: replicas.clone(),
            replicas,
            min_in_sync: 2,
        }
    };
    Partitions::Known((0..brokers * PARTITIONS_PER_BROKER).map(of).collect::<Vec<_>>().into())
}

async fn world(brokers: u32) -> Result<(Observer, RivvenCluster), Failure> {
    let spec: RivvenClusterSpec = serde_json::from_value(json!({ "replicas": brokers, "version": VERSION }))?;
    let input = render::Input {
        name: "x",
        namespace: "ns",
        uid: UID,
        spec: &spec,
        capabilities: capabilities(VERSION),
        domain: "cluster.local",
        restarted_at: None,
        certificate: None,
        rules: &std::collections::BTreeMap::new(),
    };
    let live = |object: Object| {
        let mut value = render::cluster(&input).remove(&object).unwrap_or_default();
        let hash = compare::hash(&value);
        value["metadata"]["annotations"][compare::DESIRED_HASH] = json!(hash);
        value["metadata"]["resourceVersion"] = json!("1");
        value["metadata"]["generation"] = json!(1);
        value
    };
    let mut set = live(Object::StatefulSet);
    set["metadata"]["uid"] = json!("uid-set");
    set["status"] = json!({ "replicas": brokers, "observedGeneration": 1, "updateRevision": "r1" });
    let pod = |ordinal: u32| {
        let mut labels = json!(names::labels("x"));
        labels["controller-revision-hash"] = json!("r1");
        json!({
            "metadata": { "name": names::pod("x", ordinal), "namespace": "ns", "uid": format!("pod-{ordinal}"), "labels": labels },
            "status": {
                "phase": "Running",
                "conditions": [{ "type": "Ready", "status": "True" }, { "type": "PodScheduled", "status": "True" }],
                "containerStatuses": [{
                    "name": names::CONTAINER, "ready": true, "restartCount": 0, "image": "i", "imageID": "i",
                    "containerID": format!("c-{ordinal}"), "state": { "running": {} },
                }],
            },
        })
    };
    let claim = |ordinal: u32| {
        let mut labels = json!(names::labels("x"));
        labels[names::CLUSTER_UID] = json!(UID);
        json!({
            "metadata": { "name": names::claim("x", ordinal), "namespace": "ns", "uid": format!("claim-{ordinal}"), "labels": labels },
            "spec": { "resources": { "requests": { "storage": "10Gi" } } },
            "status": { "phase": "Bound", "capacity": { "storage": "10Gi" } },
        })
    };
    let cluster = json!({
        "apiVersion": "rivven.io/v1alpha1", "kind": "RivvenCluster",
        "metadata": { "name": "x", "namespace": "ns", "uid": UID, "finalizers": ["rivven.io/finalizer"], "annotations": { names::FORMED: UID } },
        "spec": json!(spec), "status": { "phase": "Ready" },
    });
    let caches = Caches {
        clusters: cache::<DeserializeGuard<RivvenCluster>>(vec![cluster.clone()])?,
        stateful_sets: cache(vec![set])?,
        services: cache(vec![live(Object::HeadlessService), live(Object::ClientService)])?,
        config_maps: cache(vec![live(Object::ConfigMap)])?,
        budgets: cache(vec![live(Object::PodDisruptionBudget)])?,
        policies: cache(vec![live(Object::NetworkPolicy)])?,
        pods: cache((0..brokers).map(pod).collect())?,
        claims: cache((0..brokers).map(claim).collect())?,
        ..Caches::default()
    };
    // The admin Secret is read once and remembered; it is all that is ever asked of this API server.
    let mut secret = live(Object::AuthSecret);
    secret["data"] = json!({ names::TOKEN_KEY: "dG9rZW4=" });
    let secret = secret.to_string();
    let service = tower::service_fn(move |_: http::Request<Body>| {
        let secret = secret.clone();
        async move { Ok::<_, std::convert::Infallible>(http::Response::new(Body::from(secret.into_bytes()))) }
    });
    let fleet = Brokers::new(Access::Direct);
    for ordinal in 0..brokers {
        let address = BrokerAddress {
            namespace: "ns".to_owned(),
            pod: names::pod("x", ordinal),
            host: names::host("x", "ns", ordinal, "cluster.local"),
            client_port: names::CLIENT_PORT,
            api_port: names::API_PORT,
            tls: None,
        };
        let said = Answer::Said {
            healthy: true,
            version: VERSION.to_owned(),
            node_id: names::pod("x", ordinal),
            leader: ordinal == 0,
            membership: Membership::Of {
                voters: (0..brokers).collect(),
                learners: std::collections::BTreeSet::new(),
                foreign: Vec::new(),
            },
        };
        fleet.assume(&address, &format!("c-{ordinal}"), said, partitions(brokers)).await;
    }
    let observer = Observer::new(Client::new(service, "ns"), caches, fleet, "cluster.local".to_owned());
    Ok((observer, serde_json::from_value(cluster)?))
}

fn observe_and_decide(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut group = criterion.benchmark_group("observe and decide");
    for brokers in [5, 50] {
        let (observer, cluster) = runtime.block_on(world(brokers)).expect("a world");
        let now = Utc::now();
        let seen = runtime.block_on(observer.cluster(&cluster, chrono::Utc::now())).expect("a sight");
        assert_eq!(seen.observation.brokers.len(), brokers as usize);
        assert_eq!(
            decide(&seen.observation, now).phase,
            rivven_fsm::Phase::Ready,
            "{:?}",
            decide(&seen.observation, now)
        );
        group.bench_function(BenchmarkId::from_parameter(brokers), |bencher| {
            bencher.iter(|| {
                let sight = runtime.block_on(observer.cluster(&cluster, chrono::Utc::now())).expect("a sight");
                black_box(decide(&sight.observation, now))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, observe_and_decide);
criterion_main!(benches);
