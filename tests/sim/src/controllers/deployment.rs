//! The `Deployment` controller, for strategy `Recreate`: pods of another template are gone before one of the wanted
//! template is made. There are no `ReplicaSet` objects between; a pod that is being deleted is replaced at once, as a
//! `ReplicaSet` does it.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::json::{condition, controller_uid, deleting, hash, int, text};
use crate::store::{Key, Store};

pub(crate) fn run(store: &mut Store) {
    let all: Vec<(Key, Arc<Value>)> =
        store.list("apps", "deployments", None).map(|(k, o)| (k.clone(), o.clone())).collect();
    for (key, deployment) in all {
        if !deleting(&deployment) {
            reconcile(store, &key, &deployment);
        }
    }
}

fn pods(store: &Store, key: &Key, uid: &str) -> Vec<(Key, Arc<Value>)> {
    let own = store.list("", "pods", Some(&key.namespace)).filter(|(_, pod)| controller_uid(pod) == uid);
    own.map(|(k, p)| (k.clone(), p.clone())).collect()
}

fn ended(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Failed" | "Succeeded")
}

fn reconcile(store: &mut Store, key: &Key, deployment: &Value) {
    let kind = store.kind("", "pods").unwrap().clone();
    let template = &deployment["spec"]["template"];
    let revision = format!("{:010x}", hash(&[&template.to_string()]) & 0xff_ffff_ffff);
    let uid = text(deployment, "/metadata/uid");
    let is_current = |pod: &Value| text(pod, "/metadata/labels/pod-template-hash") == revision;
    let existing = pods(store, key, uid);
    for (pod_key, _) in existing.iter().filter(|(_, pod)| !is_current(pod) && !deleting(pod)) {
        let _ = store.delete(&kind, pod_key, &json!({}));
    }
    let existing = pods(store, key, uid);
    let old = existing.iter().any(|(_, pod)| !is_current(pod) && !ended(pod));
    let active = existing.iter().filter(|(_, pod)| is_current(pod) && !deleting(pod) && !ended(pod)).count();
    let wanted = usize::try_from(int(deployment, "/spec/replicas", 1)).unwrap_or(0);
    if !old {
        for _ in active..wanted {
            // A number that nobody has: as good as the random letters of the real one.
            let name = |nth: usize| format!("{}-{revision}-{nth}", key.name);
            let free = (0..1_000).map(name).find(|name| store.get(&Key::core("pods", &key.namespace, name)).is_none());
            let _ = store.create(&kind, &key.namespace, new_pod(deployment, &free.unwrap_or_default(), &revision));
        }
    }
    let existing = pods(store, key, uid);
    let count = |holds: &dyn Fn(&Value) -> bool| existing.iter().filter(|(_, pod)| !ended(pod) && holds(pod)).count();
    let ready = count(&|pod| condition(pod, "Ready") == "True" && !deleting(pod));
    let status = json!({
        "observedGeneration": deployment["metadata"]["generation"], "replicas": count(&|_| true),
        "updatedReplicas": count(&is_current), "readyReplicas": ready, "availableReplicas": ready,
    });
    store.edit(key, |o| o["status"] = status);
}

fn new_pod(deployment: &Value, name: &str, revision: &str) -> Value {
    let template = &deployment["spec"]["template"];
    let mut pod =
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"] });
    pod["metadata"]["name"] = name.into();
    pod["metadata"]["labels"]["pod-template-hash"] = revision.into();
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": "Deployment", "name": deployment["metadata"]["name"],
        "uid": deployment["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
    }]);
    pod
}
