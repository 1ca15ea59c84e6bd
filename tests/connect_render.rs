//! What a connect is made of: the objects as snapshots, each connector as the worker takes it, and whatever text a spec or
//! a Secret holds, it reaches the worker as it is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod generate;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use generate::connect_spec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rivven_fsm::connect::{Connector, Object, Role, place};
use rivven_fsm::{Reason, Refusal};
use rivven_operator::api::RivvenConnectSpec;
use rivven_operator::api::connectors::{SinkConnector, SourceConnector};
use rivven_operator::render::connect::text::{Node, file};
use rivven_operator::render::connect::translate::{self, RELEASED_IMAGE, SecretData, Translated, variable};
use rivven_operator::render::connect::{self, Input};
use serde_json::{Value, json};

/// The same cases on every machine.
fn runner(cases: u32) -> TestRunner {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

/// What the worker does to its file before it parses it: `${NAME}` and `${NAME:-default}` are replaced by the environment,
/// raw and once; what is not set becomes the default or nothing.
fn substituted(text: &str, environment: &BTreeMap<String, String>) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find("${") {
        out.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        let end = inner.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inner.len());
        let (name, tail) = inner.split_at(end);
        let named = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let default = tail.strip_prefix(":-").and_then(|tail| tail.split_once('}'));
        match (named, tail.strip_prefix('}'), default) {
            (true, Some(after), _) => {
                out.push_str(environment.get(name).map_or("", String::as_str));
                rest = after;
            }
            (true, None, Some((default, after))) => {
                out.push_str(environment.get(name).map_or(default, String::as_str));
                rest = after;
            }
            _ => {
                out.push_str("${");
                rest = inner;
            }
        }
    }
    out.push_str(rest);
    out
}

/// What the worker reads of a file.
fn read(text: &str, environment: &BTreeMap<String, String>) -> Value {
    serde_saphyr::from_str(&substituted(text, environment)).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Text with all that quoting, substitution and YAML make something of.
fn odd() -> BoxedStrategy<String> {
    let piece = prop_oneof![
        any::<String>(),
        any::<char>().prop_map(String::from),
        proptest::sample::select(vec![
            "\"", "'", "\\", "\n", "\r\n", "\t", "$", "${HOME}", "${X:-y}", "$(X)", "$$", ": ", "# ", "- ", "{", "}",
            "[", "%", "&a", "*a", "!!int", "null", "~", "yes", "0x1f", "1e9", "\u{85}", "\u{2028}", "\u{feff}", "\0",
            "\u{7f}", "ä", "😀", " ", "|", ">", "---", "...",
        ])
        .prop_map(str::to_owned),
    ];
    proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat()).boxed()
}

fn json_value() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        odd().prop_map(Value::String),
        any::<i64>().prop_map(|number| json!(number)),
        any::<bool>().prop_map(|flag| json!(flag)),
        Just(Value::Null),
        (-1e9..1e9_f64).prop_map(|number| json!(number)),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::btree_map(odd(), inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
    .boxed()
}

#[test]
fn whatever_a_spec_holds_reaches_the_worker() {
    let environment = BTreeMap::from([("HOME".to_owned(), "/root".to_owned()), ("X".to_owned(), "\"".to_owned())]);
    runner(4000)
        .run(&json_value(), |value| {
            let text = file(&Node::from(json!({ "config": value })));
            prop_assert_eq!(&read(&text, &environment)["config"], &value);
            prop_assert!(text.is_ascii());
            Ok(())
        })
        .unwrap();
    println!("values through the worker's file: 4000");
}

