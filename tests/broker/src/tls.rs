//! TLS, by the released broker's configuration: PEM files that are read once, at the start.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::Config;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A connection, encrypted or not.
pub(crate) type Stream = Box<dyn Duplex>;

/// What a connection can do.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// How a broker speaks TLS on each of its ports, and to the others.
pub(crate) struct Tls {
    pub(crate) clients: TlsAcceptor,
    pub(crate) cluster: TlsAcceptor,
    pub(crate) api: TlsAcceptor,
    pub(crate) peers: TlsConnector,
}

impl Tls {
    /// Reads the certificates, if TLS is asked for.
    pub(crate) fn read(config: &Config) -> anyhow::Result<Option<Self>> {
        if !config.tls_enabled {
            return Ok(None);
        }
        let certificate = config.tls_cert.as_deref().context("TLS is enabled, but there is no RIVVEN_TLS_CERT")?;
        let key = config.tls_key.as_deref().context("TLS is enabled, but there is no RIVVEN_TLS_KEY")?;
        let ca = config.tls_ca.as_deref();
        ensure!(ca.is_some() || !config.tls_verify_client, "RIVVEN_TLS_VERIFY_CLIENT needs RIVVEN_TLS_CA");
        let accept = |asked| Ok::<_, anyhow::Error>(TlsAcceptor::from(Arc::new(server(certificate, key, asked)?)));
        let trusted = ca.unwrap_or(certificate);
        Ok(Some(Self {
            clients: accept(ca.map(|ca| (ca, config.tls_verify_client)))?,
            cluster: accept(Some((trusted, true)))?,
            // Never asks: a kubelet has no certificate to show.
            api: accept(None)?,
            peers: connector(trusted, Some((certificate, key)))?,
        }))
    }
}

/// What a server shows, whose clients it believes, and whether they must show a certificate.
fn server(certificate: &Path, key: &Path, asked: Option<(&Path, bool)>) -> anyhow::Result<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match asked {
        Some((ca, must)) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider());
            let verifier = if must { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build()?)
        }
        None => builder.with_no_client_auth(),
    };
    let served = builder.with_single_cert(chain(certificate)?, private(key)?);
    served.with_context(|| format!("{} with {} cannot be served", certificate.display(), key.display()))
}

/// A client that believes who shows a certificate of these authorities, and shows its own if it has one.
///
/// # Errors
/// What cannot be read.
pub fn connector(ca: &Path, identity: Option<(&Path, &Path)>) -> anyhow::Result<TlsConnector> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(roots(ca)?);
    let config = match identity {
        Some((certificate, key)) => {
            let shown = builder.with_client_auth_cert(chain(certificate)?, private(key)?);
            shown.with_context(|| format!("{} with {} cannot be shown", certificate.display(), key.display()))?
        }
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config).into())
}

/// Named each time: whether a process has a default depends on what else is linked into it.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn chain(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = read.with_context(|| format!("cannot read certificates from {}", path.display()))?;
    ensure!(!chain.is_empty(), "no certificate in {}", path.display());
    Ok(chain)
}

fn private(path: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).with_context(|| format!("cannot read a key from {}", path.display()))
}

fn roots(path: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(path)? {
        roots.add(certificate).with_context(|| format!("not an authority in {}", path.display()))?;
    }
    Ok(roots)
}

/// Takes a connection, with a handshake where TLS is spoken.
pub(crate) async fn accept(tls: Option<&TlsAcceptor>, stream: TcpStream) -> anyhow::Result<Stream> {
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    Ok(Box::new(timeout(HANDSHAKE, tls.accept(stream)).await.context("the handshake takes too long")??))
}
