//! Topics are created, listed, grown and deleted.

use anyhow::{Result, ensure};
use rivven_client::Client;

use crate::expect::{refused, refused_with, same};
use crate::single::Single;

/// Topics that exist, by name and number of partitions.
pub(super) async fn there(client: &mut Client, topics: &[(&str, u32)]) -> Result<()> {
    for &(name, partitions) in topics {
        same("metadata", &client.get_metadata(name).await?, &(name.to_owned(), partitions))?;
    }
    let listed = client.list_topics().await?;
    for (name, _) in topics {
        same(&format!("{name} in the list"), &listed.iter().filter(|topic| topic == name).count(), &1)?;
    }
    Ok(())
}

pub(super) async fn create_default(on: &mut Single) -> Result<()> {
    let mut client = on.client().await?;
    same("partitions", &client.create_topic("create-default", None).await?, &3)?;
    there(&mut client, &[("create-default", 3)]).await
}

pub(super) async fn create_counted(on: &mut Single) -> Result<()> {
    let mut client = on.client().await?;
    for (name, count) in [("create-1", 1), ("create-7", 7), ("create-1000", 1000)] {
        same("partitions", &client.create_topic(name, Some(count)).await?, &count)?;
        there(&mut client, &[(name, count)]).await?;
    }
    Ok(client.delete_topic("create-1000").await?)
}

pub(super) async fn create_existing(on: &mut Single) -> Result<()> {
    let mut client = on.client().await?;
    client.create_topic("create-twice", Some(2)).await?;
    for count in [None, Some(2), Some(5)] {
        refused(client.create_topic("create-twice", count).await, "Topic 'create-twice' already exists")?;
    }
    there(&mut client, &[("create-twice", 2)]).await
}

pub(super) async fn bad_names(on: &mut Single) -> Result<()> {
    let mut client = on.client().await?;
    let reason = "must start with alphanumeric and contain only alphanumeric, dots, hyphens, underscores";
    for name in ["_name", ".name", "-name", "na me", "na/me", "näme", "__internal"] {
        let message = format!("INVALID_TOPIC_NAME: Invalid topic name '{name}': {reason}");
        refused(client.create_topic(name, None).await, &message)?;
    }
    refused(client.create_topic("", None).await, "INVALID_TOPIC_NAME: Topic name cannot be empty")?;
    refused_with(client.create_topic("a..b", None).await, "INVALID_TOPIC_NAME: ")?;
    let (longest, longer) = ("n".repeat(255), "n".repeat(256));
    refused(client.create_topic(longer, None).await, "INVALID_TOPIC_NAME: Topic name too long: 256 chars (max: 255)")?;
    client.create_topic(longest.as_str(), Some(1)).await?;
    client.create_topic("Name-0_x.y", Some(1)).await?;
    there(&mut client, &[(&longest, 1), ("Name-0_x.y", 1)]).await
}

pub(super) async fn bad_counts(on: &mut Single) -> Result<()> {
    let mut client = on.client().await?;
    for count in [0, 1001, u32::MAX] {
        let message = format!("INVALID_PARTITION_COUNT: must be between 1 and 1000, got {count}");
        refused(client.create_topic("bad-count", Some(count)).await, &message)?;
    }
    ensure!(!client.list_topics().await?.contains(&"bad-count".to_owned()), "created nevertheless");
    Ok(())
}

pub(super) async fn list(on: &mut Single) -> Result<()> {
    let mut client = on.client().await?;
    let before = client.list_topics().await?.len();
    client.create_topic("list-a", Some(1)).await?;
    client.create_topic("list-b", Some(2)).await?;
    same("topics", &client.list_topics().await?.len(), &(before + 2))?;
    there(&mut client, &[("list-a", 1), ("list-b", 2)]).await
}

pub(super) async fn delete(on: &mut Single) -> Result<()> {
    let mut client = on.client().await?;
    client.create_topic("delete", Some(2)).await?;
    client.delete_topic("delete").await?;
    ensure!(!client.list_topics().await?.contains(&"delete".to_owned()), "still listed");
    refused(client.get_metadata("delete").await, "Topic not found: delete")?;
    refused(client.delete_topic("delete").await, "Topic not found: delete")?;
    // The name is free again, with another number of partitions.
    same("partitions", &client.create_topic("delete", Some(4)).await?, &4)
}

pub(super) async fn grow(on: &mut Single) -> Result<()> {
    let mut client = on.client().await?;
    client.create_topic("grow", Some(2)).await?;
    client.publish_to_partition("grow", 1, None::<&str>, "before").await?;
    same("partitions", &client.create_partitions("grow", 5).await?, &5)?;
    there(&mut client, &[("grow", 5)]).await?;
    same("offset", &client.publish_to_partition("grow", 4, None::<&str>, "after").await?, &0)?;
    let kept = client.consume("grow", 1, 0, 10).await?;
    ensure!(kept.len() == 1 && kept[0].value == "before", "{kept:?}");
    Ok(())
}

pub(super) async fn shrink(on: &mut Single) -> Result<()> {
    let mut client = on.client().await?;
    client.create_topic("shrink", Some(3)).await?;
    for count in [3, 2, 0] {
        let message = format!("INVALID_PARTITIONS: New partition count {count} must be greater than current count 3");
        refused(client.create_partitions("shrink", count).await, &message)?;
    }
    there(&mut client, &[("shrink", 3)]).await
}
