//! Oracle 16: topic, connect, cluster, their namespace and the definition of clusters are deleted in every order, with
//! the broker up or down: nothing hangs.

use std::time::Duration;

use rivven_sim::Sim;
use serde_json::{Value, json};

use crate::support::broker::Fleet;
use crate::support::{World, cluster, topic};

const HOME: &str = "here";
/// Resource, namespace, name.
const THINGS: [(&str, &str, &str); 5] = [
    ("rivventopics.rivven.io", HOME, "orders"),
    ("rivvenconnects.rivven.io", HOME, "pipe"),
    ("rivvenclusters.rivven.io", HOME, "x"),
    ("namespaces", "", HOME),
    ("customresourcedefinitions.apiextensions.k8s.io", "", "rivvenclusters.rivven.io"),
];
/// Of the orders, with the broker up and down, by turns at once and some seconds apart, each so manieth is played.
const STRIDE: usize = 13;

fn at_home(mut object: Value) -> Value {
    object["metadata"]["namespace"] = json!(HOME);
    object
}

async fn serving(seed: u64) -> World<Fleet> {
    let mut world = World::<Fleet>::new(seed);
    world.start(|_| {});
    world.sim.apply(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": HOME } }));
    let spec = json!({ "replicas": 1, "version": "0.0.22", "storage": { "reclaimPolicy": "Delete" } });
    world.sim.apply(at_home(cluster(&spec)));
    let spec = json!({ "clusterRef": { "name": "x" }, "partitions": 1, "deleteOnRemove": true });
    world.sim.apply(at_home(topic("orders", &spec)));
    world.sim.apply(json!({
        "apiVersion": "rivven.io/v1alpha1", "kind": "RivvenConnect", "metadata": { "name": "pipe", "namespace": HOME },
        "spec": { "clusterRef": { "name": "x" } },
    }));
    world.settle().await.unwrap();
    let topic = world.sim.get("rivventopics.rivven.io", HOME, "orders").unwrap();
    assert_eq!(topic["status"]["phase"], "Ready", "{topic:#}");
    world
}

/// Without their definition there are no clusters.
fn is_there(sim: &Sim, (resource, home, name): &(&str, &str, &str)) -> bool {
    let defined = |of: &str| sim.get(THINGS[4].0, "", of).is_some();
    (*resource != THINGS[2].0 || defined(THINGS[4].2)) && sim.get(resource, home, name).is_some()
}

fn left(sim: &Sim) -> Vec<String> {
    let things = THINGS.iter().filter(|thing| is_there(sim, thing));
    let things = things.map(|(resource, ..)| (*resource).to_owned());
    let inside = ["pods", "persistentvolumeclaims", "statefulsets.apps", "configmaps", "secrets"];
    things.chain(inside.iter().flat_map(|r| sim.list(r)).map(|object| object["metadata"]["name"].to_string())).collect()
}

fn orders() -> Vec<Vec<usize>> {
    let mut orders = vec![Vec::new()];
    for _ in 0..THINGS.len() {
        let longer = |order: &Vec<usize>| -> Vec<Vec<usize>> {
            let next = (0..THINGS.len()).filter(|thing| !order.contains(thing));
            next.map(|thing| [&order[..], &[thing]].concat()).collect()
        };
        orders = orders.iter().flat_map(longer).collect();
    }
    orders
}

#[tokio::test(start_paused = true)]
async fn everything_goes_whatever_goes_first() {
    let all: Vec<(Vec<usize>, bool)> = orders().into_iter().flat_map(|o| [(o.clone(), false), (o, true)]).collect();
    let (total, mut plans, mut longest) = (all.len(), 0, 0);
    for (index, (order, down)) in all.into_iter().enumerate().step_by(STRIDE) {
        let pause = (index / STRIDE) % 3 * 4;
        let what = format!("{order:?}, broker down: {down}, {pause} s apart");
        let world = serving(1).await;
        world.fleet.down(down);
        for thing in order {
            let (resource, home, name) = THINGS[thing];
            if is_there(&world.sim, &THINGS[thing]) {
                world.sim.delete(resource, home, name, &json!({})).unwrap();
            }
            for _ in 0..pause {
                world.sim.step();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        let mut seconds = 0;
        while !left(&world.sim).is_empty() {
            assert!(seconds < 900, "{what}: still there after {seconds} s: {:?}", left(&world.sim));
            world.sim.step();
            tokio::time::sleep(Duration::from_secs(1)).await;
            seconds += 1;
        }
        longest = longest.max(seconds);
        plans += 1;
    }
    println!("deletion, oracle 16: plans: {plans} of {total}, longest: {longest} s");
}
