//! Who votes, and who leads.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{AGREE, Cluster, member, raft_id};
use crate::expect::same;
use crate::process::Node;
use crate::wait::until;

pub(super) async fn transfer(on: &mut Cluster) -> Result<()> {
    for _ in 0..2 {
        let (leader, target) = (on.leader().await?, on.follower().await?);
        let body = json!({ "target_node_id": target.id });
        let answer = leader.api().post("/api/v1/transfer-leadership", &body).await?.with(200)?;
        same("success", &answer["success"], &json!(true))?;
        until("the target leads", AGREE, || async { same("leader", &on.leader().await?.id, &target.id) }).await?;
        let refusal = leader.api().post("/api/v1/transfer-leadership", &body).await?.with(400)?;
        same("refusal", &refusal["error"], &json!("Not the leader - cannot transfer leadership"))?;
        let own = target.api().post("/api/v1/transfer-leadership", &body).await?.with(400)?;
        same("to itself", &own["error"], &json!("Cannot transfer leadership to self"))?;
    }
    Ok(())
}

pub(super) async fn follower(on: &mut Cluster) -> Result<()> {
    let api = on.follower().await?.api();
    let expected = json!({ "error": "Not leader", "code": 307 });
    let voters: Vec<_> = on.nodes.iter().map(|node| &node.id).collect();
    let change = api.post("/api/v1/change-membership", &json!({ "voters": voters })).await?;
    same("change-membership", &change.with(307)?, &expected)?;
    same("add-learner", &api.post("/api/v1/add-learner", &member(&on.spare)).await?.with(307)?, &expected)
}

pub(super) async fn unknown(on: &mut Cluster) -> Result<()> {
    let leader = on.leader().await?;
    let before = on.membership(leader).await?;
    let mut voters: Vec<_> = on.nodes.iter().map(|node| node.id.as_str()).collect();
    voters.push("nobody");
    let refusal = leader.api().post("/api/v1/change-membership", &json!({ "voters": voters })).await?.with(500)?;
    let error = refusal["error"].as_str().unwrap_or_default();
    ensure!(error.starts_with("Failed to change membership: "), "{error}");
    ensure!(error.contains("earner") && error.contains("not found"), "{error}");
    same("membership", &on.membership(leader).await?, &before)
}

/// Waits until every one of these shows the spare so; `None`: not at all.
async fn shown(on: &Cluster, nodes: &[&Node], voter: Option<bool>) -> Result<()> {
    let id = raft_id(&on.spare.id);
    until("membership", AGREE, || async {
        for node in nodes {
            let membership = on.membership(node).await?;
            let found = membership.iter().find(|node| node["id"] == id).map(|node| node["is_voter"].as_bool());
            same(&node.id, &found, &voter.map(Some))?;
        }
        Ok(())
    })
    .await
}

async fn change(on: &Cluster, voters: &[&str]) -> Result<()> {
    let api = on.leader().await?.api();
    let answer = api.post("/api/v1/change-membership", &json!({ "voters": voters })).await?.with(200)?;
    let expected = json!({ "success": true, "message": "Membership changed successfully" });
    same("change-membership", &answer, &expected)
}

fn all(on: &Cluster) -> Vec<&Node> {
    on.nodes.iter().chain([&on.spare]).collect()
}

pub(super) async fn join(on: &mut Cluster) -> Result<()> {
    on.spare.start().await?;
    let spare = on.spare.api();
    same("alone", &spare.get("/health").await?.with(503)?["status"], &json!("degraded"))?;
    let leader = on.leader().await?;
    let answer = leader.api().post("/api/v1/add-learner", &member(&on.spare)).await?.with(200)?;
    let expected: Value =
        json!({ "success": true, "message": "Learner added successfully", "node_id": raft_id(&on.spare.id) });
    same("add-learner", &answer, &expected)?;
    shown(on, &all(on), Some(false)).await?;
    until("the learner is healthy", AGREE, || async { spare.get("/health").await?.with(200) }).await?;
    change(on, &all(on).iter().map(|node| node.id.as_str()).collect::<Vec<_>>()).await?;
    shown(on, &all(on), Some(true)).await
}

pub(super) async fn leave(on: &mut Cluster) -> Result<()> {
    ensure!(on.spare.is_up(), "nobody has joined");
    change(on, &on.nodes.iter().map(|node| node.id.as_str()).collect::<Vec<_>>()).await?;
    shown(on, &on.nodes.iter().collect::<Vec<_>>(), None).await?;
    on.spare.stop().await?;
    on.leader().await.map(drop)
}
