//! The objects of a cluster.

use std::collections::BTreeMap;

use rivven_fsm::cluster::{Capabilities, Object};
use serde_json::{Value, json};

use super::pod;
use crate::api::{ExternalAccessSpec, IngressSpec, RivvenClusterSpec};
use crate::names;

/// What the objects are made of.
pub struct Input<'a> {
    /// Name of the cluster.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its uid: the owner of every object.
    pub uid: &'a str,
    /// The spec that is in force.
    pub spec: &'a RivvenClusterSpec,
    /// What the broker version of the spec can do.
    pub capabilities: Capabilities,
    /// DNS domain of the Kubernetes cluster.
    pub domain: &'a str,
    /// Another value restarts every broker, in order.
    pub restarted_at: Option<&'a str>,
    /// The certificate, where the spec asks for TLS and there is one.
    pub certificate: Option<&'a Material>,
    /// The hashes of the rules of who may do what, by the name of the ConfigMap.
    pub rules: &'a BTreeMap<String, String>,
}

/// A certificate, as far as it is rendered. Its key stays in its Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Material {
    /// Another value restarts every broker, in order: they read their certificate when they start.
    pub hash: String,
    /// Whom brokers believe, as PEM.
    pub authorities: String,
    /// What they show, as PEM.
    pub shown: String,
}

/// Every object of a cluster.
pub fn cluster(input: &Input<'_>) -> BTreeMap<Object, Value> {
    let mut objects = BTreeMap::from([
        (Object::AuthSecret, auth_secret(input)),
        (Object::ConfigMap, config_map(input)),
        (Object::HeadlessService, headless_service(input)),
        (Object::ClientService, client_service(input)),
        (Object::PodDisruptionBudget, disruption_budget(input)),
        (Object::NetworkPolicy, network_policy(input)),
        (Object::StatefulSet, stateful_set(input)),
    ]);
    objects.extend(certificate(input).map(|certificate| (Object::Certificate, certificate)));
    if let Some(access) = &input.spec.external_access {
        let service = |ordinal| (Object::ExternalService(ordinal), external_service(input, access, ordinal));
        objects.extend((0..input.spec.replicas).map(service));
    }
    objects.extend(input.spec.ingress.as_ref().map(|wanted| (Object::Ingress, ingress(input, wanted))));
    objects
}

fn metadata(input: &Input<'_>, name: &str) -> Value {
    json!({
        "name": name,
        "namespace": input.namespace,
        "labels": names::labels(input.name),
        "ownerReferences": [{
            "apiVersion": "rivven.io/v1alpha1",
            "kind": "RivvenCluster",
            "name": input.name,
            "uid": input.uid,
            "controller": true,
        }],
    })
}

/// Without the token: it is random, and made once when the Secret is created.
fn auth_secret(input: &Input<'_>) -> Value {
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata(input, &names::auth_secret(input.name)), "type": "Opaque" })
}

/// `rivven.yaml` as the project documents it. The released broker reads no file; it is told the same by environment.
fn config_map(input: &Input<'_>) -> Value {
    let config = &input.spec.config;
    let mut file = json!({
        "node": { "data_dir": pod::DATA_DIR },
        "cluster": { "bootstrap_expect": input.spec.replicas },
        "storage": { "segment_size": config.log_segment_bytes, "retention_bytes": config.log_retention_bytes },
        "topics": {
            "default_partitions": config.default_partitions,
            "default_replication_factor": config.default_replication_factor,
            "min_insync_replicas": config.min_insync_replicas,
            "retention_hours": config.log_retention_hours,
        },
        "observability": { "metrics": { "enabled": input.spec.metrics.enabled, "port": input.spec.metrics.port } },
    });
    let auth = &input.spec.auth;
    if auth.enabled {
        file["auth"] = json!({ "enabled": true, "mechanism": auth.mechanism });
    }
    if input.spec.rules().is_some() {
        file["auth"]["rbac"] = json!({ "enabled": true, "path": pod::RULES_DIR });
    }
    // JSON is YAML: what reads the one reads the other, and no value needs quoting of its own.
    let text = serde_json::to_string_pretty(&file).unwrap_or_default();
    let mut data = json!({ "rivven.yaml": text });
    if let Some(certificate) = input.certificate.filter(|_| input.spec.tls.enabled) {
        data[names::AUTHORITIES_KEY] = json!(certificate.authorities);
        data[names::CERTIFICATE_KEY] = json!(certificate.shown);
    }
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(input, &names::config_map(input.name)),
        "data": data,
    })
}

