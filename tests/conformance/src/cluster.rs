//! Three brokers in cluster mode, and one that may join.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use rivven_protocol::PartitionMetadata;
use serde_json::{Value, json};

use crate::http::Answer;
use crate::load::{Record, Routes, read_partition};
use crate::process::Node;
use crate::wait::until;
use crate::wire::LIMIT;

/// How long the brokers may take to agree on something.
pub const AGREE: Duration = Duration::from_secs(20);

/// Three brokers in cluster mode, and one that may join.
pub struct Cluster {
    /// The brokers that form it.
    pub nodes: Vec<Node>,
    /// Not started until it joins.
    pub spare: Node,
    /// Somebody has bootstrapped it, and it chose a leader.
    pub formed: bool,
}

impl Cluster {
    /// Starts three brokers that nobody has formed into a cluster yet.
    pub async fn start(binary: &Path) -> Result<Self> {
        Self::start_with(binary, |_| Ok(())).await
    }

    /// The same, with what else each of them is told.
    pub async fn start_with(binary: &Path, prepare: impl Fn(&mut Node) -> Result<()>) -> Result<Self> {
        let mut nodes = Vec::new();
        for index in 0..4 {
            nodes.push(Node::new(binary, &format!("member-{index}"))?);
        }
        let seeds: Vec<String> = nodes.iter().take(3).map(Node::cluster_address).collect();
        for (index, node) in nodes.iter_mut().enumerate() {
            node.set("RIVVEN_MODE", "cluster");
            node.set("RIVVEN_ADVERTISE_ADDR", node.cluster_address());
            node.set("RIVVEN_SEEDS", seeds.join(","));
            node.set("RIVVEN_RACK", format!("rack-{index}"));
            // A follower that is gone leaves the in-sync set within a check's patience.
            node.set("RIVVEN_REPLICA_LAG_MS", "1000");
            prepare(node)?;
        }
        let spare = nodes.pop().context("four were made")?;
        try_join_all(nodes.iter_mut().map(Node::start)).await?;
        Ok(Self { nodes, spare, formed: false })
    }

    /// Asks one broker, once, to form the cluster.
    pub async fn bootstrap(&self, node: &Node) -> Result<Answer> {
        let members: Vec<Value> = self.nodes.iter().map(member).collect();
        node.api().post("/api/v1/bootstrap", &json!({ "members": members })).await
    }

    /// Starts three brokers, forms them, and waits until each of them knows all.
    pub async fn formed(binary: &Path) -> Result<Self> {
        Self::start(binary).await?.form().await
    }

    /// Forms the brokers that were started, and waits until each of them knows all.
    pub async fn form(mut self) -> Result<Self> {
        self.bootstrap(self.nodes.first().context("no broker")?).await?.with(200)?;
        self.formed = true;
        self.ready().await?;
        until("every broker shows all brokers", AGREE, || async {
            for node in self.up() {
                let shown = node.wire().await?.cluster_metadata(&[]).await?.brokers.len();
                ensure!(shown == self.nodes.len(), "{} shows {shown}", node.id);
            }
            Ok(())
        })
        .await?;
        Ok(self)
    }

    /// Starts what is down and waits until all know one leader.
    pub async fn ready(&mut self) -> Result<()> {
        ensure!(self.formed, "the cluster was not formed");
        for node in &mut self.nodes {
            if !node.is_up() {
                node.start().await?;
            }
        }
        until("all brokers healthy", AGREE, || self.agreed()).await
    }

    /// Every broker that is up is healthy and names the same leader.
    async fn agreed(&self) -> Result<()> {
        let mut leaders = Vec::new();
        for node in self.up() {
            let health = node.api().get("/health").await?.with(200).with_context(|| node.id.clone())?;
            leaders.push(health["leader_id"].as_u64().with_context(|| format!("no leader: {health}"))?);
        }
        leaders.dedup();
        ensure!(leaders.len() == 1, "several leaders: {leaders:?}");
        Ok(())
    }

