//! A connector of a spec as the worker takes it: the worker's name for it, its keys, and its secrets as variables.

use std::collections::BTreeMap;

use rivven_fsm::connect::{Connector, Role};
use rivven_fsm::{Reason, Refusal};
use serde_json::{Map, Value, json};

use super::text::{Node, escaped};
use crate::api::RivvenConnectSpec;
use crate::api::connectors::{SinkConnector, SnapshotMode, SourceConnector, StartOffset, Table};

/// What a Secret holds, by key.
pub type SecretData = BTreeMap<String, Vec<u8>>;

/// What a connector is to the worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Translated {
    /// Its entry under `sources` or `sinks`.
    pub entry: Node,
    /// The environment that the entry takes values from, as it must be pasted.
    pub variables: BTreeMap<String, String>,
}

/// What the released worker has, built with everything (0.0.22).
const SOURCES: &[&str] =
    &["datagen", "http", "kafka", "mqtt", "mysql-cdc", "postgres-cdc", "pubsub", "rdbc-source", "sqlserver-cdc", "sqs"];
const SINKS: &[&str] = &[
    "azure-blob",
    "bigquery",
    "clickhouse",
    "databricks",
    "delta-lake",
    "gcs",
    "http-webhook",
    "iceberg",
    "kafka",
    "object-storage",
    "pinecone",
    "qdrant",
    "rdbc-sink",
    "redshift",
    "s3",
    "s3-vectors",
    "snowflake",
    "sqs",
    "stdout",
];
/// The image of the released worker: another one may have connectors of its own.
pub const RELEASED_IMAGE: &str = "ghcr.io/hupe1980/rivven-connect";
/// The last release that is known not to be able to: to follow PostgreSQL, and to speak TLS.
const LAST_LOOKED_AT: semver::Version = semver::Version::new(0, 0, 22);
/// Keys that the worker takes as numbers.
const NUMBERS: &[&str] = &["port", "server_id"];
/// The longest name of a key in a Secret.
const KEY_LIMIT: usize = 253;
/// Placeholders of a topic's pattern.
const PLACEHOLDERS: &[&str] = &["database", "schema", "table"];

fn refusal(message: impl Into<String>) -> Refusal {
    Refusal { reason: Reason::ConnectorRefused, message: message.into() }
}

fn not_yet(message: impl Into<String>) -> Refusal {
    Refusal { reason: Reason::NotSupportedByOperator, message: message.into() }
}

/// A source as the worker takes it.
pub fn source(source: &SourceConnector, image: &str, secret: Option<&SecretData>) -> Result<Translated, Refusal> {
    known(&source.connector, SOURCES, image)?;
    let id = Connector { role: Role::Source, name: source.name.clone() };
    let mut typed = Map::new();
    let cdc = matches!(source.connector.as_str(), "postgres-cdc" | "mysql-cdc");
    if let Some(pattern) = &source.topic_routing {
        if !cdc {
            return Err(refusal(
                "topicRouting: the worker routes the records of postgres-cdc and mysql-cdc only; take it out",
            ));
        }
        routing(pattern)?;
        typed.insert("topic_routing".to_owned(), json!(pattern));
    }
    let in_cdc = source.postgres_cdc.as_ref().map(|c| &c.tables).or(source.mysql_cdc.as_ref().map(|c| &c.tables));
    let tables = if source.tables.is_empty() { in_cdc } else { Some(&source.tables) };
    if let Some(tables) = tables.filter(|tables| !tables.is_empty()) {
        let key = match source.connector.as_str() {
            "postgres-cdc" => "tables",
            "mysql-cdc" => "include_tables",
            _ => return Err(refusal("tables: go with postgres-cdc and mysql-cdc only; take them out")),
        };
        typed.insert(key.to_owned(), json!(table_names(tables)?));
    }
    source_fields(source, &mut typed)?;
    let (config, variables) = config(&id, Value::Object(typed), &source.config, secret, |key| match key {
        "publication" if source.connector == "postgres-cdc" => vec!["publication_name"],
        other => other.split('.').collect(),
    })?;
    ends_by_itself(source, &config)?;
    required(&config, source_needs(&source.connector))?;
    if source.connector == "postgres-cdc" {
        whole(&config)?;
    }
    let topic_config = source
        .topic_config
        .as_ref()
        .map(|topic| json!({ "partitions": topic.partitions, "replication_factor": topic.replication_factor }));
    let mut entry: Node = json!({ "connector": source.connector, "topic": source.topic }).into();
    if let Some(topic_config) = topic_config {
        entry.put(&["topic_config"], topic_config.into());
    }
    entry.put(&["config"], config);
    Ok(Translated { entry, variables })
}

