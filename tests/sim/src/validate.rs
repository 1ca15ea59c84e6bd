//! What the real API server refuses, as far as this operator could get it wrong.

use serde_json::{Value, json};

use crate::json::{deleting, int, list, remove, text};
use crate::kinds::Kind;
use crate::quantity;
use crate::refusal::Refusal;
use crate::selector::Selector;
use crate::store::{Key, Part, Store};

fn alphanumeric_ends(s: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    edge(s.chars().next()) && edge(s.chars().last())
}

fn subdomain(s: &str) -> bool {
    s.len() <= 253
        && s.split('.').all(alphanumeric_ends)
        && s.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.')
}

fn dns_label(s: &str) -> bool {
    s.len() <= 63 && !s.contains('.') && subdomain(s)
}

fn label_value(s: &str) -> bool {
    s.is_empty()
        || s.len() <= 63
            && alphanumeric_ends(s)
            && s.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn label_key(s: &str) -> bool {
    match s.rsplit_once('/') {
        Some((prefix, name)) => subdomain(prefix) && !name.is_empty() && label_value(name),
        None => !s.is_empty() && label_value(s),
    }
}

fn labels(kind: &Kind, name: &str, field: &str, labels: &Value) -> Result<(), Refusal> {
    for (k, v) in labels.as_object().into_iter().flatten() {
        if !label_key(k) || !v.as_str().is_some_and(label_value) {
            return Err(Refusal::invalid(kind, name, field, &format!("Invalid value: {k}={v}: not a valid label")));
        }
    }
    Ok(())
}

/// Rules of every write.
pub(crate) fn any(kind: &Kind, o: &Value) -> Result<(), Refusal> {
    let name = text(o, "/metadata/name");
    let invalid = |field: &str, why: &str| Err(Refusal::invalid(kind, name, field, why));
    let valid = match kind.plural.as_str() {
        "services" => dns_label(name) && name.starts_with(|c: char| c.is_ascii_lowercase()),
        "namespaces" => dns_label(name),
        _ => subdomain(name),
    };
    if !valid {
        return invalid("metadata.name", &format!("Invalid value: {name:?}: not a valid name"));
    }
    labels(kind, name, "metadata.labels", &o["metadata"]["labels"])?;
    for (k, v) in o["metadata"]["annotations"].as_object().into_iter().flatten() {
        if !label_key(k) || !v.is_string() {
            return invalid("metadata.annotations", &format!("Invalid value: {k:?}"));
        }
    }
    let owners = list(o, "/metadata/ownerReferences");
    if owners.iter().any(|r| ["apiVersion", "kind", "name", "uid"].iter().any(|f| text(r, &format!("/{f}")).is_empty()))
    {
        return invalid("metadata.ownerReferences", "Invalid value: apiVersion, kind, name and uid must not be empty");
    }
    if owners.iter().filter(|r| r["controller"] == true).count() > 1 {
        return invalid(
            "metadata.ownerReferences",
            "Invalid value: Only one reference can have Controller set to true",
        );
    }
    match kind.plural.as_str() {
        "statefulsets" | "deployments" => {
            let selector = &o["spec"]["selector"];
            if selector.is_null() {
                return invalid("spec.selector", "Required value");
            }
            if !Selector::of(selector).matches(&o["spec"]["template"]) {
                return invalid(
                    "spec.template.metadata.labels",
                    "Invalid value: `selector` does not match template `labels`",
                );
            }
            if int(o, "/spec/replicas", 1) < 0 {
                return invalid("spec.replicas", "Invalid value: must be greater than or equal to 0");
            }
            labels(kind, name, "spec.template.metadata.labels", &o["spec"]["template"]["metadata"]["labels"])?;
            containers(kind, name, "spec.template.spec", &o["spec"]["template"]["spec"])
        }
        "pods" => containers(kind, name, "spec", &o["spec"]),
        "services"
            if list(o, "/spec/ports").len() > 1 && list(o, "/spec/ports").iter().any(|p| p["name"].is_null()) =>
        {
            invalid("spec.ports[0].name", "Required value")
        }
        _ => Ok(()),
    }
}

fn containers(kind: &Kind, name: &str, path: &str, spec: &Value) -> Result<(), Refusal> {
    let field = |rest: &str| format!("{path}.{rest}");
    if list(spec, "/containers").is_empty() {
        return Err(Refusal::invalid(kind, name, &field("containers"), "Required value"));
    }
    let volumes: Vec<&str> = list(spec, "/volumes").iter().map(|v| text(v, "/name")).collect();
    for c in list(spec, "/containers").iter().chain(list(spec, "/initContainers")) {
        if !dns_label(text(c, "/name")) || text(c, "/image").is_empty() {
            return Err(Refusal::invalid(kind, name, &field("containers"), "Required value: name and image"));
        }
        for mount in list(c, "/volumeMounts") {
            // A claim template of a StatefulSet is a volume only once the pod is made.
            if kind.plural == "pods" && !volumes.contains(&text(mount, "/name")) {
                let why = format!("Not found: {:?}", text(mount, "/name"));
                return Err(Refusal::invalid(kind, name, &field("containers[0].volumeMounts[0].name"), &why));
            }
        }
        for (resource, limit) in c["resources"]["limits"].as_object().into_iter().flatten() {
            let parse = |v: &Value| v.as_str().and_then(quantity::parse).map(|q| q.0);
            let request = parse(&c["resources"]["requests"][resource]);
            if request > parse(limit) {
                let why = format!("Invalid value: must be less than or equal to {resource} limit");
                return Err(Refusal::invalid(kind, name, &field("containers[0].resources.requests"), &why));
            }
        }
    }
    Ok(())
}

/// Rules of a creation.
pub(crate) fn create(store: &Store, kind: &Kind, o: &Value) -> Result<(), Refusal> {
    let ip = text(o, "/spec/clusterIP");
    let taken = |(_, other): (&Key, &std::sync::Arc<Value>)| text(other, "/spec/clusterIP") == ip;
    if kind.plural == "services" && ip != "None" && store.list("", "services", None).any(taken) {
        return Err(Refusal::invalid(
            kind,
            text(o, "/metadata/name"),
            "spec.clusterIP",
            "Invalid value: already allocated",
        ));
    }
    Ok(())
}

/// `object` without the given paths below `spec`.
fn without(o: &Value, fields: &[&str]) -> Value {
    let mut spec = o["spec"].clone();
    for field in fields {
        remove(&mut spec, field);
    }
    spec
}

/// Rules of an update.
pub(crate) fn update(store: &Store, kind: &Kind, old: &Value, new: &Value, part: Part) -> Result<(), Refusal> {
    let name = text(old, "/metadata/name");
    let invalid = |field: &str, why: &str| Err(Refusal::invalid(kind, name, field, why));
    let before = list(old, "/metadata/finalizers");
    if deleting(old) && list(new, "/metadata/finalizers").iter().any(|f| !before.contains(f)) {
        return invalid(
            "metadata.finalizers",
            "Forbidden: no new finalizers can be added if the object is being deleted",
        );
    }
    if part == Part::Status {
        return Ok(());
    }
    match kind.plural.as_str() {
        "statefulsets" => {
            let mutable = [
                "replicas",
                "ordinals",
                "template",
                "updateStrategy",
                "revisionHistoryLimit",
                "persistentVolumeClaimRetentionPolicy",
                "minReadySeconds",
            ];
            if without(old, &mutable) != without(new, &mutable) {
                return invalid(
                    "spec",
                    "Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                     'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                     'minReadySeconds' are forbidden",
                );
            }
        }
        "deployments" if old["spec"]["selector"] != new["spec"]["selector"] => {
            return invalid("spec.selector", "Invalid value: field is immutable");
        }
        "services" => {
            let ip = text(old, "/spec/clusterIP");
            if !ip.is_empty() && old["spec"]["clusterIP"] != new["spec"]["clusterIP"] {
                return invalid("spec.clusterIPs[0]", "Invalid value: may not change once set");
            }
        }
        "configmaps" | "secrets"
            if old["immutable"] == true && ["data", "binaryData", "immutable"].iter().any(|f| old[f] != new[f]) =>
        {
            return invalid("data", "Forbidden: field is immutable when `immutable` is set");
        }
        "secrets" if old["type"] != new["type"] => return invalid("type", "Invalid value: field is immutable"),
        "pods" => {
            let frozen = |o: &Value| {
                let mut spec = without(o, &["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds"]);
                for c in crate::json::each_mut(&mut spec, "containers") {
                    remove(c, "image");
                }
                spec
            };
            if frozen(old) != frozen(new) {
                return invalid(
                    "spec",
                    "Forbidden: pod updates may not change fields other than `spec.containers[*].image` and few others",
                );
            }
        }
        "persistentvolumeclaims" => return claim(store, kind, old, new),
        _ => {}
    }
    Ok(())
}

/// A claim may only grow, and be lowered again to what is still above its capacity.
fn claim(store: &Store, kind: &Kind, old: &Value, new: &Value) -> Result<(), Refusal> {
    let name = text(old, "/metadata/name");
    let size = |o: &Value, pointer: &str| quantity::parse(text(o, pointer)).map_or(0, |q| q.0);
    let frozen = |o: &Value| {
        let mut spec = without(o, &["volumeName", "volumeAttributesClassName"]);
        spec["resources"]["requests"]["storage"] = json!(null);
        spec
    };
    let (was, wanted) = (size(old, "/spec/resources/requests/storage"), size(new, "/spec/resources/requests/storage"));
    let bound = text(old, "/status/phase") == "Bound";
    if frozen(old) != frozen(new) || (was != wanted && !bound) {
        let why = "Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName \
                   for bound claims";
        return Err(Refusal::invalid(kind, name, "spec", why));
    }
    if wanted < was && wanted <= size(old, "/status/capacity/storage") {
        let why = "Forbidden: field can not be less than status.capacity";
        return Err(Refusal::invalid(kind, name, "spec.resources.requests.storage", why));
    }
    if wanted > was {
        let class = Key {
            group: "storage.k8s.io".into(),
            plural: "storageclasses".into(),
            namespace: String::new(),
            name: text(old, "/spec/storageClassName").into(),
        };
        if store.get(&class).is_none_or(|c| c["allowVolumeExpansion"] != true) {
            let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc \
                       must support resize";
            return Err(Refusal::forbidden(kind, name, why));
        }
    }
    Ok(())
}