#[test]
fn whatever_a_secret_holds_reaches_the_worker() {
    let secret = proptest::collection::btree_map("[a-zA-Z0-9_-]{1,20}", odd(), 0..5);
    runner(3000)
        .run(&secret, |secret| {
            let source = source(json!({ "connector": "kafka" }));
            let data: SecretData =
                secret.iter().map(|(key, value)| (key.clone(), value.clone().into_bytes())).collect();
            let numbers = ["port", "server_id"];
            prop_assume!(!secret.keys().any(|key| numbers.contains(&key.as_str())));
            let translated = translate::source(&source, RELEASED_IMAGE, Some(&data)).unwrap();
            let text = file(&translated.entry);
            let config = &read(&text, &translated.variables)["config"];
            prop_assert_eq!(config, &json!(secret));
            for (key, value) in secret.iter().filter(|(_, value)| value.len() > 12) {
                prop_assert!(!text.contains(value.as_str()), "the value of {} is in the file", key);
            }
            Ok(())
        })
        .unwrap();
    println!("secrets through the worker's environment: 3000");
}

#[test]
fn no_two_keys_share_a_variable() {
    let names = "[a-zA-Z0-9._-]{1,6}";
    let pair = (any::<bool>(), names, names);
    runner(5000)
        .run(&(pair, pair), |(one, other)| {
            let of = |(sink, name, key): &(bool, String, String)| {
                variable(&id(if *sink { Role::Sink } else { Role::Source }, name), key)
            };
            prop_assert_eq!(one == other, of(&one) == of(&other), "{:?} {:?}", one, other);
            let name = of(&one);
            prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{}", name);
            Ok(())
        })
        .unwrap();
    assert_ne!(variable(&id(Role::Source, "a_KEY_b"), "c"), variable(&id(Role::Source, "a"), "b_KEY_c"));
}

fn id(role: Role, name: &str) -> Connector {
    Connector { role, name: name.to_owned() }
}

#[allow(clippy::needless_pass_by_value, reason = "it is made where it is passed")]
fn source(fields: Value) -> SourceConnector {
    let mut whole = json!({ "name": "s", "connector": "datagen", "topic": "t" });
    whole.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    serde_json::from_value(whole).unwrap()
}

#[allow(clippy::needless_pass_by_value, reason = "it is made where it is passed")]
fn sink(fields: Value) -> SinkConnector {
    let mut whole = json!({ "name": "s", "connector": "stdout", "topics": ["t"], "consumerGroup": "g" });
    whole.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    serde_json::from_value(whole).unwrap()
}

fn secret(pairs: &[(&str, &str)]) -> SecretData {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect()
}

fn of_source(fields: Value, data: Option<&SecretData>) -> Result<Value, Refusal> {
    let translated = translate::source(&source(fields), RELEASED_IMAGE, data)?;
    Ok(read(&file(&translated.entry), &translated.variables))
}

fn of_sink(fields: Value, data: Option<&SecretData>) -> Result<Value, Refusal> {
    let read_topics = ["a".to_owned(), "b".to_owned()];
    let translated = translate::sink(&sink(fields), RELEASED_IMAGE, &read_topics, data)?;
    Ok(read(&file(&translated.entry), &translated.variables))
}

