//! Connects, by the operator's real code, on the model of Kubernetes: workers come and go, and no connector is ever active
//! twice; secrets stay where they belong; what goes wrong with one connector is its own matter.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::ByteString;
use rivven_sim::{Fault, Session};
use serde_json::{Value, json};
use support::broker::Fleet;
use support::{World, cluster, connect};

const CONNECTS: &str = "rivvenconnects.rivven.io";
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

fn sources(names: &[&str]) -> Value {
    names.iter().map(|name| json!({ "name": name, "connector": "datagen", "topic": format!("t-{name}") })).collect()
}

/// A cluster that is Ready, and a connect of six sources and a sink.
async fn begun(world: &mut World<Fleet>, spec: Value) {
    world.sim.apply(cluster(&json!({ "replicas": 1 })));
    world.settle().await.unwrap();
    let mut all = json!({
        "sources": sources(&NAMES),
        "sinks": [{ "name": "out", "connector": "stdout", "topics": ["t-*"], "consumerGroup": "g" }],
    });
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    world.sim.apply(connect(&all));
    world.settle().await.unwrap();
}

fn change(world: &World<Fleet>, spec: &Value) {
    world.sim.apply(json!({
        "apiVersion": "rivven.io/v1alpha1", "kind": "RivvenConnect", "metadata": { "name": "p" }, "spec": spec,
    }));
}

fn status(world: &World<Fleet>) -> Value {
    world.sim.get(CONNECTS, "default", "p").unwrap()["status"].clone()
}

fn state(world: &World<Fleet>, name: &str) -> String {
    let status = status(world);
    let found = status["connectors"].as_array().unwrap().iter().find(|c| c["name"] == name).unwrap();
    found["state"].as_str().unwrap().to_owned()
}

/// The pods of workers, by name, each with what it runs.
fn running(world: &World<Fleet>) -> BTreeMap<String, BTreeSet<String>> {
    let pods = world.sim.list("pods");
    pods.iter()
        .filter_map(|pod| {
            let runs = pod["metadata"]["annotations"]["rivven.io/connectors"].as_str()?;
            Some((pod["metadata"]["name"].as_str()?.to_owned(), runs.split(',').map(str::to_owned).collect()))
        })
        .collect()
}

/// Watches every pod until it is dropped: no connector may be in two at a time.
struct Guard(tokio::task::JoinHandle<()>);

