//! Faults on demand do what they say, and honestly: what was acknowledged before, meanwhile and after is kept.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use rivven_protocol::{Request, Response};
use serde_json::{Value, json};
use support::wire::{Load, missing, publishing};
use support::{Cluster, eventually, http, topic};

const ALL: &[&str] = &["b0", "b1", "b2"];
const FULL: &str = "I/O error: No space left on device (os error 28)";

async fn formed() -> Cluster {
    Cluster::formed(3, |config| config.test_faults = true).await
}

async fn order(on: &Cluster, name: &str, order: Value) {
    assert_eq!(on.post(name, "/test/faults", order).await, (200, json!({ "success": true })));
}

/// Waits until a broker tells that these are in sync.
async fn in_sync(on: &Cluster, by: &str, isr: &[&str]) {
    let told = async || on.links.partition(by, "t", 0).await.filter(|partition| partition.isr == isr).map(drop);
    eventually("in sync", told).await;
}

#[tokio::test(start_paused = true)]
async fn only_who_has_the_token_asks_for_faults_and_only_where_they_are_allowed() {
    let cluster = formed().await;
    let at = cluster.addresses("b0").api;
    let clear = json!({ "clear": true });
    assert_eq!(http(at, "POST", "/test/faults", None, Some(clear.clone())).await.0, 401);
    assert_eq!(cluster.post("b0", "/test/faults", json!({ "lag": 5 })).await.0, 422);
    order(&cluster, "b0", clear.clone()).await;
    let cluster = Cluster::formed(1, |_| {}).await;
    assert_eq!(cluster.post("b0", "/test/faults", clear).await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_lags_leaves_the_in_sync_set_and_comes_back() {
    let cluster = formed().await;
    cluster.propose(topic("t", 2, &[ALL])).await;
    in_sync(&cluster, "b0", ALL).await;
    let load = Load::start(&cluster.links, "t", 0);
    for end in [json!({ "lag_ms": 0 }), json!({ "clear": true })] {
        order(&cluster, "b1", json!({ "lag_ms": 3_600_000 })).await;
        in_sync(&cluster, "b0", &["b0", "b2"]).await;
        load.progress().await;
        order(&cluster, "b1", end).await;
        in_sync(&cluster, "b0", ALL).await;
    }
    assert_eq!(missing(&load.stop(), &cluster.links.read_all("t", 0).await), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_reply_is_lost_took_effect() {
    let mut cluster = Cluster::adjusted(|config| config.test_faults = true);
    for name in ALL {
        cluster.start(name).await;
    }
    order(&cluster, "b0", json!({ "lose_reply": "/api/v1/bootstrap", "times": 1 })).await;
    assert_eq!(cluster.bootstrap("b0").await.0, 0);
    cluster.all_ready().await;
    assert_eq!(cluster.bootstrap("b0").await.0, 500, "once");

    let leader = cluster.leader().await;
    order(&cluster, &leader, json!({ "lose_reply": "CreateTopic", "times": 1 })).await;
    let create = topic("t", 1, &[&["b0"]]);
    assert_eq!(cluster.post(&leader, "/api/v1/propose", json!({ "command": create })).await.0, 0);
    let again = cluster.propose(create).await;
    assert_eq!(again, json!({ "Error": { "message": "Topic t already exists" } }));

    in_sync(&cluster, "b0", &["b0"]).await;
    order(&cluster, "b0", json!({ "lose_reply": "Publish", "times": 1 })).await;
    assert!(cluster.links.ask("b0", publishing("t", 0, b"one")).await.is_err());
    assert_eq!(cluster.links.publish("t", 0, b"two").await, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_does_nothing_as_often_as_asked_for() {
    let cluster = formed().await;
    let leader = cluster.leader().await;
    let refused = json!({ "error": "refused on demand", "code": 503 });
    order(&cluster, &leader, json!({ "refuse": "Noop", "times": 2 })).await;
    order(&cluster, &leader, json!({ "refuse": "/health" })).await;
    for _ in 0..2 {
        let proposed = cluster.post(&leader, "/api/v1/propose", json!({ "command": "Noop" })).await;
        assert_eq!(proposed, (503, refused.clone()));
        assert_eq!(cluster.get(&leader, "/health").await, (503, refused.clone()));
    }
    let proposed = cluster.post(&leader, "/api/v1/propose", json!({ "command": "Noop" })).await;
    assert_eq!((proposed.0, &proposed.1["response"]), (200, &json!("Success")));
    order(&cluster, &leader, json!({ "clear": true, "refuse": "ListTopics", "times": 1 })).await;
    assert_eq!(cluster.get(&leader, "/health").await.0, 200);
    let said = cluster.links.ask(&leader, Request::ListTopics).await.unwrap_err();
    assert_eq!(said, "UNAVAILABLE: refused on demand");
    assert!(matches!(cluster.links.ask(&leader, Request::ListTopics).await, Ok(Response::Topics { .. })));
}

/// The broker leads all there is to lead. Others take over what they can, and it comes back with what it acknowledged.
#[tokio::test(start_paused = true)]
async fn a_full_disk_acknowledges_nothing_and_loses_nothing() {
    let mut cluster = formed().await;
    let full = cluster.leader().await;
    let others: Vec<&str> = ALL.iter().copied().filter(|name| *name != full).collect();
    cluster.propose(topic("t", 2, &[&[&full, others[0], others[1]], &[others[0], &full, others[1]]])).await;
    let loads = [Load::start(&cluster.links, "t", 0), Load::start(&cluster.links, "t", 1)];
    for load in &loads {
        load.progress().await;
    }
    order(&cluster, &full, json!({ "disk_full": true })).await;
    let create = Request::CreateTopic { name: "u".to_owned(), partitions: None };
    for request in [publishing("t", 0, b"no"), create.clone()] {
        assert_eq!(cluster.links.ask(&full, request).await.unwrap_err(), FULL);
    }
    let proposed = cluster.post(&full, "/api/v1/propose", json!({ "command": "Noop" })).await;
    assert_eq!(proposed, (500, json!({ "error": FULL, "code": 500 })));
    // Without it the others agree, and what it follows is written on.
    eventually("written by the others", async || cluster.links.ask(others[0], create.clone()).await.ok()).await;
    loads[1].progress().await;
    let stuck = loads[0].count();
    loads[1].progress().await;
    assert_eq!(loads[0].count(), stuck);

    order(&cluster, &full, json!({ "disk_full": false })).await;
    for load in &loads {
        load.progress().await;
    }
    cluster.leader().await;
    in_sync(&cluster, others[0], ALL).await;

    // A full disk does not keep it from ending, and what it had acknowledged is on it.
    order(&cluster, &full, json!({ "disk_full": true })).await;
    cluster.stop(&full).await;
    for load in &loads {
        load.progress().await;
    }
    for other in &others {
        cluster.kill(other).await;
    }
    for name in ALL {
        cluster.start(name).await;
    }
    cluster.all_ready().await;
    for (load, partition) in loads.into_iter().zip(0..) {
        load.progress().await;
        let acknowledged = load.stop();
        assert_eq!(missing(&acknowledged, &cluster.links.read_all("t", partition).await), 0);
    }
}
