//! How a broker is reached: directly by its DNS name, or through the API server when the operator runs outside.

use std::net::SocketAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::Error;

/// Where a broker is. It is made from names only, never from a status that anybody may write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
        match self {
            Self::Direct => {
                let stream = TcpStream::connect((address.host.as_str(), port)).await;
                Ok(Box::new(stream.map_err(|error| Error::Unreachable(error.to_string()))?))
            }
            Self::PortForward(client) => forward(client, address, port).await,
            Self::Mapped(map) => {
                let stream = TcpStream::connect(map(address, port)).await;
                Ok(Box::new(stream.map_err(|error| Error::Unreachable(error.to_string()))?))
            }
        }
    }

    /// A `host:port` that leads to the client port, for a client that dials by itself, and what keeps it open.
    pub(super) async fn dial_string(&self, address: &BrokerAddress) -> Result<(String, Tunnel), Error> {
        match self {
            Self::Direct => Ok((format!("{}:{}", address.host, address.client_port), Tunnel(None))),
            Self::Mapped(map) => Ok((map(address, address.client_port).to_string(), Tunnel(None))),
            Self::PortForward(client) => {
                let unreachable = |error: std::io::Error| Error::Unreachable(error.to_string());
                let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(unreachable)?;
                let local = listener.local_addr().map_err(unreachable)?;
                let (client, address) = (client.clone(), address.clone());
                // One connection only: a session is one connection, and the task ends with it or with the tunnel.
                let task = tokio::spawn(async move {
                    let Ok((mut near, _)) = listener.accept().await else { return };
                    if let Ok(mut far) = forward(&client, &address, address.client_port).await {
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                    }
                });
                Ok((local.to_string(), Tunnel(Some(task))))
            }
        }
    }
}

/// Keeps a port-forward open; closes it when dropped.
pub(super) struct Tunnel(Option<JoinHandle<()>>);

impl Drop for Tunnel {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
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