/// A sink as the worker takes it, reading `topics`.
pub fn sink(
    sink: &SinkConnector,
    image: &str,
    topics: &[String],
    secret: Option<&SecretData>,
) -> Result<Translated, Refusal> {
    // Its own `http` posts a batch without headers or retries; what the documents describe is its webhook.
    let connector = if sink.connector == "http" { "http-webhook" } else { sink.connector.as_str() };
    known(connector, SINKS, image)?;
    let id = Connector { role: Role::Sink, name: sink.name.clone() };
    let mut typed = Map::new();
    sink_fields(sink, &mut typed)?;
    let is_s3 = connector == "s3";
    let (config, variables) = config(&id, Value::Object(typed), &sink.config, secret, |key| match key {
        "region" | "endpoint" | "access_key_id" | "secret_access_key" if is_s3 => vec!["s3", key],
        other => other.split('.').collect(),
    })?;
    required(&config, sink_needs(connector))?;
    let start = match sink.start_offset {
        StartOffset::Latest => "latest",
        StartOffset::Earliest => "earliest",
        StartOffset::Timestamp => {
            return Err(not_yet(
                "startOffset: timestamp needs a time, for which there is no field; set earliest or latest",
            ));
        }
    };
    let mut entry: Node = json!({
        "connector": connector,
        "topics": topics,
        "consumer_group": sink.consumer_group,
        "start_offset": start,
        // The worker commits only when the number of records so far happens to be a multiple of this.
        "offset_commit_interval": 1,
    })
    .into();
    if let Some(limit) = sink.rate_limit.as_ref().filter(|limit| limit.events_per_second > 0) {
        let mut rate = json!({ "events_per_second": limit.events_per_second });
        if let Some(burst) = limit.burst_capacity {
            rate["burst_capacity"] = json!(burst);
        }
        entry.put(&["rate_limit"], rate.into());
    }
    entry.put(&["config"], config);
    Ok(Translated { entry, variables })
}

/// A tag or a digest does not make it another worker.
fn is_released(image: &str) -> bool {
    let name = image.split('@').next().unwrap_or_default();
    name == RELEASED_IMAGE || name.strip_prefix(RELEASED_IMAGE).is_some_and(|tag| tag.starts_with(':'))
}

/// Refuses the source with which the released worker goes down, and every other connector on it: `postgres-cdc` takes the
/// string by which it has just connected for a URL, and its end ends the process (observed on 0.0.22).
pub fn check_source(source: &SourceConnector, image: &str, version: &str) -> Result<(), Refusal> {
    if source.connector != "postgres-cdc" || !is_released(image) || is_newer(image, version) {
        return Ok(());
    }
    Err(refusal(
        "postgres-cdc: the released worker (0.0.22) cannot follow PostgreSQL and would go down, with every connector on it; set image to a worker of yours that can, or take the source out",
    ))
}

/// What the worker cannot do at all: one more reason to run nothing of the spec.
pub fn lacking(spec: &RivvenConnectSpec) -> Vec<String> {
    if !spec.tls.enabled || !is_released(&spec.image) || is_newer(&spec.image, &spec.version) {
        return Vec::new();
    }
    // It builds its TLS client on a default that nothing in it sets, as it does for PostgreSQL, where it was seen to panic.
    vec![
        "tls: the released worker (0.0.22) goes down at its first TLS connection; set image to a worker of yours that can, or take tls out".to_owned(),
    ]
}

