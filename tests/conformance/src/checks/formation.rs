//! Brokers become a cluster, once.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{AGREE, Cluster, member, raft_id};
use crate::expect::same;
use crate::wait::until;

pub(super) async fn before(on: &mut Cluster) -> Result<()> {
    for node in on.up() {
        let health = node.api().get("/health").await?.with(503)?;
        same("status", &health["status"], &json!("degraded"))?;
        same("leader", &(&health["is_leader"], &health["leader_id"]), &(&json!(false), &Value::Null))?;
        same("id", &health["node_id_str"], &json!(node.id))?;
        same("membership", &on.membership(node).await?, &Vec::new())?;
    }
    Ok(())
}

pub(super) async fn form(on: &mut Cluster) -> Result<()> {
    let first = on.nodes.first().context("no broker")?;
    let answer = on.bootstrap(first).await?.with(200)?;
    same("success", &answer["success"], &json!(true))?;
    same("message", &answer["message"], &json!("Cluster bootstrapped successfully"))?;
    on.leader().await?;
    on.formed = true;
    let leader = on.leader().await?;
    for node in on.up() {
        let health = node.api().get("/health").await?.with(200)?;
        same("status", &health["status"], &json!("healthy"))?;
        same("is_leader", &health["is_leader"], &json!(node.id == leader.id))?;
        same("leader_id", &health["leader_id"], &json!(raft_id(&leader.id)))?;
        same("node_id", &health["node_id"], &json!(raft_id(&node.id)))?;
        // As released: true on a follower that knows a leader, and nowhere else.
        same("cluster_mode", &health["cluster_mode"], &json!(node.id != leader.id))?;
    }
    Ok(())
}

/// All three, voters, at the addresses that bootstrap named.
fn expected(on: &Cluster) -> Vec<Value> {
    let mut nodes: Vec<Value> = on
        .nodes
        .iter()
        .map(|node| json!({ "id": raft_id(&node.id), "addr": member(node)["addr"], "is_voter": true }))
        .collect();
    nodes.sort_by_key(|node| node["id"].as_u64());
    nodes
}

pub(super) async fn membership(on: &mut Cluster) -> Result<()> {
    for node in on.up() {
        same(&node.id, &on.membership(node).await?, &expected(on))?;
    }
    Ok(())
}

pub(super) async fn again(on: &mut Cluster) -> Result<()> {
    let leader = on.leader().await?.id.clone();
    for node in on.up() {
        let answer = on.bootstrap(node).await?.with(500)?;
        same("success", &answer["success"], &json!(false))?;
        let message = answer["message"].as_str().unwrap_or_default();
        ensure!(message.starts_with("Bootstrap failed: "), "{message}");
    }
    same("leader", &on.leader().await?.id, &leader)?;
    membership(on).await
}

pub(super) async fn brokers(on: &mut Cluster) -> Result<()> {
    let leader = on.leader().await?.id.clone();
    let mut expected: Vec<_> = on.nodes.iter().map(|node| (node.id.clone(), node.address())).collect();
    expected.sort();
    until("every broker shows all brokers", AGREE, || async {
        for node in on.up() {
            let metadata = node.wire().await?.cluster_metadata(&[]).await?;
            same("controller", &metadata.controller.as_ref(), &Some(&leader))?;
            let mut shown: Vec<_> = metadata.brokers.iter().map(|b| (b.node_id.clone(), b.address())).collect();
            shown.sort();
            same("brokers", &shown, &expected)?;
        }
        Ok(())
    })
    .await
}

pub(super) async fn metrics(on: &mut Cluster) -> Result<()> {
    for node in on.up() {
        let text = node.api().with_token(None).get("/metrics").await?.text;
        for line in ["rivven_raft_cluster_voters 3", "rivven_raft_cluster_learners 0"] {
            ensure!(text.lines().any(|said| said == line), "{}: no line {line:?} in\n{text}", node.id);
        }
        for name in ["rivven_raft_current_term", "rivven_raft_last_log_index", "rivven_raft_applied_index"] {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
            ensure!(value.is_some(), "{}: no {name} in\n{text}", node.id);
        }
    }
    Ok(())
}
