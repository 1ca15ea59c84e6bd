//! Brokers as the released one behaves, as far as the operator meets it: health, version and topics, over loopback.
//!
//! A broker is reached while the container of its pod runs in the model. Topics live as long as the pod's volume; their
//! configuration is lost with each restart, as the released broker loses it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Mutex};

use rivven_operator::broker::{Access, BrokerAddress};
use rivven_protocol::{Request, Response, TopicConfigDescription, TopicConfigValue, WireFormat};
use rivven_sim::Sim;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Partitions and configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub partitions: u32,
    pub config: BTreeMap<String, String>,
}

#[derive(Default)]
struct Disk {
    /// The container that served last.
    container: String,
    topics: BTreeMap<String, Topic>,
}

struct Inner {
    sim: Sim,
    /// By the uid of the volume claim.
    disks: Mutex<BTreeMap<String, Disk>>,
    ports: Mutex<BTreeMap<(String, u16), SocketAddr>>,
    servers: Mutex<JoinSet<()>>,
    calls: Mutex<Vec<String>>,
    down: Mutex<bool>,
    /// The dashboard shows nothing.
    closed: Mutex<bool>,
    /// Connectors that fail, as `source/name`.
    failing: Mutex<BTreeSet<String>>,
}

/// All brokers of a model. Clones are the same brokers.
#[derive(Clone)]
pub struct Fleet(Arc<Inner>);

impl Fleet {
    pub fn new(sim: &Sim) -> Self {
        Self(Arc::new(Inner {
            sim: sim.clone(),
            disks: Mutex::default(),
            ports: Mutex::default(),
            servers: Mutex::default(),
            calls: Mutex::default(),
            down: Mutex::default(),
            closed: Mutex::default(),
            failing: Mutex::default(),
        }))
    }

    pub fn access(&self) -> Access {
        let fleet = self.clone();
        Access::Mapped(Arc::new(move |address, port| fleet.reach(address, port)))
    }

    /// What every broker holds, by pod.
    pub fn topics(&self) -> BTreeMap<String, Topic> {
        self.0.disks.lock().unwrap().values().flat_map(|disk| disk.topics.clone()).collect()
    }

    /// Every change that a broker was asked for.
    pub fn writes(&self) -> Vec<String> {
        self.0.calls.lock().unwrap().clone()
    }

    /// A topic that somebody else made.
    pub fn put(&self, claim: &str, name: &str, topic: Topic) {
        let uid = self.0.sim.get("persistentvolumeclaims", "default", claim).unwrap()["metadata"]["uid"].clone();
        let mut disks = self.0.disks.lock().unwrap();
        disks.entry(uid.as_str().unwrap().to_owned()).or_default().topics.insert(name.to_owned(), topic);
    }

    /// While down, brokers accept nothing, although their pods look well.
    pub fn down(&self, down: bool) {
        *self.0.down.lock().unwrap() = down;
    }

    /// Without its dashboard a broker lists no more than the names of topics.
    pub fn close_dashboard(&self) {
        *self.0.closed.lock().unwrap() = true;
    }

    /// The worker of this connector, `source/name`, tells that it fails, or no more.
    pub fn fail(&self, connector: &str, fails: bool) {
        let mut failing = self.0.failing.lock().unwrap();
        if fails {
            failing.insert(connector.to_owned())
        } else {
            failing.remove(connector)
        };
    }

    fn reach(&self, address: &BrokerAddress, port: u16) -> SocketAddr {
        let mut ports = self.0.ports.lock().unwrap();
        *ports.entry((address.pod.clone(), port)).or_insert_with(|| {
            let listener = StdListener::bind(("127.0.0.1", 0)).unwrap();
            listener.set_nonblocking(true).unwrap();
            let at = listener.local_addr().unwrap();
            let listener = TcpListener::from_std(listener).unwrap();
            let server = serve(Arc::downgrade(&self.0), listener, address.clone(), port);
            self.0.servers.lock().unwrap().spawn(server);
            at
        })
    }
}

async fn serve(fleet: std::sync::Weak<Inner>, listener: TcpListener, address: BrokerAddress, port: u16) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let Some(fleet) = fleet.upgrade() else { return };
        // A connection to a broker that does not run is closed at once.
        let Some(container) = fleet.running(&address) else { continue };
        let (fleet, address) = (Arc::downgrade(&fleet), address.clone());
        connections.spawn(async move {
            if port == address.api_port {
                http(fleet, stream, &address).await;
            } else {
                binary(fleet, stream, &address, container).await;
            }
        });
    }
}

