//! Three real brokers in the pods of the model: made one cluster exactly once, whatever fails on the way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::collections::BTreeMap;

use rivven_sim::{Fault, Session};
use serde_json::{Value, json};
use support::cluster::{CALL_FAULTS, Clustered};
use support::{World, cluster};

const POD: &str = "rivven-x-1";

struct Played {
    end: BTreeMap<String, Value>,
    writes: u64,
    calls: u64,
    events: u64,
}

/// Creates a cluster of three and waits until nothing happens any more.
async fn play(plan: impl FnOnce(&World<Clustered>, &Session)) -> Result<Played, String> {
    let mut world = World::<Clustered>::new(1);
    let session = world.start(|_| {});
    plan(&world, &session);
    world.sim.apply(cluster(&json!({ "replicas": 3, "version": "0.1.0" })));
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
    let (writes, calls, events) = (world.log().writes().0.len() as u64, world.fleet.calls(), session.events());
    Ok(Played { end: world.end(), writes, calls, events })
}

fn same(reference: &Played, run: &Played, what: &str) {
    let keys: std::collections::BTreeSet<_> = reference.end.keys().chain(run.end.keys()).collect();
    for key in keys {
        assert_eq!(reference.end.get(key), run.end.get(key), "{what}: {key}");
    }
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
    println!("formation, oracle 1: {} writes, plans: {plans}", reference.writes);
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
    println!("formation, oracle 2: {} calls, plans: {plans}", reference.calls);
    assert!(plans >= 4, "{plans}");
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
    println!("formation, oracle 4: plans: {plans}");
    assert!(plans >= 20, "{plans}");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_late_is_waited_for() {
    let mut world = World::<Clustered>::new(1);
    world.fleet.hold(POD, true);
    world.start(|_| {});
    world.sim.apply(cluster(&json!({ "replicas": 3, "version": "0.1.0" })));
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
