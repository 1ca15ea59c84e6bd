//! The series of each object, made anew at each scrape: so exactly one phase of an object is at 1 in every scrape, and
//! what belongs to an object that is gone is gone with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use rivven_fsm::{Kind, Phase, Reason};

use super::metrics::{BLOCKED, PHASE};

/// Kind, namespace, name.
type Key = (Kind, String, String);

#[derive(Debug, Default)]
pub(super) struct Objects(Mutex<BTreeMap<Key, Standing>>);

#[derive(Debug)]
struct Standing {
    phase: Phase,
    blocked: BTreeSet<Reason>,
}

impl Objects {
    pub(super) fn set(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        phase: Phase,
        blocked: impl IntoIterator<Item = Reason>,
    ) {
        let standing = Standing { phase, blocked: blocked.into_iter().collect() };
        self.all().insert((kind, namespace.to_owned(), name.to_owned()), standing);
    }

    pub(super) fn remove(&self, kind: Kind, namespace: &str, name: &str) {
        self.all().remove(&(kind, namespace.to_owned(), name.to_owned()));
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Key, Standing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Objects {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let objects = self.all();
        if objects.is_empty() {
            return Ok(());
        }
        let mut phases = encoder.encode_descriptor(PHASE.name, PHASE.help, None, MetricType::Gauge)?;
        for (key, standing) in objects.iter() {
            for phase in Phase::ALL {
                gauge(&mut phases, key, ("phase", phase.as_str()), phase == standing.phase)?;
            }
        }
        if objects.values().all(|standing| standing.blocked.is_empty()) {
            return Ok(());
        }
        let mut blocked = encoder.encode_descriptor(BLOCKED.name, BLOCKED.help, None, MetricType::Gauge)?;
        for (key, standing) in objects.iter() {
            for reason in &standing.blocked {
                gauge(&mut blocked, key, ("reason", reason.as_str()), true)?;
            }
        }
        Ok(())
    }
}

fn gauge(series: &mut MetricEncoder<'_>, (kind, namespace, name): &Key, last: (&str, &str), on: bool) -> fmt::Result {
    let labels = [("kind", kind.as_str()), ("namespace", namespace.as_str()), ("name", name.as_str()), last];
    ConstGauge::new(i64::from(on)).encode(series.encode_family(&labels)?)
}
