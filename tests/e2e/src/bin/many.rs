//! Many topics: how fast the operator makes them beside two bare loops in the same run, how many writes each costs, and
//! that it is silent when they are made. A program of its own, as what it is held against must be optimized too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::AsyncBufReadExt;
use futures::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchParams};
use kube::{Api, Client, ResourceExt};
use rivven_e2e::audit::Mark;
use rivven_e2e::{Place, operator, wait};
use rivven_operator::api::{Phase, RivvenTopic};
use serde_json::json;

/// As many at once as the operator reconciles.
const AT_ONCE: usize = 16;
/// What the operator writes for a topic: two of its status, its mark, an Event.
const WRITES: usize = 4;
/// The least part of the slower bare loop's rate. API server, brokers and operator share the processors of one machine,
/// and each bare loop has them to itself.
const LEAST: f64 = 0.4;
/// The configuration that a topic gets if its spec says nothing, in the broker's keys.
const CONFIG: [(&str, &str); 7] = [
    ("retention.ms", "604800000"),
    ("retention.bytes", "-1"),
    ("segment.bytes", "1073741824"),
    ("cleanup.policy", "delete"),
    ("compression.type", "lz4"),
    ("min.insync.replicas", "1"),
    ("max.message.bytes", "1048576"),
];
const RESYNC: &str = "resyncSeconds=15";

#[tokio::main]
async fn main() -> Result<()> {
    let count: usize = std::env::args().nth(1).context("how many topics")?.parse()?;
    operator::ensure(&[RESYNC]).await?;
    for (cluster, replicas) in [("one", 1), ("x", 3)] {
        let place = Place::alone(&format!("many-{cluster}")).await?;
        let outside = json!({ "externalAccess": { "type": "NodePort" }, "storage": { "size": "1Gi" } });
        match replicas {
            1 => drop(place.cluster(cluster, outside).await?),
            _ => drop(place.clustered(cluster, outside).await?),
        }
        place.cluster_is(cluster, Phase::Ready).await?;
        measure(&place, cluster, count).await?;
        place.done().await?;
    }
    operator::ensure(&[]).await
}

async fn measure(place: &Place, cluster: &str, count: usize) -> Result<()> {
    let kind = if cluster == "one" { "released broker" } else { "test brokers" };
    let brokers = bare_client(place, cluster, count).await?;
    println!("{kind}: {count} topics by the published client: {brokers:.1} a second");

    let writes = bare_writes(place, cluster, count).await?;
    println!("{kind}: {count} times {WRITES} writes by a plain client: {writes:.1} a second");
    let mark = Mark::now()?;
    let rate = by_the_operator(place, cluster, count).await?;
    let requests = mark.requests(operator::USER)?;
    let written = |verb: &str| -> usize {
        requests.iter().filter(|(request, _)| request.starts_with(verb)).map(|(_, count)| count).sum()
    };
    let all = written("create") + written("patch") + written("update");
    let per_topic = ratio(all, count);
    let slower = brokers.min(writes);
    println!(
        "{kind}: {count} topics by the operator: {rate:.1} a second, {:.2} of the slower bare loop, {per_topic:.2} writes a topic",
        rate / slower
    );
    ensure!(per_topic <= ratio(WRITES, 1) + 0.1, "{per_topic:.2} writes a topic: {}", few(&requests));
    ensure!(rate >= LEAST * slower, "{rate:.1} a second is less than {LEAST} of {slower:.1}");

    silent(place, kind, count).await
}

#[allow(clippy::cast_precision_loss, reason = "counts of topics")]
fn ratio(of: usize, to: usize) -> f64 {
    of as f64 / to as f64
}

/// Requests by verb, as there is a path for each topic.
fn few(requests: &BTreeMap<String, usize>) -> String {
    let mut verbs = BTreeMap::<&str, usize>::new();
    for (request, count) in requests {
        *verbs.entry(request.split(' ').next().unwrap_or_default()).or_default() += count;
    }
    format!("{verbs:?}")
}

/// How many a second.
async fn rate<F>(count: usize, work: impl FnMut(usize) -> F) -> Result<f64>
where
    F: Future<Output = Result<()>>,
{
    let began = Instant::now();
    stream::iter((0..count).map(work)).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
    Ok(ratio(count, 1) / began.elapsed().as_secs_f64())
}

