//! TLS on every port: who is let in, who is not, and what keeps a broker from starting.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rivven_protocol::{Request, Response};
use rivven_test_broker::config::{Config, Mode};
use rivven_test_broker::tls::connector;
use serde_json::{Value, json};
use support::wire::{ask, ask_on, publishing};
use support::{Cluster, eventually, exchange};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

const ALL: [&str; 3] = ["b0", "b1", "b2"];

/// An authority, and the files of what it issued.
struct Authority {
    files: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { files: TempDir::new().unwrap(), issuer };
        std::fs::write(authority.file("ca"), authority.issuer.pem()).unwrap();
        authority
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Certificate and key for these names, in files of the first one.
    fn issue(&self, names: &[&str]) -> (PathBuf, PathBuf) {
        self.write(names, |params, key| params.signed_by(key, &self.issuer).unwrap().pem())
    }

    /// The same, vouched for by nobody.
    fn self_signed(&self, names: &[&str]) -> (PathBuf, PathBuf) {
        self.write(names, |params, key| params.self_signed(key).unwrap().pem())
    }

    fn write(&self, names: &[&str], sign: impl Fn(&CertificateParams, &KeyPair) -> String) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
        let files = (self.file(names[0]), self.file(&format!("{}.key", names[0])));
        std::fs::write(&files.0, sign(&params, &key)).unwrap();
        std::fs::write(&files.1, key.serialize_pem()).unwrap();
        files
    }
}

/// Somebody who believes an authority and may have a certificate.
struct Client {
    ca: PathBuf,
    identity: Option<(PathBuf, PathBuf)>,
}

impl Client {
    async fn dial(&self, at: SocketAddr, name: &'static str) -> std::io::Result<TlsStream<TcpStream>> {
        let identity = self.identity.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path()));
        let stream = TcpStream::connect(at).await?;
        connector(&self.ca, identity).unwrap().connect(name.try_into().unwrap(), stream).await
    }

    async fn ask(&self, on: &Cluster, name: &'static str, request: Request) -> std::io::Result<Response> {
        ask_on(self.dial(on.addresses(name).client, name).await?, request).await
    }

    async fn call(&self, on: &Cluster, name: &'static str, method: &str, path: &str, body: Option<Value>) -> u16 {
        let stream = self.dial(on.addresses(name).api, name).await.unwrap();
        exchange(stream, method, path, Some("token"), body).await.0
    }
}

fn speaking_tls(on: &Cluster, name: &str, (certificate, key): (PathBuf, PathBuf)) -> Config {
    let mut config = Config::for_tests(Mode::Cluster, name, on.disk(name));
    config.tls_enabled = true;
    config.tls_cert = Some(certificate);
    config.tls_key = Some(key);
    config
}

/// Forms a cluster as `client`, and waits until what is written to it is on all brokers.
async fn forms_and_replicates(cluster: &Cluster, client: &Client) {
    let member = |name| json!({ "node_id": name, "addr": format!("https://{name}:9090") });
    let members = json!({ "members": ALL.map(member) });
    assert_eq!(client.call(cluster, "b0", "POST", "/api/v1/bootstrap", Some(members)).await, 200);
    for name in ALL {
        let ready = async || (client.call(cluster, name, "GET", "/health/ready", None).await == 200).then_some(());
        eventually("ready", ready).await;
    }
    let create = Request::CreateTopic { name: "t".to_owned(), partitions: Some(3) };
    assert!(matches!(client.ask(cluster, "b1", create).await, Ok(Response::TopicCreated { .. })));
    eventually("a publish", async || {
        // Acknowledged by the whole in-sync set.
        match client.ask(cluster, "b1", publishing("t", 1, b"v")).await.unwrap() {
            Response::Published { .. } => Some(()),
            _ => None,
        }
    })
    .await;
    let ask = Request::GetClusterMetadata { topics: vec!["t".to_owned()] };
    let Ok(Response::ClusterMetadata { topics, .. }) = client.ask(cluster, "b2", ask).await else { panic!() };
    assert_eq!(topics[0].partitions[1].isr, ALL);
}

