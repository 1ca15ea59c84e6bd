//! The operator as a process: killed at any moment, two of it, outside the cluster, silent and small at rest.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, PostParams};
use rivven_e2e::{Place, audit::Mark, operator, variable, wait};
use rivven_operator::api::{Phase, RivvenCluster, RivvenTopic};
use serde_json::{Value, json};

/// What matters of a namespace's world: names and specs, without what differs from run to run.
async fn world(place: &Place) -> Result<Value> {
    async fn specs<K>(place: &Place, uid: &str) -> Result<Vec<Value>>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + serde::Serialize,
    {
        let mut all = Vec::new();
        for object in place.api::<K>().list(&ListParams::default()).await? {
            let name = object.name_any();
            if name == "kube-root-ca.crt" {
                continue;
            }
            let value = serde_json::to_value(&object)?;
            let mut spec = value.get("spec").or_else(|| value.get("data")).cloned().unwrap_or_default();
            for field in ["clusterIP", "clusterIPs", "volumeName"] {
                spec.as_object_mut().map(|spec| spec.remove(field));
            }
            // The uid of the cluster is in the labels of the volume template.
            let text = spec.to_string().replace(&place.namespace, "NAMESPACE").replace(uid, "UID");
            all.push(json!({ "name": name, "spec": serde_json::from_str::<Value>(&text)? }));
        }
        Ok(all)
    }
    let uid = place.api::<RivvenCluster>().get("k").await?.uid().context("a uid")?;
    Ok(json!({
        "sets": specs::<StatefulSet>(place, &uid).await?, "services": specs::<Service>(place, &uid).await?,
        "maps": specs::<ConfigMap>(place, &uid).await?, "budgets": specs::<PodDisruptionBudget>(place, &uid).await?,
        "policies": specs::<NetworkPolicy>(place, &uid).await?,
        "claims": specs::<PersistentVolumeClaim>(place, &uid).await?.len(), "pods": place.api::<Pod>().list(&ListParams::default()).await?.items.len(),
    }))
}

#[tokio::test]
async fn killed_at_any_moment_it_ends_in_the_same_state() -> Result<()> {
    operator::ensure(&[]).await?;
    let client = rivven_e2e::client().await?;
    let reference = {
        let place = Place::new("calm").await?;
        place.cluster("k", json!({})).await?;
        place.topic("t", "k", json!({})).await?;
        place.topic_is("t", Phase::Ready).await?;
        let world = world(&place).await?;
        place.done().await?;
        world
    };
    // Each kill hits one cluster on its way to Ready and the one before on its way out.
    let mut before: Option<Place> = None;
    let mut kills = 0;
    for after_ms in [Some(0), Some(120), Some(400), Some(1500), None] {
        let going = before.take();
        if let Some(going) = &going {
            let deletion = DeleteParams::default();
            going.api::<RivvenTopic>().delete("t", &deletion).await?;
            going.api::<RivvenCluster>().delete("k", &deletion).await?;
        }
        let coming = if after_ms.is_some() { Some(Place::new("killed").await?) } else { None };
        if let Some(coming) = &coming {
            coming.cluster("k", json!({ "storage": { "reclaimPolicy": "Delete" } })).await?;
            coming.topic("t", "k", json!({})).await?;
        }
        // The moment is the point here, not a condition.
        tokio::time::sleep(Duration::from_millis(after_ms.unwrap_or(700))).await;
        operator::kill(&client).await?;
        kills += 1;
        if let Some(coming) = &coming {
            coming.cluster_is("k", Phase::Ready).await?;
            coming.topic_is("t", Phase::Ready).await?;
            let ended = world(coming).await?;
            ensure!(ended == reference, "killed after {after_ms:?} ms: {ended:#} instead of {reference:#}");
        }
        if let Some(going) = going {
            let clusters = going.api::<RivvenCluster>();
            wait::until("the cluster gone", || async { Ok(clusters.get_opt("k").await?.is_none().then_some(())) })
                .await?;
            let claims = going.api::<PersistentVolumeClaim>();
            wait::until("the volume gone", || async {
                Ok(claims.list(&ListParams::default()).await?.items.is_empty().then_some(()))
            })
            .await?;
            going.done().await?;
        }
        before = coming;
    }
    println!("operator killed {kills} times: 4 on the way to Ready, 4 on the way to deletion");
    Ok(())
}

