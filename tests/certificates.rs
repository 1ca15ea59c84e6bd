//! Brokers that serve TLS: certificates come, are renewed and change their authority, and none cuts brokers off.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::time::Duration;

use k8s_openapi::ByteString;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value, json};
use support::cluster::Clustered;
use support::{World, cluster, topic};

const CLUSTERS: &str = "rivvenclusters.rivven.io";
const NAMES: &str = "*.rivven-x-headless.default.svc.cluster.local";

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Puts a certificate for `names` into the Secret `brokers`.
fn put(world: &World<Clustered>, by: &Authority, names: &str, trusted: &str) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![names.to_owned()]).unwrap().signed_by(&key, by).unwrap();
    secret(
        world,
        "brokers",
        &[("tls.crt", &certificate.pem()), ("tls.key", &key.serialize_pem()), ("ca.crt", trusted)],
    );
}

fn secret(world: &World<Clustered>, name: &str, data: &[(&str, &str)]) {
    let data: serde_json::Map<String, Value> =
        data.iter().map(|(key, text)| ((*key).to_owned(), json!(ByteString(text.as_bytes().to_vec())))).collect();
    world.sim.apply(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "namespace": "default" }, "data": data,
    }));
}

fn status(world: &World<Clustered>) -> Value {
    world.sim.get(CLUSTERS, "default", "x").unwrap()["status"].clone()
}

fn pods(world: &World<Clustered>) -> Vec<Value> {
    world.sim.list("pods").iter().map(|pod| pod["metadata"]["uid"].clone()).collect()
}

