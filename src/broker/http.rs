//! The HTTP API: health and version, which are public, and what concerns the brokers as one cluster, by token.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::access::{Access, BrokerAddress};
use super::error::Error;
use super::token::Token;
use super::worker::WorkerHealth;

/// How long a call may take, with connecting.
pub(super) const LIMIT: Duration = Duration::from_secs(2);
/// How large an answer may be, in bytes.
///
/// A listing of 10 000 topics has about 2 MiB.
const BODY_LIMIT: usize = 16 * 1024 * 1024;

/// What `/health` says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Health {
    /// It answered 200.
    pub(super) ok: bool,
    /// The node id.
    pub(super) node_id: String,
    /// It is the controller's leader.
    pub(super) leader: bool,
}

#[derive(Deserialize)]
struct HealthBody {
    status: String,
    node_id_str: String,
    is_leader: bool,
}

/// `GET /health`. With the dashboard on, any unknown path answers 200 with HTML (observed on 0.0.22): only the JSON of
/// the real route counts.
pub(super) async fn health(access: &Access, address: &BrokerAddress) -> Result<Health, Error> {
    let (status, body) = get(access, address, "/health").await?;
    parse_health(status, &body)
}

fn parse_health(status: u16, body: &[u8]) -> Result<Health, Error> {
    let body: HealthBody =
        serde_json::from_slice(body).map_err(|error| Error::Protocol(format!("/health: {error}")))?;
    Ok(Health { ok: status == 200 && body.status == "healthy", node_id: body.node_id_str, leader: body.is_leader })
}

/// What a worker's `/health` says of its connectors. It answers 503 for ever (observed on 0.0.22): only the body counts.
pub(super) async fn worker_health(access: &Access, address: &BrokerAddress) -> Result<WorkerHealth, Error> {
    let (_, body) = get(access, address, "/health").await?;
    serde_json::from_slice(&body).map_err(|error| Error::Protocol(format!("/health of a worker: {error}")))
}

/// The version that `/metrics` reports in `rivven_info`.
pub(super) async fn version(access: &Access, address: &BrokerAddress) -> Result<String, Error> {
    let (status, body) = get(access, address, "/metrics").await?;
    if status != 200 {
        return Err(Error::Protocol(format!("/metrics answered {status}")));
    }
    parse_version(&String::from_utf8_lossy(&body))
        .ok_or_else(|| Error::Protocol("/metrics has no rivven_info with a version".to_owned()))
}

fn parse_version(metrics: &str) -> Option<String> {
    let line = metrics.lines().find(|line| line.starts_with("rivven_info{"))?;
    let (_, rest) = line.split_once("{version=\"").or_else(|| line.split_once(",version=\""))?;
    let (version, _) = rest.split_once('"')?;
    (!version.is_empty()).then(|| version.to_owned())
}

/// A topic as the dashboard shows it. Its `replication_factor` there is a setting and no fact (observed on 0.0.22).
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Shown {
    pub(super) name: String,
    pub(super) partitions: u32,
    pub(super) message_count: u64,
}

#[derive(Deserialize)]
struct DashboardBody {
    topics: Vec<Shown>,
}

/// All topics, from the data of the dashboard: the only answer of the released broker that tells of more than one.
/// `None`: there is no dashboard, and the path is unknown, or any path answers with the page.
pub(super) async fn dashboard(
    access: &Access,
    address: &BrokerAddress,
    token: &Token,
) -> Result<Option<Vec<Shown>>, Error> {
    let path = "/dashboard/data";
    let (status, body) = call(access, address, Method::GET, path, Some(token), Bytes::new()).await?;
    if status == StatusCode::NOT_FOUND.as_u16() {
        return Ok(None);
    }
    succeeded(path, status, &body)?;
    Ok(serde_json::from_slice::<DashboardBody>(&body).ok().map(|body| body.topics))
}

/// A first member of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Its node id.
    pub node_id: String,
    /// Where the others reach its HTTP API, as a URL.
    pub addr: String,
}

/// A member as a broker tells of it. Its id there is a hash; the address says who it is.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Node {
    pub(super) addr: String,
    pub(super) is_voter: bool,
}

#[derive(Deserialize)]
struct MembershipBody {
    nodes: Vec<Node>,
}

