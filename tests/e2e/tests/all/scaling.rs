//! Brokers that join and leave while records are written.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use rivven_e2e::load::Load;
use rivven_e2e::{Place, operator, wait};
use rivven_operator::api::{Phase, RivvenCluster};
use rivven_operator::names;
use serde_json::json;

const PARTITIONS: u32 = 6;

/// As `kubectl scale` does it.
async fn scale(place: &Place, replicas: u32) -> Result<()> {
    let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    place.api::<RivvenCluster>().patch_scale("x", &PatchParams::default(), &patch).await?;
    Ok(())
}

/// Waits until so many brokers serve, and all is as wanted.
async fn serving(place: &Place, replicas: u32) -> Result<()> {
    let status = place.as_wanted("x").await?;
    ensure!(status.ready == Some(format!("{replicas}/{replicas}")), "{status:?}");
    ensure!(place.pods("x").await?.len() == replicas as usize);
    Ok(())
}

/// How many replicas of the topic each broker holds in sync, as the first broker says.
async fn held(place: &Place) -> Result<BTreeMap<String, u32>> {
    let door = place.door("rivven-x-0", names::CLIENT_PORT).await?;
    let mut wire = rivven_conformance::wire::Wire::connect(&door.address, Duration::from_secs(5)).await?;
    let mut held = BTreeMap::new();
    for topic in wire.cluster_metadata(&["orders"]).await?.topics {
        for partition in topic.partitions {
            ensure!(partition.replicas.len() == 3 && partition.isr.len() == 3, "{partition:?}");
            for node in partition.isr {
                *held.entry(node).or_default() += 1;
            }
        }
    }
    Ok(held)
}

#[tokio::test]
async fn three_become_five_and_three_again_under_load() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::new("scaled").await?;
    let load = Load::on_three(&place, 5, PARTITIONS, json!({ "rebalance": true })).await?;
    let before = place.pods("x").await?;
    let began = Instant::now();
    scale(&place, 5).await?;
    wait::closely("Scaling", || async { Ok((place.status("x").await?.phase == Some(Phase::Scaling)).then_some(())) })
        .await?;
    serving(&place, 5).await?;
    let (out, even) = (began.elapsed(), held(&place).await?);
    println!("3 to 5: {:.2} s; replicas in sync: {even:?}", out.as_secs_f64());
    ensure!(even.len() == 5 && even.values().all(|held| (3..=4).contains(held)), "{even:?}");
    let began = Instant::now();
    scale(&place, 3).await?;
    serving(&place, 3).await?;
    println!("5 to 3: {:.2} s; replicas in sync: {:?}", began.elapsed().as_secs_f64(), held(&place).await?);
    ensure!(place.pods("x").await? == before, "those that stayed were not touched");
    let claims = place.api::<PersistentVolumeClaim>().list(&ListParams::default()).await?.items;
    ensure!(claims.len() == 3, "the claims of those that left are deleted: {}", claims.len());
    load.finish("three became five and three again").await?;
    place.done().await
}

#[tokio::test]
async fn the_operator_may_be_killed_while_brokers_come_and_go() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::new("scalekill").await?;
    let load = Load::on_three(&place, 4, PARTITIONS, json!({ "rebalance": true })).await?;
    let client = rivven_e2e::client().await?;
    scale(&place, 4).await?;
    wait::until("a fourth pod", || async { Ok((place.pods("x").await?.len() == 4).then_some(())) }).await?;
    operator::kill(&client).await?;
    wait::until("replicas on the move", || async {
        let cluster = place.api::<RivvenCluster>().get("x").await?;
        Ok(cluster.metadata.annotations.is_some_and(|all| all.contains_key(names::MOVES)).then_some(()))
    })
    .await?;
    operator::kill(&client).await?;
    serving(&place, 4).await?;
    scale(&place, 3).await?;
    wait::until("replicas on the move again", || async {
        let cluster = place.api::<RivvenCluster>().get("x").await?;
        Ok(cluster.metadata.annotations.is_some_and(|all| all.contains_key(names::MOVES)).then_some(()))
    })
    .await?;
    operator::kill(&client).await?;
    wait::until("three pods", || async { Ok((place.pods("x").await?.len() == 3).then_some(())) }).await?;
    operator::kill(&client).await?;
    serving(&place, 3).await?;
    load.finish("brokers came and went with the operator killed four times").await?;
    place.done().await
}

/// Kubernetes' own autoscaler, through the subresource `scale`. It needs no metrics to keep to its bounds.
#[tokio::test]
async fn an_autoscaler_scales_the_cluster() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::new("autoscaled").await?;
    let load = Load::on_three(&place, 4, PARTITIONS, json!({})).await?;
    let api = place.api::<HorizontalPodAutoscaler>();
    let target = json!({ "apiVersion": "rivven.io/v1alpha1", "kind": "RivvenCluster", "name": "x" });
    let spec = json!({ "scaleTargetRef": target, "minReplicas": 4, "maxReplicas": 5 });
    let scaler = serde_json::from_value(json!({ "metadata": { "name": "x" }, "spec": spec }))?;
    api.create(&PostParams::default(), &scaler).await?;
    wait::until("asked for four", || async {
        Ok((place.api::<RivvenCluster>().get("x").await?.spec.replicas == 4).then_some(()))
    })
    .await?;
    serving(&place, 4).await?;
    let bounds = Patch::Merge(json!({ "spec": { "minReplicas": 1, "maxReplicas": 3 } }));
    api.patch("x", &PatchParams::default(), &bounds).await?;
    wait::until("asked for three", || async {
        Ok((place.api::<RivvenCluster>().get("x").await?.spec.replicas == 3).then_some(()))
    })
    .await?;
    serving(&place, 3).await?;
    load.finish("scaled by an autoscaler").await?;
    place.done().await
}

#[tokio::test]
async fn fewer_brokers_than_replicas_are_refused_and_named() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::new("toofew").await?;
    place.clustered("x", json!({ "config": { "defaultReplicationFactor": 1, "minInsyncReplicas": 1 } })).await?;
    place.cluster_is("x", Phase::Ready).await?;
    place.topic("orders", "x", json!({ "partitions": 1, "replicationFactor": 3 })).await?;
    place.topic_is("orders", Phase::Ready).await?;
    let before = place.pods("x").await?;
    let began = Instant::now();
    scale(&place, 2).await?;
    let said = place.cluster_says("x", "ScaleRefused").await?;
    println!("ScaleRefused: seen after {} ms", began.elapsed().as_millis());
    ensure!(began.elapsed() <= Duration::from_secs(1), "seen after {:?}", began.elapsed());
    let message = said.message.context("a message")?;
    ensure!(message.contains("orders/0") && message.contains('3'), "{message}");
    ensure!(said.phase == Some(Phase::Ready) && said.ready.as_deref() == Some("3/3"));
    ensure!(place.pods("x").await? == before, "no broker was touched");
    scale(&place, 3).await?;
    serving(&place, 3).await?;
    place.done().await
}
