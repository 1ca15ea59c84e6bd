//! The `StatefulSet` controller: `Parallel` and `OrderedReady`, `OnDelete` and `RollingUpdate` without partitions.
//! Revisions are hashes of the template; there are no `ControllerRevision` objects, and claims are always retained.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::json::{condition, controller_uid, deleting, hash, int, list, text};
use crate::selector::Selector;
use crate::store::{Key, Store};

pub(crate) fn run(store: &mut Store) {
    let sets: Vec<(Key, Arc<Value>)> =
        store.list("apps", "statefulsets", None).map(|(k, o)| (k.clone(), o.clone())).collect();
    for (key, set) in sets {
        if !deleting(&set) {
            reconcile(store, &key, &set);
        }
    }
}

fn ordinal(set: &str, pod: &str) -> Option<i64> {
    pod.strip_prefix(set)?.strip_prefix('-')?.parse().ok()
}

/// Name of the revision a template makes.
fn revision(key: &Key, set: &Value) -> String {
    format!("{}-{:010x}", key.name, hash(&[&set["spec"]["template"].to_string()]) & 0xff_ffff_ffff)
}

/// The pods of the set by ordinal; orphans that match are adopted on the way.
fn pods(store: &mut Store, key: &Key, set: &Value) -> Vec<(i64, Key, Arc<Value>)> {
    let selector = Selector::of(&set["spec"]["selector"]);
    let uid = text(set, "/metadata/uid");
    let matching: Vec<Key> = store
        .list("", "pods", Some(&key.namespace))
        .filter(|(k, p)| ordinal(&key.name, &k.name).is_some() && selector.matches(p))
        .map(|(k, _)| k.clone())
        .collect();
    for pod in &matching {
        let orphan = store.get(pod).is_some_and(|p| controller_uid(p).is_empty() && !deleting(p));
        if orphan {
            store.edit(pod, |p| {
                let mut owners = list(p, "/metadata/ownerReferences").to_vec();
                owners.push(owner(set));
                p["metadata"]["ownerReferences"] = owners.into();
            });
        }
    }
    let mut owned: Vec<_> = matching
        .into_iter()
        .filter_map(|k| {
            let pod = store.get(&k)?.clone();
            (controller_uid(&pod) == uid).then(|| (ordinal(&key.name, &k.name).unwrap_or_default(), k, pod))
        })
        .collect();
    owned.sort_by_key(|(i, _, _)| *i);
    owned
}

fn owner(set: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "name": set["metadata"]["name"], "uid": set["metadata"]["uid"],
        "controller": true, "blockOwnerDeletion": true,
    })
}

fn ready(pod: &Value) -> bool {
    condition(pod, "Ready") == "True" && !deleting(pod)
}

fn reconcile(store: &mut Store, key: &Key, set: &Arc<Value>) {
    let pod_kind = store.kind("", "pods").unwrap().clone();
    let update = revision(key, set);
    let replicas = int(set, "/spec/replicas", 1);
    let parallel = set["spec"]["podManagementPolicy"] == "Parallel";
    let on_delete = set["spec"]["updateStrategy"]["type"] == "OnDelete";
    let existing = pods(store, key, set);
    let mut blocked = false;
    for i in 0..replicas {
        let pod = existing.iter().find(|(n, _, _)| *n == i);
        match pod {
            Some((_, pod_key, pod)) if matches!(text(pod, "/status/phase"), "Failed" | "Succeeded") => {
                let _ = store.delete(&pod_kind, pod_key, &json!({}));
                blocked = true;
            }
            Some((_, _, pod)) => blocked = !ready(pod),
            None => {
                // A refusal (a claim that is being deleted, a namespace that ends) is tried again next time.
                if claims(store, key, set, i) {
                    let _ = store.create(&pod_kind, &key.namespace, new_pod(key, set, i, &update));
                }
                blocked = true;
            }
        }
        if blocked && !parallel {
            break;
        }
    }
    if parallel || !blocked {
        for (_, pod_key, pod) in existing.iter().rev().filter(|(i, _, p)| *i >= replicas && !deleting(p)) {
            let options = json!({ "preconditions": { "uid": text(pod, "/metadata/uid") } });
            let _ = store.delete(&pod_kind, pod_key, &options);
            if !parallel {
                break;
            }
        }
    }
    let kept: Vec<_> = existing.iter().filter(|(i, _, _)| *i < replicas).collect();
    let current = |pod: &Value| text(pod, "/metadata/labels/controller-revision-hash") == update;
    if !on_delete {
        for (_, pod_key, pod) in kept.iter().rev() {
            if !current(pod) && !deleting(pod) {
                let _ = store.delete(&pod_kind, pod_key, &json!({}));
                break;
            }
            if !ready(pod) {
                break;
            }
        }
    }
    status(store, key, set, &update);
}

