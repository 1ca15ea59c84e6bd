//! Oracle 10: each property of a cluster's spec, as the CRD's schema names them, is set to what it may and may not be, and
//! back. The model of the API server checks no schema, so that the operator also meets what a real one refuses.

use rivven_operator::api::{RivvenCluster, RivvenClusterSpec};
use serde_json::{Value, json};

use kube::CustomResourceExt;

use crate::support::broker::Fleet;
use crate::support::play::{but_for_restarts, differ_nowhere};
use crate::support::{World, change, cluster, ready, status};

const CLUSTERS: &str = "rivvenclusters.rivven.io";
/// Fields whose inside is a type of Kubernetes' own: they are taken whole.
const KUBERNETES: [&str; 6] =
    ["affinity", "resources", "topologySpreadConstraints", "tolerations", "env", "imagePullSecrets"];

/// Every property with what it is set to.
fn plans() -> Vec<(String, Value)> {
    let schema = serde_json::to_value(RivvenCluster::crd()).unwrap();
    let spec = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut all = Vec::new();
    for (name, node) in spec["properties"].as_object().unwrap() {
        collect(name, node, &mut all);
    }
    all
}

fn collect(path: &str, node: &Value, all: &mut Vec<(String, Value)>) {
    let mut add = |values: Vec<Value>| all.extend(values.into_iter().map(|value| (path.to_owned(), value)));
    add(vec![Value::Null]);
    let whole = KUBERNETES.contains(&path);
    match node["type"].as_str() {
        Some("integer") => {
            #[allow(clippy::cast_possible_truncation, reason = "bounds are whole numbers")]
            let bound = |name: &str| node[name].as_f64().unwrap_or_default() as i64;
            let (least, most) = (bound("minimum"), bound("maximum"));
            add([least - 1, least, most, most + 1, 0, -7, 4_000_000_000].map(Value::from).to_vec());
            add(vec![json!("seven"), json!(1.5)]);
        }
        Some("boolean") => add(vec![json!(true), json!(false), json!("maybe")]),
        Some("string") => {
            add(node["enum"].as_array().into_iter().flatten().cloned().collect());
            add(vec![
                json!(""),
                json!("0"),
                json!("x"),
                json!("1"),
                json!("a\nb: ${c}"),
                json!("x".repeat(400)),
                json!(7),
            ]);
            if path == "storage.size" {
                add(["512Mi", "8Ei", "99999Ei", "-1Gi", "1.5Gi"].map(Value::from).to_vec());
            }
        }
        Some("array") => add(vec![json!([]), json!(["x"]), json!([{}]), json!([7, null]), json!("x")]),
        Some("object") if node["properties"].is_object() && !whole => {
            add(vec![json!({}), json!(7)]);
            for (name, child) in node["properties"].as_object().unwrap() {
                collect(&format!("{path}.{name}"), child, all);
            }
        }
        _ => add(vec![json!({}), json!({ "a": "b" }), json!({ "A b/c!": "\n" }), json!({ "a": 7 }), json!(7)]),
    }
}

fn set(world: &World<Fleet>, path: &str, value: &Value) {
    world.sim.edit(CLUSTERS, "default", "x", |x| {
        let pointer = format!("/spec/{}", path.replace('.', "/"));
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        if x.pointer(parent).is_none_or(|parent| !parent.is_object()) {
            *x.pointer_mut(parent.rsplit_once('/').unwrap().0).unwrap() =
                merged(x, parent.rsplit_once('/').unwrap().0, parent.rsplit_once('/').unwrap().1);
        }
        let parent = x.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        if value.is_null() {
            drop(parent.remove(name));
        } else {
            drop(parent.insert(name.to_owned(), value.clone()));
        }
        next_generation(x);
    });
}

/// The object at a pointer with an empty object under the name.
fn merged(x: &Value, pointer: &str, name: &str) -> Value {
    let mut object = x.pointer(pointer).cloned().unwrap();
    object[name] = json!({});
    object
}

fn next_generation(x: &mut Value) {
    x["metadata"]["generation"] = json!(x["metadata"]["generation"].as_i64().unwrap() + 1);
}

