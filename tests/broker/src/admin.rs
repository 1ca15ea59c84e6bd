//! The HTTP API: health, metrics, and the cluster's administration, in the released broker's JSON shapes.
#![allow(clippy::result_large_err, reason = "an answer in place of the answer is not an error to carry around")]

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::AUTHORIZATION;
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use openraft::BasicNode;
use openraft::error::{ClientWriteError, RaftError};
use openraft::raft::AppendEntriesRequest;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::broker::Core;
use crate::config::Mode;
use crate::faults::{Fate, Order};
use crate::http::{self, answer, json as reply};
use crate::membership::Heartbeat;
use crate::metadata::{NodeId, Proposal, ProposalAnswer, SnapshotRequest, Types, raft_id};
use crate::tls::Stream;

type Answer = Response<Full<Bytes>>;

/// Serves one connection.
pub(crate) async fn connection(core: Arc<Core>, stream: Stream) {
    let mut stopping = core.stopping.clone();
    let service = service_fn(move |request| {
        let core = Arc::clone(&core);
        async move { served(&core, request).await }
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
    connection.as_mut().graceful_shutdown();
    drop(connection.await);
}

/// Answers, unless a fault was asked for.
async fn served(core: &Core, request: Request<Incoming>) -> io::Result<Answer> {
    let (head, body) = request.into_parts();
    let body = match http::body(body).await {
        Ok(body) => body,
        Err(error) => return Ok(failure(StatusCode::BAD_REQUEST, error)),
    };
    let path = head.uri.path();
    let fate = core.faults.fate(|name| name == path || path == "/api/v1/propose" && proposes(&body, name));
    if fate == Some(Fate::Refused) {
        return Ok(failure(StatusCode::SERVICE_UNAVAILABLE, "refused on demand"));
    }
    let answer = route(core, &head, &body).await;
    if fate == Some(Fate::ReplyLost) {
        return Err(io::Error::other("the reply is lost on demand"));
    }
    Ok(answer)
}

/// Whether a proposal is a command of this name.
fn proposes(body: &Bytes, name: &str) -> bool {
    let proposal: Value = serde_json::from_slice(body).unwrap_or_default();
    let command = &proposal["command"];
    command == name || command.get(name).is_some()
}

async fn route(core: &Core, head: &Parts, body: &Bytes) -> Answer {
    let (method, path) = (&head.method, head.uri.path());
    if let (&Method::GET, Some(answer)) = (method, public(core, path)) {
        return answer;
    }
    if let Err(refusal) = authorized(core, head) {
        return answer(StatusCode::UNAUTHORIZED, "text/plain", refusal);
    }
    if let (true, Err(error)) = (writes(path), core.faults.room()) {
        return failure(StatusCode::INTERNAL_SERVER_ERROR, format!("I/O error: {error}"));
    }
    let done = match (method.as_str(), path) {
        ("GET", "/membership") => Ok(membership(core)),
        ("GET", "/api/v1/metadata") => Ok(metadata(core, "eventual")),
        ("GET", "/api/v1/metadata/linearizable") => Ok(linearizable(core).await),
        ("POST", "/api/v1/bootstrap") => bootstrap(core, body).await,
        ("POST", "/api/v1/add-learner") => add_learner(core, body).await,
        ("POST", "/api/v1/change-membership") => change_membership(core, body).await,
        ("POST", "/api/v1/transfer-leadership") => transfer_leadership(core, body).await,
        ("POST", "/api/v1/trigger-election") => Ok(trigger_election(core).await),
        ("POST", "/api/v1/propose") => propose(core, body).await,
        ("POST", "/raft/heartbeat") => heartbeat(core, body),
        ("POST", "/raft/append") => append(core, body).await,
        ("POST", "/raft/vote") => vote(core, body).await,
        ("POST", "/raft/snapshot") => snapshot(core, body).await,
        ("POST", "/test/faults") if core.config.test_faults => faults(core, body),
        _ => Ok(answer(StatusCode::NOT_FOUND, "text/plain", "Not found")),
    };
    done.unwrap_or_else(|refusal| refusal)
}

/// What makes Raft write more than a vote.
fn writes(path: &str) -> bool {
    let changes = ["bootstrap", "add-learner", "change-membership", "propose"];
    path == "/raft/snapshot" || path.strip_prefix("/api/v1/").is_some_and(|change| changes.contains(&change))
}

fn authorized(core: &Core, head: &Parts) -> Result<(), &'static str> {
    let given = head.headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let given = given.ok_or("Missing Authorization: Bearer <token>")?;
    let token = core.config.cluster_auth_token.as_deref().unwrap_or_default();
    http::same_secret(given, token.as_bytes()).then_some(()).ok_or("Invalid cluster token")
}

/// What is answered without a token.
fn public(core: &Core, path: &str) -> Option<Answer> {
    match path {
        "/health" => Some(health(core)),
        "/health/live" | "/health/startup" => Some(reply(StatusCode::OK, &json!({ "status": "healthy" }))),
        "/health/ready" => Some(ready(core)),
        "/metrics" => Some(answer(StatusCode::OK, "text/plain; version=0.0.4", metrics(core))),
        _ => None,
    }
}

fn health(core: &Core) -> Answer {
    let leader_id = core.metadata.metrics().current_leader;
    let (answered, word) = match leader_id {
        Some(_) => (StatusCode::OK, "healthy"),
        None => (StatusCode::SERVICE_UNAVAILABLE, "degraded"),
    };
    let body = json!({
        "status": word,
        "node_id": core.metadata.id,
        "node_id_str": core.config.node_id,
        "is_leader": core.metadata.leads(),
        "leader_id": leader_id,
        // As released: true on a follower that knows its leader, and nowhere else.
        "cluster_mode": leader_id.is_some_and(|leader| leader != core.metadata.id),
    });
    reply(answered, &body)
}

/// Ready is a voter that knows the leader and has applied everything from before its own start.
fn ready(core: &Core) -> Answer {
    let metrics = core.metadata.metrics();
    let voter = metrics.membership_config.voter_ids().any(|voter| voter == core.metadata.id);
    if voter && metrics.current_leader.is_some() && core.registered() {
        reply(StatusCode::OK, &json!({ "status": "healthy" }))
    } else {
        reply(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "degraded" }))
    }
}

