//! Which broker leads a partition. The published client does not look.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use rivven_protocol::{Request, Response};

use crate::tls::Tls;
use crate::wire::Wire;

/// How brokers are found.
#[derive(Clone, Debug)]
pub struct Routes {
    /// Asked in turn.
    pub bootstrap: Vec<String>,
    /// The topic.
    pub topic: String,
    /// Addresses by node id that replace the advertised ones.
    pub addresses: BTreeMap<String, String>,
    /// Of each request.
    pub limit: Duration,
    /// Where brokers speak TLS.
    pub tls: Option<Tls>,
}

impl Routes {
    /// A connection to the leader of a partition.
    pub async fn leader(&self, partition: u32) -> Result<Wire> {
        let mut reason = anyhow!("no broker to ask");
        for bootstrap in &self.bootstrap {
            match self.leader_by(bootstrap, partition).await {
                Ok(leader) => return Ok(leader),
                Err(error) => reason = error.context(format!("by {bootstrap}")),
            }
        }
        Err(reason)
    }

    async fn leader_by(&self, bootstrap: &str, partition: u32) -> Result<Wire> {
        let mut asked = self.connect(bootstrap).await?;
        let metadata = asked.cluster_metadata(&[&self.topic]).await?;
        if metadata.topics.is_empty() && metadata.brokers.len() <= 1 {
            // A broker that serves no partition metadata leads all that it has.
            return Ok(asked);
        }
        let topic = metadata.topics.iter().find(|topic| topic.name == self.topic).context("topic not in metadata")?;
        let leader = topic.partition_leader(partition).context("no leader")?;
        if let Some(address) = self.addresses.get(leader) {
            return self.connect(address).await;
        }
        let broker = metadata.brokers.iter().find(|broker| broker.node_id == leader);
        self.connect(&broker.with_context(|| format!("leader {leader} has no address"))?.address()).await
    }

    async fn connect(&self, address: &str) -> Result<Wire> {
        Wire::connect_with(address, self.tls.as_ref(), self.limit).await
    }

    /// Creates the topic where it is missing.
    pub async fn topic(&self, partitions: u32) -> Result<()> {
        let mut reason = anyhow!("no broker to ask");
        for bootstrap in &self.bootstrap {
            match self.topic_by(bootstrap, partitions).await {
                Ok(()) => return Ok(()),
                Err(error) => reason = error.context(format!("by {bootstrap}")),
            }
        }
        Err(reason)
    }

    async fn topic_by(&self, bootstrap: &str, partitions: u32) -> Result<()> {
        let mut wire = self.connect(bootstrap).await?;
        match wire.call(&Request::GetMetadata { topic: self.topic.clone() }).await? {
            Response::Metadata { partitions: there, .. } => {
                ensure!(there >= partitions, "the topic has {there} partitions and not {partitions}");
            }
            Response::Error { message } if message.contains("not found") => {
                wire.ask(&Request::CreateTopic { name: self.topic.clone(), partitions: Some(partitions) }).await?;
            }
            other => bail!("GetMetadata: {other:?}"),
        }
        Ok(())
    }
}
