//! HTTP, both ways: the server of the admin API and the calls that brokers make to one another.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use crate::tls::Stream;

/// Where an advertised name is.
pub type Resolver = Arc<dyn Fn(&str, u16) -> SocketAddr + Send + Sync>;

/// The largest body that is read.
const BODY_LIMIT: usize = 256 * 1024 * 1024;

/// How names become sockets.
#[derive(Clone)]
pub(crate) enum Names {
    /// By a test's table.
    Mapped(Resolver),
    /// By DNS.
    Dns,
}

impl Names {
    async fn connect(&self, host: &str, port: u16) -> anyhow::Result<TcpStream> {
        let stream = match self {
            Self::Mapped(resolver) => TcpStream::connect(resolver(host, port)).await?,
            Self::Dns => TcpStream::connect((host, port)).await?,
        };
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Why a call failed, as far as the caller must tell.
#[derive(Debug)]
pub(crate) enum CallError {
    /// It did not happen.
    NotSent(anyhow::Error),
    /// The broker answered, but not with 200.
    Refused(StatusCode, String),
    /// It may have happened.
    Unknown(anyhow::Error),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(error) => write!(f, "not sent: {error:#}"),
            Self::Refused(status, body) => write!(f, "answered {status}: {body}"),
            Self::Unknown(error) => write!(f, "no answer: {error:#}"),
        }
    }
}

impl std::error::Error for CallError {}

/// Calls to other brokers. Connections are kept: on a paused clock a cluster sends heartbeats faster than the kernel
/// forgets closed ports.
pub(crate) struct Caller {
    names: Names,
    token: Option<String>,
    tls: Option<TlsConnector>,
    idle: Mutex<HashMap<String, Vec<SendRequest<Full<Bytes>>>>>,
    dead: AtomicBool,
}

impl Caller {
    pub(crate) fn new(names: Names, token: Option<String>, tls: Option<TlsConnector>) -> Self {
        Self { names, token, tls, idle: Mutex::default(), dead: AtomicBool::new(false) }
    }

    /// Opens a connection to the cluster port of a broker, which speaks TLS where this one does.
    pub(crate) async fn follow(&self, address: &str) -> anyhow::Result<Stream> {
        self.connect(address, self.tls.is_some()).await
    }

    async fn connect(&self, address: &str, secure: bool) -> anyhow::Result<Stream> {
        let (host, port) = address.rsplit_once(':').with_context(|| format!("{address} is not host:port"))?;
        let port = port.parse().with_context(|| format!("{address} is not host:port"))?;
        let stream = self.names.connect(host, port).await?;
        if !secure {
            return Ok(Box::new(stream));
        }
        let tls = self.tls.as_ref().context("this broker speaks no TLS")?;
        let name = ServerName::try_from(host.to_owned())?;
        Ok(Box::new(tls.connect(name, stream).await.with_context(|| format!("TLS to {address}"))?))
    }

    /// From now on nothing leaves: the process is as good as killed.
    pub(crate) fn kill(&self) {
        self.dead.store(true, Ordering::SeqCst);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Posts JSON to the API of the broker at a base URL and reads the JSON of the answer.
    pub(crate) async fn post<Q: Serialize, A: DeserializeOwned>(
        &self,
        base: &str,
        path: &str,
        body: &Q,
        limit: Duration,
    ) -> Result<A, CallError> {
        let until = Instant::now() + limit;
        let base = base.trim_end_matches('/');
        let authority = authority(base);
        let prepared = async { Ok((self.request(authority, path, body)?, self.sender(base).await?)) };
        let (request, sender) = timeout_at(until, prepared)
            .await
            .map_err(|_| CallError::NotSent(anyhow!("cannot connect to {authority} in {limit:?}")))?
            .map_err(CallError::NotSent)?;
        let (status, bytes) = timeout_at(until, self.exchange(base, sender, request))
            .await
            .map_err(|_| CallError::Unknown(anyhow!("{authority} did not answer in {limit:?}")))?
            .map_err(CallError::Unknown)?;
        if status != StatusCode::OK {
            return Err(CallError::Refused(status, String::from_utf8_lossy(&bytes).into_owned()));
        }
        serde_json::from_slice(&bytes).map_err(|error| CallError::Unknown(error.into()))
    }

    fn request<Q: Serialize>(&self, authority: &str, path: &str, body: &Q) -> anyhow::Result<Request<Full<Bytes>>> {
        ensure!(!self.dead.load(Ordering::SeqCst), "this broker is dead");
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, authority)
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        Ok(request.body(Full::from(serde_json::to_vec(body)?))?)
    }

    async fn sender(&self, base: &str) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        while let Some(mut sender) = self.take(base) {
            if sender.ready().await.is_ok() {
                return Ok(sender);
            }
        }
        let mut sender = self.open(base).await?;
        sender.ready().await?;
        Ok(sender)
    }

    async fn exchange(
        &self,
        base: &str,
        mut sender: SendRequest<Full<Bytes>>,
        request: Request<Full<Bytes>>,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), BODY_LIMIT).collect().await.map_err(|error| anyhow!(error))?;
        if !self.dead.load(Ordering::SeqCst) {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.entry(base.to_owned()).or_default().push(sender);
        }
        Ok((status, body.to_bytes()))
    }

    fn take(&self, base: &str) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let senders = idle.get_mut(base)?;
        senders.retain(|sender| !sender.is_closed());
        senders.pop()
    }

    async fn open(&self, base: &str) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let stream = self.connect(authority(base), base.starts_with("https://")).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends by itself when the sender is dropped.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}

/// `host:port` of a base URL.
fn authority(base: &str) -> &str {
    base.split_once("://").map_or(base, |(_, authority)| authority)
}

/// An answer with JSON.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response<Full<Bytes>> {
    let bytes = serde_json::to_vec(body).unwrap_or_default();
    answer(status, "application/json", bytes)
}

/// An answer.
pub(crate) fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

/// The body of a request.
pub(crate) async fn body(incoming: Incoming) -> anyhow::Result<Bytes> {
    let body = Limited::new(incoming, BODY_LIMIT).collect().await.map_err(|error| anyhow!(error))?;
    Ok(body.to_bytes())
}

/// Whether two secrets are equal, in a time that does not depend on where they differ.
pub(crate) fn same_secret(left: &[u8], right: &[u8]) -> bool {
    let differ = left.iter().zip(right).fold(0, |differ, (left, right)| differ | (left ^ right));
    left.len() == right.len() && std::hint::black_box(differ) == 0
}
