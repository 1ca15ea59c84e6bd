//! The life of a cluster and its topic on the released broker, with the operator in the cluster under its own rights.

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use rivven_e2e::{Place, operator, wait};
use rivven_operator::api::{Phase, RivvenCluster, RivvenTopic};
use serde_json::json;

/// Every phase that a cluster goes through, as a watch shows it.
fn phases(place: &Place, name: &str) -> (Arc<Mutex<Vec<Phase>>>, tokio::task::JoinHandle<()>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (events, log) = (
        watcher(place.api::<RivvenCluster>(), watcher::Config::default().fields(&format!("metadata.name={name}"))),
        seen.clone(),
    );
    let task = tokio::spawn(events.for_each(move |event| {
        if let Ok(watcher::Event::Apply(cluster) | watcher::Event::InitApply(cluster)) = event
            && let Some(phase) = cluster.status.and_then(|status| status.phase)
        {
            let mut log = log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if log.last() != Some(&phase) {
                log.push(phase);
            }
        }
        std::future::ready(())
    }));
    (seen, task)
}

#[tokio::test]
async fn a_cluster_and_a_topic_become_ready_carry_a_record_and_go_in_order() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::new("life").await?;
    let (seen, watch) = phases(&place, "one");
    place.cluster("one", json!({})).await?;
    place.topic("orders", "one", json!({ "deleteOnRemove": true, "config": { "retentionMs": 3_600_000 } })).await?;

    let cluster = place.cluster_is("one", Phase::Ready).await?;
    let status = cluster.status.context("a status")?;
    ensure!(status.version.as_deref() == Some("0.0.22"), "the version is the broker's own word: {:?}", status.version);
    ensure!(status.ready.as_deref() == Some("1/1") && status.storage.as_deref() == Some("320Mi"), "{status:?}");
    ensure!(
        status.brokers.len() == 1 && status.brokers[0].node_id.as_deref() == Some("rivven-one-0"),
        "{:?}",
        status.brokers
    );
    let topic = place.topic_is("orders", Phase::Ready).await?;
    let status = topic.status.context("a status")?;
    ensure!(
        status.partitions == Some(3) && status.config.get("retention.ms").map(String::as_str) == Some("3600000"),
        "{status:?}"
    );

    let mut connection = place.connect("rivven-one-0").await?;
    let offset = connection.client.publish_to_partition("orders", 2, None::<&[u8]>, &b"kept"[..]).await?;
    let records = connection.client.consume("orders", 2, offset, 1).await?;
    ensure!(records.len() == 1 && records[0].value.as_ref() == b"kept", "the record was read back");

    place.api::<RivvenTopic>().delete("orders", &DeleteParams::default()).await?;
    let topics = place.api::<RivvenTopic>();
    wait::until("the topic's object gone", || async { Ok(topics.get_opt("orders").await?.is_none().then_some(())) })
        .await?;
    ensure!(!connection.client.list_topics().await?.contains(&"orders".to_owned()), "deleteOnRemove deletes the topic");
    drop(connection);

    place.delete_cluster("one").await?;
    watch.abort();
    let seen = seen.lock().unwrap().clone();
    ensure!(
        seen == [Phase::Pending, Phase::Provisioning, Phase::Ready, Phase::Terminating],
        "the phases that a watch shows: {seen:?}"
    );
    ensure!(
        place.api::<Pod>().list(&ListParams::default()).await?.items.is_empty(),
        "brokers stop before the object goes"
    );
    ensure!(
        place.api::<PersistentVolumeClaim>().get_opt("data-rivven-one-0").await?.is_some(),
        "Retain keeps the volume"
    );

    // A cluster of the same name is another cluster: it does not take the volume over unasked.
    place.cluster("one", json!({ "storage": { "reclaimPolicy": "Delete" } })).await?;
    let stale = place.cluster_is("one", Phase::Pending).await?;
    wait::until("StaleVolume", || async {
        let cluster = place.api::<RivvenCluster>().get("one").await?;
        Ok((cluster.status.and_then(|s| s.reason).as_deref() == Some("StaleVolume")).then_some(()))
    })
    .await?;
    ensure!(place.api::<StatefulSet>().list(&ListParams::default()).await?.items.is_empty(), "nothing is created");
    let adopt = Patch::Merge(json!({ "metadata": { "annotations": { "rivven.io/adopt-volumes": "true" } } }));
    place.api::<RivvenCluster>().patch(&stale.name_any(), &PatchParams::default(), &adopt).await?;
    place.cluster_is("one", Phase::Ready).await?;
    place.delete_cluster("one").await?;
    let claims = place.api::<PersistentVolumeClaim>();
    wait::until("the claim gone", || async { Ok(claims.get_opt("data-rivven-one-0").await?.is_none().then_some(())) })
        .await?;
    place.done().await
}