fn metrics(core: &Core) -> String {
    let metrics = core.metadata.metrics();
    let membership = metrics.membership_config.membership();
    let (version, node) = (&core.config.version, &core.config.node_id);
    let mut text = format!("rivven_info{{version=\"{version}\",node_id_str=\"{node}\"}} 1\n");
    let gauges = [
        ("node_id", core.metadata.id),
        ("is_leader", u64::from(core.metadata.leads())),
        ("current_term", metrics.current_term),
        ("last_log_index", metrics.last_log_index.unwrap_or_default()),
        ("applied_index", metrics.last_applied.map_or(0, |id| id.index)),
        ("cluster_voters", membership.voter_ids().count() as u64),
        ("cluster_learners", membership.learner_ids().count() as u64),
    ];
    for (name, value) in gauges {
        let _ = writeln!(text, "# TYPE rivven_raft_{name} gauge\nrivven_raft_{name} {value}");
    }
    text
}

fn failure(code: StatusCode, error: impl Display) -> Answer {
    reply(code, &json!({ "error": error.to_string(), "code": code.as_u16() }))
}

/// As the released broker has it: a redirection that does not say where to.
fn not_leader() -> Answer {
    failure(StatusCode::TEMPORARY_REDIRECT, "Not leader")
}

fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Answer> {
    serde_json::from_slice(body).map_err(|error| failure(StatusCode::UNPROCESSABLE_ENTITY, error))
}

fn membership(core: &Core) -> Answer {
    let metrics = core.metadata.metrics();
    let membership = metrics.membership_config.membership();
    let voters: Vec<NodeId> = membership.voter_ids().collect();
    let nodes: Vec<Value> = membership
        .nodes()
        .map(|(id, node)| json!({ "id": id, "addr": node.addr, "is_voter": voters.contains(id) }))
        .collect();
    reply(StatusCode::OK, &json!({ "nodes": nodes }))
}

fn metadata(core: &Core, consistency: &str) -> Answer {
    let now = core.metadata.now();
    let body = json!({
        "topics": now.topics.keys().collect::<Vec<_>>(),
        "topic_count": now.topics.len(),
        "node_count": now.nodes.len(),
        "last_applied_index": now.last_applied_index,
        "consistency": consistency,
    });
    reply(StatusCode::OK, &body)
}

async fn linearizable(core: &Core) -> Answer {
    match core.metadata.raft.ensure_linearizable().await {
        Ok(_) => metadata(core, "linearizable"),
        Err(error) => failure(StatusCode::SERVICE_UNAVAILABLE, format!("Linearizable read failed: {error}")),
    }
}

