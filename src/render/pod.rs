//! The pod of a broker.

use serde_json::{Map, Value, json};

use super::cluster::Input;
use crate::names;

/// Where the volume is mounted: the data directory of the image.
pub(super) const DATA_DIR: &str = "/data";
/// Where `rivven.yaml` is mounted.
const CONFIG_DIR: &str = "/etc/rivven";
/// Where the certificate is mounted. Beside the configuration and not below it, where a read-only volume has no place for
/// another.
const TLS_DIR: &str = "/etc/rivven-tls";
/// Where the rules of who may do what are mounted, beside the configuration for the same reason.
pub(super) const RULES_DIR: &str = "/etc/rivven-rbac";
const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// The template of the StatefulSet. A change of anything in it is a new revision, so it holds only what users own.
pub fn template(input: &Input<'_>) -> Value {
    let spec = input.spec;
    let mut labels = spec.pod_labels.clone();
    labels.extend(names::labels(input.name));
    let mut pod = json!({
        "automountServiceAccountToken": false,
        // Service variables of other objects named rivven would be read as the broker's own configuration.
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": spec.termination_grace_period_seconds,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": spec.security_context.run_as_user,
            "runAsGroup": spec.security_context.fs_group,
            "fsGroup": spec.security_context.fs_group,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "containers": [container(input)],
        "volumes": [{ "name": "config", "configMap": { "name": names::config_map(input.name) } }],
    });
    if let Some(secret) = spec.tls.secret(input.name) {
        let key = |key: &str| json!({ "key": key, "path": key });
        let only = json!({ "secretName": secret, "defaultMode": 0o440, "items": [key("tls.crt"), key("tls.key")] });
        pod["volumes"].as_array_mut().into_iter().for_each(|all| all.push(json!({ "name": "tls", "secret": only })));
    }
    let optional: [(&str, Option<Value>); 6] = [
        ("imagePullSecrets", (!spec.image_pull_secrets.is_empty()).then(|| json!(spec.image_pull_secrets))),
        ("tolerations", (!spec.tolerations.is_empty()).then(|| json!(spec.tolerations))),
        ("nodeSelector", (!spec.node_selector.is_empty()).then(|| json!(spec.node_selector))),
        ("priorityClassName", spec.priority_class_name.as_ref().map(|name| json!(name))),
        ("serviceAccountName", spec.service_account_name.as_ref().map(|name| json!(name))),
        (
            "topologySpreadConstraints",
            (!spec.topology_spread_constraints.is_empty()).then(|| json!(spec.topology_spread_constraints)),
        ),
    ];
    for (field, value) in optional {
        if let Some(value) = value {
            pod[field] = value;
        }
    }
    pod["affinity"] = spec.affinity.as_ref().map_or_else(|| apart(input), |affinity| json!(affinity));
    let mut annotations = spec.pod_annotations.clone();
    annotations.extend(input.restarted_at.map(|value| (names::RESTARTED_AT.to_owned(), value.to_owned())));
    let certificate = input.certificate.filter(|_| spec.tls.enabled);
    annotations.extend(certificate.map(|certificate| (names::CERTIFICATE_HASH.to_owned(), certificate.hash.clone())));
    if let Some(rules) = spec.rules() {
        mount_rules(&mut pod, rules);
        annotations.extend(input.rules.get(rules).map(|hash| (names::RULES.to_owned(), hash.clone())));
    }
    json!({ "metadata": { "labels": labels, "annotations": annotations }, "spec": pod })
}

fn mount_rules(pod: &mut Value, config_map: &str) {
    let (volumes, mounts) = ("/volumes", "/containers/0/volumeMounts");
    let volume = json!({ "name": "rbac", "configMap": { "name": config_map } });
    let mount = json!({ "name": "rbac", "mountPath": RULES_DIR, "readOnly": true });
    for (list, entry) in [(volumes, volume), (mounts, mount)] {
        if let Some(list) = pod.pointer_mut(list).and_then(Value::as_array_mut) {
            list.push(entry);
        }
    }
}

