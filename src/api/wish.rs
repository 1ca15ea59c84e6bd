//! A spec as the plain values that decisions need, with what is wrong with it by itself.

use std::collections::BTreeMap;

use rivven_fsm::{cluster, topic};
use serde_json::Value;

use super::{RivvenClusterSpec, RivvenTopic};
use crate::broker::topic_config;
use crate::observe::pod::bytes;
use kube::ResourceExt;

/// Environment variables that the operator sets itself.
const RESERVED_ENV: &str = "RIVVEN_";
/// The longest name for which every derived name fits: `rivven-{name}-{hash}` in a label of 63 characters.
const CLUSTER_NAME_LIMIT: usize = 45;

impl RivvenClusterSpec {
    /// What this spec asks for.
    pub fn wish(&self, name: &str) -> cluster::Wish {
        let mut problems = Vec::new();
        if name.len() > CLUSTER_NAME_LIMIT {
            problems.push(format!("metadata.name: has {} characters and may have {CLUSTER_NAME_LIMIT}; create the cluster under a shorter name", name.len()));
        }
        if name.contains('.') {
            problems.push("metadata.name: has a dot, which no Service name may have; create the cluster under another name".to_owned());
        }
        let storage_bytes = match bytes(&self.storage.size) {
            Some(0) | None => {
                problems.push(format!("storage.size: {:?} is not a size; write one such as 10Gi", self.storage.size));
                0
            }
            Some(bytes) => bytes,
        };
        if self.config.default_replication_factor > self.replicas {
            problems.push(format!(
                "config.defaultReplicationFactor: {} is more than the {} brokers; lower it or add brokers",
                self.config.default_replication_factor, self.replicas
            ));
        }
        if self.config.min_insync_replicas > self.config.default_replication_factor {
            problems.push(format!(
                "config.minInsyncReplicas: {} is more than config.defaultReplicationFactor {}, so no write could succeed; lower it",
                self.config.min_insync_replicas, self.config.default_replication_factor
            ));
        }
        for variable in self.env.iter().filter(|variable| variable.name.starts_with(RESERVED_ENV)) {
            problems.push(format!("env: {} is set by the operator; take it out", variable.name));
        }
        if self.metrics.port != crate::render::names::API_PORT {
            problems.push("metrics.port: the brokers serve metrics, health and admin on 9090 only; set it to 9090".to_owned());
        }
        cluster::Wish {
            replicas: self.replicas,
            version: self.version.clone(),
            storage_bytes,
            storage_class: self.storage.storage_class_name.clone(),
            tls: self.tls.enabled,
            auth: self.auth.enabled,
            problems,
            unsupported: self.unsupported(),
        }
    }

    /// What is asked for that this release of the operator does not do yet.
    fn unsupported(&self) -> Vec<String> {
        let asked = [
            (!self.maintenance_windows.is_empty(), "maintenanceWindows"),
            (self.external_access.is_some(), "externalAccess"),
            (self.ingress.is_some(), "ingress"),
            (self.metrics.service_monitor, "metrics.serviceMonitor"),
            (self.rebalance, "rebalance"),
        ];
        let field = |(asked, field): (bool, &str)| asked.then(|| format!("{field}: not supported by this release of the operator; take it out"));
        asked.into_iter().filter_map(field).collect()
    }
}

impl RivvenTopic {
    /// The topic's name at the broker.
    pub fn topic_name(&self) -> String {
        self.spec.topic_name.clone().unwrap_or_else(|| self.name_any())
    }

    /// What this object asks for.
    pub fn wish(&self) -> topic::Wish {
        let spec = &self.spec;
        let topic = self.topic_name();
        let mut problems = Vec::new();
        if let Err(problem) = topic_config::check_name(&topic) {
            problems.push(format!("topicName: {problem}"));
        }
        if u32::try_from(spec.config.min_insync_replicas).is_ok_and(|min| min > spec.replication_factor) {
            problems.push(format!(
                "config.minInsyncReplicas: {} is more than replicationFactor {}, so no write could succeed; lower it",
                spec.config.min_insync_replicas, spec.replication_factor
            ));
        }
        let mut config = BTreeMap::new();
        for (field, key, value) in spec.config.entries() {
            match topic_config::check(key, &value) {
                Ok(value) => {
                    config.insert(key.to_owned(), value);
                }
                Err(problem) => problems.push(format!("config.{field}: {problem}")),
            }
        }
        topic::Wish {
            topic,
            partitions: spec.partitions,
            replication: spec.replication_factor,
            config,
            acls: !spec.acls.is_empty(),
            problems,
        }
    }
}

impl super::topic::TopicConfig {
    /// Field, the broker's key, and the value as text.
    fn entries(&self) -> [(&'static str, &'static str, String); 7] {
        let word = |value: Value| value.as_str().unwrap_or_default().to_owned();
        [
            ("retentionMs", "retention.ms", self.retention_ms.to_string()),
            ("retentionBytes", "retention.bytes", self.retention_bytes.to_string()),
            ("segmentBytes", "segment.bytes", self.segment_bytes.to_string()),
            ("cleanupPolicy", "cleanup.policy", word(serde_json::json!(self.cleanup_policy))),
            ("compressionType", "compression.type", word(serde_json::json!(self.compression_type))),
            ("minInsyncReplicas", "min.insync.replicas", self.min_insync_replicas.to_string()),
            ("maxMessageBytes", "max.message.bytes", self.max_message_bytes.to_string()),
        ]
    }
}
