//! The metadata, and what each command does to it. Pure: every broker that applies the same commands holds the same.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::command::{Command, NodeInfo, Outcome, PartitionId, TopicConfig};
use super::topic_config;

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Who leads it; nobody while no in-sync replica is there.
    pub leader: Option<String>,
    /// Goes up with each change of the leader.
    pub leader_epoch: u64,
    /// Goes up with each change of anything that a proposal of an in-sync set rests on.
    pub version: u64,
    /// Who holds it.
    pub replicas: Vec<String>,
    /// Who has every acknowledged record.
    pub isr: BTreeSet<String>,
    /// In-sync replicas by name whose disk, with this mark, is gone. They may not lead with another one.
    pub lost: BTreeMap<String, String>,
}

impl Partition {
    fn new(replicas: Vec<String>) -> Self {
        let leader = replicas.first().cloned();
        let isr = replicas.iter().cloned().collect();
        Self { leader, leader_epoch: 1, version: 1, replicas, isr, lost: BTreeMap::new() }
    }

    /// Whether a replica has every acknowledged record, and so may lead.
    pub fn may_lead(&self, node: &str) -> bool {
        self.isr.contains(node) && !self.lost.contains_key(node)
    }

    fn set_leader(&mut self, leader: Option<String>, epoch: u64) {
        self.leader = leader;
        self.leader_epoch = epoch;
        self.version += 1;
    }

    /// The node came back with another disk: what it held is not there.
    fn disk_replaced(&mut self, node: &str, old: &str) {
        if !self.replicas.iter().any(|replica| replica == node) {
            return;
        }
        // Also for one that is not in sync: an in-sync set proposed for the old disk must not be taken for the new.
        self.version += 1;
        if !self.isr.contains(node) {
            return;
        }
        if self.isr.len() > 1 {
            self.isr.remove(node);
        } else {
            // The last one stays by name, so that nobody without the records ever takes its place.
            self.lost.entry(node.to_owned()).or_insert_with(|| old.to_owned());
        }
        if self.leader.as_deref() == Some(node) {
            self.set_leader(None, self.leader_epoch + 1);
        }
    }
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    /// Tells a topic from an earlier one of the same name.
    pub id: u64,
    /// What it was created with, and what was set since.
    pub config: TopicConfig,
    /// By number.
    pub partitions: Vec<Partition>,
}

impl Topic {
    /// A key's value, and whether it is the default.
    pub fn value(&self, key: &str, default: &str) -> (String, bool) {
        let value = match self.config.config.get(key) {
            Some(value) => value.clone(),
            None if key == topic_config::MIN_INSYNC => self.config.min_isr.to_string(),
            None => default.to_owned(),
        };
        let is_default = value == default;
        (value, is_default)
    }

    /// In-sync replicas that a publish needs.
    pub fn min_isr(&self) -> usize {
        self.value(topic_config::MIN_INSYNC, "1").0.parse().unwrap_or(1)
    }
}

/// All metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterMetadata {
    /// By name.
    pub topics: BTreeMap<String, Topic>,
    /// Brokers by node id, also those that left.
    pub nodes: BTreeMap<String, NodeInfo>,
    /// Consumer positions by group.
    pub offsets: BTreeMap<String, Vec<(PartitionId, u64)>>,
    /// The index of the last command.
    pub last_applied_index: u64,
}

impl ClusterMetadata {
    /// A partition.
    pub fn partition(&self, id: &PartitionId) -> Option<&Partition> {
        self.topics.get(&id.topic)?.partitions.get(id.partition as usize)
    }

    /// All partitions with their topics.
    pub fn partitions(&self) -> impl Iterator<Item = (PartitionId, &Topic, &Partition)> {
        self.topics.iter().flat_map(|(name, topic)| {
            let id = |partition| PartitionId { topic: name.clone(), partition };
            topic.partitions.iter().zip(0..).map(move |(partition, number)| (id(number), topic, partition))
        })
    }

    /// A group's position.
    pub fn offset(&self, group: &str, partition: &PartitionId) -> Option<u64> {
        self.offsets.get(group)?.iter().find(|(id, _)| id == partition).map(|(_, offset)| *offset)
    }

    /// Applies a command.
    pub fn apply(&mut self, index: u64, command: Command) -> Outcome {
        self.last_applied_index = index;
        self.change(command).unwrap_or_else(Outcome::error)
    }