#[derive(Deserialize)]
struct Member {
    node_id: String,
    addr: String,
}

#[derive(Deserialize)]
struct Bootstrap {
    members: Vec<Member>,
}

async fn bootstrap(core: &Core, body: &Bytes) -> Result<Answer, Answer> {
    let request: Bootstrap = read(body)?;
    let answered = |code, success, message: String, leader_id| {
        reply(code, &json!({ "success": success, "message": message, "leader_id": leader_id }))
    };
    let members: BTreeMap<NodeId, BasicNode> =
        request.members.iter().map(|member| (raft_id(&member.node_id), BasicNode::new(&member.addr))).collect();
    if members.len() != request.members.len() {
        return Ok(answered(StatusCode::BAD_REQUEST, false, "Node ID hash collision".to_owned(), None));
    }
    // Standalone there is nothing to do, and the released broker answers as if it were done.
    let done = match core.config.mode {
        Mode::Standalone => Ok(()),
        Mode::Cluster => core.metadata.bootstrap(members).await,
    };
    Ok(match done {
        Ok(()) => {
            let leader = core.metadata.metrics().current_leader;
            answered(StatusCode::OK, true, "Cluster bootstrapped successfully".to_owned(), leader)
        }
        Err(error) => answered(StatusCode::INTERNAL_SERVER_ERROR, false, format!("Bootstrap failed: {error}"), None),
    })
}

async fn add_learner(core: &Core, body: &Bytes) -> Result<Answer, Answer> {
    let member: Member = read(body)?;
    if !core.metadata.leads() {
        return Err(not_leader());
    }
    let id = raft_id(&member.node_id);
    Ok(match core.metadata.raft.add_learner(id, BasicNode::new(&member.addr), true).await {
        Ok(_) => {
            let body = json!({ "success": true, "message": "Learner added successfully", "node_id": id });
            reply(StatusCode::OK, &body)
        }
        Err(error) => failed("add learner", &error),
    })
}

#[derive(Deserialize)]
struct ChangeMembership {
    voters: Vec<String>,
}

async fn change_membership(core: &Core, body: &Bytes) -> Result<Answer, Answer> {
    let request: ChangeMembership = read(body)?;
    if !core.metadata.leads() {
        return Err(not_leader());
    }
    let voters: std::collections::BTreeSet<NodeId> = request.voters.iter().map(|voter| raft_id(voter)).collect();
    Ok(match core.metadata.raft.change_membership(voters, false).await {
        Ok(_) => reply(StatusCode::OK, &json!({ "success": true, "message": "Membership changed successfully" })),
        Err(error) => failed("change membership", &error),
    })
}

fn failed(what: &str, error: &RaftError<NodeId, ClientWriteError<NodeId, BasicNode>>) -> Answer {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => not_leader(),
        _ => failure(StatusCode::INTERNAL_SERVER_ERROR, format!("Failed to {what}: {error}")),
    }
}

#[derive(Deserialize)]
struct TransferLeadership {
    #[serde(default)]
    target_node_id: Option<String>,
}

/// The target holds an election while the leader keeps still: a voter that has just heard of a leader grants no vote.
async fn transfer_leadership(core: &Core, body: &Bytes) -> Result<Answer, Answer> {
    let request: TransferLeadership = read(body)?;
    let bad = |message: &str| Err(failure(StatusCode::BAD_REQUEST, message));
    if !core.metadata.leads() {
        return bad("Not the leader - cannot transfer leadership");
    }
    let metrics = core.metadata.metrics();
    let membership = metrics.membership_config.membership();
    let other = || membership.voter_ids().find(|voter| *voter != core.metadata.id);
    let Some(target) = request.target_node_id.map(|target| raft_id(&target)).or_else(other) else {
        let message = "No other nodes available for leadership transfer";
        return Err(failure(StatusCode::SERVICE_UNAVAILABLE, message));
    };
    if target == core.metadata.id {
        return bad("Cannot transfer leadership to self");
    }
    let Some(node) = membership.get_node(&target) else {
        return Err(failure(StatusCode::NOT_FOUND, format!("Target node {target} address unknown")));
    };
    let _still = Still::new(core);
    Ok(hand_over(core, target, &node.addr).await)
}

/// The leader sends no heartbeats while this lives, also when the caller goes away.
struct Still<'a>(&'a Core);

