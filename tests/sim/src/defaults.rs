//! What the real API server fills in, drops and rewrites in built-in kinds: enough that an operator which compares
//! what it wants with what is there meets the real differences.

use serde_json::{Value, json};

use crate::json::{default, each_mut, remove, text};
use crate::kinds::Kind;
use crate::quantity;
use crate::store::Store;

/// Completes an object on its way into the store.
pub(crate) fn fill(store: &mut Store, kind: &Kind, o: &mut Value, old: Option<&Value>) {
    prune(o, !kind.custom);
    if kind.custom {
        return;
    }
    match kind.plural.as_str() {
        "services" => service(store, o, old),
        "statefulsets" => {
            default(&mut o["spec"], "replicas", 1.into());
            default(&mut o["spec"], "podManagementPolicy", "OrderedReady".into());
            default(&mut o["spec"], "revisionHistoryLimit", 10.into());
            default(&mut o["spec"], "updateStrategy", json!({ "type": "RollingUpdate" }));
            if o["spec"]["updateStrategy"]["type"] == "RollingUpdate" {
                default(&mut o["spec"]["updateStrategy"], "rollingUpdate", json!({ "partition": 0 }));
            }
            let keep = json!({ "whenDeleted": "Retain", "whenScaled": "Retain" });
            default(&mut o["spec"], "persistentVolumeClaimRetentionPolicy", keep);
            pod_spec(&mut o["spec"]["template"]["spec"]);
            for claim in each_mut(&mut o["spec"], "volumeClaimTemplates") {
                default(claim, "apiVersion", "v1".into());
                default(claim, "kind", "PersistentVolumeClaim".into());
                default(claim, "status", json!({ "phase": "Pending" }));
                default(&mut claim["spec"], "volumeMode", "Filesystem".into());
                resources(&mut claim["spec"]);
            }
            default(o, "status", json!({ "replicas": 0, "availableReplicas": 0 }));
        }
        "deployments" => {
            default(&mut o["spec"], "replicas", 1.into());
            default(&mut o["spec"], "revisionHistoryLimit", 10.into());
            default(&mut o["spec"], "progressDeadlineSeconds", 600.into());
            default(&mut o["spec"], "strategy", json!({ "type": "RollingUpdate" }));
            if o["spec"]["strategy"]["type"] == "RollingUpdate" {
                let rolling = json!({ "maxSurge": "25%", "maxUnavailable": "25%" });
                default(&mut o["spec"]["strategy"], "rollingUpdate", rolling);
            }
            pod_spec(&mut o["spec"]["template"]["spec"]);
            default(o, "status", json!({}));
        }
        "pods" => {
            pod_spec(&mut o["spec"]);
            for c in each_mut(&mut o["spec"], "containers") {
                // Of pods only, not of templates.
                for (k, v) in c["resources"]["limits"].as_object().cloned().unwrap_or_default() {
                    default(&mut c["resources"]["requests"], &k, v);
                }
            }
            default(&mut o["spec"], "serviceAccountName", "default".into());
            default(&mut o["spec"], "enableServiceLinks", true.into());
            default(o, "status", json!({ "phase": "Pending", "qosClass": "BestEffort" }));
        }
        "persistentvolumeclaims" => {
            default(&mut o["spec"], "volumeMode", "Filesystem".into());
            resources(&mut o["spec"]);
            if old.is_none() {
                let class = store.list("storage.k8s.io", "storageclasses", None).find(|(_, c)| {
                    c["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true"
                });
                if let Some((key, _)) = class {
                    default(&mut o["spec"], "storageClassName", key.name.clone().into());
                }
                // The admission plug-in that keeps a claim in use from vanishing under its pod.
                o["metadata"]["finalizers"] = json!(["kubernetes.io/pvc-protection"]);
                default(o, "status", json!({ "phase": "Pending" }));
            }
        }
        "networkpolicies" => {
            let egress = o["spec"].get("egress").is_some();
            let types = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
            default(&mut o["spec"], "policyTypes", types);
            default(&mut o["spec"], "podSelector", json!({}));
            for direction in ["ingress", "egress"] {
                for rule in each_mut(&mut o["spec"], direction) {
                    each_mut(rule, "ports").for_each(|port| default(port, "protocol", "TCP".into()));
                }
            }
        }
        "secrets" => {
            default(o, "type", "Opaque".into());
            if let Some(plain) = o.get("stringData").and_then(Value::as_object).cloned() {
                for (k, v) in plain {
                    let bytes = k8s_openapi::ByteString(v.as_str().unwrap_or_default().as_bytes().to_vec());
                    o["data"][k] = serde_json::to_value(bytes).unwrap();
                }
                remove(o, "stringData");
            }
        }
        "poddisruptionbudgets" if old.is_none() => {
            default(
                o,
                "status",
                json!({ "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0 }),
            );
        }
        "namespaces" if old.is_none() => {
            o["metadata"]["labels"]["kubernetes.io/metadata.name"] = o["metadata"]["name"].clone();
            o["spec"]["finalizers"] = json!(["kubernetes"]);
            o["status"]["phase"] = "Active".into();
        }
        _ => {}
    }
}

/// Nulls are never stored; typed objects also lose what their JSON form omits when empty.
fn prune(v: &mut Value, typed: bool) {
    const OMITTED: [&str; 9] = [
        "labels",
        "annotations",
        "nodeSelector",
        "data",
        "binaryData",
        "limits",
        "requests",
        "matchLabels",
        "finalizers",
    ];
    match v {
        Value::Object(map) => {
            map.retain(|k, v| {
                let empty = v.as_array().is_some_and(Vec::is_empty)
                    || (OMITTED.contains(&k.as_str()) && v.as_object().is_some_and(serde_json::Map::is_empty));
                !(v.is_null() || (typed || k == "labels" || k == "annotations" || k == "finalizers") && empty)
            });
            map.values_mut().for_each(|v| prune(v, typed));
        }
        Value::Array(items) => items.iter_mut().for_each(|v| prune(v, typed)),
        _ => {}
    }
}

fn service(store: &mut Store, o: &mut Value, old: Option<&Value>) {
    default(&mut o["spec"], "type", "ClusterIP".into());
    default(&mut o["spec"], "sessionAffinity", "None".into());
    default(&mut o["spec"], "internalTrafficPolicy", "Cluster".into());
    default(&mut o["spec"], "ipFamilies", json!(["IPv4"]));
    default(&mut o["spec"], "ipFamilyPolicy", "SingleStack".into());
    if o["spec"].get("clusterIP").is_none() {
        o["spec"]["clusterIP"] = match old {
            Some(old) => old["spec"]["clusterIP"].clone(),
            None => format!("10.96.1.{}", store.next() % 250 + 1).into(),
        };
    }
    if o["spec"].get("clusterIPs").is_none() {
        o["spec"]["clusterIPs"] = json!([o["spec"]["clusterIP"]]);
    }
    let outside = matches!(text(o, "/spec/type"), "NodePort" | "LoadBalancer");
    if outside {
        default(&mut o["spec"], "externalTrafficPolicy", "Cluster".into());
    }
    for port in each_mut(&mut o["spec"], "ports") {
        default(port, "protocol", "TCP".into());
        let number = port["port"].clone();
        default(port, "targetPort", number);
        if outside && port.get("nodePort").is_none() {
            let before = old.and_then(|old| {
                old["spec"]["ports"].as_array()?.iter().find(|p| p["port"] == port["port"])?.get("nodePort").cloned()
            });
            port["nodePort"] = before.unwrap_or_else(|| (30000 + store.next() % 2767).into());
        }
    }
    default(o, "status", json!({ "loadBalancer": {} }));
}

fn pod_spec(spec: &mut Value) {
    default(spec, "restartPolicy", "Always".into());
    default(spec, "dnsPolicy", "ClusterFirst".into());
    default(spec, "schedulerName", "default-scheduler".into());
    default(spec, "terminationGracePeriodSeconds", 30.into());
    default(spec, "securityContext", json!({}));
    // The deprecated twin of this field is always there on the real server.
    if let Some(account) = spec.get("serviceAccountName").cloned() {
        spec["serviceAccount"] = account;
    }
    for volume in each_mut(spec, "volumes") {
        for source in ["configMap", "secret", "projected"] {
            if let Some(source) = volume.get_mut(source) {
                default(source, "defaultMode", 420.into());
            }
        }
        if let Some(limit) = volume.pointer_mut("/emptyDir/sizeLimit") {
            rewrite(limit);
        }
    }
    for containers in ["initContainers", "containers"] {
        each_mut(spec, containers).for_each(container);
    }
}

fn container(c: &mut Value) {
    default(c, "terminationMessagePath", "/dev/termination-log".into());
    default(c, "terminationMessagePolicy", "File".into());
    let image = text(c, "/image");
    let floating =
        !image.contains('@') && (image.ends_with(":latest") || !image.rsplit('/').next().unwrap().contains(':'));
    default(c, "imagePullPolicy", if floating { "Always" } else { "IfNotPresent" }.into());
    resources(c);
    each_mut(c, "ports").for_each(|port| default(port, "protocol", "TCP".into()));
    for variable in each_mut(c, "env") {
        if let Some(field) = variable.pointer_mut("/valueFrom/fieldRef") {
            default(field, "apiVersion", "v1".into());
        }
        if variable["value"] == "" {
            remove(variable, "value");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = c.get_mut(probe) else { continue };
        for (field, value) in
            [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
        {
            default(probe, field, value.into());
        }
        if let Some(get) = probe.get_mut("httpGet") {
            default(get, "scheme", "HTTP".into());
            default(get, "path", "/".into());
        }
    }
}

/// Rewrites the quantities of `owner.resources`; an absent one is written as `{}`.
fn resources(owner: &mut Value) {
    default(owner, "resources", json!({}));
    for part in ["limits", "requests"] {
        if let Some(map) = owner["resources"].get_mut(part).and_then(Value::as_object_mut) {
            map.values_mut().for_each(rewrite);
        }
    }
}

fn rewrite(quantity: &mut Value) {
    let given = match &*quantity {
        Value::Number(n) => n.to_string(),
        other => other.as_str().unwrap_or_default().to_owned(),
    };
    if let Some(canonical) = quantity::canonical(&given) {
        *quantity = canonical.into();
    }
}