    fn change(&mut self, command: Command) -> Result<Outcome, String> {
        match command {
            Command::CreateTopic { config, partition_assignments } => self.create_topic(config, partition_assignments),
            Command::DeleteTopic { name } => {
                self.topics.remove(&name).ok_or_else(|| format!("Topic {name} not found"))?;
                self.offsets.values_mut().for_each(|offsets| offsets.retain(|(id, _)| id.topic != name));
                Ok(Outcome::TopicDeleted { name })
            }
            Command::UpdateTopicConfig { name, config } => {
                self.alter_topic(&name, config.into_iter().map(|(key, value)| (key, Some(value))).collect())
            }
            Command::AlterTopicConfig { name, changes } => self.alter_topic(&name, changes),
            Command::AddPartitions { topic, new_assignments } => {
                self.check_assignments(&new_assignments)?;
                let found = self.topics.get_mut(&topic).ok_or_else(|| format!("Topic {topic} not found"))?;
                found.partitions.extend(new_assignments.into_iter().map(Partition::new));
                found.config.partitions = u32::try_from(found.partitions.len()).unwrap_or(u32::MAX);
                Ok(Outcome::Success)
            }
            Command::UpdatePartitionLeader { partition, leader, epoch } => {
                let found = self.newer(&partition, epoch)?;
                if !found.may_lead(&leader) {
                    return Err(format!("Node {leader} is not in sync for partition {partition}"));
                }
                found.set_leader(Some(leader.clone()), epoch);
                Ok(Outcome::PartitionLeaderUpdated { partition, leader })
            }
            Command::TakePartitionOffline { partition, epoch } => {
                self.newer(&partition, epoch)?.set_leader(None, epoch);
                Ok(Outcome::Success)
            }
            Command::UpdatePartitionIsr { partition, isr, leader_epoch, version } => {
                self.update_isr(partition, isr, leader_epoch, version)
            }
            Command::ReassignPartition { partition, replicas } => self.reassign(&partition, replicas),
            Command::RegisterNode { info } => {
                let node_id = info.id.clone();
                self.register(info);
                Ok(Outcome::NodeRegistered { node_id })
            }
            Command::DeregisterNode { node_id } => {
                let before = self.nodes.remove(&node_id).ok_or_else(|| format!("Node {node_id} not found"))?;
                // Whoever registers under this name later is not known to hold anything.
                self.each_partition(|partition| partition.disk_replaced(&node_id, before.disk()));
                Ok(Outcome::NodeDeregistered { node_id })
            }
            Command::CommitOffset { group, partition, offset } => {
                let offsets = self.offsets.entry(group).or_default();
                offsets.retain(|(id, _)| *id != partition);
                offsets.push((partition, offset));
                Ok(Outcome::Success)
            }
            Command::DeleteGroup { group } => {
                let found = self.offsets.remove(&group).map(|_| Outcome::Success);
                found.ok_or_else(|| format!("Consumer group '{group}' not found"))
            }
            Command::Noop => Ok(Outcome::Success),
        }
    }

    fn check_assignments(&self, assignments: &[Vec<String>]) -> Result<(), String> {
        if assignments.is_empty() {
            return Err("No partition assignments".to_owned());
        }
        assignments.iter().try_for_each(|replicas| self.check_replicas(replicas))
    }

    fn check_replicas(&self, replicas: &[String]) -> Result<(), String> {
        let distinct: BTreeSet<_> = replicas.iter().collect();
        if replicas.is_empty() || distinct.len() != replicas.len() {
            return Err(format!("Invalid replicas: {replicas:?}"));
        }
        match replicas.iter().find(|node| !self.nodes.contains_key(*node)) {
            Some(node) => Err(format!("Node {node} not found")),
            None => Ok(()),
        }
    }

    fn create_topic(&mut self, mut config: TopicConfig, assignments: Vec<Vec<String>>) -> Result<Outcome, String> {
        let name = config.name.clone();
        if self.topics.contains_key(&name) {
            return Err(format!("Topic {name} already exists"));
        }
        self.check_assignments(&assignments)?;
        for (key, value) in &mut config.config {
            *value = topic_config::parse(key, value)?;
        }
        let partitions = u32::try_from(assignments.len()).unwrap_or(u32::MAX);
        if config.partitions != partitions {
            return Err(format!("{} partitions, but {partitions} assignments", config.partitions));
        }
        let partitions_of = assignments.into_iter().map(Partition::new).collect();
        let topic = Topic { id: self.last_applied_index, config, partitions: partitions_of };
        self.topics.insert(name.clone(), topic);
        Ok(Outcome::TopicCreated { name, partitions })
    }