fn status(store: &mut Store, key: &Key, set: &Value, update: &str) {
    let pods = pods(store, key, set);
    let count = |holds: &dyn Fn(&Value) -> bool| pods.iter().filter(|(_, _, p)| holds(p)).count();
    let (total, ready) = (pods.len(), count(&ready));
    let of = |revision: &str| count(&|p| text(p, "/metadata/labels/controller-revision-hash") == revision);
    let on_delete = set["spec"]["updateStrategy"]["type"] == "OnDelete";
    let whole = i64::try_from(total).unwrap() == int(set, "/spec/replicas", 1);
    let known = text(set, "/status/currentRevision");
    let rolled = !on_delete && whole && ready == total && of(update) == total;
    let current = if known.is_empty() || rolled { update } else { known }.to_owned();
    let (of_current, of_update) = (of(&current), of(update));
    let generation = set["metadata"]["generation"].clone();
    store.edit(key, |o| {
        o["status"] = json!({
            "replicas": total, "readyReplicas": ready, "availableReplicas": ready, "currentReplicas": of_current,
            "updatedReplicas": of_update, "currentRevision": current, "updateRevision": update, "collisionCount": 0,
            "observedGeneration": generation,
        });
        // As the real one writes them: zeroes are left out, but for these two.
        if let Some(status) = o["status"].as_object_mut() {
            status.retain(|k, v| v != 0 || ["replicas", "availableReplicas", "collisionCount"].contains(&k.as_str()));
        }
    });
}

/// Creates the missing claims of a pod. Says whether all are usable.
fn claims(store: &mut Store, key: &Key, set: &Value, i: i64) -> bool {
    let kind = store.kind("", "persistentvolumeclaims").unwrap().clone();
    for template in list(set, "/spec/volumeClaimTemplates") {
        let name = format!("{}-{}-{i}", text(template, "/metadata/name"), key.name);
        match store.get(&Key::core("persistentvolumeclaims", &key.namespace, &name)) {
            Some(claim) if deleting(claim) => return false,
            Some(_) => {}
            None => {
                let mut claim = template.clone();
                claim["metadata"]["name"] = name.into();
                for (k, v) in set["spec"]["selector"]["matchLabels"].as_object().into_iter().flatten() {
                    claim["metadata"]["labels"][k] = v.clone();
                }
                if store.create(&kind, &key.namespace, claim).is_err() {
                    return false;
                }
            }
        }
    }
    true
}

fn new_pod(key: &Key, set: &Value, i: i64, revision: &str) -> Value {
    let name = format!("{}-{i}", key.name);
    let template = &set["spec"]["template"];
    let mut pod =
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"] });
    pod["metadata"]["name"] = name.clone().into();
    pod["metadata"]["ownerReferences"] = json!([owner(set)]);
    let labels = &mut pod["metadata"]["labels"];
    labels["controller-revision-hash"] = revision.into();
    labels["statefulset.kubernetes.io/pod-name"] = name.clone().into();
    labels["apps.kubernetes.io/pod-index"] = i.to_string().into();
    pod["spec"]["hostname"] = name.into();
    pod["spec"]["subdomain"] = set["spec"]["serviceName"].clone();
    let mut volumes = list(template, "/spec/volumes").to_vec();
    for claim in list(set, "/spec/volumeClaimTemplates") {
        let volume = text(claim, "/metadata/name");
        volumes.retain(|v| v["name"] != volume);
        let claim_name = format!("{volume}-{}-{i}", key.name);
        volumes.push(json!({ "name": volume, "persistentVolumeClaim": { "claimName": claim_name } }));
    }
    pod["spec"]["volumes"] = volumes.into();
    pod
}
