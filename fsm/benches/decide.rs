//! How long one decision takes. The aims: under 50 µs for a cluster of 50 brokers and 5 000 partitions, and at most 12
//! times as long as with 500 partitions.
#![allow(missing_docs, reason = "criterion_group makes an undocumented function")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::hint::black_box;

use common::{State, cluster, now, partition};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rivven_fsm::cluster::{Partitions, decide};
use rivven_fsm::topic;

fn clusters(c: &mut Criterion) {
    let mut group = c.benchmark_group("cluster decide");
    for brokers in [5, 50] {
        let well = vec![State::Well; brokers];
        let mut outdated = vec![State::OutdatedWell; brokers];
        let mut starting = vec![State::Starting; brokers];
        outdated[0] = State::Well;
        starting[0] = State::CrashLoop;
        for (name, states) in [("ready", well), ("rolling", outdated), ("starting", starting)] {
            let observed = cluster(&states);
            group.bench_function(BenchmarkId::new(name, brokers), |b| {
                b.iter(|| decide(black_box(&observed), now()));
            });
        }
    }
    group.finish();
}

/// Each partition on three brokers, all in sync.
fn partitions(brokers: u32, count: u32) -> Partitions {
    let of = |id: u32| {
        let replicas = [id % brokers, (id + 1) % brokers, (id + 2) % brokers];
        partition(id, &replicas, &replicas, 2)
    };
    Partitions::Known((0..count).map(of).collect::<Vec<_>>().into())
}

fn partitioned(c: &mut Criterion) {
    let mut group = c.benchmark_group("cluster of 50 decide");
    let mut rolling = vec![State::OutdatedWell; 50];
    rolling[0] = State::Well;
    for (name, states) in [("ready", vec![State::Well; 50]), ("rolling", rolling)] {
        for count in [500, 5_000] {
            let mut observed = cluster(&states);
            observed.partitions = partitions(50, count);
            group.bench_function(BenchmarkId::new(name, format!("{count} partitions")), |b| {
                b.iter(|| decide(black_box(&observed), now()));
            });
        }
    }
    group.finish();
}

fn topics(c: &mut Criterion) {
    let config: BTreeMap<String, String> = (0..10).map(|n| (format!("key.{n}"), n.to_string())).collect();
    let mut observed = topic::Observation {
        recorded: Some(rivven_fsm::Phase::Ready),
        deletion: None,
        finalizer: true,
        wish: topic::Wish {
            topic: "t".to_owned(),
            partitions: 3,
            replication: 1,
            config: config.clone(),
            acls: false,
            problems: Vec::new(),
        },
        cluster: topic::Cluster::Ready { uid: "here".to_owned(), replicates: false, brokers: 3, acls: false },
        mark: Some("here".to_owned()),
        adopt: false,
        older: None,
        seen: topic::Seen::Present { partitions: 3, replication: None, config },
    };
    c.bench_function("topic decide/ready", |b| b.iter(|| topic::decide(black_box(&observed), now())));
    observed.seen = topic::Seen::Present { partitions: 3, replication: None, config: BTreeMap::new() };
    c.bench_function("topic decide/altering", |b| b.iter(|| topic::decide(black_box(&observed), now())));
}

criterion_group!(benches, clusters, partitioned, topics);
criterion_main!(benches);