#[tokio::test]
async fn from_apply_to_ready_it_adds_little_to_what_the_pod_needs() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::alone("quick").await?;
    let (mut with, mut alone) = (Vec::new(), Vec::new());
    for round in 0..5 {
        let name = format!("r{round}");
        let began = Instant::now();
        place.cluster(&name, json!({})).await?;
        let ready = ready_at(&place, &name).await?;
        with.push(ready.duration_since(began));

        // The same StatefulSet alone, under another name.
        let set = place.api::<StatefulSet>().get(&format!("rivven-{name}")).await?;
        let text =
            serde_json::to_string(&json!({ "metadata": { "name": format!("rivven-b{name}") }, "spec": set.spec }))?;
        let mut bare: Value = serde_json::from_str(&text)?;
        for pointer in ["/spec/selector/matchLabels", "/spec/template/metadata/labels"] {
            bare.pointer_mut(pointer).context("labels")?["app.kubernetes.io/instance"] = json!(format!("b{name}"));
        }
        bare["spec"]["template"]["metadata"]["labels"]["rivven.io/cluster"] = json!(format!("b{name}"));
        let began = Instant::now();
        place.api::<StatefulSet>().create(&PostParams::default(), &serde_json::from_value(bare)?).await?;
        let pods = place.api::<Pod>();
        let pod = format!("rivven-b{name}-0");
        wait::closely("the bare pod ready", || async {
            let pod = pods.get_opt(&pod).await?;
            let conditions = pod.and_then(|pod| pod.status).and_then(|status| status.conditions).unwrap_or_default();
            Ok(conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True").then_some(()))
        })
        .await?;
        alone.push(began.elapsed());
    }
    println!("apply to Ready {with:.2?}, the StatefulSet alone {alone:.2?}");
    // Each in the middle by itself: a readiness probe that misses by a moment costs either of them a second.
    let (with, alone) = (median(with), median(alone));
    let ratio = with / alone;
    println!("medians: apply to Ready {with:.2} s, the StatefulSet alone {alone:.2} s, ratio {ratio:.2}");
    ensure!(ratio <= 1.5, "at most 1.5 times: {ratio:.2}");
    place.done().await
}

fn median(mut all: Vec<Duration>) -> f64 {
    all.sort();
    all[all.len() / 2].as_secs_f64()
}

async fn ready_at(place: &Place, name: &str) -> Result<Instant> {
    let api = place.api::<RivvenCluster>();
    wait::closely("Ready", || async {
        let phase = api.get(name).await?.status.and_then(|s| s.phase);
        Ok((phase == Some(Phase::Ready)).then(Instant::now))
    })
    .await
}

/// A resync is forced three times within the window.
const RESYNC: &str = "resyncSeconds=10";
const WINDOW: Duration = Duration::from_secs(30);

