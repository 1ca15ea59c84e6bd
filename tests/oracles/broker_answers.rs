//! Oracle 19: whatever a broker answers that makes no sense, nothing hurtful follows.

use std::time::Duration;

use rivven_sim::Verb;

use crate::support::World;
use crate::support::cluster::{Clustered, NONSENSE, Nonsense};
use crate::support::play::{CLUSTERED, Operation};

/// What the operator asks of brokers before it restarts one: paths of the HTTP API and requests of the client protocol.
const QUESTIONS: [&str; 8] = [
    "/health",
    "/metrics",
    "/membership",
    "/api/v1/metadata/linearizable",
    "Handshake",
    "Ping",
    "GetClusterMetadata",
    "DescribeTopicConfigs",
];

/// Evictions, deletions, and numbers of brokers that were lowered; Events and statuses do not hurt.
fn hurt(world: &World<Clustered>, since: usize) -> Vec<String> {
    let log = world.log().effective();
    let hurts = |entry: &&rivven_sim::Entry| {
        entry.subresource == "eviction"
            || entry.verb == Verb::Delete
            || entry.verb == Verb::Patch && entry.key.plural == "statefulsets"
    };
    log.0[since..].iter().filter(hurts).map(ToString::to_string).collect()
}

async fn pass(world: &World<Clustered>, seconds: u64) {
    for _ in 0..seconds {
        world.sim.step();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn fails_closed(operation: &Operation, questions: &[&'static str]) {
    let (world, _) = operation.before::<Clustered>(1).await.unwrap();
    let (since, calls) = (world.log().effective().0.len(), world.fleet.calls());
    let mut before = (questions[0], NONSENSE[0]);
    world.fleet.garble(&[before]);
    operation.act(&world);
    let mut plans = 0;
    for question in questions {
        for nonsense in NONSENSE {
            // One answer may still count when the next one fails: both are senseless for a while.
            world.fleet.garble(&[before, (question, nonsense)]);
            pass(&world, 3).await;
            before = (question, nonsense);
            world.fleet.garble(&[before]);
            pass(&world, 12).await;
            assert_eq!(
                hurt(&world, since),
                Vec::<String>::new(),
                "{}: {question} answers {nonsense:?}",
                operation.name
            );
            assert_eq!(world.fleet.calls(), calls, "{}: {question} answers {nonsense:?}", operation.name);
            plans += 1;
        }
    }
    world.fleet.garble(&[]);
    operation.done(&world).await.unwrap_or_else(|why| panic!("{}: afterwards: {why}", operation.name));
    println!("{}, oracle 19: plans: {plans}", operation.name);
}

#[tokio::test(start_paused = true)]
async fn no_broker_is_restarted() {
    fails_closed(&CLUSTERED[0], &QUESTIONS).await;
}

#[tokio::test(start_paused = true)]
async fn no_broker_is_taken_out() {
    fails_closed(&CLUSTERED[2], &QUESTIONS).await;
}

/// What is asked to be done, and what may not be done before it is.
async fn nothing_follows(operation: &Operation, request: &'static str, follows: impl Fn(&World<Clustered>) -> bool) {
    for nonsense in NONSENSE {
        let (world, _) = operation.before::<Clustered>(1).await.unwrap();
        world.fleet.garble(&[(request, nonsense)]);
        operation.act(&world);
        pass(&world, if nonsense == Nonsense::Silence { 60 } else { 30 }).await;
        assert!(!follows(&world), "{}: {request} answers {nonsense:?}: {:?}", operation.name, hurt(&world, 0));
        world.fleet.garble(&[]);
        operation.done(&world).await.unwrap_or_else(|why| panic!("{}: afterwards: {why}", operation.name));
    }
    println!("{}, {request}, oracle 19: plans: {}", operation.name, NONSENSE.len());
}

fn scaled(world: &World<Clustered>) -> bool {
    world.sim.get("statefulsets.apps", "default", "rivven-x").unwrap()["spec"]["replicas"] != 4
        || world.sim.list("persistentvolumeclaims").len() != 4
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_was_not_emptied_stays() {
    nothing_follows(&CLUSTERED[2], "/api/v1/propose", scaled).await;
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_did_not_leave_stays() {
    nothing_follows(&CLUSTERED[2], "/api/v1/change-membership", scaled).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_did_not_hand_over_stays() {
    let all = |world: &World<Clustered>| hurt(world, 0).iter().filter(|line| line.contains("eviction")).count() > 2;
    nothing_follows(&CLUSTERED[0], "/api/v1/transfer-leadership", all).await;
}
