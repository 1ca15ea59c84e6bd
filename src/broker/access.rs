//! How a broker is reached: directly by its DNS name, or through the API server when the operator runs outside.

use std::hash::{Hash, Hasher};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, ToSocketAddrs};

use super::{Error, Tls};

/// Where a broker is. It is made from names only, never from a status that anybody may write.
#[derive(Clone, Debug)]
pub struct BrokerAddress {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// DNS name under the cluster's own headless Service.
    pub host: String,
    /// Port of the client protocol.
    pub client_port: u16,
    /// Port of the HTTP API.
    pub api_port: u16,
    /// How TLS is spoken there, if it is.
    pub tls: Option<Tls>,
}

impl BrokerAddress {
    fn place(&self) -> (&str, &str, u16, u16) {
        (&self.namespace, &self.pod, self.client_port, self.api_port)
    }
}

/// A broker is the same one when its certificate is another.
impl PartialEq for BrokerAddress {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for BrokerAddress {}

impl Hash for BrokerAddress {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.place().hash(state);
    }
}

/// Tells where a port of a broker really is.
type Map = dyn Fn(&BrokerAddress, u16) -> SocketAddr + Send + Sync;

/// How brokers are reached.
#[derive(Clone)]
pub enum Access {
    /// By their DNS names.
    Direct,
    /// Through the API server's port-forward.
    PortForward(Client),
    /// Wherever this says: brokers of tests.
    #[doc(hidden)]
    Mapped(Arc<Map>),
}

/// A byte stream to a broker.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Access {
    /// A stream to one port of the broker.
    pub(super) async fn open(&self, address: &BrokerAddress, port: u16) -> Result<Box<dyn Stream>, Error> {
        let stream = self.reach(address, port).await?;
        match &address.tls {
            Some(tls) => Ok(Box::new(tls.over(&address.host, stream).await?)),
            None => Ok(stream),
        }
    }

    async fn reach(&self, address: &BrokerAddress, port: u16) -> Result<Box<dyn Stream>, Error> {
        match self {
            Self::Direct => dial((address.host.as_str(), port)).await,
            Self::PortForward(client) => forward(client, address, port).await,
            Self::Mapped(map) => dial(map(address, port)).await,
        }
    }
}

async fn dial(to: impl ToSocketAddrs) -> Result<Box<dyn Stream>, Error> {
    let unreachable = |error: std::io::Error| Error::Unreachable(error.to_string());
    let stream = TcpStream::connect(to).await.map_err(unreachable)?;
    // Requests are written when they are whole: there is nothing to gather small segments for.
    stream.set_nodelay(true).map_err(unreachable)?;
    Ok(Box::new(Prompt(stream)))
}

/// A connection whose segments are acknowledged at once. The released broker sends each answer in two, and the second only
/// when the first was acknowledged: 44 ms later, by what Linux does otherwise (observed on 0.0.22).
struct Prompt(TcpStream);

impl AsyncRead for Prompt {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Prompt {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.0).poll_write(cx, bytes);
        // The kernel forgets it whenever something is sent; and that it cannot be had is no reason not to go on.
        #[cfg(target_os = "linux")]
        let _ = self.0.set_quickack(true);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

async fn forward(client: &Client, address: &BrokerAddress, port: u16) -> Result<Box<dyn Stream>, Error> {
    let pods = Api::<Pod>::namespaced(client.clone(), &address.namespace);
    let unreachable = |error: kube::Error| Error::Unreachable(error.to_string());
    let mut forwarder = pods.portforward(&address.pod, &[port]).await.map_err(unreachable)?;
    let stream =
        forwarder.take_stream(port).ok_or_else(|| Error::Unreachable(format!("port {port} was not forwarded")))?;
    Ok(Box::new(stream))
}
