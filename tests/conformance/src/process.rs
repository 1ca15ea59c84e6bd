//! A broker as a process on loopback, with a data directory of its own.

use std::fs::{File, read_to_string};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rivven_client::Client;
use rivven_protocol::Request;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::certificates::Authority;
use crate::http::Api;
use crate::tls::Tls;
use crate::wait::until;
use crate::wire::{LIMIT, Wire};

/// The token of every broker's HTTP API.
pub const TOKEN: &str = "conformance";

/// How long a broker may take to serve; the released one serves within a second.
const START: Duration = Duration::from_secs(30);
/// How long a graceful stop may take; the released broker cuts it at 30 s.
const STOP: Duration = Duration::from_secs(45);

/// A broker, running or not. Dropped, it is killed and its data removed.
pub struct Node {
    /// `RIVVEN_NODE_ID`
    pub id: String,
    /// How it is spoken to, where it speaks TLS.
    pub tls: Option<Tls>,
    binary: PathBuf,
    host: String,
    ports: Ports,
    environment: Vec<(String, String)>,
    child: Option<Child>,
    directory: TempDir,
}

#[derive(Clone, Copy)]
struct Ports {
    client: u16,
    cluster: u16,
    api: u16,
}

impl Node {
    /// A broker that is not started yet.
    pub fn new(binary: impl Into<PathBuf>, id: &str) -> Result<Self> {
        let host = host();
        Ok(Self {
            id: id.to_owned(),
            tls: None,
            binary: binary.into(),
            ports: ports(&host)?,
            host,
            environment: Vec::new(),
            child: None,
            directory: tempfile::tempdir()?,
        })
    }

    /// Adds to its environment.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.environment.push((name.to_owned(), value.into()));
    }

    /// Speaks TLS with a certificate of this authority, and believes it.
    pub fn speak_tls(&mut self, authority: &Authority) -> Result<()> {
        let issued = authority.issue(&[&self.host])?;
        let files = [("CERT", issued.cert), ("KEY", issued.key), ("CA", authority.ca())];
        for (name, file) in files {
            self.set(&format!("RIVVEN_TLS_{name}"), file.display().to_string());
        }
        self.set("RIVVEN_TLS_ENABLED", "true");
        self.tls = Some(Tls::new(authority.ca()));
        Ok(())
    }

    /// `host:port` for clients.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.ports.client)
    }

    /// `host:port` for the other brokers.
    pub fn cluster_address(&self) -> String {
        format!("{}:{}", self.host, self.ports.cluster)
    }

    /// `host:port` of the HTTP API.
    pub fn api_address(&self) -> String {
        format!("{}:{}", self.host, self.ports.api)
    }

    /// The URL of the HTTP API, as members of a cluster know it.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.api_address())
    }

    /// The HTTP API, with the token.
    pub fn api(&self) -> Api {
        Api::new(self.api_address(), Some(TOKEN)).with_tls(self.tls.clone())
    }

    /// The published client.
    pub async fn client(&self) -> Result<Client> {
        ensure!(self.tls.is_none(), "the published client is built without TLS");
        Ok(Client::connect(&self.address()).await?)
    }

    /// Raw requests.
    pub async fn wire(&self) -> Result<Wire> {
        Wire::connect_with(&self.address(), self.tls.as_ref(), LIMIT).await
    }

    /// Whether the process was started and not ended by us.
    pub fn is_up(&self) -> bool {
        self.child.is_some()
    }

    /// Starts the process on the data it has and waits until it serves.
    pub async fn start(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.id);
        let log = File::options().create(true).append(true).open(self.log())?;
        let child = Command::new(&self.binary)
            .env("RIVVEN_NODE_ID", &self.id)
            .env("RIVVEN_BIND", self.address())
            .env("RIVVEN_CLUSTER_BIND", self.cluster_address())
            .env("RIVVEN_API_BIND", self.api_address())
            .env("RIVVEN_DATA_DIR", self.data())
            .env("RIVVEN_CLUSTER_AUTH_TOKEN", TOKEN)
            .env("RIVVEN_NO_REQUIRE_AUTH", "true")
            .env("NO_COLOR", "1")
            .env("RUST_BACKTRACE", "0")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.directory.path())
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", self.binary.display()))?;
        self.child = Some(child);
        self.serving().await.with_context(|| format!("{}; it said last:\n{}", self.id, self.last_words()))
    }

    async fn serving(&mut self) -> Result<()> {
        let (api, address, tls) = (self.api(), self.address(), self.tls.clone());
        let in_cluster = self.environment.iter().any(|(name, value)| name == "RIVVEN_MODE" && value == "cluster");
        let mut child = self.child.take().context("not started")?;
        let answers = until("serving", START, || async {
            let health = api.get("/health").await?;
            health.json()?;
            if health.status == 200 {
                Wire::connect_with(&address, tls.as_ref(), LIMIT).await?.ask(&Request::Ping).await?;
            } else {
                // A broker of a cluster that is not formed says 503; nobody can expect more of it.
                ensure!(in_cluster, "{}", health.text);
            }
            Ok(())
        });
        tokio::select! {
            answers = answers => {
                self.child = Some(child);
                answers
            }
            ended = child.wait() => bail!("ended by itself: {}", ended?),
        }
    }

    /// Asks the process to end (SIGTERM) and waits until it has.
    pub async fn stop(&mut self) -> Result<()> {
        let ended = self.end(Signal::TERM).await?;
        ensure!(ended.success(), "{} ended with {ended}", self.id);
        Ok(())
    }

    /// `kill -9`, and waits until the process is gone.
    pub async fn kill(&mut self) -> Result<()> {
        self.end(Signal::KILL).await.map(drop)
    }

    /// What it had on its disk is gone: the next start finds an empty directory.
    pub async fn wipe(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "{} runs", self.id);
        Ok(tokio::fs::remove_dir_all(self.data()).await?)
    }

    async fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        let mut child = self.child.take().with_context(|| format!("{} does not run", self.id))?;
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?)).context("no process any more")?;
        kill_process(pid, signal)?;
        Ok(timeout(STOP, child.wait()).await.with_context(|| format!("{} did not end within {STOP:?}", self.id))??)
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn last_words(&self) -> String {
        let log = read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

/// A loopback address of its own for each broker. Outgoing connections leave from 127.0.0.1, so none of them can take
/// a broker's port while it is restarted.
fn host() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (process, broker) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    format!("127.{}.{}.{}", 1 + (process >> 8) % 200, process % 256, 1 + broker % 250)
}

/// Three free ports. They are held until all are known, so that they differ.
fn ports(host: &str) -> Result<Ports> {
    let held = [(); 3].map(|()| TcpListener::bind((host, 0)));
    let [client, cluster, api] = held.map(|port| port.and_then(|port| Ok(port.local_addr()?.port())));
    Ok(Ports { client: client?, cluster: cluster?, api: api? })
}
