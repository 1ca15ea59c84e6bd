//! Brokers are killed; what was acknowledged stays, and somebody else goes on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cluster::{Cluster, create_topic, in_sync};
use crate::expect::same;
use crate::load::{Options, run};
use crate::process::Node;
use crate::wait::until;

const A: &str = "member-0";
const B: &str = "member-1";
const C: &str = "member-2";

pub(super) async fn raft(on: &mut Cluster) -> Result<()> {
    let leader = on.leader().await?.id.clone();
    on.node(&leader)?.kill().await?;
    let next = until("another leader", Duration::from_secs(20), || async {
        let next = on.leader().await?.id.clone();
        ensure!(next != leader);
        Ok(next)
    })
    .await?;
    ensure!(on.up().any(|node| node.id == next), "{next} is not up");
    on.propose(create_topic("after-failover", 1, &[&[&next]])).await?;
    on.ready().await
}

pub(super) async fn partition(on: &mut Cluster) -> Result<()> {
    on.topic("failover", 2, &[&[A, B, C]]).await?;
    for number in 0..10 {
        on.publish("failover", 0, &format!("{number}")).await?;
    }
    let before = on.read("failover", 0).await?;
    let dead = on.leader_of("failover", 0).await?.id.clone();
    on.node(&dead)?.kill().await?;
    let left: Vec<_> = [A, B, C].into_iter().filter(|id| *id != dead).collect();
    let after = on
        .shows("failover", 0, "led by an in-sync replica that is up", |p| {
            p.leader.as_deref().is_some_and(|leader| left.contains(&leader) && p.isr.iter().any(|id| id == leader))
        })
        .await?;
    same("records", &on.read("failover", 0).await?, &before)?;
    // Until the dead one has left the in-sync set, nothing can be acknowledged.
    on.shows("failover", 0, "without the dead one in sync", |p| in_sync(p, &left)).await?;
    same("next offset", &on.publish("failover", 0, "after").await?, &10)?;
    on.ready().await?;
    let back = on.shows("failover", 0, "all in sync again", |p| in_sync(p, &[A, B, C])).await?;
    ensure!(back.leader.is_some(), "{after:?}, then {back:?}");
    same("records", &on.read("failover", 0).await?.len(), &11)
}

pub(super) async fn load(on: &mut Cluster) -> Result<()> {
    on.topic("failover-load", 2, &[&[A, B, C], &[B, C, A], &[C, A, B]]).await?;
    let mut options = Options::new(on.up().map(Node::address).collect(), "failover-load", 3);
    options.duration = Duration::from_secs(15);
    let disruption = async {
        let flows = || async {
            let records = on.read("failover-load", 0).await?.len();
            ensure!(records > 5, "{records} records");
            Ok(())
        };
        until("records flow", Duration::from_secs(5), flows).await?;
        let dead = on.leader_of("failover-load", 0).await?.id.clone();
        on.node(&dead)?.kill().await?;
        on.shows("failover-load", 0, "led by another", |p| p.leader.as_ref().is_some_and(|l| *l != dead)).await?;
        on.ready().await
    };
    let (report, disrupted) = futures::join!(run(&options), disruption);
    disrupted.context("while under load")?;
    let report = report?;
    same("lost, moved, out of order", &(report.lost, report.moved, report.out_of_order), &(0, 0, 0))?;
    ensure!(report.retries.retries > 0, "the load noticed nothing: {report:?}");
    Ok(())
}
