//! Brokers that serve TLS: certificates are renewed and their authority changed while records are written by TLS.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rivven_conformance::tls::Tls;
use rivven_e2e::load::Load;
use rivven_e2e::{Place, operator, wait};
use rivven_operator::api::Phase;
use serde_json::{Value, json};

const PARTITIONS: u32 = 3;
/// As in a rollout: an election of the test broker, and one second.
const SILENCE: Duration = Duration::from_secs(2);

/// A changed Secret is seen at a resync, as the operator may read Secrets by name and not watch them.
const RESYNC: &str = "resyncSeconds=10";

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Result<Authority> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

/// A certificate for `names` and its key, as PEM.
fn issue(by: &Authority, names: Vec<String>) -> Result<(String, String)> {
    let key = KeyPair::generate()?;
    Ok((CertificateParams::new(names)?.signed_by(&key, by)?.pem(), key.serialize_pem()))
}

async fn put(place: &Place, name: &str, data: &[(&str, &str)]) -> Result<()> {
    let data: serde_json::Map<String, Value> =
        data.iter().map(|(key, text)| ((*key).to_owned(), json!(ByteString(text.as_bytes().to_vec())))).collect();
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "data": data });
    let apply = PatchParams::apply("test").force();
    place.api::<Secret>().patch(name, &apply, &Patch::Apply(&secret)).await?;
    Ok(())
}

/// Puts a new certificate of the brokers into its Secret.
async fn renew(place: &Place, by: &Authority, trusted: &str) -> Result<()> {
    let names = vec![format!("*.rivven-x-headless.{}.svc.cluster.local", place.namespace)];
    let (certificate, key) = issue(by, names)?;
    put(place, "brokers", &[("tls.crt", &certificate), ("tls.key", &key), ("ca.crt", trusted)]).await
}

/// Until each broker is another one than `before`, and all is as wanted.
async fn restarted(place: &Place, before: &std::collections::BTreeMap<String, String>) -> Result<()> {
    wait::until("every broker restarted", || async {
        let now = place.pods("x").await?;
        let anew = before.iter().all(|(pod, uid)| now.get(pod).is_some_and(|now| now != uid));
        Ok(anew.then_some(()))
    })
    .await?;
    place.as_wanted("x").await.map(drop)
}

/// A client's files: whom it believes, and what it shows.
fn client(folder: &Path, trusted: &str, clients: &Authority) -> Result<Tls> {
    let (certificate, key) = issue(clients, vec!["producer".to_owned()])?;
    let file = |name: &str, text: &str| -> Result<std::path::PathBuf> {
        let path = folder.join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    };
    let mut tls = Tls::new(file("ca.crt", trusted)?);
    (tls.cert, tls.key) = (Some(file("tls.crt", &certificate)?), Some(file("tls.key", &key)?));
    Ok(tls)
}

async fn topic(place: &Place) -> Result<()> {
    let config = json!({ "minInsyncReplicas": 2 });
    let spec = json!({ "partitions": PARTITIONS, "replicationFactor": 3, "config": config });
    place.topic("orders", "x", spec).await?;
    place.topic_is("orders", Phase::Ready).await.map(drop)
}

#[tokio::test]
async fn certificates_are_renewed_and_their_authority_changed_and_nothing_is_lost() -> Result<()> {
    operator::ensure(&[RESYNC]).await?;
    let place = Place::new("certificates").await?;
    let (first, second, clients) = (authority("first")?, authority("second")?, authority("clients")?);
    renew(&place, &first, &first.pem()).await?;
    put(&place, "clients", &[("ca.crt", &clients.pem())]).await?;
    let tls = json!({ "enabled": true, "certSecretName": "brokers", "clientCaSecretName": "clients" });
    place.clustered("x", json!({ "tls": tls })).await?;
    place.cluster_is("x", Phase::Ready).await?;
    topic(&place).await?;

    let folder = tempfile::tempdir()?;
    let both = format!("{}{}", first.pem(), second.pem());
    let speaks = client(folder.path(), &both, &clients)?;
    let load = Load::speaking(Some(speaks), &place, "x", 3, "orders", PARTITIONS).await?;

    let before = place.pods("x").await?;
    renew(&place, &first, &first.pem()).await?;
    restarted(&place, &before).await?;

    // An authority that nobody believes yet is refused before anybody restarts onto it.
    let before = place.pods("x").await?;
    renew(&place, &second, &second.pem()).await?;
    let refused = place.cluster_says("x", "CertificateNotTrusted").await?;
    ensure!(refused.phase == Some(Phase::Ready), "{refused:?}");
    ensure!(place.pods("x").await? == before, "nobody was restarted");

    for (by, trusted) in [(&first, both.as_str()), (&second, both.as_str()), (&second, &second.pem())] {
        let before = place.pods("x").await?;
        renew(&place, by, trusted).await?;
        restarted(&place, &before).await?;
    }
    let silence = load.finish("a certificate renewed, and its authority changed in steps").await?;
    ensure!(silence <= SILENCE, "writes stopped for {silence:?}");
    place.done().await
}

/// An object of cert-manager.
async fn ask(place: &Place, kind: &str, name: &str, spec: Value) -> Result<Api<DynamicObject>> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("cert-manager.io", "v1", kind));
    let api = Api::<DynamicObject>::namespaced_with(place.client.clone(), &place.namespace, &resource);
    let object = DynamicObject::new(name, &resource).data(json!({ "spec": spec }));
    api.create(&PostParams::default(), &object).await?;
    Ok(api)
}

#[tokio::test]
async fn cert_manager_issues_and_renews_the_certificate() -> Result<()> {
    operator::ensure(&[RESYNC]).await?;
    let place = Place::new("issued").await?;
    place.clustered("x", json!({ "tls": { "enabled": true, "issuerRef": { "name": "internal" } } })).await?;
    let waits = place.cluster_says("x", "CertificateNotIssued").await?;
    ensure!(waits.phase == Some(Phase::Pending) && place.pods("x").await?.is_empty(), "{waits:?}");

    ask(&place, "Issuer", "root", json!({ "selfSigned": {} })).await?;
    let root = json!({
        "isCA": true, "commonName": "root", "secretName": "root", "issuerRef": { "name": "root", "kind": "Issuer" },
    });
    ask(&place, "Certificate", "root", root).await?;
    ask(&place, "Issuer", "internal", json!({ "ca": { "secretName": "root" } })).await?;
    place.cluster_is("x", Phase::Ready).await?;
    topic(&place).await?;

    let secrets = place.api::<Secret>();
    let issued = secrets.get("rivven-x-tls").await?;
    let authority = issued.data.as_ref().and_then(|data| data.get("ca.crt")).context("ca.crt")?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("ca.crt"), &authority.0)?;
    let speaks = Tls::new(folder.path().join("ca.crt"));
    let load = Load::speaking(Some(speaks), &place, "x", 3, "orders", PARTITIONS).await?;
    let before = place.pods("x").await?;
    // Made anew when it is gone: the quickest way to another certificate of the same authority.
    secrets.delete("rivven-x-tls", &DeleteParams::default()).await?;
    wait::until("issued anew", || async {
        let now = secrets.get_opt("rivven-x-tls").await?;
        Ok(now.filter(|now| now.uid() != issued.uid()))
    })
    .await?;
    restarted(&place, &before).await?;
    let silence = load.finish("a certificate renewed by cert-manager").await?;
    ensure!(silence <= SILENCE, "writes stopped for {silence:?}");
    place.done().await
}