/// Whether the worker is of a release after the last that was looked at.
fn is_newer(image: &str, version: &str) -> bool {
    let known = image_version(image).or_else(|| semver::Version::parse(version.trim_start_matches('v')).ok());
    known.is_some_and(|version| version > LAST_LOOKED_AT)
}

/// The version that a tag of the image names: it wins over `version`.
fn image_version(image: &str) -> Option<semver::Version> {
    let (_, tag) = image.rsplit_once(':')?;
    semver::Version::parse(tag.trim_start_matches('v')).ok()
}

fn known(connector: &str, all: &[&str], image: &str) -> Result<(), Refusal> {
    if is_released(image) && !all.contains(&connector) {
        return Err(refusal(format!(
            "connector: the worker has no {connector}; it has {}. An image of your own may have others",
            all.join(", ")
        )));
    }
    Ok(())
}

/// Tables by name. What the worker would leave out in silence is refused: a mask that is ignored shows what it hides.
fn table_names(tables: &[Table]) -> Result<Vec<String>, Refusal> {
    let mut names = Vec::new();
    for table in tables {
        let lacks = [
            (!table.column_masks.is_empty(), "columnMasks"),
            (!table.columns.is_empty(), "columns"),
            (table.topic.is_some(), "topic"),
        ];
        if let Some((_, field)) = lacks.into_iter().find(|(asked, _)| *asked) {
            return Err(refusal(format!(
                "tables: the worker has no {field} for a table ({}); take it out{}",
                table.table,
                if field == "topic" { " and set topicRouting" } else { "" }
            )));
        }
        names.push(
            table.schema.as_ref().map_or_else(|| table.table.clone(), |schema| format!("{schema}.{}", table.table)),
        );
    }
    Ok(names)
}

fn source_fields(source: &SourceConnector, typed: &mut Map<String, Value>) -> Result<(), Refusal> {
    let mut set = |key: &str, value: Value| {
        if !value.is_null() {
            typed.insert(key.to_owned(), value);
        }
    };
    if let Some(cdc) = &source.postgres_cdc {
        if cdc.decoding_plugin.as_ref().is_some_and(|plugin| plugin != "pgoutput") {
            return Err(refusal(
                "postgresCdc.decodingPlugin: the worker decodes pgoutput only; set it, or take it out",
            ));
        }
        set("slot_name", json!(cdc.slot_name));
        set("publication_name", json!(cdc.publication));
        set("snapshot", snapshot(cdc.snapshot_mode));
    }
    if let Some(cdc) = &source.mysql_cdc {
        set("server_id", json!(cdc.server_id));
        set("snapshot", snapshot(cdc.snapshot_mode));
    }
    if let Some(http) = &source.http {
        set("url", json!(http.url));
        set("poll_interval_ms", json!(http.poll_interval_ms));
    }
    if let Some(datagen) = &source.datagen {
        set("pattern", json!(datagen.pattern));
        set("events_per_second", json!(datagen.events_per_second));
        set("max_events", json!(datagen.max_events));
        set("seed", json!(datagen.seed));
    }
    Ok(())
}

fn snapshot(mode: Option<SnapshotMode>) -> Value {
    mode.map_or(Value::Null, |mode| json!({ "mode": mode }))
}