    fn alter_topic(&mut self, name: &str, changes: BTreeMap<String, Option<String>>) -> Result<Outcome, String> {
        let topic = self.topics.get_mut(name).ok_or_else(|| format!("Topic {name} not found"))?;
        let mut config = topic.config.config.clone();
        for (key, value) in changes {
            match value {
                Some(value) => config.insert(key.clone(), topic_config::parse(&key, &value)?),
                None => config.remove(&key),
            };
        }
        topic.config.config = config;
        Ok(Outcome::Success)
    }

    fn found(&mut self, id: &PartitionId) -> Option<&mut Partition> {
        self.topics.get_mut(&id.topic)?.partitions.get_mut(id.partition as usize)
    }

    /// A partition whose epoch is below the given one.
    fn newer(&mut self, id: &PartitionId, epoch: u64) -> Result<&mut Partition, String> {
        self.found(id)
            .filter(|partition| epoch > partition.leader_epoch)
            .ok_or_else(|| format!("Partition {id} not found or stale epoch"))
    }

    fn update_isr(
        &mut self,
        id: PartitionId,
        isr: BTreeSet<String>,
        epoch: u64,
        version: Option<u64>,
    ) -> Result<Outcome, String> {
        let partition = self.found(&id).ok_or_else(|| format!("Partition {id} not found"))?;
        if epoch != partition.leader_epoch {
            let current = partition.leader_epoch;
            return Err(format!("Stale leader epoch {epoch} < current {current} for partition {id}"));
        }
        if version.is_some_and(|version| version != partition.version) {
            return Err(format!("Partition {id} has changed"));
        }
        let leads = partition.leader.as_ref().is_some_and(|leader| isr.contains(leader));
        if !leads || !isr.iter().all(|node| partition.replicas.contains(node)) {
            return Err(format!("Invalid in-sync set for partition {id}: {isr:?}"));
        }
        partition.isr.clone_from(&isr);
        partition.lost.retain(|node, _| isr.contains(node));
        partition.version += 1;
        Ok(Outcome::IsrUpdated { partition: id, isr })
    }

    /// The released broker would let any of the new replicas lead, with whatever it holds; that loses records, so it is
    /// refused here.
    fn reassign(&mut self, id: &PartitionId, replicas: Vec<String>) -> Result<Outcome, String> {
        self.check_replicas(&replicas)?;
        let partition = self.found(id).ok_or_else(|| format!("Partition {id} not found"))?;
        let isr: BTreeSet<_> = replicas.iter().filter(|node| partition.isr.contains(*node)).cloned().collect();
        if isr.is_empty() {
            return Err(format!("No in-sync replica of partition {id} is in {replicas:?}"));
        }
        partition.replicas = replicas;
        partition.isr = isr;
        partition.lost.retain(|node, _| partition.isr.contains(node));
        partition.version += 1;
        if partition.leader.as_ref().is_some_and(|leader| !partition.isr.contains(leader)) {
            let heir = partition.replicas.iter().find(|node| partition.may_lead(node)).cloned();
            partition.set_leader(heir, partition.leader_epoch + 1);
        }
        Ok(Outcome::Success)
    }

    fn register(&mut self, info: NodeInfo) {
        let (node, disk) = (info.id.clone(), info.disk().to_owned());
        let before = self.nodes.insert(node.clone(), info);
        if let Some(before) = before.filter(|before| before.disk() != disk) {
            self.each_partition(|partition| partition.disk_replaced(&node, before.disk()));
        }
        // The very disk that was lost may be there again.
        self.each_partition(|partition| partition.lost.retain(|lost, mark| *lost != node || *mark != disk));
    }