/// Brokers apart by host and by zone where that is possible, and together where it is not.
fn apart(input: &Input<'_>) -> Value {
    let term = |weight: u8, key: &str| {
        json!({
            "weight": weight,
            "podAffinityTerm": { "labelSelector": { "matchLabels": names::selector(input.name) }, "topologyKey": key },
        })
    };
    json!({ "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [term(100, HOSTNAME_LABEL), term(50, ZONE_LABEL)] } })
}

fn container(input: &Input<'_>) -> Value {
    let spec = input.spec;
    let port = |name: &str, port: u16| json!({ "name": name, "containerPort": port, "protocol": "TCP" });
    let mut mounts = vec![
        json!({ "name": "data", "mountPath": DATA_DIR }),
        json!({ "name": "config", "mountPath": CONFIG_DIR, "readOnly": true }),
    ];
    if spec.tls.enabled {
        mounts.push(json!({ "name": "tls", "mountPath": TLS_DIR, "readOnly": true }));
    }
    let mut container = json!({
        "name": names::CONTAINER,
        "image": image(&spec.image, &spec.version),
        "ports": [port("client", names::CLIENT_PORT), port("cluster", names::CLUSTER_PORT), port("metrics", names::API_PORT)],
        "env": environment(input),
        "volumeMounts": mounts,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
        // The broker's last words reach the user when it cannot do what is asked.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    });
    probes(input, &mut container);
    if let Some(policy) = spec.image_pull_policy {
        container["imagePullPolicy"] = json!(policy);
    }
    if let Some(resources) = &spec.resources {
        container["resources"] = json!(resources);
    }
    container
}

/// A tag or a digest in `image` wins over `version`.
pub(super) fn image(image: &str, version: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or_default();
    if name.contains([':', '@']) { image.to_owned() } else { format!("{image}:{version}") }
}

/// The room to start is the documented 300 s. It is asked every second and not every ten, and the other probes begin
/// when it succeeds, so that a broker is in service one second after it serves and not eleven.
fn probes(input: &Input<'_>, container: &mut Value) {
    // The HTTP API asks no client for a certificate (read in the released source), so the kubelet may ask it.
    let get = |path: &str| {
        let mut get = json!({ "path": path, "port": "metrics" });
        if input.spec.tls.enabled {
            get["scheme"] = json!("HTTPS");
        }
        get
    };
    let split = input.capabilities.health_split;
    let path = |split_path: &'static str| if split { split_path } else { "/health" };
    container["startupProbe"] = json!({ "httpGet": get(path("/health/startup")), "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 300 });
    container["livenessProbe"] = json!({ "httpGet": get(path("/health/live")), "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3 });
    // The released broker stays "healthy" without a client port (observed on 0.0.22), so readiness asks that port.
    // Where there is a better answer, it is asked for every second: in a rollout nobody restarts before the kubelet has
    // noticed that the last one is back, and a broker that is asked a moment too early is not ready for a period more.
    container["readinessProbe"] = if split {
        json!({ "httpGet": get("/health/ready"), "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 15 })
    } else {
        json!({ "tcpSocket": { "port": "client" }, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 3 })
    };
}

fn environment(input: &Input<'_>) -> Value {
    let spec = input.spec;
    let config = &spec.config;
    let any = |port: u16| format!("0.0.0.0:{port}");
    let mut variables: Vec<Value> = vec![
        json!({ "name": "RIVVEN_NODE_ID", "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.name" } } }),
        json!({
            "name": "RIVVEN_CLUSTER_AUTH_TOKEN",
            "valueFrom": { "secretKeyRef": { "name": names::auth_secret(input.name), "key": names::TOKEN_KEY } },
        }),
    ];
    let mut plain: Map<String, Value> = Map::new();
    let mut set = |name: &str, value: String| {
        plain.insert(name.to_owned(), Value::String(value));
    };
    let clustering = input.capabilities.clustering;
    set("RIVVEN_MODE", if clustering { "cluster" } else { "standalone" }.to_owned());
    set("RIVVEN_BIND", any(names::CLIENT_PORT));
    set("RIVVEN_CLUSTER_BIND", any(names::CLUSTER_PORT));
    set("RIVVEN_API_BIND", any(names::API_PORT));
    set("RIVVEN_DATA_DIR", DATA_DIR.to_owned());
    set("RIVVEN_DEFAULT_PARTITIONS", config.default_partitions.to_string());
    set("RIVVEN_REPLICATION_FACTOR", config.default_replication_factor.to_string());
    set("RIVVEN_MIN_ISR", config.min_insync_replicas.to_string());
    set("RIVVEN_MAX_SEGMENT_SIZE", config.log_segment_bytes.to_string());
    set("RIVVEN_MAX_REQUEST_SIZE", config.max_request_bytes.to_string());
    set("RIVVEN_IDLE_TIMEOUT_SECS", config.idle_timeout_seconds.to_string());
    set("RIVVEN_MAX_CONNECTIONS_PER_IP", config.max_connections_per_ip.to_string());
    set("RUST_LOG", config.log_level.clone());
    set("NO_COLOR", "1".to_owned());
    if clustering {
        set("RIVVEN_CLUSTER_NAME", input.name.to_owned());
    }
    if clustering && input.capabilities.dns_addresses {
        let service = format!("{}.{}.svc.{}", names::headless_service(input.name), input.namespace, input.domain);
        set("RIVVEN_ADVERTISE_ADDR", format!("$(RIVVEN_NODE_ID).{service}:{}", names::CLUSTER_PORT));
        // The Service and not a list of brokers: a list would change, and restart everybody, with each broker added.
        set("RIVVEN_SEEDS", format!("{service}:{}", names::CLUSTER_PORT));
    }
    if spec.tls.enabled {
        set("RIVVEN_TLS_ENABLED", "true".to_owned());
        set("RIVVEN_TLS_CERT", format!("{TLS_DIR}/tls.crt"));
        set("RIVVEN_TLS_KEY", format!("{TLS_DIR}/tls.key"));
        set("RIVVEN_TLS_CA", format!("{CONFIG_DIR}/{}", names::AUTHORITIES_KEY));
        set("RIVVEN_TLS_VERIFY_CLIENT", spec.tls.client_ca_secret_name.is_some().to_string());
    }
    // Authentication is refused before anything is rendered; so far brokers are fenced by the NetworkPolicy.
    // A released broker has no way to create a user: without this nobody could do anything.
    if !spec.auth.enabled {
        set("RIVVEN_NO_REQUIRE_AUTH", "true".to_owned());
    }
    variables.extend(plain.into_iter().map(|(name, value)| json!({ "name": name, "value": value })));
    variables.extend(spec.env.iter().map(|variable| json!(variable)));
    Value::Array(variables)
}
