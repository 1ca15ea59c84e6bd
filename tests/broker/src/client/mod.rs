//! The client protocol: Rivven's wire format, with the released broker's answers.

use std::sync::Arc;

use rivven_protocol::{MAX_MESSAGE_SIZE, PROTOCOL_VERSION, Request, Response, WireFormat};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

mod offsets;
mod records;
mod topics;

use crate::broker::Core;
use crate::faults::Fate;
use crate::tls::Stream;

/// Serves one client, one request after the other, until it leaves or the broker is stopped.
pub(crate) async fn connection(core: Arc<Core>, mut stream: Stream) {
    let mut stopping = core.stopping.clone();
    loop {
        let length = tokio::select! {
            length = stream.read_u32() => length,
            _ = stopping.wait_for(|stopping| *stopping) => return,
        };
        // In between requests only: one that has begun is answered.
        let Ok(length) = length else { return };
        if exchange(&core, &mut stream, length as usize).await.is_err() {
            return;
        }
    }
}

async fn exchange(core: &Core, stream: &mut Stream, length: usize) -> anyhow::Result<()> {
    anyhow::ensure!(length <= MAX_MESSAGE_SIZE, "a request of {length} bytes");
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await?;
    let (request, _, correlation) = Request::from_wire(&frame)?;
    let fate = core.faults.fate(|name| name == operation(&request));
    let answer = match fate {
        Some(Fate::Refused) => Err("UNAVAILABLE: refused on demand".to_owned()),
        _ => answer(core, request).await,
    };
    anyhow::ensure!(fate != Some(Fate::ReplyLost), "the reply is lost on demand");
    let response = answer.unwrap_or_else(|message| Response::Error { message });
    let body = response.to_wire(WireFormat::Postcard, correlation)?;
    let mut reply = u32::try_from(body.len())?.to_be_bytes().to_vec();
    reply.extend(body);
    stream.write_all(&reply).await?;
    Ok(stream.flush().await?)
}

/// The name of a request, as the protocol has it.
fn operation(request: &Request) -> String {
    format!("{request:?}").chars().take_while(char::is_ascii_alphanumeric).collect()
}

async fn answer(core: &Core, request: Request) -> Result<Response, String> {
    match &request {
        Request::Ping => return Ok(Response::Pong),
        _ if core.config.no_require_auth => {}
        // Without a certificate the connection would not have come this far.
        _ if core.config.tls_enabled && core.config.tls_verify_client => {}
        // As in the released broker, there is nobody who could log in.
        _ => return Err("AUTHENTICATION_REQUIRED: Please authenticate first".to_owned()),
    }
    match request {
        Request::Handshake { protocol_version, .. } => Ok(handshake(protocol_version)),
        Request::ListTopics => Ok(Response::Topics { topics: core.metadata.now().topics.keys().cloned().collect() }),
        Request::CreateTopic { name, partitions } => topics::create(core, name, partitions).await,
        Request::DeleteTopic { name } => topics::delete(core, name).await,
        Request::GetMetadata { topic } => topics::metadata(core, topic),
        Request::GetClusterMetadata { topics } => Ok(topics::cluster(core, &topics)),
        Request::CreatePartitions { topic, new_partition_count, assignments } => {
            topics::create_partitions(core, topic, new_partition_count, assignments).await
        }
        Request::AlterTopicConfig { topic, configs } => topics::alter_config(core, topic, configs).await,
        Request::DescribeTopicConfigs { topics } => Ok(topics::describe_configs(core, topics)),
        Request::Publish { topic, partition, key, value, leader_epoch } => {
            let target = records::Target { topic, partition, leader_epoch };
            let (partition, offset) = records::publish(core, target, vec![(key, value)]).await?;
            Ok(Response::Published { offset, partition })
        }
        Request::PublishBatch { topic, partition, records, leader_epoch } => {
            let target = records::Target { topic, partition, leader_epoch };
            let entries: Vec<_> = records.into_iter().map(|record| (record.key, record.value)).collect();
            let record_count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
            let (partition, base_offset) = records::publish(core, target, entries).await?;
            Ok(Response::PublishedBatch { base_offset, partition, record_count })
        }
        Request::Consume { topic, partition, offset, max_messages, max_wait_ms, .. } => {
            records::consume(core, topic, partition, offset, max_messages, max_wait_ms.unwrap_or(0)).await
        }
        Request::GetOffsetBounds { topic, partition } => records::bounds(core, topic, partition).await,
        Request::GetOffsetForTimestamp { topic, partition, timestamp_ms } => {
            records::at_time(core, topic, partition, timestamp_ms).await
        }
        Request::DeleteRecords { topic, partition_offsets } => records::delete(core, topic, partition_offsets).await,
        Request::CommitOffset { consumer_group, topic, partition, offset } => {
            offsets::commit(core, consumer_group, topic, partition, offset).await
        }
        Request::GetOffset { consumer_group, topic, partition } => {
            Ok(offsets::get(core, &consumer_group, topic, partition))
        }
        Request::ListGroups => Ok(Response::Groups { groups: core.metadata.now().offsets.keys().cloned().collect() }),
        Request::DescribeGroup { consumer_group } => offsets::describe(core, consumer_group),
        Request::DeleteGroup { consumer_group } => offsets::delete(core, consumer_group).await,
        _ => Err("NOT_SUPPORTED: the test broker does not serve this request".to_owned()),
    }
}

fn handshake(client: u32) -> Response {
    let compatible = client == PROTOCOL_VERSION;
    let message = if compatible {
        "OK".to_owned()
    } else {
        format!("Version mismatch: client={client}, server={PROTOCOL_VERSION}")
    };
    Response::HandshakeResult { server_version: PROTOCOL_VERSION, compatible, message }
}

/// The released broker's rule for names of topics and groups, but for their length.
fn valid_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric()) && name.bytes().all(allowed)
}

fn check_topic_name(name: &str) -> Result<(), String> {
    let invalid = |reason: &str| format!("Invalid topic name '{name}': {reason}");
    let problem = match name.len() {
        0 => "Topic name cannot be empty".to_owned(),
        256.. => format!("Topic name too long: {} chars (max: 255)", name.len()),
        _ if !valid_name(name) => {
            invalid("must start with alphanumeric and contain only alphanumeric, dots, hyphens, underscores")
        }
        _ if name.contains("..") => invalid("path traversal patterns not allowed"),
        _ => return Ok(()),
    };
    Err(format!("INVALID_TOPIC_NAME: {problem}"))
}

fn not_found(topic: &str) -> String {
    format!("Topic not found: {topic}")
}