impl Guard {
    fn over(world: &World<Fleet>) -> Self {
        let sim = world.sim.clone();
        Self(tokio::spawn(async move {
            loop {
                let mut seen = BTreeSet::new();
                for pod in sim.list("pods") {
                    let runs = pod["metadata"]["annotations"]["rivven.io/connectors"].as_str().unwrap_or_default();
                    for connector in runs.split(',').filter(|c| !c.is_empty()) {
                        assert!(seen.insert(connector.to_owned()), "{connector} is active twice");
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }))
    }

    /// Fails the test if it saw something.
    async fn end(self) {
        self.0.abort();
        assert!(self.0.await.unwrap_err().is_cancelled(), "a connector was active twice");
    }
}

#[tokio::test(start_paused = true)]
async fn workers_come_and_go_and_no_connector_is_active_twice() {
    let mut world = World::<Fleet>::new(1);
    world.start(|_| {});
    begun(&mut world, json!({})).await;
    assert_eq!(world.phase(CONNECTS, "p"), "Ready", "{:#}", status(&world));
    assert_eq!(running(&world).len(), 1);
    let guard = Guard::over(&world);
    for workers in [3, 2, 5, 0, 1, 4] {
        change(&world, &json!({ "replicas": workers }));
        world.settle().await.unwrap();
        let active: usize = running(&world).values().map(BTreeSet::len).sum();
        assert_eq!(active, if workers == 0 { 0 } else { 7 }, "{workers} workers: {:?}", running(&world));
        assert!(running(&world).len() <= workers, "{:?}", running(&world));
        assert_eq!(world.phase(CONNECTS, "p"), "Ready", "{:#}", status(&world));
    }
    guard.end().await;
    let deployments = world.sim.list("deployments.apps").len();
    assert_eq!(deployments, running(&world).len(), "workers without connectors do not exist");
    let status = status(&world);
    assert_eq!(
        status["selector"],
        "app.kubernetes.io/component=worker,app.kubernetes.io/instance=p,app.kubernetes.io/name=rivven-connect"
    );
    assert_eq!(status["running"], "7/7");
    // At rest nothing is asked of anybody but the workers themselves.
    let before = world.log().0.len();
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(world.log().0.len(), before, "a connect at rest is silent");
}

#[tokio::test(start_paused = true)]
async fn topics_are_made_first_and_patterns_follow_the_topics() {
    let mut world = World::<Fleet>::new(1);
    world.start(|_| {});
    let source = json!({ "name": "a", "connector": "datagen", "topic": "t-a", "topicConfig": { "partitions": 4 } });
    begun(&mut world, json!({ "sources": [source] })).await;
    assert_eq!(world.fleet.writes(), ["create t-a 4"]);
    assert_eq!(world.fleet.topics()["t-a"].partitions, 4);
    let files = |world: &World<Fleet>| {
        world.sim.get("configmaps", "default", "rivven-connect-p-config").unwrap()["data"].to_string()
    };
    assert!(files(&world).contains("t-a") && !files(&world).contains("t-*"), "{}", files(&world));

    // What is not to be made is waited for, and holds nobody else up.
    change(
        &world,
        &json!({
            "settings": { "topic": { "autoCreate": false } },
            "sinks": [
                { "name": "out", "connector": "stdout", "topics": ["t-*"], "consumerGroup": "g" },
                { "name": "late", "connector": "stdout", "topics": ["late"], "consumerGroup": "g" },
            ],
        }),
    );
    world.settle().await.unwrap();
    assert_eq!((state(&world, "out").as_str(), state(&world, "late").as_str()), ("Running", "Refused"));
    assert_eq!(status(&world)["phase"], "Degraded");
    let topic = support::broker::Topic { partitions: 1, config: support::broker::defaults() };
    world.fleet.put("data-rivven-x-0", "late", topic);
    tokio::time::sleep(Duration::from_mins(6)).await;
    world.settle().await.unwrap();
    assert_eq!(state(&world, "late"), "Running");
    assert_eq!(status(&world)["phase"], "Ready");
}

#[tokio::test(start_paused = true)]
async fn secrets_stay_in_secrets_and_a_change_rolls_only_who_uses_them() {
    let mut world = World::<Fleet>::new(1);
    world.start(|_| {});
    let login = |password: &str| {
        let value = |text: &str| json!(ByteString(text.as_bytes().to_vec()));
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "login", "namespace": "default" },
            "data": { "host": value("db"), "database": value("shop"), "user": value("cdc"), "password": value(password) },
        })
    };
    world.sim.apply(login("hunter2\"$"));
    let mut all = sources(&NAMES);
    let pg = json!({ "name": "pg", "connector": "postgres-cdc", "topic": "cdc", "configSecretRef": "login" });
    all.as_array_mut().unwrap().push(pg);
    // The released worker is not given PostgreSQL.
    let own = "registry.example/connect";
    begun(&mut world, json!({ "sources": all, "replicas": 2, "image": own })).await;
    assert_eq!(world.phase(CONNECTS, "p"), "Ready", "{:#}", status(&world));
    let before = running(&world);
    let user: BTreeSet<&String> =
        before.iter().filter(|(_, runs)| runs.contains("source/pg")).map(|(pod, _)| pod).collect();
    assert_eq!(user.len(), 1);
    for (key, object) in world.sim.world() {
        let text = object.to_string();
        assert!(key.starts_with("secrets") || !text.contains("hunter2"), "a secret is in {key}");
    }

    world.sim.apply(login("another"));
    tokio::time::sleep(Duration::from_mins(6)).await;
    world.settle().await.unwrap();
    let after = running(&world);
    let kept: BTreeSet<&String> = before.keys().filter(|pod| after.contains_key(*pod)).collect();
    let rest: BTreeSet<&String> = before.keys().filter(|pod| !user.contains(pod)).collect();
    assert_eq!(kept, rest, "only the worker that uses it is restarted");

    world.sim.delete("secrets", "default", "login", &json!({})).unwrap();
    tokio::time::sleep(Duration::from_mins(6)).await;
    world.settle().await.unwrap();
    assert_eq!((state(&world, "pg").as_str(), state(&world, "a").as_str()), ("Refused", "Running"));
}

