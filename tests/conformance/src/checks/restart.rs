//! What a broker still knows after it was stopped, and after it was killed.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::config::{described, expected_defaults};
use super::topics::there;
use crate::check::Running;
use crate::expect::{refused, same};
use crate::load::{Options, Record, Report, read_partition, run};
use crate::single::Single;
use crate::wait::until;

/// Twenty acknowledged records; their offset is their index. `padding` makes them longer.
async fn written(on: &Single, topic: &str, padding: usize) -> Result<Vec<Record>> {
    let mut client = on.client().await?;
    client.create_topic(topic, Some(1)).await?;
    let mut records = Vec::new();
    for number in 0..20 {
        let value = format!("{topic} {number} {}", "x".repeat(padding));
        let offset = client.publish_to_partition(topic, 0, None::<&str>, value.clone()).await?;
        same("offset", &offset, &number)?;
        records.push(Record { partition: 0, offset, value });
    }
    Ok(records)
}

pub(super) async fn records(on: &mut Single) -> Result<()> {
    let before = written(on, "restart-records", 1000).await?;
    on.restart().await?;
    same("read", &read_partition(&mut on.wire().await?, "restart-records", 0).await?, &before)?;
    let mut client = on.client().await?;
    let next = client.publish_to_partition("restart-records", 0, None::<&str>, "after").await?;
    same("next offset", &next, &20)
}

pub(super) async fn records_killed(on: &mut Single) -> Result<()> {
    kept_after_kill(on, "kill-records", 0).await
}

pub(super) async fn many_killed(on: &mut Single) -> Result<()> {
    kept_after_kill(on, "kill-many", 1000).await
}

/// The released broker repeats after a crash what it had already written, so repetition is allowed; loss is not.
async fn kept_after_kill(on: &mut Single, topic: &str, padding: usize) -> Result<()> {
    let before = written(on, topic, padding).await?;
    on.crash().await?;
    let after = read_partition(&mut on.wire().await?, topic, 0).await?;
    let lost = before.iter().filter(|record| !after.contains(record)).count();
    ensure!(lost == 0, "{lost} of {} are lost, {} were read", before.len(), after.len());
    let mut client = on.client().await?;
    let offset = client.publish_to_partition(topic, 0, None::<&str>, "after").await?;
    ensure!(offset >= 20, "the next offset is {offset}");
    let read = client.consume(topic, 0, offset, 1).await?;
    ensure!(read.len() == 1 && read[0].value == "after", "at {offset}: {read:?}");
    Ok(())
}

pub(super) async fn load(on: &mut Single) -> Result<()> {
    let report = under_load(on, "restart-load", |on| Box::pin(on.restart())).await?;
    same("lost, moved, out of order", &(report.lost, report.moved, report.out_of_order), &(0, 0, 0))
}

pub(super) async fn load_killed(on: &mut Single) -> Result<()> {
    let report = under_load(on, "kill-load", |on| Box::pin(on.crash())).await?;
    same("lost, moved", &(report.lost, report.moved), &(0, 0))
}

async fn under_load(
    on: &mut Single,
    topic: &str,
    disrupt: for<'a> fn(&'a mut Single) -> Running<'a>,
) -> Result<Report> {
    let mut options = Options::new(vec![on.node.address()], topic, 3);
    options.duration = Duration::from_secs(12);
    let address = on.node.address();
    let disruption = async {
        let flows = || async {
            let mut client = rivven_client::Client::connect(&address).await?;
            ensure!(client.get_offset_bounds(topic, 2).await?.1 > 50);
            Ok(())
        };
        until("records flow", Duration::from_secs(5), flows).await?;
        disrupt(on).await
    };
    let (report, disrupted) = futures::join!(run(&options), disruption);
    disrupted?;
    let report = report?;
    ensure!(report.retries.retries > 0, "the load noticed nothing: {report:?}");
    Ok(report)
}

async fn some_topics(on: &Single, prefix: &str) -> Result<()> {
    let mut client = on.client().await?;
    client.create_topic(format!("{prefix}-kept"), Some(4)).await?;
    client.create_topic(format!("{prefix}-grown"), Some(1)).await?;
    client.create_partitions(format!("{prefix}-grown"), 6).await?;
    client.create_topic(format!("{prefix}-deleted"), Some(1)).await?;
    client.publish_to_partition(format!("{prefix}-deleted"), 0, None::<&str>, "x").await?;
    Ok(client.delete_topic(format!("{prefix}-deleted")).await?)
}

async fn same_topics(on: &Single, prefix: &str) -> Result<()> {
    let mut client = on.client().await?;
    there(&mut client, &[(&format!("{prefix}-kept"), 4), (&format!("{prefix}-grown"), 6)]).await?;
    let deleted = format!("{prefix}-deleted");
    refused(client.get_metadata(deleted.as_str()).await, &format!("Topic not found: {deleted}"))
}

pub(super) async fn topics(on: &mut Single) -> Result<()> {
    some_topics(on, "restart").await?;
    on.restart().await?;
    same_topics(on, "restart").await
}

pub(super) async fn topics_killed(on: &mut Single) -> Result<()> {
    some_topics(on, "kill").await?;
    on.crash().await?;
    same_topics(on, "kill").await
}

/// Lost or kept, as the operator's table says: it applies the configuration again where it is lost.
pub(super) async fn config(on: &mut Single) -> Result<()> {
    let mut client = on.client().await?;
    client.create_topic("restart-config", Some(1)).await?;
    let changes = [("retention.ms", Some("1000")), ("cleanup.policy", Some("compact"))];
    client.alter_topic_config("restart-config", &changes).await?;
    let set = described(&mut client, "restart-config").await?;
    on.restart().await?;
    let now = described(&mut on.client().await?, "restart-config").await?;
    let expected: HashMap<_, _> = if on.capabilities.durable_topic_config { set } else { expected_defaults() };
    same("config", &now, &expected)
}

pub(super) async fn offsets(on: &mut Single) -> Result<()> {
    written(on, "restart-offsets", 0).await?;
    on.client().await?.commit_offset("restarted", "restart-offsets", 0, 7).await?;
    on.restart().await.context("restart")?;
    same("offset", &on.client().await?.get_offset("restarted", "restart-offsets", 0).await?, &Some(7))
}
