//! With enough replicas no kill costs an acknowledged record, and writing goes on soon. Alone, for it takes the time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use rivven_conformance::cluster::{Cluster, in_sync};
use rivven_conformance::load::{Options, run, verify_file};
use rivven_conformance::process::Node;
use rivven_conformance::wait::until;

const ALL: [&str; 3] = ["member-0", "member-1", "member-2"];

/// How long a partition may be silent when its leader is lost.
const FAILOVER: Duration = Duration::from_secs(3);

async fn all_in_sync(on: &Cluster) {
    for partition in 0..3 {
        on.shows("kept", partition, "in sync", |p| p.leader.is_some() && in_sync(p, &ALL)).await.unwrap();
    }
}

/// Kills a broker when records flow, and starts it again when somebody else has what it led.
async fn disrupt(on: &mut Cluster, victim: &str, acks: &Path) {
    until("records flow", Duration::from_secs(20), async || {
        let written = tokio::fs::metadata(acks).await?.len();
        anyhow::ensure!(written > 1000, "{written} bytes of acknowledgements");
        Ok(())
    })
    .await
    .unwrap();
    on.node(victim).unwrap().kill().await.unwrap();
    for partition in 0..3 {
        let elsewhere = |leader: &String| leader != victim;
        on.shows("kept", partition, "led by another", |p| p.leader.as_ref().is_some_and(elsewhere)).await.unwrap();
    }
    on.ready().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_of_which_two_must_have_it_lose_nothing() {
    let mut on = Cluster::formed(Path::new(env!("CARGO_BIN_EXE_test-broker"))).await.unwrap();
    let [a, b, c] = ALL;
    on.topic("kept", 2, &[&[a, b, c], &[b, c, a], &[c, a, b]]).await.unwrap();
    let acks = tempfile::tempdir().unwrap();
    let mut options = Options::new(on.nodes.iter().map(Node::address).collect(), "kept", 3);
    options.duration = Duration::from_secs(8);
    options.limit = Duration::from_secs(1);
    let mut silences = Vec::new();
    for victim in ALL {
        let file = acks.path().join(victim);
        options.acks_file = Some(file.clone());
        let led_raft = on.leader().await.unwrap().id == victim;
        let (report, ()) = futures::join!(run(&options), disrupt(&mut on, victim, &file));
        let report = report.unwrap();
        assert_eq!((report.lost, report.moved, report.out_of_order), (0, 0, 0), "{victim}: {report:?}");
        assert!(report.retries.retries > 0, "{victim}: the load noticed nothing: {report:?}");
        let silent = report.gaps.unwrap().partition_ms;
        let also = if led_raft { ", which led Raft," } else { "" };
        let shown = format!("\n{victim}{also} killed: {silent} ms until the last partition was written to again\n");
        std::io::stdout().write_all(shown.as_bytes()).unwrap();
        silences.push(silent);
        all_in_sync(&on).await;
    }
    // Most of them: one of the three may meet a machine that is busy with something else.
    silences.sort_unstable();
    assert!(silences[1] <= FAILOVER.as_millis() && silences[2] <= 2 * FAILOVER.as_millis(), "{silences:?} ms");
    // Also what was acknowledged before the later ones were killed.
    for victim in ALL {
        let report = verify_file(&options, &acks.path().join(victim)).await.unwrap();
        assert!(report.acknowledged > 500 && report.lost == 0, "{victim}: {report:?}");
    }
}