impl Inner {
    fn pod(&self, address: &BrokerAddress) -> Option<Value> {
        self.sim.get("pods", &address.namespace, &address.pod)
    }

    /// The container that runs in the broker's pod.
    fn running(&self, address: &BrokerAddress) -> Option<String> {
        if *self.down.lock().unwrap() {
            return None;
        }
        let pod = self.pod(address)?;
        let status = pod.pointer("/status/containerStatuses/0")?;
        status.pointer("/state/running")?;
        Some(status["containerID"].as_str()?.to_owned())
    }

    /// What the dashboard shows. Its replication factor is a setting, as the released broker's is.
    fn shown(&self, address: &BrokerAddress) -> Value {
        let claim = self.sim.get("persistentvolumeclaims", &address.namespace, &format!("data-{}", address.pod));
        let uid = claim.unwrap_or_default()["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let disks = self.disks.lock().unwrap();
        let topics = disks.get(&uid).into_iter().flat_map(|disk| &disk.topics);
        let topic = |(name, topic): (&String, &Topic)| json!({ "name": name, "partitions": topic.partitions, "replication_factor": 3, "message_count": 0 });
        json!({ "topics": topics.map(topic).collect::<Vec<_>>() })
    }

    fn answer(&self, address: &BrokerAddress, container: &str, request: Request) -> Option<Response> {
        let claim = self.sim.get("persistentvolumeclaims", &address.namespace, &format!("data-{}", address.pod))?;
        let mut disks = self.disks.lock().unwrap();
        let disk = disks.entry(claim["metadata"]["uid"].as_str()?.to_owned()).or_default();
        if disk.container != container {
            container.clone_into(&mut disk.container);
            disk.topics.values_mut().for_each(|topic| topic.config = defaults());
        }
        if let Some(write) = write(&request) {
            self.calls.lock().unwrap().push(write);
        }
        Some(disk.serve(request))
    }
}

fn write(request: &Request) -> Option<String> {
    match request {
        Request::CreateTopic { name, partitions } => Some(format!("create {name} {}", partitions.unwrap_or(0))),
        Request::CreatePartitions { topic, new_partition_count, .. } => {
            Some(format!("grow {topic} {new_partition_count}"))
        }
        Request::AlterTopicConfig { topic, .. } => Some(format!("alter {topic}")),
        Request::DeleteTopic { name } => Some(format!("delete {name}")),
        _ => None,
    }
}

impl Disk {
    fn serve(&mut self, request: Request) -> Response {
        let error = |message: String| Response::Error { message };
        match request {
            Request::Handshake { protocol_version, .. } => {
                Response::HandshakeResult { server_version: protocol_version, compatible: true, message: String::new() }
            }
            Request::Ping => Response::Pong,
            Request::ListTopics => Response::Topics { topics: self.topics.keys().cloned().collect() },
            Request::GetMetadata { topic } => match self.topics.get(&topic) {
                Some(found) => Response::Metadata { name: topic, partitions: found.partitions },
                None => error(format!("Topic not found: {topic}")),
            },
            Request::DescribeTopicConfigs { topics } => {
                let value = |(key, value): (String, String)| {
                    (key, TopicConfigValue { value, is_default: false, is_read_only: false, is_sensitive: false })
                };
                let describe = |topic: String| {
                    let config = self.topics.get(&topic).map_or_else(defaults, |found| found.config.clone());
                    TopicConfigDescription { topic, configs: config.into_iter().map(value).collect() }
                };
                Response::TopicConfigsDescribed { configs: topics.into_iter().map(describe).collect() }
            }
            Request::CreateTopic { name, .. } if self.topics.contains_key(&name) => {
                error(format!("Topic '{name}' already exists"))
            }
            Request::CreateTopic { name, partitions } => {
                let partitions = partitions.unwrap_or(1);
                self.topics.insert(name.clone(), Topic { partitions, config: defaults() });
                Response::TopicCreated { name, partitions }
            }
            Request::CreatePartitions { topic, new_partition_count, .. } => match self.topics.get_mut(&topic) {
                Some(found) if new_partition_count > found.partitions => {
                    found.partitions = new_partition_count;
                    Response::PartitionsCreated { topic, new_partition_count }
                }
                Some(_) => error("INVALID_PARTITIONS: New partition count must be greater".to_owned()),
                None => error(format!("Topic not found: {topic}")),
            },
            Request::AlterTopicConfig { topic, configs } => match self.topics.get_mut(&topic) {
                Some(found) => {
                    let changed_count = configs.len();
                    found.config.extend(configs.into_iter().map(|e| (e.key, e.value.unwrap_or_default())));
                    Response::TopicConfigAltered { topic, changed_count }
                }
                None => error(format!("Topic not found: {topic}")),
            },
            Request::DeleteTopic { name } => match self.topics.remove(&name) {
                Some(_) => Response::TopicDeleted,
                None => error(format!("Topic not found: {name}")),
            },
            other => error(format!("not modelled: {other:?}")),
        }
    }
}

/// What the released broker answers for a topic that nobody configured.
pub fn defaults() -> BTreeMap<String, String> {
    [
        ("cleanup.policy", "delete"),
        ("compression.type", "producer"),
        ("max.message.bytes", "1048576"),
        ("min.insync.replicas", "1"),
        ("retention.bytes", "-1"),
        ("retention.ms", "604800000"),
        ("segment.bytes", "1073741824"),
        ("segment.ms", "604800000"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

async fn http(fleet: std::sync::Weak<Inner>, mut stream: TcpStream, address: &BrokerAddress) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let body = {
        let Some(fleet) = fleet.upgrade() else { return };
        let Some(pod) = fleet.pod(address) else { return };
        let image = pod.pointer("/spec/containers/0/image").and_then(Value::as_str).unwrap_or_default();
        let version = image.rsplit(':').next().unwrap_or_default();
        if let Some(connectors) = pod["metadata"]["annotations"]["rivven.io/connectors"].as_str() {
            worker(connectors, &fleet)
        } else if head.starts_with(b"GET /health ") {
            json!({
                "status": "healthy", "node_id": 1, "node_id_str": address.pod, "is_leader": true, "leader_id": 1,
                "cluster_mode": false,
            })
            .to_string()
        } else if head.starts_with(b"GET /dashboard/data ") && !*fleet.closed.lock().unwrap() {
            fleet.shown(address).to_string()
        } else {
            format!("rivven_info{{version=\"{version}\"}} 1\n")
        }
    };
    let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let _ = stream.write_all(answer.as_bytes()).await;
}

/// What the released worker says of its connectors: "starting" for ever, and how often each failed.
fn worker(connectors: &str, fleet: &Inner) -> String {
    let failing = fleet.failing.lock().unwrap();
    let of = |role: &str| -> Vec<Value> {
        connectors
            .split(',')
            .filter_map(|id| Some((id, id.strip_prefix(role)?)))
            .map(|(id, name)| {
                let errors = u64::from(failing.contains(id));
                let last = (errors > 0).then_some("connection refused");
                json!({ "name": name, "status": "starting", "events_processed": 0, "errors_count": errors, "last_error": last })
            })
            .collect()
    };
    json!({
        "status": "unhealthy", "broker_connected": false, "uptime_secs": 60, "sources": of("source/"), "sinks": of("sink/"),
    })
    .to_string()
}

async fn binary(fleet: std::sync::Weak<Inner>, mut stream: TcpStream, address: &BrokerAddress, container: String) {
    let _ = stream.set_nodelay(true);
    while let Ok(length) = stream.read_u32().await {
        let mut frame = vec![0; length as usize];
        if stream.read_exact(&mut frame).await.is_err() {
            return;
        }
        let (request, _, correlation) = Request::from_wire(&frame).unwrap();
        let answer = {
            let Some(fleet) = fleet.upgrade() else { return };
            // The process that this connection was made to is no more.
            if fleet.running(address).as_ref() != Some(&container) {
                return;
            }
            let Some(answer) = fleet.answer(address, &container, request) else { return };
            answer.to_wire(WireFormat::Postcard, correlation).unwrap()
        };
        let mut reply = u32::try_from(answer.len()).unwrap().to_be_bytes().to_vec();
        reply.extend(answer);
        if stream.write_all(&reply).await.is_err() {
            return;
        }
    }
}