    /// The brokers that are up.
    pub fn up(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.is_up())
    }

    /// The broker with this id.
    pub fn node(&mut self, id: &str) -> Result<&mut Node> {
        self.nodes.iter_mut().find(|node| node.id == id).with_context(|| format!("no broker {id}"))
    }

    /// The Raft leader, as all brokers that are up say.
    pub async fn leader(&self) -> Result<&Node> {
        until("one leader", AGREE, || async {
            self.agreed().await?;
            for node in self.up() {
                if node.api().get("/health").await?.json()?["is_leader"] == true {
                    return Ok(node);
                }
            }
            bail!("nobody says that it leads")
        })
        .await
    }

    /// A broker that does not lead.
    pub async fn follower(&self) -> Result<&Node> {
        let leader = &self.leader().await?.id;
        self.up().find(|node| node.id != *leader).context("no follower")
    }

    /// What `/membership` says on one broker, by id.
    pub async fn membership(&self, node: &Node) -> Result<Vec<Value>> {
        let membership = node.api().get("/membership").await?.with(200)?;
        let mut nodes = membership["nodes"].as_array().cloned().with_context(|| format!("{membership}"))?;
        nodes.sort_by_key(|node| node["id"].as_u64());
        Ok(nodes)
    }

    /// Proposes a command on the leader; an error in the answer is an error.
    pub async fn propose(&self, command: Value) -> Result<Value> {
        let api = self.leader().await?.api();
        let answer = api.post("/api/v1/propose", &json!({ "command": command })).await?.with(200)?;
        ensure!(answer["success"] == true, "{answer}");
        let response = answer["response"].clone();
        if let Some(error) = response.get("Error") {
            bail!("{}", error["message"].as_str().unwrap_or_default());
        }
        Ok(response)
    }

    /// Creates a topic with these replicas of each partition and waits until every broker shows it all in sync.
    pub async fn topic(&self, name: &str, min_isr: u16, assignments: &[&[&str]]) -> Result<()> {
        let response = self.propose(create_topic(name, min_isr, assignments)).await?;
        let expected = json!({ "TopicCreated": { "name": name, "partitions": assignments.len() } });
        ensure!(response == expected, "{response}");
        for (partition, replicas) in (0..).zip(assignments) {
            self.shows(name, partition, "as assigned", |p| {
                p.leader.is_some() && p.replicas == *replicas && in_sync(p, replicas)
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until every broker that is up shows the partition so.
    pub async fn shows(
        &self,
        topic: &str,
        partition: u32,
        how: &str,
        so: impl Fn(&PartitionMetadata) -> bool,
    ) -> Result<PartitionMetadata> {
        until(&format!("{topic}/{partition} {how} on all"), AGREE, || async {
            let mut shown = Err(anyhow::anyhow!("no broker is up"));
            for node in self.up() {
                let partition = partition_on(node, topic, partition).await?;
                ensure!(so(&partition), "{} shows {partition:?}", node.id);
                shown = Ok(partition);
            }
            shown
        })
        .await
    }

    /// By all brokers that are up.
    pub fn routes(&self, topic: &str) -> Routes {
        Routes {
            bootstrap: self.up().map(Node::address).collect(),
            topic: topic.to_owned(),
            addresses: std::collections::BTreeMap::new(),
            limit: LIMIT,
            tls: self.up().find_map(|node| node.tls.clone()),
        }
    }

    /// Publishes to the partition's leader.
    pub async fn publish(&self, topic: &str, partition: u32, value: &str) -> Result<u64> {
        let leader = self.leader_of(topic, partition).await?;
        let mut client = leader.client().await?;
        Ok(client.publish_to_partition(topic, partition, None::<&str>, value.to_owned()).await?)
    }

    /// Everything in a partition, from its leader.
    pub async fn read(&self, topic: &str, partition: u32) -> Result<Vec<Record>> {
        let mut wire = self.routes(topic).leader(partition).await?;
        read_partition(&mut wire, topic, partition).await
    }

    /// The broker that leads a partition.
    pub async fn leader_of(&self, topic: &str, partition: u32) -> Result<&Node> {
        let shown = self.shows(topic, partition, "with a leader", |p| p.leader.is_some()).await?;
        self.up().find(|node| Some(&node.id) == shown.leader.as_ref()).context("the leader is not up")
    }
}

/// A partition as one broker shows it.
async fn partition_on(node: &Node, topic: &str, partition: u32) -> Result<PartitionMetadata> {
    let metadata = node.wire().await?.cluster_metadata(&[topic]).await?;
    let shown = metadata.topics.iter().find(|shown| shown.name == topic);
    let shown = shown.with_context(|| format!("{} does not show {topic}", node.id))?;
    let partition = shown.partitions.iter().find(|shown| shown.partition == partition);
    partition.cloned().with_context(|| format!("{} shows no such partition: {shown:?}", node.id))
}

/// The command that creates a topic.
pub fn create_topic(name: &str, min_isr: u16, assignments: &[&[&str]]) -> Value {
    json!({ "CreateTopic": {
        "config": {
            "name": name,
            "partitions": assignments.len(),
            "replication_factor": assignments.first().map_or(0, |replicas| replicas.len()),
            "retention_ms": 604_800_000,
            "segment_bytes": 1_073_741_824,
            "min_isr": min_isr,
            "config": {},
        },
        "partition_assignments": assignments,
    } })
}

/// The in-sync set is these, in any order.
pub fn in_sync(partition: &PartitionMetadata, nodes: &[&str]) -> bool {
    partition.isr.len() == nodes.len() && nodes.iter().all(|node| partition.isr.iter().any(|there| there == node))
}

/// A node id, its address, as `bootstrap` and `add-learner` take them.
pub fn member(node: &Node) -> Value {
    json!({ "node_id": node.id, "addr": node.url() })
}

/// The number that Raft knows a node id by: FNV-1a, 64 bits.
pub fn raft_id(node: &str) -> u64 {
    node.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
