//! Pipelines with real data: the released worker between a released broker and the outside.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, LogParams, PostParams};
use kube::runtime::watcher;
use rivven_e2e::{Place, operator, wait};
use rivven_operator::api::{Phase, RivvenConnect, RivvenConnectStatus};
use rivven_operator::names;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn is_ready(status: &RivvenConnectStatus) -> bool {
    status.phase == Some(Phase::Ready)
}

fn state<'a>(status: &'a RivvenConnectStatus, name: &str) -> Option<&'a str> {
    status.connectors.iter().find(|connector| connector.name == name)?.state.as_deref()
}

/// How many records a topic has.
async fn records(place: &Place, topic: &str, partitions: u32) -> Result<u64> {
    let mut connection = place.connect("rivven-one-0").await?;
    let mut sum = 0;
    for partition in 0..partitions {
        let (first, next) = connection.client.get_offset_bounds(topic, partition).await?;
        sum += next - first;
    }
    Ok(sum)
}

/// The sequence numbers in a partition, in order.
async fn sequence(place: &Place, topic: &str) -> Result<Vec<u64>> {
    let mut connection = place.connect("rivven-one-0").await?;
    let mut all = Vec::new();
    loop {
        let batch = connection.client.consume(topic, 0, all.len() as u64, 1000).await?;
        if batch.is_empty() {
            return Ok(all);
        }
        for record in batch {
            let text = String::from_utf8_lossy(&record.value).into_owned();
            let (_, rest) = text.split_once("\"_sequence\":").context("a sequence number")?;
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            all.push(digits.parse()?);
        }
    }
}

#[tokio::test]
async fn every_generated_record_comes_out_of_the_sink() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::new("pipe").await?;
    place.cluster("one", json!({})).await?;
    place.cluster_is("one", Phase::Ready).await?;
    let sink = json!({
        "name": "out", "connector": "stdout", "topics": ["events"], "consumerGroup": "g", "startOffset": "earliest",
        "stdout": { "format": "json" },
    });
    place
        .pipeline("out", "one", json!({ "sinks": [sink], "settings": { "topic": { "defaultPartitions": 3 } } }))
        .await?;
    let out = place.pipeline_says("out", is_ready).await?;
    ensure!(state(&out, "out") == Some("Running"), "{out:?}");
    let source = |enabled: bool| {
        json!({ "sources": [{
            "name": "gen", "connector": "datagen", "topic": "events", "enabled": enabled,
            "datagen": { "pattern": "orders", "eventsPerSecond": 20 },
        }] })
    };
    place.pipeline("in", "one", source(true)).await?;
    place.pipeline_says("in", is_ready).await?;
    wait::until("200 records", || async { Ok((records(&place, "events", 3).await? >= 200).then_some(())) }).await?;
    place.pipeline_changed("in", source(false), |status| is_ready(status) && status.connectors.is_empty()).await?;
    let pods = place.workers("in").await?;
    ensure!(
        pods.is_empty(),
        "a worker without connectors does not exist: {:?}",
        pods.first().map(ResourceExt::name_any)
    );

    let sent = records(&place, "events", 3).await?;
    let pod = place.workers("out").await?.first().context("a worker")?.name_any();
    let arrived = wait::until("every record at the sink", || async {
        let log = place.api::<Pod>().logs(&pod, &LogParams::default()).await?;
        let lines = log.lines().filter(|line| line.contains("\"_sequence\":")).count();
        Ok((lines as u64 >= sent).then_some(lines as u64))
    })
    .await?;
    ensure!(arrived == sent, "{arrived} records of {sent}");
    println!("datagen to stdout: {sent} records sent, {arrived} arrived");

    // What the documents name is there.
    place.api::<Deployment>().get("rivven-connect-out").await?;
    place.api::<ConfigMap>().get("rivven-connect-out-config").await?;
    place.api::<Service>().get("rivven-connect-out").await?;
    place.done().await
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Every pod of workers as a watch shows it: what would be active twice is noted.
fn overlaps(place: &Place, connect: &str) -> (Arc<Mutex<BTreeSet<String>>>, tokio::task::JoinHandle<()>) {
    let twice = Arc::new(Mutex::new(BTreeSet::new()));
    let config = watcher::Config::default().labels(&format!("{}={connect}", names::CONNECT));
    let (events, noted) = (watcher(place.api::<Pod>(), config), twice.clone());
    let mut live: BTreeMap<String, String> = BTreeMap::new();
    let task = tokio::spawn(events.for_each(move |event| {
        match event {
            // Its containers have ended, by the word of the kubelet; the object is there for a moment longer.
            Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) if has_ended(&pod) => {
                live.remove(&pod.name_any());
            }
            Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                let runs = pod.annotations().get(names::CONNECTORS).cloned().unwrap_or_default();
                live.insert(pod.name_any(), runs);
            }
            Ok(watcher::Event::Delete(pod)) => drop(live.remove(&pod.name_any())),
            _ => {}
        }
        let mut seen = BTreeSet::new();
        for connector in live.values().flat_map(|runs| runs.split(',')).filter(|c| !c.is_empty()) {
            if !seen.insert(connector) {
                noted.lock().unwrap_or_else(PoisonError::into_inner).insert(connector.to_owned());
            }
        }
        std::future::ready(())
    }));
    (twice, task)
}

