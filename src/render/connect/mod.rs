//! The objects of a connect.

mod pod;
pub mod text;
pub mod translate;

use std::collections::{BTreeMap, BTreeSet};

use rivven_fsm::connect::{Connector, Object, Role, Runs};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use self::text::Node;
use self::translate::Translated;
use crate::api::RivvenConnectSpec;
use crate::names;

/// Where the file of a worker is mounted.
const CONFIG_DIR: &str = "/etc/rivven";
/// Where the certificates are mounted.
const TLS_DIR: &str = "/etc/rivven-tls";

/// What the objects are made of.
pub struct Input<'a> {
    /// Name of the connect.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its uid: the owner of every object.
    pub uid: &'a str,
    /// Its spec.
    pub spec: &'a RivvenConnectSpec,
    /// Another value restarts every worker.
    pub restarted_at: Option<&'a str>,
    /// What each worker runs.
    pub runs: &'a Runs,
    /// Its file.
    pub files: &'a BTreeMap<u32, File>,
    /// Workers whose Deployment cannot be told yet, as their Secret is not there.
    pub secrets: &'a BTreeMap<u32, String>,
    /// This Kubernetes has the kind `ServiceMonitor`.
    pub monitors: bool,
}

/// The file of a worker, and the environment it takes values from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its text. It holds no secret.
    pub text: String,
    /// The variables, as they must be pasted.
    pub variables: BTreeMap<String, String>,
}

impl File {
    /// The key of the file in the ConfigMap. It tells the content: a pod keeps the file that it was made with, whatever
    /// becomes of the ConfigMap while it runs or is started again.
    pub fn key(&self, index: u32) -> String {
        format!("worker-{index}-{}.yaml", &hash(&[self.text.as_bytes()]))
    }
}

/// 16 hexadecimal digits.
fn hash(parts: &[&[u8]]) -> String {
    use std::fmt::Write;
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(u64::try_from(part.len()).unwrap_or_default().to_be_bytes());
        digest.update(part);
    }
    digest.finalize().iter().take(8).fold(String::with_capacity(16), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The hash of a worker's variables. Salted, with what stands beside them in the Secret only: it is shown on pods, and a
/// short secret could be guessed by it.
pub fn secret_hash(salt: &[u8], variables: &BTreeMap<String, String>) -> String {
    let mut parts = vec![salt];
    parts.extend(variables.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]));
    hash(&parts)
}

/// The files of the workers. `broker`: where the cluster is reached, as host and port.
pub fn files(
    spec: &RivvenConnectSpec,
    broker: &str,
    tls: Option<&BTreeSet<String>>,
    runs: &Runs,
    translated: &BTreeMap<Connector, Translated>,
) -> BTreeMap<u32, File> {
    let file = |connectors: &BTreeSet<Connector>| {
        let mut root: Node = common(spec, broker, tls).into();
        let mut variables = BTreeMap::new();
        for id in connectors {
            let Some(connector) = translated.get(id) else { continue };
            let part = if id.role == Role::Source { "sources" } else { "sinks" };
            root.put(&[part, &id.name], connector.entry.clone());
            variables.extend(connector.variables.clone());
        }
        File { text: text::file(&root), variables }
    };
    runs.iter().map(|(index, connectors)| (*index, file(connectors))).collect()
}

fn common(spec: &RivvenConnectSpec, broker: &str, tls: Option<&BTreeSet<String>>) -> Value {
    let (topic, retry) = (&spec.settings.topic, &spec.settings.retry);
    let (health, metrics) = (&spec.settings.health, &spec.settings.metrics);
    let mut root = json!({
        "version": "1.0",
        "broker": { "bootstrap_servers": [broker] },
        "settings": {
            "topic": {
                "auto_create": topic.auto_create,
                "default_partitions": topic.default_partitions,
                "default_replication_factor": topic.default_replication_factor,
            },
            "retry": {
                "max_retries": retry.max_retries,
                "initial_backoff_ms": retry.initial_backoff_ms,
                "max_backoff_ms": retry.max_backoff_ms,
            },
            "health": { "enabled": health.enabled, "port": health.port },
            "metrics": { "enabled": metrics.enabled, "port": metrics.port },
        },
    });
    if let Some(keys) = tls {
        let paths = [("cert_path", "tls.crt"), ("key_path", "tls.key"), ("ca_path", "ca.crt")];
        let mut tls = Map::from_iter([("enabled".to_owned(), json!(true))]);
        let there = paths.into_iter().filter(|(_, key)| keys.contains(*key));
        tls.extend(there.map(|(field, key)| (field.to_owned(), json!(format!("{TLS_DIR}/{key}")))));
        // Else it takes the brokers' certificate for one of `localhost`.
        tls.insert("server_name".to_owned(), json!(broker.rsplit_once(':').map_or(broker, |(host, _)| host)));
        root["broker"]["tls"] = Value::Object(tls);
    }
    root
}

