//! Requests about topics and the cluster. Changes go through Raft, whichever broker is asked.

use std::collections::BTreeMap;

use rivven_protocol::{
    BrokerInfo, PartitionMetadata, Response, TopicConfigDescription, TopicConfigEntry, TopicConfigValue, TopicMetadata,
};

use super::{check_topic_name, not_found};
use crate::broker::Core;
use crate::metadata::command::{Command, Outcome, TopicConfig};
use crate::metadata::state::{ClusterMetadata, Topic};
use crate::metadata::{raft_id, topic_config};

/// Proposes, and takes an error for an outcome as an error.
pub(super) async fn propose(core: &Core, command: Command) -> Result<(), String> {
    core.faults.room().map_err(|error| format!("I/O error: {error}"))?;
    match core.metadata.propose(command).await {
        Ok(Outcome::Error { message }) => Err(message),
        Ok(_) => Ok(()),
        Err(error) => Err(format!("COORDINATOR_NOT_AVAILABLE: {error:#}")),
    }
}

pub(super) async fn create(core: &Core, name: String, partitions: Option<u32>) -> Result<Response, String> {
    check_topic_name(&name)?;
    let partitions = partitions.unwrap_or(core.config.default_partitions);
    if !(1..=1000).contains(&partitions) {
        return Err(format!("INVALID_PARTITION_COUNT: must be between 1 and 1000, got {partitions}"));
    }
    // A broker that has just started knows itself only when it has registered.
    core.until_registered().await;
    let brokers = brokers(core, &core.metadata.now());
    let replication_factor = core.config.replication_factor.min(u16::try_from(brokers.len()).unwrap_or(u16::MAX));
    let config = TopicConfig {
        name: name.clone(),
        partitions,
        replication_factor,
        retention_ms: 604_800_000,
        segment_bytes: 1_073_741_824,
        // A topic that could never be written to is of no use to anybody.
        min_isr: core.config.min_isr.min(replication_factor).max(1),
        config: BTreeMap::new(),
    };
    let partition_assignments = assign(&brokers, 0..partitions, replication_factor);
    let created = propose(core, Command::CreateTopic { config, partition_assignments }).await;
    // In the metadata's answer the name has no quotes, in this protocol's it has.
    let exists = |error: &String| error.ends_with("already exists");
    created.map_err(|error| if exists(&error) { format!("Topic '{name}' already exists") } else { error })?;
    core.metadata.until(|metadata| metadata.topics.contains_key(&name)).await;
    Ok(Response::TopicCreated { name, partitions })
}

/// The brokers that belong to the cluster.
fn brokers(core: &Core, metadata: &ClusterMetadata) -> Vec<String> {
    metadata.nodes.keys().filter(|node| core.metadata.is_member(node)).cloned().collect()
}

/// Round-robin.
fn assign(brokers: &[String], partitions: std::ops::Range<u32>, replicas: u16) -> Vec<Vec<String>> {
    let from = |partition: u32| brokers.iter().cycle().skip(partition as usize % brokers.len().max(1));
    partitions.map(|partition| from(partition).take(replicas.into()).cloned().collect()).collect()
}

pub(super) async fn delete(core: &Core, name: String) -> Result<Response, String> {
    let metadata = core.metadata.now();
    let id = metadata.topics.get(&name).ok_or_else(|| not_found(&name))?.id;
    propose(core, Command::DeleteTopic { name: name.clone() }).await?;
    core.metadata.until(|metadata| metadata.topics.get(&name).is_none_or(|topic| topic.id != id)).await;
    Ok(Response::TopicDeleted)
}

pub(super) fn metadata(core: &Core, topic: String) -> Result<Response, String> {
    let metadata = core.metadata.now();
    let found = metadata.topics.get(&topic).ok_or_else(|| not_found(&topic))?;
    Ok(Response::Metadata { partitions: count(found), name: topic })
}

fn count(topic: &Topic) -> u32 {
    u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX)
}

pub(super) fn cluster(core: &Core, wanted: &[String]) -> Response {
    let metadata = core.metadata.now();
    let leader = core.metadata.metrics().current_leader;
    let controller_id = metadata.nodes.keys().find(|node| Some(raft_id(node)) == leader).cloned();
    let known = brokers(core, &metadata).into_iter().filter_map(|node| metadata.nodes.get(&node));
    let brokers = known
        .filter_map(|node| {
            let (host, port) = node.client_addr.rsplit_once(':')?;
            let (host, port) = (host.to_owned(), port.parse().ok()?);
            Some(BrokerInfo { node_id: node.id.clone(), host, port, rack: node.rack.clone() })
        })
        .collect();
    let asked = metadata.topics.iter().filter(|(name, _)| wanted.is_empty() || wanted.contains(name));
    let topics = asked.map(|(name, topic)| TopicMetadata::new(name, partitions(topic))).collect();
    Response::ClusterMetadata { controller_id, brokers, topics }
}