fn sink_fields(sink: &SinkConnector, typed: &mut Map<String, Value>) -> Result<(), Refusal> {
    let mut set = |key: &str, value: Value| {
        if !value.is_null() {
            typed.insert(key.to_owned(), value);
        }
    };
    if sink.elasticsearch.is_some() {
        return Err(refusal(
            "elasticsearch: the worker has no such connector; an image of your own may have one by `config`",
        ));
    }
    if sink.connector == "stdout" {
        // Its log is read by programs.
        set("color", json!(false));
    }
    if let Some(stdout) = &sink.stdout {
        set("format", json!(stdout.format));
        set("include_metadata", json!(stdout.include_metadata));
    }
    if let Some(http) = &sink.http_sink {
        set("url", json!(http.url));
        set("method", json!(http.method.as_ref().map(|method| method.to_uppercase())));
        if !http.headers.is_empty() {
            set("headers", json!(http.headers));
        }
        set("batch_size", json!(http.batch_size));
    }
    if let Some(s3) = &sink.s3 {
        for (field, value, takes) in [
            ("format", &s3.format, &["json", "jsonl", "avro", "csv", "parquet"][..]),
            ("compression", &s3.compression, &["none", "gzip"][..]),
            ("partitioning", &s3.partitioning, &["none", "day", "hour"][..]),
        ] {
            if let Some(value) = value.as_ref().filter(|value| !takes.contains(&value.as_str())) {
                return Err(refusal(format!("s3.{field}: the worker has no {value}; set one of {}", takes.join(", "))));
            }
            set(field, json!(value));
        }
        set("bucket", json!(s3.bucket));
        set("prefix", json!(s3.prefix));
        let store: Map<String, Value> = [("region", &s3.region), ("endpoint", &s3.endpoint)]
            .into_iter()
            .filter_map(|(key, value)| value.as_ref().map(|value| (key.to_owned(), json!(value))))
            .collect();
        if !store.is_empty() {
            set("s3", Value::Object(store));
        }
    }
    Ok(())
}

/// Typed fields, the free configuration over them, and each key of the Secret over both, as a variable.
fn config<'a>(
    id: &Connector,
    typed: Value,
    free: &Map<String, Value>,
    secret: Option<&'a SecretData>,
    path: impl Fn(&'a str) -> Vec<&'a str>,
) -> Result<(Node, BTreeMap<String, String>), Refusal> {
    let mut config: Node = typed.into();
    config.overlay(Value::Object(free.clone()).into());
    let mut variables = BTreeMap::new();
    for (key, bytes) in secret.into_iter().flatten() {
        let Ok(value) = std::str::from_utf8(bytes) else {
            return Err(refusal(format!("configSecretRef: the value of {key} is no text")));
        };
        let path = path(key);
        let bare = path.last().is_some_and(|last| NUMBERS.contains(last));
        if bare && value.parse::<u32>().is_err() {
            return Err(refusal(format!("configSecretRef: the value of {key} is no number")));
        }
        let name = variable(id, key);
        if name.len() > KEY_LIMIT {
            return Err(refusal(format!("configSecretRef: the key {key} is too long for a variable of the worker")));
        }
        config.put(&path, Node::Variable { name: name.clone(), bare });
        variables.insert(name, escaped(value));
    }
    Ok((config, variables))
}

/// The variable of a key of a connector's Secret. Letters and digits stay, the rest is told by its code, so that no two
/// connectors or keys share one: an underscore is followed by another, by two digits of a code, or by `KEY_`.
pub fn variable(id: &Connector, key: &str) -> String {
    let plain = |text: &str| -> String {
        text.bytes()
            .map(|byte| match byte {
                b'_' => "__".to_owned(),
                b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
                other => format!("_{other:02x}"),
            })
            .collect()
    };
    format!("{}_KEY_{}_KEY_{}", id.role.as_str().to_uppercase(), plain(&id.name), plain(key))
}

/// A source that ends takes its worker, and every connector on it, down with it; started again, it begins anew.
fn ends_by_itself(source: &SourceConnector, config: &Node) -> Result<(), Refusal> {
    let set = |path: &[&str]| match config.at(path) {
        Some(Node::Plain(value)) => value.clone(),
        _ => Value::Null,
    };
    let field = match source.connector.as_str() {
        "datagen" if set(&["max_events"]).as_u64().is_some_and(|events| events > 0) => "datagen.maxEvents",
        "postgres-cdc" if set(&["snapshot", "mode"]) == "initial_only" => "postgresCdc.snapshotMode initial_only",
        "mysql-cdc" if set(&["snapshot", "mode"]) == "initial_only" => "mysqlCdc.snapshotMode initial_only",
        _ => return Ok(()),
    };
    Err(not_yet(format!(
        "{field}: sources that end by themselves are not supported by this release of the operator; take it out"
    )))
}

