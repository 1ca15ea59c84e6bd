//! Clients from outside: Services and the Ingress come and go with the spec and the brokers, and nothing else is touched.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use rivven_sim::Verb;
use serde_json::{Value, json};
use support::broker::Fleet;
use support::cluster::Clustered;
use support::{Served, World, cluster};

const CLUSTERS: &str = "rivvenclusters.rivven.io";
const INGRESSES: &str = "ingresses.networking.k8s.io";

fn balanced() -> Value {
    json!({ "type": "LoadBalancer", "annotations": { "lb.example/internal": "true", "lb.example/pool": "a" } })
}

async fn serving<B: Served>(spec: &Value) -> World<B> {
    let mut world = World::<B>::new(1);
    world.start(|_| {});
    world.sim.apply(cluster(spec));
    world.settle().await.unwrap();
    assert_eq!(status(&world)["phase"], "Ready", "{:#}", status(&world));
    world
}

async fn change<B: Served>(world: &World<B>, spec: Value) {
    world.sim.apply(json!({
        "apiVersion": "rivven.io/v1alpha1", "kind": "RivvenCluster", "metadata": { "name": "x" }, "spec": spec,
    }));
    world.settle().await.unwrap();
}

fn status<B: Served>(world: &World<B>) -> Value {
    world.sim.get(CLUSTERS, "default", "x").unwrap()["status"].clone()
}

fn service<B: Served>(world: &World<B>, ordinal: u32) -> Option<Value> {
    world.sim.get("services", "default", &format!("rivven-x-{ordinal}-ext"))
}

/// Names and uids: another uid is another pod.
fn pods<B: Served>(world: &World<B>) -> Vec<Value> {
    world.sim.list("pods").iter().map(|pod| pod["metadata"]["uid"].clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn switched_on_changed_and_off_without_a_restart() {
    let world = serving::<Fleet>(&json!({ "replicas": 1 })).await;
    let before = pods(&world);
    let writes = world.log().writes().effective().0.len();
    change(&world, json!({ "externalAccess": balanced() })).await;
    let made = service(&world, 0).unwrap();
    assert_eq!(made["spec"]["selector"]["statefulset.kubernetes.io/pod-name"], "rivven-x-0");
    assert_eq!(made["spec"]["ports"][0]["port"], 9292);
    assert_eq!(made["spec"]["ports"].as_array().unwrap().len(), 1, "the client port and no other");
    // Nobody has given it an address: said, and Ready all the same.
    let said = status(&world);
    assert_eq!((&said["phase"], &said["reason"]), (&json!("Ready"), &json!("AsWanted")));
    assert_eq!(said["blockedBy"][0]["reason"], "ExternalAddressPending", "{said:#}");
    assert_eq!(said["brokers"][0]["blockedBy"][0]["reason"], "ExternalAddressPending");
    assert!(said["brokers"][0]["external"].is_null(), "{said:#}");

    // A controller of load balancers does its work, and leaves a note of its own.
    world.sim.edit("services", "default", "rivven-x-0-ext", |service| {
        service["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": "198.51.100.7" }] } });
        service["metadata"]["annotations"]["lb.example/given-by"] = json!("a");
    });
    world.settle().await.unwrap();
    let said = status(&world);
    assert_eq!(said["brokers"][0]["external"], json!(["198.51.100.7:9292"]), "{said:#}");
    assert!(said["blockedBy"].is_null(), "{said:#}");

    // What is taken out of the spec is taken off, and what others wrote stays.
    change(&world, json!({ "externalAccess": { "annotations": { "lb.example/pool": null } } })).await;
    let annotations = service(&world, 0).unwrap()["metadata"]["annotations"].clone();
    assert!(annotations["lb.example/pool"].is_null(), "{annotations}");
    assert_eq!(
        (&annotations["lb.example/internal"], &annotations["lb.example/given-by"]),
        (&json!("true"), &json!("a"))
    );

    change(&world, json!({ "externalAccess": { "type": "NodePort" } })).await;
    let port = service(&world, 0).unwrap()["spec"]["ports"][0]["nodePort"].clone();
    assert_eq!(status(&world)["brokers"][0]["external"], json!([format!("192.0.2.1:{port}")]), "the node it runs on");

    change(&world, json!({ "externalAccess": null })).await;
    assert_eq!(service(&world, 0), None);
    let said = status(&world);
    assert_eq!((&said["phase"], &said["brokers"][0]["external"]), (&json!("Ready"), &Value::Null));
    assert_eq!(pods(&world), before, "no broker was restarted");
    let log = world.log().writes().effective();
    let of_objects = log.only(|entry| matches!(entry.key.plural.as_str(), "services" | "statefulsets" | "configmaps"));
    let last = of_objects.0.len();
    println!("{} writes, {last} of them to objects since the start", log.0.len() - writes);
    let deleted: Vec<String> = log.only(|entry| entry.verb == Verb::Delete).lines();
    assert_eq!(deleted.len(), 1, "{deleted:?}");
}

