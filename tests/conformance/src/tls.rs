//! TLS as a client: whom it believes, what it shows, and by which name it knows a broker.

use std::path::PathBuf;

use anyhow::{Context, Result};
use rivven_test_broker::tls::connector;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::load::mapping;

/// Its files are read anew for each connection: whoever holds on to it lives through a rotation.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
#[group(requires = "ca")]
pub struct Tls {
    /// Speaks TLS with brokers that show a certificate of these authorities, a PEM file
    #[arg(long = "tls-ca", value_name = "FILE", required = false)]
    pub ca: PathBuf,
    /// Shows this certificate
    #[arg(long = "tls-cert", value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its key
    #[arg(long = "tls-key", value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// The name in the certificate of the broker at an address, where it is not the host
    #[arg(long = "tls-name", value_name = "HOST:PORT=NAME", value_parser = mapping)]
    pub names: Vec<(String, String)>,
}

impl Tls {
    /// Believes these authorities and shows nothing.
    pub fn new(ca: impl Into<PathBuf>) -> Self {
        Self { ca: ca.into(), cert: None, key: None, names: Vec::new() }
    }

    async fn over(&self, address: &str, stream: TcpStream) -> Result<TlsStream<TcpStream>> {
        let (host, _) = address.rsplit_once(':').context("not host:port")?;
        let name = self.names.iter().find(|(at, _)| at == address).map_or(host, |(_, name)| name);
        let name = ServerName::try_from(name.to_owned())?;
        let connector = connector(&self.ca, self.cert.as_deref().zip(self.key.as_deref()))?;
        Ok(connector.connect(name, stream).await?)
    }
}

/// A connection, encrypted or not.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Unpin + Send + Sync {
    /// What it goes over.
    fn tcp(&self) -> &TcpStream;
}

impl Socket for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Socket for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// Connects to `host:port`.
pub(crate) async fn dial(address: &str, tls: Option<&Tls>) -> Result<Box<dyn Socket>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(match tls {
        Some(tls) => Box::new(tls.over(address, stream).await.with_context(|| format!("TLS with {address}"))?),
        None => Box::new(stream),
    })
}