impl<'a> Still<'a> {
    fn new(core: &'a Core) -> Self {
        core.metadata.raft.runtime_config().heartbeat(false);
        Self(core)
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        self.0.metadata.raft.runtime_config().heartbeat(true);
    }
}

async fn hand_over(core: &Core, target: NodeId, addr: &str) -> Answer {
    let lease = Duration::from_millis(core.config.raft_election_max_ms);
    // Longer than the lease: what the voters heard last may have been on its way when the leader fell silent.
    tokio::time::sleep(lease + Duration::from_millis(core.config.raft_heartbeat_ms)).await;
    let told = core.caller.post::<_, Value>(addr, "/api/v1/trigger-election", &json!({}), lease).await;
    if let Err(error) = told {
        let message = format!("Cannot reach node {target} for election trigger: {error}");
        return failure(StatusCode::BAD_GATEWAY, message);
    }
    let mut metrics = core.metadata.raft.metrics();
    let deposed = metrics.wait_for(|metrics| metrics.current_leader != Some(core.metadata.id));
    // Whether it worked is told by `/health`, here as in the released broker.
    drop(tokio::time::timeout(lease, deposed).await);
    let body = json!({
        "success": true,
        "message": format!("Election triggered on node {target}"),
        "target_node_id": target,
        "note": "Check /health endpoint to see new leader",
    });
    reply(StatusCode::OK, &body)
}

async fn trigger_election(core: &Core) -> Answer {
    match core.metadata.raft.trigger().elect().await {
        Ok(()) => reply(StatusCode::OK, &json!({ "success": true, "message": "Election triggered on this node" })),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, format!("Election trigger failed: {error}")),
    }
}

async fn propose(core: &Core, body: &Bytes) -> Result<Answer, Answer> {
    let proposal: Proposal = read(body)?;
    // Raft itself refuses where it does not lead, and knows who does.
    let (status, response, error, redirect_to) = match core.metadata.propose_here(proposal.command).await {
        Ok(outcome) => (StatusCode::OK, Some(outcome), None, None),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(leader))) => {
            (StatusCode::TEMPORARY_REDIRECT, None, Some("Not leader".to_owned()), leader.leader_id)
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, None, Some(error.to_string()), None),
    };
    Ok(reply(status, &ProposalAnswer { success: status == StatusCode::OK, response, error, redirect_to }))
}

fn heartbeat(core: &Core, body: &Bytes) -> Result<Answer, Answer> {
    let heartbeat: Heartbeat = read(body)?;
    if !core.metadata.leads() {
        return Err(not_leader());
    }
    core.sessions.seen(&heartbeat.node_id);
    Ok(reply(StatusCode::OK, &json!({})))
}

/// A broker without room on its disk neither leads nor wants to: others would wait for what it cannot write.
fn faults(core: &Core, body: &Bytes) -> Result<Answer, Answer> {
    let order: Order = read(body)?;
    core.faults.order(order);
    let room = core.faults.room().is_ok();
    core.metadata.raft.runtime_config().heartbeat(room);
    core.metadata.raft.runtime_config().elect(room);
    Ok(reply(StatusCode::OK, &json!({ "success": true })))
}

async fn append(core: &Core, body: &Bytes) -> Result<Answer, Answer> {
    let request: AppendEntriesRequest<Types> = read(body)?;
    if let (false, Err(error)) = (request.entries.is_empty(), core.faults.room()) {
        return Err(failure(StatusCode::INTERNAL_SERVER_ERROR, format!("I/O error: {error}")));
    }
    rpc(core.metadata.raft.append_entries(request).await)
}

async fn vote(core: &Core, body: &Bytes) -> Result<Answer, Answer> {
    rpc(core.metadata.raft.vote(read(body)?).await)
}

async fn snapshot(core: &Core, body: &Bytes) -> Result<Answer, Answer> {
    let SnapshotRequest { vote, meta, data } = read(body)?;
    let snapshot = openraft::Snapshot { meta, snapshot: Box::new(data) };
    rpc(core.metadata.raft.install_full_snapshot(vote, snapshot).await)
}

fn rpc(done: Result<impl serde::Serialize, impl Display>) -> Result<Answer, Answer> {
    let answer = done.map_err(|error| failure(StatusCode::INTERNAL_SERVER_ERROR, error))?;
    Ok(reply(StatusCode::OK, &answer))
}
