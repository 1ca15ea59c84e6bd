//! Garbage collection by owner, and the ends of namespaces and of custom resource definitions.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::json::{deleting, list, text};
use crate::store::{Key, Store};

fn all(store: &Store) -> Vec<(Key, Arc<Value>)> {
    store.objects.iter().map(|(k, o)| (k.clone(), o.clone())).collect()
}

fn delete(store: &mut Store, key: &Key, options: &Value) {
    if let Some(kind) = store.kind(&key.group, &key.plural).cloned() {
        let _ = store.delete(&kind, key, options);
    }
}

fn lift(store: &mut Store, key: &Key, finalizer: &str) {
    store.edit(key, |o| {
        let mut rest = list(o, "/metadata/finalizers").to_vec();
        rest.retain(|f| f != finalizer);
        o["metadata"]["finalizers"] = rest.into();
    });
}

fn has(o: &Value, finalizer: &str) -> bool {
    list(o, "/metadata/finalizers").iter().any(|f| f == finalizer)
}

fn owners(o: &Value) -> &[Value] {
    list(o, "/metadata/ownerReferences")
}

/// Orphans, then deletes dependents whose owners are gone, then ends owners that waited for their dependents.
pub(crate) fn run(store: &mut Store) {
    for (key, owner) in all(store).into_iter().filter(|(_, o)| deleting(o) && has(o, "orphan")) {
        for (dependent, _) in
            all(store).iter().filter(|(_, o)| owners(o).iter().any(|r| r["uid"] == owner["metadata"]["uid"]))
        {
            store.edit(dependent, |o| {
                let mut rest = owners(o).to_vec();
                rest.retain(|r| r["uid"] != owner["metadata"]["uid"]);
                set_owners(o, rest);
            });
        }
        lift(store, &key, "orphan");
    }
    let objects = all(store);
    let uids = |holds: &dyn Fn(&Value) -> bool| -> BTreeSet<String> {
        objects.iter().filter(|(_, o)| holds(o)).map(|(_, o)| text(o, "/metadata/uid").to_owned()).collect()
    };
    let alive = uids(&|_| true);
    let waiting = uids(&|o| deleting(o) && has(o, "foregroundDeletion"));
    for (key, object) in objects.iter().filter(|(_, o)| !owners(o).is_empty() && !deleting(o)) {
        let solid = |r: &Value| alive.contains(text(r, "/uid")) && !waiting.contains(text(r, "/uid"));
        let (kept, gone): (Vec<Value>, Vec<Value>) = owners(object).iter().cloned().partition(solid);
        if gone.is_empty() {
            continue;
        }
        if kept.is_empty() {
            let foreground = gone.iter().any(|r| waiting.contains(text(r, "/uid")));
            let policy = if foreground { "Foreground" } else { "Background" };
            // Foreground only matters to what has dependents itself; on a pod it would be lifted at once.
            let uid = json!({ "uid": object["metadata"]["uid"] });
            delete(store, key, &json!({ "propagationPolicy": policy, "preconditions": uid }));
        } else {
            store.edit(key, |o| set_owners(o, kept));
        }
    }
    for (key, owner) in all(store).into_iter().filter(|(_, o)| deleting(o) && has(o, "foregroundDeletion")) {
        let blocks = |o: &Value| {
            owners(o).iter().any(|r| r["uid"] == owner["metadata"]["uid"] && r["blockOwnerDeletion"] == true)
        };
        if !all(store).iter().any(|(_, o)| blocks(o)) {
            lift(store, &key, "foregroundDeletion");
        }
    }
}

fn set_owners(o: &mut Value, owners: Vec<Value>) {
    if owners.is_empty() {
        crate::json::remove(&mut o["metadata"], "ownerReferences");
    } else {
        o["metadata"]["ownerReferences"] = owners.into();
    }
}

/// Empties namespaces and custom resource definitions that are being deleted, and ends them when they are empty.
pub(crate) fn namespaces(store: &mut Store) {
    for (key, _) in all(store).into_iter().filter(|(k, o)| k.plural == "namespaces" && deleting(o)) {
        empty(store, &key, "kubernetes", |k| k.namespace == key.name);
    }
    for (key, crd) in all(store).into_iter().filter(|(k, o)| k.plural == "customresourcedefinitions" && deleting(o)) {
        let (group, plural) = (text(&crd, "/spec/group"), text(&crd, "/spec/names/plural"));
        empty(store, &key, "customresourcecleanup.apiextensions.k8s.io", |k| k.group == group && k.plural == plural);
    }
}

fn empty(store: &mut Store, key: &Key, finalizer: &str, inside: impl Fn(&Key) -> bool) {
    let contents: Vec<_> = all(store).into_iter().filter(|(k, _)| inside(k)).collect();
    if contents.is_empty() {
        lift(store, key, finalizer);
    }
    for (inner, _) in contents.iter().filter(|(_, o)| !deleting(o)) {
        delete(store, inner, &json!({ "propagationPolicy": "Background" }));
    }
}
