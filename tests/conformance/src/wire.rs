//! Requests for which the published client has no method, on its protocol's own types and framing.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use rivven_protocol::{BrokerInfo, MAX_MESSAGE_SIZE, PROTOCOL_VERSION, Request, Response, TopicMetadata, WireFormat};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::tls::{Socket, Tls, dial};

/// How long connecting and each exchange may take, where nothing else is said.
pub const LIMIT: Duration = Duration::from_secs(10);

/// A connection that is not usable any more after an error.
pub struct Wire {
    stream: Box<dyn Socket>,
    correlation: u32,
    limit: Duration,
}

/// What `GetClusterMetadata` answers.
#[derive(Clone, Debug)]
pub struct ClusterMetadata {
    /// The Raft leader.
    pub controller: Option<String>,
    /// The brokers.
    pub brokers: Vec<BrokerInfo>,
    /// The topics; always empty where partition metadata is not served.
    pub topics: Vec<TopicMetadata>,
}

impl Wire {
    /// Connects and shakes hands. Neither this nor any call takes longer than `limit`.
    pub async fn connect(address: &str, limit: Duration) -> Result<Self> {
        Self::connect_with(address, None, limit).await
    }

    /// The same, over TLS where somebody says how.
    pub async fn connect_with(address: &str, tls: Option<&Tls>, limit: Duration) -> Result<Self> {
        let stream = timeout(limit, dial(address, tls)).await.context("connecting takes too long")??;
        let mut wire = Self { stream, correlation: 0, limit };
        match wire.handshake(PROTOCOL_VERSION).await? {
            Response::HandshakeResult { compatible: true, .. } => Ok(wire),
            other => bail!("handshake: {other:?}"),
        }
    }

    /// Says which version of the protocol this side speaks.
    pub async fn handshake(&mut self, protocol_version: u32) -> Result<Response> {
        self.call(&Request::Handshake { protocol_version, client_id: "conformance".to_owned() }).await
    }

    /// One request, its answer.
    pub async fn call(&mut self, request: &Request) -> Result<Response> {
        let limit = self.limit;
        timeout(limit, self.exchange(request)).await.with_context(|| format!("no answer within {limit:?}"))?
    }

    async fn exchange(&mut self, request: &Request) -> Result<Response> {
        self.correlation = self.correlation.wrapping_add(1);
        let body = request.to_wire(WireFormat::Postcard, self.correlation)?;
        let mut frame = u32::try_from(body.len())?.to_be_bytes().to_vec();
        frame.extend(body);
        self.stream.write_all(&frame).await?;
        self.stream.flush().await?;
        let length = usize::try_from(self.stream.read_u32().await?)?;
        if length > MAX_MESSAGE_SIZE {
            bail!("an answer of {length} bytes");
        }
        // The released broker writes length and body apart and without TCP_NODELAY: the body waits for this side to
        // acknowledge the length, which it would do 40 ms later.
        self.stream.tcp().set_quickack(true)?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        let (response, _, correlation) = Response::from_wire(&body)?;
        if correlation != self.correlation {
            bail!("asked {}, answered {correlation}", self.correlation);
        }
        Ok(response)
    }

    /// The same, with the broker's refusal as the error.
    pub async fn ask(&mut self, request: &Request) -> Result<Response> {
        match self.call(request).await? {
            Response::Error { message } => bail!(message),
            response => Ok(response),
        }
    }

    /// Brokers, leaders, replicas and in-sync sets; of all topics where none is named.
    pub async fn cluster_metadata(&mut self, topics: &[&str]) -> Result<ClusterMetadata> {
        let topics = topics.iter().map(|&topic| topic.to_owned()).collect();
        match self.ask(&Request::GetClusterMetadata { topics }).await? {
            Response::ClusterMetadata { controller_id: controller, brokers, topics } => {
                Ok(ClusterMetadata { controller, brokers, topics })
            }
            other => bail!("GetClusterMetadata: {other:?}"),
        }
    }
}