fn partitions(topic: &Topic) -> Vec<PartitionMetadata> {
    let told = topic.partitions.iter().zip(0..).map(|(partition, number)| PartitionMetadata {
        partition: number,
        leader: partition.leader.clone(),
        replicas: partition.replicas.clone(),
        isr: partition.isr.iter().cloned().collect(),
        offline: partition.leader.is_none(),
    });
    told.collect()
}

pub(super) fn unknown(topic: &str) -> String {
    format!("UNKNOWN_TOPIC_OR_PARTITION: Topic '{topic}' not found")
}

pub(super) async fn create_partitions(
    core: &Core,
    topic: String,
    new_partition_count: u32,
    assignments: Vec<Vec<String>>,
) -> Result<Response, String> {
    let metadata = core.metadata.now();
    let found = metadata.topics.get(&topic).ok_or_else(|| unknown(&topic))?;
    let current = count(found);
    if new_partition_count <= current {
        let problem = format!("New partition count {new_partition_count} must be greater than current count {current}");
        return Err(format!("INVALID_PARTITIONS: {problem}"));
    }
    let added = current..new_partition_count;
    let new_assignments = if assignments.is_empty() {
        let brokers = brokers(core, &metadata);
        let replicas = usize::from(found.config.replication_factor).min(brokers.len());
        assign(&brokers, added, u16::try_from(replicas).unwrap_or(u16::MAX))
    } else if assignments.len() == added.len() {
        assignments
    } else {
        let problem = format!("{} assignments for {} new partitions", assignments.len(), added.len());
        return Err(format!("INVALID_PARTITIONS: {problem}"));
    };
    propose(core, Command::AddPartitions { topic: topic.clone(), new_assignments }).await?;
    let grown = |topic: &Topic| count(topic) >= new_partition_count;
    core.metadata.until(|metadata| metadata.topics.get(&topic).is_none_or(grown)).await;
    Ok(Response::PartitionsCreated { topic, new_partition_count })
}

pub(super) async fn alter_config(
    core: &Core,
    topic: String,
    configs: Vec<TopicConfigEntry>,
) -> Result<Response, String> {
    if !core.metadata.now().topics.contains_key(&topic) {
        return Err(unknown(&topic));
    }
    let changed_count = configs.len();
    let mut changes = BTreeMap::new();
    // As in the released broker, what comes before a mistake stays.
    let mut problem = None;
    for TopicConfigEntry { key, value } in configs {
        let known = topic_config::DEFAULTS.iter().find(|(known, _)| *known == key);
        let default = known.map(|(_, default)| *default).unwrap_or_default();
        match topic_config::parse(&key, value.as_deref().unwrap_or(default)) {
            Ok(parsed) => changes.insert(key, value.map(|_| parsed)),
            Err(error) => {
                problem = Some(error);
                break;
            }
        };
    }
    propose(core, Command::AlterTopicConfig { name: topic.clone(), changes: changes.clone() }).await?;
    let altered = |topic: &Topic| changes.iter().all(|(key, value)| topic.config.config.get(key) == value.as_ref());
    core.metadata.until(|metadata| metadata.topics.get(&topic).is_none_or(altered)).await;
    problem.map_or(Ok(Response::TopicConfigAltered { topic, changed_count }), Err)
}

/// For a topic that does not exist: the defaults, and no error, as the released broker has it.
pub(super) fn describe_configs(core: &Core, topics: Vec<String>) -> Response {
    let metadata = core.metadata.now();
    let topics = if topics.is_empty() { metadata.topics.keys().cloned().collect() } else { topics };
    let describe = |topic: String| {
        let found = metadata.topics.get(&topic);
        let value = |(key, default): (&str, &str)| {
            let (value, is_default) = found.map_or((default.to_owned(), true), |found| found.value(key, default));
            (key.to_owned(), TopicConfigValue { value, is_default, is_read_only: false, is_sensitive: false })
        };
        let configs = topic_config::DEFAULTS.into_iter().map(value).collect();
        TopicConfigDescription { topic, configs }
    };
    Response::TopicConfigsDescribed { configs: topics.into_iter().map(describe).collect() }
}
