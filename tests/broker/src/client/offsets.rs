//! Positions of consumer groups: metadata, so that every broker knows them.

use std::collections::HashMap;

use rivven_protocol::Response;

use super::topics::propose;
use super::{records, valid_name};
use crate::broker::Core;
use crate::metadata::command::{Command, PartitionId};

pub(super) async fn commit(
    core: &Core,
    group: String,
    topic: String,
    partition: u32,
    offset: u64,
) -> Result<Response, String> {
    if !valid_name(&group) || group.len() > 255 {
        return Err(format!("INVALID_CONSUMER_GROUP: Invalid consumer group ID: {group}"));
    }
    let metadata = core.metadata.now();
    let found = metadata.topics.get(&topic).ok_or_else(|| format!("UNKNOWN_TOPIC: topic '{topic}' does not exist"))?;
    if found.partitions.get(partition as usize).is_none() {
        return Err(format!("UNKNOWN_PARTITION: partition {partition} does not exist in topic '{topic}'"));
    }
    let id = PartitionId { topic, partition };
    // Only the leader knows.
    let latest = records::led(core, found, &id).await.ok().and_then(|replica| replica.bounds().ok());
    if let Some((_, latest)) = latest.filter(|(_, latest)| offset > *latest) {
        let problem = format!("offset {offset} exceeds latest offset {latest} for partition {partition}");
        return Err(format!("OFFSET_OUT_OF_RANGE: {problem}"));
    }
    propose(core, Command::CommitOffset { group: group.clone(), partition: id.clone(), offset }).await?;
    core.metadata.until(|metadata| metadata.offset(&group, &id) == Some(offset)).await;
    Ok(Response::OffsetCommitted)
}

pub(super) fn get(core: &Core, group: &str, topic: String, partition: u32) -> Response {
    Response::Offset { offset: core.metadata.now().offset(group, &PartitionId { topic, partition }) }
}

pub(super) fn describe(core: &Core, consumer_group: String) -> Result<Response, String> {
    let metadata = core.metadata.now();
    let found = metadata.offsets.get(&consumer_group);
    let mut offsets: HashMap<String, HashMap<u32, u64>> = HashMap::new();
    for (id, offset) in found.ok_or_else(|| format!("Consumer group '{consumer_group}' not found"))? {
        offsets.entry(id.topic.clone()).or_default().insert(id.partition, *offset);
    }
    Ok(Response::GroupDescription { consumer_group, offsets })
}

pub(super) async fn delete(core: &Core, group: String) -> Result<Response, String> {
    propose(core, Command::DeleteGroup { group: group.clone() }).await?;
    core.metadata.until(|metadata| !metadata.offsets.contains_key(&group)).await;
    Ok(Response::GroupDeleted)
}
