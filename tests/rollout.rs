//! Three real brokers in the pods of the model, restarted one at a time: in order, handed over first, whatever fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::collections::BTreeMap;

use rivven_sim::{Behaviour, Fault, Key, Matcher, Session, Verb};
use serde_json::{Value, json};
use support::cluster::{CALL_FAULTS, Clustered};
use support::{World, cluster, topic};

const CLUSTERS: &str = "rivvenclusters.rivven.io";
const PODS: [&str; 3] = ["rivven-x-0", "rivven-x-1", "rivven-x-2"];

/// A cluster of three with a topic that is on each of them, at rest.
async fn serving() -> (World<Clustered>, Session) {
    let mut world = World::<Clustered>::new(1);
    let session = world.start(|_| {});
    world.sim.apply(cluster(&json!({ "replicas": 3, "version": "0.1.0" })));
    world.settle().await.unwrap();
    let config = json!({ "minInsyncReplicas": 2 });
    let spec = json!({ "clusterRef": { "name": "x" }, "partitions": 4, "replicationFactor": 3, "config": config });
    world.sim.apply(topic("orders", &spec));
    world.settle().await.unwrap();
    assert_eq!(world.phase("rivventopics.rivven.io", "orders"), "Ready");
    (world, session)
}

fn change(world: &World<Clustered>, spec: &Value) {
    world.sim.apply(json!({
        "apiVersion": "rivven.io/v1alpha1", "kind": "RivvenCluster", "metadata": { "name": "x" }, "spec": spec,
    }));
}

fn status(world: &World<Clustered>) -> Value {
    world.sim.get(CLUSTERS, "default", "x").unwrap()["status"].clone()
}

fn uid(world: &World<Clustered>, pod: &str) -> String {
    world.sim.get("pods", "default", pod).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned()
}

/// The pods that were evicted, in order, by requests that took effect.
fn evicted(world: &World<Clustered>, since: usize) -> Vec<String> {
    let log = world.log().effective();
    let evictions = log.0.iter().skip(since).filter(|entry| entry.subresource == "eviction");
    evictions.map(|entry| entry.key.name.clone()).collect()
}

struct Played {
    end: BTreeMap<String, Value>,
    writes: u64,
    calls: u64,
    counts: BTreeMap<(Key, Verb), usize>,
}

/// Rolls a cluster at rest onto another log level.
async fn roll(plan: impl FnOnce(&World<Clustered>, &Session)) -> Result<Played, String> {
    let (world, session) = serving().await;
    let (before, calls) = (world.log().effective().0.len(), world.fleet.calls());
    let requests = world.log().writes().0.len();
    plan(&world, &session);
    change(&world, &json!({ "config": { "logLevel": "debug" } }));
    world.settle().await.map_err(|why| format!("{why}\n{:#}", status(&world)))?;
    if status(&world)["phase"] != "Ready" {
        return Err(format!("ends {:#}", status(&world)));
    }
    let restarts = evicted(&world, before);
    if restarts.len() != 3 {
        return Err(format!("restarted {restarts:?}"));
    }
    let log = world.log().effective();
    let since = rivven_sim::Log(log.0[before..].to_vec()).writes();
    let counts = since.only(|entry| entry.subresource != "status").counts();
    let writes = (world.log().writes().0.len() - requests) as u64;
    Ok(Played { end: world.end(), writes, calls: world.fleet.calls() - calls, counts })
}

/// The last to restart differs, as any broker may lead; what they are restarted as does not.
fn same(reference: &Played, run: &Played, what: &str) {
    let keys: std::collections::BTreeSet<_> = reference.end.keys().chain(run.end.keys()).collect();
    for key in keys {
        assert_eq!(reference.end.get(key), run.end.get(key), "{what}: {key}");
    }
    // Oracle 5.
    assert_eq!(reference.counts, run.counts, "{what}: how often each object was written");
}

#[tokio::test(start_paused = true)]
async fn each_broker_is_restarted_once_and_the_writes_are_counted() {
    let run = roll(|_, _| {}).await.unwrap();
    let lines: Vec<String> =
        run.counts.iter().map(|((key, verb), times)| format!("{} {} {verb:?} {times}", key.plural, key.name)).collect();
    insta::assert_snapshot!(lines.join("\n"));
    println!(
        "a rollout of three brokers: {} writes without statuses: {}",
        lines.len(),
        run.counts.values().sum::<usize>()
    );
}