#[tokio::test(start_paused = true)]
async fn one_connector_that_fails_or_is_refused_is_told_and_the_others_run() {
    let mut world = World::<Fleet>::new(1);
    world.start(|_| {});
    let mut all = sources(&NAMES[..2]);
    all.as_array_mut().unwrap().push(json!({ "name": "odd", "connector": "my-plugin", "topic": "t" }));
    begun(&mut world, json!({ "sources": all })).await;
    assert_eq!(status(&world)["phase"], "Degraded");
    assert_eq!(status(&world)["reason"], "ConnectorRefused");
    assert_eq!((state(&world, "odd").as_str(), state(&world, "a").as_str()), ("Refused", "Running"));

    change(&world, &json!({ "sources": sources(&NAMES[..2]) }));
    world.settle().await.unwrap();
    assert_eq!(status(&world)["phase"], "Ready");
    world.fleet.fail("source/b", true);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!((state(&world, "b").as_str(), state(&world, "a").as_str()), ("Failing", "Running"));
    assert_eq!(status(&world)["reason"], "ConnectorFailing");
    world.fleet.fail("source/b", false);
    tokio::time::sleep(Duration::from_mins(4)).await;
    assert_eq!(status(&world)["phase"], "Ready");

    // A restart on request rolls every worker.
    let before = running(&world);
    world.sim.apply(json!({
        "apiVersion": "rivven.io/v1alpha1", "kind": "RivvenConnect",
        "metadata": { "name": "p", "annotations": { "rivven.io/restarted-at": "now" } },
    }));
    world.settle().await.unwrap();
    let after = running(&world);
    assert!(before.keys().all(|pod| !after.contains_key(pod)) && after.len() == before.len());
}

#[tokio::test(start_paused = true)]
async fn nothing_foreign_is_touched_and_a_deletion_ends() {
    let mut world = World::<Fleet>::new(1);
    world.sim.apply(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "rivven-connect-p", "namespace": "default" },
        "spec": {
            "replicas": 0, "selector": { "matchLabels": { "a": "b" } },
            "template": { "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [{ "name": "c", "image": "i" }] } },
        },
    }));
    let foreign = world.sim.get("deployments.apps", "default", "rivven-connect-p").unwrap()["spec"].clone();
    world.start(|_| {});
    begun(&mut world, json!({})).await;
    assert_eq!(status(&world)["reason"], "NameCollision");
    assert_eq!(world.sim.get("deployments.apps", "default", "rivven-connect-p").unwrap()["spec"], foreign);
    world.sim.delete("deployments.apps", "default", "rivven-connect-p", &json!({})).unwrap();
    tokio::time::sleep(Duration::from_mins(1)).await;
    world.settle().await.unwrap();
    assert_eq!(world.phase(CONNECTS, "p"), "Ready");

    // The cluster goes first: the connect says so, and can still be deleted.
    world.sim.delete("rivvenclusters.rivven.io", "default", "x", &json!({})).unwrap();
    world.settle().await.unwrap();
    assert_eq!(status(&world)["reason"], "ClusterNotFound");
    world.sim.delete(CONNECTS, "default", "p", &json!({})).unwrap();
    world.settle().await.unwrap();
    assert!(world.sim.get(CONNECTS, "default", "p").is_none());
    assert!(running(&world).is_empty());
    assert!(world.sim.world().keys().all(|key| !key.contains("rivven-connect-p")), "everything went with it");
}

/// Two workers, then three, then one: the world at the end.
async fn scaled(plan: impl FnOnce(&Session)) -> (BTreeMap<String, Value>, usize) {
    let mut world = World::<Fleet>::new(1);
    world.sim.apply(cluster(&json!({ "replicas": 1 })));
    world.start(plan);
    world.settle().await.unwrap();
    world.sim.apply(connect(&json!({ "sources": sources(&NAMES[..3]), "replicas": 2 })));
    world.settle().await.unwrap();
    let guard = Guard::over(&world);
    for workers in [3, 1] {
        change(&world, &json!({ "replicas": workers }));
        world.settle().await.unwrap();
    }
    guard.end().await;
    (world.end(), world.log().writes().0.len())
}

/// Pods are named anew each time they are made.
fn comparable(end: &BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    let mut end = end.clone();
    end.retain(|key, _| !key.starts_with("pods"));
    for object in end.values_mut() {
        if let Some(connectors) = object.pointer_mut("/status/connectors").and_then(Value::as_array_mut) {
            for connector in connectors.iter_mut() {
                connector["worker"] = Value::Null;
            }
        }
    }
    end
}

#[tokio::test(start_paused = true)]
async fn oracle_1_a_crash_at_any_write_ends_in_the_same_state() {
    let (reference, writes) = scaled(|_| {}).await;
    let mut plans = 0;
    for nth in 1..=writes as u64 {
        for fault in [Fault::CutBefore, Fault::CutAfter] {
            let (end, _) = scaled(|session| session.on_write(nth, fault)).await;
            assert_eq!(comparable(&end), comparable(&reference), "write {nth}");
            plans += 1;
        }
    }
    println!("oracle 1, connect: writes: {writes}, plans: {plans}");
}
