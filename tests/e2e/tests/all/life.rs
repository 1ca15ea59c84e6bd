//! All that may happen to a cluster, one thing after another, under one load.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, EvictParams};
use rivven_e2e::load::Load;
use rivven_e2e::{Place, broker, operator, wait};
use rivven_operator::api::Phase;
use serde_json::json;

const PARTITIONS: u32 = 6;

/// Waits until the pod is another one than before.
async fn anew(place: &Place, pod: &str, before: &BTreeMap<String, String>) -> Result<()> {
    wait::until(&format!("{pod} is made anew"), || async {
        let now = place.pods("x").await?;
        Ok(now.get(pod).is_some_and(|uid| before.get(pod) != Some(uid)).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_life_under_load_loses_nothing() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::alone("life").await?;
    let load = Load::on_three(&place, 5, PARTITIONS, json!({ "rebalance": true })).await?;
    let client = rivven_e2e::client().await?;

    place.change("x", json!({ "config": { "logLevel": "debug" } })).await?;
    place.as_wanted("x").await?;

    place.change("x", json!({ "replicas": 5 })).await?;
    operator::kill(&client).await?;
    place.as_wanted("x").await?;

    broker::kill(&place, "rivven-x-1").await?;
    wait::until("it is noticed", || async {
        Ok((place.status("x").await?.phase == Some(Phase::Degraded)).then_some(()))
    })
    .await?;
    place.as_wanted("x").await?;

    place.change("x", json!({ "storage": { "size": "640Mi" } })).await?;
    operator::kill(&client).await?;
    place.as_wanted("x").await?;

    let before = place.pods("x").await?;
    place.api::<Pod>().evict("rivven-x-2", &EvictParams::default()).await?;
    anew(&place, "rivven-x-2", &before).await?;
    place.as_wanted("x").await?;

    // All at once: what is wanted changes while it is being carried out.
    place.change("x", json!({ "replicas": 3, "storage": { "size": "704Mi" } })).await?;
    place.change("x", json!({ "image": "localhost/no-such-image" })).await?;
    wait::until("halted", || async {
        let conditions = place.status("x").await?.conditions;
        Ok(conditions.iter().any(|c| c.type_ == "SpecAccepted" && c.reason == "RolloutHalted").then_some(()))
    })
    .await?;
    place.change("x", json!({ "image": "localhost/rivven-test-broker" })).await?;
    place.as_wanted("x").await?;
    let before = place.pods("x").await?;
    place.api::<Pod>().delete("rivven-x-0", &DeleteParams::default()).await?;
    anew(&place, "rivven-x-0", &before).await?;
    let done = place.as_wanted("x").await?;
    ensure!(done.storage.as_deref() == Some("704Mi"), "{done:?}");
    ensure!(place.pods("x").await?.len() == 3);
    load.finish("a life of it all").await?;
    place.done().await
}
