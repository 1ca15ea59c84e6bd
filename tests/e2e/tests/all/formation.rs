//! Three brokers that are one cluster, on the test broker: formed once whatever ends in between, degraded and back, and
//! no acknowledged record lost.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{DeleteParams, EvictParams, ListParams, PostParams};
use rivven_conformance::load;
use rivven_e2e::{Place, broker, operator, wait};
use rivven_operator::api::{Phase, RivvenCluster};
use rivven_operator::names;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// How soon a broker that is gone must be seen in the status.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

/// How often the operator told a broker of its members.
async fn bootstraps(place: &Place) -> Result<usize> {
    let events = place.api::<Event>().list(&ListParams::default()).await?;
    let told = events.items.iter().filter(|event| event.reason.as_deref() == Some("Bootstrap"));
    Ok(told.map(|event| event.series.as_ref().map_or(1, |series| series.count.unsigned_abs() as usize)).sum())
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
    let place = Place::alone("three").await?;
    place.clustered("x", json!({})).await?;
    is_whole(&place, "x").await?;
    ensure!(bootstraps(&place).await? == 1, "formed once: {}", bootstraps(&place).await?);

    let config = json!({ "minInsyncReplicas": 2 });
    place.topic("orders", "x", json!({ "partitions": 6, "replicationFactor": 3, "config": config })).await?;
    let topic = place.topic_is("orders", Phase::Ready).await?.status.context("a status")?;
    ensure!(topic.partitions == Some(6) && topic.replication_factor == Some(3), "read back: {topic:?}");

    let nodes = ["rivven-x-0", "rivven-x-1", "rivven-x-2"];
    let mut doors = Vec::new();
    for node in nodes {
        doors.push(place.door(node, names::CLIENT_PORT).await?);
    }
    let mut options = load::Options::new(doors.iter().map(|door| door.address.clone()).collect(), "orders", 6);
    options.address = nodes.iter().zip(&doors).map(|(node, door)| ((*node).to_owned(), door.address.clone())).collect();
    options.duration = Duration::from_secs(30);
    options.patience = Duration::from_mins(1);
    let producing = tokio::spawn(async move { load::run(&options).await });
    for node in nodes {
        let killed = Instant::now();
        broker::kill(&place, node).await?;
        seen_and_healed(&place, node, "killed", killed).await?;
    }
    let report = producing.await??;
    println!("{}", serde_json::to_string(&report)?);
    ensure!(report.acknowledged > 1000 && report.lost == 0 && report.moved == 0, "records were lost");
    ensure!(report.out_of_order == 0, "order was not kept");

    let deleted = Instant::now();
    place.api::<Pod>().delete("rivven-x-1", &DeleteParams::default()).await?;
    seen_and_healed(&place, "rivven-x-1", "deleted", deleted).await?;
    // As `kubectl drain` does: every pod of the node, tried again while the budget refuses.
    for node in nodes {
        let evicted = wait::until(&format!("{node} may be evicted"), || async {
            match place.api::<Pod>().evict(node, &EvictParams::default()).await {
                Ok(_) => Ok(Some(Instant::now())),
                Err(kube::Error::Api(status)) if status.code == 429 => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
        .await?;
        seen_and_healed(&place, node, "evicted", evicted).await?;
    }
    ensure!(bootstraps(&place).await? == 1, "never formed again");
    place.done().await
}

/// A broker that is gone is seen in time, by name, and the cluster is whole again.
async fn seen_and_healed(place: &Place, node: &str, how: &str, since: Instant) -> Result<()> {
    let api = place.api::<RivvenCluster>();
    let seen = Cell::new(None);
    wait::closely(&format!("{node} {how}, Degraded, Ready"), || async {
        let status = api.get("x").await?.status.context("a status")?;
        let gone = status.brokers.iter().find(|broker| broker.name == node).is_none_or(|broker| !broker.ready);
        match status.phase {
            Some(Phase::Degraded) => {
                seen.set(seen.get().or_else(|| Some(since.elapsed())));
                let ready = status.brokers.iter().filter(|broker| broker.ready).count();
                ensure!(status.ready == Some(format!("{ready}/3")), "one status, one number: {status:?}");
            }
            Some(Phase::Ready) if seen.get().is_some() => return Ok(Some(())),
            Some(Phase::Ready) => ensure!(!gone, "Ready without {node}: {status:?}"),
            other => bail!("{node} {how}: {other:?}"),
        }
        Ok(None)
    })
    .await?;
    let (seen, healed) = (seen.get().unwrap_or_default().as_secs_f64(), since.elapsed().as_secs_f64());
    println!("{node} {how}: Degraded after {seen:.2} s, Ready after {healed:.1} s");
    ensure!(seen <= SEEN_WITHIN.as_secs_f64(), "seen after {seen} s");
    is_whole(place, "x").await
}

#[tokio::test]
async fn from_apply_to_ready_it_adds_little_to_what_three_pods_and_a_bootstrap_need() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::alone("quick").await?;
    let mut ratios = Vec::new();
    for round in 0..3 {
        let (ours, bare) = (format!("ours{round}"), format!("bare{round}"));
        let began = Instant::now();
        place.clustered(&ours, json!({})).await?;
        let clusters = place.api::<RivvenCluster>();
        wait::closely("Ready", || async {
            let phase = clusters.get(&ours).await?.status.and_then(|status| status.phase);
            Ok((phase == Some(Phase::Ready)).then_some(()))
        })
        .await?;
        let with = began.elapsed();

        // The same pods and what they need, under another name.
        renamed::<Secret>(&place, &ours, &bare).await?;
        renamed::<ConfigMap>(&place, &ours, &bare).await?;
        renamed::<Service>(&place, &ours, &bare).await?;
        let began = Instant::now();
        renamed::<StatefulSet>(&place, &ours, &bare).await?;
        pods(&place, &bare, |status| status["containerStatuses"][0]["started"] == true).await?;
        let called = Instant::now();
        bootstrap(&place, &bare).await?;
        let call = called.elapsed();
        let ready = |status: &Value| {
            let conditions = status["conditions"].as_array();
            conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
        };
        pods(&place, &bare, ready).await?;
        let alone = began.elapsed();
        let ratio = with.as_secs_f64() / alone.as_secs_f64();
        println!(
            "three brokers: apply to Ready {:.2} s, the StatefulSet alone {:.2} s with a bootstrap call of {:.2} s, ratio {ratio:.2}",
            with.as_secs_f64(),
            alone.as_secs_f64(),
            call.as_secs_f64(),
        );
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio of {}, three brokers: {:.2}", ratios.len(), ratios[1]);
    ensure!(ratios[1] <= 1.5, "at most 1.5 times: {ratios:?}");
    place.done().await
}

/// Makes what the cluster has of a kind again, under a name that nobody watches over.
async fn renamed<K>(place: &Place, from: &str, to: &str) -> Result<()>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    K: Clone + std::fmt::Debug + Serialize + DeserializeOwned,
{
    let api = place.api::<K>();
    for object in api.list(&ListParams::default().labels(&format!("{}={from}", names::CLUSTER))).await?.items {
        let mut object: Value = serde_json::from_str(&serde_json::to_string(&object)?.replace(from, to))?;
        object["metadata"] = json!({ "name": object["metadata"]["name"] });
        if let Some(spec) = object["spec"].as_object_mut() {
            spec.retain(|key, _| !key.starts_with("clusterIP"));
        }
        api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    }
    Ok(())
}

/// Waits until it holds for the status of three pods.
async fn pods(place: &Place, cluster: &str, holds: impl Fn(&Value) -> bool) -> Result<()> {
    wait::closely("three pods", || async {
        let pods = place.api::<Pod>().list(&ListParams::default()).await?;
        let ours = pods.items.iter().filter(|pod| pod.name_any().starts_with(&names::stateful_set(cluster)));
        Ok((ours.filter(|pod| holds(&json!(pod.status))).count() == 3).then_some(()))
    })
    .await
}

/// Tells the first broker of the three.
async fn bootstrap(place: &Place, cluster: &str) -> Result<()> {
    let secret = place.api::<Secret>().get(&names::auth_secret(cluster)).await?;
    let token = secret.data.and_then(|mut data| data.remove(names::TOKEN_KEY)).context("a token")?;
    let member = |ordinal| {
        let addr = names::api_url(cluster, &place.namespace, ordinal, "cluster.local", false);
        json!({ "node_id": names::pod(cluster, ordinal), "addr": addr })
    };
    let members: Vec<_> = (0..3).map(member).collect();
    let door = place.door(&names::pod(cluster, 0), names::API_PORT).await?;
    let api = rivven_conformance::http::Api::new(&door.address, Some(std::str::from_utf8(&token.0)?));
    api.post("/api/v1/bootstrap", &json!({ "members": members })).await?.with(200)?;
    Ok(())
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
