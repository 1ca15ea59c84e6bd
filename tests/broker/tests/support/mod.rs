//! Clusters inside one test, on a paused clock.
#![allow(dead_code, reason = "each test uses a part")]

pub mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rivven_test_broker::config::Mode;
use rivven_test_broker::{Addresses, Broker, Config, Resolver};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How long a test waits for anything, in its own time.
const PATIENCE: Duration = Duration::from_mins(1);

/// Brokers with their disks.
pub struct Cluster {
    disks: TempDir,
    pub links: Links,
    brokers: BTreeMap<String, Broker>,
    adjust: fn(&mut Config),
}

impl Cluster {
    pub fn new() -> Self {
        Self::adjusted(|_| {})
    }

    pub fn adjusted(adjust: fn(&mut Config)) -> Self {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_test_writer();
        drop(log.try_init());
        Self { disks: TempDir::new().unwrap(), links: Links::default(), brokers: BTreeMap::new(), adjust }
    }

    /// A formed cluster of brokers `b0`, `b1`, ….
    pub async fn formed(count: usize, adjust: fn(&mut Config)) -> Self {
        let mut cluster = Self::adjusted(adjust);
        for number in 0..count {
            cluster.start(&format!("b{number}")).await;
        }
        let (status, body) = cluster.bootstrap("b0").await;
        assert_eq!(status, 200, "{body}");
        cluster.all_ready().await;
        cluster
    }

    pub async fn bootstrap(&self, through: &str) -> (u16, Value) {
        let members: Vec<Value> = self.names().iter().map(|name| member(name)).collect();
        self.post(through, "/api/v1/bootstrap", json!({ "members": members })).await
    }

    pub fn names(&self) -> Vec<String> {
        self.brokers.keys().cloned().collect()
    }

    pub fn disk(&self, name: &str) -> PathBuf {
        self.disks.path().join(name)
    }

    pub async fn start(&mut self, name: &str) {
        let mut config = Config::for_tests(Mode::Cluster, name, self.disk(name));
        (self.adjust)(&mut config);
        self.run(config).await;
    }

    pub async fn run(&mut self, config: Config) {
        let (links, name) = (self.links.clone(), config.node_id.clone());
        let resolver: Resolver = Arc::new(move |host, port| links.resolve(&name, host, port));
        let name = config.node_id.clone();
        let broker = Broker::start(config, resolver).await.unwrap();
        self.links.0.table.lock().unwrap().insert(name.clone(), broker.addresses());
        self.brokers.insert(name, broker);
    }

    pub async fn kill(&mut self, name: &str) {
        self.links.0.table.lock().unwrap().remove(name);
        self.brokers.remove(name).unwrap().kill().await;
    }

    pub async fn stop(&mut self, name: &str) {
        self.links.0.table.lock().unwrap().remove(name);
        self.brokers.remove(name).unwrap().stop().await;
    }

    /// A broker that does not run loses everything it held.
    pub fn wipe(&self, name: &str) {
        assert!(!self.brokers.contains_key(name));
        std::fs::remove_dir_all(self.disk(name)).unwrap();
    }

    pub fn addresses(&self, name: &str) -> Addresses {
        self.brokers[name].addresses()
    }

    pub async fn get(&self, name: &str, path: &str) -> (u16, Value) {
        http(self.addresses(name).api, "GET", path, Some("token"), None).await
    }

    pub async fn post(&self, name: &str, path: &str, body: Value) -> (u16, Value) {
        http(self.addresses(name).api, "POST", path, Some("token"), Some(body)).await
    }

    /// Proposes on the leader and expects that it takes effect.
    pub async fn propose(&self, command: Value) -> Value {
        let leader = self.leader().await;
        let (status, body) = self.post(&leader, "/api/v1/propose", json!({ "command": command })).await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(body["success"], true, "{body}");
        body["response"].clone()
    }

    /// The Raft leader that all running brokers agree on.
    pub async fn leader(&self) -> String {
        let find = async || {
            let mut leaders = Vec::new();
            let mut ids = Vec::new();
            for name in self.names() {
                let (status, health) = self.get(&name, "/health").await;
                if status != 200 {
                    return None;
                }
                ids.push(health["leader_id"].clone());
                if health["is_leader"] == true {
                    leaders.push((name, health["node_id"].clone()));
                }
            }
            let (leader, id) = leaders.pop()?;
            (leaders.is_empty() && ids.iter().all(|seen| *seen == id)).then_some(leader)
        };
        eventually("one leader", find).await
    }