#[tokio::test]
async fn workers_are_scaled_while_data_flows_and_no_connector_is_active_twice() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::new("workers").await?;
    place.cluster("one", json!({})).await?;
    place.cluster_is("one", Phase::Ready).await?;
    let topics: Vec<String> = (0..6).map(|nth| format!("t{nth}")).collect();
    let source = |topic: &String| json!({ "name": topic, "connector": "datagen", "topic": topic, "datagen": { "pattern": "sequence", "eventsPerSecond": 10 } });
    let sources: Vec<Value> = topics.iter().map(source).collect();
    place.pipeline("p", "one", json!({ "replicas": 1, "sources": sources })).await?;
    place.pipeline_says("p", is_ready).await?;
    let (twice, watch) = overlaps(&place, "p");
    for workers in [2, 3, 2, 1] {
        let before: Vec<u64> = futures::future::try_join_all(topics.iter().map(|t| records(&place, t, 1))).await?;
        let status = place
            .pipeline_changed("p", json!({ "replicas": workers }), |status| {
                is_ready(status) && status.running.as_deref() == Some("6/6")
            })
            .await?;
        let pods = place.workers("p").await?;
        ensure!(pods.len() <= workers, "{} pods, {workers} workers wanted", pods.len());
        wait::until("data flows", || async {
            let now = futures::future::try_join_all(topics.iter().map(|t| records(&place, t, 1))).await?;
            Ok(now.iter().zip(&before).all(|(now, before)| now > before).then_some(()))
        })
        .await?;
        println!("{workers} workers asked for: {} run, {:?}", pods.len(), status.ready);
    }
    watch.abort();
    let twice = twice.lock().unwrap_or_else(PoisonError::into_inner).clone();
    ensure!(twice.is_empty(), "active twice: {twice:?}");
    // Two generators at once would mix their numbers: each number follows the one before, or a generator began anew.
    for topic in &topics {
        let numbers = sequence(&place, topic).await?;
        let odd = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1 && pair[1] > 1);
        ensure!(odd.is_none(), "{topic}: {odd:?} among {} numbers", numbers.len());
    }
    place.api::<RivvenConnect>().delete("p", &DeleteParams::default()).await?;
    wait::until("the connect gone", || async {
        Ok(place.api::<RivvenConnect>().get_opt("p").await?.is_none().then_some(()))
    })
    .await?;
    ensure!(place.workers("p").await?.is_empty(), "workers stop before the object goes");
    place.done().await
}

/// A small server: it answers each poll with the next mark, and keeps what it is sent.
#[derive(Default)]
struct Outside {
    polls: u64,
    bodies: Vec<String>,
    authorization: BTreeSet<String>,
}

