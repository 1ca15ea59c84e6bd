//! The controllers of the model: pods, volumes, budgets, ends of namespaces and kinds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use rivven_sim::{Behaviour, Sim, VolumeBehaviour, conformance};
use serde_json::{Value, json};

fn with_set(seed: u64, replicas: i64) -> Sim {
    let sim = Sim::new(seed);
    let mut set = conformance::stateful_set("set", replicas, "image:1");
    set["apiVersion"] = "apps/v1".into();
    set["kind"] = "StatefulSet".into();
    sim.apply(set);
    sim
}

fn change(sim: &Sim, kind: &str, name: &str, spec: &Value) {
    let version = if kind == "StatefulSet" { "apps/v1" } else { "v1" };
    sim.apply(json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name }, "spec": spec }));
}

fn status(sim: &Sim, resource: &str, name: &str) -> Value {
    sim.get(resource, "default", name).unwrap()["status"].clone()
}

fn ready(sim: &Sim) -> Value {
    status(sim, "statefulsets.apps", "set")["readyReplicas"].clone()
}

#[test]
fn a_set_becomes_ready_in_any_order_of_the_controllers() {
    let reference = with_set(1, 3);
    reference.settle();
    assert_eq!(ready(&reference), 3);
    let nodes: Vec<_> = reference.list("pods").iter().map(|p| p["spec"]["nodeName"].clone()).collect();
    assert_eq!(nodes, ["node-a", "node-b", "node-c"]);
    for seed in 2..50 {
        let sim = with_set(seed, 3);
        sim.settle();
        assert_eq!(sim.world(), reference.world(), "seed {seed}");
    }
}

#[test]
fn pods_misbehave_as_asked() {
    let waits = |behaviour: Behaviour| {
        let sim = with_set(1, 1);
        sim.behave_pod("set-0", behaviour);
        sim.settle();
        assert_eq!(ready(&sim), Value::Null);
        status(&sim, "pods", "set-0")
    };
    let crash = waits(Behaviour::CrashLoop("no such disk".into()));
    let main = &crash["containerStatuses"][0];
    assert_eq!(main["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert_eq!(main["lastState"]["terminated"]["message"], "no such disk");
    let killed = waits(Behaviour::OomKilled);
    assert_eq!(killed["containerStatuses"][0]["lastState"]["terminated"]["reason"], "OOMKilled");
    let reason = |status: &Value| status["containerStatuses"][0]["state"]["waiting"]["reason"].clone();
    assert_eq!(reason(&waits(Behaviour::ImagePullFails)), "ImagePullBackOff");
    assert_eq!(reason(&waits(Behaviour::ConfigError("x".into()))), "CreateContainerConfigError");
    assert!(waits(Behaviour::NeverReady)["containerStatuses"][0]["state"]["running"].is_object());
    assert_eq!(waits(Behaviour::Unschedulable("no room".into()))["conditions"][0]["message"], "no room");
}

#[test]
fn a_crash_loop_ends_when_its_cause_does() {
    let sim = with_set(1, 1);
    sim.behave_pod("set-0", Behaviour::CrashLoop("x".into()));
    sim.settle();
    sim.advance(std::time::Duration::from_hours(1));
    sim.settle();
    assert_eq!(status(&sim, "pods", "set-0")["containerStatuses"][0]["restartCount"], 1);
    sim.behave_pod("set-0", Behaviour::Ok);
    sim.settle();
    assert_eq!(ready(&sim), 1);
    let id = |sim: &Sim| status(sim, "pods", "set-0")["containerStatuses"][0]["containerID"].clone();
    let before = id(&sim);
    sim.restart_containers("default", "set-0");
    sim.settle();
    assert_eq!(ready(&sim), 1);
    assert_ne!(id(&sim), before);
}

#[test]
fn volumes_grow_as_asked_and_never_shrink() {
    let size = |size: &str| json!({ "resources": { "requests": { "storage": size } } });
    let capacity = |sim: &Sim| status(sim, "persistentvolumeclaims", "data-set-0")["capacity"]["storage"].clone();
    let condition = |sim: &Sim| status(sim, "persistentvolumeclaims", "data-set-0")["conditions"][0]["type"].clone();
    let sim = with_set(1, 1);
    sim.settle();
    assert_eq!(capacity(&sim), "1Gi");
    sim.volumes(VolumeBehaviour::Offline);
    change(&sim, "PersistentVolumeClaim", "data-set-0", &size("2Gi"));
    sim.settle();
    assert_eq!((capacity(&sim), condition(&sim)), (json!("1Gi"), json!("FileSystemResizePending")));
    change(&sim, "StatefulSet", "set", &json!({ "replicas": 0 }));
    sim.settle();
    assert_eq!((capacity(&sim), condition(&sim)), (json!("2Gi"), Value::Null));
    sim.volumes(VolumeBehaviour::Infeasible);
    change(&sim, "PersistentVolumeClaim", "data-set-0", &size("5Gi"));
    sim.settle();
    assert_eq!(condition(&sim), "ControllerResizeError");
    let apply = |request: &str| {
        sim.try_apply(json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "data-set-0" }, "spec": size(request),
        }))
    };
    assert_eq!(apply("1Gi").unwrap_err().code, 422);
    apply("3Gi").expect("a growth that was not provisioned can be lowered to what is above the capacity");
}

