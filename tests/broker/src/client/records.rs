//! Publishing and consuming, on the leader of the partition only.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::body::Bytes;
use rivven_protocol::{DeleteRecordsResult, MessageData, Response};

use super::{check_topic_name, not_found, topics};
use crate::broker::Core;
use crate::data::{Record, Refusal, Replica};
use crate::metadata::command::PartitionId;
use crate::metadata::hash;
use crate::metadata::state::Topic;

/// The longest that a consumer may wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The most messages in an answer, and their bytes.
const MOST: u32 = 10_000;
const MOST_BYTES: u64 = 8 * 1024 * 1024;

/// Where records are to go.
pub(super) struct Target {
    pub(super) topic: String,
    pub(super) partition: Option<u32>,
    pub(super) leader_epoch: Option<u64>,
}

/// Publishes to one partition; the answer is that and the first offset.
pub(super) async fn publish(
    core: &Core,
    target: Target,
    entries: Vec<(Option<Bytes>, Bytes)>,
) -> Result<(u32, u64), String> {
    let Target { topic, partition, leader_epoch } = target;
    check_topic_name(&topic)?;
    if !core.metadata.now().topics.contains_key(&topic) {
        // Always on in the released broker. Somebody else may have been faster.
        let created = topics::create(core, topic.clone(), None).await;
        created.map(drop).or_else(|error| if error.contains("already exists") { Ok(()) } else { Err(error) })?;
        core.metadata.until(|metadata| metadata.topics.contains_key(&topic)).await;
    }
    let metadata = core.metadata.now();
    let found = metadata.topics.get(&topic).ok_or_else(|| not_found(&topic))?;
    let key = entries.first().and_then(|(key, _)| key.as_ref());
    let id = PartitionId { partition: choose(core, &topic, found, partition, key), topic };
    let current = check_partition(found, &id)?;
    if let Some(epoch) = leader_epoch.filter(|epoch| *epoch < current) {
        return Err(format!("FENCED_LEADER_EPOCH: client epoch {epoch} < current epoch {current} for {id}"));
    }
    let replica = led(core, found, &id).await?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    core.faults.room().map_err(|error| explain(core, &id, error.into()))?;
    let entries = entries.into_iter().map(|(key, value)| (key.map(Vec::from), Vec::from(value))).collect();
    let published = replica.publish(entries, i64::try_from(now).unwrap_or_default()).await;
    published.map(|offset| (id.partition, offset)).map_err(|refusal| explain(core, &id, refusal))
}

/// The partition asked for, or the key's, or one that is led here.
fn choose(core: &Core, name: &str, topic: &Topic, asked: Option<u32>, key: Option<&Bytes>) -> u32 {
    let count = topic.partitions.len() as u64;
    let of_key = |key: &Bytes| u32::try_from(hash(key) % count);
    match (asked, key) {
        (Some(asked), _) => asked,
        (None, Some(key)) => of_key(key).unwrap_or_default(),
        (None, None) => {
            let led = |number: &u32| {
                let id = PartitionId { topic: name.to_owned(), partition: *number };
                core.replicas.get(topic.id, &id).is_some_and(|replica| replica.leads())
            };
            (0..).take(topic.partitions.len()).find(led).unwrap_or_default()
        }
    }
}

/// The partition's epoch, if there is such a partition.
fn check_partition(topic: &Topic, id: &PartitionId) -> Result<u64, String> {
    let (number, count) = (id.partition, topic.partitions.len());
    let found = topic.partitions.get(number as usize);
    let invalid = || format!("INVALID_PARTITION: Invalid partition {number}: must be < {count}");
    found.map(|partition| partition.leader_epoch).ok_or_else(invalid)
}

