//! Brokers restarted one at a time while records are written: nothing is lost, and one broken broker stays the only one.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams};
use rivven_e2e::load::Load;
use rivven_e2e::{Place, operator, wait};
use rivven_operator::api::{Phase, RivvenCluster};
use rivven_operator::names;
use serde_json::json;
use tokio::process::Command;

const PARTITIONS: u32 = 6;
/// The test broker elects another leader within a second of silence, and within another one if Raft's leader is gone too.
const ELECTION: Duration = Duration::from_secs(1);

/// Whether the broker is in every in-sync set, as it says itself.
async fn is_in_sync(address: &str, node: &str) -> bool {
    let asked = async {
        let limit = Duration::from_secs(1);
        rivven_conformance::wire::Wire::connect(address, limit).await?.cluster_metadata(&["orders"]).await
    };
    let Ok(Ok(metadata)) = tokio::time::timeout(Duration::from_secs(1), asked).await else { return false };
    let topics = metadata.topics;
    let mut partitions = topics.iter().flat_map(|topic| &topic.partitions).peekable();
    partitions.peek().is_some() && partitions.all(|partition| partition.isr.iter().any(|member| member == node))
}

/// When its pod was asked to stop, and how long it took until the broker was in sync again by its own word, and until the
/// kubelet had noticed: before that, its disruption budget lets nobody else go.
async fn restart_of(place: &Place, ordinal: u32, uid: &str) -> Result<(Instant, Duration, Duration)> {
    let (pods, node) = (place.api::<Pod>(), names::pod("x", ordinal));
    let began = wait::closely(&format!("{node} is asked to stop"), || async {
        let pod = pods.get_opt(&node).await?;
        let stays =
            pod.is_some_and(|pod| pod.uid().as_deref() == Some(uid) && pod.metadata.deletion_timestamp.is_none());
        Ok((!stays).then(Instant::now))
    })
    .await?;
    let door = place.door(&node, names::CLIENT_PORT).await?;
    wait::closely(&format!("{node} is back in sync"), || async {
        let pod = pods.get_opt(&node).await?;
        let anew = pod.is_some_and(|pod| pod.uid().as_deref() != Some(uid));
        Ok((anew && is_in_sync(&door.address, &node).await).then_some(()))
    })
    .await?;
    let back = began.elapsed();
    wait::closely(&format!("{node} is ready"), || async {
        let status = pods.get_opt(&node).await?.and_then(|pod| pod.status);
        let conditions = status.and_then(|status| status.conditions).unwrap_or_default();
        Ok(conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True").then_some(()))
    })
    .await?;
    Ok((began, back, began.elapsed()))
}

#[tokio::test]
async fn a_rollout_loses_nothing_and_adds_little_to_the_restarts_themselves() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::alone("rollout").await?;
    let load = Load::on_three(&place, 3, PARTITIONS, json!({})).await?;
    let before = place.pods("x").await?;
    let restarts = async {
        let each = before.iter().filter_map(|(pod, uid)| Some((names::ordinal("x", pod)?, uid)));
        futures::future::try_join_all(each.map(|(ordinal, uid)| restart_of(&place, ordinal, uid))).await
    };
    let rolled = async {
        place.change("x", json!({ "config": { "logLevel": "debug" } })).await?;
        let began = wait::closely("Upgrading", || async {
            Ok((place.status("x").await?.phase == Some(Phase::Upgrading)).then(Instant::now))
        })
        .await?;
        place.cluster_is("x", Phase::Ready).await?;
        anyhow::Ok((began, Instant::now()))
    };
    let (restarts, rolled) = futures::future::try_join(restarts, rolled).await?;
    let first = restarts.iter().map(|(began, ..)| *began).min().context("a restart")?;
    let own: f64 = restarts.iter().map(|(_, own, _)| own.as_secs_f64()).sum();
    let ready: f64 = restarts.iter().map(|(.., ready)| ready.as_secs_f64()).sum();
    let whole = (rolled.1 - rolled.0.min(first)).as_secs_f64();
    println!(
        "rollout of three: {whole:.2} s; the restarts until in sync {own:.2} s, ratio {:.2}; until their pods are ready {ready:.2} s, ratio {:.2}",
        whole / own,
        whole / ready,
    );
    let silence = load.finish("rollout").await?;
    let after = place.pods("x").await?;
    ensure!(before.iter().all(|(pod, uid)| after.get(pod).is_some_and(|now| now != uid)), "each was restarted");
    ensure!(silence <= ELECTION + Duration::from_secs(1), "writes stopped for {silence:?}");
    // The kubelet notices a broker that is back up to a second late, and the budget lets nobody go before; Raft's leader is
    // handed over once. docs/decisions.md has what is left of the 1.2 that was aimed for.
    ensure!(whole / ready <= 1.5, "at most 1.5 times: {whole:.2} s of {ready:.2} s");
    place.done().await
}