#[tokio::test(start_paused = true)]
async fn an_ingress_comes_and_goes_and_keeps_the_class_it_was_given() {
    let world = serving::<Fleet>(&json!({ "replicas": 1, "metrics": { "enabled": false } })).await;
    change(&world, json!({ "ingress": { "host": "x.example", "tlsSecretName": "x-tls" } })).await;
    let ingress = || world.sim.get(INGRESSES, "default", "rivven-x");
    let backend = ingress().unwrap()["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"].clone();
    assert_eq!(backend, json!({ "name": "rivven-x", "port": { "number": 9090 } }));
    let ports = world.sim.get("services", "default", "rivven-x").unwrap()["spec"]["ports"].clone();
    assert_eq!((&ports[1]["port"], &ports[1]["name"]), (&json!(9090), &json!("api")), "reached, and not scraped");
    world.sim.edit(INGRESSES, "default", "rivven-x", |o| o["spec"]["ingressClassName"] = json!("the-default"));
    change(&world, json!({ "ingress": { "host": "y.example" } })).await;
    let spec = ingress().unwrap()["spec"].clone();
    assert_eq!((&spec["rules"][0]["host"], &spec["ingressClassName"]), (&json!("y.example"), &json!("the-default")));
    change(&world, json!({ "ingress": null })).await;
    assert_eq!((ingress(), status(&world)["phase"].clone()), (None, json!("Ready")));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_ours_is_said_and_left_alone() {
    let world = serving::<Fleet>(&json!({ "replicas": 1 })).await;
    // One without our labels, of a name that will be needed; and one that only pretends to be ours.
    let foreign = |name: &str, labels: Value| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": "default", "labels": labels },
            "spec": { "ports": [{ "port": 1 }] },
        })
    };
    let forged = json!({ "app.kubernetes.io/managed-by": "rivven-operator", "rivven.io/cluster": "x" });
    world.sim.apply(foreign("rivven-x-0-ext", json!({})));
    world.sim.apply(foreign("rivven-x-5-ext", forged));
    let there = || [service(&world, 0).unwrap(), service(&world, 5).unwrap()];
    let before = there();
    change(&world, json!({ "externalAccess": balanced() })).await;
    assert_eq!(status(&world)["reason"], "NameCollision", "{:#}", status(&world));
    change(&world, json!({ "externalAccess": null })).await;
    assert_eq!(status(&world)["phase"], "Ready", "{:#}", status(&world));
    assert_eq!(there(), before);
    assert_eq!(world.log().only(|entry| entry.verb == Verb::Delete).0.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn brokers_that_come_get_one_and_those_that_leave_keep_theirs_until_they_are_gone() {
    let spec = json!({ "replicas": 3, "version": "0.1.0", "externalAccess": { "type": "NodePort" } });
    let world = serving::<Clustered>(&spec).await;
    change(&world, json!({ "replicas": 4 })).await;
    assert!((0..4).all(|ordinal| service(&world, ordinal).is_some()));
    assert_eq!(status(&world)["phase"], "Ready", "{:#}", status(&world));
    change(&world, json!({ "replicas": 3 })).await;
    assert_eq!((service(&world, 3), status(&world)["phase"].clone()), (None, json!("Ready")));
    assert!((0..3).all(|ordinal| service(&world, ordinal).is_some()));
    let history = world.sim.history();
    let gone = |resource: &str, name: &str| {
        let key = world.sim.key(resource, "default", name);
        history.iter().filter(|change| change.key == key && change.after.is_none()).map(|change| change.version).max()
    };
    assert!(gone("pods", "rivven-x-3") < gone("services", "rivven-x-3-ext"), "the broker first");
}