    fn each_partition(&mut self, change: impl FnMut(&mut Partition)) {
        self.topics.values_mut().flat_map(|topic| &mut topic.partitions).for_each(change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(metadata: &mut ClusterMetadata, node: &str, disk: &str) {
        let tags = [("disk".to_owned(), disk.to_owned())].into();
        let at = String::new();
        let info = NodeInfo {
            id: node.to_owned(),
            name: None,
            rack: None,
            client_addr: at.clone(),
            cluster_addr: at,
            version: String::new(),
            tags,
        };
        metadata.apply(1, Command::RegisterNode { info });
    }

    fn id() -> PartitionId {
        PartitionId { topic: "t".to_owned(), partition: 0 }
    }

    /// A topic on `a` and `b`, led by `a` in epoch 1.
    fn two() -> ClusterMetadata {
        let mut metadata = ClusterMetadata::default();
        for node in ["a", "b", "c"] {
            register(&mut metadata, node, "first");
        }
        let config = serde_json::json!({ "name": "t", "partitions": 1, "replication_factor": 2 });
        let config = serde_json::from_value(config).unwrap();
        let partition_assignments = vec![vec!["a".to_owned(), "b".to_owned()]];
        let created = metadata.apply(2, Command::CreateTopic { config, partition_assignments });
        assert_eq!(created, Outcome::TopicCreated { name: "t".to_owned(), partitions: 1 });
        metadata
    }

    fn isr(nodes: &[&str], leader_epoch: u64, version: Option<u64>) -> Command {
        let isr = nodes.iter().map(|&node| node.to_owned()).collect();
        Command::UpdatePartitionIsr { partition: id(), isr, leader_epoch, version }
    }

    fn lead(leader: &str, epoch: u64) -> Command {
        Command::UpdatePartitionLeader { partition: id(), leader: leader.to_owned(), epoch }
    }

    fn refused(outcome: &Outcome) -> bool {
        matches!(outcome, Outcome::Error { .. })
    }

    #[test]
    fn a_leader_of_an_earlier_epoch_changes_nothing() {
        let mut metadata = two();
        assert!(!refused(&metadata.apply(3, lead("b", 2))));
        assert!(refused(&metadata.apply(4, isr(&["a"], 1, None))));
        assert!(refused(&metadata.apply(5, lead("a", 2))));
        assert!(refused(&metadata.apply(6, isr(&["a"], 2, None))), "without the leader");
        assert_eq!(metadata.partition(&id()).unwrap().isr.len(), 2);
        assert!(!refused(&metadata.apply(7, isr(&["b"], 2, None))));
        assert!(refused(&metadata.apply(8, lead("a", 3))), "not in sync");
    }

    #[test]
    fn a_proposal_that_was_overtaken_changes_nothing() {
        let mut metadata = two();
        let version = metadata.partition(&id()).unwrap().version;
        assert!(!refused(&metadata.apply(3, isr(&["a"], 1, Some(version)))));
        let version = version + 1;
        // The follower's disk is another one since the leader looked.
        register(&mut metadata, "b", "second");
        assert!(refused(&metadata.apply(4, isr(&["a", "b"], 1, Some(version)))));
        assert!(!refused(&metadata.apply(5, isr(&["a", "b"], 1, Some(version + 1)))));
    }

    #[test]
    fn another_disk_is_not_in_sync() {
        let mut metadata = two();
        register(&mut metadata, "a", "second");
        let partition = metadata.partition(&id()).unwrap().clone();
        assert_eq!((partition.leader, partition.leader_epoch), (None, 2));
        assert_eq!(partition.isr, ["b".to_owned()].into());
        // The last one stays by name, but does not lead until its disk is back.
        register(&mut metadata, "b", "second");
        assert!(refused(&metadata.apply(3, lead("b", 9))));
        register(&mut metadata, "b", "third");
        register(&mut metadata, "b", "first");
        assert!(!refused(&metadata.apply(4, lead("b", 9))));
    }

    #[test]
    fn whoever_was_forgotten_comes_back_with_nothing() {
        let mut metadata = two();
        metadata.apply(3, Command::DeregisterNode { node_id: "a".to_owned() });
        register(&mut metadata, "a", "second");
        assert_eq!(metadata.partition(&id()).unwrap().isr, ["b".to_owned()].into());
    }

    #[test]
    fn replicas_move_only_where_the_records_are() {
        let mut metadata = two();
        let reassign = |replicas: &[&str]| Command::ReassignPartition {
            partition: id(),
            replicas: replicas.iter().map(|&node| node.to_owned()).collect(),
        };
        assert!(refused(&metadata.apply(3, reassign(&["c"]))));
        assert!(refused(&metadata.apply(4, reassign(&["a", "a"]))));
        assert!(refused(&metadata.apply(5, reassign(&["a", "x"]))));
        assert!(!refused(&metadata.apply(6, reassign(&["b", "c"]))));
        let partition = metadata.partition(&id()).unwrap();
        assert_eq!((partition.leader.as_deref(), partition.leader_epoch), (Some("b"), 2));
        assert_eq!(partition.isr, ["b".to_owned()].into());
    }
}
