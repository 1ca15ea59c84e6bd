//! What replication promises, and what it does not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::time::Duration;

use rivven_protocol::PartitionMetadata;
use serde_json::json;
use support::wire::{Load, missing, publishing};
use support::{CLUSTER, Cluster, eventually, topic};

const ALL: &[&str] = &["b0", "b1", "b2"];

/// Waits until a running broker tells of a partition as wanted.
async fn told(cluster: &Cluster, by: &str, what: &str, wanted: impl Fn(&PartitionMetadata) -> bool) {
    let ask = async || cluster.links.partition(by, "t", 0).await.filter(&wanted).map(drop);
    eventually(what, ask).await;
}

#[tokio::test(start_paused = true)]
async fn a_killed_broker_costs_no_acknowledged_record() {
    let mut cluster = Cluster::formed(3, |_| {}).await;
    cluster.propose(topic("t", 2, &[ALL, &["b1", "b2", "b0"]])).await;
    let loads = [Load::start(&cluster.links, "t", 0), Load::start(&cluster.links, "t", 1)];
    for victim in ALL {
        for load in &loads {
            load.progress().await;
        }
        cluster.kill(victim).await;
        for load in &loads {
            load.progress().await;
        }
        cluster.start(victim).await;
        told(&cluster, victim, "all in sync", |partition| partition.isr.len() == 3).await;
    }
    for (load, partition) in loads.into_iter().zip(0..) {
        let acknowledged = load.stop();
        let read = cluster.links.read_all("t", partition).await;
        assert!(acknowledged.len() > 50, "{}", acknowledged.len());
        assert_eq!(missing(&acknowledged, &read), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn below_the_minimum_nothing_is_taken() {
    let mut cluster = Cluster::formed(3, |_| {}).await;
    cluster.propose(topic("t", 2, &[&["b0", "b1"]])).await;
    cluster.links.publish("t", 0, b"one").await.unwrap();
    cluster.kill("b1").await;
    told(&cluster, "b0", "one in sync", |partition| partition.isr == ["b0"]).await;
    let refused = cluster.links.publish("t", 0, b"two").await.unwrap_err();
    assert!(refused.starts_with("NOT_ENOUGH_REPLICAS: "), "{refused}");
    let wrong = cluster.links.ask("b2", publishing("t", 0, b"two")).await.unwrap_err();
    assert_eq!(wrong, "NOT_LEADER_FOR_PARTITION: Not leader for partition 0. Leader is node 'b0'");
    cluster.start("b1").await;
    told(&cluster, "b0", "two in sync", |partition| partition.isr.len() == 2).await;
    assert_eq!(cluster.links.publish("t", 0, b"two").await.unwrap(), 1);
    assert_eq!(cluster.links.read_all("t", 0).await.len(), 2);
}

/// The only in-sync replica is gone with its disk: what it alone had is lost, and nobody pretends otherwise.
#[tokio::test(start_paused = true)]
async fn a_minimum_of_one_loses_what_only_a_lost_disk_held() {
    let mut cluster = Cluster::formed(3, |_| {}).await;
    cluster.propose(topic("t", 1, &[&["b0", "b1"]])).await;
    cluster.links.publish("t", 0, b"on both").await.unwrap();
    cluster.links.cut("b1", "b0", CLUSTER);
    told(&cluster, "b2", "one in sync", |partition| partition.isr == ["b0"]).await;
    assert_eq!(cluster.links.publish("t", 0, b"on one").await.unwrap(), 1);
    cluster.kill("b0").await;
    told(&cluster, "b2", "offline", |partition| partition.offline).await;
    let kept = cluster.disk("kept");
    std::fs::rename(cluster.disk("b0"), &kept).unwrap();
    cluster.links.heal();
    cluster.start("b0").await;
    cluster.all_ready().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    for name in ALL {
        let partition = cluster.links.partition(name, "t", 0).await.unwrap();
        assert_eq!((partition.leader, partition.offline), (None, true));
        let refused = cluster.links.ask(name, publishing("t", 0, b"more")).await.unwrap_err();
        assert!(refused.starts_with("NOT_LEADER_FOR_PARTITION: "), "{refused}");
    }
    let unclean = json!({ "UpdatePartitionLeader": {
        "partition": { "topic": "t", "partition": 0 }, "leader": "b1", "epoch": 99,
    } });
    assert!(cluster.propose(unclean).await["Error"].is_object());

    // The disk is found again: nothing was lost after all.
    cluster.kill("b0").await;
    cluster.wipe("b0");
    std::fs::rename(&kept, cluster.disk("b0")).unwrap();
    cluster.start("b0").await;
    told(&cluster, "b2", "both in sync", |partition| partition.isr.len() == 2).await;
    assert_eq!(cluster.links.read_all("t", 0).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_broker_with_a_new_disk_is_in_sync_only_when_it_has_everything() {
    let mut cluster = Cluster::formed(3, |_| {}).await;
    cluster.propose(topic("t", 1, &[ALL])).await;
    for number in 0..50 {
        cluster.links.publish("t", 0, format!("{number}").as_bytes()).await.unwrap();
    }
    cluster.kill("b0").await;
    cluster.wipe("b0");
    // It cannot fetch, so it stays as empty as it is.
    cluster.links.cut("b0", "b1", CLUSTER);
    cluster.links.cut("b0", "b2", CLUSTER);
    cluster.start("b0").await;
    cluster.all_ready().await;
    told(&cluster, "b0", "not in sync", |partition| partition.isr == ["b1", "b2"]).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    told(&cluster, "b0", "not in sync", |partition| partition.isr == ["b1", "b2"]).await;
    cluster.links.heal();
    told(&cluster, "b0", "in sync", |partition| partition.isr.len() == 3).await;
    let lead = json!({ "UpdatePartitionLeader": {
        "partition": { "topic": "t", "partition": 0 }, "leader": "b0", "epoch": 99,
    } });
    assert!(cluster.propose(lead).await["PartitionLeaderUpdated"].is_object());
    told(&cluster, "b1", "led by it", |partition| partition.leader.as_deref() == Some("b0")).await;
    assert_eq!(cluster.links.read_all("t", 0).await.len(), 50);
}

/// For each broker in turn: the partition's leader is parted from the others, with clients that still reach it.
#[tokio::test(start_paused = true)]
async fn a_deposed_leader_acknowledges_nothing() {
    for victim in ALL {
        let cluster = Cluster::formed(3, |_| {}).await;
        let others: Vec<&str> = ALL.iter().copied().filter(|name| name != victim).collect();
        cluster.propose(topic("t", 1, &[&[victim, others[0], others[1]]])).await;
        told(&cluster, victim, "led", |partition| partition.leader.as_deref() == Some(victim)).await;
        assert_eq!(cluster.links.publish("t", 0, b"before").await.unwrap(), 0);
        for other in &others {
            cluster.links.part(victim, other);
        }
        let links = cluster.links.clone();
        let orphan = *victim;
        let stale = tokio::spawn(async move { links.ask(orphan, publishing("t", 0, b"stale")).await });
        told(&cluster, others[0], "led by another", |partition| {
            partition.leader.as_deref().is_some_and(|leader| leader != *victim)
        })
        .await;
        // The leader that the others see; the orphan still takes itself for it.
        let publish = async || {
            let leader = cluster.links.partition(others[0], "t", 0).await?.leader?;
            cluster.links.ask(&leader, publishing("t", 0, b"after")).await.ok()
        };
        eventually("a publish", publish).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(!stale.is_finished());
        cluster.links.heal();
        let refused = tokio::time::timeout(Duration::from_mins(1), stale).await.unwrap().unwrap().unwrap_err();
        assert!(refused.starts_with("NOT_LEADER_FOR_PARTITION: "), "{refused}");
        told(&cluster, victim, "all in sync", |partition| partition.isr.len() == 3).await;
        // What it took then is gone from its disk, too.
        let led = json!({ "UpdatePartitionLeader": {
            "partition": { "topic": "t", "partition": 0 }, "leader": victim, "epoch": 99,
        } });
        eventually("led by it", async || {
            let read = cluster.links.read_from(victim, "t", 0).await.filter(|read| read.len() > 1);
            if read.is_none() {
                cluster.propose(led.clone()).await;
            }
            let read = read?;
            let values: Vec<_> = read.iter().map(|message| message.value.as_ref()).collect();
            assert_eq!(values[0], b"before");
            assert!(values[1..].iter().all(|value| *value == b"after"), "{values:?}");
            Some(())
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn replicas_move_by_being_added_first() {
    let mut cluster = Cluster::formed(3, |_| {}).await;
    cluster.propose(topic("t", 2, &[&["b0", "b1"]])).await;
    let load = Load::start(&cluster.links, "t", 0);
    load.progress().await;
    let reassign = |replicas: &[&str]| json!({ "ReassignPartition": { "partition": { "topic": "t", "partition": 0 }, "replicas": replicas } });
    assert!(cluster.propose(reassign(&["b2"])).await["Error"].is_object());
    assert_eq!(cluster.propose(reassign(ALL)).await, "Success");
    told(&cluster, "b2", "three in sync", |partition| partition.isr.len() == 3).await;
    assert_eq!(cluster.propose(reassign(&["b1", "b2"])).await, "Success");
    told(&cluster, "b2", "moved", |partition| partition.isr == ["b1", "b2"] && partition.leader.is_some()).await;
    load.progress().await;
    let moved = json!({ "UpdatePartitionLeader": {
        "partition": { "topic": "t", "partition": 0 }, "leader": "b2", "epoch": 99,
    } });
    assert!(cluster.propose(moved.clone()).await["PartitionLeaderUpdated"].is_object());
    assert!(cluster.propose(moved).await["Error"].is_object());
    load.progress().await;
    cluster.kill("b0").await;
    load.progress().await;
    let acknowledged = load.stop();
    assert_eq!(missing(&acknowledged, &cluster.links.read_all("t", 0).await), 0);
}
