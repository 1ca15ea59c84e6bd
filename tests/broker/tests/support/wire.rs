//! A client that asks whom it wants to, and a load that keeps account of what was acknowledged.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rivven_protocol::{MessageData, PartitionMetadata, Request, Response, WireFormat};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::{Links, PATIENCE, eventually};

/// One request on a connection of its own.
pub async fn ask(at: SocketAddr, request: Request) -> std::io::Result<Response> {
    let stream = TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    ask_on(stream, request).await
}

/// The only request on a connection.
pub async fn ask_on(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: Request) -> std::io::Result<Response> {
    let body = request.to_wire(WireFormat::Postcard, 7).unwrap();
    let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    frame.extend(body);
    stream.write_all(&frame).await?;
    stream.flush().await?;
    let length = stream.read_u32().await?;
    let mut reply = vec![0; length as usize];
    stream.read_exact(&mut reply).await?;
    let (response, _, correlation) = Response::from_wire(&reply).unwrap();
    assert_eq!(correlation, 7);
    Ok(response)
}

pub fn publishing(topic: &str, partition: u32, value: &[u8]) -> Request {
    Request::Publish {
        topic: topic.to_owned(),
        partition: Some(partition),
        key: None,
        value: value.to_vec().into(),
        leader_epoch: None,
    }
}

impl Links {
    /// Asks one broker.
    pub async fn ask(&self, name: &str, request: Request) -> Result<Response, String> {
        let at = self.client_address(name).ok_or("not running")?;
        match tokio::time::timeout(PATIENCE * 10, ask(at, request)).await.map_err(|_| "hangs")? {
            Ok(Response::Error { message }) => Err(message),
            Ok(response) => Ok(response),
            Err(error) => Err(error.to_string()),
        }
    }

    /// What one broker tells of a partition.
    pub async fn partition(&self, name: &str, topic: &str, partition: u32) -> Option<PartitionMetadata> {
        let request = Request::GetClusterMetadata { topics: vec![topic.to_owned()] };
        let Ok(Response::ClusterMetadata { mut topics, .. }) = self.ask(name, request).await else { return None };
        let found = topics.pop()?;
        found.partitions.into_iter().nth(partition as usize)
    }

    /// The leader of a partition as any broker tells it.
    pub async fn partition_leader(&self, topic: &str, partition: u32) -> Option<String> {
        for name in self.running() {
            let told = self.partition(&name, topic, partition).await.and_then(|told| told.leader);
            if let Some(leader) = told.filter(|leader| self.running().contains(leader)) {
                return Some(leader);
            }
        }
        None
    }

    /// Publishes to the leader; an error is: perhaps.
    pub async fn publish(&self, topic: &str, partition: u32, value: &[u8]) -> Result<u64, String> {
        let leader = self.partition_leader(topic, partition).await.ok_or("no leader")?;
        let publish = self.ask(&leader, publishing(topic, partition, value));
        match tokio::time::timeout(Duration::from_secs(10), publish).await.map_err(|_| "no answer")?? {
            Response::Published { offset, .. } => Ok(offset),
            other => Err(format!("{other:?}")),
        }
    }

    /// Everything acknowledged in a partition, from its leader.
    pub async fn read_all(&self, topic: &str, partition: u32) -> Vec<MessageData> {
        let read = async || {
            let leader = self.partition_leader(topic, partition).await?;
            self.read_from(&leader, topic, partition).await
        };
        eventually("all records", read).await
    }

    /// Everything acknowledged in a partition, from one broker if it leads.
    pub async fn read_from(&self, name: &str, topic: &str, partition: u32) -> Option<Vec<MessageData>> {
        let bounds = Request::GetOffsetBounds { topic: topic.to_owned(), partition };
        let Ok(Response::OffsetBounds { latest, .. }) = self.ask(name, bounds).await else { return None };
        let mut all: Vec<MessageData> = Vec::new();
        while (all.len() as u64) < latest {
            let request = Request::Consume {
                topic: topic.to_owned(),
                partition,
                offset: all.len() as u64,
                max_messages: 1000,
                isolation_level: None,
                max_wait_ms: None,
            };
            let Ok(Response::Messages { messages }) = self.ask(name, request).await else { return None };
            if messages.is_empty() {
                return None;
            }
            all.extend(messages);
        }
        Some(all)
    }
}

/// Publishes one record after the other until it is stopped.
pub struct Load {
    task: JoinHandle<()>,
    acknowledged: Arc<Mutex<Vec<(u64, String)>>>,
}

impl Load {
    pub fn start(links: &Links, topic: &str, partition: u32) -> Self {
        Self::marked(links, topic, partition, "v")
    }

    /// A load whose records differ from those of others.
    pub fn marked(links: &Links, topic: &str, partition: u32, mark: &'static str) -> Self {
        let acknowledged: Arc<Mutex<Vec<(u64, String)>>> = Arc::default();
        let (links, topic, account) = (links.clone(), topic.to_owned(), Arc::clone(&acknowledged));
        let task = tokio::spawn(async move {
            for number in 0.. {
                let value = format!("{mark}-{partition}-{number}");
                match links.publish(&topic, partition, value.as_bytes()).await {
                    Ok(offset) => account.lock().unwrap().push((offset, value)),
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        });
        Self { task, acknowledged }
    }

    pub fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Waits until more was acknowledged than now.
    pub async fn progress(&self) {
        let before = self.count();
        eventually("progress", async || (self.count() > before + 20).then_some(())).await;
    }

    /// Ends the load; what was acknowledged, by offset.
    pub fn stop(self) -> Vec<(u64, String)> {
        self.task.abort();
        self.acknowledged.lock().unwrap().clone()
    }
}

/// How many acknowledged records are not where they were said to be.
pub fn missing(acknowledged: &[(u64, String)], read: &[MessageData]) -> usize {
    let there = |offset: u64, value: &str| {
        let found = usize::try_from(offset).ok().and_then(|index| read.get(index));
        found.is_some_and(|message| message.offset == offset && message.value == value.as_bytes())
    };
    acknowledged.iter().filter(|(offset, value)| !there(*offset, value)).count()
}