#[tokio::test]
async fn converged_it_asks_the_api_server_for_nothing_and_moves_nothing() -> Result<()> {
    operator::ensure(&[RESYNC]).await?;
    let place = Place::alone("idle").await?;
    for (count, from) in [(1, 0), (50, 1)] {
        for n in from..count {
            place.cluster(&format!("c{n}"), json!({})).await?;
        }
        for n in from..count {
            place.cluster_is(&format!("c{n}"), Phase::Ready).await?;
        }
        let versions = || async {
            let mut all = Vec::new();
            for cluster in place.api::<RivvenCluster>().list(&ListParams::default()).await? {
                all.push((cluster.name_any(), cluster.resource_version()));
            }
            for set in place.api::<StatefulSet>().list(&ListParams::default()).await? {
                all.push((set.name_any(), set.resource_version()));
            }
            for map in place.api::<ConfigMap>().list(&ListParams::default()).await? {
                all.push((map.name_any(), map.resource_version()));
            }
            anyhow::Ok(all)
        };
        // What the last cluster's becoming Ready still sets off is over when a look shows no more requests.
        wait::until("quiet", || async {
            let mark = Mark::now()?;
            tokio::time::sleep(Duration::from_secs(3)).await;
            Ok(mark.requests(operator::USER)?.is_empty().then_some(()))
        })
        .await?;
        let (mark, before) = (Mark::now()?, versions().await?);
        tokio::time::sleep(WINDOW).await;
        let (requests, after) = (mark.requests(operator::USER)?, versions().await?);
        println!(
            "{count} idle clusters, {} s, resync every 10 s: {} requests but renewals",
            WINDOW.as_secs(),
            requests.values().sum::<usize>()
        );
        ensure!(requests.is_empty(), "{count} idle clusters: {requests:?}");
        ensure!(before == after, "a resourceVersion moved");
        let resident = operator::resident_kib()?;
        println!("{count} idle clusters: {resident} KiB resident");
        ensure!(count > 1 || resident < 32 * 1024, "at most 32 MiB with one cluster: {resident} KiB");
    }
    place.done().await?;
    operator::ensure(&[]).await
}

#[tokio::test]
async fn of_two_one_leads_and_the_other_takes_over() -> Result<()> {
    operator::ensure(&["replicas=2"]).await?;
    let place = Place::new("two").await?;
    let pods = operator::pods(&place.client).await?;
    ensure!(pods.len() == 2, "two pods");
    let leases =
        kube::Api::<k8s_openapi::api::coordination::v1::Lease>::namespaced(place.client.clone(), operator::NAMESPACE);
    let holder = leases.get(operator::RELEASE).await?.spec.and_then(|spec| spec.holder_identity).context("a holder")?;
    let leader = pods.iter().find(|pod| holder.starts_with(&pod.name_any())).context("the leader is one of them")?;
    let api = kube::Api::<Pod>::namespaced(place.client.clone(), operator::NAMESPACE);
    let began = Instant::now();
    api.delete(&leader.name_any(), &DeleteParams::default()).await?;
    place.cluster("t", json!({})).await?;
    wait::until("another holder", || async {
        let now = leases.get(operator::RELEASE).await?.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
        Ok((!now.is_empty() && now != holder).then_some(()))
    })
    .await?;
    println!("a leader that is told to stop hands over after {:.1} s", began.elapsed().as_secs_f64());
    place.cluster_is("t", Phase::Ready).await?;
    place.done().await?;
    operator::ensure(&["replicas=1"]).await
}

#[tokio::test]
async fn it_runs_outside_the_cluster_and_reaches_brokers_through_the_api_server() -> Result<()> {
    operator::ensure(&[]).await?;
    operator::helm(&["uninstall", operator::RELEASE, "--namespace", operator::NAMESPACE, "--wait"]).await?;
    let place = Place::new("outside").await?;
    let mut outside = tokio::process::Command::new(variable("RIVVEN_E2E_OPERATOR")?)
        .args([
            "--leader-election=false",
            "--metrics-addr=127.0.0.1:0",
            "--health-addr=127.0.0.1:0",
            "--namespace",
            &place.namespace,
        ])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    place.cluster("o", json!({})).await?;
    place.topic("t", "o", json!({})).await?;
    place.topic_is("t", Phase::Ready).await?;
    place.done().await?;
    outside.kill().await?;
    // The custom resources outlive the release: with them would go every cluster.
    let crds =
        kube::Api::<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>::all(
            rivven_e2e::client().await?,
        );
    ensure!(crds.get_opt("rivvenclusters.rivven.io").await?.is_some(), "helm uninstall keeps the custom resources");
    operator::ensure(&[]).await
}

#[tokio::test]
async fn the_chart_tests_itself_and_upgrades() -> Result<()> {
    operator::ensure(&[]).await?;
    operator::helm(&["test", operator::RELEASE, "--namespace", operator::NAMESPACE, "--timeout", "1m"]).await?;
    operator::ensure(&["watchNamespaces={default}"]).await?;
    operator::ensure(&[]).await
}
