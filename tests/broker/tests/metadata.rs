//! Membership and metadata: what Raft is for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use serde_json::{Value, json};
use support::{Cluster, eventually, http, member, topic};

async fn topics(cluster: &Cluster, name: &str) -> Value {
    cluster.get(name, "/api/v1/metadata").await.1["topics"].clone()
}

#[tokio::test(start_paused = true)]
async fn three_brokers_form_by_one_bootstrap_and_refuse_a_second() {
    let mut cluster = Cluster::new();
    for name in ["b0", "b1", "b2"] {
        cluster.start(name).await;
        let (status, health) = cluster.get(name, "/health").await;
        assert_eq!((status, &health["status"]), (503, &json!("degraded")));
        assert_eq!(cluster.get(name, "/health/live").await.0, 200);
        assert_eq!(cluster.get(name, "/health/ready").await.0, 503);
    }
    assert_eq!(cluster.bootstrap("b1").await.0, 200);
    cluster.all_ready().await;
    let leader = cluster.leader().await;
    let memberships = cluster.get("b0", "/membership").await;
    for name in ["b0", "b1", "b2"] {
        assert_eq!(cluster.get(name, "/membership").await, memberships);
        assert_eq!(cluster.bootstrap(name).await.0, 500);
        let status = cluster.get(name, "/api/v1/metadata/linearizable").await.0;
        assert_eq!(status, if name == leader { 200 } else { 503 });
    }
    assert_eq!(cluster.leader().await, leader);
    assert_eq!(cluster.get("b2", "/membership").await, memberships);
}