#[tokio::test]
async fn a_broken_image_takes_one_broker_and_setting_it_back_heals() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::new("broken").await?;
    let load = Load::on_three(&place, 3, PARTITIONS, json!({})).await?;
    let (before, sets) = (place.pods("x").await?, place.api::<StatefulSet>());
    let template = sets.get("rivven-x").await?.spec.context("a spec")?.template;
    place.change("x", json!({ "image": "localhost/no-such-image" })).await?;
    let halted = wait::until("the rollout is halted", || async {
        let status = place.status("x").await?;
        let halted = status.conditions.iter().any(|c| c.type_ == "SpecAccepted" && c.reason == "RolloutHalted");
        let back = sets.get("rivven-x").await?.spec.is_some_and(|spec| spec.template == template);
        Ok((halted && back).then_some(status))
    })
    .await?;
    ensure!(halted.phase == Some(Phase::Degraded), "{halted:?}");
    ensure!(halted.reason.as_deref() == Some("ImagePullFailed"), "{halted:?}");
    let now = place.pods("x").await?;
    let touched: Vec<&String> =
        before.iter().filter(|(pod, uid)| now.get(*pod) != Some(*uid)).map(|(pod, _)| pod).collect();
    ensure!(touched.len() == 1, "one broker, not {touched:?}");

    // A pod that is made anew for another reason comes back on what is proven.
    place.api::<Pod>().delete(touched[0], &DeleteParams::default()).await?;
    let served = place.cluster_is("x", Phase::Ready).await?.status.context("a status")?;
    ensure!(
        served.reason.as_deref() == Some("RolloutHalted"),
        "it is still said: {:?} {:?}",
        served.reason,
        served.message
    );
    place.change("x", json!({ "image": "localhost/rivven-test-broker" })).await?;
    wait::until("as wanted", || async {
        let status = place.status("x").await?;
        Ok((status.phase == Some(Phase::Ready) && status.reason.as_deref() == Some("AsWanted")).then_some(()))
    })
    .await?;
    load.finish("a rollout halted by a broken image, and healed").await?;
    let after = place.pods("x").await?;
    ensure!(before.iter().filter(|(pod, uid)| after.get(*pod) == Some(*uid)).count() == 2, "two were never touched");
    place.done().await
}

#[tokio::test]
async fn the_operator_may_be_killed_at_any_moment_of_a_rollout() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::new("killed").await?;
    let load = Load::on_three(&place, 3, PARTITIONS, json!({})).await?;
    let (client, before) = (rivven_e2e::client().await?, place.pods("x").await?);
    place.change("x", json!({ "podAnnotations": { "a": "1" } })).await?;
    for restarted in 0..3 {
        wait::until(&format!("{restarted} restarted"), || async {
            let now = place.pods("x").await?;
            let anew = before.iter().filter(|(pod, uid)| now.get(*pod).is_some_and(|now| now != *uid)).count();
            Ok((anew >= restarted).then_some(()))
        })
        .await?;
        operator::kill(&client).await?;
    }
    operator::leading(&client).await?;
    place.cluster_is("x", Phase::Ready).await?;
    wait::until("every broker restarted", || async {
        let now = place.pods("x").await?;
        let anew = before.iter().all(|(pod, uid)| now.get(pod).is_some_and(|now| now != uid));
        Ok((anew && place.status("x").await?.phase == Some(Phase::Ready)).then_some(()))
    })
    .await?;
    load.finish("a rollout with the operator killed three times").await?;
    place.done().await
}

