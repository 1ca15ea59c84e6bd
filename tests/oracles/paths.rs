//! Oracle 11: how a cluster came to its spec makes no difference to how it ends.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::broker::Fleet;
use crate::support::cluster::Clustered;
use crate::support::play::{CLUSTERED, Stocked, but_for_restarts, differ_nowhere};
use crate::support::{World, change, cluster, ready, topic};

/// Specs, and what is refused: each says all that any of them changes.
fn specs() -> [(&'static str, Value); 6] {
    let spec = |level: &str, env: Value, grace: u32, image: &str, version: &str| {
        json!({
            "config": { "logLevel": level }, "env": env, "terminationGracePeriodSeconds": grace, "image": image,
            "version": version,
        })
    };
    let (none, one) = (json!([]), json!([{ "name": "TZ", "value": "UTC" }]));
    let image = "ghcr.io/hupe1980/rivven";
    [
        ("as it was", spec("info", none.clone(), 60, image, "0.0.22")),
        ("a log level", spec("debug", none.clone(), 60, image, "0.0.22")),
        ("a variable", spec("info", one.clone(), 60, image, "0.0.22")),
        ("grace and a variable", spec("info", one, 90, image, "0.0.22")),
        ("an image", spec("info", none.clone(), 60, "registry.example/rivven", "0.0.22")),
        ("refused", spec("info", none, 60, image, "0.0.1")),
    ]
}

async fn along(path: &[&Value]) -> BTreeMap<String, Value> {
    let mut world = World::<Fleet>::new(1);
    world.start(|_| {});
    world.sim.apply(cluster(&json!({ "replicas": 1, "version": "0.0.22" })));
    ready(&world, 1).await.unwrap();
    // The spec that was proven is noted with the first rollout.
    let first = specs();
    for spec in [&first[1].1, &first[0].1].iter().chain(path) {
        change(&world, spec);
        ready(&world, 1).await.unwrap();
    }
    but_for_restarts(world.end())
}

#[tokio::test(start_paused = true)]
async fn what_was_between_is_forgotten() {
    let (specs, mut plans) = (specs(), 0);
    // What is refused leaves in force what was before: it is on the way, and no end.
    for (to, last) in specs.iter().filter(|(to, _)| *to != "refused") {
        let straight = along(&[last]).await;
        for (by, between) in specs.iter().filter(|(by, _)| by != to) {
            differ_nowhere(&straight, &along(&[between, last]).await, &format!("by {by:?} to {to:?}"));
            plans += 1;
        }
    }
    println!("a released broker, oracle 11: plans: {plans}");
}

#[tokio::test(start_paused = true)]
async fn a_rollout_and_growth_in_either_order_or_at_once() {
    let (rollout, growth) = (&CLUSTERED[0], &CLUSTERED[3]);
    let mut ends = Vec::new();
    for order in [[rollout, growth], [growth, rollout]] {
        for at_once in [false, true] {
            let (world, _) = rollout.before::<Clustered>(1).await.unwrap();
            for operation in order {
                operation.act(&world);
                if !at_once {
                    operation.done(&world).await.unwrap();
                }
            }
            growth.done(&world).await.unwrap();
            assert_eq!(Clustered::missing(&world).await, 0);
            ends.push(but_for_restarts(world.end()));
        }
    }
    for other in &ends[1..] {
        differ_nowhere(&ends[0], other, "rollout and growth");
    }
    println!("rollout and storage, oracle 11: plans: {}", ends.len());
}

#[tokio::test(start_paused = true)]
async fn objects_may_be_applied_in_any_order() {
    let objects = [
        cluster(&json!({ "replicas": 1, "version": "0.0.22" })),
        topic("orders", &json!({ "clusterRef": { "name": "x" }, "partitions": 3 })),
        topic("clicks", &json!({ "clusterRef": { "name": "x" }, "partitions": 1 })),
    ];
    let mut ends = Vec::new();
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for pause in [0, 3] {
            let mut world = World::<Fleet>::new(1);
            world.start(|_| {});
            for index in order {
                world.sim.apply(objects[index].clone());
                for _ in 0..pause {
                    world.sim.step();
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                }
            }
            ready(&world, 1).await.unwrap();
            for name in ["orders", "clicks"] {
                assert_eq!(world.phase("rivventopics.rivven.io", name), "Ready", "{order:?}");
            }
            ends.push(world.end());
        }
    }
    for other in &ends[1..] {
        differ_nowhere(&ends[0], other, "objects in another order");
    }
    println!("objects in any order, oracle 11: plans: {}", ends.len());
}
