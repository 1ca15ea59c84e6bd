//! Where partitions live: proposed to Raft, shown by every broker, followed by the records.

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::cluster::{Cluster, create_topic, in_sync, raft_id};
use crate::expect::{refused, same};

const A: &str = "member-0";
const B: &str = "member-1";
const C: &str = "member-2";

pub(super) async fn create(on: &mut Cluster) -> Result<()> {
    on.topic("placed", 2, &[&[A, B, C], &[B, C, A], &[C, A]]).await?;
    for (partition, first) in [(0, A), (1, B), (2, C)] {
        on.shows("placed", partition, "led by its first replica", |p| p.leader.as_deref() == Some(first)).await?;
    }
    let twice = on.propose(create_topic("placed", 2, &[&[A]])).await;
    let message = twice.err().context("created twice")?.to_string();
    same("refusal", &message.as_str(), &"Topic placed already exists")?;
    for partition in 0..3 {
        same("offset", &on.publish("placed", partition, "x").await?, &0)?;
        same("records", &on.read("placed", partition).await?.len(), &1)?;
    }
    for node in on.up() {
        same(&node.id, &node.client().await?.get_metadata("placed").await?, &("placed".to_owned(), 3))?;
    }
    Ok(())
}

pub(super) async fn linearizable(on: &mut Cluster) -> Result<()> {
    on.propose(create_topic("linearizable", 1, &[&[A]])).await?;
    let answer = on.leader().await?.api().get("/api/v1/metadata/linearizable").await?.with(200)?;
    let topics = answer["topics"].as_array().context("no topics")?;
    ensure!(topics.contains(&json!("linearizable")), "what was just created is missing: {answer}");
    same("consistency", &answer["consistency"], &json!("linearizable"))
}

pub(super) async fn grow(on: &mut Cluster) -> Result<()> {
    on.topic("grown", 1, &[&[A, B]]).await?;
    let command = json!({ "AddPartitions": { "topic": "grown", "new_assignments": [[B, C], [C, A]] } });
    same("response", &on.propose(command).await?, &json!("Success"))?;
    for (partition, replicas) in [(1, [B, C]), (2, [C, A])] {
        on.shows("grown", partition, "as assigned", |p| {
            p.leader.as_deref() == Some(replicas[0]) && p.replicas == replicas && in_sync(p, &replicas)
        })
        .await?;
    }
    same("offset", &on.publish("grown", 2, "x").await?, &0)
}

/// Forwarded or sent away; the released broker knows the leader's address on some followers only.
pub(super) async fn follower(on: &mut Cluster) -> Result<()> {
    let leader = raft_id(&on.leader().await?.id);
    let command = json!({ "command": create_topic("by-follower", 1, &[&[A]]) });
    let answer = on.follower().await?.api().post("/api/v1/propose", &command).await?;
    let body = answer.json()?;
    match answer.status.as_u16() {
        200 => same("response", &body["response"]["TopicCreated"]["name"], &json!("by-follower")),
        307 => {
            same("redirect", &body["redirect_to"], &json!(leader))?;
            same("error, success", &(&body["error"], &body["success"]), &(&json!("Not leader"), &json!(false)))
        }
        other => bail!("{other}: {body}"),
    }
}

pub(super) async fn not_leader(on: &mut Cluster) -> Result<()> {
    on.topic("led", 1, &[&[A, B]]).await?;
    let leader = on.leader_of("led", 0).await?.id.clone();
    let message = format!("NOT_LEADER_FOR_PARTITION: Not leader for partition 0. Leader is node '{leader}'");
    for other in on.up().filter(|node| node.id != leader) {
        let mut client = other.client().await?;
        refused(client.publish_to_partition("led", 0, None::<&str>, "x").await, &message)?;
    }
    same("records", &on.read("led", 0).await?.len(), &0)
}

/// `GetClusterMetadata` does not show the epoch: the first one that is not stale is looked for.
async fn lead(on: &Cluster, topic: &str, leader: &str) -> Result<()> {
    let partition = json!({ "topic": topic, "partition": 0 });
    for epoch in 1..100 {
        let command = json!({ "UpdatePartitionLeader": { "partition": partition, "leader": leader, "epoch": epoch } });
        match on.propose(command).await {
            Ok(response) => {
                let expected = json!({ "PartitionLeaderUpdated": { "partition": partition, "leader": leader } });
                return same("response", &response, &expected);
            }
            Err(error) => {
                let expected = format!("Partition {topic}/0 not found or stale epoch");
                same("refusal", &error.to_string(), &expected)?;
            }
        }
    }
    bail!("every epoch is stale")
}

pub(super) async fn move_leader(on: &mut Cluster) -> Result<()> {
    on.topic("moved-leader", 2, &[&[A, B, C]]).await?;
    on.publish("moved-leader", 0, "by the first").await?;
    let first = on.leader_of("moved-leader", 0).await?.id.clone();
    let second = if first == B { C } else { B };
    lead(on, "moved-leader", second).await?;
    on.shows("moved-leader", 0, "led by the other", |p| {
        p.leader.as_deref() == Some(second) && in_sync(p, &[A, B, C]) && p.replicas == [A, B, C]
    })
    .await?;
    same("offset", &on.publish("moved-leader", 0, "by the second").await?, &1)?;
    let values: Vec<_> = on.read("moved-leader", 0).await?.into_iter().map(|record| record.value).collect();
    same("records", &values, &vec!["by the first".to_owned(), "by the second".to_owned()])
}

pub(super) async fn reassign(on: &mut Cluster) -> Result<()> {
    on.topic("reassigned", 1, &[&[A, B]]).await?;
    for number in 0..5 {
        on.publish("reassigned", 0, &format!("{number}")).await?;
    }
    let before = on.read("reassigned", 0).await?;
    // The new one first, then without the old one: at no time are there fewer in-sync replicas than before.
    for replicas in [&[A, B, C][..], &[B, C][..]] {
        let partition = json!({ "topic": "reassigned", "partition": 0 });
        let command = json!({ "ReassignPartition": { "partition": partition, "replicas": replicas } });
        same("response", &on.propose(command).await?, &json!("Success"))?;
        on.shows("reassigned", 0, "on its new replicas", |p| p.replicas == replicas && in_sync(p, replicas)).await?;
    }
    let shown = on.shows("reassigned", 0, "led by a replica", |p| p.leader.is_some()).await?;
    ensure!([Some(B), Some(C)].contains(&shown.leader.as_deref()), "{shown:?}");
    same("records", &on.read("reassigned", 0).await?, &before)?;
    same("next offset", &on.publish("reassigned", 0, "after").await?, &5)?;
    let unknown = json!({ "topic": "reassigned", "partition": 9 });
    let refusal = on.propose(json!({ "ReassignPartition": { "partition": unknown, "replicas": [A] } })).await;
    let message = refusal.err().map(|error| error.to_string()).unwrap_or_default();
    same("unknown partition", &message.as_str(), &"Partition reassigned/9 not found")
}
