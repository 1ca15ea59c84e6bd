//! Topic configuration: all keys, what they accept, and how they refuse.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, bail};
use rivven_client::Client;
use rivven_protocol::{Request, Response};

use crate::expect::{refused, same};
use crate::single::Single;

struct Key {
    name: &'static str,
    default: &'static str,
    /// What may be set, and how it is shown then.
    accepted: &'static [(&'static str, &'static str)],
    /// What may not be set, and what is said.
    refused: &'static [(&'static str, &'static str)],
}

const NOT_A_NUMBER: &str = "invalid digit found in string";

const KEYS: &[Key] = &[
    Key {
        name: "cleanup.policy",
        default: "delete",
        accepted: &[
            ("compact", "compact"),
            ("compact,delete", "compact,delete"),
            ("delete,compact", "compact,delete"),
            ("delete", "delete"),
        ],
        refused: &[("burn", "Invalid cleanup policy: burn")],
    },
    Key {
        name: "compression.type",
        default: "producer",
        accepted: &[
            ("none", "none"),
            ("lz4", "lz4"),
            ("zstd", "zstd"),
            ("snappy", "snappy"),
            ("gzip", "gzip"),
            ("producer", "producer"),
        ],
        refused: &[("rar", "Invalid compression type: rar")],
    },
    Key {
        name: "max.message.bytes",
        default: "1048576",
        accepted: &[("1", "1"), ("2097152", "2097152")],
        refused: &[("0", "max.message.bytes must be > 0"), ("big", NOT_A_NUMBER)],
    },
    Key {
        name: "min.insync.replicas",
        default: "1",
        accepted: &[("1", "1")],
        refused: &[("0", "min.insync.replicas must be > 0"), ("x", NOT_A_NUMBER)],
    },
    Key {
        name: "retention.bytes",
        default: "-1",
        accepted: &[("0", "0"), ("1073741824", "1073741824"), ("-1", "-1")],
        refused: &[("-2", "retention.bytes must be >= -1 (-1 = infinite)"), ("1G", NOT_A_NUMBER)],
    },
    Key {
        name: "retention.ms",
        default: "604800000",
        accepted: &[("3600000", "3600000"), ("-1", "-1")],
        refused: &[("-2", "retention.ms must be >= -1 (-1 = infinite)"), ("1h", NOT_A_NUMBER)],
    },
    Key {
        name: "segment.bytes",
        default: "1073741824",
        accepted: &[("1024", "1024"), ("1048576", "1048576")],
        refused: &[("1023", "segment.bytes must be >= 1024"), ("1k", NOT_A_NUMBER)],
    },
    Key {
        name: "segment.ms",
        default: "604800000",
        accepted: &[("60000", "60000"), ("-1", "-1")],
        refused: &[("-2", "segment.ms must be >= -1 (-1 = infinite)"), ("x", NOT_A_NUMBER)],
    },
];

/// What a topic shows that nobody configured.
pub(super) fn expected_defaults() -> HashMap<String, String> {
    KEYS.iter().map(|key| (key.name.to_owned(), key.default.to_owned())).collect()
}

/// The configuration of one topic.
pub(super) async fn described(client: &mut Client, topic: &str) -> Result<HashMap<String, String>> {
    let mut configs = client.describe_topic_configs(&[topic]).await?;
    configs.remove(topic).with_context(|| format!("{topic} is not described"))
}

async fn topic(on: &Single, topic: &str) -> Result<Client> {
    let mut client = on.client().await?;
    client.create_topic(topic, Some(1)).await?;
    Ok(client)
}

pub(super) async fn defaults(on: &mut Single) -> Result<()> {
    let mut client = topic(on, "config-defaults").await?;
    same("defaults", &described(&mut client, "config-defaults").await?, &expected_defaults())
}

