//! The custom resources on a real API server: what it accepts, what it refuses, and that nothing falls between it and
//! the operator's own checks. Needs `KUBECONFIG`; everything but one topic is a dry run, in a namespace of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

#[path = "../../../generate/mod.rs"]
mod generate;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, ResourceExt};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rivven_fsm::cluster;
use rivven_operator::api::{RivvenCluster, RivvenConnect, RivvenTopic, crds};
use rivven_operator::broker::capabilities;
use rivven_operator::render;
use serde_json::{Value, json};

/// A namespace that goes when the test ends.
struct Place {
    client: Client,
    namespace: String,
}

impl Place {
    async fn new(name: &str) -> Self {
        let client = Client::try_default().await.expect("KUBECONFIG names a cluster");
        install(&client).await;
        let namespace = format!("api-{name}-{}", std::process::id());
        let object = serde_json::from_value(json!({ "metadata": { "name": namespace } })).unwrap();
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &object).await.unwrap();
        Self { client, namespace }
    }

    async fn end(self) {
        Api::<Namespace>::all(self.client).delete(&self.namespace, &DeleteParams::default()).await.unwrap();
    }

    /// Where objects of this kind are made.
    fn path(&self, object: &Value) -> String {
        let (version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
        let root = if version.contains('/') { "apis" } else { "api" };
        let plural = match kind {
            "NetworkPolicy" => "networkpolicies".to_owned(),
            "Ingress" => "ingresses".to_owned(),
            _ => format!("{}s", kind.to_lowercase()),
        };
        format!("/{root}/{version}/namespaces/{}/{plural}", self.namespace)
    }

    async fn send(&self, method: &str, path: &str, object: &Value) -> Result<Value, String> {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("Content-Type", "application/json")
            .body(serde_json::to_vec(object).unwrap())
            .unwrap();
        self.client.request::<Value>(request).await.map_err(|error| match error {
            kube::Error::Api(status) if status.code < 500 => status.message,
            other => panic!("the API server did not give a verdict: {other}"),
        })
    }

    /// What the API server would store, or why it refuses.
    async fn create(&self, object: &Value) -> Result<Value, String> {
        let mut object = object.clone();
        object["metadata"]["namespace"] = json!(self.namespace);
        self.send("POST", &format!("{}?dryRun=All&fieldValidation=Strict", self.path(&object)), &object).await
    }

    async fn update(&self, object: &Value) -> Result<Value, String> {
        let path = format!("{}/{}", self.path(object), object["metadata"]["name"].as_str().unwrap());
        self.send("PUT", &format!("{path}?dryRun=All&fieldValidation=Strict"), object).await
    }
}

/// The CRDs of this build.
async fn install(client: &Client) {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    for crd in crds() {
        let mut object = json!(crd);
        object["apiVersion"] = json!("apiextensions.k8s.io/v1");
        object["kind"] = json!("CustomResourceDefinition");
        let parameters = PatchParams::apply("rivven-e2e").force().validation_strict();
        api.patch(&crd.name_any(), &parameters, &Patch::Apply(object)).await.unwrap();
        let name = crd.name_any();
        let established = await_condition(api.clone(), &name, conditions::is_crd_established());
        tokio::time::timeout(Duration::from_secs(30), established).await.expect("the CRD is established").unwrap();
    }
}

fn object(kind: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "rivven.io/v1alpha1", "kind": kind, "metadata": { "name": "a" }, "spec": spec })
}

/// Where `whole` lacks something of `part`, or says it differently.
fn lost(part: &Value, whole: &Value, at: &str) -> Vec<String> {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => part
            .iter()
            .flat_map(|(key, value)| lost(value, whole.get(key).unwrap_or(&Value::Null), &format!("{at}.{key}")))
            .collect(),
        (Value::Array(part), Value::Array(whole)) if part.len() == whole.len() => part
            .iter()
            .zip(whole)
            .enumerate()
            .flat_map(|(index, (part, whole))| lost(part, whole, &format!("{at}[{index}]")))
            .collect(),
        _ if part == whole => Vec::new(),
        _ => vec![format!("{at} was {part} and is {whole}")],
    }
}

