//! Two tiny HTTP servers: one for probes, one for metrics, so that a network policy can tell them apart.

use std::convert::Infallible;
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::health::Health;
use super::metrics::{self, Metrics};
use super::shutdown::Stop;

/// More than any kubelet and Prometheus open; a scanner cannot use up the file descriptors that the API client needs.
const CONNECTIONS: usize = 64;

/// A client that says nothing gives its place away.
const HEADERS_WITHIN: Duration = Duration::from_secs(5);

type Answer = Response<Full<Bytes>>;

/// Opens the socket, so that a port in use is an error at the start.
pub async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(addr)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {addr}: {error}")))
}

/// Serves `/healthz` (also `/livez`) and `/readyz` until asked to stop.
pub async fn serve_health(listener: TcpListener, health: Health, stop: Stop) {
    serve(listener, stop, move |path| match path {
        "/healthz" | "/livez" => Some(liveness(&health)),
        "/readyz" if health.is_ready() => Some(text(StatusCode::OK, "ok\n")),
        "/readyz" => {
            Some(text(StatusCode::SERVICE_UNAVAILABLE, "waiting for the custom resource definitions and the caches\n"))
        }
        _ => None,
    })
    .await;
}

/// Serves `/metrics` until asked to stop.
pub async fn serve_metrics(listener: TcpListener, metrics: Metrics, stop: Stop) {
    serve(listener, stop, move |path| match path {
        "/metrics" => Some(match metrics.encode() {
            Ok(body) => answer(StatusCode::OK, metrics::CONTENT_TYPE, body),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be encoded\n"),
        }),
        _ => None,
    })
    .await;
}

fn liveness(health: &Health) -> Answer {
    let stuck = health.stuck();
    if stuck.is_empty() {
        return text(StatusCode::OK, "ok\n");
    }
    let lines = stuck.into_iter().fold(String::new(), |mut lines, (name, silence)| {
        let _ = writeln!(lines, "{name}: no sign of life for {} s", silence.as_secs());
        lines
    });
    text(StatusCode::SERVICE_UNAVAILABLE, lines)
}

async fn serve(listener: TcpListener, stop: Stop, route: impl Fn(&str) -> Option<Answer> + Send + Sync + 'static) {
    let (route, places) = (Arc::new(route), Arc::new(Semaphore::new(CONNECTIONS)));
    let accept = async {
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, or a client that left in between: neither is a reason to end.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let route = route.clone();
            tokio::spawn(async move {
                converse(stream, &*route).await;
                drop(place);
            });
        }
    };
    tokio::select! {
        () = accept => {}
        () = stop.requested() => {}
    }
}

async fn converse(stream: TcpStream, route: &(impl Fn(&str) -> Option<Answer> + Sync)) {
    let service = service_fn(async |request: Request<Incoming>| Ok::<_, Infallible>(respond(&request, route)));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
}

fn respond<B>(request: &Request<B>, route: &impl Fn(&str) -> Option<Answer>) -> Answer {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    route(request.uri().path()).unwrap_or_else(|| text(StatusCode::NOT_FOUND, "not found\n"))
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    answer(status, "text/plain; charset=utf-8", body)
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
