//! The command line. Every flag has an environment variable, because a Pod is configured by those.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

/// The Rivven operator: clusters, topics and connectors as guarded state machines.
#[derive(Clone, Debug, Parser)]
#[command(name = "rivven-operator", version, about, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; without one, the operator runs.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How it runs.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What else the binary can do.
#[derive(Clone, Debug, Subcommand, PartialEq, Eq)]
pub enum Command {
    /// Print the custom resource definitions as YAML.
    Crd,
    /// Ask a URL once and exit 0 if it answers with success: a client for an image that has no shell.
    Probe(ProbeArgs),
}

/// What to ask.
#[derive(Clone, Debug, Args, PartialEq, Eq)]
pub struct ProbeArgs {
    /// An http:// URL.
    #[arg(long)]
    pub url: http::Uri,
    /// After how many seconds to give up.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub timeout_seconds: u64,
}

/// How the operator runs.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Where Prometheus metrics are served.
    #[arg(long, env = "METRICS_ADDR", default_value = "0.0.0.0:8080")]
    pub metrics_addr: SocketAddr,

    /// Where /healthz and /readyz are served.
    #[arg(long, env = "HEALTH_ADDR", default_value = "0.0.0.0:8081")]
    pub health_addr: SocketAddr,

    /// Take a Lease before writing, so that only one replica acts.
    #[arg(
        long,
        env = "LEADER_ELECTION",
        value_name = "BOOL",
        default_value = "true",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = ArgAction::Set,
        value_parser = BoolishValueParser::new(),
    )]
    pub leader_election: bool,

    /// The namespace to watch, or a comma-separated list of them; empty for all.
    #[arg(long = "namespace", env = "WATCH_NAMESPACE", default_value = "", hide_default_value = true)]
    pub namespaces: Namespaces,

    /// How brokers are reached.
    #[arg(long, env = "BROKER_ACCESS", value_enum, default_value_t = BrokerAccess::Auto)]
    pub broker_access: BrokerAccess,

    /// The DNS domain of the Kubernetes cluster.
    #[arg(long, env = "CLUSTER_DOMAIN", default_value = "cluster.local", value_parser = dns_name)]
    pub cluster_domain: String,

    /// How often every object is looked at again, from caches, even if nothing changed.
    #[arg(
        long,
        env = "RESYNC_SECONDS",
        value_name = "SECONDS",
        default_value_t = 300,
        value_parser = clap::value_parser!(u64).range(5..=86_400),
    )]
    pub resync_seconds: u64,

    /// How log lines look.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// The name of the Lease. Operators that watch different namespaces need different names.
    #[arg(long, env = "LEASE_NAME", default_value = "rivven-operator", value_parser = dns_name)]
    pub lease_name: String,

    /// The namespace of the Lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default", value_parser = dns_label)]
    pub lease_namespace: String,
}

impl RunArgs {
    /// [`resync_seconds`](Self::resync_seconds) as a duration.
    pub fn resync(&self) -> Duration {
        Duration::from_secs(self.resync_seconds)
    }
}

/// How brokers are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BrokerAccess {
    /// Directly when running in a Pod, else through the API server.
    Auto,
    /// By the addresses of pods and Services.
    Direct,
    /// By port-forwarding through the API server, for an operator that runs outside the cluster.
    PortForward,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// The namespaces to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces(Vec<String>);

impl Namespaces {
    /// Whether every namespace is watched.
    pub fn is_all(&self) -> bool {
        self.0.is_empty()
    }

    /// The names, sorted, each once; none means all.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// Whether objects of this namespace are this operator's business.
    pub fn contains(&self, namespace: &str) -> bool {
        self.is_all() || self.0.iter().any(|name| name == namespace)
    }
}

impl FromStr for Namespaces {
    type Err = String;

    /// An empty element is refused and not skipped: `,` must not quietly become "all namespaces".
    fn from_str(list: &str) -> Result<Self, Self::Err> {
        if list.trim().is_empty() {
            return Ok(Self::default());
        }
        let mut names = list.split(',').map(|name| dns_label(name.trim())).collect::<Result<Vec<_>, _>>()?;
        names.sort();
        names.dedup();
        Ok(Self(names))
    }
}

fn dns_label(name: &str) -> Result<String, String> {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let valid =
        (1..=63).contains(&name.len()) && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-');
    if valid { Ok(name.to_owned()) } else { Err(format!("{name:?} is not a DNS label")) }
}

fn dns_name(name: &str) -> Result<String, String> {
    if name.len() > 253 {
        return Err("longer than 253 characters".to_owned());
    }
    name.split('.').try_for_each(|label| dns_label(label).map(drop))?;
    Ok(name.to_owned())
}
