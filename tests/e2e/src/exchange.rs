//! Writing to and reading from brokers with the published client, through the API server's port-forward.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use rivven_client::Client;
use tokio::io::copy_bidirectional;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::Place;

/// A client of one broker, and what keeps its connection open.
pub struct Connection {
    /// The published client.
    pub client: Client,
    tunnel: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.tunnel.abort();
    }
}

/// A local address that leads to a broker, also after its pod was made anew.
pub struct Door {
    /// The address, as host:port.
    pub address: String,
    task: JoinHandle<()>,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Place {
    /// Opens a door to a port of a broker. While its pod is away, connections end at once.
    pub async fn door(&self, pod: &str, port: u16) -> Result<Door> {
        let (pods, pod): (Api<Pod>, _) = (self.api(), pod.to_owned());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let task = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (pods, pod) = (pods.clone(), pod.clone());
                tokio::spawn(async move {
                    let Ok(mut forwarder) = pods.portforward(&pod, &[port]).await else { return };
                    if let Some(mut far) = forwarder.take_stream(port) {
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        Ok(Door { address, task })
    }

    /// Connects to a broker by its pod.
    pub async fn connect(&self, pod: &str) -> Result<Connection> {
        let pods: Api<Pod> = self.api();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let mut forwarder = pods.portforward(pod, &[9292]).await?;
        let mut far = forwarder.take_stream(9292).context("the port was not forwarded")?;
        let tunnel = tokio::spawn(async move {
            if let Ok((mut near, _)) = listener.accept().await {
                let _ = copy_bidirectional(&mut near, &mut far).await;
            }
            drop(forwarder);
        });
        Ok(Connection { client: Client::connect(&address).await?, tunnel })
    }
}
