//! What restarts brokers, field by field: only what users own and what a broker reads when it starts. A field that is not
//! told here fails the test, as does one that restarts brokers although it is told not to.

use std::collections::{BTreeMap, BTreeSet};

use kube::CustomResourceExt;
use rivven_operator::api::{RivvenCluster, RivvenClusterSpec};
use rivven_operator::broker::capabilities;
use rivven_operator::observe::compare::hash;
use rivven_operator::render::{Input, template};
use serde_json::{Value, json};

fn spec(changes: &[(&str, Value)]) -> Result<RivvenClusterSpec, serde_json::Error> {
    let mut spec = json!({
        "replicas": 3,
        "version": "0.1.0",
        "config": { "defaultReplicationFactor": 3, "minInsyncReplicas": 2 },
        "storage": { "size": "10Gi" },
    });
    for (path, value) in changes {
        let mut at = &mut spec;
        for part in path.split('.') {
            at = &mut at[part];
        }
        *at = value.clone();
    }
    serde_json::from_value(spec)
}

fn pods(spec: &RivvenClusterSpec, restarted_at: Option<&str>) -> Value {
    let capabilities = capabilities(&spec.version);
    let (name, namespace, uid, domain) = ("x", "ns", "uid-1", "cluster.local");
    template(&Input {
        name,
        namespace,
        uid,
        spec,
        capabilities,
        domain,
        restarted_at,
        certificate: None,
        rules: &BTreeMap::new(),
    })
}

/// Each field with a change of it, and whether brokers restart for it.
fn fields() -> Vec<(&'static str, Value, bool)> {
    vec![
        ("replicas", json!(5), false),
        ("version", json!("0.2.0"), true),
        ("image", json!("registry.example/rivven"), true),
        ("imagePullPolicy", json!("Always"), true),
        ("imagePullSecrets", json!([{ "name": "pull" }]), true),
        ("storage.size", json!("20Gi"), false),
        ("storage.reclaimPolicy", json!("Delete"), false),
        ("storage.scaleInPolicy", json!("Retain"), false),
        ("resources", json!({ "requests": { "cpu": "1" } }), true),
        ("config.logLevel", json!("debug"), true),
        ("config.minInsyncReplicas", json!(1), true),
        ("metrics.enabled", json!(false), false),
        ("affinity", json!({ "nodeAffinity": {} }), true),
        (
            "topologySpreadConstraints",
            json!([{ "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule" }]),
            true,
        ),
        ("tolerations", json!([{ "key": "k", "operator": "Exists" }]), true),
        ("nodeSelector", json!({ "disk": "ssd" }), true),
        ("priorityClassName", json!("high"), true),
        ("podAnnotations", json!({ "a": "b" }), true),
        ("podLabels", json!({ "a": "b" }), true),
        ("serviceAccountName", json!("sa"), true),
        ("env", json!([{ "name": "TZ", "value": "UTC" }]), true),
        ("terminationGracePeriodSeconds", json!(90), true),
        ("securityContext.runAsUser", json!(1000), true),
        ("tls", json!({ "enabled": true, "certSecretName": "x" }), true),
        ("paused", json!(true), false),
        ("minReadySeconds", json!(30), false),
        ("maintenanceWindows", json!([{ "schedule": "0 2 * * *", "durationMinutes": 60 }]), false),
        ("allowedNamespaces", json!(["*"]), false),
        ("networkPolicy.enabled", json!(false), false),
        ("networkPolicy.ingressFrom", json!(["ingress-nginx"]), false),
        ("externalAccess", json!({ "type": "LoadBalancer", "annotations": { "a": "b" } }), false),
        ("ingress", json!({ "host": "x.example" }), false),
        ("auth", json!({ "enabled": true, "mechanism": "mtls" }), true),
        ("rebalance", json!(true), false),
    ]
}

#[test]
fn brokers_restart_for_what_they_read_and_for_nothing_else() {
    let before = pods(&spec(&[]).unwrap(), None);
    let mut wrong = Vec::new();
    for (path, value, restarts) in fields() {
        let after = pods(&spec(&[(path, value)]).unwrap(), None);
        if (after != before) != restarts {
            wrong.push(format!("{path}: restarts brokers: {}", after != before));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    let total = fields().len();
    let restarts = fields().iter().filter(|(.., restarts)| *restarts).count();
    println!("of {total} changes, {restarts} restart brokers");
    assert_ne!(pods(&spec(&[]).unwrap(), Some("now")), before, "asked for by annotation");
}

/// Oracle 15. What an upgrade of the operator renders of a spec that nobody changed is what the release before rendered.
#[test]
fn an_upgrade_of_the_operator_restarts_no_broker() {
    let alone = json!({ "replicas": 1, "version": "0.0.22" });
    let alone = serde_json::from_value::<RivvenClusterSpec>(alone).unwrap();
    let line = |what: &str, spec: &RivvenClusterSpec| format!("{} {what}", hash(&pods(spec, None)));
    let mut lines = vec![line("a released broker", &alone), line("three brokers", &spec(&[]).unwrap())];
    lines.extend(fields().into_iter().map(|(path, value, _)| line(path, &spec(&[(path, value)]).unwrap())));
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/pod-templates.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, lines.join("\n") + "\n").unwrap();
    }
    let before = std::fs::read_to_string(golden).unwrap();
    let changed: Vec<&String> = lines.iter().filter(|line| before.lines().all(|before| before != *line)).collect();
    assert!(
        changed.is_empty() && lines.len() == before.lines().count(),
        "this restarts every broker of every user who upgrades the operator: {changed:#?}\nrender what is there already as \
         it was; if it cannot be, say so in CHANGELOG.md and run this test with UPDATE_GOLDEN=1"
    );
    println!("oracle 15: pod templates that hash as they did: {}", lines.len());
}

#[test]
fn every_field_is_told() {
    let schema = serde_json::to_value(RivvenCluster::crd()).unwrap();
    let properties = schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        .as_object()
        .unwrap();
    let all: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
    let told = fields().into_iter().map(|(path, ..)| path.split('.').next().unwrap_or(path));
    let told: BTreeSet<&str> = told.collect();
    assert_eq!(all, told);
}