#[tokio::test]
async fn a_change_that_is_refused_is_seen_within_a_second_and_nothing_moves() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::alone("refused").await?;
    place.clustered("x", json!({})).await?;
    place.cluster_is("x", Phase::Ready).await?;
    let before = place.pods("x").await?;
    for (spec, back, reason) in [
        (json!({ "storage": { "size": "1Mi" } }), json!({ "storage": { "size": "320Mi" } }), "StorageShrinkRefused"),
        (json!({ "version": "0.0.9" }), json!({ "version": "0.1.0" }), "BrokerCannotCluster"),
        (json!({ "version": "0.4.0" }), json!({ "version": "0.1.0" }), "VersionSkipRefused"),
        (
            json!({ "storage": { "storageClassName": "other" } }),
            json!({ "storage": { "storageClassName": "" } }),
            "StorageClassChangeRefused",
        ),
        (
            json!({ "maintenanceWindows": [{ "schedule": "0 2 31 2 *", "durationMinutes": 60 }] }),
            json!({ "maintenanceWindows": null }),
            "InvalidSpec",
        ),
    ] {
        let began = Instant::now();
        place.change("x", spec).await?;
        let seen = wait::closely(reason, || async {
            let status = place.status("x").await?;
            Ok((status.reason.as_deref() == Some(reason)).then_some(status))
        })
        .await?;
        println!("{reason}: seen after {} ms", began.elapsed().as_millis());
        ensure!(began.elapsed() <= Duration::from_secs(1), "{reason}: seen after {:?}", began.elapsed());
        ensure!(seen.phase == Some(Phase::Ready) && seen.ready.as_deref() == Some("3/3"), "{seen:?}");
        place.change("x", back).await?;
        wait::until("accepted again", || async {
            Ok((place.status("x").await?.reason.as_deref() == Some("AsWanted")).then_some(()))
        })
        .await?;
    }
    ensure!(place.pods("x").await? == before, "no broker was touched");
    place.done().await
}

#[tokio::test]
async fn a_restart_is_asked_for_by_annotation() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::new("asked").await?;
    let load = Load::on_three(&place, 3, PARTITIONS, json!({})).await?;
    let before = place.pods("x").await?;
    let ask = Patch::Merge(json!({ "metadata": { "annotations": { "rivven.io/restart": "true" } } }));
    place.api::<Pod>().patch("rivven-x-1", &PatchParams::default(), &ask).await?;
    let only = wait::until("broker 1 restarted, Ready", || async {
        let now = place.pods("x").await?;
        let anew = now.get("rivven-x-1").is_some_and(|uid| before.get("rivven-x-1") != Some(uid));
        Ok((anew && place.status("x").await?.phase == Some(Phase::Ready)).then_some(now))
    })
    .await?;
    ensure!(["rivven-x-0", "rivven-x-2"].iter().all(|pod| only.get(*pod) == before.get(*pod)), "no other: {only:?}");
    let ask = Patch::Merge(json!({ "metadata": { "annotations": { names::RESTARTED_AT: "now" } } }));
    place.api::<RivvenCluster>().patch("x", &PatchParams::default(), &ask).await?;
    wait::until("all restarted, Ready", || async {
        let now = place.pods("x").await?;
        let anew = only.iter().all(|(pod, uid)| now.get(pod).is_some_and(|now| now != uid));
        Ok((anew && place.status("x").await?.phase == Some(Phase::Ready)).then_some(()))
    })
    .await?;
    load.finish("restarts that were asked for").await?;
    place.done().await
}

