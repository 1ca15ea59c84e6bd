//! The pod of a worker.

use serde_json::{Value, json};

use super::{CONFIG_DIR, File, Input, TLS_DIR, hash, ports};
use crate::names;
use crate::render::pod::image;

/// The user of the released image.
const USER: u32 = 65532;
/// A worker is stopped by a signal that ends it at once; what it has not committed is read again.
const GRACE_SECONDS: u32 = 10;

/// The template of a worker's Deployment, with a hash of itself by which its pods are known.
pub(super) fn template(input: &Input<'_>, index: u32, file: &File) -> Value {
    let spec = input.spec;
    let mut labels = names::connect_labels(input.name);
    labels.insert(names::WORKER.to_owned(), index.to_string());
    let runs: Vec<String> = input.runs.get(&index).into_iter().flatten().map(ToString::to_string).collect();
    let mut annotations = json!({ names::CONNECTORS: runs.join(",") });
    if let Some(hash) = input.secrets.get(&index) {
        annotations[names::SECRETS] = json!(hash);
    }
    if let Some(value) = input.restarted_at {
        annotations[names::RESTARTED_AT] = json!(value);
    }
    let mut volumes = vec![json!({
        "name": "config",
        "configMap": {
            "name": names::connect_config(input.name),
            "items": [{ "key": file.key(index), "path": "connect.yaml" }],
        },
    })];
    if let Some(secret) = spec.tls.cert_secret_name.as_ref().filter(|_| spec.tls.enabled) {
        volumes.push(json!({ "name": "tls", "secret": { "secretName": secret } }));
    }
    let mut pod = json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        // The worker ignores SIGTERM as process 1, and only then (observed on 0.0.22).
        "shareProcessNamespace": true,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "containers": [container(input, index, file)],
        "volumes": volumes,
    });
    let optional: [(&str, Option<Value>); 4] = [
        ("imagePullSecrets", (!spec.image_pull_secrets.is_empty()).then(|| json!(spec.image_pull_secrets))),
        ("tolerations", (!spec.tolerations.is_empty()).then(|| json!(spec.tolerations))),
        ("nodeSelector", (!spec.node_selector.is_empty()).then(|| json!(spec.node_selector))),
        ("affinity", spec.affinity.as_ref().map(|affinity| json!(affinity))),
    ];
    for (field, value) in optional {
        if let Some(value) = value {
            pod[field] = value;
        }
    }
    let mut template = json!({ "metadata": { "labels": labels, "annotations": annotations }, "spec": pod });
    let own = hash(&[template.to_string().as_bytes()]);
    template["metadata"]["annotations"][names::TEMPLATE] = json!(own);
    template
}

fn container(input: &Input<'_>, index: u32, file: &File) -> Value {
    let spec = input.spec;
    let mut mounts = vec![json!({ "name": "config", "mountPath": CONFIG_DIR, "readOnly": true })];
    if spec.tls.enabled && spec.tls.cert_secret_name.is_some() {
        mounts.push(json!({ "name": "tls", "mountPath": TLS_DIR, "readOnly": true }));
    }
    let mut variables = vec![json!({ "name": "NO_COLOR", "value": "1" })];
    variables.extend(file.variables.keys().map(|name| {
        let key = json!({ "name": names::worker(input.name, index), "key": name });
        json!({ "name": name, "valueFrom": { "secretKeyRef": key } })
    }));
    let port = |(name, port): (&str, u16)| json!({ "name": name, "containerPort": port, "protocol": "TCP" });
    let mut container = json!({
        "name": names::CONTAINER,
        "image": image(&spec.image, &spec.version),
        "args": ["--config", format!("{CONFIG_DIR}/connect.yaml"), "run"],
        "env": variables,
        "volumeMounts": mounts,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    });
    let ports = ports(spec);
    if !ports.is_empty() {
        container["ports"] = ports.into_iter().map(port).collect();
    }
    if spec.settings.health.enabled {
        // `/health` and `/ready` answer 503 for ever (observed on 0.0.22).
        let live = json!({ "path": "/live", "port": "health" });
        container["startupProbe"] =
            json!({ "httpGet": live, "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 60 });
        container["livenessProbe"] =
            json!({ "httpGet": live, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3 });
        container["readinessProbe"] =
            json!({ "httpGet": live, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 3 });
    }
    if let Some(resources) = &spec.resources {
        container["resources"] = json!(resources);
    }
    container
}