/// The replica that leads here. A new leader may need a moment to take its role.
pub(super) async fn led(core: &Core, topic: &Topic, id: &PartitionId) -> Result<Arc<Replica>, String> {
    let not_leader = || explain(core, id, Refusal::NotLeader);
    let until = tokio::time::Instant::now() + Duration::from_secs(2);
    loop {
        if let Some(replica) = core.replicas.get(topic.id, id).filter(|replica| replica.leads()) {
            return Ok(replica);
        }
        let leader = core.metadata.now().partition(id).and_then(|partition| partition.leader.clone());
        if leader.as_ref() != Some(&core.config.node_id) || tokio::time::Instant::now() >= until {
            return Err(not_leader());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn explain(core: &Core, id: &PartitionId, refusal: Refusal) -> String {
    match refusal {
        Refusal::NotLeader => {
            let number = id.partition;
            match core.metadata.now().partition(id).and_then(|partition| partition.leader.clone()) {
                Some(leader) => {
                    format!("NOT_LEADER_FOR_PARTITION: Not leader for partition {number}. Leader is node '{leader}'")
                }
                None => format!("NOT_LEADER_FOR_PARTITION: No leader for {id}"),
            }
        }
        Refusal::NotEnoughReplicas(have, need) => {
            format!("NOT_ENOUGH_REPLICAS: {have} in-sync replicas of {id}, {need} are needed")
        }
        Refusal::Disk(error) => format!("I/O error: {error}"),
    }
}

pub(super) async fn consume(
    core: &Core,
    topic: String,
    partition: u32,
    offset: u64,
    max_messages: u32,
    max_wait_ms: u64,
) -> Result<Response, String> {
    let metadata = core.metadata.now();
    let found = metadata.topics.get(&topic).ok_or_else(|| not_found(&topic))?;
    let id = PartitionId { topic, partition };
    check_partition(found, &id)?;
    let replica = led(core, found, &id).await?;
    let wait = Duration::from_millis(max_wait_ms).min(LONGEST_WAIT);
    // Whoever waited in vain gets what there is: nothing.
    drop(tokio::time::timeout(wait, replica.readable(offset)).await);
    let records = replica.read(offset, max_messages.min(MOST) as usize, MOST_BYTES);
    let records = records.map_err(|refusal| explain(core, &id, refusal))?;
    let message = |record: Record| MessageData {
        offset: record.offset,
        partition,
        key: record.key.map(Bytes::from),
        value: record.value.into(),
        timestamp: record.timestamp,
        headers: Vec::new(),
    };
    Ok(Response::Messages { messages: records.into_iter().map(message).collect() })
}

pub(super) async fn bounds(core: &Core, topic: String, partition: u32) -> Result<Response, String> {
    let metadata = core.metadata.now();
    let found = metadata.topics.get(&topic).ok_or_else(|| not_found(&topic))?;
    if found.partitions.get(partition as usize).is_none() {
        return Err(format!("Partition {partition} not found for topic '{topic}'"));
    }
    let id = PartitionId { topic, partition };
    let bounds = led(core, found, &id).await?.bounds();
    let (earliest, latest) = bounds.map_err(|refusal| explain(core, &id, refusal))?;
    Ok(Response::OffsetBounds { earliest, latest })
}

/// The first record that is not older than a time.
pub(super) async fn at_time(core: &Core, topic: String, partition: u32, time: i64) -> Result<Response, String> {
    let metadata = core.metadata.now();
    let found = metadata.topics.get(&topic).ok_or_else(|| not_found(&topic))?;
    let id = PartitionId { topic, partition };
    check_partition(found, &id)?;
    let offset = led(core, found, &id).await?.at_time(time);
    Ok(Response::OffsetForTimestamp { offset: offset.map_err(|refusal| explain(core, &id, refusal))? })
}

/// Hides records until the leader changes or restarts: the released broker remembers it no longer.
pub(super) async fn delete(core: &Core, topic: String, before: Vec<(u32, u64)>) -> Result<Response, String> {
    let metadata = core.metadata.now();
    let found = metadata.topics.get(&topic).ok_or_else(|| topics::unknown(&topic))?;
    let mut results = Vec::new();
    for (partition, offset) in before {
        let id = PartitionId { topic: topic.clone(), partition };
        let hidden = if found.partitions.get(partition as usize).is_none() {
            Err(format!("UNKNOWN_TOPIC_OR_PARTITION: Partition {partition} not found"))
        } else {
            let replica = led(core, found, &id).await;
            replica.and_then(|replica| replica.hide(offset).map_err(|refusal| explain(core, &id, refusal)))
        };
        let (low_watermark, error) = match hidden {
            Ok((low, latest)) if offset > latest => {
                (low, Some(format!("OFFSET_OUT_OF_RANGE: Target offset {offset} exceeds latest offset {latest}")))
            }
            Ok(_) => (offset, None),
            Err(refusal) => (0, Some(refusal)),
        };
        results.push(DeleteRecordsResult { partition, low_watermark, error });
    }
    Ok(Response::RecordsDeleted { topic, results })
}