async fn serve(outside: Arc<Mutex<Outside>>, mut stream: TcpStream) -> Result<()> {
    let mut bytes = Vec::new();
    let mut buffer = [0_u8; 4096];
    loop {
        let head = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let header = |name: &str| {
            let line = text.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let length: usize = header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        if let Some(head) = head.filter(|head| bytes.len() >= head + 4 + length) {
            let body = {
                let mut outside = outside.lock().unwrap_or_else(PoisonError::into_inner);
                if text.starts_with("GET ") {
                    outside.polls += 1;
                    format!("{{\"mark\":\"<{}>\"}}", outside.polls)
                } else {
                    outside.bodies.push(String::from_utf8_lossy(&bytes[head + 4..]).into_owned());
                    outside.authorization.extend(header("authorization"));
                    "{}".to_owned()
                }
            };
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await?;
            return Ok(());
        }
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}

#[tokio::test]
async fn what_is_polled_is_posted_with_a_secret_that_survives_and_a_broken_connector_is_its_own_matter() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::new("http").await?;
    place.cluster("one", json!({})).await?;
    place.cluster_is("one", Phase::Ready).await?;
    let listener = TcpListener::bind("0.0.0.0:0").await?;
    let url = format!("http://{}:{}", place.host().await?, listener.local_addr()?.port());
    let outside = Arc::new(Mutex::new(Outside::default()));
    let shared = outside.clone();
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(shared.clone(), stream));
        }
    });
    let token = "q\"uo'te$ ${HOME} \\ # : {x}";
    let secrets = place.api::<Secret>();
    let secret = |name: &str, data: Value| json!({ "metadata": { "name": name }, "stringData": data });
    let hook = secret("hook", json!({ "auth.type": "bearer", "auth.token": token }));
    let login =
        secret("login", json!({ "host": "nowhere.invalid", "database": "d", "user": "u", "password": "hunter2" }));
    for object in [hook, login] {
        secrets.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    }
    place
        .pipeline("web", "one", json!({
            "sources": [
                { "name": "poll", "connector": "http", "topic": "polled", "http": { "url": url, "pollIntervalMs": 200 } },
                { "name": "broken", "connector": "postgres-cdc", "topic": "cdc", "configSecretRef": "login",
                  "config": { "tls": { "mode": "disable" } } },
                { "name": "odd", "connector": "postgres-cdc", "topic": "cdc", "configSecretRef": "login",
                  "tables": [{ "table": "customers", "columnMasks": { "email": "***" } }] },
            ],
            "sinks": [{
                "name": "post", "connector": "http", "topics": ["polled"], "consumerGroup": "g", "startOffset": "earliest",
                "configSecretRef": "hook", "httpSink": { "url": url, "batchSize": 1 },
            }],
        }))
        .await?;
    let told = |status: &RivvenConnectStatus| {
        status.phase == Some(Phase::Degraded)
            && state(status, "broken") == Some("Failing")
            && state(status, "odd") == Some("Refused")
            && state(status, "poll") == Some("Running")
            && state(status, "post") == Some("Running")
    };
    let status = place.pipeline_says("web", told).await?;
    let broken = status.connectors.iter().find(|connector| connector.name == "broken").context("it is told of")?;
    ensure!(broken.errors > Some(0) && broken.last_error.is_some(), "{broken:?}");
    let posted = || {
        let outside = outside.lock().unwrap_or_else(PoisonError::into_inner);
        (outside.polls, outside.bodies.concat(), outside.authorization.clone())
    };
    wait::until("twenty marks posted", || async { Ok(posted().1.contains("<20>").then_some(())) }).await?;
    let (polls, bodies, authorization) = posted();
    for nth in 1..=20 {
        ensure!(bodies.contains(&format!("<{nth}>")), "mark {nth} of {polls} was polled and not posted");
    }
    ensure!(authorization == BTreeSet::from([format!("Bearer {token}")]), "the secret as it is: {authorization:?}");

    // No secret anywhere but in Secrets.
    for map in place.api::<ConfigMap>().list(&ListParams::default()).await?.items {
        let text = serde_json::to_string(&map)?;
        ensure!(
            !text.contains("hunter2") && !text.contains("q\\\\\\\"uo"),
            "a secret is in ConfigMap {}",
            map.name_any()
        );
    }
    for deployment in place.api::<Deployment>().list(&ListParams::default()).await?.items {
        ensure!(!serde_json::to_string(&deployment)?.contains("hunter2"), "a secret is in a Deployment");
    }
    println!("http to http: {polls} polls, connectors: {:?}", status.running);
    server.abort();
    place.done().await
}
