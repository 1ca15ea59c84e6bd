//! The rendered objects, as snapshots that a reviewer can read. A change of the pod template restarts every broker of
//! everybody who upgrades the operator: it shows here.

use std::collections::BTreeMap;

use rivven_operator::api::RivvenClusterSpec;
use rivven_operator::broker::capabilities;
use rivven_operator::names;
use rivven_operator::render::{Input, Material, cluster};
use serde_json::json;

fn rendered(spec: serde_json::Value) -> Result<Vec<serde_json::Value>, serde_json::Error> {
    rendered_with(spec, None)
}

fn rendered_with(
    spec: serde_json::Value,
    certificate: Option<&Material>,
) -> Result<Vec<serde_json::Value>, serde_json::Error> {
    let spec: RivvenClusterSpec = serde_json::from_value(spec)?;
    let capabilities = capabilities(&spec.version);
    let input = Input {
        name: "x",
        namespace: "ns",
        uid: "uid-1",
        spec: &spec,
        capabilities,
        domain: "cluster.local",
        restarted_at: None,
        certificate,
        rules: &BTreeMap::from([("rules".to_owned(), "hash-of-the-rules".to_owned())]),
    };
    Ok(cluster(&input).into_values().collect())
}

#[test]
fn a_released_broker_with_defaults() {
    insta::assert_yaml_snapshot!(rendered(json!({ "replicas": 1, "version": "0.0.22" })).unwrap());
}

#[test]
fn every_placement_and_resource_field_reaches_the_pod() {
    insta::assert_yaml_snapshot!(rendered(json!({
        "replicas": 1,
        "version": "0.0.22",
        "image": "registry.example/rivven",
        "imagePullPolicy": "Always",
        "imagePullSecrets": [{ "name": "pull" }],
        "storage": { "size": "5Gi", "storageClassName": "fast" },
        "resources": { "requests": { "cpu": "1" }, "limits": { "memory": "2Gi" } },
        "config": { "defaultPartitions": 7, "logSegmentBytes": 1_048_576, "logLevel": "debug" },
        "metrics": { "enabled": false },
        "tolerations": [{ "key": "k", "operator": "Exists" }],
        "nodeSelector": { "disk": "ssd" },
        "topologySpreadConstraints": [{ "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule" }],
        "affinity": { "nodeAffinity": {} },
        "priorityClassName": "high",
        "podAnnotations": { "a": "1" },
        "podLabels": { "team": "orders", "app.kubernetes.io/name": "forged" },
        "serviceAccountName": "sa",
        "env": [{ "name": "TZ", "value": "UTC" }],
        "terminationGracePeriodSeconds": 90,
        "securityContext": { "runAsUser": 1000, "fsGroup": 1000 },
        "networkPolicy": { "enabled": true, "monitoringFrom": ["monitoring"], "ingressFrom": ["ingress"] },
    }))
    .unwrap());
}

#[test]
fn three_brokers_that_are_one_cluster() {
    insta::assert_yaml_snapshot!(
        rendered(json!({
            "replicas": 3,
            "version": "0.1.0",
            "config": { "defaultReplicationFactor": 3, "minInsyncReplicas": 2 },
        }))
        .unwrap()
    );
}

#[test]
fn brokers_that_serve_tls_by_a_certificate_that_is_issued() {
    let certificate = Material {
        hash: "0123".to_owned(),
        authorities: "AUTHORITIES\n".to_owned(),
        shown: "CERTIFICATE\n".to_owned(),
    };
    let issuer = json!({ "name": "internal", "kind": "ClusterIssuer" });
    let tls = json!({ "enabled": true, "issuerRef": issuer, "clientCaSecretName": "clients" });
    insta::assert_yaml_snapshot!(
        rendered_with(json!({ "replicas": 3, "version": "0.1.0", "tls": tls }), Some(&certificate)).unwrap()
    );
}

#[test]
fn clients_from_outside() {
    let all = rendered(json!({
        "replicas": 2,
        "version": "0.1.0",
        "externalAccess": { "type": "LoadBalancer", "annotations": { "lb.example/internal": "true" } },
        "ingress": {
            "host": "x.example",
            "className": "nginx",
            "tlsSecretName": "x-tls",
            "annotations": { "cert-manager.io/cluster-issuer": "letsencrypt" },
        },
    }))
    .unwrap();
    insta::assert_yaml_snapshot!(all[7..]);
}

#[test]
fn authentication_and_the_rules_of_who_may_do_what() {
    let all = rendered(json!({
        "replicas": 1,
        "version": "0.1.0",
        "tls": { "enabled": true, "certSecretName": "tls", "clientCaSecretName": "ca" },
        "auth": { "enabled": true, "mechanism": "mtls", "rbac": { "enabled": true, "configMapName": "rules" } },
    }))
    .unwrap();
    let file: serde_json::Value = serde_json::from_str(all[1]["data"]["rivven.yaml"].as_str().unwrap()).unwrap();
    let rbac = json!({ "enabled": true, "path": "/etc/rivven-rbac" });
    assert_eq!(file["auth"], json!({ "enabled": true, "mechanism": "mtls", "rbac": rbac }));
    let template = &all[6]["spec"]["template"];
    assert_eq!(template["metadata"]["annotations"][names::RULES], "hash-of-the-rules");
    let has = |list: &serde_json::Value, entry: &serde_json::Value| list.as_array().unwrap().contains(entry);
    assert!(has(&template["spec"]["volumes"], &json!({ "name": "rbac", "configMap": { "name": "rules" } })));
    let container = &template["spec"]["containers"][0];
    let mount = json!({ "name": "rbac", "mountPath": "/etc/rivven-rbac", "readOnly": true });
    assert!(has(&container["volumeMounts"], &mount));
    let names = container["env"].as_array().unwrap().iter().map(|variable| &variable["name"]);
    assert!(!names.into_iter().any(|name| name == "RIVVEN_NO_REQUIRE_AUTH"), "authentication is demanded");
}

#[test]
fn the_longest_name_fits_every_object() {
    let name = "x".repeat(45);
    // What a Service's name and the value of a label may have.
    assert!(names::external_service(&name, 98).len() <= 63 && names::headless_service(&name).len() <= 63);
    assert_eq!(names::external_ordinal("x", &names::external_service("x", 12)), Some(12));
    assert_eq!(names::external_ordinal("x", "rivven-x-headless"), None);
}

#[test]
fn rendering_is_the_same_each_time() {
    let spec = json!({ "replicas": 1, "version": "0.0.22" });
    assert_eq!(rendered(spec.clone()).unwrap(), rendered(spec).unwrap());
}
