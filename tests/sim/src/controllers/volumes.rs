//! Claims: bound, grown, and protected while a pod uses them. There are no `PersistentVolume` objects.

use std::sync::Arc;

use serde_json::{Value, json};

use super::kubelet::claims;
use crate::json::{deleting, list, text};
use crate::quantity;
use crate::store::{Key, Store};

/// How volumes grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VolumeBehaviour {
    /// At once, in use or not.
    #[default]
    Online,
    /// The volume at once, the file system when no pod uses it (`FileSystemResizePending` until then).
    Offline,
    /// The storage takes the request and does not answer.
    Stuck,
    /// The storage refuses: the claim says `ControllerResizeInfeasible`.
    Infeasible,
    /// Claims are not even bound.
    Unbound,
}

pub(crate) fn run(store: &mut Store, behaviour: VolumeBehaviour) {
    let all: Vec<(Key, Arc<Value>)> =
        store.list("", "persistentvolumeclaims", None).map(|(k, c)| (k.clone(), c.clone())).collect();
    for (key, claim) in all {
        let used = store.list("", "pods", Some(&key.namespace)).any(|(_, p)| {
            claims(p).any(|c| c == key.name) && !matches!(text(p, "/status/phase"), "Succeeded" | "Failed")
        });
        if deleting(&claim) {
            if !used {
                store.edit(&key, |c| {
                    let mut rest = list(c, "/metadata/finalizers").to_vec();
                    rest.retain(|f| f != "kubernetes.io/pvc-protection");
                    c["metadata"]["finalizers"] = rest.into();
                });
            }
            continue;
        }
        let now = store.timestamp();
        store.edit(&key, |c| match text(c, "/status/phase") {
            "Bound" => grow(c, behaviour, used, &now),
            _ if behaviour == VolumeBehaviour::Unbound => {}
            _ => {
                c["spec"]["volumeName"] = format!("pvc-{}", text(c, "/metadata/uid")).into();
                c["status"]["phase"] = "Bound".into();
                c["status"]["accessModes"] = c["spec"]["accessModes"].clone();
                c["status"]["capacity"] = json!({ "storage": c["spec"]["resources"]["requests"]["storage"] });
            }
        });
    }
}

fn grow(claim: &mut Value, behaviour: VolumeBehaviour, used: bool, now: &str) {
    let wanted = claim["spec"]["resources"]["requests"]["storage"].clone();
    let size = |v: &Value| v.as_str().and_then(quantity::parse).map_or(0, |q| q.0);
    let set = |claim: &mut Value, condition: &str| {
        if claim.pointer("/status/conditions/0/type") != Some(&condition.into()) {
            claim["status"]["conditions"] = json!([{ "type": condition, "status": "True", "lastTransitionTime": now }]);
        }
    };
    if size(&wanted) <= size(&claim["status"]["capacity"]["storage"]) {
        if let Some(status) = claim["status"].as_object_mut() {
            status.retain(|k, _| {
                !matches!(k.as_str(), "conditions" | "allocatedResources" | "allocatedResourceStatuses")
            });
        }
        return;
    }
    claim["status"]["allocatedResources"] = json!({ "storage": wanted });
    match behaviour {
        VolumeBehaviour::Offline if used => set(claim, "FileSystemResizePending"),
        VolumeBehaviour::Online | VolumeBehaviour::Offline => {
            claim["status"]["capacity"]["storage"] = wanted;
            grow(claim, behaviour, used, now);
        }
        VolumeBehaviour::Stuck | VolumeBehaviour::Unbound => set(claim, "Resizing"),
        VolumeBehaviour::Infeasible => {
            claim["status"]["allocatedResourceStatuses"] = json!({ "storage": "ControllerResizeInfeasible" });
            set(claim, "ControllerResizeError");
        }
    }
}
