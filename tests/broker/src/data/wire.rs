//! What followers and leaders say to each other on the cluster port: length, then postcard.

use anyhow::{Context, anyhow, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::log::Record;
use crate::metadata::command::PartitionId;
use crate::tls::Stream;

/// The largest message.
const LIMIT: u32 = 64 * 1024 * 1024;

/// The first message: who has not the cluster's token is not listened to.
#[derive(Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) token: String,
}

/// A question to the leader of a partition in an epoch.
#[derive(Serialize, Deserialize)]
pub(super) struct Ask {
    pub(super) topic: u64,
    pub(super) partition: PartitionId,
    pub(super) epoch: u64,
    pub(super) what: What,
}

#[derive(Serialize, Deserialize)]
pub(super) enum What {
    EndOf { epoch: u64 },
    Fetch { node: String, version: u64, offset: u64, high_watermark: u64 },
}

#[derive(Serialize, Deserialize)]
pub(super) enum Reply {
    End { epoch: Option<u64>, end: u64 },
    Records { high_watermark: u64, records: Vec<Record> },
    Refused,
}

pub(super) async fn send(stream: &mut Stream, message: &impl Serialize) -> anyhow::Result<()> {
    let body = postcard::to_stdvec(message)?;
    let mut frame = u32::try_from(body.len())?.to_be_bytes().to_vec();
    frame.extend(body);
    stream.write_all(&frame).await?;
    Ok(stream.flush().await?)
}

pub(super) async fn receive<T: DeserializeOwned>(stream: &mut Stream) -> anyhow::Result<T> {
    let length = stream.read_u32().await?;
    ensure!(length <= LIMIT, "a message of {length} bytes");
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body).await?;
    postcard::from_bytes(&body).map_err(|error| anyhow!(error)).context("malformed message")
}