#[tokio::test(start_paused = true)]
async fn the_administration_wants_the_token() {
    let cluster = Cluster::formed(1, |_| {}).await;
    let at = cluster.addresses("b0").api;
    for token in [None, Some("tokem"), Some("toke"), Some("")] {
        assert_eq!(http(at, "GET", "/membership", token, None).await.0, 401);
        assert_eq!(http(at, "POST", "/raft/vote", token, Some(json!({}))).await.0, 401);
    }
    let (status, metrics) = http(at, "GET", "/metrics", None, None).await;
    assert_eq!(status, 200);
    assert!(metrics.as_str().unwrap().contains("rivven_info{version=\"0.1.0\",node_id_str=\"b0\"} 1"), "{metrics}");
    assert!(metrics.as_str().unwrap().contains("\nrivven_raft_cluster_voters 1\n"), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn what_was_agreed_on_survives_that_all_are_killed() {
    let mut cluster = Cluster::formed(3, |_| {}).await;
    let created = cluster.propose(topic("kept", 1, &[&["b0", "b1", "b2"]])).await;
    assert_eq!(created, json!({ "TopicCreated": { "name": "kept", "partitions": 1 } }));
    for name in cluster.names() {
        cluster.kill(&name).await;
    }
    for name in ["b0", "b1", "b2"] {
        cluster.start(name).await;
    }
    cluster.all_ready().await;
    for name in cluster.names() {
        assert_eq!(topics(&cluster, &name).await, json!(["kept"]));
    }
    let again = cluster.propose(topic("kept", 1, &[&["b0"]])).await;
    assert_eq!(again, json!({ "Error": { "message": "Topic kept already exists" } }));
}

#[tokio::test(start_paused = true)]
async fn without_the_leader_another_one_leads() {
    let mut cluster = Cluster::formed(3, |_| {}).await;
    let first = cluster.leader().await;
    cluster.propose(topic("before", 1, &[&["b0", "b1"]])).await;
    cluster.kill(&first).await;
    let second = cluster.leader().await;
    assert_ne!(first, second);
    cluster.propose(topic("after", 1, &[&["b0", "b1"]])).await;
    cluster.start(&first).await;
    cluster.all_ready().await;
    assert_eq!(topics(&cluster, &first).await, json!(["after", "before"]));
}

#[tokio::test(start_paused = true)]
async fn without_a_quorum_nothing_is_agreed_on() {
    let mut cluster = Cluster::formed(3, |_| {}).await;
    let leader = cluster.leader().await;
    for name in cluster.names() {
        if name != leader {
            cluster.kill(&name).await;
        }
    }
    assert_eq!(cluster.get(&leader, "/api/v1/metadata/linearizable").await.0, 503);
    let proposal = cluster.post(&leader, "/api/v1/propose", json!({ "command": topic("t", 1, &[&[&leader]]) }));
    assert!(tokio::time::timeout(std::time::Duration::from_secs(10), proposal).await.is_err());
    assert_eq!(topics(&cluster, &leader).await, json!([]));
}

#[tokio::test(start_paused = true)]
async fn a_broker_joins_and_leaves() {
    let mut cluster = Cluster::formed(3, |_| {}).await;
    cluster.propose(topic("t", 1, &[&["b0", "b1"]])).await;
    cluster.start("b3").await;
    let leader = eventually("a leader", async || {
        for name in ["b0", "b1", "b2"] {
            if cluster.get(name, "/health").await.1["is_leader"] == true {
                return Some(name.to_owned());
            }
        }
        None
    })
    .await;
    let follower = ["b0", "b1", "b2"].into_iter().find(|name| *name != leader).unwrap();
    let (status, body) = cluster.post(follower, "/api/v1/add-learner", member("b3")).await;
    assert_eq!((status, body), (307, json!({ "error": "Not leader", "code": 307 })));

    let unknown = json!({ "voters": ["b0", "b1", "b2", "b3"] });
    assert_eq!(cluster.post(&leader, "/api/v1/change-membership", unknown.clone()).await.0, 500);
    let (status, body) = cluster.post(&leader, "/api/v1/add-learner", member("b3")).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(cluster.get("b3", "/health/ready").await.0, 503);
    assert_eq!(cluster.post(&leader, "/api/v1/change-membership", unknown).await.0, 200);
    cluster.all_ready().await;
    assert_eq!(topics(&cluster, "b3").await, json!(["t"]));
    for name in cluster.names() {
        eventually("four voters", async || (cluster.voters(&name).await == 4).then_some(())).await;
    }

    let left = json!({ "voters": ["b0", "b1", "b2"] });
    assert_eq!(cluster.post(&leader, "/api/v1/change-membership", left).await.0, 200);
    let (_, membership) = cluster.get(&leader, "/membership").await;
    assert_eq!(membership["nodes"].as_array().unwrap().len(), 3);
    // It is not told, but it notices, and does not disturb the others.
    eventually("degraded", async || (cluster.get("b3", "/health").await.0 == 503).then_some(())).await;
    tokio::time::sleep(std::time::Duration::from_secs(30)).await;
    assert_eq!(cluster.get("b3", "/health/ready").await.0, 503);
    cluster.stop("b3").await;
    assert_eq!(cluster.leader().await, leader);
}

#[tokio::test(start_paused = true)]
async fn who_joins_late_gets_a_snapshot() {
    let mut cluster = Cluster::formed(1, |_| {}).await;
    cluster.propose(topic("old", 1, &[&["b0"]])).await;
    for _ in 0..1200 {
        assert_eq!(cluster.propose(json!("Noop")).await, "Success");
    }
    cluster.start("b1").await;
    let (status, body) = cluster.post("b0", "/api/v1/add-learner", member("b1")).await;
    assert_eq!(status, 200, "{body}");
    let voters = json!({ "voters": ["b0", "b1"] });
    assert_eq!(cluster.post("b0", "/api/v1/change-membership", voters).await.0, 200);
    cluster.all_ready().await;
    assert_eq!(topics(&cluster, "b1").await, json!(["old"]));
    for name in ["b0", "b1"] {
        cluster.kill(name).await;
    }
    for name in ["b0", "b1"] {
        cluster.start(name).await;
    }
    cluster.all_ready().await;
    assert_eq!(topics(&cluster, "b1").await, json!(["old"]));
}

#[tokio::test(start_paused = true)]
async fn leadership_is_transferred() {
    for size in [2, 3, 5] {
        let cluster = Cluster::formed(size, |_| {}).await;
        let first = cluster.leader().await;
        let target = cluster.names().into_iter().find(|name| *name != first).unwrap();
        let request = json!({ "target_node_id": target });
        assert_eq!(cluster.post(&target, "/api/v1/transfer-leadership", request.clone()).await.0, 400);
        let (status, body) = cluster.post(&first, "/api/v1/transfer-leadership", request).await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(cluster.leader().await, target, "of {size}");
    }
}
