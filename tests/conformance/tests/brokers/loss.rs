//! With too few replicas a lost disk costs acknowledged records, and the load generator finds that.

use std::path::Path;
use std::time::Duration;

use rivven_conformance::cluster::{Cluster, in_sync};
use rivven_conformance::load::{Options, Report, run};
use rivven_conformance::process::Node;
use rivven_conformance::wait::until;

const A: &str = "member-0";
const B: &str = "member-1";
const C: &str = "member-2";

async fn cluster() -> Cluster {
    Cluster::formed(Path::new(env!("CARGO_BIN_EXE_test-broker"))).await.unwrap()
}

/// What a load finds that runs meanwhile.
async fn under_load(on: &mut Cluster, topic: &str, seconds: u64, disrupt: impl AsyncFnOnce(&mut Cluster)) -> Report {
    let mut options = Options::new(on.nodes.iter().map(Node::address).collect(), topic, 3);
    options.duration = Duration::from_secs(seconds);
    options.patience = Duration::from_secs(5);
    options.limit = Duration::from_secs(1);
    let (report, ()) = futures::join!(run(&options), disrupt(on));
    report.unwrap()
}

/// Waits until there are more records in the first partition.
async fn flows(on: &Cluster, topic: &str) {
    let count = async || Ok(on.read(topic, 0).await?.len());
    let before = until("a first look", Duration::from_secs(10), count).await.unwrap();
    until("records flow", Duration::from_secs(10), async || {
        let now = count().await?;
        anyhow::ensure!(now > before + 10, "{before}, then {now}");
        Ok(())
    })
    .await
    .unwrap();
}

/// What was acknowledged in the first partition, and nothing else.
fn first_partition_is_lost(report: &Report) {
    assert!(report.lost > 10, "{report:?}");
    assert!(report.lost_examples.iter().all(|example| example.starts_with("0 ")), "{report:?}");
    assert!(report.unreadable.keys().eq(&[0]), "nobody leads with an empty disk: {report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_held_the_only_replica_is_found_out() {
    let mut on = cluster().await;
    on.topic("alone", 1, &[&[A], &[B], &[C]]).await.unwrap();
    let report = under_load(&mut on, "alone", 5, async |on| {
        flows(on, "alone").await;
        let leader = on.node(A).unwrap();
        leader.kill().await.unwrap();
        leader.wipe().await.unwrap();
        leader.start().await.unwrap();
    })
    .await;
    first_partition_is_lost(&report);
}

/// `min.insync.replicas` 1: the leader goes on alone, and so do the records it takes then.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_held_the_only_replica_in_sync_is_found_out() {
    let mut on = cluster().await;
    on.topic("lonely", 1, &[&[A, B], &[B, C], &[C, A]]).await.unwrap();
    let report = under_load(&mut on, "lonely", 10, async |on| {
        flows(on, "lonely").await;
        on.node(B).unwrap().kill().await.unwrap();
        on.shows("lonely", 0, "led alone", |p| in_sync(p, &[A])).await.unwrap();
        flows(on, "lonely").await;
        let leader = on.node(A).unwrap();
        leader.kill().await.unwrap();
        leader.wipe().await.unwrap();
        // First, so that it votes for the one that knows all: with the other one it would be a majority that forgot.
        leader.start().await.unwrap();
        on.leader().await.unwrap();
        on.ready().await.unwrap();
    })
    .await;
    first_partition_is_lost(&report);
}
