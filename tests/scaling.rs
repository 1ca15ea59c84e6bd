//! Real brokers come and go in the pods of the model, and keep every record, whatever fails on the way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rivven_operator::broker::{BrokerAddress, Brokers, Token};
use rivven_protocol::{PartitionMetadata, Request};
use rivven_sim::{Fault, Key, Session, Verb};
use serde_json::{Value, json};
use support::cluster::{CALL_FAULTS, Clustered};
use support::records::{RECORDS, TOPIC, fill, lost, partitions};
use support::{World, cluster, ready, status};

/// What is played with every failure there can be: one more broker, and two partitions of which one moves.
const MOST: u32 = 4;
const PARTITIONS: u32 = 2;

fn of(replicas: u32, rebalance: bool) -> Value {
    cluster(&json!({ "replicas": replicas, "version": "0.1.0", "rebalance": rebalance }))
}

fn scale(world: &World<Clustered>, replicas: u32) {
    world.sim.apply(json!({
        "apiVersion": "rivven.io/v1alpha1", "kind": "RivvenCluster", "metadata": { "name": "x" },
        "spec": { "replicas": replicas },
    }));
}

/// How many replicas each broker holds.
fn loads(partitions: &[PartitionMetadata]) -> BTreeMap<String, usize> {
    let mut loads = BTreeMap::new();
    for replica in partitions.iter().flat_map(|partition| &partition.replicas) {
        *loads.entry(replica.clone()).or_default() += 1;
    }
    loads
}