fn source_needs(connector: &str) -> &'static [&'static str] {
    match connector {
        "http" => &["url"],
        "postgres-cdc" => &["host", "database", "user", "password"],
        "mysql-cdc" => &["host", "user", "password"],
        _ => &[],
    }
}

fn sink_needs(connector: &str) -> &'static [&'static str] {
    match connector {
        "http-webhook" => &["url"],
        "s3" => &["bucket"],
        _ => &[],
    }
}

fn required(config: &Node, keys: &[&str]) -> Result<(), Refusal> {
    let lacks: Vec<&str> = keys.iter().copied().filter(|key| config.at(&[key]).is_none()).collect();
    if lacks.is_empty() {
        return Ok(());
    }
    Err(refusal(format!(
        "{} is missing: give it in config, or in the Secret that configSecretRef names",
        lacks.join(", ")
    )))
}

/// A wrong value of `postgres-cdc` ends the whole worker, and every connector on it, at its start (observed on 0.0.22).
fn whole(config: &Node) -> Result<(), Refusal> {
    type Rule<'a> = (&'a str, &'a dyn Fn(&Value) -> bool, &'a str);
    let text = |value: &Value, most: usize| value.as_str().is_some_and(|t| !t.is_empty() && t.chars().count() <= most);
    let number = |value: &Value, most: u64| value.as_u64().is_some_and(|number| (1..=most).contains(&number));
    let texts = |value: &Value| value.as_array().is_some_and(|list| list.iter().all(Value::is_string));
    let rules: [Rule<'_>; 15] = [
        ("host", &|v| text(v, 4096), "a text"),
        ("database", &|v| text(v, 4096), "a text"),
        ("user", &|v| text(v, 4096), "a text"),
        ("password", &Value::is_string, "a text"),
        ("slot_name", &|v| text(v, 63), "a text of at most 63 characters"),
        ("publication_name", &|v| text(v, 63), "a text of at most 63 characters"),
        ("port", &|v| number(v, 65535), "a port"),
        ("connect_timeout_secs", &|v| number(v, 300), "a number from 1 to 300"),
        ("heartbeat_interval_secs", &|v| number(v, 3600), "a number from 1 to 3600"),
        ("schemas", &texts, "a list of texts"),
        ("tables", &texts, "a list of texts"),
        ("auto_create_slot", &Value::is_boolean, "true or false"),
        ("auto_create_publication", &Value::is_boolean, "true or false"),
        ("drop_slot_on_stop", &Value::is_boolean, "true or false"),
        ("topic_routing", &Value::is_string, "a text"),
    ];
    for (key, holds, what) in rules {
        let wrong = match config.at(&[key]) {
            None | Some(Node::Variable { .. }) => false,
            Some(Node::Plain(value)) => !holds(value),
            Some(Node::Map(_)) => true,
        };
        if wrong {
            return Err(refusal(format!("config.{key}: must be {what}")));
        }
    }
    match config.at(&["topic_routing"]) {
        Some(Node::Plain(Value::String(pattern))) => routing(pattern),
        _ => Ok(()),
    }
}

fn routing(pattern: &str) -> Result<(), Refusal> {
    let wrong = |what: &str| Err(refusal(format!("topicRouting: {pattern:?} {what}")));
    let mut rest = pattern;
    while let Some(at) = rest.find(['{', '}']) {
        let Some((name, after)) = rest[at..].strip_prefix('{').and_then(|inner| inner.split_once('}')) else {
            return wrong("has a brace without its other");
        };
        if !PLACEHOLDERS.contains(&name) {
            return wrong(&format!("has a placeholder other than {}", PLACEHOLDERS.join(", ")));
        }
        rest = after;
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '{' | '}');
    if pattern.chars().all(legal) { Ok(()) } else { wrong("has characters that no topic's name may have") }
}