/// What is asked of cert-manager, where the spec names an issuer. Brokers show it to clients and to each other.
fn certificate(input: &Input<'_>) -> Option<Value> {
    let issuer = input.spec.tls.issuer_ref.as_ref().filter(|_| input.spec.tls.enabled)?;
    let (client, headless) = (names::client_service(input.name), names::headless_service(input.name));
    let under = |service: &str| {
        let short = format!("{service}.{}.svc", input.namespace);
        [format!("{short}.{}", input.domain), short]
    };
    let names: Vec<String> =
        under(&format!("*.{headless}")).into_iter().chain(under(&client)).chain([client.clone()]).collect();
    Some(json!({
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": metadata(input, &names::certificate(input.name)),
        "spec": {
            "secretName": names::certificate_secret(input.name),
            "issuerRef": { "name": issuer.name, "kind": issuer.kind, "group": issuer.group },
            "dnsNames": names,
            "usages": ["digital signature", "key encipherment", "server auth", "client auth"],
            "privateKey": { "rotationPolicy": "Always" },
        },
    }))
}

fn port(name: &str, port: u16) -> Value {
    json!({ "name": name, "port": port, "targetPort": name, "protocol": "TCP" })
}

/// Gives each broker its DNS name, ready or not: brokers must find each other to become ready.
fn headless_service(input: &Input<'_>) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(input, &names::headless_service(input.name)),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": true,
            "selector": names::selector(input.name),
            "ports": [port("client", names::CLIENT_PORT), port("cluster", names::CLUSTER_PORT), port("metrics", names::API_PORT)],
        },
    })
}

fn client_service(input: &Input<'_>) -> Value {
    let mut ports = vec![port("client", names::CLIENT_PORT)];
    let mut api = port("metrics", names::API_PORT);
    if input.spec.metrics.enabled {
        ports.push(api);
    } else if input.spec.ingress.is_some() {
        // A ServiceMonitor selects by the port's name: under another one, nothing is scraped.
        api["name"] = json!("api");
        ports.push(api);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(input, &names::client_service(input.name)),
        "spec": { "type": "ClusterIP", "selector": names::selector(input.name), "ports": ports },
    })
}

/// One broker for clients from outside. A broker that is not ready has no endpoint here: its clients are refused at once
/// and try another. Traffic comes by the broker's own node only (`Local`): there is one endpoint and nothing to spread, and
/// brokers count the connections of each client's address, which a second hop would replace by the node's.
fn external_service(input: &Input<'_>, access: &ExternalAccessSpec, ordinal: u32) -> Value {
    let mut selector = names::selector(input.name);
    selector.insert("statefulset.kubernetes.io/pod-name".to_owned(), names::pod(input.name, ordinal));
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": annotated(metadata(input, &names::external_service(input.name, ordinal)), &access.annotations),
        "spec": {
            "type": access.type_,
            "externalTrafficPolicy": "Local",
            "selector": selector,
            "ports": [port("client", names::CLIENT_PORT)],
        },
    })
}