/// Every object of a connect.
pub fn objects(input: &Input<'_>) -> BTreeMap<Object, Value> {
    let mut all = BTreeMap::from([(Object::ConfigMap, config_map(input))]);
    let ports = ports(input.spec);
    if !ports.is_empty() {
        all.insert(Object::Service, service(input, &ports));
    }
    if input.monitors {
        all.insert(Object::ServiceMonitor, service_monitor(input));
    }
    for (index, file) in input.files {
        if file.variables.is_empty() {
            all.insert(Object::Worker(*index), deployment(input, *index, file));
            continue;
        }
        all.insert(Object::Secret(*index), secret(input, *index));
        if input.secrets.contains_key(index) {
            all.insert(Object::Worker(*index), deployment(input, *index, file));
        }
    }
    all
}

fn metadata(input: &Input<'_>, name: &str) -> Value {
    json!({
        "name": name,
        "namespace": input.namespace,
        "labels": names::connect_labels(input.name),
        "ownerReferences": [{
            "apiVersion": "rivven.io/v1alpha1",
            "kind": "RivvenConnect",
            "name": input.name,
            "uid": input.uid,
            "controller": true,
        }],
    })
}

/// The files, and beside them the ledger of who may run what. Whoever gives a connector to a worker writes it here first,
/// at the version that was looked at, so that two who saw different worlds cannot both give it away.
fn config_map(input: &Input<'_>) -> Value {
    let mut metadata = metadata(input, &names::connect_config(input.name));
    let ledger: BTreeMap<String, Vec<String>> = input
        .runs
        .iter()
        .map(|(index, runs)| (index.to_string(), runs.iter().map(ToString::to_string).collect()))
        .collect();
    metadata["annotations"] = json!({ names::PLACEMENT: json!(ledger).to_string() });
    let files: BTreeMap<String, &str> =
        input.files.iter().map(|(index, file)| (file.key(*index), file.text.as_str())).collect();
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": files })
}

/// Without the values: they are secret, and written beside what is hashed.
fn secret(input: &Input<'_>, index: u32) -> Value {
    let metadata = metadata(input, &names::worker(input.name, index));
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque" })
}

fn ports(spec: &RivvenConnectSpec) -> Vec<(&'static str, u16)> {
    let (health, metrics) = (&spec.settings.health, &spec.settings.metrics);
    let all = [(health.enabled, "health", health.port), (metrics.enabled, "metrics", metrics.port)];
    all.into_iter().filter(|(enabled, ..)| *enabled).map(|(_, name, port)| (name, port)).collect()
}

fn service(input: &Input<'_>, ports: &[(&str, u16)]) -> Value {
    let port =
        |(name, port): &(&str, u16)| json!({ "name": name, "port": port, "targetPort": name, "protocol": "TCP" });
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(input, &names::connect(input.name)),
        "spec": {
            "type": "ClusterIP",
            "selector": names::connect_selector(input.name),
            "ports": ports.iter().map(port).collect::<Vec<_>>(),
        },
    })
}

fn service_monitor(input: &Input<'_>) -> Value {
    json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": metadata(input, &names::connect(input.name)),
        "spec": {
            "selector": { "matchLabels": names::connect_selector(input.name) },
            "endpoints": [{ "port": "metrics" }],
        },
    })
}

/// One worker. `Recreate`: a connector stops before it starts again with another configuration.
fn deployment(input: &Input<'_>, index: u32, file: &File) -> Value {
    let mut metadata = metadata(input, &names::worker(input.name, index));
    metadata["labels"][names::WORKER] = json!(index.to_string());
    let mut selector = names::connect_selector(input.name);
    selector.insert(names::WORKER.to_owned(), index.to_string());
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 2,
            "strategy": { "type": "Recreate" },
            "selector": { "matchLabels": selector },
            "template": pod::template(input, index, file),
        },
    })
}
