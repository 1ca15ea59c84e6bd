//! Volumes grow under running brokers, and what keeps one from growing is said and has a way back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use rivven_sim::{Fault, Key, Session, Verb, VolumeBehaviour};
use serde_json::{Value, json};
use support::broker::Fleet;
use support::cluster::Clustered;
use support::{Served, World, cluster};

const CLUSTERS: &str = "rivvenclusters.rivven.io";
const CLAIMS: &str = "persistentvolumeclaims";

async fn serving<B: Served>(spec: &Value) -> (World<B>, Session) {
    let mut world = World::<B>::new(1);
    let session = world.start(|_| {});
    world.sim.apply(cluster(spec));
    world.settle().await.unwrap();
    assert_eq!(status(&world)["phase"], "Ready", "{:#}", status(&world));
    (world, session)
}

async fn three() -> (World<Clustered>, Session) {
    serving(&json!({ "replicas": 3, "version": "0.1.0", "storage": { "size": "1Gi" } })).await
}

fn change<B: Served>(world: &World<B>, spec: &Value) {
    world.sim.apply(json!({
        "apiVersion": "rivven.io/v1alpha1", "kind": "RivvenCluster", "metadata": { "name": "x" }, "spec": spec,
    }));
}

fn size<B: Served>(world: &World<B>, size: &str) {
    change(world, &json!({ "storage": { "size": size } }));
}

fn status<B: Served>(world: &World<B>) -> Value {
    world.sim.get(CLUSTERS, "default", "x").unwrap()["status"].clone()
}

fn pods<B: Served>(world: &World<B>) -> Vec<Value> {
    world.sim.list("pods").iter().map(|pod| pod["metadata"]["uid"].clone()).collect()
}

fn capacities<B: Served>(world: &World<B>) -> Vec<Value> {
    world.sim.list(CLAIMS).iter().map(|claim| claim["status"]["capacity"]["storage"].clone()).collect()
}