/// The members that the broker knows of. Empty: it was never told.
pub(super) async fn membership(access: &Access, address: &BrokerAddress, token: &Token) -> Result<Vec<Node>, Error> {
    let (status, body) = call(access, address, Method::GET, "/membership", Some(token), Bytes::new()).await?;
    succeeded("/membership", status, &body)?;
    let body: MembershipBody =
        serde_json::from_slice(&body).map_err(|error| Error::Protocol(format!("/membership: {error}")))?;
    Ok(body.nodes)
}

#[derive(Deserialize)]
struct ReadBody {
    consistency: String,
}

/// Whether the controller's leader can read its metadata linearizably: more than half of the voters still follow it. A
/// leader that lost them goes on saying that it is well (observed). Only its own "no" is one: taken for down, it would be
/// restarted without handing over.
pub(super) async fn reads_linearizably(access: &Access, address: &BrokerAddress, token: &Token) -> Result<bool, Error> {
    let path = "/api/v1/metadata/linearizable";
    let (status, body) = call(access, address, Method::GET, path, Some(token), Bytes::new()).await?;
    if status == StatusCode::SERVICE_UNAVAILABLE.as_u16() {
        return Ok(false);
    }
    succeeded(path, status, &body)?;
    let body: ReadBody = serde_json::from_slice(&body).map_err(|error| Error::Protocol(format!("{path}: {error}")))?;
    Ok(body.consistency == "linearizable")
}

/// Tells the broker who the first members are.
pub(super) async fn bootstrap(
    access: &Access,
    address: &BrokerAddress,
    token: &Token,
    members: &[Member],
) -> Result<(), Error> {
    let body = Bytes::from(json!({ "members": members }).to_string());
    let (status, body) = call(access, address, Method::POST, "/api/v1/bootstrap", Some(token), body).await?;
    succeeded("/api/v1/bootstrap", status, &body)
}

/// Tells the controller's leader of a node that is to learn what the others know. It answers when that node has caught
/// up, which may take longer than a call may.
pub(super) async fn add_learner(
    access: &Access,
    address: &BrokerAddress,
    token: &Token,
    member: &Member,
) -> Result<(), Error> {
    post(access, address, token, "/api/v1/add-learner", &json!(member)).await
}

/// Tells the controller's leader who the voters are.
pub(super) async fn change_membership(
    access: &Access,
    address: &BrokerAddress,
    token: &Token,
    voters: &[String],
) -> Result<(), Error> {
    post(access, address, token, "/api/v1/change-membership", &json!({ "voters": voters })).await
}

/// How long a hand-over of the controller may take: its leader keeps still for an election's length first.
const HANDOVER_LIMIT: Duration = Duration::from_secs(10);

/// Asks the controller's leader to hand over to another broker.
pub(super) async fn transfer_leadership(
    access: &Access,
    address: &BrokerAddress,
    token: &Token,
    to: &str,
) -> Result<(), Error> {
    let body = json!({ "target_node_id": to });
    post_within(HANDOVER_LIMIT, access, address, token, "/api/v1/transfer-leadership", &body).await
}

async fn post(access: &Access, address: &BrokerAddress, token: &Token, path: &str, body: &Value) -> Result<(), Error> {
    post_within(LIMIT, access, address, token, path, body).await
}

async fn post_within(
    limit: Duration,
    access: &Access,
    address: &BrokerAddress,
    token: &Token,
    path: &str,
    body: &Value,
) -> Result<(), Error> {
    let body = Bytes::from(body.to_string());
    let (status, body) = call_within(limit, access, address, Method::POST, path, Some(token), body).await?;
    succeeded(path, status, &body)
}

#[derive(Deserialize)]
struct ProposalBody {
    success: bool,
    response: Option<Value>,
    error: Option<String>,
}

/// Proposes a change of the metadata. An answer of 200 may carry a refusal (observed).
pub(super) async fn propose(
    access: &Access,
    address: &BrokerAddress,
    token: &Token,
    command: &Value,
) -> Result<(), Error> {
    let path = "/api/v1/propose";
    let body = Bytes::from(json!({ "command": command }).to_string());
    let (status, body) = call(access, address, Method::POST, path, Some(token), body).await?;
    succeeded(path, status, &body)?;
    parse_proposal(&body)
}

