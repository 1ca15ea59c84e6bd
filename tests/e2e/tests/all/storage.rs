//! Volumes that grow while records are written, seen from inside the brokers.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{Patch, PatchParams};
use rivven_client::Client;
use rivven_e2e::load::Load;
use rivven_e2e::{Place, operator, wait};
use rivven_operator::api::{Phase, RivvenCluster};
use rivven_operator::names;
use serde_json::json;

/// How large a record is that is to fill a disk, in bytes.
const LARGE: usize = 256 << 10;

/// Waits until the volumes have this size and all is as wanted.
async fn grown(place: &Place, size: &str) -> Result<()> {
    wait::until(&format!("volumes of {size}, Ready"), || async {
        let status = place.status("x").await?;
        let as_wanted = status.phase == Some(Phase::Ready) && status.reason.as_deref() == Some("AsWanted");
        Ok((as_wanted && status.storage.as_deref() == Some(size)).then_some(()))
    })
    .await
}

#[tokio::test]
async fn volumes_grow_under_load_and_no_pod_is_restarted() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::new("growth").await?;
    let load = Load::on_three(&place, 3, 3, json!({})).await?;
    let before = place.pods("x").await?;
    let began = Instant::now();
    place.change("x", json!({ "storage": { "size": "640Mi" } })).await?;
    wait::closely("Scaling", || async { Ok((place.status("x").await?.phase == Some(Phase::Scaling)).then_some(())) })
        .await?;
    grown(&place, "640Mi").await?;
    println!("growth of three volumes: {:.2} s", began.elapsed().as_secs_f64());
    let silence = load.finish("growth of the volumes").await?;
    ensure!(place.pods("x").await? == before, "no pod is restarted");
    println!("growth of the volumes: the longest without a write to a partition: {} ms", silence.as_millis());
    let set = place.api::<StatefulSet>().get("rivven-x").await?.spec.context("a spec")?;
    let template = json!(set.volume_claim_templates.context("claim templates")?[0].spec);
    ensure!(template["resources"]["requests"]["storage"] == "640Mi", "new volumes have the new size: {template}");

    // A mistake is refused; a volume that somebody makes larger is left so.
    place.change("x", json!({ "storage": { "size": "320Mi" } })).await?;
    wait::until("StorageShrinkRefused", || async {
        let reason = place.status("x").await?.reason;
        Ok((reason.as_deref() == Some("StorageShrinkRefused")).then_some(()))
    })
    .await?;
    place.change("x", json!({ "storage": { "size": "640Mi" } })).await?;
    let larger = Patch::Merge(json!({ "spec": { "resources": { "requests": { "storage": "704Mi" } } } }));
    let claims = place.api::<PersistentVolumeClaim>();
    claims.patch("data-rivven-x-1", &PatchParams::default(), &larger).await?;
    wait::until("grown by hand", || async {
        let volumes = place.status("x").await?.brokers.into_iter().filter_map(|broker| broker.volume?.capacity);
        Ok(volumes.into_iter().any(|capacity| capacity == "704Mi").then_some(()))
    })
    .await?;
    grown(&place, "640Mi").await?;
    ensure!(place.pods("x").await? == before, "no pod is restarted");
    place.done().await
}

#[tokio::test]
async fn a_released_broker_is_stopped_while_its_volume_grows_and_loses_nothing() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::new("offline").await?;
    place.cluster("x", json!({})).await?;
    place.cluster_is("x", Phase::Ready).await?;
    place.topic("orders", "x", json!({ "partitions": 1 })).await?;
    place.topic_is("orders", Phase::Ready).await?;
    let before = place.pods("x").await?;
    let mut written = 0;
    {
        let mut connection = place.connect("rivven-x-0").await?;
        for number in 0..100 {
            connection.client.publish_to_partition("orders", 0, None::<Vec<u8>>, format!("{number}")).await?;
            written += 1;
        }
    }
    place.change("x", json!({ "storage": { "size": "640Mi" } })).await?;
    grown(&place, "640Mi").await?;
    ensure!(place.pods("x").await? != before, "it was stopped for it");
    let mut connection = place.connect("rivven-x-0").await?;
    let read = read(&mut connection.client).await?;
    println!("growth of a released broker's volume: {written} acknowledged, {read} read");
    ensure!(read == written, "{read} of {written}");
    place.done().await
}

async fn read(client: &mut Client) -> Result<usize> {
    Ok(client.consume("orders", 0, 0, 1000).await?.len())
}

/// What a record of the full disk looks like: its number, and enough to fill a disk.
fn large(number: u64) -> Vec<u8> {
    let mut value = format!("{number} ").into_bytes();
    value.resize(LARGE, b'.');
    value
}

#[tokio::test]
async fn a_released_broker_with_a_full_disk_grows_and_goes_on_and_loses_nothing() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::new("full").await?;
    place.cluster("x", json!({})).await?;
    place.cluster_is("x", Phase::Ready).await?;
    place.topic("orders", "x", json!({ "partitions": 1 })).await?;
    place.topic_is("orders", Phase::Ready).await?;
    let mut connection = place.connect("rivven-x-0").await?;
    let mut acknowledged = Vec::new();
    let refusal = loop {
        let number = acknowledged.len() as u64;
        match connection.client.publish_to_partition("orders", 0, None::<Vec<u8>>, large(number)).await {
            Ok(_) => acknowledged.push(number),
            Err(error) => break error.to_string(),
        }
        ensure!(acknowledged.len() * LARGE < 1 << 30, "the disk is never full");
    };
    ensure!(refusal.contains("No space left"), "{refusal}");
    println!("disk full after {} records of {} KiB", acknowledged.len(), LARGE >> 10);

    place.change("x", json!({ "storage": { "size": "640Mi" } })).await?;
    grown(&place, "640Mi").await?;
    let mut connection = place.connect("rivven-x-0").await?;
    for _ in 0..10 {
        let number = acknowledged.len() as u64;
        connection.client.publish_to_partition("orders", 0, None::<Vec<u8>>, large(number)).await?;
        acknowledged.push(number);
    }
    // What was written after the growth is what another restart would lose, had the disk grown under the broker.
    let before = place.pods("x").await?;
    let again = Patch::Merge(json!({ "metadata": { "annotations": { names::RESTARTED_AT: "now" } } }));
    place.api::<RivvenCluster>().patch("x", &PatchParams::default(), &again).await?;
    wait::until("restarted", || async {
        let now = place.pods("x").await?;
        Ok((now.len() == 1 && now.iter().all(|(pod, uid)| before.get(pod) != Some(uid))).then_some(()))
    })
    .await?;
    place.as_wanted("x").await?;
    let mut connection = place.connect("rivven-x-0").await?;
    let (mut read, mut next) = (Vec::new(), 0);
    loop {
        let batch = connection.client.consume("orders", 0, next, 8).await?;
        if batch.is_empty() {
            break;
        }
        for message in batch {
            next = message.offset + 1;
            let text = String::from_utf8_lossy(&message.value);
            read.push(text.split(' ').next().context("a number")?.parse::<u64>()?);
        }
    }
    println!("a full disk grown: {} acknowledged, {} read", acknowledged.len(), read.len());
    ensure!(read == acknowledged, "in order and complete");
    place.done().await
}
