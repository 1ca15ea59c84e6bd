//! Three real brokers in the pods of the model: made one cluster exactly once, whatever fails on the way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::collections::BTreeMap;

use rivven_sim::{Fault, Key, Session, Verb, View};
use serde_json::{Value, json};
use support::cluster::{CALL_FAULTS, Clustered};
use support::{World, cluster};

const POD: &str = "rivven-x-1";

struct Played {
    end: BTreeMap<String, Value>,
    writes: u64,
    calls: u64,
    events: u64,
    /// How often each object was made, changed and deleted; statuses are not counted, as they tell what happened.
    counts: BTreeMap<(Key, Verb), usize>,
}

fn three() -> Value {
    cluster(&json!({ "replicas": 3, "version": "0.1.0" }))
}

/// Creates a cluster of three and waits until nothing happens any more.
async fn play(plan: impl FnOnce(&World<Clustered>, &Session)) -> Result<Played, String> {
    let mut world = World::<Clustered>::new(1);
    let session = world.start(|_| {});
    plan(&world, &session);
    world.sim.apply(three());
    let mut settled = world.settle().await;
    if settled.is_ok() {
        // API servers end every watch after some minutes, and what was missed is listed anew.
        session.expire_watches();
        settled = world.settle().await;
    }
    let phase = world.phase("rivvenclusters.rivven.io", "x");
    let object = world.sim.get("rivvenclusters.rivven.io", "default", "x").unwrap_or_default();
    settled.map_err(|why| format!("{why}\n{:#}", object["status"]))?;
    if phase != "Ready" {
        return Err(format!("ends {phase:?}: {:#}", object["status"]));
    }
    let begun = world.fleet.begun();
    if begun != 1 {
        return Err(format!("made one cluster {begun} times"));
    }
    let log = world.log().writes();
    let counts = log.only(|entry| entry.subresource != "status").counts();
    let (writes, calls, events) = (log.0.len() as u64, world.fleet.calls(), session.events());
    Ok(Played { end: world.end(), writes, calls, events, counts })
}

fn same(reference: &Played, run: &Played, what: &str) {
    let keys: std::collections::BTreeSet<_> = reference.end.keys().chain(run.end.keys()).collect();
    for key in keys {
        assert_eq!(reference.end.get(key), run.end.get(key), "{what}: {key}");
    }
    // Oracle 5.
    assert_eq!(reference.counts, run.counts, "{what}: how often each object was written");
}

#[tokio::test(start_paused = true)]
async fn oracle_1_a_crash_at_any_write_forms_one_cluster() {
    let reference = play(|_, _| {}).await.unwrap();
    let mut plans = 0;
    for nth in 1..=reference.writes {
        for fault in [Fault::CutBefore, Fault::CutAfter, Fault::LoseReply] {
            let what = format!("{fault:?} at write {nth}");
            let run = play(|_, session| session.on_write(nth, fault)).await;
            same(&reference, &run.unwrap_or_else(|why| panic!("{what}: {why}")), &what);
            plans += 1;
        }
    }
    println!("formation, oracles 1 and 5: {} writes, plans: {plans}", reference.writes);
    assert!(plans >= 30, "{plans}");
}

#[tokio::test(start_paused = true)]
async fn oracle_2_a_crash_or_a_lost_reply_at_any_call_forms_one_cluster() {
    let reference = play(|_, _| {}).await.unwrap();
    let mut plans = 0;
    for nth in 1..=reference.calls {
        for fault in CALL_FAULTS {
            let what = format!("{fault:?} at call {nth}");
            let run = play(|world, session| world.fleet.on_call(session, nth, fault)).await;
            same(&reference, &run.unwrap_or_else(|why| panic!("{what}: {why}")), &what);
            plans += 1;
        }
    }
    println!("formation, oracles 2 and 5: {} calls, plans: {plans}", reference.calls);
    assert!(plans >= 4, "{plans}");
}

#[tokio::test(start_paused = true)]
async fn oracle_3_a_view_of_the_past_forms_nothing_twice_and_undoes_nothing() {
    let reference = play(|_, _| {}).await.unwrap();
    let mut plans = 0;
    for behind in [1, 2, 3, 5, 8, 13, 21, 34] {
        let mut world = World::<Clustered>::new(1);
        let session = world.start(|session| session.view(View::Behind(behind)));
        world.sim.apply(three());
        world.settle().await.unwrap();
        session.view(View::Latest);
        session.expire_watches();
        world.settle().await.unwrap();
        ended_as(&reference, &world, &format!("{behind} versions behind"));
        plans += 1;
    }
    // An operator that starts anew may be answered by an API server that has not caught up.
    let mut world = World::<Clustered>::new(1);
    world.start(|_| {});
    world.sim.apply(three());
    world.settle().await.unwrap();
    let now = world.sim.version();
    for step in 1..=24 {
        let then = now * step / 24;
        world.stop();
        let session = world.start(|session| session.view(View::At(then)));
        // Not until it rests: what it wants to write is refused as often as it tries.
        tokio::time::sleep(std::time::Duration::from_secs(20)).await;
        ended_as(&reference, &world, &format!("at version {then} of {now}"));
        session.view(View::Latest);
        session.expire_watches();
        world.settle().await.unwrap();
        ended_as(&reference, &world, &format!("back from version {then} of {now}"));
        plans += 1;
    }
    println!("formation, oracle 3: plans: {plans}");
}