/// What the operator has against an object that the API server accepted.
fn objections(object: &Value) -> Vec<String> {
    match object["kind"].as_str().unwrap() {
        "RivvenCluster" => {
            let cluster: RivvenCluster = serde_json::from_value(object.clone()).expect("what is accepted can be read");
            let wish = cluster.spec.wish(&cluster.name_any());
            let capabilities = capabilities(&cluster.spec.version);
            let candidate = cluster::Candidate::first(wish, capabilities);
            cluster::admit(&candidate)
                .refusals()
                .iter()
                .map(|refusal| format!("{:?}: {}", refusal.reason, refusal.message))
                .collect()
        }
        "RivvenTopic" => {
            serde_json::from_value::<RivvenTopic>(object.clone()).expect("what is accepted can be read").wish().problems
        }
        _ => {
            serde_json::from_value::<RivvenConnect>(object.clone()).expect("what is accepted can be read");
            Vec::new()
        }
    }
}

#[tokio::test]
async fn samples_are_accepted_and_nothing_of_them_is_lost() {
    let place = Place::new("samples").await;
    let mut accepted = 0;
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/samples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let documents: Vec<Value> = serde_saphyr::from_multiple(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for mut sample in documents {
            sample["metadata"]["namespace"] = json!(place.namespace);
            let stored = place.create(&sample).await.unwrap_or_else(|refusal| panic!("{}: {refusal}", path.display()));
            assert_eq!(lost(&sample, &stored, ""), Vec::<String>::new(), "{}", path.display());
            objections(&stored);
            accepted += 1;
        }
    }
    println!("samples accepted: {accepted}");
    assert!(accepted >= 8);
    place.end().await;
}

