//! Specs, in and out of range, of right and wrong types.

#![allow(dead_code, reason = "not every test uses all of it")]

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

/// Text, plain and odd.
pub fn text() -> BoxedStrategy<Value> {
    prop_oneof![
        select(vec![
            "",
            "a",
            "latest",
            "0.1.0",
            "0.2.0",
            "0.0.22",
            "0.1.0",
            "v1.2.3",
            "99999999999999999999.0.0",
            "wal",
            "a.b",
            "A_b",
            "-",
            "ü→🦀",
            "a\0b",
            "a b"
        ])
        .prop_map(|text| json!(text)),
        "[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?".prop_map(Value::String),
        any::<String>().prop_map(Value::String),
        (0_usize..400).prop_map(|length| Value::String("x".repeat(length))),
    ]
    .boxed()
}

fn quantity() -> BoxedStrategy<Value> {
    prop_oneof![
        4 => "[0-9]{1,4}(\\.[0-9]{1,4})?(k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?".prop_map(Value::String),
        1 => "[+-]?[0-9.]{0,40}([eE][+-]?[0-9]{1,12}|[a-zA-Z]{0,3})".prop_map(Value::String),
        1 => text(),
        1 => number(),
    ]
    .boxed()
}

fn number() -> BoxedStrategy<Value> {
    prop_oneof![
        60 => (0_i64..120).prop_map(|n| json!(n)),
        4 => (1024_i64..1 << 40).prop_map(|n| json!(n)),
        1 => any::<i64>().prop_map(|n| json!(n)),
        1 => any::<u64>().prop_map(|n| json!(n)),
        1 => any::<f64>().prop_map(|n| json!(n)),
        1 => select(vec![0, -1, -2, i64::from(i32::MAX), i64::from(u32::MAX), i64::from(u32::MAX) + 1, i64::MIN, i64::MAX]).prop_map(|n| json!(n)),
    ]
    .boxed()
}

fn flag() -> BoxedStrategy<Value> {
    any::<bool>().prop_map(|flag| json!(flag)).boxed()
}

fn words(words: &'static [&'static str]) -> BoxedStrategy<Value> {
    select(words).prop_map(|word| json!(word)).boxed()
}

fn labels() -> BoxedStrategy<Value> {
    let key = prop_oneof![
        4 => "([a-z.]{1,9}/)?[a-z0-9]{1,9}".boxed(),
        1 => select(vec!["rivven.io/cluster", "app.kubernetes.io/name", "", "/", "a/b/c"]).prop_map(str::to_owned).boxed(),
        1 => any::<String>().boxed(),
    ];
    proptest::collection::btree_map(key, prop_oneof![4 => "[a-z0-9]{0,9}".boxed(), 1 => any::<String>().boxed()], 0..4)
        .prop_map(|map| json!(map))
        .boxed()
}

fn list(item: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    proptest::collection::vec(item, 0..4).prop_map(Value::Array).boxed()
}

/// Anything at all, of any type.
fn anything() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![Just(Value::Null), flag(), number(), text()];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            proptest::collection::btree_map("[a-zA-Z]{1,9}", inner, 0..3).prop_map(|map| json!(map)),
        ]
    })
    .boxed()
}

/// An object of some of these fields; now and then one is of another type.
fn object(fields: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    let fields: Vec<_> = fields
        .into_iter()
        .map(|(name, value)| {
            let value = prop_oneof![60 => value.prop_map(Some), 1 => anything().prop_map(Some), 180 => Just(None)];
            value.prop_map(move |value| value.map(|value| (name.to_owned(), value)))
        })
        .collect();
    fields.prop_map(|fields| Value::Object(fields.into_iter().flatten().collect::<Map<_, _>>())).boxed()
}

