//! Writes go on while something happens to the brokers; then everything acknowledged is read back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rivven_conformance::load::{self, Options, Report};
use rivven_conformance::tls::Tls;
use rivven_operator::api::Phase;
use rivven_operator::names;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::Place;
use crate::exchange::Door;

/// Producers that write to a topic until they are stopped.
pub struct Load {
    producing: JoinHandle<Result<Report>>,
    stop: Arc<AtomicBool>,
    _doors: Vec<Door>,
}

impl Load {
    /// Three brokers with the topic `orders` that is on each, two of which must have a record, and writes that go on.
    /// Brokers `0..brokers` may lead some day.
    pub async fn on_three(place: &Place, brokers: u32, partitions: u32, spec: Value) -> Result<Self> {
        place.clustered("x", spec).await?;
        place.cluster_is("x", Phase::Ready).await?;
        let config = json!({ "minInsyncReplicas": 2 });
        let topic = json!({ "partitions": partitions, "replicationFactor": 3, "config": config });
        place.topic("orders", "x", topic).await?;
        place.topic_is("orders", Phase::Ready).await?;
        Self::start(place, "x", brokers, "orders", partitions).await
    }

    /// Begins to write to a topic of `partitions`. Brokers `0..brokers` may lead them.
    pub async fn start(place: &Place, cluster: &str, brokers: u32, topic: &str, partitions: u32) -> Result<Self> {
        Self::speaking(None, place, cluster, brokers, topic, partitions).await
    }

    /// The same by TLS, where a client is given one.
    pub async fn speaking(
        mut tls: Option<Tls>,
        place: &Place,
        cluster: &str,
        brokers: u32,
        topic: &str,
        partitions: u32,
    ) -> Result<Self> {
        let mut doors = Vec::new();
        let mut address = Vec::new();
        for ordinal in 0..brokers {
            let pod = names::pod(cluster, ordinal);
            let door = place.door(&pod, names::CLIENT_PORT).await?;
            if let Some(tls) = &mut tls {
                let host = names::host(cluster, &place.namespace, ordinal, "cluster.local");
                tls.names.push((door.address.clone(), host));
            }
            address.push((pod, door.address.clone()));
            doors.push(door);
        }
        let bootstrap = doors.iter().map(|door| door.address.clone()).collect();
        let mut options = Options::new(bootstrap, topic, partitions);
        (options.address, options.duration, options.patience) =
            (address, Duration::from_mins(10), Duration::from_mins(1));
        options.tls = tls;
        let stop = Arc::clone(&options.stop);
        let producing = tokio::spawn(async move { load::run(&options).await });
        Ok(Self { producing, stop, _doors: doors })
    }

    /// Stops writing and reads back: nothing acknowledged is lost, and each partition is in order. `what` happened is
    /// printed with the figures; the longest silence of a partition is returned.
    pub async fn finish(self, what: &str) -> Result<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        let report = self.producing.await??;
        let gaps = report.gaps.as_ref().context("gaps")?;
        println!(
            "{what}: {} acknowledged, {} lost, {} out of order; longest without a write: {} ms, a partition {} ms",
            report.acknowledged, report.lost, report.out_of_order, gaps.overall_ms, gaps.partition_ms,
        );
        ensure!(report.acknowledged > 0, "the load did not run: {report:?}");
        ensure!(report.lost == 0 && report.moved == 0 && report.out_of_order == 0, "{what}: {report:?}");
        Ok(Duration::from_millis(u64::try_from(gaps.partition_ms)?))
    }
}
