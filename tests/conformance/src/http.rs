//! The HTTP API of a broker.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::time::timeout;

use crate::tls::{Tls, dial};

/// How long one exchange may take. Adding a learner waits until it has caught up.
const LIMIT: Duration = Duration::from_secs(20);

/// A broker's HTTP API, and the token that opens it.
#[derive(Clone, Debug)]
pub struct Api {
    address: String,
    token: Option<String>,
    tls: Option<Tls>,
}

/// Status and body.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body as text.
    pub text: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.text).with_context(|| format!("not JSON: {} {}", self.status, self.text))
    }

    /// The body as JSON, if the status is what it must be.
    pub fn with(&self, status: u16) -> Result<Value> {
        if self.status != status {
            bail!("answered {} and not {status}: {}", self.status, self.text);
        }
        self.json()
    }
}

impl Api {
    /// The API at `host:port`.
    pub fn new(address: impl Into<String>, token: Option<&str>) -> Self {
        Self { address: address.into(), token: token.map(str::to_owned), tls: None }
    }

    /// The same API with another token or none.
    #[must_use]
    pub fn with_token(&self, token: Option<&str>) -> Self {
        Self { token: token.map(str::to_owned), ..self.clone() }
    }

    /// The same API over TLS or not.
    #[must_use]
    pub fn with_tls(&self, tls: Option<Tls>) -> Self {
        Self { tls, ..self.clone() }
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.send(Method::GET, path, None).await
    }

    /// POST of JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.send(Method::POST, path, Some(body)).await
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        let what = format!("{method} {path}");
        timeout(LIMIT, self.exchange(method, path, body))
            .await
            .with_context(|| format!("{what}: no answer within {LIMIT:?}"))?
            .with_context(|| what)
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        let stream = dial(&self.address, self.tls.as_ref()).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", &self.address);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request.header("content-type", "application/json").body(Full::new(Bytes::from(body)))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        driver.abort();
        Ok(Answer { status, text: String::from_utf8_lossy(&body).into_owned() })
    }
}