/// Lets time pass until it holds.
async fn until<B: Served>(world: &World<B>, what: &str, holds: impl Fn(&Value) -> bool) {
    for _ in 0..900 {
        if holds(&status(world)) {
            return;
        }
        world.sim.step();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("{what}: {:#}", status(world));
}

struct Grown {
    end: BTreeMap<String, Value>,
    writes: u64,
    counts: BTreeMap<(Key, Verb), usize>,
}

/// Grows the volumes of three brokers at rest.
async fn grow(plan: impl FnOnce(&Session)) -> Result<Grown, String> {
    let (world, session) = three().await;
    let (before, effective, requests) = (pods(&world), world.log().effective().0.len(), world.log().writes().0.len());
    plan(&session);
    size(&world, "2Gi");
    world.settle().await.map_err(|why| format!("{why}\n{:#}", status(&world)))?;
    let now = status(&world);
    if now["phase"] != "Ready" || now["storage"] != "2Gi" || pods(&world) != before {
        return Err(format!("{:?} of {before:?}: {now:#}", pods(&world)));
    }
    let set = world.sim.get("statefulsets.apps", "default", "rivven-x").unwrap();
    let template = set.pointer("/spec/volumeClaimTemplates/0/spec/resources/requests/storage");
    if template != Some(&json!("2Gi")) {
        return Err(format!("new volumes would have {template:?}"));
    }
    let log = rivven_sim::Log(world.log().effective().0[effective..].to_vec()).writes();
    let counts = log.only(|entry| entry.subresource != "status").counts();
    let writes = (world.log().writes().0.len() - requests) as u64;
    Ok(Grown { end: world.end(), writes, counts })
}

#[tokio::test(start_paused = true)]
async fn volumes_grow_and_no_pod_is_restarted() {
    let run = grow(|_| {}).await.unwrap();
    let lines: Vec<String> =
        run.counts.iter().map(|((key, verb), times)| format!("{} {} {verb:?} {times}", key.plural, key.name)).collect();
    insta::assert_snapshot!(lines.join("\n"));
    println!("growth of three volumes: writes without statuses: {}", run.counts.values().sum::<usize>());
}

#[tokio::test(start_paused = true)]
async fn oracle_1_a_crash_at_any_write_grows_them_all_the_same() {
    let reference = grow(|_| {}).await.unwrap();
    let mut plans = 0;
    for nth in 1..=reference.writes {
        for fault in [Fault::CutBefore, Fault::CutAfter, Fault::LoseReply] {
            let what = format!("{fault:?} at write {nth}");
            let run = grow(|session| session.on_write(nth, fault)).await.unwrap_or_else(|why| panic!("{what}: {why}"));
            let keys: std::collections::BTreeSet<_> = reference.end.keys().chain(run.end.keys()).collect();
            for key in keys {
                assert_eq!(reference.end.get(key), run.end.get(key), "{what}: {key}");
            }
            // Oracle 5.
            assert_eq!(reference.counts, run.counts, "{what}: how often each object was written");
            plans += 1;
        }
    }
    println!("storage, oracles 1 and 5: {} writes, plans: {plans}", reference.writes);
    assert!(plans >= 20, "{plans}");
}

#[tokio::test(start_paused = true)]
async fn what_the_storage_cannot_do_is_said_and_taken_back() {
    let (world, _) = three().await;
    let before = pods(&world);
    world.sim.volumes(VolumeBehaviour::Infeasible);
    size(&world, "900Gi");
    until(&world, "VolumeResizeFailed", |status| status["reason"] == "VolumeResizeFailed").await;
    assert_eq!(status(&world)["phase"], "Degraded");
    size(&world, "1Gi");
    until(&world, "taken back", |status| status["reason"] == "AsWanted").await;
    assert_eq!(capacities(&world), ["1Gi", "1Gi", "1Gi"]);
    // The API server takes no request that equals the capacity: it is lowered to just above.
    let requests = world.sim.list(CLAIMS);
    assert!(
        requests.iter().all(|claim| claim["spec"]["resources"]["requests"]["storage"] == "1025Mi"),
        "{requests:#?}"
    );
    world.sim.volumes(VolumeBehaviour::Online);
    size(&world, "512Mi");
    until(&world, "refused", |status| status["reason"] == "StorageShrinkRefused").await;
    assert_eq!(status(&world)["phase"], "Ready", "it serves on the last accepted spec");
    size(&world, "2Gi");
    until(&world, "grown", |status| status["storage"] == "2Gi" && status["phase"] == "Ready").await;
    assert_eq!(pods(&world), before);
}

#[tokio::test(start_paused = true)]
async fn a_class_that_cannot_grow_is_said_and_nothing_else_waits_for_it() {
    let (world, _) = serving::<Clustered>(&json!({
        "replicas": 3, "version": "0.1.0", "storage": { "size": "1Gi", "storageClassName": "fixed" },
    }))
    .await;
    let before = pods(&world);
    size(&world, "2Gi");
    until(&world, "VolumeCannotExpand", |status| status["reason"] == "VolumeCannotExpand").await;
    // A rollout goes on beside it.
    change(&world, &json!({ "config": { "logLevel": "debug" } }));
    until(&world, "rolled", |_| pods(&world).iter().all(|uid| !before.contains(uid)) && pods(&world).len() == 3).await;
    assert_eq!(status(&world)["reason"], "VolumeCannotExpand", "{:#}", status(&world));
    size(&world, "1Gi");
    until(&world, "set back", |status| status["reason"] == "AsWanted").await;
}

#[tokio::test(start_paused = true)]
async fn a_volume_grown_by_hand_is_left_as_it_is() {
    let (world, _) = three().await;
    world.sim.apply(json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": { "name": "data-rivven-x-1", "namespace": "default" },
        "spec": { "resources": { "requests": { "storage": "5Gi" } } },
    }));
    world.settle().await.unwrap();
    assert_eq!(capacities(&world), ["1Gi", "5Gi", "1Gi"]);
    assert_eq!(status(&world)["phase"], "Ready");
    size(&world, "2Gi");
    until(&world, "grown", |status| status["storage"] == "2Gi" && status["phase"] == "Ready").await;
    assert_eq!(capacities(&world), ["2Gi", "5Gi", "2Gi"]);
}

#[tokio::test(start_paused = true)]
async fn a_released_broker_is_stopped_while_its_volume_grows() {
    let (world, _) =
        serving::<Fleet>(&json!({ "replicas": 1, "version": "0.0.22", "storage": { "size": "1Gi" } })).await;
    let before = pods(&world);
    world.sim.volumes(VolumeBehaviour::Offline);
    size(&world, "2Gi");
    until(&world, "grown", |status| status["storage"] == "2Gi" && status["phase"] == "Ready").await;
    assert_ne!(pods(&world), before, "it was stopped first");
    assert_eq!(pods(&world).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_that_somebody_takes_away_is_made_anew_around_its_brokers() {
    let (world, _) = three().await;
    let before = pods(&world);
    world.sim.delete("statefulsets.apps", "default", "rivven-x", &json!({ "propagationPolicy": "Orphan" })).unwrap();
    // The accepted spec outlives it: what was refused before is refused now.
    size(&world, "512Mi");
    world.settle().await.unwrap();
    assert_eq!(pods(&world), before);
    let now = status(&world);
    assert_eq!((&now["phase"], &now["reason"]), (&json!("Ready"), &json!("StorageShrinkRefused")), "{now:#}");
}

#[tokio::test(start_paused = true)]
async fn deleted_in_the_midst_of_it_no_broker_is_left() {
    let (mut world, _) = three().await;
    world.stop();
    world.sim.delete("statefulsets.apps", "default", "rivven-x", &json!({ "propagationPolicy": "Orphan" })).unwrap();
    world.sim.settle();
    world.sim.delete(CLUSTERS, "default", "x", &json!({})).unwrap();
    world.start(|_| {});
    world.settle().await.unwrap();
    assert!(world.sim.get(CLUSTERS, "default", "x").is_none());
    assert!(pods(&world).is_empty(), "a broker is left behind");
}