/// The spec of a connect, right or wrong, but for the reference to its cluster.
pub fn connect_spec() -> BoxedStrategy<Value> {
    let named = |fields: BoxedStrategy<Value>, least: Value| {
        fields
            .prop_map(move |fields| {
                let mut whole = least.clone();
                if let (Some(whole), Value::Object(fields)) = (whole.as_object_mut(), fields) {
                    whole.extend(fields);
                }
                whole
            })
            .boxed()
    };
    let source = object(vec![
        ("name", text()),
        ("topic", text()),
        ("enabled", flag()),
        ("config", anything()),
        ("topicConfig", object(vec![("partitions", number()), ("replicationFactor", number())])),
        (
            "datagen",
            object(vec![
                ("eventsPerSecond", number()),
                ("maxEvents", number()),
                ("seed", number()),
                ("pattern", text()),
            ]),
        ),
        ("tables", list(object(vec![("schema", text()), ("table", text()), ("columnMasks", labels())]))),
    ]);
    let sink = object(vec![
        ("topics", list(text())),
        ("startOffset", words(&["earliest", "latest", "timestamp", "now"])),
        ("rateLimit", object(vec![("eventsPerSecond", number()), ("burstCapacity", number())])),
        ("stdout", object(vec![("format", text()), ("includeMetadata", flag())])),
    ]);
    object(vec![
        ("replicas", number()),
        ("version", text()),
        ("sources", list(named(source, json!({ "name": "s", "connector": "datagen", "topic": "t" })))),
        (
            "sinks",
            list(named(sink, json!({ "name": "s", "connector": "stdout", "topics": ["t"], "consumerGroup": "g" }))),
        ),
        (
            "settings",
            object(vec![
                ("topic", object(vec![("autoCreate", flag()), ("defaultPartitions", number())])),
                (
                    "retry",
                    object(vec![("maxRetries", number()), ("initialBackoffMs", number()), ("maxBackoffMs", number())]),
                ),
                ("health", object(vec![("enabled", flag()), ("port", number())])),
                ("metrics", object(vec![("enabled", flag()), ("port", number())])),
            ]),
        ),
        ("nodeSelector", labels()),
        ("paused", flag()),
    ])
}

fn with_type(access: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    (access, words(&["LoadBalancer", "NodePort", "ClusterIP"]))
        .prop_map(|(mut access, kind)| {
            if access.is_object() {
                access["type"] = kind;
            }
            access
        })
        .boxed()
}

