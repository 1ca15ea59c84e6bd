//! Three brokers that are one cluster, on the test broker: formed once whatever ends in between, degraded and back, and
//! no acknowledged record lost.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, PostParams};
use rivven_conformance::load;
use rivven_e2e::{Place, broker, operator, wait};
use rivven_operator::api::{Phase, RivvenCluster};
use serde_json::json;

/// How soon a broker that is gone must be seen in the status.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

/// How often the operator told a broker of its members.
async fn bootstraps(place: &Place) -> Result<usize> {
    let events = place.api::<Event>().list(&ListParams::default()).await?;
    let told = events.items.iter().filter(|event| event.reason.as_deref() == Some("Bootstrap"));
    Ok(told.map(|event| event.series.as_ref().map_or(1, |series| series.count.unsigned_abs() as usize)).sum())
}

/// Waits for a phase, looking often, as the time is measured.
async fn phase_since(place: &Place, name: &str, phase: Phase, since: Instant) -> Result<Duration> {
    let api = place.api::<RivvenCluster>();
    loop {
        if api.get(name).await?.status.and_then(|status| status.phase) == Some(phase) {
            return Ok(since.elapsed());
        }
        ensure!(since.elapsed() < Duration::from_mins(2), "{name} is not {phase:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What the status says of a cluster of three that is well.
async fn is_whole(place: &Place, name: &str) -> Result<()> {
    let status = place.cluster_is(name, Phase::Ready).await?.status.context("a status")?;
    ensure!(status.ready.as_deref() == Some("3/3") && status.brokers.iter().all(|broker| broker.ready), "{status:?}");
    ensure!(status.brokers.iter().filter(|broker| broker.leader).count() == 1, "one leads: {:?}", status.brokers);
    ensure!(status.version.as_deref() == Some("0.1.0"), "{:?}", status.version);
    Ok(())
}

#[tokio::test]
async fn three_brokers_lose_nothing_whichever_is_killed() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::new("three").await?;
    let began = Instant::now();
    place.clustered("x", json!({})).await?;
    is_whole(&place, "x").await?;
    println!("three brokers are one cluster after {:.1} s", began.elapsed().as_secs_f64());
    ensure!(bootstraps(&place).await? == 1, "formed once: {}", bootstraps(&place).await?);

    let config = json!({ "minInsyncReplicas": 2 });
    place.topic("orders", "x", json!({ "partitions": 6, "replicationFactor": 3, "config": config })).await?;
    let topic = place.topic_is("orders", Phase::Ready).await?.status.context("a status")?;
    ensure!(topic.partitions == Some(6) && topic.replication_factor == Some(3), "read back: {topic:?}");

    let nodes = ["rivven-x-0", "rivven-x-1", "rivven-x-2"];
    let mut doors = Vec::new();
    for node in nodes {
        doors.push(place.door(node).await?);
    }
    let mut options = load::Options::new(doors.iter().map(|door| door.address.clone()).collect(), "orders", 6);
    options.address = nodes.iter().zip(&doors).map(|(node, door)| ((*node).to_owned(), door.address.clone())).collect();
    options.duration = Duration::from_secs(40);
    options.patience = Duration::from_mins(1);
    let producing = tokio::spawn(async move { load::run(&options).await });
    for node in nodes {
        let killed = Instant::now();
        broker::kill(node).await?;
        let seen = phase_since(&place, "x", Phase::Degraded, killed).await?;
        let healed = phase_since(&place, "x", Phase::Ready, killed).await?;
        println!(
            "{node} killed: Degraded after {:.1} s, Ready after {:.1} s",
            seen.as_secs_f64(),
            healed.as_secs_f64()
        );
        ensure!(seen <= SEEN_WITHIN, "seen after {seen:?}");
        is_whole(&place, "x").await?;
    }
    let report = producing.await??;
    println!("{}", serde_json::to_string(&report)?);
    ensure!(report.acknowledged > 1000 && report.lost == 0 && report.moved == 0, "records were lost");
    ensure!(report.out_of_order == 0, "order was not kept");

    let deleted = Instant::now();
    place.api::<Pod>().delete("rivven-x-1", &DeleteParams::default()).await?;
    let seen = phase_since(&place, "x", Phase::Degraded, deleted).await?;
    ensure!(seen <= SEEN_WITHIN, "a deleted pod was seen after {seen:?}");
    is_whole(&place, "x").await?;
    ensure!(bootstraps(&place).await? == 1, "never formed again");
    place.done().await
}

#[tokio::test]
async fn formed_once_although_the_operator_is_killed_on_the_way() -> Result<()> {
    operator::ensure(&[]).await?;
    let client = rivven_e2e::client().await?;
    for moment in ["brokers start", "forming"] {
        let place = Place::new("halfway").await?;
        place.clustered("x", json!({ "storage": { "reclaimPolicy": "Delete" } })).await?;
        let (pods, clusters) = (place.api::<Pod>(), place.api::<RivvenCluster>());
        wait::until(moment, || async {
            let reached = if moment == "brokers start" {
                pods.list(&ListParams::default()).await?.items.len() == 3
            } else {
                let status = clusters.get("x").await?.status;
                let reason = status.as_ref().and_then(|status| status.reason.as_deref());
                let phase = status.as_ref().and_then(|status| status.phase);
                reason == Some("Forming") || phase == Some(Phase::Ready)
            };
            Ok(reached.then_some(()))
        })
        .await?;
        operator::kill(&client).await?;
        is_whole(&place, "x").await?;
        ensure!(bootstraps(&place).await? <= 1, "killed when {moment}: formed twice");
        place.done().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_volume_from_elsewhere_is_never_merged() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::new("stale").await?;
    let claim = json!({
        "metadata": { "name": "data-rivven-x-1", "labels": { "rivven.io/cluster": "x", "rivven.io/cluster-uid": "another" } },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "320Mi" } } },
    });
    place.api::<PersistentVolumeClaim>().create(&PostParams::default(), &serde_json::from_value(claim)?).await?;
    place.clustered("x", json!({})).await?;
    let clusters = place.api::<RivvenCluster>();
    let message = wait::until("StaleVolume", || async {
        let status = clusters.get("x").await?.status;
        Ok(status.filter(|status| status.reason.as_deref() == Some("StaleVolume")).and_then(|status| status.message))
    })
    .await?;
    ensure!(message.contains("data-rivven-x-1"), "it names the volume: {message}");
    ensure!(place.api::<StatefulSet>().list(&ListParams::default()).await?.items.is_empty(), "nothing is created");
    place.api::<PersistentVolumeClaim>().delete("data-rivven-x-1", &DeleteParams::default()).await?;
    is_whole(&place, "x").await?;
    place.done().await
}

#[tokio::test]
async fn one_broker_that_could_cluster_is_a_cluster_of_one() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::new("single").await?;
    let config = json!({ "defaultReplicationFactor": 1, "minInsyncReplicas": 1 });
    place.clustered("x", json!({ "replicas": 1, "config": config })).await?;
    let status = place.cluster_is("x", Phase::Ready).await?.status.context("a status")?;
    ensure!(status.brokers.len() == 1 && status.brokers[0].leader, "{:?}", status.brokers);
    ensure!(bootstraps(&place).await? == 1, "it was told of itself");
    place.topic("t", "x", json!({ "replicationFactor": 2 })).await?;
    let topics = place.api::<rivven_operator::api::RivvenTopic>();
    wait::until("NotEnoughBrokers", || async {
        let reason = topics.get("t").await?.status.and_then(|status| status.reason);
        Ok((reason.as_deref() == Some("NotEnoughBrokers")).then_some(()))
    })
    .await?;
    place.done().await
}
