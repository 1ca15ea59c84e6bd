//! Positions of consumer groups: metadata, so that every broker knows them.

use rivven_protocol::Response;

use super::topics::propose;
use super::valid_name;
use crate::broker::Core;
use crate::metadata::command::{Command, PartitionId};

pub(super) async fn commit(
    core: &Core,
    group: String,
    topic: String,
    partition: u32,
    offset: u64,
) -> Result<Response, String> {
    if !valid_name(&group) {
        return Err(format!("INVALID_CONSUMER_GROUP: Invalid consumer group '{group}'"));
    }
    let metadata = core.metadata.now();
    let found = metadata.topics.get(&topic).ok_or_else(|| format!("UNKNOWN_TOPIC: topic '{topic}' does not exist"))?;
    let id = PartitionId { topic, partition };
    let latest = core.replicas.get(found.id, &id).and_then(|replica| replica.high_watermark().ok());
    if let Some(latest) = latest.filter(|latest| offset > *latest) {
        return Err(format!("OFFSET_OUT_OF_RANGE: offset {offset} > latest {latest} for {id}"));
    }
    propose(core, Command::CommitOffset { group: group.clone(), partition: id.clone(), offset }).await?;
    core.metadata.until(|metadata| metadata.offset(&group, &id).is_some()).await;
    Ok(Response::OffsetCommitted)
}

pub(super) fn get(core: &Core, group: &str, topic: String, partition: u32) -> Response {
    Response::Offset { offset: core.metadata.now().offset(group, &PartitionId { topic, partition }) }
}