fn parse_proposal(body: &[u8]) -> Result<(), Error> {
    let body: ProposalBody =
        serde_json::from_slice(body).map_err(|error| Error::Protocol(format!("/api/v1/propose: {error}")))?;
    let refusal = body.response.as_ref().and_then(|response| response.get("Error")).map(|error| {
        let message = error.get("message").unwrap_or(error);
        message.as_str().map_or_else(|| message.to_string(), str::to_owned)
    });
    match refusal.or(body.error) {
        Some(words) => Err(Error::refused(words)),
        None if body.success => Ok(()),
        None => Err(Error::Protocol("/api/v1/propose: neither success nor error".to_owned())),
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    error: String,
}

fn succeeded(path: &str, status: u16, body: &[u8]) -> Result<(), Error> {
    if status == 200 {
        return Ok(());
    }
    if status == StatusCode::UNAUTHORIZED.as_u16() {
        return Err(Error::refused(format!("AUTHORIZATION_FAILED: {path} does not take the cluster's token")));
    }
    let words =
        serde_json::from_slice::<ErrorBody>(body).map_or_else(|_| format!("{path} answered {status}"), |b| b.error);
    Err(Error::refused(words))
}

async fn get(access: &Access, address: &BrokerAddress, path: &str) -> Result<(u16, Bytes), Error> {
    call(access, address, Method::GET, path, None, Bytes::new()).await
}

fn call(
    access: &Access,
    address: &BrokerAddress,
    method: Method,
    path: &str,
    token: Option<&Token>,
    body: Bytes,
) -> impl Future<Output = Result<(u16, Bytes), Error>> {
    call_within(LIMIT, access, address, method, path, token, body)
}

async fn call_within(
    limit: Duration,
    access: &Access,
    address: &BrokerAddress,
    method: Method,
    path: &str,
    token: Option<&Token>,
    body: Bytes,
) -> Result<(u16, Bytes), Error> {
    let mut request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header(hyper::header::HOST, &address.host)
        .header(hyper::header::CONTENT_TYPE, "application/json")
        .header(hyper::header::CONNECTION, "close");
    if let Some(token) = token {
        request = request.header(hyper::header::AUTHORIZATION, token.bearer());
    }
    let request = request.body(Full::new(body)).map_err(|error| Error::Protocol(error.to_string()))?;
    tokio::time::timeout(limit, exchange(access, address, request)).await.map_err(|_| Error::Timeout(limit))?
}

async fn exchange(
    access: &Access,
    address: &BrokerAddress,
    request: hyper::Request<Full<Bytes>>,
) -> Result<(u16, Bytes), Error> {
    let stream = access.open(address, address.api_port).await?;
    let protocol = |error: hyper::Error| Error::Unreachable(error.to_string());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(protocol)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(protocol)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), BODY_LIMIT)
            .collect()
            .await
            .map_err(|error| Error::Protocol(error.to_string()))?;
        Ok::<_, Error>((status, body.to_bytes()))
    };
    // The connection is driven here and not in a task of its own, so that nothing outlives the call.
    tokio::pin!(answer);
    tokio::pin!(connection);
    tokio::select! {
        answer = &mut answer => answer,
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(protocol(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_json_of_the_real_route_is_health() {
        let body = br#"{"status":"healthy","node_id":1,"node_id_str":"rivven-x-0","is_leader":true,"leader_id":1,"cluster_mode":false}"#;
        assert_eq!(parse_health(200, body), Ok(Health { ok: true, node_id: "rivven-x-0".to_owned(), leader: true }));
        assert!(!parse_health(503, body).unwrap().ok);
        for wrong in [&b"<html></html>"[..], b"", b"{}", b"{\"node_id_str\":1}"] {
            assert!(parse_health(200, wrong).is_err());
        }
    }

    #[test]
    fn a_refusal_within_a_success_is_a_refusal() {
        let refused = br#"{"success":true,"response":{"Error":{"message":"Topic 'orders' already exists"}},"error":null,"redirect_to":null}"#;
        assert!(parse_proposal(refused).unwrap_err().is_already_exists());
        let created = br#"{"success":true,"response":{"TopicCreated":{"name":"orders","partitions":3}},"error":null}"#;
        assert_eq!(parse_proposal(created), Ok(()));
        for wrong in [&b"{}"[..], br#"{"success":false}"#, br#"{"success":false,"error":"no quorum"}"#] {
            assert!(parse_proposal(wrong).is_err());
        }
    }

    #[test]
    fn the_version_is_read_from_the_metrics() {
        let metrics = "# TYPE rivven_info gauge\nrivven_info{version=\"0.0.22\",node_id_str=\"a\"} 1\n";
        assert_eq!(parse_version(metrics).as_deref(), Some("0.0.22"));
        assert_eq!(parse_version("rivven_info{} 1"), None);
        assert_eq!(parse_version(""), None);
    }
}
