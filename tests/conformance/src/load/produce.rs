//! Producers: each writes its own numbers to every partition, one record in flight per producer and partition, so that
//! an order read back that differs is the broker's doing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use rivven_protocol::{Request, Response};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout_at};

use super::Options;
use super::ledger::{Ack, Ledger};
use super::report::Retries;
use super::route::Routes;
use crate::wire::Wire;

/// Between two attempts of the same record.
const PAUSE: Duration = Duration::from_millis(20);

/// What one producer writes to one partition.
struct Lane {
    routes: Routes,
    ledger: Arc<Ledger>,
    partition: u32,
    producer: u32,
    /// `run/producer/partition`; the number follows.
    prefix: String,
    wire: Option<Wire>,
    retries: Retries,
    stop: Arc<AtomicBool>,
}

/// Until the duration is over. What is not acknowledged then is given up: nothing was promised.
pub(super) async fn produce(options: &Options, routes: &Routes, ledger: Ledger) -> Result<(Ledger, Retries)> {
    let ledger = Arc::new(ledger);
    let lanes = options.producers * options.partitions;
    let period = Duration::from_secs_f64(f64::from(lanes) / options.rate);
    let (start, run) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis());
    let mut running = JoinSet::new();
    for lane in 0..lanes {
        let (producer, partition) = (lane / options.partitions, lane % options.partitions);
        let lane_start = start + period.mul_f64(f64::from(lane) / f64::from(lanes));
        let lane = Lane {
            routes: routes.clone(),
            ledger: Arc::clone(&ledger),
            partition,
            producer,
            prefix: format!("{run}/{producer}/{partition}"),
            wire: None,
            retries: Retries::default(),
            stop: Arc::clone(&options.stop),
        };
        running.spawn(lane.run(lane_start, period, start + options.duration));
    }
    let mut retries = Retries::default();
    while let Some(lane) = running.join_next().await {
        retries.add(lane??);
    }
    Ok((Arc::into_inner(ledger).context("a producer still runs")?, retries))
}

impl Lane {
    async fn run(mut self, start: Instant, period: Duration, end: Instant) -> Result<Retries> {
        let mut pace = interval_at(start, period);
        // After an outage it goes on at the rate asked for and does not catch up.
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in 0u64.. {
            if timeout_at(end, pace.tick()).await.is_err() || self.stop.load(Ordering::Relaxed) {
                break;
            }
            let value = format!("{}/{number}", self.prefix);
            let Some(offset) = self.acknowledged(&value, end).await else { break };
            self.ledger.record(Ack { partition: self.partition, offset, value })?;
        }
        Ok(self.retries)
    }

    /// The same value again and again until a broker acknowledges it, or the end.
    async fn acknowledged(&mut self, value: &str, end: Instant) -> Option<u64> {
        loop {
            match self.attempt(value).await {
                Ok(offset) => return Some(offset),
                Err(error) => {
                    self.wire = None;
                    self.retries.note(&error);
                    if Instant::now() >= end || self.stop.load(Ordering::Relaxed) {
                        return None;
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn attempt(&mut self, value: &str) -> Result<u64> {
        let mut wire = match self.wire.take() {
            Some(wire) => wire,
            None => self.routes.leader(self.partition).await?,
        };
        let request = Request::Publish {
            topic: self.routes.topic.clone(),
            partition: Some(self.partition),
            key: Some(Bytes::from(self.producer.to_string())),
            value: Bytes::from(value.to_owned()),
            leader_epoch: None,
        };
        match wire.ask(&request).await? {
            Response::Published { offset, partition } if partition == self.partition => {
                self.wire = Some(wire);
                Ok(offset)
            }
            other => bail!("publish: {other:?}"),
        }
    }
}