/// The published client, one connection for each of those at once, from this machine to the brokers' node.
async fn bare_client(place: &Place, cluster: &str, count: usize) -> Result<f64> {
    let address = wait::until("an address", || async {
        let brokers = place.status(cluster).await?.brokers;
        Ok(brokers
            .into_iter()
            .find(|broker| broker.leader || cluster == "one")
            .and_then(|b| b.external.first().cloned()))
    })
    .await?;
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    let workers = (0..AT_ONCE).map(|_| async {
        let mut client =
            wait::until("the port open", || async { Ok(rivven_client::Client::connect(&address).await.ok()) }).await?;
        loop {
            let nth = next.fetch_add(1, Ordering::Relaxed);
            if nth >= count {
                return anyhow::Ok(());
            }
            let name = format!("bare-{nth}");
            while let Err(error) = client.create_topic(&name, Some(1)).await {
                let words = error.to_string();
                if words.contains("already exists") {
                    break;
                }
                // Brokers that agree on nothing for a while, as more is asked of them than they can do.
                ensure!(words.contains("COORDINATOR_NOT_AVAILABLE"), "{words}");
            }
            let config = CONFIG.map(|(key, value)| (key, Some(value)));
            while let Err(error) = client.alter_topic_config(&name, &config).await {
                let words = error.to_string();
                ensure!(words.contains("COORDINATOR_NOT_AVAILABLE"), "{words}");
            }
        }
    });
    futures::future::try_join_all(workers).await?;
    Ok(ratio(count, 1) / began.elapsed().as_secs_f64())
}

async fn operate(client: &Client, replicas: u32) -> Result<()> {
    let api = Api::<Deployment>::namespaced(client.clone(), operator::NAMESPACE);
    let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    api.patch(operator::RELEASE, &PatchParams::default(), &patch).await?;
    wait::until("the operator's pods", || async {
        Ok((operator::pods(client).await?.len() == replicas as usize).then_some(()))
    })
    .await
}

fn topic(place: &Place, cluster: &str, name: &str) -> Result<RivvenTopic> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "rivven.io/v1alpha1", "kind": "RivvenTopic",
        "metadata": { "name": name, "namespace": place.namespace },
        "spec": { "clusterRef": { "name": cluster } },
    }))?)
}

/// The writes that the operator makes for a topic, with the same content and as closely watched, by a client that does
/// nothing else. The objects are there before, as they are for the operator.
async fn bare_writes(place: &Place, cluster: &str, count: usize) -> Result<f64> {
    let api = place.api::<RivvenTopic>();
    // One that the operator made is what the others are written like.
    api.create(&PostParams::default(), &topic(place, cluster, "model")?).await?;
    let model = place.topic_is("model", Phase::Ready).await?;
    let status = serde_json::to_value(&model.status)?;
    let mark = json!({ "metadata": { "annotations": model.annotations(), "finalizers": ["example.com/plain"] } });
    operate(&place.client, 0).await?;

    let name = |nth: usize| format!("plain-{nth}");
    let create = |nth| {
        let (api, object) = (api.clone(), topic(place, cluster, &name(nth)));
        async move { api.create(&PostParams::default(), &object?).await.map(drop).map_err(Into::into) }
    };
    rate(count, create).await?;
    let version = version(&api).await?;
    let events = place.api::<Event>();
    let params = PatchParams::default();
    let write = |nth| {
        let (api, events, params) = (&api, &events, &params);
        let (name, namespace) = (name(nth), &place.namespace);
        let (mut first, last, mark) = (status.clone(), json!({ "status": status }), mark.clone());
        async move {
            first["phase"] = json!("Provisioning");
            first["config"] = json!({});
            api.patch_status(&name, params, &Patch::Merge(json!({ "status": first }))).await?;
            api.patch_metadata(&name, params, &Patch::Merge(mark)).await?;
            api.patch_status(&name, params, &Patch::Merge(last)).await?;
            let event = serde_json::from_value(json!({
                "metadata": { "name": format!("{name}.event"), "namespace": namespace },
                "action": "Ready", "reason": "AsWanted", "type": "Normal", "note": "Provisioning -> Ready",
                "eventTime": "2026-01-01T00:00:00.000000Z",
                "reportingController": "plain", "reportingInstance": "plain",
                "regarding": { "apiVersion": "rivven.io/v1alpha1", "kind": "RivvenTopic", "name": name, "namespace": namespace },
            }))?;
            events.create(&PostParams::default(), &event).await?;
            Ok(())
        }
    };
    let began = Instant::now();
    futures::try_join!(rate(count, write), all_ready(place, version, "plain-", count))?;
    let made = ratio(count, 1) / began.elapsed().as_secs_f64();
    let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    let release = |nth| {
        let (api, params, free, name) = (&api, &params, &free, name(nth));
        async move {
            api.delete(&name, &DeleteParams::default()).await?;
            api.patch_metadata(&name, params, free).await?;
            Ok(())
        }
    };
    rate(count, release).await?;
    Ok(made)
}