#[tokio::test(start_paused = true)]
async fn oracle_1_a_crash_at_any_write_rolls_each_broker_once() {
    let reference = roll(|_, _| {}).await.unwrap();
    let mut plans = 0;
    for nth in 1..=reference.writes {
        let fault = [Fault::CutBefore, Fault::CutAfter, Fault::LoseReply][usize::try_from(nth).unwrap() % 3];
        let what = format!("{fault:?} at write {nth}");
        let run = roll(|_, session| session.on_write(nth, fault)).await;
        same(&reference, &run.unwrap_or_else(|why| panic!("{what}: {why}")), &what);
        plans += 1;
    }
    println!("rollout, oracles 1 and 5: {} writes, plans: {plans}", reference.writes);
    assert!(plans >= 15, "{plans}");
}

#[tokio::test(start_paused = true)]
async fn oracle_2_a_crash_or_a_lost_reply_at_any_call_rolls_each_broker_once() {
    let reference = roll(|_, _| {}).await.unwrap();
    let mut plans = 0;
    for nth in 1..=reference.calls {
        let fault = CALL_FAULTS[usize::try_from(nth).unwrap() % CALL_FAULTS.len()];
        let what = format!("{fault:?} at call {nth}");
        let run = roll(|world, session| world.fleet.on_call(session, world.fleet.calls() + nth, fault)).await;
        same(&reference, &run.unwrap_or_else(|why| panic!("{what}: {why}")), &what);
        plans += 1;
    }
    println!("rollout, oracles 2 and 5: {} calls, plans: {plans}", reference.calls);
    assert!(plans >= 3, "{plans}");
}

