//! Offsets of partitions and of groups.

use std::collections::HashMap;

use anyhow::{Result, ensure};

use crate::expect::{refused, same};
use crate::single::Single;

pub(super) async fn bounds(on: &mut Single) -> Result<()> {
    let mut client = on.client().await?;
    client.create_topic("bounds", Some(2)).await?;
    same("of nothing", &client.get_offset_bounds("bounds", 0).await?, &(0, 0))?;
    for latest in 1..=3 {
        client.publish_to_partition("bounds", 0, None::<&str>, "x").await?;
        same("after a record", &client.get_offset_bounds("bounds", 0).await?, &(0, latest))?;
    }
    same("of the other", &client.get_offset_bounds("bounds", 1).await?, &(0, 0))
}

pub(super) async fn of_a_time(on: &mut Single) -> Result<()> {
    let mut client = on.client().await?;
    client.create_topic("times", Some(1)).await?;
    same("of nothing", &client.get_offset_for_timestamp("times", 0, 0).await?, &None)?;
    for _ in 0..3 {
        client.publish_to_partition("times", 0, None::<&str>, "x").await?;
    }
    let read = client.consume("times", 0, 0, 10).await?;
    for message in &read {
        // Records of one millisecond are told apart by their order only.
        let first = read.iter().find(|other| other.timestamp >= message.timestamp).map(|other| other.offset);
        same("offset", &client.get_offset_for_timestamp("times", 0, message.timestamp).await?, &first)?;
    }
    same("of the beginning", &client.get_offset_for_timestamp("times", 0, 0).await?, &Some(0))?;
    same("of the future", &client.get_offset_for_timestamp("times", 0, i64::MAX).await?, &None)
}

pub(super) async fn delete_records(on: &mut Single) -> Result<()> {
    let mut client = on.client().await?;
    client.create_topic("delete-records", Some(2)).await?;
    for _ in 0..5 {
        client.publish_to_partition("delete-records", 0, None::<&str>, "x").await?;
    }
    for (before, low, error) in
        [(3, 3, None), (9, 3, Some("OFFSET_OUT_OF_RANGE: Target offset 9 exceeds latest offset 5"))]
    {
        let results = client.delete_records("delete-records", &[(0, before)]).await?;
        let told: Vec<_> = results.iter().map(|r| (r.partition, r.low_watermark, r.error.as_deref())).collect();
        same("told", &told, &vec![(0, low, error)])?;
    }
    same("bounds", &client.get_offset_bounds("delete-records", 0).await?, &(3, 5))?;
    let left: Vec<_> = client.consume("delete-records", 0, 0, 10).await?.iter().map(|m| m.offset).collect();
    same("left", &left, &vec![3, 4])?;
    same("next offset", &client.publish_to_partition("delete-records", 0, None::<&str>, "x").await?, &5)
}

pub(super) async fn commit(on: &mut Single) -> Result<()> {
    let mut client = on.client().await?;
    client.create_topic("commit", Some(1)).await?;
    for _ in 0..3 {
        client.publish_to_partition("commit", 0, None::<&str>, "x").await?;
    }
    same("before", &client.get_offset("committers", "commit", 0).await?, &None)?;
    for offset in [2, 3, 1] {
        client.commit_offset("committers", "commit", 0, offset).await?;
        same("committed", &client.get_offset("committers", "commit", 0).await?, &Some(offset))?;
    }
    let message = "OFFSET_OUT_OF_RANGE: offset 4 exceeds latest offset 3 for partition 0";
    refused(client.commit_offset("committers", "commit", 0, 4).await, message)?;
    same("after the refusal", &client.get_offset("committers", "commit", 0).await?, &Some(1))?;
    same("another group", &client.get_offset("others", "commit", 0).await?, &None)
}

pub(super) async fn groups(on: &mut Single) -> Result<()> {
    let mut client = on.client().await?;
    client.create_topic("groups", Some(2)).await?;
    client.publish_to_partition("groups", 1, None::<&str>, "x").await?;
    client.commit_offset("group-a", "groups", 0, 0).await?;
    client.commit_offset("group-a", "groups", 1, 1).await?;
    ensure!(client.list_groups().await?.contains(&"group-a".to_owned()), "not listed");
    let expected = HashMap::from([("groups".to_owned(), HashMap::from([(0, 0), (1, 1)]))]);
    same("described", &client.describe_group("group-a").await?, &expected)?;
    client.delete_group("group-a").await?;
    refused(client.describe_group("group-a").await, "Consumer group 'group-a' not found")?;
    same("offset", &client.get_offset("group-a", "groups", 1).await?, &None)
}
