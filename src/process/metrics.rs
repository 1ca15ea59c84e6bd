//! The operator's own metrics: names that are documented, label sets that are closed.
//!
//! A label value is a variant of an enum or a name fixed in the source, but for the namespace and name of an object that
//! exists; those series go when the object goes.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use rivven_fsm::{IllegalTransition, Kind, Phase, Reason};

use super::objects::Objects;
use super::topics::{TopicFacts, Topics};

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A metric as the documentation lists it.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// The full name as scraped.
    pub name: &'static str,
    /// Counter, gauge, histogram or info.
    pub kind: &'static str,
    /// The labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

const fn describe(
    name: &'static str,
    kind: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Description {
    Description { name, kind, labels, help }
}

const RECONCILES: Description = describe(
    "rivven_operator_reconciles_total",
    "counter",
    &["kind", "outcome"],
    "Reconciles by how they ended: converged, progressing, waiting, failed or skipped",
);
const ERRORS: Description = describe(
    "rivven_operator_reconcile_errors_total",
    "counter",
    &["kind", "category"],
    "Reconciles that failed, by where the fault is: kubernetes, conflict, broker, timeout or internal",
);
const DURATION: Description =
    describe("rivven_operator_reconcile_duration_seconds", "histogram", &["kind"], "How long reconciles take");
pub(super) const PHASE: Description = describe(
    "rivven_operator_object_phase",
    "gauge",
    &["kind", "namespace", "name", "phase"],
    "1 for the phase an object is in and 0 for the others",
);
const TRANSITIONS: Description = describe(
    "rivven_operator_transitions_total",
    "counter",
    &["kind", "from", "to"],
    "Changes of phase; from is None for a new object",
);
const ILLEGAL: Description = describe(
    "rivven_operator_illegal_transitions_total",
    "counter",
    &["kind", "from", "to"],
    "Changes of phase that were refused because the transition table does not have them; always a bug",
);
const STEPS: Description = describe(
    "rivven_operator_steps_total",
    "counter",
    &["kind", "step", "outcome"],
    "Steps carried out, by how they ended: done, unchanged, moved (the world had changed, nothing was written) or failed",
);
pub(super) const BLOCKED: Description = describe(
    "rivven_operator_blocked",
    "gauge",
    &["kind", "namespace", "name", "reason"],
    "1 for each reason an object is waiting for",
);
const CALLS: Description = describe(
    "rivven_operator_broker_calls_total",
    "counter",
    &["operation", "outcome"],
    "Requests to brokers, by how they ended: ok, refused, unavailable or timeout",
);
const CALL_DURATION: Description = describe(
    "rivven_operator_broker_call_duration_seconds",
    "histogram",
    &["operation"],
    "How long requests to brokers take",
);
const LEADER: Description =
    describe("rivven_operator_leader", "gauge", &[], "1 if this replica is the leader, and 0 on a standby");
const BUILD: Description =
    describe("rivven_operator_build_info", "info", &["version"], "The operator's version; always 1");

pub(super) const TOPIC_PARTITIONS: Description = topic("rivven_topic_partitions", "Partitions of a topic");
pub(super) const TOPIC_REPLICAS: Description =
    topic("rivven_topic_replicas", "The least number of replicas of a topic's partitions, where brokers replicate");
pub(super) const TOPIC_IN_SYNC: Description = topic(
    "rivven_topic_in_sync_replicas",
    "The least number of replicas in sync of a topic's partitions, where brokers replicate; as old as a resync",
);
pub(super) const TOPIC_RECORDS: Description =
    topic("rivven_topic_records", "Records of a topic, where brokers tell of them; as old as a resync");

const fn topic(name: &'static str, help: &'static str) -> Description {
    describe(name, "gauge", &["namespace", "name", "topic", "label_*"], help)
}

/// Every metric, in the order of the documentation.
pub const METRICS: &[Description] = &[
    RECONCILES,
    ERRORS,
    DURATION,
    PHASE,
    TRANSITIONS,
    ILLEGAL,
    STEPS,
    BLOCKED,
    CALLS,
    CALL_DURATION,
    LEADER,
    BUILD,
    TOPIC_PARTITIONS,
    TOPIC_REPLICAS,
    TOPIC_IN_SYNC,
    TOPIC_RECORDS,
];

/// Every metric as a table in Markdown.
pub fn reference() -> String {
    METRICS.iter().fold("| Name | Type | Labels | Meaning |\n|---|---|---|---|\n".to_owned(), |mut table, metric| {
        let labels = metric.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let _ = writeln!(table, "| `{}` | {} | {labels} | {} |", metric.name, metric.kind, metric.help);
        table
    })
}

macro_rules! labels {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $variant_doc:literal])+ $variant:ident => $value:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[doc = $variant_doc])+ $variant,)+ }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The label value.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $value,)+ }
            }
        }
    };
}

labels! {
    /// How a reconcile ended.
    Outcome {
        /// Nothing was to do.
        Converged => "converged",
        /// Something was done.
        Progressing => "progressing",
        /// Something must happen first.
        Waiting => "waiting",
        /// It failed and is retried.
        Failed => "failed",
        /// Not this operator's business now: it is not the leader, or the object is gone.
        Skipped => "skipped",
    }
}

labels! {
    /// Where the fault is.
    Category {
        /// The API server refused or did not answer.
        Kubernetes => "kubernetes",
        /// The object had changed in between.
        Conflict => "conflict",
        /// A broker refused or did not answer.
        Broker => "broker",
        /// It took too long.
        Timeout => "timeout",
        /// The operator itself.
        Internal => "internal",
    }
}

