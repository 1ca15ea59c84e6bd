//! The released broker's binary, and a small broker in memory that cheats.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rivven_protocol::{BrokerInfo, MessageData, PROTOCOL_VERSION, Request, Response, WireFormat};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// `RIVVEN_RELEASED_BROKER`, or where `cargo xtask` builds it.
pub fn released_broker() -> PathBuf {
    let cache = || {
        let home = PathBuf::from(std::env::var_os("HOME").unwrap());
        std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from)
    };
    let binary = std::env::var_os("RIVVEN_RELEASED_BROKER")
        .map_or_else(|| cache().join("rivven-operator/broker/bin/rivvend"), PathBuf::from);
    assert!(binary.exists(), "{} is missing: cargo xtask builds it", binary.display());
    binary
}

/// What the broker in memory does wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cheat {
    Nothing,
    DropEveryTenth,
    WriteEveryTenthTwice,
    ReadBackwards,
}

#[derive(Default)]
struct Topic {
    published: u64,
    partitions: BTreeMap<u32, Vec<MessageData>>,
}

impl Cheat {
    /// Serves until the test ends.
    pub async fn serve(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let topic = Arc::new(Mutex::new(Topic::default()));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(self.connection(stream, Arc::clone(&topic)));
            }
        });
        address
    }

    async fn connection(self, mut stream: TcpStream, topic: Arc<Mutex<Topic>>) {
        while let Ok(length) = stream.read_u32().await {
            let mut frame = vec![0; length as usize];
            if stream.read_exact(&mut frame).await.is_err() {
                return;
            }
            let (request, _, correlation) = Request::from_wire(&frame).unwrap();
            let answer = self.answer(&mut topic.lock().unwrap(), request);
            let answer = answer.to_wire(WireFormat::Postcard, correlation).unwrap();
            let mut reply = u32::try_from(answer.len()).unwrap().to_be_bytes().to_vec();
            reply.extend(answer);
            if stream.write_all(&reply).await.is_err() {
                return;
            }
        }
    }

    fn answer(self, topic: &mut Topic, request: Request) -> Response {
        match request {
            Request::Handshake { .. } => Response::HandshakeResult {
                server_version: PROTOCOL_VERSION,
                compatible: true,
                message: "OK".to_owned(),
            },
            Request::GetMetadata { topic } => Response::Metadata { name: topic, partitions: 3 },
            Request::GetClusterMetadata { .. } => Response::ClusterMetadata {
                controller_id: None,
                brokers: vec![BrokerInfo::new("cheat", "0.0.0.0", 1)],
                topics: Vec::new(),
            },
            Request::GetOffsetBounds { partition, .. } => {
                let latest = topic.partitions.entry(partition).or_default().last().map_or(0, |last| last.offset + 1);
                Response::OffsetBounds { earliest: 0, latest }
            }
            Request::Consume { partition, offset, max_messages, .. } => {
                let from = topic.partitions.entry(partition).or_default().iter();
                let page = from.filter(|message| message.offset >= offset).take(max_messages as usize);
                let mut messages: Vec<_> = page.cloned().collect();
                if self == Self::ReadBackwards {
                    messages.reverse();
                }
                Response::Messages { messages }
            }
            Request::Publish { partition, key, value, .. } => {
                topic.published += 1;
                let tenth = topic.published.is_multiple_of(10);
                let partition = partition.unwrap();
                let log = topic.partitions.entry(partition).or_default();
                let next = log.last().map_or(0, |last| last.offset + 1);
                let times = match self {
                    Self::DropEveryTenth if tenth => 0,
                    Self::WriteEveryTenthTwice if tenth => 2,
                    _ => 1,
                };
                log.extend((next..next + times).map(|offset| MessageData {
                    offset,
                    partition,
                    timestamp: 0,
                    key: key.clone(),
                    value: value.clone(),
                    headers: Vec::new(),
                }));
                Response::Published { offset: next, partition }
            }
            other => Response::Error { message: format!("not served: {other:?}") },
        }
    }
}
