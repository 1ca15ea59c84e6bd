//! A spec as the plain values that decisions need, with what is wrong with it by itself.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ResourceRequirements, Toleration};
use kube::ResourceExt;
use rivven_fsm::window::Window;
use rivven_fsm::{cluster, topic};
use serde_json::Value;

use super::cluster::MaintenanceWindow;
use super::quantity::{bytes, nanos};
use super::security::AuthMechanism;
use super::{RivvenClusterSpec, RivvenConnectSpec, RivvenTopic};
use crate::broker::topic_config;

/// Environment variables that the operator sets itself.
const RESERVED_ENV: &str = "RIVVEN_";
/// Prefix of the labels and annotations that are the operator's own.
const RESERVED_LABELS: &str = "rivven.io/";
/// The longest name for which every derived name fits: `rivven-{name}-{hash}` in a label of 63 characters.
const CLUSTER_NAME_LIMIT: usize = 45;
/// The longest name for which every derived name fits: `rivven-connect-{name}-w99` as a label, and a Service.
const CONNECT_NAME_LIMIT: usize = 42;

impl RivvenClusterSpec {
    /// What this spec asks for.
    pub fn wish(&self, name: &str) -> cluster::Wish {
        let mut problems = Vec::new();
        if name.len() > CLUSTER_NAME_LIMIT {
            problems.push(format!("metadata.name: has {} characters and may have {CLUSTER_NAME_LIMIT}; create the cluster under a shorter name", name.len()));
        }
        if name.contains('.') {
            problems.push(
                "metadata.name: has a dot, which no Service name may have; create the cluster under another name"
                    .to_owned(),
            );
        }
        if !is_tag(&self.version) {
            problems.push(format!("version: {:?} is no tag of an image; write one such as 0.0.22", self.version));
        }
        if !(1..=99).contains(&self.replicas) {
            problems.push(format!("replicas: {} is not between 1 and 99", self.replicas));
        }
        if !(30..=3600).contains(&self.termination_grace_period_seconds) {
            problems.push(format!(
                "terminationGracePeriodSeconds: {} is not between 30 and 3600",
                self.termination_grace_period_seconds
            ));
        }
        let storage_bytes = match bytes(&self.storage.size) {
            Some(0) | None => {
                problems.push(format!(
                    "storage.size: {:?} is not a size that a volume can have; write one such as 10Gi",
                    self.storage.size
                ));
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
        if self.tls.enabled && self.tls.cert_secret_name.is_none() && self.tls.issuer_ref.is_none() {
            problems.push("tls.enabled: needs tls.certSecretName or tls.issuerRef".to_owned());
        }
        if self.tls.cert_secret_name.is_some() && self.tls.issuer_ref.is_some() {
            problems.push("tls: certSecretName and issuerRef exclude each other; take one out".to_owned());
        }
        problems.extend(self.auth_problems());
        problems.extend(self.windows().iter().enumerate().filter_map(|(index, window)| {
            window.problem().map(|problem| format!("maintenanceWindows[{index}]: {problem}"))
        }));
        problems.extend(self.pod_problems(name));
        problems.extend(self.outside_problems());
        for variable in self.env.iter().filter(|variable| variable.name.starts_with(RESERVED_ENV)) {
            problems.push(format!("env: {} is set by the operator; take it out", variable.name));
        }
        if self.metrics.port != crate::names::API_PORT {
            problems.push(
                "metrics.port: the brokers serve metrics, health and admin on 9090 only; set it to 9090".to_owned(),
            );
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

    /// When brokers may be restarted.
    pub fn windows(&self) -> Vec<Window> {
        let window = |window: &MaintenanceWindow| Window {
            schedule: window.schedule.clone(),
            time_zone: window.time_zone.clone(),
            minutes: window.duration_minutes,
        };
        self.maintenance_windows.iter().map(window).collect()
    }

    /// What the schema's rules on `auth` say too; they take a null for a value.
    fn auth_problems(&self) -> Vec<String> {
        let auth = &self.auth;
        let lacks = [
            (auth.enabled && auth.mechanism.is_none(), "auth.enabled: needs auth.mechanism"),
            (
                auth.mechanism == Some(AuthMechanism::Scram) && auth.scram_secret_name.is_none(),
                "auth.mechanism: scram needs auth.scramSecretName",
            ),
            (
                auth.mechanism == Some(AuthMechanism::Token) && auth.token_secret_name.is_none(),
                "auth.mechanism: token needs auth.tokenSecretName",
            ),
            (
                auth.enabled
                    && auth.mechanism == Some(AuthMechanism::Mtls)
                    && !(self.tls.enabled && self.tls.client_ca_secret_name.is_some()),
                "auth.mechanism: mtls needs tls.enabled and tls.clientCaSecretName, by which client certificates are verified",
            ),
            (auth.rbac.enabled && !auth.enabled, "auth.rbac: needs auth.enabled; rules are about who somebody is"),
            (auth.rbac.enabled && auth.rbac.config_map_name.is_none(), "auth.rbac: needs auth.rbac.configMapName"),
        ];
        lacks.into_iter().filter(|(lacks, _)| *lacks).map(|(_, problem)| problem.to_owned()).collect()
    }

    /// What Kubernetes would refuse of the pods, and no schema can say.
    fn pod_problems(&self, cluster: &str) -> Vec<String> {
        let mut problems = Vec::new();
        let own = crate::names::labels(cluster);
        for (field, map) in [("podLabels", &self.pod_labels), ("nodeSelector", &self.node_selector)] {
            problems.extend(label_problems(field, map));
        }
        problems.extend(no_annotations("podAnnotations", &self.pod_annotations));
        let reserved = self.pod_labels.keys().filter(|key| own.contains_key(*key) || key.starts_with(RESERVED_LABELS));
        problems.extend(reserved.map(|key| format!("podLabels: {key} is set by the operator; take it out")));
        let is_variable = |name: &str| !name.is_empty() && name.chars().all(|c| (' '..='~').contains(&c) && c != '=');
        problems.extend(
            self.env
                .iter()
                .filter(|v| !is_variable(&v.name))
                .map(|v| format!("env: {:?} is no name of a variable", v.name)),
        );
        problems.extend(resource_problems(self.resources.as_ref()));
        problems.extend(toleration_problems(&self.tolerations));
        let mut seen = BTreeSet::new();
        for (index, spread) in self.topology_spread_constraints.iter().enumerate() {
            let what = if spread.max_skew < 1 {
                "maxSkew must be at least 1"
            } else if spread.topology_key.is_empty() || !is_label_key(&spread.topology_key) {
                "topologyKey is no name of a label"
            } else if !matches!(spread.when_unsatisfiable.as_str(), "DoNotSchedule" | "ScheduleAnyway") {
                "whenUnsatisfiable is neither DoNotSchedule nor ScheduleAnyway"
            } else if spread.min_domains.is_some_and(|min| min < 1 || spread.when_unsatisfiable != "DoNotSchedule") {
                "minDomains must be at least 1 and goes with DoNotSchedule"
            } else if !seen.insert((&spread.topology_key, &spread.when_unsatisfiable)) {
                "topologyKey and whenUnsatisfiable are those of another entry"
            } else {
                continue;
            };
            problems.push(format!("topologySpreadConstraints[{index}]: {what}"));
        }
        problems
    }

    /// What Kubernetes would refuse of the Services and the Ingress for those outside, and no schema can say.
    fn outside_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let services = self.external_access.as_ref().map(|access| ("externalAccess.annotations", &access.annotations));
        let ingress = self.ingress.as_ref().map(|ingress| ("ingress.annotations", &ingress.annotations));
        for (field, annotations) in [services, ingress].into_iter().flatten() {
            problems.extend(no_annotations(field, annotations));
            let reserved = annotations.keys().filter(|key| key.starts_with(RESERVED_LABELS));
            problems.extend(reserved.map(|key| format!("{field}: {key} is set by the operator; take it out")));
        }
        let host = self.ingress.as_ref().map_or("", |ingress| &ingress.host);
        if host.parse::<std::net::IpAddr>().is_ok() {
            problems.push(format!("ingress.host: {host} is an address; an Ingress serves a name"));
        }
        problems
    }

    /// What is asked for that this release of the operator does not do yet.
    fn unsupported(&self) -> Vec<String> {
        let asked = [(self.metrics.service_monitor, "metrics.serviceMonitor")];
        let field = |(asked, field): (bool, &str)| {
            asked.then(|| format!("{field}: not supported by this release of the operator; take it out"))
        };
        let mut unsupported: Vec<String> = asked.into_iter().filter_map(field).collect();
        if let Some(AuthMechanism::Scram | AuthMechanism::Token) = self.auth.mechanism.filter(|_| self.auth.enabled) {
            let what = "auth.mechanism: the operator would have to log in as a client to make topics and to see partitions, which it does by certificate only; set it to mtls";
            unsupported.push(what.to_owned());
        }
        unsupported
    }

    /// The ConfigMap with the rules of who may do what, where rules are to be enforced.
    pub fn rules(&self) -> Option<&str> {
        self.auth.rbac.config_map_name.as_deref().filter(|_| self.auth.enabled && self.auth.rbac.enabled)
    }
}

/// A registry's rule for a tag.
fn is_tag(text: &str) -> bool {
    let starts = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= 128 && text.starts_with(starts) && text.chars().all(|c| starts(c) || matches!(c, '.' | '-'))
}

/// Kubernetes' rules for requests and limits.
fn resource_problems(resources: Option<&ResourceRequirements>) -> Vec<String> {
    let mut problems = Vec::new();
    let Some(resources) = resources else { return problems };
    for (list, quantities) in [("requests", &resources.requests), ("limits", &resources.limits)] {
        for (resource, quantity) in quantities.iter().flatten() {
            let is_standard = is_standard_resource(resource);
            if !(is_standard || resource.starts_with("hugepages-") || resource.contains('/') && is_label_key(resource))
            {
                problems.push(format!("resources.{list}: {resource:?} is no resource of a container"));
            }
            let value = nanos(&quantity.0);
            if !is_standard && value.is_some_and(|value| value % 1_000_000_000 != 0) {
                problems.push(format!("resources.{list}.{resource}: {:?} is not a whole number", quantity.0));
            }
            if value.is_none_or(|value| value < 0) {
                problems.push(format!(
                    "resources.{list}.{resource}: {:?} is not a quantity; write one such as 500m or 2Gi",
                    quantity.0
                ));
            }
        }
    }
    for (resource, request) in resources.requests.iter().flatten() {
        let limit = resources.limits.as_ref().and_then(|limits| limits.get(resource));
        let (limit, request) = (limit.and_then(|limit| nanos(&limit.0)), nanos(&request.0));
        if limit.zip(request).is_some_and(|(limit, request)| request > limit) {
            problems.push(format!("resources.requests.{resource}: is more than resources.limits.{resource}; lower it"));
        } else if !is_standard_resource(resource) && limit != request {
            problems
                .push(format!("resources.requests.{resource}: such a resource needs a limit that equals the request"));
        }
    }
    problems
}

/// Kubernetes' rules for names and values of labels.
fn label_problems(field: &str, map: &BTreeMap<String, String>) -> Vec<String> {
    let keys = map.keys().filter(|key| !is_label_key(key));
    let values = map.iter().filter(|(_, value)| !is_label_value(value));
    keys.map(|key| format!("{field}: {key:?} is no name of a label"))
        .chain(values.map(|(key, value)| format!("{field}: {value:?}, the value of {key}, is no value of a label")))
        .collect()
}

fn toleration_problems(tolerations: &[Toleration]) -> Vec<String> {
    let problem = |(index, toleration): (usize, &Toleration)| {
        toleration_problem(toleration).map(|problem| format!("tolerations[{index}]: {problem}"))
    };
    tolerations.iter().enumerate().filter_map(problem).collect()
}

/// A resource of which a pod may get more than it asks for.
fn is_standard_resource(resource: &str) -> bool {
    matches!(resource, "cpu" | "memory" | "ephemeral-storage")
}

/// Those whose names Kubernetes would refuse.
fn no_annotations(field: &str, annotations: &BTreeMap<String, String>) -> Vec<String> {
    let wrong = annotations.keys().filter(|key| !is_label_key(key));
    wrong.map(|key| format!("{field}: {key:?} is no name of an annotation")).collect()
}

/// Kubernetes' rules for a toleration.
fn toleration_problem(toleration: &Toleration) -> Option<&'static str> {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (key, operator, value, effect) =
        (text(&toleration.key), text(&toleration.operator), text(&toleration.value), text(&toleration.effect));
    let exists = operator == "Exists";
    let rules = [
        (matches!(operator.as_str(), "" | "Equal" | "Exists"), "operator is neither Equal nor Exists"),
        (exists || !key.is_empty(), "without a key, operator must be Exists"),
        (key.is_empty() || is_label_key(&key), "key is no name of a taint"),
        (!exists || value.is_empty(), "with operator Exists there must be no value"),
        (is_label_value(&value), "value is no value of a taint"),
        (
            matches!(effect.as_str(), "" | "NoSchedule" | "PreferNoSchedule" | "NoExecute"),
            "effect is none of NoSchedule, PreferNoSchedule and NoExecute",
        ),
        (
            toleration.toleration_seconds.is_none() || effect == "NoExecute",
            "tolerationSeconds goes with effect NoExecute",
        ),
    ];
    rules.into_iter().find(|(holds, _)| !holds).map(|(_, problem)| problem)
}

/// Kubernetes' rule for the value of a label, and for the name in its key.
fn is_label_value(text: &str) -> bool {
    let (inner, edge) =
        (|c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'), |c: char| c.is_ascii_alphanumeric());
    text.is_empty() || (text.len() <= 63 && text.chars().all(inner) && text.starts_with(edge) && text.ends_with(edge))
}

fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let is_part = |part: &str| {
        let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        part.starts_with(edge) && part.ends_with(edge) && part.chars().all(|c| edge(c) || c == '-')
    };
    !name.is_empty()
        && is_label_value(name)
        && prefix.is_none_or(|prefix| prefix.len() <= 253 && prefix.split('.').all(is_part))
}

impl RivvenConnectSpec {
    /// What is wrong with this spec as a whole. What is wrong with one connector is said where it is translated.
    pub fn problems(&self, name: &str) -> Vec<String> {
        let mut problems = Vec::new();
        if name.len() > CONNECT_NAME_LIMIT {
            problems.push(format!("metadata.name: has {} characters and may have {CONNECT_NAME_LIMIT}; create the connect under a shorter name", name.len()));
        }
        if name.contains('.') {
            problems.push(
                "metadata.name: has a dot, which no Service name may have; create the connect under another name"
                    .to_owned(),
            );
        }
        if self.replicas > 99 {
            problems.push(format!("replicas: {} is more than 99", self.replicas));
        }
        let sources = self.sources.iter().map(|source| ("sources", source.name.as_str()));
        let mut seen = BTreeSet::new();
        for (field, name) in sources.chain(self.sinks.iter().map(|sink| ("sinks", sink.name.as_str()))) {
            if !seen.insert((field, name)) {
                problems.push(format!("{field}: the name {name} is there twice"));
            }
            if !is_connector_name(name) {
                problems.push(format!("{field}: {name:?} is no name of a connector"));
            }
        }
        if self.tls.enabled && self.tls.cert_secret_name.is_none() && self.tls.issuer_ref.is_none() {
            problems.push("tls.enabled: needs tls.certSecretName".to_owned());
        }
        let (health, metrics) = (&self.settings.health, &self.settings.metrics);
        if health.enabled && metrics.enabled && health.port == metrics.port {
            problems.push(format!("settings.metrics.port: {} is the health port too; set another", metrics.port));
        }
        if self.settings.retry.initial_backoff_ms > self.settings.retry.max_backoff_ms {
            problems.push("settings.retry.initialBackoffMs: is more than maxBackoffMs; lower it".to_owned());
        }
        problems.extend(label_problems("nodeSelector", &self.node_selector));
        problems.extend(resource_problems(self.resources.as_ref()));
        problems.extend(toleration_problems(&self.tolerations));
        problems
    }

    /// What is asked for that this release of the operator does not do yet.
    pub fn unsupported(&self) -> Vec<String> {
        let asked = [
            (self.tls.issuer_ref.is_some(), "tls.issuerRef"),
            (self.tls.client_ca_secret_name.is_some(), "tls.clientCaSecretName"),
        ];
        let field = |(asked, field): (bool, &str)| {
            asked.then(|| format!("{field}: not supported by this release of the operator; take it out"))
        };
        asked.into_iter().filter_map(field).collect()
    }
}

/// The schema's rule for the name of a connector.
fn is_connector_name(name: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    let inner = |c: char| edge(c) || matches!(c, '.' | '_' | '-');
    (1..=63).contains(&name.len()) && name.chars().all(inner) && name.starts_with(edge) && name.ends_with(edge)
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
        if !(1..=1000).contains(&spec.partitions) {
            problems.push(format!("partitions: {} is not between 1 and 1000", spec.partitions));
        }
        if !(1..=99).contains(&spec.replication_factor) {
            problems.push(format!("replicationFactor: {} is not between 1 and 99", spec.replication_factor));
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