pub(super) async fn every_key(on: &mut Single) -> Result<()> {
    let mut client = topic(on, "config-keys").await?;
    for key in KEYS {
        for &(set, shown) in key.accepted {
            let altered = client.alter_topic_config("config-keys", &[(key.name, Some(set))]).await?;
            same("changed", &altered.changed_count, &1)?;
            let now = described(&mut client, "config-keys").await?;
            same(&format!("{}={set}", key.name), &now.get(key.name).map(String::as_str), &Some(shown))?;
        }
    }
    let several = [("retention.ms", Some("1000")), ("segment.ms", Some("2000"))];
    let altered = client.alter_topic_config("config-keys", &several).await?;
    same("changed at once", &altered.changed_count, &2)
}

pub(super) async fn reset(on: &mut Single) -> Result<()> {
    let mut client = topic(on, "config-reset").await?;
    let changes = [("retention.ms", Some("1000")), ("cleanup.policy", Some("compact"))];
    client.alter_topic_config("config-reset", &changes).await?;
    let shown = flags(on, "config-reset").await?;
    same("set keys are not defaults", &(shown["retention.ms"], shown["segment.ms"]), &(false, true))?;
    client.alter_topic_config("config-reset", &[("retention.ms", None), ("cleanup.policy", None)]).await?;
    same("reset", &described(&mut client, "config-reset").await?, &expected_defaults())?;
    same("after the reset", &flags(on, "config-reset").await?.values().all(|default| *default), &true)
}

/// `is_default` of each key, which the published client drops.
async fn flags(on: &Single, topic: &str) -> Result<BTreeMap<String, bool>> {
    let request = Request::DescribeTopicConfigs { topics: vec![topic.to_owned()] };
    let Response::TopicConfigsDescribed { configs } = on.wire().await?.ask(&request).await? else {
        bail!("not described")
    };
    let [description] = configs.as_slice() else { bail!("not one description: {configs:?}") };
    Ok(description.configs.iter().map(|(key, value)| (key.clone(), value.is_default)).collect())
}

pub(super) async fn unknown_key(on: &mut Single) -> Result<()> {
    let mut client = topic(on, "config-unknown-key").await?;
    for key in ["replication.factor", "retention.minutes", ""] {
        let message = format!("INVALID_CONFIG: Unknown configuration key: {key}");
        refused(client.alter_topic_config("config-unknown-key", &[(key, Some("1"))]).await, &message)?;
    }
    same("nothing changed", &described(&mut client, "config-unknown-key").await?, &expected_defaults())
}

pub(super) async fn bad_values(on: &mut Single) -> Result<()> {
    let mut client = topic(on, "config-bad").await?;
    for key in KEYS {
        for &(value, reason) in key.refused {
            let message = if reason == NOT_A_NUMBER {
                format!("INVALID_CONFIG: Invalid {}: {reason}", key.name)
            } else {
                format!("INVALID_CONFIG: {reason}")
            };
            refused(client.alter_topic_config("config-bad", &[(key.name, Some(value))]).await, &message)?;
        }
    }
    same("nothing changed", &described(&mut client, "config-bad").await?, &expected_defaults())
}

pub(super) async fn not_atomic(on: &mut Single) -> Result<()> {
    let mut client = topic(on, "config-half").await?;
    let changes = [("segment.bytes", Some("4096")), ("nonsense", Some("1")), ("retention.ms", Some("1"))];
    let message = "INVALID_CONFIG: Unknown configuration key: nonsense";
    refused(client.alter_topic_config("config-half", &changes).await, message)?;
    let mut expected = expected_defaults();
    expected.insert("segment.bytes".to_owned(), "4096".to_owned());
    same("config", &described(&mut client, "config-half").await?, &expected)
}

pub(super) async fn unknown_topic(on: &mut Single) -> Result<()> {
    let mut client = on.client().await?;
    same("described", &described(&mut client, "config-of-nothing").await?, &expected_defaults())?;
    let message = "UNKNOWN_TOPIC_OR_PARTITION: Topic 'config-of-nothing' not found";
    refused(client.alter_topic_config("config-of-nothing", &[("retention.ms", Some("1"))]).await, message)
}