/// The spec of a cluster, right or wrong.
#[allow(clippy::too_many_lines, reason = "a table of fields")]
pub fn cluster_spec() -> BoxedStrategy<Value> {
    let resources = || {
        proptest::collection::btree_map(select(vec!["cpu", "memory", "x/y"]), quantity(), 0..3)
            .prop_map(|map| json!(map))
            .boxed()
    };
    object(vec![
        // Weighted to what can be accepted: other numbers and versions are refused whatever else the spec says.
        ("replicas", prop_oneof![4 => Just(json!(1)), 1 => number()].boxed()),
        (
            "version",
            prop_oneof![4 => select(vec![json!("0.0.22"), json!("latest"), json!("0.1.0")]), 1 => text()].boxed(),
        ),
        ("image", text()),
        ("imagePullPolicy", words(&["Always", "IfNotPresent", "Never", "never"])),
        ("imagePullSecrets", list(object(vec![("name", text())]))),
        (
            "storage",
            object(vec![
                ("size", quantity()),
                ("storageClassName", text()),
                ("reclaimPolicy", words(&["Retain", "Delete"])),
                ("scaleInPolicy", words(&["Retain", "Delete"])),
            ]),
        ),
        ("resources", object(vec![("requests", resources()), ("limits", resources())])),
        (
            "config",
            object(vec![
                ("defaultPartitions", number()),
                ("defaultReplicationFactor", number()),
                ("minInsyncReplicas", number()),
                ("logRetentionHours", number()),
                ("logRetentionBytes", number()),
                ("logSegmentBytes", number()),
                ("maxRequestBytes", number()),
                ("idleTimeoutSeconds", number()),
                ("maxConnectionsPerIp", number()),
                ("logLevel", text()),
            ]),
        ),
        (
            "tls",
            object(vec![
                ("enabled", flag()),
                ("certSecretName", text()),
                ("issuerRef", object(vec![("name", text())])),
            ]),
        ),
        (
            "auth",
            object(vec![
                ("enabled", flag()),
                ("mechanism", words(&["mtls", "scram", "token"])),
                ("scramSecretName", text()),
                ("rbac", object(vec![("enabled", flag())])),
            ]),
        ),
        ("metrics", object(vec![("enabled", flag()), ("port", number()), ("serviceMonitor", flag())])),
        ("nodeSelector", labels()),
        ("podLabels", labels()),
        ("podAnnotations", labels()),
        (
            "tolerations",
            list(object(vec![
                ("key", words(&["a", "a/b", "", "a b"])),
                ("operator", words(&["Exists", "Equal", "Has"])),
                ("value", text()),
                ("effect", words(&["NoSchedule", "NoExecute", "Never"])),
                ("tolerationSeconds", number()),
            ])),
        ),
        (
            "topologySpreadConstraints",
            list(
                (
                    number(),
                    words(&["a", "b", "a b"]),
                    words(&["DoNotSchedule", "ScheduleAnyway", "Hope"]),
                    proptest::option::of(number()),
                )
                    .prop_map(|(skew, key, when, domains)| {
                        let mut spread = json!({ "maxSkew": skew, "topologyKey": key, "whenUnsatisfiable": when });
                        if let Some(domains) = domains {
                            spread["minDomains"] = domains;
                        }
                        spread
                    })
                    .boxed(),
            ),
        ),
        (
            "env",
            list(object(vec![
                ("name", prop_oneof![text(), words(&["RIVVEN_MODE", "A=B"])].boxed()),
                ("value", text()),
            ])),
        ),
        ("terminationGracePeriodSeconds", number()),
        ("securityContext", object(vec![("runAsUser", number()), ("fsGroup", number())])),
        ("priorityClassName", text()),
        ("serviceAccountName", text()),
        ("paused", flag()),
        ("rebalance", flag()),
        ("allowedNamespaces", list(text())),
        (
            "networkPolicy",
            object(vec![("enabled", flag()), ("monitoringFrom", list(text())), ("ingressFrom", list(text()))]),
        ),
        ("externalAccess", with_type(object(vec![("annotations", labels())]))),
        (
            "ingress",
            object(vec![
                ("host", words(&["x.example", "*.x.example", "x", "10.0.0.1", "*", "x_y.example"])),
                ("className", text()),
                ("tlsSecretName", text()),
                ("annotations", labels()),
            ]),
        ),
        ("maintenanceWindows", list(object(vec![("schedule", text()), ("durationMinutes", number())]))),
    ])
}

/// A topic, right or wrong.
pub fn topic_object() -> BoxedStrategy<Value> {
    let spec = object(vec![
        ("topicName", text()),
        ("partitions", number()),
        ("replicationFactor", number()),
        (
            "config",
            object(vec![
                ("retentionMs", number()),
                ("retentionBytes", number()),
                ("segmentBytes", number()),
                ("cleanupPolicy", words(&["delete", "compact", "delete,compact", "compact,delete", "keep"])),
                ("compressionType", words(&["none", "producer", "gzip", "snappy", "lz4", "zstd", "brotli"])),
                ("minInsyncReplicas", number()),
                ("maxMessageBytes", number()),
            ]),
        ),
        (
            "acls",
            list(object(vec![("principal", text()), ("operations", list(words(&["Read", "Write", "All", "Fly"])))])),
        ),
        ("deleteOnRemove", flag()),
        ("topicLabels", labels()),
    ]);
    (spec, text())
        .prop_map(|(mut spec, name)| {
            if spec.is_object() {
                spec["clusterRef"] = json!({ "name": "a" });
            }
            json!({ "apiVersion": "rivven.io/v1alpha1", "kind": "RivvenTopic", "metadata": { "name": name }, "spec": spec })
        })
        .boxed()
}

/// At most `most` fields of an object: what is left is more often right.
pub fn few(object: BoxedStrategy<Value>, most: usize) -> BoxedStrategy<Value> {
    let keep = proptest::collection::vec(any::<prop::sample::Index>(), 0..=most);
    (object, keep)
        .prop_map(|(object, keep)| match object {
            Value::Object(fields) if !fields.is_empty() => {
                let all: Vec<_> = fields.into_iter().collect();
                Value::Object(keep.iter().map(|index| index.get(&all).clone()).collect())
            }
            other => other,
        })
        .boxed()
}
