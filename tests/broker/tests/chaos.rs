//! Whatever happens to processes and links, as long as disks last: no acknowledged record is lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::time::Duration;

use serde_json::json;
use support::wire::{Load, missing};
use support::{CLUSTER, Cluster, eventually, topic};

const ALL: &[&str] = &["b0", "b1", "b2"];

/// Numbers that a seed gives.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn broker(&mut self) -> &'static str {
        ALL[usize::try_from(self.roll(3)).unwrap()]
    }
}

async fn disturb(cluster: &mut Cluster, dice: &mut Dice, epoch: u64) {
    let (one, other) = (dice.broker(), dice.broker());
    let runs = cluster.names().iter().any(|name| name == one);
    match dice.roll(8) {
        0 | 1 if runs => cluster.kill(one).await,
        2 if runs => cluster.stop(one).await,
        0..=2 => cluster.start(one).await,
        3 => cluster.links.part(one, other),
        4 => cluster.links.cut(one, other, CLUSTER),
        5 => ALL.iter().for_each(|name| cluster.links.part(one, name)),
        6 => cluster.links.heal(),
        _ => {
            let partition = json!({ "topic": "t", "partition": 0 });
            let command = json!({ "UpdatePartitionLeader": { "partition": partition, "leader": one, "epoch": epoch } });
            for name in cluster.names() {
                let propose = cluster.post(&name, "/api/v1/propose", json!({ "command": command }));
                drop(tokio::time::timeout(Duration::from_secs(1), propose).await);
            }
        }
    }
}

async fn survives(seed: u64) {
    let mut dice = Dice(seed);
    let mut cluster = Cluster::formed(3, |_| {}).await;
    cluster.propose(topic("t", 2, &[ALL])).await;
    // More than one, so that a leader that goes leaves records behind that were not acknowledged.
    let loads = ["x", "y", "z"].map(|mark| Load::marked(&cluster.links, "t", 0, mark));
    loads[0].progress().await;
    for step in 1..=25 {
        disturb(&mut cluster, &mut dice, step * 1000).await;
        tokio::time::sleep(Duration::from_millis(dice.roll(2500))).await;
    }
    cluster.links.heal();
    for name in ALL {
        if !cluster.names().iter().any(|running| running == name) {
            cluster.start(name).await;
        }
    }
    loads[0].progress().await;
    let all_in_sync = async || {
        let partition = cluster.links.partition("b0", "t", 0).await?;
        (partition.isr.len() == 3).then_some(())
    };
    eventually("all in sync", all_in_sync).await;
    let acknowledged: Vec<_> = loads.into_iter().flat_map(Load::stop).collect();
    let last = acknowledged.iter().map(|(offset, _)| *offset).max().unwrap();
    // Every replica in turn shows what it holds. The controller may still take one for gone that was cut off.
    let mut epoch = 1_000_000;
    for name in ALL {
        let whole = async || {
            epoch += 10;
            let partition = json!({ "topic": "t", "partition": 0 });
            let led = json!({ "UpdatePartitionLeader": { "partition": partition, "leader": name, "epoch": epoch } });
            cluster.propose(led).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            cluster.links.read_from(name, "t", 0).await.filter(|read| read.len() as u64 > last)
        };
        let read = eventually("all records", whole).await;
        assert_eq!(missing(&acknowledged, &read), 0, "seed {seed}, {name}, of {}", acknowledged.len());
    }
}

/// `BROKER_CHAOS_SEEDS=from..to` tries others than these.
#[tokio::test(start_paused = true)]
async fn no_acknowledged_record_is_lost() {
    let seeds = std::env::var("BROKER_CHAOS_SEEDS").unwrap_or_else(|_| "0..3".to_owned());
    let (from, to) = seeds.split_once("..").unwrap();
    for seed in from.parse::<u64>().unwrap()..to.parse().unwrap() {
        survives(seed).await;
    }
}
