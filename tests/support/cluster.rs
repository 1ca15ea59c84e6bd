//! Real clustered brokers, the test broker's, in the pods of the model.
//!
//! A broker runs while the container of its pod runs in the model, on the disk of the pod's volume; the pod is ready
//! when its broker says so. What the operator asks of the HTTP API goes through a door where a call can be made to fail.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use k8s_openapi::ByteString;
use rivven_operator::broker::{Access, BrokerAddress};
use rivven_protocol::{Request, Response, WireFormat};
use rivven_sim::{Behaviour, Session, Sim};
use rivven_test_broker::config::Mode;
use rivven_test_broker::tls::connector;
use rivven_test_broker::{Addresses, Broker, Config, Resolver};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsConnector;

/// How often the brokers follow the pods.
const PACE: Duration = Duration::from_millis(100);
/// Nobody listens there.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

/// What happens to a call of the operator that changes something at a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFault {
    /// The operator ends before the broker hears of it.
    CutBefore,
    /// The operator ends after it took effect.
    CutAfter,
    /// It takes effect, and the answer is lost.
    LoseReply,
    /// The broker never hears of it.
    Disconnect,
}

pub const CALL_FAULTS: [CallFault; 4] =
    [CallFault::CutBefore, CallFault::CutAfter, CallFault::LoseReply, CallFault::Disconnect];

/// An answer that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nonsense {
    /// 500, or an error in words that nobody knows.
    Refusal,
    /// Nothing at all.
    Empty,
    /// What a dashboard answers to any path.
    Html,
    /// The right names with values of other types, or the answer to another request.
    WrongTypes,
    /// Something well formed that was not asked for.
    AnotherKind,
    /// No answer ever.
    Silence,
}

pub const NONSENSE: [Nonsense; 6] = [
    Nonsense::Refusal,
    Nonsense::Empty,
    Nonsense::Html,
    Nonsense::WrongTypes,
    Nonsense::AnotherKind,
    Nonsense::Silence,
];

/// Where the brokers that run are, by pod.
type Table = Arc<Mutex<BTreeMap<String, Addresses>>>;

struct Running {
    container: String,
    broker: Broker,
    /// How its API is spoken to, if by TLS.
    tls: Option<TlsConnector>,
}