async fn until(world: &World<Clustered>, what: &str, holds: impl Fn(&Value) -> bool) {
    for _ in 0..900 {
        if holds(&status(world)) {
            return;
        }
        world.sim.step();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("{what}: {:#}", status(world));
}

async fn as_wanted(world: &World<Clustered>) {
    until(world, "as wanted", |status| status["reason"] == "AsWanted").await;
}

/// Until every broker is another one, and all is as wanted.
async fn restarted(world: &World<Clustered>, before: &[Value]) {
    let anew = || pods(world).iter().all(|uid| !before.contains(uid));
    until(world, "restarted", |status| anew() && status["reason"] == "AsWanted").await;
}

fn of(tls: &Value) -> Value {
    cluster(&json!({ "replicas": 3, "version": "0.1.0", "tls": tls }))
}

/// The condition of this type: its status and its reason.
fn condition(world: &World<Clustered>, kind: &str) -> (Value, Value) {
    let conditions = status(world)["conditions"].clone();
    let found = conditions.as_array().unwrap().iter().find(|condition| condition["type"] == kind).cloned().unwrap();
    (found["status"].clone(), found["reason"].clone())
}

async fn serving(tls: &Value) -> (World<Clustered>, Authority) {
    let mut world = World::<Clustered>::new(1);
    world.start(|_| {});
    let ca = authority("first");
    put(&world, &ca, NAMES, &ca.pem());
    world.sim.apply(of(tls));
    as_wanted(&world).await;
    (world, ca)
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_renewed_and_its_authority_changed_by_ordered_restarts() {
    let (world, first) = serving(&json!({ "enabled": true, "certSecretName": "brokers" })).await;
    assert_eq!(condition(&world, "CertificateValid"), (json!("True"), json!("AsWanted")));
    world
        .sim
        .apply(topic("orders", &json!({ "clusterRef": { "name": "x" }, "partitions": 2, "replicationFactor": 3 })));
    world.settle().await.unwrap();
    assert_eq!(world.phase("rivventopics.rivven.io", "orders"), "Ready", "the operator speaks TLS to them");

    let before = pods(&world);
    put(&world, &first, NAMES, &first.pem());
    restarted(&world, &before).await;

    // All at once, brokers before and after would not believe each other.
    let (second, before) = (authority("second"), pods(&world));
    put(&world, &second, NAMES, &second.pem());
    until(&world, "refused", |status| status["reason"] == "CertificateNotTrusted").await;
    world.settle().await.unwrap();
    assert_eq!(status(&world)["phase"], "Ready");
    assert_eq!(condition(&world, "CertificateValid"), (json!("False"), json!("CertificateNotTrusted")));
    assert_eq!(pods(&world), before, "nobody was restarted");

    // In steps.
    let both = format!("{}{}", first.pem(), second.pem());
    for (by, trusted) in [(&first, both.as_str()), (&second, both.as_str()), (&second, &second.pem())] {
        let before = pods(&world);
        put(&world, by, NAMES, trusted);
        restarted(&world, &before).await;
    }
    assert_eq!(status(&world)["phase"], "Ready");
}

#[tokio::test(start_paused = true)]
async fn clients_are_who_their_certificate_says_and_the_operator_shows_one() {
    let mut world = World::<Clustered>::new(1);
    world.start(|_| {});
    let (ca, clients) = (authority("brokers"), authority("clients"));
    put(&world, &ca, NAMES, &ca.pem());
    let tls = json!({ "enabled": true, "certSecretName": "brokers", "clientCaSecretName": "clients" });
    let auth = json!({ "enabled": true, "mechanism": "mtls" });
    world.sim.apply(cluster(&json!({ "replicas": 3, "version": "0.1.0", "tls": tls, "auth": auth })));
    until(&world, "missing", |status| status["reason"] == "PrerequisiteMissing").await;
    assert_eq!(status(&world)["phase"], "Pending");
    secret(&world, "clients", &[("ca.crt", &clients.pem())]);
    as_wanted(&world).await;
    world.sim.apply(topic("orders", &json!({ "clusterRef": { "name": "x" }, "replicationFactor": 3 })));
    world.settle().await.unwrap();
    assert_eq!(world.phase("rivventopics.rivven.io", "orders"), "Ready");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_used_is_said_and_nothing_is_started_with_it() {
    let mut world = World::<Clustered>::new(1);
    world.start(|_| {});
    let ca = authority("ca");
    world.sim.apply(of(&json!({ "enabled": true, "certSecretName": "brokers" })));
    until(&world, "missing", |status| status["reason"] == "PrerequisiteMissing").await;
    put(&world, &ca, "elsewhere.example", &ca.pem());
    until(&world, "for others", |status| status["reason"] == "CertificateInvalid").await;
    assert!(
        status(&world)["message"].as_str().unwrap().contains("rivven-x-0.rivven-x-headless"),
        "{:#}",
        status(&world)
    );
    assert!(pods(&world).is_empty());
    put(&world, &ca, NAMES, &ca.pem());
    as_wanted(&world).await;

    // A Secret that is gone, or wrong, changes nothing for brokers that run.
    let before = pods(&world);
    secret(&world, "brokers", &[("tls.crt", "nothing")]);
    until(&world, "invalid", |status| status["reason"] == "CertificateInvalid").await;
    world.sim.delete("secrets", "default", "brokers", &json!({})).unwrap();
    until(&world, "gone", |status| status["reason"] == "PrerequisiteMissing").await;
    world.settle().await.unwrap();
    assert_eq!((status(&world)["phase"].clone(), pods(&world)), (json!("Ready"), before));

    // Members know each other by URLs: TLS is not switched under them.
    put(&world, &ca, NAMES, &ca.pem());
    world.sim.apply(json!({
        "apiVersion": "rivven.io/v1alpha1", "kind": "RivvenCluster", "metadata": { "name": "x" },
        "spec": { "tls": { "enabled": false } },
    }));
    until(&world, "switched", |status| status["reason"] == "TlsSwitchRefused").await;
    assert_eq!(status(&world)["phase"], "Ready");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_asked_of_an_issuer_and_waited_for() {
    let mut world = World::<Clustered>::new(1);
    world.start(|_| {});
    world.sim.apply(of(&json!({ "enabled": true, "issuerRef": { "name": "internal" } })));
    until(&world, "no cert-manager", |status| status["reason"] == "Unreadable").await;
    assert!(status(&world)["message"].as_str().unwrap().contains("cert-manager.io"), "{:#}", status(&world));
    assert!(pods(&world).is_empty());

    world.sim.apply(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "certificates.cert-manager.io" },
        "spec": {
            "group": "cert-manager.io", "scope": "Namespaced",
            "names": { "plural": "certificates", "kind": "Certificate" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "subresources": { "status": {} } }],
        },
    }));
    until(&world, "waits", |status| status["reason"] == "CertificateNotIssued").await;
    let asked = world.sim.get("certificates.cert-manager.io", "default", "rivven-x").unwrap();
    assert_eq!(asked["spec"]["secretName"], "rivven-x-tls");
    assert!(pods(&world).is_empty());

    let ca = authority("ca");
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = serde_json::from_value(asked["spec"]["dnsNames"].clone()).unwrap();
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &ca).unwrap();
    secret(
        &world,
        "rivven-x-tls",
        &[("tls.crt", &certificate.pem()), ("tls.key", &key.serialize_pem()), ("ca.crt", &ca.pem())],
    );
    as_wanted(&world).await;
    assert_eq!(status(&world)["ready"], "3/3");
}