labels! {
    /// How a step ended.
    StepOutcome {
        /// It was carried out.
        Done => "done",
        /// The world was already so; nothing was written.
        Unchanged => "unchanged",
        /// The world had moved since it was decided; nothing was written.
        Moved => "moved",
        /// It failed.
        Failed => "failed",
    }
}

labels! {
    /// How a request to a broker ended.
    CallOutcome {
        /// It was answered.
        Ok => "ok",
        /// The broker said no.
        Refused => "refused",
        /// The broker could not be reached.
        Unavailable => "unavailable",
        /// No answer in time.
        Timeout => "timeout",
    }
}

type Labels<const N: usize> = [(&'static str, &'static str); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Histograms<const N: usize> = Family<Labels<N>, Histogram>;

/// The registry, and typed ways to count. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    series: Arc<Series>,
}

#[derive(Debug)]
struct Series {
    reconciles: Counters<2>,
    errors: Counters<2>,
    durations: Histograms<1>,
    transitions: Counters<3>,
    illegal: Counters<3>,
    steps: Counters<3>,
    calls: Counters<2>,
    call_durations: Histograms<1>,
    leader: Gauge,
    objects: Arc<Objects>,
    topics: Arc<Topics>,
}

impl Metrics {
    /// A registry of its own, with nothing counted.
    pub fn new(version: &str) -> Self {
        let mut registry = Registry::default();
        let series = Series {
            reconciles: counters(&mut registry, &RECONCILES),
            errors: counters(&mut registry, &ERRORS),
            durations: histograms(&mut registry, &DURATION),
            transitions: counters(&mut registry, &TRANSITIONS),
            illegal: counters(&mut registry, &ILLEGAL),
            steps: counters(&mut registry, &STEPS),
            calls: counters(&mut registry, &CALLS),
            call_durations: histograms(&mut registry, &CALL_DURATION),
            leader: Gauge::default(),
            objects: Arc::default(),
            topics: Arc::default(),
        };
        registry.register(LEADER.name, LEADER.help, series.leader.clone());
        let build = Info::new([("version", version.to_owned())]);
        registry.register(BUILD.name.trim_end_matches("_info"), BUILD.help, build);
        registry.register_collector(Box::new(series.objects.clone()));
        registry.register_collector(Box::new(series.topics.clone()));
        Self { registry: Arc::new(registry), series: Arc::new(series) }
    }

    /// A reconcile has ended.
    pub fn reconciled(&self, kind: Kind, outcome: Outcome, took: Duration) {
        let kind = ("kind", kind.as_str());
        self.series.reconciles.get_or_create(&[kind, ("outcome", outcome.as_str())]).inc();
        self.series.durations.get_or_create(&[kind]).observe(took.as_secs_f64());
    }

    /// A reconcile has failed.
    pub fn failed(&self, kind: Kind, category: Category) {
        self.series.errors.get_or_create(&[("kind", kind.as_str()), ("category", category.as_str())]).inc();
    }

    /// Where an object stands now; what was said of it before is replaced.
    pub fn object(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        phase: Phase,
        blocked: impl IntoIterator<Item = Reason>,
    ) {
        self.series.objects.set(kind, namespace, name, phase, blocked);
    }

    /// An object is gone, and its series with it.
    pub fn forget(&self, kind: Kind, namespace: &str, name: &str) {
        self.series.objects.remove(kind, namespace, name);
        if kind == Kind::Topic {
            self.series.topics.remove(namespace, name);
        }
    }

    /// How a topic was read back.
    pub fn topic(&self, namespace: &str, name: &str, facts: TopicFacts) {
        self.series.topics.set(namespace, name, facts);
    }

    /// An object has changed its phase.
    pub fn transition(&self, kind: Kind, from: Option<Phase>, to: Phase) {
        self.series.transitions.get_or_create(&edge(kind, from, to)).inc();
    }

    /// A change of phase was refused.
    pub fn illegal_transition(&self, refused: &IllegalTransition) {
        self.series.illegal.get_or_create(&edge(refused.kind, refused.from, refused.to)).inc();
    }

    /// A step has ended. `step` is the name of a step, never anything read from an object.
    pub fn step(&self, kind: Kind, step: &'static str, outcome: StepOutcome) {
        let labels = [("kind", kind.as_str()), ("step", step), ("outcome", outcome.as_str())];
        self.series.steps.get_or_create(&labels).inc();
    }

    /// A request to a broker has ended. `operation` is the name of a request, never anything a broker said.
    pub fn broker_call(&self, operation: &'static str, outcome: CallOutcome, took: Duration) {
        let operation = ("operation", operation);
        self.series.calls.get_or_create(&[operation, ("outcome", outcome.as_str())]).inc();
        self.series.call_durations.get_or_create(&[operation]).observe(took.as_secs_f64());
    }

    /// Whether this replica is the leader.
    pub fn set_leader(&self, leads: bool) {
        self.series.leader.set(leads.into());
    }

    /// Everything, as [`CONTENT_TYPE`].
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn edge(kind: Kind, from: Option<Phase>, to: Phase) -> Labels<3> {
    [("kind", kind.as_str()), ("from", from.map_or("None", Phase::as_str)), ("to", to.as_str())]
}

fn counters<const N: usize>(registry: &mut Registry, metric: &Description) -> Counters<N> {
    let family = Counters::default();
    // The encoder puts the suffix back.
    registry.register(metric.name.trim_end_matches("_total"), metric.help, family.clone());
    family
}

/// From a reconcile that touches only caches to one that waits for a broker's timeout.
fn buckets() -> Histogram {
    Histogram::new([0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0])
}

fn histograms<const N: usize>(registry: &mut Registry, metric: &Description) -> Histograms<N> {
    let family = Family::new_with_constructor(buckets as fn() -> Histogram);
    registry.register(metric.name, metric.help, family.clone());
    family
}