#[tokio::test]
async fn three_brokers_of_a_version_that_runs_standalone_only_are_refused_and_nothing_is_created() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::new("refused").await?;
    place.cluster("three", json!({ "replicas": 3 })).await?;
    let cluster = place.cluster_is("three", Phase::Pending).await?;
    let status = cluster.status.context("a status")?;
    ensure!(status.reason.as_deref() == Some("BrokerCannotCluster"), "{status:?}");
    let message = status.message.context("a message")?;
    ensure!(message.contains("set replicas to 1"), "it says what to do: {message}");
    ensure!(place.api::<StatefulSet>().list(&ListParams::default()).await?.items.is_empty(), "no StatefulSet");
    ensure!(place.api::<Service>().list(&ListParams::default()).await?.items.is_empty(), "no Service");

    // Put right, it becomes Ready without anything else being done.
    let one = Patch::Merge(json!({ "spec": { "replicas": 1 } }));
    place.api::<RivvenCluster>().patch("three", &PatchParams::default(), &one).await?;
    place.cluster_is("three", Phase::Ready).await?;

    // A refused change to a serving cluster keeps its phase and what it runs.
    let shrunk = Patch::Merge(json!({ "spec": { "storage": { "size": "10Mi" } } }));
    place.api::<RivvenCluster>().patch("three", &PatchParams::default(), &shrunk).await?;
    let cluster = wait::until("SpecAccepted=False", || async {
        let cluster = place.api::<RivvenCluster>().get("three").await?;
        let refused = cluster
            .status
            .iter()
            .flat_map(|s| &s.conditions)
            .any(|c| c.type_ == "SpecAccepted" && c.status == "False" && c.reason == "StorageShrinkRefused");
        Ok(refused.then_some(cluster))
    })
    .await?;
    ensure!(cluster.status.and_then(|s| s.phase) == Some(Phase::Ready), "it keeps serving");
    place.done().await
}

#[tokio::test]
async fn a_changed_setting_restarts_the_broker_and_the_topics_configuration_comes_back() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::new("upgrade").await?;
    place.cluster("up", json!({})).await?;
    place.topic("events", "up", json!({ "config": { "retentionMs": 60_000 } })).await?;
    place.topic_is("events", Phase::Ready).await?;
    let before = place.api::<Pod>().get("rivven-up-0").await?.uid();
    let mut connection = place.connect("rivven-up-0").await?;
    let offset = connection.client.publish_to_partition("events", 0, None::<&[u8]>, &b"before"[..]).await?;
    drop(connection);

    let (seen, watch) = phases(&place, "up");
    let change = Patch::Merge(json!({ "spec": { "config": { "idleTimeoutSeconds": 300 } } }));
    place.api::<RivvenCluster>().patch("up", &PatchParams::default(), &change).await?;
    let pods = place.api::<Pod>();
    wait::until("another pod", || async { Ok(pods.get_opt("rivven-up-0").await?.filter(|pod| pod.uid() != before)) })
        .await?;
    place.cluster_is("up", Phase::Ready).await?;
    watch.abort();
    let seen = seen.lock().unwrap().clone();
    ensure!(seen.contains(&Phase::Upgrading), "an asked-for restart is an upgrade: {seen:?}");

    // The released broker forgets topic configurations; the operator does not.
    let mut connection = place.connect("rivven-up-0").await?;
    wait::until("the configuration applied again", || async {
        let mut connection = place.connect("rivven-up-0").await?;
        let mut configs = connection.client.describe_topic_configs(&["events"]).await?;
        Ok(configs.remove("events").and_then(|c| c.get("retention.ms").cloned()).filter(|ms| ms == "60000"))
    })
    .await?;
    let records = connection.client.consume("events", 0, offset, 1).await?;
    ensure!(records.len() == 1 && records[0].value.as_ref() == b"before", "the record is still there");
    drop(connection);
    place.done().await
}