/// By the port's number: its name says whether metrics are scraped.
fn ingress(input: &Input<'_>, wanted: &IngressSpec) -> Value {
    let service = json!({ "name": names::client_service(input.name), "port": { "number": names::API_PORT } });
    let path = json!({ "path": "/", "pathType": "Prefix", "backend": { "service": service } });
    let mut spec = json!({ "rules": [{ "host": wanted.host, "http": { "paths": [path] } }] });
    if let Some(class) = &wanted.class_name {
        spec["ingressClassName"] = json!(class);
    }
    if let Some(secret) = &wanted.tls_secret_name {
        spec["tls"] = json!([{ "hosts": [wanted.host], "secretName": secret }]);
    }
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": annotated(metadata(input, &names::ingress(input.name)), &wanted.annotations),
        "spec": spec,
    })
}

/// With the spec's annotations, and a note which those are.
fn annotated(mut metadata: Value, annotations: &BTreeMap<String, String>) -> Value {
    if !annotations.is_empty() {
        let keys: Vec<&str> = annotations.keys().map(String::as_str).collect();
        metadata["annotations"] = json!(annotations);
        metadata["annotations"][names::ANNOTATIONS] = json!(keys.join(","));
    }
    metadata
}

/// Drains and the operator exclude each other through it: both evict, and one broker at a time may be away.
fn disruption_budget(input: &Input<'_>) -> Value {
    json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(input, &names::disruption_budget(input.name)),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": { "matchLabels": names::selector(input.name) },
        },
    })
}

/// Clients from anywhere; the cluster port and the HTTP API from brokers and operator only, and the latter from where
/// Prometheus and Ingress controllers are. Switched off, it lets everything in: a policy that is taken away needs a right
/// to delete that the operator does without.
fn network_policy(input: &Input<'_>) -> Value {
    let tcp = |port: u16| json!({ "protocol": "TCP", "port": port });
    let anywhere = |labels: Value| json!({ "namespaceSelector": {}, "podSelector": { "matchLabels": labels } });
    let inside = [
        json!({ "podSelector": { "matchLabels": names::selector(input.name) } }),
        anywhere(json!({ "app.kubernetes.io/name": "rivven-operator" })),
    ];
    let policy = &input.spec.network_policy;
    let namespace = |name| json!({ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": name } } });
    let outside: Vec<Value> = policy.monitoring_from.iter().chain(&policy.ingress_from).map(namespace).collect();
    let mut rules = vec![
        json!({ "ports": [tcp(names::CLIENT_PORT)] }),
        json!({ "from": inside, "ports": [tcp(names::CLUSTER_PORT), tcp(names::API_PORT)] }),
    ];
    // From nobody would be from everybody.
    if !outside.is_empty() {
        rules.push(json!({ "from": outside, "ports": [tcp(names::API_PORT)] }));
    }
    if !policy.enabled {
        rules = vec![json!({})];
    }
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(input, &names::network_policy(input.name)),
        "spec": {
            "podSelector": { "matchLabels": names::selector(input.name) },
            "policyTypes": ["Ingress"],
            "ingress": rules,
        },
    })
}

fn stateful_set(input: &Input<'_>) -> Value {
    let mut metadata = metadata(input, &names::stateful_set(input.name));
    metadata["labels"][names::CLUSTER_UID] = json!(input.uid);
    let mut claim_labels = names::labels(input.name);
    claim_labels.insert(names::CLUSTER_UID.to_owned(), input.uid.to_owned());
    let mut claim = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": { "requests": { "storage": input.spec.storage.size } },
    });
    if !input.spec.storage.storage_class_name.is_empty() {
        claim["storageClassName"] = json!(input.spec.storage.storage_class_name);
    }
    json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata,
        "spec": {
            "replicas": input.spec.replicas,
            "serviceName": names::headless_service(input.name),
            "podManagementPolicy": "Parallel",
            "updateStrategy": { "type": "OnDelete" },
            "selector": { "matchLabels": names::selector(input.name) },
            "template": pod::template(input),
            "volumeClaimTemplates": [{
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": { "name": "data", "labels": claim_labels },
                "spec": claim,
            }],
        },
    })
}
