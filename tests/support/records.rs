//! Records that clients wrote, and whether they can be read again.

use std::collections::BTreeSet;
use std::time::Duration;

use rivven_protocol::{PartitionMetadata, Request, Response};

use super::World;
use super::cluster::Clustered;

pub const TOPIC: &str = "orders";
pub const RECORDS: u32 = 30;

/// What any broker says of the topic's partitions.
pub async fn partitions(world: &World<Clustered>) -> Vec<PartitionMetadata> {
    for pod in world.fleet.running() {
        let request = Request::GetClusterMetadata { topics: vec![TOPIC.to_owned()] };
        if let Ok(Response::ClusterMetadata { mut topics, .. }) = world.fleet.client(&pod, request).await
            && let Some(topic) = topics.pop()
        {
            return topic.partitions;
        }
    }
    Vec::new()
}

async fn to_leader(world: &World<Clustered>, partition: u32, request: Request) -> Result<Response, String> {
    let mut last = "nobody leads".to_owned();
    for _ in 0..100 {
        let leader = partitions(world).await.into_iter().nth(partition as usize).and_then(|told| told.leader);
        if let Some(leader) = leader {
            match world.fleet.client(&leader, request.clone()).await {
                Ok(response) => return Ok(response),
                Err(error) => last = error,
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Err(last)
}

pub async fn fill(world: &World<Clustered>, count: u32) {
    let create = Request::CreateTopic { name: TOPIC.to_owned(), partitions: Some(count) };
    world.fleet.client("rivven-x-0", create).await.unwrap();
    for record in 0..RECORDS {
        let request = Request::Publish {
            topic: TOPIC.to_owned(),
            partition: Some(record % count),
            key: None,
            value: format!("record {record}").into_bytes().into(),
            leader_epoch: None,
        };
        let answer = to_leader(world, record % count, request).await.unwrap();
        assert!(matches!(answer, Response::Published { .. }), "{answer:?}");
    }
}

/// How many of the records that were acknowledged cannot be read.
pub async fn lost(world: &World<Clustered>) -> usize {
    let mut found = BTreeSet::new();
    for partition in 0..u32::try_from(partitions(world).await.len()).unwrap() {
        let request = Request::Consume {
            topic: TOPIC.to_owned(),
            partition,
            offset: 0,
            max_messages: 1000,
            isolation_level: None,
            max_wait_ms: None,
        };
        if let Ok(Response::Messages { messages, .. }) = to_leader(world, partition, request).await {
            found.extend(messages.into_iter().map(|message| String::from_utf8(message.value.to_vec()).unwrap()));
        }
    }
    (0..RECORDS).filter(|record| !found.contains(&format!("record {record}"))).count()
}
