//! What a broker says about itself.

use anyhow::{Result, bail, ensure};
use rivven_protocol::{PROTOCOL_VERSION, Response};
use serde_json::{Value, json};

use crate::cluster::raft_id;
use crate::expect::same;
use crate::single::Single;

pub(super) async fn handshake(on: &mut Single) -> Result<()> {
    let mut wire = on.wire().await?;
    let answer = wire.handshake(PROTOCOL_VERSION).await?;
    ensure!(
        matches!(&answer, Response::HandshakeResult { server_version: PROTOCOL_VERSION, compatible: true, message } if message == "OK"),
        "{answer:?}"
    );
    // A version that is not spoken is said so; the connection goes on.
    let expected = format!("Version mismatch: client=1, server={PROTOCOL_VERSION}");
    match wire.handshake(1).await? {
        Response::HandshakeResult { compatible: false, message, .. } => same("message", &message, &expected)?,
        other => bail!("{other:?}"),
    }
    match wire.call(&rivven_protocol::Request::Ping).await? {
        Response::Pong => Ok(()),
        other => bail!("after a wrong version: {other:?}"),
    }
}

pub(super) async fn ping(on: &mut Single) -> Result<()> {
    Ok(on.client().await?.ping().await?)
}

pub(super) async fn health(on: &mut Single) -> Result<()> {
    let expected = json!({
        "status": "healthy",
        "node_id": raft_id(&on.node.id),
        "node_id_str": on.node.id,
        "is_leader": true,
        "leader_id": raft_id(&on.node.id),
        "cluster_mode": false,
    });
    let public = on.node.api().with_token(None);
    same("health", &public.get("/health").await?.with(200)?, &expected)
}

pub(super) async fn health_by_purpose(on: &mut Single) -> Result<()> {
    for path in ["/health/live", "/health/ready", "/health/startup"] {
        let answer = on.node.api().with_token(None).get(path).await?;
        ensure!(answer.status == 200, "{path}: {}", answer.status);
        // With the dashboard on, the released broker answers any path with 200 and HTML.
        ensure!(!answer.text.contains("<html"), "{path}: a page and not an answer");
    }
    Ok(())
}

pub(super) async fn metrics(on: &mut Single) -> Result<()> {
    let answer = on.node.api().with_token(None).get("/metrics").await?;
    ensure!(answer.status == 200, "{}", answer.status);
    let (version, id) = (&on.version, &on.node.id);
    for line in [
        format!("rivven_info{{version=\"{version}\",node_id_str=\"{id}\"}} 1"),
        format!("rivven_raft_node_id {}", raft_id(id)),
        "rivven_raft_is_leader 1".to_owned(),
    ] {
        ensure!(answer.text.lines().any(|said| said == line), "no line {line:?} in\n{}", answer.text);
    }
    let parts: Vec<_> = version.split('.').collect();
    ensure!(parts.len() == 3 && parts.iter().all(|part| part.parse::<u32>().is_ok()), "version {version:?}");
    Ok(())
}

pub(super) async fn token(on: &mut Single) -> Result<()> {
    let (none, wrong) = (on.node.api().with_token(None), on.node.api().with_token(Some("wrong")));
    for path in ["/membership", "/api/v1/metadata", "/api/v1/metadata/linearizable"] {
        let answer = none.get(path).await?;
        same(path, &answer.text.as_str(), &"Missing Authorization: Bearer <token>")?;
        same(path, &answer.status.as_u16(), &401)?;
        let answer = wrong.get(path).await?;
        same(path, &answer.text.as_str(), &"Invalid cluster token")?;
        same(path, &answer.status.as_u16(), &401)?;
    }
    for path in ["bootstrap", "add-learner", "change-membership", "transfer-leadership", "trigger-election", "propose"]
    {
        for api in [&none, &wrong] {
            same(path, &api.post(&format!("/api/v1/{path}"), &json!({})).await?.status.as_u16(), &401)?;
        }
    }
    Ok(())
}

pub(super) async fn membership(on: &mut Single) -> Result<()> {
    let membership = on.node.api().get("/membership").await?.with(200)?;
    let nodes = membership["nodes"].as_array().cloned().unwrap_or_default();
    let [node] = nodes.as_slice() else { bail!("not one node: {membership}") };
    same("id", &node["id"], &json!(raft_id(&on.node.id)))?;
    same("is_voter", &node["is_voter"], &json!(true))?;
    ensure!(node["addr"].is_string(), "{node}");
    Ok(())
}

pub(super) async fn bootstrap(on: &mut Single) -> Result<()> {
    let members =
        json!({ "members": [{ "node_id": on.node.id, "addr": format!("http://{}", on.node.api_address()) }] });
    let expected = json!({
        "success": true,
        "message": "Cluster bootstrapped successfully",
        "leader_id": raft_id(&on.node.id),
    });
    for _ in 0..2 {
        same("bootstrap", &on.node.api().post("/api/v1/bootstrap", &members).await?.with(200)?, &expected)?;
    }
    membership(on).await
}

pub(super) async fn metadata(on: &mut Single) -> Result<()> {
    for (path, consistency) in [("/api/v1/metadata", "eventual"), ("/api/v1/metadata/linearizable", "linearizable")] {
        let answer = on.node.api().get(path).await?.with(200)?;
        same(path, &answer["consistency"], &json!(consistency))?;
        let topics = answer["topics"].as_array().map(|topics| json!(topics.len()));
        same(path, &Some(answer["topic_count"].clone()), &topics)?;
        ensure!(answer["node_count"].is_u64() && answer["last_applied_index"].is_u64(), "{path}: {answer}");
    }
    Ok(())
}

pub(super) async fn refused_proposal(on: &mut Single) -> Result<()> {
    let command = json!({ "command": { "DeleteTopic": { "name": "nobody-made-this" } } });
    let expected = json!({
        "success": true,
        "response": { "Error": { "message": "Topic nobody-made-this not found" } },
        "error": Value::Null,
        "redirect_to": Value::Null,
    });
    same("propose", &on.node.api().post("/api/v1/propose", &command).await?.with(200)?, &expected)
}

pub(super) async fn brokers(on: &mut Single) -> Result<()> {
    let metadata = on.wire().await?.cluster_metadata(&[]).await?;
    same("controller", &metadata.controller.as_deref(), &Some(on.node.id.as_str()))?;
    let [broker] = metadata.brokers.as_slice() else { bail!("not one broker: {:?}", metadata.brokers) };
    same("id", &broker.node_id, &on.node.id)?;
    same("address", &broker.address(), &on.node.address())?;
    ensure!(on.capabilities.partition_metadata || metadata.topics.is_empty(), "topics: {:?}", metadata.topics);
    Ok(())
}
