//! What a broker is told at its start, by the released broker's environment names.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::ensure;
use clap::{Parser, ValueEnum};

/// How a broker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// One voter that bootstraps itself.
    Standalone,
    /// A member of a cluster that somebody bootstraps.
    Cluster,
}

/// The configuration of a broker. Environment names that are not here are ignored.
#[derive(Clone, Debug, Parser)]
#[command(name = "rivvend", about = "A clustered broker for tests")]
#[allow(missing_docs, reason = "the released broker's names tell it")]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of the environment")]
pub struct Config {
    #[arg(long, env = "RIVVEN_MODE", value_enum, default_value = "standalone")]
    pub mode: Mode,
    #[arg(long, env = "RIVVEN_NODE_ID", default_value = "node-1")]
    pub node_id: String,
    #[arg(long, env = "RIVVEN_RACK")]
    pub rack: Option<String>,
    #[arg(long, env = "RIVVEN_BIND", default_value = "0.0.0.0:9092")]
    pub bind: SocketAddr,
    #[arg(long, env = "RIVVEN_CLUSTER_BIND", default_value = "0.0.0.0:9093")]
    pub cluster_bind: SocketAddr,
    #[arg(long, env = "RIVVEN_API_BIND", default_value = "0.0.0.0:9094")]
    pub api_bind: SocketAddr,
    /// `host:port` of the cluster port; the host is the one that clients are told as well.
    #[arg(long, env = "RIVVEN_ADVERTISE_ADDR")]
    pub advertise_addr: Option<String>,
    #[arg(long, env = "RIVVEN_CLUSTER_AUTH_TOKEN", hide_env_values = true)]
    pub cluster_auth_token: Option<String>,
    /// The client port and the API speak TLS, and brokers speak it to each other.
    #[arg(long, env = "RIVVEN_TLS_ENABLED", action = clap::ArgAction::Set, num_args = 0..=1,
          default_value = "false", default_missing_value = "true")]
    pub tls_enabled: bool,
    #[arg(long, env = "RIVVEN_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,
    #[arg(long, env = "RIVVEN_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
    /// Whom clients and brokers are believed by; without it, brokers believe who shows the same certificate.
    #[arg(long, env = "RIVVEN_TLS_CA")]
    pub tls_ca: Option<PathBuf>,
    /// Clients must show a certificate.
    #[arg(long, env = "RIVVEN_TLS_VERIFY_CLIENT", action = clap::ArgAction::Set, num_args = 0..=1,
          default_value = "false", default_missing_value = "true")]
    pub tls_verify_client: bool,
    #[arg(long, env = "RIVVEN_DATA_DIR", default_value = "./data")]
    pub data_dir: PathBuf,
    #[arg(long, env = "RIVVEN_DEFAULT_PARTITIONS", default_value_t = 3)]
    pub default_partitions: u32,
    #[arg(long, env = "RIVVEN_REPLICATION_FACTOR", default_value_t = 3)]
    pub replication_factor: u16,
    #[arg(long, env = "RIVVEN_MIN_ISR", default_value_t = 2)]
    pub min_isr: u16,
    /// The released default is 30 s, for a test to wait for.
    #[arg(long, env = "RIVVEN_REPLICA_LAG_MS", default_value_t = 1000)]
    pub replica_lag_ms: u64,
    #[arg(long, env = "RIVVEN_RAFT_HEARTBEAT_MS", default_value_t = 100)]
    pub raft_heartbeat_ms: u64,
    #[arg(long, env = "RIVVEN_RAFT_ELECTION_MIN_MS", default_value_t = 500)]
    pub raft_election_min_ms: u64,
    #[arg(long, env = "RIVVEN_RAFT_ELECTION_MAX_MS", default_value_t = 1000)]
    pub raft_election_max_ms: u64,
    /// There are no users here, as in the released broker: without this, clients may only ping.
    #[arg(long, env = "RIVVEN_NO_REQUIRE_AUTH", action = clap::ArgAction::Set, num_args = 0..=1,
          default_value = "false", default_missing_value = "true")]
    pub no_require_auth: bool,
    /// The version that `/metrics` reports: upgrades are tested with one program.
    #[arg(long, env = "RIVVEN_TEST_VERSION", default_value = "0.1.0")]
    pub version: String,
    /// How long a broker may be silent before its partitions get other leaders.
    #[arg(long, env = "RIVVEN_TEST_SESSION_MS", default_value_t = 1000)]
    pub session_ms: u64,
    /// Faults can be asked for at `/test/faults`.
    #[arg(long, env = "RIVVEN_TEST_FAULTS", action = clap::ArgAction::Set, num_args = 0..=1,
          default_value = "false", default_missing_value = "true")]
    pub test_faults: bool,
    /// Listen on free loopback ports and keep the configured ones as names only: many brokers in one process.
    #[arg(skip)]
    pub loopback: bool,
}

impl Config {
    /// A broker of a test: free loopback ports, short limits.
    pub fn for_tests(mode: Mode, node_id: &str, data_dir: impl Into<PathBuf>) -> Self {
        let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        Self {
            mode,
            node_id: node_id.to_owned(),
            rack: None,
            bind: any(9292),
            cluster_bind: any(9393),
            api_bind: any(9090),
            advertise_addr: Some(format!("{node_id}:9393")),
            cluster_auth_token: Some("token".to_owned()),
            tls_enabled: false,
            tls_cert: None,
            tls_key: None,
            tls_ca: None,
            tls_verify_client: false,
            data_dir: data_dir.into(),
            default_partitions: 3,
            replication_factor: 3,
            min_isr: 2,
            replica_lag_ms: 1000,
            raft_heartbeat_ms: 100,
            raft_election_min_ms: 500,
            raft_election_max_ms: 1000,
            no_require_auth: true,
            version: "0.1.0".to_owned(),
            session_ms: 1000,
            test_faults: false,
            loopback: true,
        }
    }

    /// The released broker's rules, and the one that its cluster mode has no use for an unauthenticated API.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(!self.node_id.is_empty(), "a node id is required");
        ensure!(self.min_isr <= self.replication_factor, "min ISR must not be above the replication factor");
        ensure!(self.raft_heartbeat_ms < self.raft_election_min_ms, "heartbeat must be below the election minimum");
        ensure!(self.raft_election_min_ms < self.raft_election_max_ms, "election minimum must be below the maximum");
        let clustered = self.mode == Mode::Cluster;
        ensure!(!clustered || self.cluster_auth_token.is_some(), "cluster mode requires RIVVEN_CLUSTER_AUTH_TOKEN");
        Ok(())
    }

    /// The host that others reach this broker at.
    pub fn host(&self) -> String {
        match self.advertise_addr.as_ref().and_then(|at| at.rsplit_once(':')) {
            Some((host, _)) => host.to_owned(),
            None if self.bind.ip().is_unspecified() => IpAddr::from(Ipv4Addr::LOCALHOST).to_string(),
            None => self.bind.ip().to_string(),
        }
    }

    /// Where clients reach this broker.
    pub fn client_addr(&self) -> String {
        format!("{}:{}", self.host(), self.bind.port())
    }

    /// Where other brokers fetch records from this one.
    pub fn cluster_addr(&self) -> String {
        self.advertise_addr.clone().unwrap_or_else(|| format!("{}:{}", self.host(), self.cluster_bind.port()))
    }
}