#[test]
fn each_connector_is_told_in_the_workers_keys() {
    let login = secret(&[
        ("host", "db"),
        ("port", "5433"),
        ("database", "shop"),
        ("user", "cdc"),
        ("password", "p\"$\\\n:${HOME}"),
    ]);
    let told = of_source(
        json!({
            "connector": "postgres-cdc", "topicRouting": "cdc.{schema}.{table}",
            "topicConfig": { "partitions": 6, "replicationFactor": 2 },
            "tables": [{ "schema": "public", "table": "orders" }, { "table": "customers" }],
            "postgresCdc": { "slotName": "slot", "publication": "pub", "snapshotMode": "initial", "decodingPlugin": "pgoutput" },
            "config": { "tls": { "mode": "require" }, "auto_create_slot": false },
        }),
        Some(&login),
    );
    assert_eq!(
        told.unwrap(),
        json!({
            "connector": "postgres-cdc", "topic": "t", "topic_config": { "partitions": 6, "replication_factor": 2 },
            "config": {
                "host": "db", "port": 5433, "database": "shop", "user": "cdc", "password": "p\"$\\\n:${HOME}",
                "slot_name": "slot", "publication_name": "pub", "snapshot": { "mode": "initial" },
                "tables": ["public.orders", "customers"], "topic_routing": "cdc.{schema}.{table}",
                "tls": { "mode": "require" }, "auto_create_slot": false,
            },
        })
    );
    let told = of_source(
        json!({ "connector": "mysql-cdc", "mysqlCdc": { "serverId": 7, "tables": [{ "schema": "shop", "table": "orders" }] } }),
        Some(&secret(&[("host", "db"), ("user", "cdc"), ("password", "p")])),
    );
    assert_eq!(told.unwrap()["config"]["include_tables"], json!(["shop.orders"]));
    let told = of_source(json!({ "connector": "http", "http": { "url": "http://x/", "pollIntervalMs": 500 } }), None);
    assert_eq!(told.unwrap()["config"], json!({ "url": "http://x/", "poll_interval_ms": 500 }));
    let told = of_source(
        json!({ "datagen": { "pattern": "orders", "eventsPerSecond": 5 }, "config": { "events_per_second": 9 } }),
        None,
    );
    assert_eq!(told.unwrap()["config"], json!({ "pattern": "orders", "events_per_second": 9 }), "what is free wins");

    let told =
        of_sink(json!({ "rateLimit": { "eventsPerSecond": 10, "burstCapacity": 3 }, "startOffset": "earliest" }), None);
    assert_eq!(
        told.unwrap(),
        json!({
            "connector": "stdout", "topics": ["a", "b"], "consumer_group": "g", "start_offset": "earliest",
            "offset_commit_interval": 1, "rate_limit": { "events_per_second": 10, "burst_capacity": 3 },
            "config": { "color": false },
        })
    );
    let hook = json!({ "connector": "http", "httpSink": { "url": "http://x/", "method": "put", "headers": { "a": "${B}" }, "batchSize": 3 } });
    let told = of_sink(hook, Some(&secret(&[("auth.type", "bearer"), ("auth.token", "t")]))).unwrap();
    assert_eq!(told["connector"], "http-webhook");
    let auth = json!({ "type": "bearer", "token": "t" });
    assert_eq!(
        told["config"],
        json!({ "url": "http://x/", "method": "PUT", "headers": { "a": "${B}" }, "batch_size": 3, "auth": auth })
    );
    let s3 =
        json!({ "connector": "s3", "s3": { "bucket": "lake", "region": "eu", "format": "parquet", "prefix": "p" } });
    let told = of_sink(s3, Some(&secret(&[("access_key_id", "k"), ("secret_access_key", "s")]))).unwrap();
    let store = json!({ "region": "eu", "access_key_id": "k", "secret_access_key": "s" });
    assert_eq!(told["config"], json!({ "bucket": "lake", "format": "parquet", "prefix": "p", "s3": store }));
}

