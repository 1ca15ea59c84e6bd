//! The series of each topic, made anew at each scrape: what was read back of it, with the labels that its users gave it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::metrics::{Description, TOPIC_IN_SYNC, TOPIC_PARTITIONS, TOPIC_RECORDS, TOPIC_REPLICAS};

/// What was read back of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicFacts {
    /// Its name at the broker.
    pub topic: String,
    /// Number of partitions.
    pub partitions: u32,
    /// Replicas of a partition, where brokers replicate.
    pub replicas: Option<u32>,
    /// The least number of them in sync, where brokers replicate.
    pub in_sync: Option<u32>,
    /// Records, where the broker tells them.
    pub records: Option<u64>,
    /// `spec.topicLabels`
    pub labels: BTreeMap<String, String>,
}

impl TopicFacts {
    fn value(&self, metric: &Description) -> Option<i64> {
        let number = |value: Option<u64>| value.map(|value| i64::try_from(value).unwrap_or(i64::MAX));
        number(match metric.name {
            name if name == TOPIC_PARTITIONS.name => Some(self.partitions.into()),
            name if name == TOPIC_REPLICAS.name => self.replicas.map(Into::into),
            name if name == TOPIC_IN_SYNC.name => self.in_sync.map(Into::into),
            _ => self.records,
        })
    }
}

/// Topics by namespace and name of their objects.
#[derive(Debug, Default)]
pub(super) struct Topics(Mutex<BTreeMap<(String, String), TopicFacts>>);

impl Topics {
    pub(super) fn set(&self, namespace: &str, name: &str, facts: TopicFacts) {
        self.all().insert((namespace.to_owned(), name.to_owned()), facts);
    }

    pub(super) fn remove(&self, namespace: &str, name: &str) {
        self.all().remove(&(namespace.to_owned(), name.to_owned()));
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<(String, String), TopicFacts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Topics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let topics = self.all();
        for metric in [&TOPIC_PARTITIONS, &TOPIC_REPLICAS, &TOPIC_IN_SYNC, &TOPIC_RECORDS] {
            // A metric without a series has no place in a scrape.
            if topics.values().all(|facts| facts.value(metric).is_none()) {
                continue;
            }
            let mut series = encoder.encode_descriptor(metric.name, metric.help, None, MetricType::Gauge)?;
            for ((namespace, name), facts) in topics.iter() {
                let Some(value) = facts.value(metric) else { continue };
                let fixed = [("namespace", namespace), ("name", name), ("topic", &facts.topic)];
                let mut labels: Vec<(String, &str)> =
                    fixed.iter().map(|(key, value)| ((*key).to_owned(), value.as_str())).collect();
                // Two of a user's keys may be one to Prometheus, which takes nothing of a scrape with a label twice.
                let mut users = BTreeMap::new();
                for (key, value) in &facts.labels {
                    users.entry(label(key)).or_insert(value.as_str());
                }
                labels.extend(users);
                ConstGauge::new(value).encode(series.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// A user's label as Prometheus takes its name, apart from those that the operator gives.
fn label(key: &str) -> String {
    let plain = key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
    "label_".chars().chain(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::metrics::Metrics;

    #[test]
    fn what_is_known_is_shown_with_the_users_labels_and_goes_with_the_topic() {
        let metrics = Metrics::new("test");
        let pairs = [("app.kubernetes.io/team", "a \"b\""), ("app/kubernetes.io.team", "another")];
        let labels = BTreeMap::from(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let facts =
            TopicFacts { topic: "orders".to_owned(), partitions: 3, records: Some(7), labels, ..TopicFacts::default() };
        metrics.topic("ns", "o", facts);
        let text = metrics.encode().unwrap();
        let series = r#"{namespace="ns",name="o",topic="orders",label_app_kubernetes_io_team="a \"b\""}"#;
        assert!(text.contains(&format!("rivven_topic_partitions{series} 3")), "{text}");
        assert!(text.contains(&format!("rivven_topic_records{series} 7")), "{text}");
        assert!(!text.contains("rivven_topic_in_sync"), "what nobody told is not shown: {text}");
        metrics.forget(rivven_fsm::Kind::Topic, "ns", "o");
        assert!(!metrics.encode().unwrap().contains("rivven_topic_"));
    }
}