async fn version(api: &Api<RivvenTopic>) -> Result<String> {
    Ok(api.list_metadata(&ListParams::default().limit(1)).await?.metadata.resource_version.unwrap_or_default())
}

/// Watches until so many topics of this prefix are Ready. As text: reading each object would cost as much as making it.
async fn all_ready(place: &Place, mut version: String, prefix: &str, count: usize) -> Result<()> {
    let between = |text: &str, before: &str| {
        let (_, rest) = text.split_once(before)?;
        Some(rest.split_once('"')?.0.to_owned())
    };
    let path = format!("/apis/rivven.io/v1alpha1/namespaces/{}/rivventopics", place.namespace);
    let mut ready = BTreeSet::new();
    loop {
        let params = WatchParams::default().timeout(290).disable_bookmarks();
        let request = kube::core::Request::new(path.clone()).watch(&params, &version)?;
        let mut lines = std::pin::pin!(place.client.request_stream(request).await?.lines());
        while let Some(line) = lines.next().await {
            let line = line?;
            version = between(&line, r#""resourceVersion":""#).unwrap_or(version);
            if line.contains(r#""phase":"Ready""#) {
                ready.extend(between(&line, &format!(r#""name":"{prefix}"#)));
            }
            if ready.len() == count {
                return Ok(());
            }
        }
    }
}

/// From the moment that the operator may begin, with all objects there, until the last is Ready.
async fn by_the_operator(place: &Place, cluster: &str, count: usize) -> Result<f64> {
    operate(&place.client, 0).await?;
    let api = place.api::<RivvenTopic>();
    let create = |nth| {
        let (api, object) = (api.clone(), topic(place, cluster, &format!("t-{nth}")));
        async move { api.create(&PostParams::default(), &object?).await.map(drop).map_err(Into::into) }
    };
    rate(count, create).await?;
    let version = version(&api).await?;
    operate(&place.client, 1).await?;
    operator::leading(&place.client).await?;
    let began = Instant::now();
    all_ready(place, version, "t-", count).await?;
    Ok(ratio(count, 1) / began.elapsed().as_secs_f64())
}

/// The broker calls so far, by operation.
async fn calls(client: &Client) -> Result<BTreeMap<String, u64>> {
    let pod = operator::pods(client).await?.first().context("the operator's pod")?.name_any();
    let path = format!("/api/v1/namespaces/{}/pods/{pod}:8080/proxy/metrics", operator::NAMESPACE);
    let text = client.request_text(http::Request::get(path).body(Vec::new())?).await?;
    let calls = text.lines().filter_map(|line| {
        let rest = line.strip_prefix("rivven_operator_broker_calls_total{operation=\"")?;
        let (operation, rest) = rest.split_once('"')?;
        Some((operation.to_owned(), rest.rsplit(' ').next()?.parse::<f64>().ok()?))
    });
    let mut sums = BTreeMap::new();
    for (operation, count) in calls {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter")]
        let count = count as u64;
        *sums.entry(operation).or_insert(0) += count;
    }
    Ok(sums)
}

/// One resync passes in silence, but for one listing.
async fn silent(place: &Place, kind: &str, count: usize) -> Result<()> {
    wait::until("quiet", || async {
        let mark = Mark::now()?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        Ok(mark.requests(operator::USER)?.is_empty().then_some(()))
    })
    .await?;
    let (mark, before) = (Mark::now()?, calls(&place.client).await?);
    tokio::time::sleep(Duration::from_secs(18)).await;
    let requests = mark.requests(operator::USER)?;
    let mut more = calls(&place.client).await?;
    for (operation, count) in &mut more {
        *count -= before.get(operation).copied().unwrap_or(0);
    }
    more.retain(|_, count| *count > 0);
    println!(
        "{kind}: {count} idle topics, one resync: {} requests; broker calls: {more:?}; {} KiB resident",
        requests.values().sum::<usize>(),
        operator::resident_kib()?
    );
    ensure!(requests.is_empty(), "{}", few(&requests));
    ensure!(!more.contains_key("describe_topic"), "topics are asked for one by one: {more:?}");
    Ok(())
}