#[derive(Default)]
struct Plan {
    /// Calls so far.
    calls: u64,
    fault: Option<(u64, CallFault)>,
    session: Option<Session>,
    /// Bootstraps that a broker carried out.
    begun: u64,
    /// Questions, by path or by name of the request, that are answered with nonsense.
    garbled: Vec<(&'static str, Nonsense)>,
    /// How often that changed.
    garbles: u64,
}

struct Inner {
    sim: Sim,
    disks: TempDir,
    running: tokio::sync::Mutex<BTreeMap<String, Running>>,
    addresses: Table,
    ready: Arc<Mutex<BTreeSet<String>>>,
    /// Pods whose brokers speak TLS: what goes through their doors is not to be read.
    encrypted: Mutex<BTreeSet<String>>,
    /// Pods whose brokers do not start although their containers run.
    late: Mutex<BTreeSet<String>>,
    doors: Mutex<BTreeMap<(String, u16), SocketAddr>>,
    tasks: Mutex<JoinSet<()>>,
    plan: Mutex<Plan>,
}

/// The brokers of a model. Clones are the same brokers.
#[derive(Clone)]
pub struct Clustered(Arc<Inner>, Arc<Keeper>);

struct Keeper(JoinHandle<()>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Clustered {
    pub fn new(sim: &Sim) -> Self {
        let ready = Arc::new(Mutex::new(BTreeSet::new()));
        let known = ready.clone();
        sim.behave(move |pod| {
            let name = pod["metadata"]["name"].as_str()?;
            (!known.lock().unwrap().contains(name)).then_some(Behaviour::NeverReady)
        });
        let inner = Arc::new(Inner {
            sim: sim.clone(),
            disks: TempDir::new().unwrap(),
            running: tokio::sync::Mutex::default(),
            addresses: Table::default(),
            ready,
            encrypted: Mutex::default(),
            late: Mutex::default(),
            doors: Mutex::default(),
            tasks: Mutex::default(),
            plan: Mutex::default(),
        });
        let weak = Arc::downgrade(&inner);
        let keeper = tokio::spawn(async move {
            while let Some(inner) = weak.upgrade() {
                inner.follow().await;
                drop(inner);
                tokio::time::sleep(PACE).await;
            }
        });
        Self(inner, Arc::new(Keeper(keeper)))
    }

    pub fn access(&self) -> Access {
        let inner = Arc::downgrade(&self.0);
        Access::Mapped(Arc::new(move |address, port| match inner.upgrade() {
            Some(inner) => inner.door(address, port),
            None => NOWHERE,
        }))
    }

    /// The nth call that changes something at a broker, counted from 1, fails so.
    pub fn on_call(&self, session: &Session, nth: u64, fault: CallFault) {
        let mut plan = self.0.plan.lock().unwrap();
        (plan.fault, plan.session) = (Some((nth, fault)), Some(session.clone()));
    }

    /// From now on these questions, and no others, are answered with nonsense by every broker. What goes on over the client
    /// protocol is begun anew.
    pub fn garble(&self, questions: &[(&'static str, Nonsense)]) {
        let mut plan = self.0.plan.lock().unwrap();
        (plan.garbled, plan.garbles) = (questions.to_vec(), plan.garbles + 1);
    }

    /// How many calls changed something, or were to.
    pub fn calls(&self) -> u64 {
        self.0.plan.lock().unwrap().calls
    }

    /// How often brokers were made a cluster.
    pub fn begun(&self) -> u64 {
        self.0.plan.lock().unwrap().begun
    }

    /// Asks a broker over the client protocol, on a connection of its own.
    pub async fn client(&self, pod: &str, request: Request) -> Result<Response, String> {
        let at = find(&self.0.addresses, pod, 9292);
        let answer = async {
            let mut stream = TcpStream::connect(at).await?;
            let body = request.to_wire(WireFormat::Postcard, 7).unwrap();
            stream.write_all(&framed(&body)).await?;
            Ok::<_, std::io::Error>(Response::from_wire(&frame(&mut stream).await?).unwrap().0)
        };
        match tokio::time::timeout(Duration::from_secs(30), answer).await {
            Err(_) => Err("no answer".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Ok(Ok(Response::Error { message })) => Err(message),
            Ok(Ok(response)) => Ok(response),
        }
    }

    /// Asks a broker to fail in some way, as `POST /test/faults` of the test broker takes it.
    pub async fn fault(&self, pod: &str, order: &serde_json::Value) {
        let secret = self.0.sim.get("secrets", "default", "rivven-x-auth").unwrap();
        let token: ByteString = serde_json::from_value(secret["data"]["token"].clone()).unwrap();
        let (token, body) = (String::from_utf8(token.0).unwrap(), order.to_string());
        let head = format!(
            "POST /test/faults HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = TcpStream::connect(find(&self.0.addresses, pod, 9090)).await.unwrap();
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }

    /// The pods whose brokers run.
    pub fn running(&self) -> Vec<String> {
        self.0.addresses.lock().unwrap().keys().cloned().collect()
    }

    /// The broker of this pod does not start until it is let.
    pub fn hold(&self, pod: &str, held: bool) {
        let mut late = self.0.late.lock().unwrap();
        if held {
            late.insert(pod.to_owned())
        } else {
            late.remove(pod)
        };
    }
}

impl Inner {
    /// Brokers as the pods are now.
    async fn follow(&self) {
        let mut wanted = BTreeMap::new();
        for pod in self.sim.list("pods") {
            let container = pod.pointer("/status/containerStatuses/0").filter(|c| c["state"]["running"].is_object());
            if let (Some(name), Some(container)) = (pod["metadata"]["name"].as_str(), container)
                && !self.late.lock().unwrap().contains(name)
            {
                wanted.insert(name.to_owned(), container["containerID"].as_str().unwrap_or_default().to_owned());
            }
        }
        let mut running = self.running.lock().await;
        let gone: Vec<String> = running
            .iter()
            .filter(|(name, r)| wanted.get(*name) != Some(&r.container))
            .map(|(n, _)| n.clone())
            .collect();
        for name in gone {
            self.addresses.lock().unwrap().remove(&name);
            self.ready.lock().unwrap().remove(&name);
            running.remove(&name).unwrap().broker.kill().await;
        }
        for (name, container) in wanted {
            if !running.contains_key(&name)
                && let Some(config) = self.config(&name)
            {
                let tls = config.tls_ca.as_ref().map(|ca| connector(ca, None).unwrap());
                let broker = Broker::start(config, self.resolver()).await.unwrap();
                if tls.is_some() {
                    self.encrypted.lock().unwrap().insert(name.clone());
                }
                self.addresses.lock().unwrap().insert(name.clone(), broker.addresses());
                running.insert(name.clone(), Running { container, broker, tls });
            }
        }
        for (name, running) in running.iter() {
            let ready = answers_200(running.broker.addresses().api, name, running.tls.as_ref()).await;
            let mut known = self.ready.lock().unwrap();
            if ready {
                known.insert(name.clone())
            } else {
                known.remove(name)
            };
        }
    }

    fn config(&self, pod: &str) -> Option<Config> {
        let claim = self.sim.get("persistentvolumeclaims", "default", &format!("data-{pod}"))?;
        let disk = self.disks.path().join(claim["metadata"]["uid"].as_str()?);
        let mut config = Config::for_tests(Mode::Cluster, pod, disk);
        let secret = self.sim.get("secrets", "default", "rivven-x-auth")?;
        let token: ByteString = serde_json::from_value(secret["data"]["token"].clone()).ok()?;
        config.cluster_auth_token = Some(String::from_utf8(token.0).ok()?);
        config.advertise_addr = Some(format!("{}:9393", host(pod)));
        config.test_faults = true;
        self.certify(&mut config, pod)?;
        Some(config)
    }

    /// As the kubelet mounts the certificate, and the broker reads it when it starts. `None`: the pod cannot start.
    fn certify(&self, config: &mut Config, name: &str) -> Option<()> {
        let pod = self.sim.get("pods", "default", name)?;
        let spec = &pod["spec"];
        let variables = spec["containers"][0]["env"].as_array()?;
        let is = |variable: &str| variables.iter().any(|v| v["name"] == *variable && v["value"] == "true");
        config.no_require_auth = is("RIVVEN_NO_REQUIRE_AUTH");
        if !is("RIVVEN_TLS_ENABLED") {
            return Some(());
        }
        let mounted = spec["volumes"].as_array()?.iter().find(|volume| volume["name"] == "tls")?;
        let secret = self.sim.get("secrets", "default", mounted["secret"]["secretName"].as_str()?)?;
        let map = self.sim.get("configmaps", "default", "rivven-x-config")?;
        let files = self.disks.path().join(pod["metadata"]["uid"].as_str()?);
        std::fs::create_dir_all(&files).ok()?;
        let write = |file: &str, content: &[u8]| {
            let path = files.join(file);
            std::fs::write(&path, content).ok().map(|()| path)
        };
        let private = |key: &str| serde_json::from_value::<ByteString>(secret["data"][key].clone()).ok();
        config.tls_cert = write("tls.crt", &private("tls.crt")?.0);
        config.tls_key = write("tls.key", &private("tls.key")?.0);
        config.tls_ca = write("ca.crt", map["data"]["ca.crt"].as_str()?.as_bytes());
        (config.tls_enabled, config.tls_verify_client) = (true, is("RIVVEN_TLS_VERIFY_CLIENT"));
        Some(())
    }

    /// Brokers find each other by their DNS names.
    fn resolver(&self) -> Resolver {
        let addresses = self.addresses.clone();
        Arc::new(move |host, port| find(&addresses, host.split('.').next().unwrap_or_default(), port))
    }

    /// Where the operator reaches a port of a broker, running or not.
    fn door(self: &Arc<Self>, address: &BrokerAddress, port: u16) -> SocketAddr {
        let mut doors = self.doors.lock().unwrap();
        *doors.entry((address.pod.clone(), port)).or_insert_with(|| {
            let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            listener.set_nonblocking(true).unwrap();
            let at = listener.local_addr().unwrap();
            let (inner, pod, http) = (Arc::downgrade(self), address.pod.clone(), port == address.api_port);
            let listener = TcpListener::from_std(listener).unwrap();
            self.tasks.lock().unwrap().spawn(async move {
                let mut calls = JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    let (inner, pod) = (inner.clone(), pod.clone());
                    calls.spawn(async move {
                        // An end in the midst of it is the caller's to notice.
                        drop(match encrypted(&inner, &pod, port) {
                            Some(far) => through(stream, far).await,
                            None if http => pass(&inner, stream, &pod).await,
                            None => relay(&inner, stream, &pod).await,
                        });
                    });
                }
            });
            at
        })
    }

    /// Counts a call that changes something; says what is to happen to it.
    fn planned(&self) -> Option<CallFault> {
        let mut plan = self.plan.lock().unwrap();
        plan.calls += 1;
        plan.fault.filter(|(nth, _)| *nth == plan.calls).map(|(_, fault)| fault)
    }

    /// The nonsense that a question is answered with, if any, and how often that changed.
    fn nonsense(&self, question: &str) -> (Option<Nonsense>, u64) {
        let plan = self.plan.lock().unwrap();
        let garbled = plan.garbled.iter().find(|(garbled, _)| question.starts_with(garbled));
        (garbled.map(|(_, nonsense)| *nonsense), plan.garbles)
    }

    fn cut(&self) {
        let session = self.plan.lock().unwrap().session.clone();
        session.unwrap().cut();
    }
}

fn find(addresses: &Table, pod: &str, port: u16) -> SocketAddr {
    match (addresses.lock().unwrap().get(pod), port) {
        (Some(at), 9292) => at.client,
        (Some(at), 9393) => at.cluster,
        (Some(at), _) => at.api,
        (None, _) => NOWHERE,
    }
}

/// Where a broker is whose words cannot be read on the way.
fn encrypted(inner: &Weak<Inner>, pod: &str, port: u16) -> Option<SocketAddr> {
    let held = inner.upgrade()?;
    let is_so = held.encrypted.lock().unwrap().contains(pod);
    is_so.then(|| find(&held.addresses, pod, port))
}

async fn through(mut near: TcpStream, far: SocketAddr) -> std::io::Result<()> {
    tokio::io::copy_bidirectional(&mut near, &mut TcpStream::connect(far).await?).await.map(drop)
}

/// One call: each has a connection of its own.
async fn pass(inner: &Weak<Inner>, mut near: TcpStream, pod: &str) -> std::io::Result<()> {
    let request = message(&mut near).await?;
    let Some(held) = inner.upgrade() else { return Ok(()) };
    let fault = if request.starts_with(b"POST ") { held.planned() } else { None };
    match fault {
        Some(CallFault::CutBefore) => {
            held.cut();
            return Ok(());
        }
        Some(CallFault::Disconnect) => return Ok(()),
        _ => {}
    }
    let api = find(&held.addresses, pod, 9090);
    let path = String::from_utf8_lossy(&request).split(' ').nth(1).unwrap_or_default().to_owned();
    let (nonsense, _) = held.nonsense(&path);
    drop(held);
    if let Some(nonsense) = nonsense {
        return senseless(&mut near, nonsense).await;
    }
    let mut far = TcpStream::connect(api).await?;
    far.write_all(&request).await?;
    let mut answer = Vec::new();
    far.read_to_end(&mut answer).await?;
    let Some(held) = inner.upgrade() else { return Ok(()) };
    if request.starts_with(b"POST /api/v1/bootstrap ") && answer.starts_with(b"HTTP/1.1 200") {
        held.plan.lock().unwrap().begun += 1;
    }
    match fault {
        Some(CallFault::CutAfter) => held.cut(),
        Some(CallFault::LoseReply) => {}
        _ => near.write_all(&answer).await?,
    }
    Ok(())
}

async fn senseless(near: &mut TcpStream, nonsense: Nonsense) -> std::io::Result<()> {
    let body = match nonsense {
        Nonsense::Refusal => "{\"error\":\"on purpose\"}",
        Nonsense::Empty => "",
        Nonsense::Html => "<html></html>",
        Nonsense::WrongTypes => {
            "{\"status\":1,\"node_id_str\":[],\"is_leader\":\"no\",\"nodes\":\"none\",\"success\":\"yes\"}"
        }
        Nonsense::AnotherKind => "{\"topics\":3}",
        Nonsense::Silence => std::future::pending().await,
    };
    let code = if nonsense == Nonsense::Refusal { "500 Internal Server Error" } else { "200 OK" };
    let answer = format!("HTTP/1.1 {code}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    near.write_all(answer.as_bytes()).await
}

/// A connection of the client protocol, request by request.
async fn relay(inner: &Weak<Inner>, mut near: TcpStream, pod: &str) -> std::io::Result<()> {
    let Some((client, (_, began))) = inner.upgrade().map(|held| (find(&held.addresses, pod, 9292), held.nonsense("")))
    else {
        return Ok(());
    };
    let mut far = TcpStream::connect(client).await?;
    loop {
        let request = frame(&mut near).await?;
        let Some(held) = inner.upgrade() else { return Ok(()) };
        let (asked, _, correlation) = Request::from_wire(&request).unwrap();
        let (nonsense, now) = held.nonsense(&format!("{asked:?}"));
        drop(held);
        if now != began {
            return Ok(());
        }
        let answer = match nonsense {
            None => {
                far.write_all(&framed(&request)).await?;
                frame(&mut far).await?
            }
            Some(Nonsense::Empty) => Vec::new(),
            Some(Nonsense::Html) => b"<html></html>".to_vec(),
            Some(Nonsense::Silence) => std::future::pending().await,
            Some(Nonsense::Refusal) => wire(&Response::Error { message: "on purpose".to_owned() }, correlation),
            Some(Nonsense::WrongTypes) => wire(&Response::Pong, correlation + 1),
            Some(Nonsense::AnotherKind) => wire(&Response::TopicDeleted, correlation),
        };
        near.write_all(&framed(&answer)).await?;
    }
}

fn wire(response: &Response, correlation: u32) -> Vec<u8> {
    response.to_wire(WireFormat::Postcard, correlation).unwrap()
}

async fn frame(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut frame = vec![0; stream.read_u32().await? as usize];
    stream.read_exact(&mut frame).await?;
    Ok(frame)
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    frame.extend(body);
    frame
}

/// A whole request: head and body.
async fn message(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&request).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    request.extend(body);
    Ok(request)
}

fn host(pod: &str) -> String {
    format!("{pod}.rivven-x-headless.default.svc.cluster.local")
}

async fn answers_200(api: SocketAddr, pod: &str, tls: Option<&TlsConnector>) -> bool {
    let Ok(stream) = TcpStream::connect(api).await else { return false };
    match tls {
        None => is_ready(stream).await,
        Some(tls) => match tls.connect(host(pod).try_into().unwrap(), stream).await {
            Ok(stream) => is_ready(stream).await,
            Err(_) => false,
        },
    }
}

async fn is_ready(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> bool {
    let request = b"GET /health/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let mut answer = Vec::new();
    stream.write_all(request).await.is_ok()
        && stream.read_to_end(&mut answer).await.is_ok()
        && answer.starts_with(b"HTTP/1.1 200")
}