#[tokio::test(start_paused = true)]
async fn a_broken_image_halts_and_setting_it_back_heals() {
    let (world, _) = serving().await;
    world.sim.behave_image("localhost/broken:0.1.0", Behaviour::CrashLoop("no such option --frobnicate".to_owned()));
    let before: Vec<String> = PODS.iter().map(|pod| uid(&world, pod)).collect();
    let set = |world: &World<Clustered>| world.sim.get("statefulsets.apps", "default", "rivven-x").unwrap();
    let template = set(&world)["spec"]["template"].clone();
    let since = world.log().effective().0.len();
    change(&world, &json!({ "image": "localhost/broken" }));
    let halted = async {
        while status(&world)["conditions"].as_array().unwrap().iter().all(|c| c["reason"] != "RolloutHalted") {
            world.sim.step();
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_mins(10), halted).await.expect("halted");
    for _ in 0..120 {
        world.sim.step();
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    let one = evicted(&world, since);
    assert_eq!(one.len(), 1, "a broken first broker takes no second one down: {one:?}");
    let now = status(&world);
    assert_eq!(now["phase"], "Degraded", "{now:#}");
    assert!(now["message"].as_str().unwrap().contains("frobnicate"), "its last words: {now:#}");
    assert_eq!(set(&world)["spec"]["template"], template, "the last proven template");
    let broken = uid(&world, &one[0]);

    // Made anew for another reason, the broker comes back on what is proven, and the refusal stays.
    world.sim.delete("pods", "default", &one[0], &json!({})).unwrap();
    world.settle().await.unwrap();
    let now = status(&world);
    assert_eq!((&now["phase"], &now["reason"]), (&json!("Ready"), &json!("RolloutHalted")), "{now:#}");
    assert_ne!(uid(&world, &one[0]), broken);

    // Trying the same again is asked for by another value of the annotation; then it is set back.
    let again = json!({ "rivven.io/restarted-at": "again" });
    world.sim.edit(CLUSTERS, "default", "x", |x| {
        x["metadata"]["annotations"] = merged(&x["metadata"]["annotations"], &again);
    });
    let two = async {
        while evicted(&world, since).len() < 2 || status(&world)["phase"] != "Degraded" {
            world.sim.step();
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_mins(10), two).await.expect("tried again");
    world.sim.edit(CLUSTERS, "default", "x", |x| {
        x["metadata"]["annotations"].as_object_mut().unwrap().remove("rivven.io/restarted-at");
        x["spec"]["image"] = json!("ghcr.io/hupe1980/rivven");
        x["metadata"]["generation"] = json!(x["metadata"]["generation"].as_i64().unwrap() + 1);
    });
    world.settle().await.unwrap();
    let now = status(&world);
    assert_eq!((&now["phase"], &now["reason"]), (&json!("Ready"), &json!("AsWanted")), "{now:#}");
    assert_eq!(set(&world)["spec"]["template"], template);
    assert!(set(&world)["metadata"]["annotations"].get("rivven.io/halted").is_none(), "nothing is halted any more");
    let untouched = PODS.iter().zip(&before).filter(|(pod, before)| uid(&world, pod) == **before).count();
    assert_eq!(untouched, 2, "only one broker was ever touched");
}

fn merged(base: &Value, over: &Value) -> Value {
    let mut all = base.as_object().cloned().unwrap_or_default();
    all.extend(over.as_object().cloned().unwrap_or_default());
    all.into()
}

#[tokio::test(start_paused = true)]
async fn a_restart_is_asked_for_of_one_broker_or_of_all() {
    let (world, _) = serving().await;
    let since = world.log().effective().0.len();
    world.sim.edit("pods", "default", "rivven-x-1", |pod| {
        pod["metadata"]["annotations"]["rivven.io/restart"] = json!("true");
    });
    world.settle().await.unwrap();
    assert_eq!(evicted(&world, since), ["rivven-x-1"]);
    assert_eq!(status(&world)["phase"], "Ready");
    world.sim.edit(CLUSTERS, "default", "x", |x| {
        x["metadata"]["annotations"]["rivven.io/restarted-at"] = json!("2026-03-01");
    });
    world.settle().await.unwrap();
    assert_eq!(evicted(&world, since).len(), 4);
    assert_eq!(status(&world)["phase"], "Ready");
}

#[tokio::test(start_paused = true)]
async fn a_window_holds_restarts_until_it_opens() {
    let (world, _) = serving().await;
    let since = world.log().effective().0.len();
    let opens = world.sim.now() + chrono::Duration::minutes(10);
    let window = json!([{ "schedule": opens.format("%M %H * * *").to_string(), "durationMinutes": 60 }]);
    change(&world, &json!({ "maintenanceWindows": window, "config": { "logLevel": "debug" } }));
    let waits = async {
        while status(&world)["reason"] != "OutsideMaintenanceWindow" {
            world.sim.step();
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_mins(5), waits).await.expect("waits");
    assert!(evicted(&world, since).is_empty());
    let now = status(&world);
    assert_eq!(now["plan"].as_array().unwrap().len(), 3, "what will come: {now:#}");
    let blocked = now["brokers"].as_array().unwrap().iter().filter(|b| b["blockedBy"].is_array()).count();
    assert_eq!(blocked, 1, "who waits: {now:#}");
    world.sim.advance(std::time::Duration::from_mins(10));
    tokio::time::sleep(std::time::Duration::from_mins(10)).await;
    world.settle().await.unwrap();
    assert_eq!(evicted(&world, since).len(), 3);
    assert_eq!(status(&world)["phase"], "Ready");
}

/// Goes on, a second at a time, until the status is so.
async fn until(world: &World<Clustered>, what: &str, is_so: impl Fn(&Value) -> bool) {
    let waits = async {
        while !is_so(&status(world)) {
            world.sim.step();
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_mins(10), waits).await.expect(what);
}

#[tokio::test(start_paused = true)]
async fn a_budget_of_somebody_else_is_told_and_kept() {
    let (world, _) = serving().await;
    let since = world.log().effective().0.len();
    let budget = json!({ "minAvailable": 3, "selector": { "matchLabels": { "rivven.io/cluster": "x" } } });
    world.sim.apply(json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": { "name": "theirs", "namespace": "default" }, "spec": budget,
    }));
    change(&world, &json!({ "config": { "logLevel": "debug" } }));
    until(&world, "held", |status| status["reason"] == "EvictionHeld").await;
    assert_eq!(status(&world)["phase"], "Upgrading");
    assert!(evicted(&world, since).is_empty(), "the budget is kept");
    world.sim.delete("poddisruptionbudgets.policy", "default", "theirs", &json!({})).unwrap();
    until(&world, "as wanted", |status| status["reason"] == "AsWanted").await;
    assert_eq!(evicted(&world, since).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_fails_again_and_again_is_told_once_and_tried_with_back_off() {
    let told = async |failures: u64| {
        let (world, session) = serving().await;
        let since = world.log().effective().0.len();
        let evictions = || Matcher { subresource: Some("eviction".to_owned()), ..Matcher::plural("pods") };
        (1..=failures).for_each(|nth| session.on(evictions(), nth, Fault::Answer(500)));
        let began = tokio::time::Instant::now();
        change(&world, &json!({ "config": { "logLevel": "debug" } }));
        until(&world, "as wanted", |status| status["reason"] == "AsWanted" && evicted(&world, since).len() == 3).await;
        let log = world.log().effective();
        let statuses = log.0[since..].iter().filter(|entry| entry.key.plural == "rivvenclusters").count();
        (statuses, began.elapsed())
    };
    let (quiet, quick) = told(0).await;
    let (statuses, took) = told(6).await;
    println!("six refusals of one step: {statuses} statuses in {took:?}; without them {quiet} in {quick:?}");
    assert!(statuses <= quiet + 4, "told once");
    assert!(took >= quick + std::time::Duration::from_secs(10), "tried with back-off");
}