#[test]
fn a_claim_in_use_outlives_its_deletion_and_a_budget_counts() {
    let sim = with_set(1, 2);
    sim.apply(json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": "b" },
        "spec": { "maxUnavailable": 1, "selector": { "matchLabels": { "app": "set" } } },
    }));
    sim.settle();
    assert_eq!(status(&sim, "poddisruptionbudgets.policy", "b")["disruptionsAllowed"], 1);
    sim.delete("persistentvolumeclaims", "default", "data-set-1", &json!({})).unwrap();
    sim.settle();
    assert!(sim.get("persistentvolumeclaims", "default", "data-set-1").is_some());
    change(&sim, "StatefulSet", "set", &json!({ "replicas": 1 }));
    sim.settle();
    assert!(sim.get("persistentvolumeclaims", "default", "data-set-1").is_none());
    sim.edit("nodes", "", "node-a", |n| n["status"]["conditions"] = json!([{ "type": "Ready", "status": "Unknown" }]));
    sim.settle();
    assert_eq!(ready(&sim), Value::Null);
    assert_eq!(status(&sim, "poddisruptionbudgets.policy", "b")["disruptionsAllowed"], 0);
}

#[test]
fn namespaces_and_kinds_take_their_contents_along() {
    let sim = Sim::new(1);
    sim.apply(conformance::crd());
    sim.apply(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "n" } }));
    let probe = |namespace: &str| {
        let meta = json!({ "name": "p", "namespace": namespace, "finalizers": ["conformance.rivven.io/held"] });
        json!({ "apiVersion": "conformance.rivven.io/v1", "kind": "Probe", "metadata": meta })
    };
    sim.apply(probe("n"));
    sim.apply(probe("default"));
    let resource = "probes.conformance.rivven.io";
    sim.delete("namespaces", "", "n", &json!({})).unwrap();
    sim.settle();
    assert!(sim.get("namespaces", "", "n").is_some(), "its content is held");
    let mut late = probe("n");
    late["metadata"]["name"] = "late".into();
    assert_eq!(sim.try_apply(late).unwrap_err().code, 403);
    sim.edit(resource, "n", "p", |p| p["metadata"]["finalizers"] = json!([]));
    sim.settle();
    assert!(sim.get("namespaces", "", "n").is_none());
    sim.delete("customresourcedefinitions.apiextensions.k8s.io", "", resource, &json!({})).unwrap();
    sim.edit(resource, "default", "p", |p| p["metadata"]["finalizers"] = json!([]));
    sim.settle();
    assert!(sim.list("customresourcedefinitions.apiextensions.k8s.io").is_empty());
}
