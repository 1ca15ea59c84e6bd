//! Brokers that fail on demand: what they fail at is waited for, told, and never made worse.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::cluster::Clustered;
use support::{World, cluster, topic};

async fn serving() -> World<Clustered> {
    let mut world = World::<Clustered>::new(1);
    world.start(|_| {});
    world.sim.apply(cluster(&json!({ "replicas": 3, "version": "0.1.0" })));
    world.settle().await.unwrap();
    let config = json!({ "minInsyncReplicas": 2 });
    let spec = json!({ "clusterRef": { "name": "x" }, "partitions": 3, "replicationFactor": 3, "config": config });
    world.sim.apply(topic("orders", &spec));
    world.settle().await.unwrap();
    assert_eq!(world.phase("rivventopics.rivven.io", "orders"), "Ready");
    world
}

fn status(world: &World<Clustered>) -> Value {
    world.sim.get("rivvenclusters.rivven.io", "default", "x").unwrap()["status"].clone()
}

fn pods(world: &World<Clustered>) -> Vec<Value> {
    world.sim.list("pods").iter().map(|pod| pod["metadata"]["uid"].clone()).collect()
}

fn roll(world: &World<Clustered>) {
    world.sim.apply(json!({
        "apiVersion": "rivven.io/v1alpha1", "kind": "RivvenCluster", "metadata": { "name": "x" },
        "spec": { "config": { "logLevel": "debug" } },
    }));
}

async fn until(world: &World<Clustered>, what: &str, holds: impl Fn(&Value) -> bool) {
    for _ in 0..600 {
        if holds(&status(world)) {
            return;
        }
        world.sim.step();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("{what}: {:#}", status(world));
}

/// The followers, the first to restart first, and the controller's leader.
fn order(world: &World<Clustered>) -> (Vec<String>, String) {
    let brokers = status(world)["brokers"].as_array().unwrap().clone();
    let name = |broker: &Value| broker["name"].as_str().unwrap().to_owned();
    let followers = brokers.iter().rev().filter(|broker| broker["leader"] != true).map(name).collect();
    (followers, brokers.iter().find(|broker| broker["leader"] == true).map(name).unwrap())
}

#[tokio::test(start_paused = true)]
async fn nobody_restarts_while_the_replica_of_another_lags() {
    let world = serving().await;
    let (followers, _) = order(&world);
    world.fleet.fault(&followers[1], &json!({ "lag_ms": 3_600_000 })).await;
    let before = pods(&world);
    until(&world, "behind", |status| status["reason"] == "ReplicaOutOfSync").await;
    assert_eq!(status(&world)["phase"], "Degraded");
    roll(&world);
    until(&world, "told who waits", |status| {
        let waits = |broker: &&Value| broker["name"] == json!(followers[0]) && broker["blockedBy"].is_array();
        status["brokers"].as_array().unwrap().iter().any(|broker| waits(&broker))
    })
    .await;
    for _ in 0..120 {
        world.sim.step();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(pods(&world), before, "nobody was restarted for two minutes");
    world.fleet.fault(&followers[1], &json!({ "clear": true })).await;
    until(&world, "rolled", |status| {
        status["reason"] == "AsWanted" && pods(&world).iter().all(|uid| !before.contains(uid))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_does_not_hand_over_is_told_and_not_restarted() {
    let world = serving().await;
    let (_, leader) = order(&world);
    let uid = |world: &World<Clustered>| world.sim.get("pods", "default", &leader).unwrap()["metadata"]["uid"].clone();
    let before = uid(&world);
    world.fleet.fault(&leader, &json!({ "refuse": "/api/v1/transfer-leadership" })).await;
    roll(&world);
    until(&world, "told", |status| status["reason"] == "StepFailed").await;
    assert!(status(&world)["message"].as_str().unwrap().starts_with("TransferController"), "{:#}", status(&world));
    assert_eq!((status(&world)["phase"].clone(), uid(&world)), (json!("Degraded"), before.clone()));
    world.fleet.fault(&leader, &json!({ "clear": true })).await;
    until(&world, "rolled", |status| status["reason"] == "AsWanted").await;
    assert_ne!(uid(&world), before);
}
