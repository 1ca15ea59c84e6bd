//! Records are written and read.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use rivven_protocol::{BatchRecord, MessageData, Request, Response};

use crate::expect::same;
use crate::single::Single;

fn values(messages: &[MessageData]) -> Vec<String> {
    messages.iter().map(|message| String::from_utf8_lossy(&message.value).into_owned()).collect()
}

pub(super) async fn order(on: &mut Single) -> Result<()> {
    let mut client = on.client().await?;
    client.create_topic("order", Some(2)).await?;
    for offset in 0..10 {
        let value = format!("value {offset}");
        same("offset", &client.publish_to_partition("order", 1, Some("key"), value).await?, &offset)?;
    }
    let read = client.consume("order", 1, 0, 100).await?;
    same("values", &values(&read), &(0..10).map(|n| format!("value {n}")).collect())?;
    same("offsets", &read.iter().map(|m| m.offset).collect::<Vec<_>>(), &(0..10).collect())?;
    ensure!(read.iter().all(|m| m.partition == 1 && m.key.as_deref() == Some(b"key")), "{:?}", read[0]);
    ensure!(read.iter().all(|m| m.timestamp > 0), "no timestamp: {:?}", read[0]);
    same("the other partition", &client.consume("order", 0, 0, 100).await?.len(), &0)
}

pub(super) async fn auto_create(on: &mut Single) -> Result<()> {
    let mut client = on.client().await?;
    client.publish("auto-create", "first").await?;
    super::topics::there(&mut client, &[("auto-create", 3)]).await
}

pub(super) async fn by_key(on: &mut Single) -> Result<()> {
    let mut wire = on.wire().await?;
    on.client().await?.create_topic("by-key", Some(8)).await?;
    let mut used = BTreeSet::new();
    for key in 0..16 {
        let mut of_key = BTreeSet::new();
        for _ in 0..2 {
            let (topic, key) = ("by-key".to_owned(), Some(Bytes::from(format!("key {key}"))));
            let value = Bytes::from("x");
            match wire.ask(&Request::Publish { topic, partition: None, key, value, leader_epoch: None }).await? {
                Response::Published { partition, .. } => of_key.insert(partition),
                other => bail!("{other:?}"),
            };
        }
        same("partitions of one key", &of_key.len(), &1)?;
        used.extend(of_key);
    }
    ensure!(used.len() > 1, "all keys in one partition");
    Ok(())
}

pub(super) async fn batch(on: &mut Single) -> Result<()> {
    let mut client = on.client().await?;
    client.create_topic("batch", Some(2)).await?;
    client.publish_to_partition("batch", 1, None::<&str>, "alone").await?;
    let record = |n: usize| BatchRecord { key: None, value: Bytes::from(format!("batch {n}")) };
    let (topic, records) = ("batch".to_owned(), (0..5).map(record).collect());
    let request = Request::PublishBatch { topic, partition: Some(1), records, leader_epoch: None };
    match on.wire().await?.ask(&request).await? {
        Response::PublishedBatch { base_offset, partition, record_count } => {
            same("base offset, partition, count", &(base_offset, partition, record_count), &(1, 1, 5))?;
        }
        other => bail!("{other:?}"),
    }
    let read = client.consume("batch", 1, 0, 100).await?;
    same("offsets", &read.iter().map(|m| m.offset).collect::<Vec<_>>(), &(0..6).collect())?;
    let expected = ["alone", "batch 0", "batch 1", "batch 2", "batch 3", "batch 4"];
    same("values", &values(&read), &expected.map(str::to_owned).to_vec())
}

pub(super) async fn pages(on: &mut Single) -> Result<()> {
    let mut client = on.client().await?;
    client.create_topic("pages", Some(1)).await?;
    for n in 0..10 {
        client.publish_to_partition("pages", 0, None::<&str>, n.to_string()).await?;
    }
    for (offset, limit, expected) in [(0, 4, 0..4), (4, 4, 4..8), (8, 4, 8..10), (10, 4, 0..0), (99, 4, 0..0)] {
        let read = client.consume("pages", 0, offset, limit).await?;
        let offsets: Vec<_> = read.iter().map(|message| message.offset).collect();
        same(&format!("{limit} from {offset}"), &offsets, &expected.collect())?;
    }
    Ok(())
}

pub(super) async fn long_poll(on: &mut Single) -> Result<()> {
    let (mut reader, mut writer) = (on.client().await?, on.client().await?);
    writer.create_topic("long-poll", Some(1)).await?;
    let waiting = async { reader.consume_long_poll("long-poll", 0, 0, 10, None, 10_000).await };
    let written = async { writer.publish_to_partition("long-poll", 0, None::<&str>, "awaited").await };
    let (read, written) = futures::join!(waiting, written);
    written.context("publish")?;
    same("read", &values(&read?), &vec!["awaited".to_owned()])
}