/// Who stops a wrong spec, and the words that name the field.
enum Stopped {
    ByServer(&'static str),
    ByOperator(&'static str),
}
use Stopped::{ByOperator, ByServer};

/// Sets what the path leads to.
fn with(mut spec: Value, path: &str, value: Value) -> Value {
    let mut at = &mut spec;
    for name in path.split('.') {
        at = match name.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[name],
        };
    }
    *at = value;
    spec
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn wrong_clusters() -> Vec<(&'static str, Value, Stopped)> {
    vec![
        ("replicas", json!(0), ByServer("spec.replicas")),
        ("replicas", json!(100), ByServer("spec.replicas")),
        ("replicas", json!(-1), ByServer("spec.replicas")),
        ("replicas", json!("3"), ByServer("spec.replicas")),
        ("replicas", json!(1.5), ByServer("spec.replicas")),
        ("replicas", json!(3), ByOperator("set replicas to 1")),
        ("replica", json!(3), ByServer("spec.replica")),
        ("version", json!(""), ByServer("spec.version")),
        ("version", json!("a b"), ByServer("spec.version")),
        ("version", json!("x".repeat(129)), ByServer("spec.version")),
        ("version", json!(1), ByServer("spec.version")),
        ("image", json!(""), ByServer("spec.image")),
        ("image", json!("has space"), ByServer("spec.image")),
        ("imagePullPolicy", json!("always"), ByServer("spec.imagePullPolicy")),
        ("storage.size", json!("10GB"), ByServer("spec.storage.size")),
        ("storage.size", json!("-1Gi"), ByServer("spec.storage.size")),
        ("storage.size", json!(10), ByServer("spec.storage.size")),
        ("storage.size", json!("0Gi"), ByOperator("storage.size")),
        ("storage.size", json!("8Ei"), ByOperator("storage.size")),
        ("storage.storageClassName", json!("Fast_SSD"), ByServer("spec.storage.storageClassName")),
        ("storage.reclaimPolicy", json!("Recycle"), ByServer("spec.storage.reclaimPolicy")),
        ("config.defaultPartitions", json!(0), ByServer("spec.config.defaultPartitions")),
        ("config.defaultPartitions", json!(1001), ByServer("spec.config.defaultPartitions")),
        (
            "config.defaultReplicationFactor",
            json!(2),
            ByServer("config.defaultReplicationFactor must not be greater than replicas"),
        ),
        ("config.minInsyncReplicas", json!(2), ByServer("config.minInsyncReplicas must not be greater")),
        ("config.logRetentionHours", json!(0), ByServer("spec.config.logRetentionHours")),
        ("config.logRetentionBytes", json!(-2), ByServer("spec.config.logRetentionBytes")),
        ("config.logSegmentBytes", json!(1023), ByServer("spec.config.logSegmentBytes")),
        ("config.logSegmentBytes", json!(1e30), ByServer("spec.config.logSegmentBytes")),
        ("config.maxRequestBytes", json!(10_485_761), ByServer("spec.config.maxRequestBytes")),
        ("config.idleTimeoutSeconds", json!(0), ByServer("spec.config.idleTimeoutSeconds")),
        ("config.maxConnectionsPerIp", json!(5_000_000_000_u64), ByServer("spec.config.maxConnectionsPerIp")),
        ("tls.enabled", json!(true), ByServer("tls.enabled needs certSecretName or issuerRef")),
        (
            "tls",
            json!({ "enabled": true, "certSecretName": null }),
            ByServer("tls.enabled needs certSecretName or issuerRef"),
        ),
        ("tls", json!({ "enabled": true, "certSecretName": "" }), ByServer("spec.tls.certSecretName")),
        ("tls", json!({ "enabled": true, "certSecretName": "x" }), ByOperator("tls.enabled")),
        ("tls", json!({ "certSecretName": "x", "issuerRef": { "name": "x" } }), ByServer("exclude each other")),
        ("auth.enabled", json!(true), ByServer("auth.enabled needs a mechanism")),
        ("auth", json!({ "enabled": true, "mechanism": "scram" }), ByServer("scramSecretName")),
        ("auth", json!({ "enabled": true, "mechanism": "token" }), ByServer("tokenSecretName")),
        ("auth", json!({ "enabled": true, "mechanism": "password" }), ByServer("spec.auth.mechanism")),
        ("auth", json!({ "enabled": true, "mechanism": "mtls" }), ByServer("auth.mechanism mtls needs tls.enabled")),
        (
            "auth",
            json!({ "enabled": true, "mechanism": "scram", "scramSecretName": "x" }),
            ByOperator("set auth.enabled to false"),
        ),
        (
            "auth",
            json!({ "enabled": true, "mechanism": "token", "tokenSecretName": "x" }),
            ByOperator("auth.mechanism: the operator would have to log in"),
        ),
        ("auth", json!({ "rbac": { "enabled": true } }), ByServer("auth.rbac needs auth.enabled")),
        ("auth", json!({ "rbac": { "enabled": true } }), ByServer("auth.rbac needs configMapName")),
        ("metrics.port", json!(0), ByServer("spec.metrics.port")),
        ("metrics.port", json!(65536), ByServer("spec.metrics.port")),
        ("metrics.port", json!(9091), ByOperator("metrics.port")),
        ("metrics.serviceMonitor", json!(true), ByOperator("metrics.serviceMonitor")),
        ("terminationGracePeriodSeconds", json!(29), ByServer("spec.terminationGracePeriodSeconds")),
        ("terminationGracePeriodSeconds", json!(3601), ByServer("spec.terminationGracePeriodSeconds")),
        ("securityContext.runAsUser", json!(0), ByServer("spec.securityContext.runAsUser")),
        ("securityContext.fsGroup", json!(2_147_483_648_u64), ByServer("spec.securityContext.fsGroup")),
        ("serviceAccountName", json!("A b"), ByServer("spec.serviceAccountName")),
        ("priorityClassName", json!(""), ByServer("spec.priorityClassName")),
        ("podLabels", json!({ "a b": "c" }), ByOperator("podLabels: \"a b\"")),
        ("podLabels", json!({ "a": "-" }), ByOperator("podLabels: \"-\"")),
        ("podLabels", json!({ "rivven.io/cluster": "b" }), ByOperator("podLabels: rivven.io/cluster")),
        ("podAnnotations", json!({ "": "c" }), ByOperator("podAnnotations")),
        ("nodeSelector", json!({ "a/b/c": "d" }), ByOperator("nodeSelector")),
        ("resources", json!({ "requests": { "cpu": "much" } }), ByOperator("resources.requests.cpu")),
        (
            "resources",
            json!({ "requests": { "cpu": "2" }, "limits": { "cpu": "1" } }),
            ByOperator("resources.requests.cpu"),
        ),
        ("resources", json!({ "requests": { "gpu": "1" } }), ByOperator("resources.requests: \"gpu\"")),
        ("resources", json!({ "requests": { "a.b/gpu": "1" } }), ByOperator("resources.requests.a.b/gpu")),
        ("env", json!([{ "name": "RIVVEN_MODE", "value": "x" }]), ByOperator("RIVVEN_MODE")),
        ("env", json!([{ "name": "A", "value": "x" }, { "name": "A", "value": "y" }]), ByServer("spec.env[1]")),
        ("env", json!([{ "name": "A=B" }]), ByOperator("env: \"A=B\"")),
        ("env", json!([{ "value": "x" }]), ByServer("spec.env[0].name")),
        ("maintenanceWindows", json!([{ "schedule": "0 2 * * *", "durationMinutes": 4 }]), ByServer("durationMinutes")),
        (
            "maintenanceWindows",
            json!([{ "schedule": "0 25 * * *", "durationMinutes": 60 }]),
            ByOperator("maintenanceWindows[0]"),
        ),
        (
            "externalAccess",
            json!({ "type": "NodePort", "annotations": { "rivven.io/a": "b" } }),
            ByOperator("externalAccess.annotations: rivven.io/a"),
        ),
        ("externalAccess", json!({ "type": "ClusterIP" }), ByServer("spec.externalAccess.type")),
        ("ingress", json!({ "host": "x_y.example" }), ByServer("spec.ingress.host")),
        ("ingress", json!({ "host": "10.0.0.1" }), ByServer("ingress.host must be a name")),
        ("ingress", json!({ "host": "x.example", "annotations": { "a b": "c" } }), ByOperator("ingress.annotations")),
        ("networkPolicy.ingressFrom", json!([""]), ByServer("spec.networkPolicy.ingressFrom[0]")),
        ("ingress", json!({}), ByServer("spec.ingress.host")),
        ("allowedNamespaces", json!(["a", ""]), ByServer("spec.allowedNamespaces[1]")),
        ("allowedNamespaces", json!(["a.*"]), ByServer("spec.allowedNamespaces[0]")),
        ("networkPolicy.monitoringFrom", json!(["x".repeat(64)]), ByServer("spec.networkPolicy.monitoringFrom[0]")),
        ("tolerations", json!([{ "operator": "Equal" }]), ByOperator("tolerations[0]")),
        ("tolerations", json!([{ "key": "a", "operator": "Has" }]), ByOperator("tolerations[0]")),
        (
            "topologySpreadConstraints",
            json!([{ "maxSkew": 0, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule" }]),
            ByOperator("topologySpreadConstraints[0]"),
        ),
        (
            "topologySpreadConstraints",
            json!([{ "maxSkew": 2_147_483_648_u64, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule" }]),
            ByServer("spec.topologySpreadConstraints[0].maxSkew"),
        ),
        ("tolerations", json!(vec![json!({ "operator": "Exists" }); 33]), ByServer("spec.tolerations")),
    ]
}

fn wrong_topics() -> Vec<(&'static str, Value, Stopped)> {
    vec![
        ("clusterRef", Value::Null, ByServer("spec.clusterRef")),
        ("clusterRef.name", json!(""), ByServer("spec.clusterRef.name")),
        ("clusterRef.name", json!("x".repeat(64)), ByServer("spec.clusterRef.name")),
        ("partitions", json!(0), ByServer("spec.partitions")),
        ("partitions", json!(1001), ByServer("spec.partitions")),
        ("partitions", json!("3"), ByServer("spec.partitions")),
        ("replicationFactor", json!(0), ByServer("spec.replicationFactor")),
        ("replicationFactor", json!(100), ByServer("spec.replicationFactor")),
        ("topicName", json!(""), ByServer("spec.topicName")),
        ("topicName", json!("_x"), ByServer("spec.topicName")),
        ("topicName", json!("a/b"), ByServer("spec.topicName")),
        ("topicName", json!("ä"), ByServer("spec.topicName")),
        ("topicName", json!("x".repeat(256)), ByServer("spec.topicName")),
        ("topicName", json!("wal"), ByServer("spec.topicName")),
        ("topicName", json!("offsets"), ByServer("choose another topicName")),
        ("config.retentionMs", json!(-2), ByServer("spec.config.retentionMs")),
        ("config.retentionMs", json!(9_007_199_254_740_992_i64), ByServer("spec.config.retentionMs")),
        ("config.retentionBytes", json!("1Gi"), ByServer("spec.config.retentionBytes")),
        ("config.segmentBytes", json!(1023), ByServer("spec.config.segmentBytes")),
        ("config.cleanupPolicy", json!("keep"), ByServer("spec.config.cleanupPolicy")),
        ("config.compressionType", json!("brotli"), ByServer("spec.config.compressionType")),
        ("config.minInsyncReplicas", json!(2), ByServer("config.minInsyncReplicas must not be greater")),
        ("config.minInsyncReplicas", json!(0), ByServer("spec.config.minInsyncReplicas")),
        ("config.maxMessageBytes", json!(0), ByServer("spec.config.maxMessageBytes")),
        ("acls", json!([{ "principal": "user:a", "operations": [] }]), ByServer("spec.acls[0].operations")),
        ("acls", json!([{ "principal": "user:a", "operations": ["Fly"] }]), ByServer("spec.acls[0].operations[0]")),
        (
            "acls",
            json!([{ "principal": "user:a", "operations": ["Read"] }, { "principal": "user:a", "operations": ["Write"] }]),
            ByServer("spec.acls[1]"),
        ),
        ("deleteOnRemove", json!("yes"), ByServer("spec.deleteOnRemove")),
    ]
}

fn wrong_connects() -> Vec<(&'static str, Value, Stopped)> {
    let source = |more: Value| {
        let mut source = json!({ "name": "s", "connector": "datagen", "topic": "t" });
        source.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        source
    };
    let sink = |more: Value| {
        let mut sink = json!({ "name": "s", "connector": "stdout", "topics": ["t"], "consumerGroup": "g" });
        sink.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        sink
    };
    vec![
        ("clusterRef", Value::Null, ByServer("spec.clusterRef")),
        ("replicas", json!(100), ByServer("spec.replicas")),
        ("sources", json!([source(json!({})), source(json!({}))]), ByServer("spec.sources[1]")),
        ("sources", json!([source(json!({ "name": "" }))]), ByServer("spec.sources[0].name")),
        ("sources", json!([source(json!({ "name": "-s" }))]), ByServer("spec.sources[0].name")),
        ("sources", json!([source(json!({ "topic": null }))]), ByServer("spec.sources[0].topic")),
        (
            "sources",
            json!([source(json!({ "postgresCdc": {} }))]),
            ByServer("postgresCdc goes with connector postgres-cdc"),
        ),
        (
            "sources",
            json!([source(json!({ "datagen": {}, "http": { "url": "x" } }))]),
            ByServer("only one typed configuration"),
        ),
        (
            "sources",
            json!([source(json!({ "datagen": { "eventsPerSecond": 4_294_967_296_i64 } }))]),
            ByServer("eventsPerSecond"),
        ),
        (
            "sources",
            json!([source(json!({ "topicConfig": { "partitions": 0 } }))]),
            ByServer("spec.sources[0].topicConfig.partitions"),
        ),
        ("sources", json!([source(json!({ "config": "x" }))]), ByServer("spec.sources[0].config")),
        ("sinks", json!([sink(json!({})), sink(json!({}))]), ByServer("spec.sinks[1]")),
        ("sinks", json!([sink(json!({ "topics": [] }))]), ByServer("spec.sinks[0].topics")),
        ("sinks", json!([sink(json!({ "consumerGroup": "" }))]), ByServer("spec.sinks[0].consumerGroup")),
        ("sinks", json!([sink(json!({ "startOffset": "Latest" }))]), ByServer("spec.sinks[0].startOffset")),
        (
            "sinks",
            json!([sink(json!({ "rateLimit": { "eventsPerSecond": -1 } }))]),
            ByServer("rateLimit.eventsPerSecond"),
        ),
        ("sinks", json!([sink(json!({ "s3": { "bucket": "abc" } }))]), ByServer("s3 goes with connector s3")),
        ("sinks", json!([sink(json!({ "connector": "s3", "s3": { "bucket": "ab" } }))]), ByServer("s3.bucket")),
        ("settings.retry", json!({ "initialBackoffMs": 10, "maxBackoffMs": 9 }), ByServer("retry.initialBackoffMs")),
        ("settings.health.port", json!(0), ByServer("spec.settings.health.port")),
        ("tls.enabled", json!(true), ByServer("tls.enabled needs certSecretName or issuerRef")),
    ]
}

#[tokio::test]
async fn wrong_specs_are_stopped_and_told_why() {
    let place = Place::new("wrong").await;
    let reference = json!({ "clusterRef": { "name": "a" } });
    let tables = [
        ("RivvenCluster", json!({ "replicas": 1, "version": "0.0.22" }), wrong_clusters()),
        ("RivvenTopic", reference.clone(), wrong_topics()),
        ("RivvenConnect", reference, wrong_connects()),
    ];
    let (mut by_server, mut by_operator, mut failed) = (0, 0, Vec::new());
    for (kind, base, table) in tables {
        let stored = place.create(&object(kind, &base)).await.expect("the spec that the table changes is right");
        assert_eq!(objections(&stored), Vec::<String>::new());
        for (path, value, stopped) in table {
            let verdict = place.create(&object(kind, &with(base.clone(), path, value.clone()))).await;
            let what = format!("{kind} {path}={value}");
            match (stopped, verdict) {
                (ByServer(words), Err(refusal)) if refusal.contains(words) => by_server += 1,
                (ByServer(words), Err(refusal)) => failed.push(format!("{what}: {words:?} is not in {refusal:?}")),
                (ByServer(_), Ok(stored)) => {
                    failed.push(format!("{what}: accepted; the operator says {:?}", objections(&stored)));
                }
                (ByOperator(words), Ok(stored)) => {
                    let objections = objections(&stored);
                    if objections.iter().any(|objection| objection.contains(words)) {
                        by_operator += 1;
                    } else {
                        failed.push(format!("{what}: {words:?} is not in {objections:?}"));
                    }
                }
                (ByOperator(_), Err(refusal)) => failed.push(format!("{what}: refused by the API server: {refusal}")),
            }
        }
    }
    println!("wrong specs stopped by the API server: {by_server}, by the operator: {by_operator}");
    assert_eq!(failed, Vec::<String>::new());
    place.end().await;
}

#[tokio::test]
async fn wrong_names_are_stopped() {
    let place = Place::new("names").await;
    for (kind, name, stopped) in [
        ("RivvenCluster", "x".repeat(46), "at most 45 characters"),
        ("RivvenCluster", "a.b".to_owned(), "no dot"),
        ("RivvenCluster", "A".to_owned(), "metadata.name"),
        ("RivvenConnect", "x".repeat(43), "at most 42 characters"),
        ("RivvenConnect", "a.b".to_owned(), "no dot"),
    ] {
        let mut object = object(kind, &json!({ "clusterRef": { "name": "a" } }));
        if kind == "RivvenCluster" {
            object["spec"] = json!({});
        }
        object["metadata"]["name"] = json!(name);
        let refusal = place.create(&object).await.expect_err(&name);
        assert!(refusal.contains(stopped), "{name}: {refusal}");
    }
    // The name of a topic's object is a name at the broker, and more is legal for objects than for topics.
    let mut topic = object("RivvenTopic", &json!({ "clusterRef": { "name": "a" } }));
    topic["metadata"]["name"] = json!("wal");
    let stored = place.create(&topic).await.unwrap();
    assert!(objections(&stored)[0].starts_with("topicName: "), "{:?}", objections(&stored));
    place.end().await;
}

#[tokio::test]
async fn what_cannot_change_does_not() {
    let place = Place::new("change").await;
    let mut topic =
        object("RivvenTopic", &json!({ "clusterRef": { "name": "none" }, "partitions": 3, "topicName": "t" }));
    topic["metadata"]["namespace"] = json!(place.namespace);
    let path = place.path(&topic);
    place.send("POST", &path, &topic).await.unwrap();
    for (field, value, words) in [
        ("clusterRef", json!({ "name": "other" }), Some("clusterRef cannot change")),
        ("clusterRef", json!({ "name": "none", "namespace": "x" }), Some("clusterRef cannot change")),
        ("topicName", json!("u"), Some("topicName cannot change")),
        ("topicName", Value::Null, Some("topicName cannot change")),
        ("partitions", json!(4), None),
        ("deleteOnRemove", json!(true), None),
    ] {
        let mut changed = topic.clone();
        // Without a resourceVersion: the operator may write in between.
        let stored = place.send("GET", &format!("{path}/a"), &Value::Null).await.unwrap();
        changed["metadata"] = stored["metadata"].clone();
        changed["spec"][field] = value.clone();
        match (words, place.update(&changed).await) {
            (Some(words), Err(refusal)) => assert!(refusal.contains(words), "{field}={value}: {refusal}"),
            (None, Ok(_)) => {}
            (_, verdict) => panic!("{field}={value}: {verdict:?}"),
        }
    }
    place.send("DELETE", &format!("{path}/a"), &json!({})).await.unwrap();
    place.end().await;
}

/// Values of a strategy, the same ones every time.
fn values(strategy: &BoxedStrategy<Value>, count: usize) -> Vec<Value> {
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

/// Fields of which only the operator can tell what is wrong with them.
const TOLD_BY_OPERATOR: [&str; 14] = [
    "storage.size",
    "metrics.port",
    "podLabels",
    "podAnnotations",
    "externalAccess.annotations",
    "ingress.annotations",
    "nodeSelector",
    "env",
    "resources",
    "tolerations",
    "topologySpreadConstraints",
    // The object's own name is the topic's, where the spec names none.
    "topicName",
    "annotation",
    "metadata.name",
];

#[tokio::test]
async fn generated_clusters_get_one_verdict() {
    let place = Place::new("clusters").await;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut failed = Vec::new();
    for spec in values(&generate::few(generate::cluster_spec(), 3), 600) {
        let sent = object("RivvenCluster", &spec);
        let read = serde_json::from_value::<RivvenCluster>(sent.clone());
        match place.create(&sent).await {
            Err(_) => *counts.entry("refused by the API server").or_default() += 1,
            Ok(stored) => {
                let Ok(cluster) = serde_json::from_value::<RivvenCluster>(stored.clone()) else {
                    failed.push(format!("accepted and not readable: {spec}"));
                    continue;
                };
                // Nulls apart, the defaults of the API server change nothing of what the operator reads.
                if let Some(read) = read.ok().filter(|read| read.spec != cluster.spec) {
                    failed.push(format!("{spec} is read as {:?} and stored as {:?}", read.spec, cluster.spec));
                }
                let wish = cluster.spec.wish("a");
                for problem in &wish.problems {
                    if !TOLD_BY_OPERATOR.iter().any(|field| problem.starts_with(field)) {
                        failed.push(format!("the API server could have told: {problem}: {spec}"));
                    }
                }
                if !wish.problems.is_empty() {
                    *counts.entry("refused by the operator").or_default() += 1;
                    continue;
                }
                *counts.entry("accepted by both").or_default() += 1;
                // What both accept, Kubernetes takes: every rendered object.
                let input = render::Input {
                    name: "a",
                    namespace: &place.namespace,
                    uid: "0b7e2a52-0000-0000-0000-000000000000",
                    spec: &cluster.spec,
                    capabilities: capabilities(&cluster.spec.version),
                    domain: "cluster.local",
                    restarted_at: None,
                    certificate: None,
                    rules: &BTreeMap::new(),
                };
                for (kind, object) in render::cluster(&input) {
                    match place.create(&object).await {
                        Ok(_) => *counts.entry("objects accepted").or_default() += 1,
                        Err(refusal) => failed.push(format!("{kind:?} of {spec}: {refusal}")),
                    }
                }
            }
        }
    }
    println!("generated clusters: {counts:?}");
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
    assert!(counts["accepted by both"] >= 20 && counts["refused by the API server"] >= 20, "{counts:?}");
    place.end().await;
}

#[tokio::test]
async fn generated_topics_get_one_verdict() {
    let place = Place::new("topics").await;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut failed = Vec::new();
    let specs = generate::topic_object().prop_map(|topic| topic["spec"].clone()).boxed();
    for mut spec in values(&generate::few(specs, 3), 300) {
        if spec.is_object() {
            spec["clusterRef"] = json!({ "name": "a" });
        }
        let sent = object("RivvenTopic", &spec);
        let problems = serde_json::from_value::<RivvenTopic>(sent.clone()).map(|topic| topic.wish().problems);
        match (place.create(&sent).await, problems) {
            (Err(_), _) => *counts.entry("refused by the API server").or_default() += 1,
            (Ok(stored), _) => match serde_json::from_value::<RivvenTopic>(stored) {
                Err(error) => failed.push(format!("accepted and not readable: {error}: {spec}")),
                Ok(topic) if topic.wish().problems.is_empty() => *counts.entry("accepted by both").or_default() += 1,
                Ok(topic) => {
                    failed.push(format!("the API server could have told: {:?}: {spec}", topic.wish().problems));
                }
            },
        }
    }
    println!("generated topics: {counts:?}");
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
    assert!(counts["accepted by both"] >= 20 && counts["refused by the API server"] >= 20, "{counts:?}");
    place.end().await;
}

#[tokio::test]
async fn generated_connects_can_be_read_when_they_are_accepted() {
    let place = Place::new("connects").await;
    let (mut accepted, mut refused) = (0, 0);
    for mut spec in values(&generate::few(generate::connect_spec(), 2), 300) {
        if spec.is_object() {
            spec["clusterRef"] = json!({ "name": "a" });
        }
        match place.create(&object("RivvenConnect", &spec)).await {
            Err(_) => refused += 1,
            Ok(stored) => {
                accepted += 1;
                let read = serde_json::from_value::<RivvenConnect>(stored);
                assert!(read.is_ok(), "accepted and not readable: {:?}: {spec}", read.err());
            }
        }
    }
    println!("generated connects: {accepted} accepted, {refused} refused");
    assert!(accepted >= 20 && refused >= 20);
    place.end().await;
}

#[tokio::test]
async fn every_field_can_be_explained() {
    let place = Place::new("explain").await;
    let openapi = place.send("GET", "/openapi/v3/apis/rivven.io/v1alpha1", &Value::Null).await;
    // Published a moment after the CRD is established.
    let openapi = if let Ok(openapi) = openapi {
        openapi
    } else {
        tokio::time::sleep(Duration::from_secs(5)).await;
        place.send("GET", "/openapi/v3/apis/rivven.io/v1alpha1", &Value::Null).await.unwrap()
    };
    let mut explained = 0;
    for kind in ["RivvenCluster", "RivvenConnect", "RivvenTopic"] {
        let schema = &openapi["components"]["schemas"][format!("io.rivven.v1alpha1.{kind}")];
        assert!(
            schema["description"].as_str().is_some_and(|text| text.len() > 10),
            "{kind}: {}",
            schema["description"]
        );
        for root in ["spec", "status"] {
            let mut open = vec![(format!("{kind}.{root}"), schema["properties"][root].clone())];
            while let Some((path, node)) = open.pop() {
                assert!(node["description"].as_str().is_some_and(|text| text.len() > 3), "{path} is not described");
                explained += 1;
                let inner = if node["items"]["properties"].is_object() { node["items"].clone() } else { node };
                for (name, child) in inner["properties"].as_object().into_iter().flatten() {
                    open.push((format!("{path}.{name}"), child.clone()));
                }
            }
        }
    }
    println!("fields explained: {explained}");
    assert!(explained > 400, "{explained}");
    place.end().await;
}
