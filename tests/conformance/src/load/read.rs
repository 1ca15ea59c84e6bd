//! Reads whole partitions from their leaders.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use rivven_protocol::{MessageData, Request, Response};

use super::route::Routes;
use crate::wire::Wire;

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The partition it was read from.
    pub partition: u32,
    /// The offset it carries.
    pub offset: u64,
    /// The value as text.
    pub value: String,
}

/// What could be read of a topic.
#[derive(Debug, Default)]
pub struct Read {
    /// In the order of each partition.
    pub records: Vec<Record>,
    /// The partitions that nobody serves, and why.
    pub unreadable: BTreeMap<u32, String>,
}

/// Everything in the topic. If no partition can be read at all, that is an error: it says nothing about the records.
pub async fn read_all(routes: &Routes, partitions: u32) -> Result<Read> {
    let mut read = Read::default();
    for partition in 0..partitions {
        let records = async {
            let mut wire = routes.leader(partition).await?;
            read_partition(&mut wire, &routes.topic, partition).await
        };
        match records.await {
            Ok(records) => read.records.extend(records),
            Err(reason) => drop(read.unreadable.insert(partition, format!("{reason:#}"))),
        }
    }
    let some = read.unreadable.len() < partitions as usize;
    ensure!(some, "no partition can be read: {:?}", read.unreadable);
    Ok(read)
}

/// Everything in one partition.
pub async fn read_partition(wire: &mut Wire, topic: &str, partition: u32) -> Result<Vec<Record>> {
    let bounds = wire.ask(&Request::GetOffsetBounds { topic: topic.to_owned(), partition }).await?;
    let Response::OffsetBounds { earliest, latest } = bounds else { bail!("GetOffsetBounds: {bounds:?}") };
    let (mut next, mut records) = (earliest, Vec::new());
    while next < latest {
        let page = page(wire, topic, partition, next).await?;
        // After a crash the released broker holds records that carry offset 0 in the middle of its log. The next page
        // begins after the highest offset of this one.
        let Some(last) = page.iter().map(|message| message.offset).max() else { break };
        next = (last + 1).max(next + 1);
        records.extend(page.into_iter().map(|message| Record {
            partition,
            offset: message.offset,
            value: String::from_utf8_lossy(&message.value).into_owned(),
        }));
    }
    Ok(records)
}

async fn page(wire: &mut Wire, topic: &str, partition: u32, offset: u64) -> Result<Vec<MessageData>> {
    let request = Request::Consume {
        topic: topic.to_owned(),
        partition,
        offset,
        max_messages: 1000,
        isolation_level: None,
        max_wait_ms: None,
    };
    match wire.ask(&request).await? {
        Response::Messages { messages } => Ok(messages),
        other => bail!("consume: {other:?}"),
    }
}
