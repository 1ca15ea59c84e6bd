//! A broker: what it is made of, its start and its ends.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use openraft::BasicNode;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::config::{Config, Mode};
use crate::data::{self, Replicas};
use crate::faults::Faults;
use crate::http::{Caller, Names, Resolver};
use crate::membership::{self, Sessions};
use crate::metadata::Metadata;
use crate::metadata::state::ClusterMetadata;
use crate::tls::{self, Stream, Tls};
use crate::{admin, client, controller};

/// How long open connections may take to finish what they do when the broker is stopped.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Where a broker listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The client protocol.
    pub client: SocketAddr,
    /// Followers fetch here.
    pub cluster: SocketAddr,
    /// The HTTP API.
    pub api: SocketAddr,
}

/// What every part of a broker may use.
pub(crate) struct Core {
    pub(crate) config: Config,
    /// Marks the data directory.
    pub(crate) disk: String,
    /// Marks this run.
    pub(crate) incarnation: String,
    pub(crate) caller: Arc<Caller>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) metadata: Metadata,
    pub(crate) sessions: Sessions,
    pub(crate) replicas: Replicas,
    pub(crate) stopping: watch::Receiver<bool>,
}

impl Core {
    /// Whether the metadata applied here include the start of this run, and so everything from before it. Until then
    /// nothing may rest on them: who was the leader once need not be it now.
    pub(crate) fn registered(&self) -> bool {
        self.registered_in(&self.metadata.now())
    }

    fn registered_in(&self, metadata: &ClusterMetadata) -> bool {
        metadata.nodes.get(&self.config.node_id).is_some_and(|node| node.incarnation() == self.incarnation)
    }

    /// Waits for that, but not for ever.
    pub(crate) async fn until_registered(&self) {
        self.metadata.until(|metadata| self.registered_in(metadata)).await;
    }
}

/// A running broker.
pub struct Broker {
    core: Arc<Core>,
    addresses: Addresses,
    stop: watch::Sender<bool>,
    /// Each ends by itself when the broker is stopped.
    servers: JoinSet<()>,
    /// These do not.
    agents: JoinSet<()>,
}

impl Broker {
    /// Starts a broker that finds the others by a test's table.
    pub async fn start(config: Config, resolver: Resolver) -> anyhow::Result<Self> {
        Self::open(config, Names::Mapped(resolver)).await
    }

    /// Starts a broker that finds the others by DNS.
    pub async fn start_with_dns(config: Config) -> anyhow::Result<Self> {
        Self::open(config, Names::Dns).await
    }

    async fn open(mut config: Config, names: Names) -> anyhow::Result<Self> {
        config.check()?;
        let tls = Tls::read(&config)?;
        // As the released broker does: without a token the API is closed to everybody.
        config.cluster_auth_token.get_or_insert(mark()?);
        fs::create_dir_all(&config.data_dir).with_context(|| format!("{}", config.data_dir.display()))?;
        let disk = disk(&config.data_dir.join("disk-id"))?;
        let clients = listen(&config, config.bind).await?;
        let cluster = listen(&config, config.cluster_bind).await?;
        let api = listen(&config, config.api_bind).await?;
        let addresses =
            Addresses { client: clients.local_addr()?, cluster: cluster.local_addr()?, api: api.local_addr()? };
        let peers = tls.as_ref().map(|tls| tls.peers.clone());
        let caller = Arc::new(Caller::new(names, config.cluster_auth_token.clone(), peers));
        let faults = Arc::<Faults>::default();
        let metadata = Metadata::open(&config, Arc::clone(&caller), Arc::clone(&faults)).await?;
        if config.mode == Mode::Standalone && !metadata.raft.is_initialized().await? {
            metadata.bootstrap([(metadata.id, BasicNode::new("localhost"))].into()).await?;
        }
        let (stop, stopping) = watch::channel(false);
        let sessions = Sessions::new(Duration::from_millis(config.session_ms));
        let core = Arc::new(Core {
            config,
            disk,
            incarnation: mark()?,
            caller,
            faults,
            metadata,
            sessions,
            replicas: Replicas::default(),
            stopping,
        });
        let [on_clients, on_cluster, on_api] = match tls {
            Some(tls) => [tls.clients, tls.cluster, tls.api].map(Some),
            None => [None, None, None],
        };
        let mut agents = JoinSet::new();
        // Not among the servers: until the last record is acknowledged, followers have to be served.
        agents.spawn(serve(Arc::clone(&core), cluster, on_cluster, data::connection));
        agents.spawn(data::run(Arc::clone(&core)));
        agents.spawn(data::keep_in_sync(Arc::clone(&core)));
        agents.spawn(membership::run(Arc::clone(&core)));
        agents.spawn(controller::run(Arc::clone(&core)));
        if core.config.mode == Mode::Standalone {
            // As the released broker, which opens no port before it has recovered.
            core.until_registered().await;
        }
        let mut servers = JoinSet::new();
        servers.spawn(serve(Arc::clone(&core), api, on_api, admin::connection));
        servers.spawn(serve(Arc::clone(&core), clients, on_clients, client::connection));
        Ok(Self { core, addresses, stop, servers, agents })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Stops: accepts nothing new, lets what runs finish, and leaves everything on disk.
    pub async fn stop(mut self) {
        // It hears of the leader no more, and is not to take its silence for its end.
        self.core.metadata.raft.runtime_config().elect(false);
        self.stop.send_replace(true);
        let finished = async { while self.servers.join_next().await.is_some() {} };
        drop(tokio::time::timeout(STOP_LIMIT, finished).await);
        self.end().await;
    }

    /// Dies: nothing is finished, nothing is told to anybody.
    pub async fn kill(mut self) {
        self.core.caller.kill();
        self.end().await;
    }

    async fn end(&mut self) {
        self.servers.shutdown().await;
        self.agents.shutdown().await;
        // Who waits for room on the disk would not end.
        self.core.faults.clear();
        // Writes nothing; it only ends Raft's tasks, and with them their hold on the files.
        drop(self.core.metadata.raft.shutdown().await);
        self.core.caller.kill();
    }
}

async fn listen(config: &Config, at: SocketAddr) -> anyhow::Result<TcpListener> {
    let at = if config.loopback { SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) } else { at };
    TcpListener::bind(at).await.with_context(|| format!("cannot listen on {at}"))
}

/// Serves connections until the broker is stopped, and then those that are open to their end.
async fn serve<F>(
    core: Arc<Core>,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    connection: impl Fn(Arc<Core>, Stream) -> F + Copy + Send + 'static,
) where
    F: Future<Output = ()> + Send,
{
    let mut stopping = core.stopping.clone();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                drop(stream.set_nodelay(true));
                let (core, tls) = (Arc::clone(&core), tls.clone());
                connections.spawn(async move {
                    match tls::accept(tls.as_ref(), stream).await {
                        Ok(stream) => connection(core, stream).await,
                        Err(error) => tracing::debug!("a connection was not accepted: {error:#}"),
                    }
                });
            },
            Some(_) = connections.join_next() => {}
            _ = stopping.wait_for(|stopping| *stopping) => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Something nobody else has.
fn mark() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no randomness: {error}"))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

/// The mark of a data directory, made with it.
fn disk(path: &Path) -> anyhow::Result<String> {
    match fs::read_to_string(path) {
        Ok(mark) if mark.len() == 32 => return Ok(mark),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mark = mark()?;
    let mut file = fs::File::create(path)?;
    file.write_all(mark.as_bytes())?;
    file.sync_all()?;
    Ok(mark)
}