fn pods(world: &World<Clustered>, resource: &str) -> Vec<String> {
    let names = world.sim.list(resource).into_iter();
    names.map(|object| object["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

struct Played {
    end: BTreeMap<String, Value>,
    /// Writes that are no status, while it scaled.
    changes: usize,
    writes: u64,
    calls: u64,
    before: (u64, u64),
    /// How often each object was made, changed and deleted; statuses are not counted, as they tell what happened.
    counts: BTreeMap<(Key, Verb), usize>,
    lost: usize,
}

/// Three brokers with records become more, and three again.
async fn out_and_in(most: u32, count: u32, plan: impl FnOnce(&World<Clustered>, &Session)) -> Result<Played, String> {
    let mut world = World::<Clustered>::new(1);
    let session = world.start(|_| {});
    world.sim.apply(of(3, true));
    ready(&world, 3).await?;
    fill(&world, count).await;
    let changes =
        |world: &World<Clustered>| world.log().writes().effective().only(|entry| entry.subresource != "status").0.len();
    let until_then = changes(&world);
    let before = (world.log().writes().0.len() as u64, world.fleet.calls());
    plan(&world, &session);
    scale(&world, most);
    ready(&world, most).await?;
    let spread = loads(&partitions(&world).await);
    let least = spread.values().min().copied().unwrap_or(0);
    if spread.len() != most as usize || spread.values().any(|replicas| *replicas > least + 1) {
        return Err(format!("not even: {spread:?}"));
    }
    let missing = lost(&world).await;
    scale(&world, 3);
    ready(&world, 3).await?;
    let partitions = partitions(&world).await;
    if partitions.iter().any(|p| p.replicas.len() != 3 || p.isr.len() != 3) {
        return Err(format!("three replicas each: {partitions:?}"));
    }
    if pods(&world, "pods").len() != 3 || pods(&world, "persistentvolumeclaims").len() != 3 {
        return Err(format!("{:?} {:?}", pods(&world, "pods"), pods(&world, "persistentvolumeclaims")));
    }
    let lost = missing + lost(&world).await;
    if world.fleet.begun() != 1 {
        return Err(format!("made one cluster {} times", world.fleet.begun()));
    }
    let log = world.log().writes();
    let counts = log.only(|entry| entry.subresource != "status").counts();
    let (writes, calls) = (log.0.len() as u64, world.fleet.calls());
    let changes = changes(&world) - until_then;
    Ok(Played { end: world.end(), changes, writes, calls, before, counts, lost })
}

#[tokio::test(start_paused = true)]
async fn three_become_five_and_three_again_and_nothing_is_lost() {
    let began = std::time::Instant::now();
    let played = out_and_in(5, 6, |_, _| {}).await.unwrap();
    println!(
        "3 to 5 to 3: {} records, {} lost, {} writes, {} of them no status, {} calls, {:?}",
        RECORDS,
        played.lost,
        played.writes - played.before.0,
        played.changes,
        played.calls - played.before.1,
        began.elapsed()
    );
    assert_eq!(played.lost, 0);
    // Out: ConfigMap and StatefulSet as wanted, its number, the moves noted and taken off, and both again as proven. In: the
    // same without the moves; then for each broker the moves noted and taken off, its claim noted, the number, and the
    // claim deleted.
    assert_eq!(played.changes, 7 + 4 + 2 * 5);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_leads_hands_over_before_it_leaves() {
    let mut world = World::<Clustered>::new(1);
    world.start(|_| {});
    world.sim.apply(of(4, false));
    ready(&world, 4).await.unwrap();
    fill(&world, 2).await;
    let brokers = Brokers::new(world.fleet.access());
    let secret = world.sim.get("secrets", "default", "rivven-x-auth").unwrap();
    let token: k8s_openapi::ByteString = serde_json::from_value(secret["data"]["token"].clone()).unwrap();
    let token = Token::new(std::str::from_utf8(&token.0).unwrap()).unwrap();
    for pod in world.fleet.running() {
        let address = BrokerAddress {
            namespace: "default".to_owned(),
            host: pod.clone(),
            pod,
            client_port: 9292,
            api_port: 9090,
            tls: None,
        };
        // Whoever leads takes it; the others refuse.
        drop(brokers.transfer_controller(&address, &token, "rivven-x-3").await);
    }
    let calls = world.fleet.calls();
    scale(&world, 3);
    ready(&world, 3).await.unwrap();
    let told = world.sim.list("events.events.k8s.io");
    let handed = told.iter().any(|event| event["note"].as_str().is_some_and(|note| note.contains("hands over")));
    assert!(handed, "{} calls: {told:#?}", world.fleet.calls() - calls);
    assert_eq!((lost(&world).await, pods(&world, "persistentvolumeclaims").len()), (0, 3));
}

fn same(reference: &Played, run: &Played, what: &str) {
    let keys: BTreeSet<_> = reference.end.keys().chain(run.end.keys()).collect();
    for key in keys {
        assert_eq!(reference.end.get(key), run.end.get(key), "{what}: {key}");
    }
    assert_eq!(run.lost, 0, "{what}: records lost");
    // Oracle 5.
    assert_eq!(reference.counts, run.counts, "{what}: how often each object was written");
}

async fn crash_at_any_write(fault: Fault) {
    let reference = out_and_in(MOST, PARTITIONS, |_, _| {}).await.unwrap();
    let mut plans = 0;
    for nth in reference.before.0 + 1..=reference.writes {
        let what = format!("{fault:?} at write {nth}");
        let run = out_and_in(MOST, PARTITIONS, |_, session| session.on_write(nth, fault)).await;
        same(&reference, &run.unwrap_or_else(|why| panic!("{what}: {why}")), &what);
        plans += 1;
    }
    println!("scaling, oracles 1 and 5: {fault:?}: {} writes, plans: {plans}", reference.writes - reference.before.0);
    assert!(plans >= 20, "{plans}");
}

#[tokio::test(start_paused = true)]
async fn oracle_1_a_crash_before_any_write_ends_with_the_same_brokers_and_every_record() {
    crash_at_any_write(Fault::CutBefore).await;
}

#[tokio::test(start_paused = true)]
async fn oracle_1_a_crash_after_any_write_ends_with_the_same_brokers_and_every_record() {
    crash_at_any_write(Fault::CutAfter).await;
}

#[tokio::test(start_paused = true)]
async fn oracle_1_a_reply_that_is_lost_at_any_write_ends_with_the_same_brokers_and_every_record() {
    crash_at_any_write(Fault::LoseReply).await;
}

#[tokio::test(start_paused = true)]
async fn oracle_2_a_crash_or_a_lost_reply_at_any_call_ends_with_the_same_brokers_and_every_record() {
    let reference = out_and_in(MOST, PARTITIONS, |_, _| {}).await.unwrap();
    let mut plans = 0;
    for nth in reference.before.1 + 1..=reference.calls {
        for fault in CALL_FAULTS {
            let what = format!("{fault:?} at call {nth}");
            let run = out_and_in(MOST, PARTITIONS, |world, session| world.fleet.on_call(session, nth, fault)).await;
            same(&reference, &run.unwrap_or_else(|why| panic!("{what}: {why}")), &what);
            plans += 1;
        }
    }
    println!("scaling, oracles 2 and 5: {} calls, plans: {plans}", reference.calls - reference.before.1);
    assert!(plans >= 28, "{plans}");
}

fn condition(world: &World<Clustered>, kind: &str) -> Value {
    let status = status(world);
    let found = status["conditions"].as_array().and_then(|all| all.iter().find(|c| c["type"] == kind));
    found.cloned().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn fewer_brokers_than_replicas_are_refused_with_the_partitions_named() {
    let mut world = World::<Clustered>::new(1);
    world.start(|_| {});
    world.sim.apply(of(3, false));
    ready(&world, 3).await.unwrap();
    fill(&world, 2).await;
    let before = world.log().writes().only(|entry| entry.subresource != "status").0.len();
    scale(&world, 2);
    ready(&world, 3).await.unwrap();
    let refused = condition(&world, "SpecAccepted");
    assert_eq!((&refused["status"], &refused["reason"]), (&json!("False"), &json!("ScaleRefused")), "{refused}");
    let message = refused["message"].as_str().unwrap();
    for part in ["orders/0", "orders/1", "possible is 3"] {
        assert!(message.contains(part), "{message}");
    }
    let wish = world.sim.get("rivvenclusters.rivven.io", "default", "x").unwrap();
    assert_eq!((&wish["spec"]["replicas"], &wish["status"]["ready"]), (&json!(2), &json!("3/3")));
    let written = world.log().writes().only(|entry| entry.subresource != "status").0.len();
    assert_eq!(written, before, "nothing but the status is written");
    scale(&world, 3);
    ready(&world, 3).await.unwrap();
    assert_eq!(condition(&world, "SpecAccepted")["status"], "True");
    assert_eq!(lost(&world).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_topic_made_a_moment_ago_counts_when_fewer_brokers_are_wanted() {
    let mut world = World::<Clustered>::new(1);
    world.start(|_| {});
    world.sim.apply(of(3, false));
    // The partitions were asked for a moment ago, as the cluster was formed.
    ready(&world, 3).await.unwrap();
    let create = Request::CreateTopic { name: TOPIC.to_owned(), partitions: Some(1) };
    world.fleet.client("rivven-x-0", create).await.unwrap();
    scale(&world, 2);
    ready(&world, 3).await.unwrap();
    assert_eq!(condition(&world, "SpecAccepted")["reason"], "ScaleRefused");
    let marks = world.sim.get("persistentvolumeclaims", "default", "data-rivven-x-2").unwrap();
    assert!(!marks["metadata"]["annotations"].to_string().contains("empty"), "{marks}");
}

#[tokio::test(start_paused = true)]
async fn one_becomes_three_and_one_again() {
    let mut world = World::<Clustered>::new(1);
    world.start(|_| {});
    world.sim.apply(of(1, false));
    ready(&world, 1).await.unwrap();
    fill(&world, 3).await;
    scale(&world, 3);
    ready(&world, 3).await.unwrap();
    assert_eq!(loads(&partitions(&world).await).len(), 1, "without rebalance, replicas stay where they are");
    scale(&world, 1);
    ready(&world, 1).await.unwrap();
    assert_eq!((lost(&world).await, world.fleet.begun()), (0, 1));
    assert_eq!((pods(&world, "pods").len(), pods(&world, "persistentvolumeclaims").len()), (1, 1));
    println!("1 to 3 to 1: {RECORDS} records, 0 lost");
}

/// A number that holds until the next one, and after how many seconds that one comes.
const MINDS: [&[(u32, u64)]; 6] = [
    &[(5, 3), (4, 0)],
    &[(5, 200), (3, 4), (5, 0)],
    &[(5, 200), (3, 9), (5, 0)],
    &[(5, 200), (3, 14), (5, 12), (4, 0)],
    &[(4, 2), (3, 1), (5, 0)],
    &[(5, 200), (3, 20), (4, 5), (3, 0)],
];

#[tokio::test(start_paused = true)]
async fn a_change_of_mind_half_way_ends_as_the_last_word_says() {
    for minds in MINDS {
        let mut world = World::<Clustered>::new(1);
        world.start(|_| {});
        world.sim.apply(of(3, true));
        ready(&world, 3).await.unwrap();
        fill(&world, 6).await;
        for (replicas, seconds) in minds {
            scale(&world, *replicas);
            for _ in 0..*seconds {
                world.sim.step();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        let wanted = minds.last().unwrap().0;
        ready(&world, wanted).await.unwrap_or_else(|why| panic!("{minds:?}: {why}"));
        let partitions = partitions(&world).await;
        assert!(partitions.iter().all(|p| p.replicas.len() == 3 && p.isr.len() == 3), "{minds:?}: {partitions:?}");
        assert_eq!(pods(&world, "persistentvolumeclaims").len(), wanted as usize, "{minds:?}");
        assert_eq!((lost(&world).await, world.fleet.begun()), (0, 1), "{minds:?}");
    }
    println!("changes of mind: plans: {}", MINDS.len());
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_was_kept_is_joined_only_when_asked() {
    let mut world = World::<Clustered>::new(1);
    world.start(|_| {});
    let mut keeping = of(4, false);
    keeping["spec"]["storage"]["scaleInPolicy"] = json!("Retain");
    world.sim.apply(keeping);
    ready(&world, 4).await.unwrap();
    fill(&world, 4).await;
    scale(&world, 3);
    ready(&world, 3).await.unwrap();
    let claims = pods(&world, "persistentvolumeclaims");
    assert_eq!(claims.len(), 4, "{claims:?}");
    scale(&world, 4);
    world.settle().await.unwrap();
    let status = status(&world);
    assert_eq!((&status["phase"], &status["reason"]), (&json!("Degraded"), &json!("StaleVolume")), "{status:#}");
    assert_eq!(pods(&world, "pods").len(), 3, "nothing starts on it");
    world.sim.apply(json!({
        "apiVersion": "rivven.io/v1alpha1", "kind": "RivvenCluster",
        "metadata": { "name": "x", "annotations": { "rivven.io/adopt-volumes": "true" } },
    }));
    ready(&world, 4).await.unwrap();
    assert_eq!(lost(&world).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_that_was_scaled_by_hand_is_brought_back() {
    let mut world = World::<Clustered>::new(1);
    world.start(|_| {});
    world.sim.apply(of(3, false));
    ready(&world, 3).await.unwrap();
    fill(&world, 3).await;
    for by_hand in [2, 5, 1, 0] {
        world.sim.apply(json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": { "name": "rivven-x" },
            "spec": { "replicas": by_hand },
        }));
        ready(&world, 3).await.unwrap_or_else(|why| panic!("{by_hand}: {why}"));
        let set = world.sim.get("statefulsets.apps", "default", "rivven-x").unwrap();
        assert_eq!(set["spec"]["replicas"], 3, "{by_hand}");
        assert_eq!((lost(&world).await, world.fleet.begun()), (0, 1), "{by_hand}");
    }
}