    pub async fn all_ready(&self) {
        for name in self.names() {
            let ready = async || (self.get(&name, "/health/ready").await.0 == 200).then_some(());
            eventually("ready", ready).await;
        }
    }

    /// The voters that a broker knows.
    pub async fn voters(&self, name: &str) -> usize {
        let (_, body) = self.get(name, "/membership").await;
        body["nodes"].as_array().unwrap().iter().filter(|node| node["is_voter"] == true).count()
    }
}

pub fn member(name: &str) -> Value {
    json!({ "node_id": name, "addr": format!("http://{name}:9090") })
}

/// Asks until there is an answer.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(tokio::time::Instant::now() < until, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn http(at: SocketAddr, method: &str, path: &str, token: Option<&str>, body: Option<Value>) -> (u16, Value) {
    let Ok(stream) = TcpStream::connect(at).await else { return (0, Value::Null) };
    exchange(stream, method, path, token, body).await
}

/// One exchange on a connection of its own; 0: no answer.
pub async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<Value>,
) -> (u16, Value) {
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: b\r\nconnection: close\r\n{token}");
    let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer).await);
    let answer = String::from_utf8(answer).unwrap();
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return (0, Value::Null) };
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned())))
}

/// The connections between brokers, each through a relay that can be cut.
#[derive(Clone, Default)]
pub struct Links(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Where each running broker is.
    table: Mutex<BTreeMap<String, Addresses>>,
    relays: Mutex<BTreeMap<(String, String, u16), SocketAddr>>,
    cut: watch::Sender<BTreeSet<(String, String, u16)>>,
}

pub const CLUSTER: u16 = 9393;
pub const API: u16 = 9090;

impl Links {
    /// From now on one broker cannot reach a port of another.
    pub fn cut(&self, from: &str, to: &str, port: u16) {
        let link = (from.to_owned(), to.to_owned(), port);
        self.0.cut.send_modify(|cut| {
            cut.insert(link);
        });
    }

    /// Cuts everything between two brokers.
    pub fn part(&self, one: &str, other: &str) {
        for port in [CLUSTER, API] {
            self.cut(one, other, port);
            self.cut(other, one, port);
        }
    }

    pub fn heal(&self) {
        self.0.cut.send_modify(BTreeSet::clear);
    }

    pub fn client_address(&self, name: &str) -> Option<SocketAddr> {
        self.0.table.lock().unwrap().get(name).map(|addresses| addresses.client)
    }

    pub fn running(&self) -> Vec<String> {
        self.0.table.lock().unwrap().keys().cloned().collect()
    }

    fn resolve(&self, from: &str, to: &str, port: u16) -> SocketAddr {
        let link = (from.to_owned(), to.to_owned(), port);
        *self.0.relays.lock().unwrap().entry(link.clone()).or_insert_with(|| {
            let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
            listener.set_nonblocking(true).unwrap();
            let at = listener.local_addr().unwrap();
            tokio::spawn(relay(self.clone(), TcpListener::from_std(listener).unwrap(), link));
            at
        })
    }

    fn target(&self, name: &str, port: u16) -> Option<SocketAddr> {
        let table = self.0.table.lock().unwrap();
        let addresses = table.get(name)?;
        Some(if port == CLUSTER { addresses.cluster } else { addresses.api })
    }
}

async fn relay(links: Links, listener: TcpListener, link: (String, String, u16)) {
    loop {
        let (mut near, _) = listener.accept().await.unwrap();
        let (links, link) = (links.clone(), link.clone());
        tokio::spawn(async move {
            let mut cut = links.0.cut.subscribe();
            let (Some(target), false) = (links.target(&link.1, link.2), cut.borrow().contains(&link)) else { return };
            let Ok(mut far) = TcpStream::connect(target).await else { return };
            near.set_nodelay(true).unwrap();
            far.set_nodelay(true).unwrap();
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                _ = cut.wait_for(|cut| cut.contains(&link)) => {}
            }
        });
    }
}

/// The command that makes a topic with given replicas of each partition.
pub fn topic(name: &str, min_isr: u16, replicas: &[&[&str]]) -> Value {
    json!({ "CreateTopic": {
        "config": {
            "name": name, "partitions": replicas.len(), "replication_factor": replicas[0].len(), "retention_ms": 1,
            "segment_bytes": 1024, "min_isr": min_isr, "config": {},
        },
        "partition_assignments": replicas,
    } })
}
