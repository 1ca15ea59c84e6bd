//! What does not exist, in every request that names it.

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use rivven_protocol::{BatchRecord, Request, Response};

use crate::expect::{refused, same};
use crate::single::Single;

/// Each request, and the refusal.
async fn refusals(on: &Single, cases: Vec<(Request, &str)>) -> Result<()> {
    let mut wire = on.wire().await?;
    for (request, message) in cases {
        match wire.call(&request).await? {
            Response::Error { message: said } => same(&format!("{request:?}"), &said.as_str(), &message)?,
            other => bail!("{request:?}: not refused: {other:?}"),
        }
    }
    Ok(())
}

fn consume(topic: String, partition: u32) -> Request {
    Request::Consume { topic, partition, offset: 0, max_messages: 1, isolation_level: None, max_wait_ms: None }
}

fn publish(topic: String, partition: u32) -> Request {
    Request::Publish { topic, partition: Some(partition), key: None, value: Bytes::from("x"), leader_epoch: None }
}

pub(super) async fn topic(on: &mut Single) -> Result<()> {
    const NOT_FOUND: &str = "Topic not found: nope";
    const UNKNOWN: &str = "UNKNOWN_TOPIC_OR_PARTITION: Topic 'nope' not found";
    let topic = || "nope".to_owned();
    let cases = vec![
        (Request::GetMetadata { topic: topic() }, NOT_FOUND),
        (Request::DeleteTopic { name: topic() }, NOT_FOUND),
        (Request::GetOffsetBounds { topic: topic(), partition: 0 }, NOT_FOUND),
        (consume(topic(), 0), NOT_FOUND),
        (Request::GetOffsetForTimestamp { topic: topic(), partition: 0, timestamp_ms: 0 }, NOT_FOUND),
        (Request::CreatePartitions { topic: topic(), new_partition_count: 9, assignments: Vec::new() }, UNKNOWN),
        (Request::AlterTopicConfig { topic: topic(), configs: Vec::new() }, UNKNOWN),
        (Request::DeleteRecords { topic: topic(), partition_offsets: vec![(0, 0)] }, UNKNOWN),
        (
            Request::CommitOffset { consumer_group: "group".to_owned(), topic: topic(), partition: 0, offset: 0 },
            "UNKNOWN_TOPIC: topic 'nope' does not exist",
        ),
    ];
    refusals(on, cases).await?;
    let mut client = on.client().await?;
    same("offset of an unknown topic", &client.get_offset("group", "nope", 0).await?, &None)?;
    ensure!(!client.list_topics().await?.contains(&topic()), "one of the requests created it");
    Ok(())
}

pub(super) async fn partition(on: &mut Single) -> Result<()> {
    const INVALID: &str = "INVALID_PARTITION: Invalid partition 9: must be < 2";
    on.client().await?.create_topic("unknown-partition", Some(2)).await?;
    let topic = || "unknown-partition".to_owned();
    let batch = vec![BatchRecord { key: None, value: Bytes::from("x") }];
    let cases = vec![
        (consume(topic(), 9), INVALID),
        (publish(topic(), 9), INVALID),
        (Request::PublishBatch { topic: topic(), partition: Some(9), records: batch, leader_epoch: None }, INVALID),
        (Request::GetOffsetForTimestamp { topic: topic(), partition: 9, timestamp_ms: 0 }, INVALID),
        (
            Request::GetOffsetBounds { topic: topic(), partition: 9 },
            "Partition 9 not found for topic 'unknown-partition'",
        ),
        (
            Request::CommitOffset { consumer_group: "group".to_owned(), topic: topic(), partition: 9, offset: 0 },
            "UNKNOWN_PARTITION: partition 9 does not exist in topic 'unknown-partition'",
        ),
    ];
    refusals(on, cases).await?;
    let deleted = on.client().await?.delete_records(topic(), &[(9, 0)]).await?;
    let [result] = deleted.as_slice() else { bail!("{deleted:?}") };
    same("delete records", &result.error.as_deref(), &Some("UNKNOWN_TOPIC_OR_PARTITION: Partition 9 not found"))
}

pub(super) async fn group(on: &mut Single) -> Result<()> {
    let mut client = on.client().await?;
    client.create_topic("unknown-group", Some(1)).await?;
    refused(client.describe_group("nobody").await, "Consumer group 'nobody' not found")?;
    refused(client.delete_group("nobody").await, "Consumer group 'nobody' not found")?;
    same("offset", &client.get_offset("nobody", "unknown-group", 0).await?, &None)
}