/// One cluster, nothing of it deleted, everything as in the reference run but for what the status may tell late.
fn ended_as(reference: &Played, world: &World<Clustered>, what: &str) {
    assert_eq!(world.fleet.begun(), 1, "{what}");
    let deleted = world.log().effective().only(|entry| entry.verb == Verb::Delete);
    assert_eq!(deleted.lines(), Vec::<String>::new(), "{what}");
    let end = world.end();
    for (key, expected) in &reference.end {
        let differs = || format!("{what}: {key}\n{:#}\n{:#}", expected["status"], end[key]["status"]);
        assert!(end.get(key) == Some(expected), "{}", differs());
    }
}

#[tokio::test(start_paused = true)]
async fn oracle_4_any_watch_event_may_be_lost() {
    let reference = play(|_, _| {}).await.unwrap();
    let mut plans = 0;
    for nth in 1..=reference.events {
        let what = format!("event {nth} lost");
        let run = play(|_, session| session.drop_event(nth)).await;
        same(&reference, &run.unwrap_or_else(|why| panic!("{what}: {why}")), &what);
        plans += 1;
    }
    println!("formation, oracles 4 and 5: plans: {plans}");
    assert!(plans >= 20, "{plans}");
}

#[tokio::test(start_paused = true)]
async fn oracle_6_at_rest_nothing_is_written_and_after_each_disturbance_it_is_whole_again() {
    let mut world = World::<Clustered>::new(1);
    let mut session = world.start(|_| {});
    world.sim.apply(three());
    world.settle().await.unwrap();
    let whole = world.end();
    let mut plans = 0;
    for round in 0..3 {
        for ordinal in 0..3 {
            let pod = format!("rivven-x-{ordinal}");
            match round {
                0 => world.sim.restart_containers("default", &pod),
                1 => world.sim.delete("pods", "default", &pod, &json!({})).unwrap(),
                _ => {
                    world.stop();
                    world.sim.restart_containers("default", &pod);
                    session = world.start(|_| {});
                }
            }
            let degraded = async {
                while world.phase("rivvenclusters.rivven.io", "x") != "Degraded" {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            };
            if round < 2 {
                tokio::time::timeout(std::time::Duration::from_secs(2), degraded).await.expect("seen within 2 s");
            }
            world.settle().await.unwrap();
            let restarts = |world: &BTreeMap<String, Value>| {
                let mut world = world.clone();
                for broker in
                    world.values_mut().filter_map(|o| o.pointer_mut("/status/brokers")?.as_array_mut()).flatten()
                {
                    broker["restarts"] = Value::Null;
                }
                world.retain(|key, _| !key.starts_with("pods"));
                world
            };
            assert_eq!(restarts(&world.end()), restarts(&whole), "{pod}, round {round}");
            assert_eq!(world.fleet.begun(), 1, "never formed again");
            let before = world.log().writes().0.len();
            for _ in 0..3 {
                session.expire_watches();
                world.settle().await.unwrap();
            }
            let after = world.log().writes();
            assert_eq!(after.0.len(), before, "written at rest: {:?}", after.lines().last());
            plans += 1;
        }
    }
    println!("formation, oracle 6: plans: {plans}");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_late_is_waited_for() {
    let mut world = World::<Clustered>::new(1);
    world.fleet.hold(POD, true);
    world.start(|_| {});
    world.sim.apply(three());
    world.settle().await.unwrap();
    let status = world.sim.get("rivvenclusters.rivven.io", "default", "x").unwrap()["status"].clone();
    assert_eq!(status["phase"], "Provisioning", "{status:#}");
    assert!(status["message"].as_str().unwrap().contains("broker 1 has not answered yet"), "{status:#}");
    assert_eq!(world.fleet.begun(), 0, "nobody is left out");
    world.fleet.hold(POD, false);
    let ready = async {
        while world.phase("rivvenclusters.rivven.io", "x") != "Ready" {
            world.settle().await.unwrap();
        }
    };
    tokio::time::timeout(std::time::Duration::from_mins(10), ready).await.unwrap();
    assert_eq!(world.fleet.begun(), 1);
}
