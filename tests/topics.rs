//! Topics on a released broker, in the model: listed once for all, or asked for one by one where nothing lists them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::time::Duration;

use rivven_sim::Sim;
use serde_json::{Value, json};
use support::broker::{Fleet, Topic, defaults};
use support::{World, cluster, topic};

const TOPICS: &str = "rivventopics.rivven.io";

fn status(sim: &Sim, name: &str) -> Value {
    sim.get(TOPICS, "default", name).unwrap()["status"].clone()
}

/// Topics are made, read back, and brought back to what is wanted when somebody changes them.
async fn made_and_kept(world: &mut World<Fleet>) {
    world.start(|_| {});
    world.sim.apply(cluster(&json!({ "replicas": 1, "version": "0.0.22" })));
    for name in ["a", "b", "c"] {
        world.sim.apply(topic(name, &json!({ "clusterRef": { "name": "x" }, "partitions": 2 })));
    }
    world.settle().await.unwrap();
    for name in ["a", "b", "c"] {
        let status = status(&world.sim, name);
        assert_eq!((&status["phase"], &status["partitions"]), (&json!("Ready"), &json!(2)), "{status:#}");
        assert_eq!(status["replicationFactor"], 1, "what the dashboard says of it is a setting");
    }
    let writes = world.fleet.writes();
    assert_eq!(writes.iter().filter(|write| write.starts_with("create")).count(), 3, "{writes:?}");

    // Somebody resets a configuration behind the operator's back.
    world.fleet.put("data-rivven-x-0", "b", Topic { partitions: 2, config: defaults() });
    tokio::time::sleep(Duration::from_mins(1)).await;
    world.settle().await.unwrap();
    let altered = world.fleet.writes().split_off(writes.len());
    assert_eq!(altered, ["alter b"], "that one, once");
    assert_eq!(status(&world.sim, "b")["phase"], "Ready");
}

#[tokio::test(start_paused = true)]
async fn they_are_made_and_kept_by_what_the_broker_lists() {
    made_and_kept(&mut World::<Fleet>::new(1)).await;
}

#[tokio::test(start_paused = true)]
async fn they_are_made_and_kept_where_nothing_lists_them() {
    let mut world = World::<Fleet>::new(1);
    world.fleet.close_dashboard();
    made_and_kept(&mut world).await;
}