#[test]
fn what_the_worker_lacks_is_refused_and_named() {
    use Reason::{ConnectorRefused, NotSupportedByOperator};
    let login = secret(&[("host", "db"), ("database", "shop"), ("user", "cdc"), ("password", "p")]);
    let pg = |fields: Value| {
        let mut whole = json!({ "connector": "postgres-cdc" });
        whole.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        of_source(whole, Some(&login))
    };
    let table = |fields: Value| {
        let mut table = json!({ "table": "x" });
        table.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        pg(json!({ "tables": [table] }))
    };
    for (outcome, reason, named) in [
        (of_source(json!({ "connector": "my-plugin" }), None), ConnectorRefused, "my-plugin"),
        (
            of_sink(json!({ "connector": "elasticsearch", "elasticsearch": { "urls": ["u"], "index": "i" } }), None),
            ConnectorRefused,
            "elasticsearch",
        ),
        (table(json!({ "columnMasks": { "email": "*" } })), ConnectorRefused, "columnMasks"),
        (table(json!({ "columns": ["id"] })), ConnectorRefused, "columns"),
        (table(json!({ "topic": "x" })), ConnectorRefused, "topicRouting"),
        (pg(json!({ "postgresCdc": { "decodingPlugin": "wal2json" } })), ConnectorRefused, "pgoutput"),
        (pg(json!({ "postgresCdc": { "snapshotMode": "initial_only" } })), NotSupportedByOperator, "initial_only"),
        (pg(json!({ "topicRouting": "{team}" })), ConnectorRefused, "placeholder"),
        (pg(json!({ "topicRouting": "{table" })), ConnectorRefused, "brace"),
        (pg(json!({ "config": { "port": "x" } })), ConnectorRefused, "config.port"),
        (pg(json!({ "config": { "slot_name": "" } })), ConnectorRefused, "config.slot_name"),
        (of_source(json!({ "connector": "postgres-cdc" }), None), ConnectorRefused, "host, database, user, password"),
        (
            of_source(json!({ "connector": "postgres-cdc" }), Some(&secret(&[("port", "x")]))),
            ConnectorRefused,
            "port is no number",
        ),
        (of_source(json!({ "topicRouting": "{table}" }), None), ConnectorRefused, "topicRouting"),
        (of_source(json!({ "tables": [{ "table": "x" }] }), None), ConnectorRefused, "tables"),
        (of_source(json!({ "datagen": { "maxEvents": 5 } }), None), NotSupportedByOperator, "maxEvents"),
        (of_source(json!({ "config": { "max_events": 5 } }), None), NotSupportedByOperator, "maxEvents"),
        (of_source(json!({ "connector": "http" }), None), ConnectorRefused, "url"),
        (of_sink(json!({ "connector": "http" }), None), ConnectorRefused, "url"),
        (of_sink(json!({ "startOffset": "timestamp" }), None), NotSupportedByOperator, "startOffset"),
        (
            of_sink(json!({ "connector": "s3", "s3": { "bucket": "abc", "compression": "zstd" } }), None),
            ConnectorRefused,
            "s3.compression",
        ),
    ] {
        let refusal = outcome.expect_err(named);
        assert_eq!(refusal.reason, reason, "{refusal:?}");
        assert!(refusal.message.contains(named), "{named}: {refusal:?}");
    }
    let bytes = SecretData::from([("a".to_owned(), vec![0xff])]);
    assert!(of_source(json!({}), Some(&bytes)).unwrap_err().message.contains("no text"));
    // Another image may have connectors of its own.
    let own = source(json!({ "connector": "my-plugin", "config": { "nested": { "option": true } } }));
    assert!(translate::source(&own, "registry.example/connect:1", None).is_ok());
    assert!(translate::source(&own, &format!("{RELEASED_IMAGE}@sha256:0"), None).is_err());
}

#[test]
fn the_released_worker_is_not_given_what_it_goes_down_with() {
    let check = |connector: &str, image: &str, version: &str| {
        translate::check_source(&source(json!({ "connector": connector })), image, version)
    };
    let tagged = |tag: &str| format!("{RELEASED_IMAGE}:{tag}");
    for (image, version) in [
        (RELEASED_IMAGE, "0.0.22"),
        (RELEASED_IMAGE, "latest"),
        (&tagged("0.0.21"), "9.0.0"),
        (&tagged("main"), "latest"),
    ] {
        let refusal = check("postgres-cdc", image, version).unwrap_err();
        assert_eq!(refusal.reason, Reason::ConnectorRefused);
        assert!(check("mysql-cdc", image, version).is_ok());
    }
    for (image, version) in
        [(RELEASED_IMAGE, "0.1.0"), (&tagged("v0.0.23"), "latest"), ("registry.example/connect", "0.0.22")]
    {
        assert!(check("postgres-cdc", image, version).is_ok(), "{image} {version}");
    }
}