#[tokio::test]
async fn a_node_that_is_drained_and_cordoned_takes_one_broker_and_nothing_is_lost() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::alone("drained").await?;
    let load = Load::on_three(&place, 3, PARTITIONS, json!({})).await?;
    let nodes = kube::Api::<Node>::all(rivven_e2e::client().await?);
    let node = nodes.list(&ListParams::default()).await?.items.first().context("a node")?.name_any();
    nodes.cordon(&node).await?;
    let drained = async {
        let evicted = async |pod: &str| match place.api::<Pod>().evict(pod, &EvictParams::default()).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(refused)) if refused.code == 429 => Ok(false),
            Err(error) => Err(error),
        };
        ensure!(evicted("rivven-x-1").await?, "the first may go");
        wait::until("nowhere to go", || async {
            let status = place.status("x").await?;
            Ok((status.reason.as_deref() == Some("Unschedulable")).then_some(()))
        })
        .await?;
        for pod in ["rivven-x-0", "rivven-x-2"] {
            ensure!(!evicted(pod).await?, "{pod} must stay while another is away");
        }
        anyhow::Ok(())
    }
    .await;
    // The other tests need the node, however this one ends.
    nodes.uncordon(&node).await?;
    drained?;
    place.cluster_is("x", Phase::Ready).await?;
    load.finish("a node drained and cordoned").await?;
    place.done().await
}

/// The nodes of the brokers, by pod.
async fn nodes_of(place: &Place) -> Result<BTreeMap<String, String>> {
    let pods = place.api::<Pod>().list(&ListParams::default().labels("rivven.io/cluster=x")).await?.items;
    let node = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    Ok(pods.iter().map(|pod| (pod.name_any(), node(pod))).collect())
}

async fn run(program: String, args: &[&str]) -> Result<()> {
    let output = Command::new(&program).args(args).stdin(Stdio::null()).output().await?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{program} {}: {words}", args.join(" "));
    Ok(())
}

#[tokio::test]
async fn every_node_is_drained_in_turn_and_nothing_is_lost() -> Result<()> {
    const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];
    operator::ensure(&[]).await?;
    let (root, bin) = (rivven_e2e::variable("RIVVEN_E2E_ROOT")?, rivven_e2e::variable("RIVVEN_BIN")?);
    for number in ["2", "3"] {
        run(format!("{root}/tests/cluster/node.sh"), &[number]).await?;
    }
    let nodes = kube::Api::<Node>::all(rivven_e2e::client().await?);
    for node in NODES {
        nodes.uncordon(node).await?;
    }
    let drained = async {
        let place = Place::alone("drains").await?;
        let load = Load::on_three(&place, 3, PARTITIONS, json!({})).await?;
        let spread: BTreeSet<String> = nodes_of(&place).await?.into_values().collect();
        ensure!(spread.len() == 3, "brokers run apart: {spread:?}");
        for node in NODES {
            let (began, selector) = (Instant::now(), "--pod-selector=rivven.io/cluster=x");
            run(format!("{bin}/kubectl"), &["drain", node, selector, "--delete-emptydir-data", "--timeout=2m"]).await?;
            place.as_wanted("x").await?;
            ensure!(nodes_of(&place).await?.values().all(|other| other != node), "{node} is empty");
            println!("{node} drained: {:.2} s until as wanted", began.elapsed().as_secs_f64());
            nodes.uncordon(node).await?;
        }
        load.finish("three nodes drained in turn").await?;
        place.done().await
    }
    .await;
    // The other tests run on the first node, however this one ends.
    nodes.uncordon(NODES[0]).await?;
    for node in &NODES[1..] {
        nodes.cordon(node).await?;
    }
    drained
}