/// All but the cluster itself, whose status tells.
fn rest(world: &World<Fleet>) -> std::collections::BTreeMap<String, Value> {
    let mut rest = world.end();
    rest.retain(|key, _| !key.starts_with("rivvenclusters"));
    rest
}

/// A quarter of the properties' values, one after the other on the same cluster.
async fn quarter(which: usize) {
    let mut world = World::<Fleet>::new(1);
    world.start(|_| {});
    // What storage cannot do can be taken back.
    world.sim.volumes(rivven_sim::VolumeBehaviour::Infeasible);
    world.sim.apply(cluster(&json!({ "replicas": 1, "version": "0.0.22", "storage": { "size": "1Gi" } })));
    // The spec that was proven is noted with the first rollout.
    for level in ["debug", "info"] {
        change(&world, &json!({ "config": { "logLevel": level } }));
        ready(&world, 1).await.unwrap();
    }
    assert_eq!(status(&world)["reason"], "AsWanted");
    let spec = world.sim.get(CLUSTERS, "default", "x").unwrap()["spec"].clone();
    let start = but_for_restarts(world.end());
    let (all, mut counts) = (plans(), [0; 4]);
    let total = all.len();
    for (path, value) in all.into_iter().skip(which).step_by(4) {
        let what = format!("{path} = {value}");
        let before = rest(&world);
        set(&world, &path, &value);
        world.settle().await.unwrap_or_else(|why| panic!("{what}: {why}"));
        let now = status(&world);
        let accepted = now["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "SpecAccepted");
        let refused = accepted.is_some_and(|c| c["status"] != "True");
        let unread = now["reason"] == "Malformed";
        let typed = serde_json::from_value::<RivvenClusterSpec>(
            world.sim.get(CLUSTERS, "default", "x").unwrap()["spec"].clone(),
        );
        assert_eq!(unread, typed.is_err(), "{what}: what cannot be read is said: {now:#}");
        if refused || unread {
            assert!(now["message"].as_str().is_some_and(|message| message.len() > 10), "{what}: says why: {now:#}");
            differ_nowhere(&before, &rest(&world), &format!("{what}: refused, and nothing is changed"));
            counts[usize::from(!unread)] += 1;
        } else if now["reason"] == "AsWanted" {
            counts[2] += 1;
        } else {
            let told = now["conditions"].as_array().unwrap().iter().any(|c| c["reason"] == now["reason"]);
            assert!(told && now["message"] != "", "{what}: reported: {now:#}");
            counts[3] += 1;
        }
        world.sim.edit(CLUSTERS, "default", "x", |x| {
            x["spec"] = spec.clone();
            next_generation(x);
        });
        // What was broken in between may need its time.
        for _ in 0..20 {
            world.settle().await.unwrap_or_else(|why| panic!("{what}, set back: {why}"));
            if status(&world)["reason"] == "AsWanted" {
                break;
            }
        }
        let mut end = but_for_restarts(world.end());
        let claims = |world: &std::collections::BTreeMap<String, Value>| -> Vec<Value> {
            let claims = world.iter().filter(|(key, _)| key.starts_with("persistentvolumeclaims"));
            claims.map(|(_, claim)| claim["status"]["capacity"].clone()).collect()
        };
        assert_eq!(claims(&start), claims(&end), "{what}, set back");
        // Its request stays a little above the capacity: the API server takes none that equals it.
        for (key, claim) in &start {
            if key.starts_with("persistentvolumeclaims") {
                end.insert(key.clone(), claim.clone());
            }
        }
        differ_nowhere(&start, &end, &format!("{what}, set back"));
    }
    let [unread, refused, in_force, reported] = counts;
    println!(
        "misoperation {which} of 4, oracle 10: plans: {} of {total}: {unread} cannot be read, {refused} refused, {in_force} in force, {reported} reported",
        counts.iter().sum::<i32>()
    );
}

#[tokio::test(start_paused = true)]
async fn every_property_and_back_first() {
    quarter(0).await;
}

#[tokio::test(start_paused = true)]
async fn every_property_and_back_second() {
    quarter(1).await;
}

#[tokio::test(start_paused = true)]
async fn every_property_and_back_third() {
    quarter(2).await;
}

#[tokio::test(start_paused = true)]
async fn every_property_and_back_fourth() {
    quarter(3).await;
}