#[tokio::test]
async fn what_is_not_the_operators_is_never_touched() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::new("foreign").await?;
    let foreign = json!({ "metadata": { "name": "rivven-mine-config", "labels": {
        "app.kubernetes.io/managed-by": "rivven-operator", "rivven.io/cluster": "mine" } }, "data": { "theirs": "yes" } });
    let maps = place.api::<ConfigMap>();
    let made = maps.create(&PostParams::default(), &serde_json::from_value(foreign)?).await?;
    place.cluster("mine", json!({ "storage": { "reclaimPolicy": "Delete" } })).await?;
    wait::until("NameCollision", || async {
        let cluster = place.api::<RivvenCluster>().get("mine").await?;
        Ok((cluster.status.and_then(|s| s.reason).as_deref() == Some("NameCollision")).then_some(()))
    })
    .await?;
    ensure!(place.api::<StatefulSet>().list(&ListParams::default()).await?.items.is_empty(), "nothing is half created");
    place.delete_cluster("mine").await?;
    let after = maps.get("rivven-mine-config").await?;
    ensure!(after.resource_version() == made.resource_version(), "the foreign object was neither written nor deleted");
    maps.delete("rivven-mine-config", &DeleteParams::default()).await?;

    // A StatefulSet would take any claim of the needed name, labels or none: it is not even created.
    let foreign = json!({
        "metadata": { "name": "data-rivven-mine-0" },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "320Mi" } } },
    });
    let claims = place.api::<PersistentVolumeClaim>();
    claims.create(&PostParams::default(), &serde_json::from_value(foreign)?).await?;
    place.cluster("mine", json!({ "storage": { "reclaimPolicy": "Delete" } })).await?;
    wait::until("StaleVolume", || async {
        let cluster = place.api::<RivvenCluster>().get("mine").await?;
        Ok((cluster.status.and_then(|s| s.reason).as_deref() == Some("StaleVolume")).then_some(()))
    })
    .await?;
    ensure!(place.api::<StatefulSet>().list(&ListParams::default()).await?.items.is_empty(), "no broker on it");
    place.delete_cluster("mine").await?;
    ensure!(claims.get_opt("data-rivven-mine-0").await?.is_some(), "and it is not deleted either");
    place.done().await
}

#[tokio::test]
async fn a_killed_broker_is_seen_and_heals() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::new("heal").await?;
    place.cluster("h", json!({})).await?;
    place.cluster_is("h", Phase::Ready).await?;
    let (seen, watch) = phases(&place, "h");
    wait::until("the watch sees Ready", || async { Ok(seen.lock().unwrap().contains(&Phase::Ready).then_some(())) })
        .await?;
    place.api::<Pod>().delete("rivven-h-0", &DeleteParams::default().grace_period(0)).await?;
    wait::until("Degraded, then Ready", || async {
        let seen = seen.lock().unwrap();
        Ok((seen.contains(&Phase::Degraded) && seen.last() == Some(&Phase::Ready)).then_some(()))
    })
    .await?;
    watch.abort();
    place.done().await
}