fn rendered(spec: Value, runs: u32, secrets: &SecretData) -> Vec<Value> {
    let spec: RivvenConnectSpec = serde_json::from_value(spec).unwrap();
    let mut translated: BTreeMap<Connector, Translated> = BTreeMap::new();
    for source in &spec.sources {
        let data = source.config_secret_ref.as_ref().map(|_| secrets);
        translated.insert(id(Role::Source, &source.name), translate::source(source, &spec.image, data).unwrap());
    }
    for sink in &spec.sinks {
        let data = sink.config_secret_ref.as_ref().map(|_| secrets);
        translated.insert(id(Role::Sink, &sink.name), translate::sink(sink, &spec.image, &sink.topics, data).unwrap());
    }
    let placement = place(translated.keys(), runs, &BTreeMap::new(), false);
    let tls =
        spec.tls.enabled.then(|| BTreeSet::from(["tls.crt".to_owned(), "tls.key".to_owned(), "ca.crt".to_owned()]));
    let files = connect::files(&spec, "rivven-c.ns.svc.cluster.local:9292", tls.as_ref(), &placement.runs, &translated);
    let hashes = files
        .iter()
        .filter(|(_, file)| !file.variables.is_empty())
        .map(|(index, file)| (*index, connect::secret_hash(b"salt", &file.variables)))
        .collect();
    let objects = connect::objects(&Input {
        name: "x",
        namespace: "ns",
        uid: "uid-1",
        spec: &spec,
        restarted_at: None,
        runs: &placement.runs,
        files: &files,
        secrets: &hashes,
        monitors: spec.settings.metrics.service_monitor,
    });
    for (object, value) in &objects {
        let text = value.to_string();
        assert!(!text.contains("hunter2"), "a secret is in {object:?}");
        assert!(*object != Object::ConfigMap || text.len() < 1 << 20);
    }
    objects.into_values().collect()
}

#[test]
fn datagen_to_stdout_with_defaults() {
    insta::assert_yaml_snapshot!(rendered(
        json!({
            "clusterRef": { "name": "c" },
            "version": "0.0.22",
            "sources": [{ "name": "gen", "connector": "datagen", "topic": "events", "datagen": { "eventsPerSecond": 10 } }],
            "sinks": [{ "name": "out", "connector": "stdout", "topics": ["events"], "consumerGroup": "g" }],
        }),
        1,
        &SecretData::new(),
    ));
}

#[test]
fn two_workers_with_secrets_tls_and_every_pod_field() {
    let login = secret(&[("host", "db"), ("database", "shop"), ("user", "cdc"), ("password", "hunter2\"")]);
    insta::assert_yaml_snapshot!(rendered(
        json!({
            "clusterRef": { "name": "c" },
            "version": "0.0.22",
            "replicas": 2,
            "sources": [
                { "name": "pg", "connector": "postgres-cdc", "topic": "cdc", "configSecretRef": "login" },
                { "name": "gen", "connector": "datagen", "topic": "events" },
                { "name": "poll", "connector": "http", "topic": "polled", "http": { "url": "http://x/" } },
            ],
            "settings": { "metrics": { "serviceMonitor": true, "port": 9099 }, "health": { "port": 8081 } },
            "tls": { "enabled": true, "certSecretName": "certs" },
            "imagePullSecrets": [{ "name": "pull" }],
            "resources": { "limits": { "memory": "256Mi" } },
            "tolerations": [{ "key": "k", "operator": "Exists" }],
            "nodeSelector": { "disk": "ssd" },
            "affinity": { "nodeAffinity": {} },
        }),
        2,
        &login,
    ));
}

#[test]
fn any_connect_comes_through() {
    let (whole, refused) = (Cell::new(0), Cell::new(0));
    let count = |outcome: Result<Translated, Refusal>| match outcome {
        Ok(entry) => {
            read(&file(&entry.entry), &entry.variables);
            whole.set(whole.get() + 1);
        }
        Err(_) => refused.set(refused.get() + 1),
    };
    runner(3000)
        .run(&generate::few(connect_spec(), 3), |mut json| {
            json["clusterRef"] = json!({ "name": "c" });
            let Ok(spec) = serde_json::from_value::<RivvenConnectSpec>(json) else { return Ok(()) };
            let _ = (spec.problems("x"), spec.unsupported());
            spec.sources.iter().for_each(|source| count(translate::source(source, &spec.image, None)));
            spec.sinks.iter().for_each(|sink| count(translate::sink(sink, &spec.image, &sink.topics, None)));
            Ok(())
        })
        .unwrap();
    println!("generated connectors: {} translated, {} refused", whole.get(), refused.get());
    assert!(whole.get() > 100 && refused.get() > 20, "{whole:?} {refused:?}");
}
