//! The samples mean what they say: each parses into its type, and nothing of it is lost.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::path::Path;

use rivven_operator::api::{RivvenCluster, RivvenConnect, RivvenTopic};
use serde_json::Value;

/// The documents of every sample, with the name of their file.
fn samples() -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/samples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let documents: Vec<Value> = serde_saphyr::from_multiple(&std::fs::read_to_string(&path).unwrap()).unwrap();
            let file = path.file_name().unwrap().to_str().unwrap().to_owned();
            all.extend(documents.into_iter().map(|document| (file.clone(), document)));
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// The object as its type writes it again.
fn through_the_type(object: &Value) -> Result<Value, String> {
    let text = object.to_string();
    let problem = |error: serde_json::Error| error.to_string();
    match object["kind"].as_str() {
        Some("RivvenCluster") => {
            serde_json::from_str::<RivvenCluster>(&text).and_then(serde_json::to_value).map_err(problem)
        }
        Some("RivvenConnect") => {
            serde_json::from_str::<RivvenConnect>(&text).and_then(serde_json::to_value).map_err(problem)
        }
        Some("RivvenTopic") => {
            serde_json::from_str::<RivvenTopic>(&text).and_then(serde_json::to_value).map_err(problem)
        }
        kind => Err(format!("no such kind: {kind:?}")),
    }
}

/// Where `whole` lacks something of `part`, or says it differently.
fn lost(part: &Value, whole: &Value, at: &str) -> Vec<String> {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => part
            .iter()
            .flat_map(|(key, value)| {
                let at = format!("{at}.{key}");
                // What a type leaves out when it writes is what is off anyway.
                match whole.get(key) {
                    Some(other) => lost(value, other, &at),
                    None if *value == Value::Bool(false) => Vec::new(),
                    None => vec![format!("{at} is gone")],
                }
            })
            .collect(),
        (Value::Array(part), Value::Array(whole)) if part.len() == whole.len() => part
            .iter()
            .zip(whole)
            .enumerate()
            .flat_map(|(index, (part, whole))| lost(part, whole, &format!("{at}[{index}]")))
            .collect(),
        _ if part == whole => Vec::new(),
        _ => vec![format!("{at} was {part} and is {whole}")],
    }
}

#[test]
fn every_sample_survives_its_type() {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for (file, object) in samples() {
        let again = through_the_type(&object).unwrap_or_else(|problem| panic!("{file}: {problem}"));
        assert_eq!(lost(&object, &again, ""), Vec::<String>::new(), "{file}");
        // What was written once is stable: a second pass changes nothing.
        assert_eq!(through_the_type(&again).unwrap(), again, "{file}");
        *kinds.entry(object["kind"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    println!("samples: {kinds:?}");
    assert!(kinds["RivvenCluster"] >= 3 && kinds["RivvenConnect"] >= 3 && kinds["RivvenTopic"] >= 2, "{kinds:?}");
}

#[test]
fn a_loss_is_seen() {
    let part = serde_json::json!({ "a": { "b": [1, { "c": 2 }] }, "d": 1 });
    let whole = serde_json::json!({ "a": { "b": [1, { "e": 2 }] }, "d": 2 });
    assert_eq!(lost(&part, &whole, ""), [".a.b[1].c is gone", ".d was 1 and is 2"]);
}

#[test]
fn the_samples_ask_for_what_they_say() {
    let find = |name: &str| samples().into_iter().find(|(file, _)| file == name).unwrap().1;
    let cluster: RivvenCluster = serde_json::from_value(find("readme-cluster.yaml")).unwrap();
    let wish = cluster.spec.wish("production");
    assert_eq!((wish.replicas, wish.tls, wish.storage_bytes), (3, true, 100 << 30));
    assert_eq!((wish.problems, wish.unsupported), (Vec::new(), Vec::new()));
    assert_eq!(cluster.spec.tls.cert_secret_name.as_deref(), Some("rivven-tls"));

    let connect: RivvenConnect = serde_json::from_value(find("kubernetes-connect.yaml")).unwrap();
    let cdc = connect.spec.sources[0].postgres_cdc.as_ref().unwrap();
    assert_eq!(cdc.tables[1].column_masks["email"], "***@***.***");
    assert_eq!(connect.spec.sinks[0].s3.as_ref().unwrap().bucket, "data-lake");

    let custom: RivvenConnect = serde_json::from_value(find("custom-connector.yaml")).unwrap();
    assert_eq!(custom.spec.sources[0].config["nested"]["option"], true);

    let topic: RivvenTopic = serde_json::from_value(find("kubernetes-topic.yaml")).unwrap();
    let wish = topic.wish();
    assert_eq!((wish.topic.as_str(), wish.partitions, wish.replication, wish.acls), ("orders-events", 12, 3, true));
    assert_eq!((wish.config["min.insync.replicas"].as_str(), wish.problems), ("2", Vec::new()));
}
