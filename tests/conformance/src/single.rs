//! One broker, standalone.

use std::path::Path;

use anyhow::{Context, Result};
use rivven_client::Client;
use rivven_fsm::cluster::Capabilities;

use crate::process::Node;
use crate::wire::Wire;

/// One broker, standalone.
pub struct Single {
    /// The process.
    pub node: Node,
    /// The version that it reports.
    pub version: String,
    /// What the operator's table says about that version.
    pub capabilities: Capabilities,
}

impl Single {
    /// Starts a broker on an empty directory.
    pub async fn start(binary: &Path) -> Result<Self> {
        let mut node = Node::new(binary, "single-0")?;
        node.start().await?;
        let metrics = node.api().get("/metrics").await?.text;
        let version = version(&metrics).with_context(|| format!("/metrics has no rivven_info: {metrics}"))?;
        let capabilities = rivven_operator::broker::capabilities(&version);
        Ok(Self { node, version, capabilities })
    }

    /// The published client.
    pub async fn client(&self) -> Result<Client> {
        self.node.client().await
    }

    /// Raw requests.
    pub async fn wire(&self) -> Result<Wire> {
        self.node.wire().await
    }

    /// Graceful stop, start.
    pub async fn restart(&mut self) -> Result<()> {
        self.node.stop().await?;
        self.node.start().await
    }

    /// `kill -9`, start.
    pub async fn crash(&mut self) -> Result<()> {
        self.node.kill().await?;
        self.node.start().await
    }
}

/// From `rivven_info{version="…"}`.
fn version(metrics: &str) -> Option<String> {
    let labels = metrics.lines().find_map(|line| line.strip_prefix("rivven_info{"))?;
    let (_, version) = labels.split_once("version=\"")?;
    version.split_once('"').map(|(version, _)| version.to_owned())
}