#[tokio::test(start_paused = true)]
async fn brokers_with_an_authority_form_and_only_a_certificate_of_it_lets_clients_in() {
    let (authority, other) = (Authority::new(), Authority::new());
    let mut cluster = Cluster::new();
    for name in ALL {
        let mut config = speaking_tls(&cluster, name, authority.issue(&[name]));
        config.tls_ca = Some(authority.file("ca"));
        config.tls_verify_client = true;
        // There are no users: whoever is answered was authenticated by the certificate.
        config.no_require_auth = false;
        cluster.run(config).await;
    }
    let client = |ca: &Authority, identity| Client { ca: ca.file("ca"), identity };
    forms_and_replicates(&cluster, &client(&authority, Some(authority.issue(&["somebody"])))).await;

    for stranger in [None, Some(other.issue(&["somebody"]))] {
        let stranger = client(&authority, stranger);
        assert!(stranger.ask(&cluster, "b0", Request::Ping).await.is_err());
        // Probes have none either.
        assert_eq!(stranger.call(&cluster, "b0", "GET", "/health/ready", None).await, 200);
    }
    let at = cluster.addresses("b0");
    assert!(client(&other, None).dial(at.api, "b0").await.is_err(), "of another authority");
    assert!(client(&authority, None).dial(at.api, "b1").await.is_err(), "of another name");
    assert!(ask(at.client, Request::Ping).await.is_err(), "in plain text");
    assert_eq!(cluster.get("b0", "/health").await.0, 0, "in plain text");
}

#[tokio::test(start_paused = true)]
async fn without_an_authority_brokers_believe_their_own_certificate() {
    let authority = Authority::new();
    let shared = authority.self_signed(&ALL);
    let mut cluster = Cluster::new();
    for name in ALL {
        cluster.run(speaking_tls(&cluster, name, shared.clone())).await;
    }
    forms_and_replicates(&cluster, &Client { ca: shared.0, identity: None }).await;
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_is_not_demanded_may_be_shown_and_authenticates_nobody() {
    let authority = Authority::new();
    let mut cluster = Cluster::new();
    let mut config = speaking_tls(&cluster, "b0", authority.issue(&["b0"]));
    config.mode = Mode::Standalone;
    config.tls_ca = Some(authority.file("ca"));
    config.no_require_auth = false;
    cluster.run(config).await;
    for identity in [None, Some(authority.issue(&["somebody"]))] {
        let client = Client { ca: authority.file("ca"), identity };
        assert!(matches!(client.ask(&cluster, "b0", Request::Ping).await, Ok(Response::Pong)));
        let Ok(Response::Error { message }) = client.ask(&cluster, "b0", Request::ListTopics).await else { panic!() };
        assert_eq!(message, "AUTHENTICATION_REQUIRED: Please authenticate first");
    }
}

#[test]
fn a_broker_that_cannot_serve_tls_says_why_and_ends() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue(&["one"]);
    let (_, stranger) = authority.issue(&["other"]);
    let (missing, garbage) = (authority.file("missing"), authority.file("garbage"));
    std::fs::write(&garbage, "-----BEGIN CERTIFICATE-----\nbm90IG9uZQ==\n-----END CERTIFICATE-----\n").unwrap();
    let (empty, yes) = (authority.file("empty"), PathBuf::from("true"));
    std::fs::write(&empty, "").unwrap();
    let [cert_name, key_name, ca_name] = ["RIVVEN_TLS_CERT", "RIVVEN_TLS_KEY", "RIVVEN_TLS_CA"];
    for (environment, said) in [
        (vec![], "there is no RIVVEN_TLS_CERT"),
        (vec![(cert_name, &certificate)], "there is no RIVVEN_TLS_KEY"),
        (vec![(cert_name, &missing), (key_name, &key)], "missing: I/O error: No such file or directory"),
        (vec![(cert_name, &empty), (key_name, &key)], "no certificate in "),
        (vec![(cert_name, &garbage), (key_name, &key)], "garbage with "),
        (vec![(cert_name, &certificate), (key_name, &certificate)], "cannot read a key from "),
        (vec![(cert_name, &certificate), (key_name, &stranger)], "cannot be served"),
        (vec![(cert_name, &certificate), (key_name, &key), (ca_name, &garbage)], "not an authority in "),
        (
            vec![(cert_name, &certificate), (key_name, &key), ("RIVVEN_TLS_VERIFY_CLIENT", &yes)],
            "RIVVEN_TLS_VERIFY_CLIENT needs RIVVEN_TLS_CA",
        ),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_rivvend"))
            .env_clear()
            .envs([("RIVVEN_TLS_ENABLED", "true"), ("RUST_BACKTRACE", "0")])
            .env("RIVVEN_DATA_DIR", authority.file("data"))
            .envs(environment)
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr).replace("\n\nCaused by:\n    ", ": ");
        assert_eq!(output.status.code(), Some(1), "{words}");
        assert!(words.contains(said), "{said:?} is not in {words:?}");
        assert!(!authority.file("data").exists(), "before anything is written");
    }
}
