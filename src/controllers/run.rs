//! Starts the controllers of every scope and keeps them going.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Config, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource};
use rivven_fsm::Kind;
use tokio::sync::mpsc;
use tracing::debug;

use super::context::Context;
use super::watches::{ClusterNews, Scope, clusters, connect_of, refers};
use super::{cluster, connect, topic};
use crate::api::{RivvenConnect, RivvenTopic};
use crate::observe::Caches;
use crate::process::health::{Health, Heartbeat};
use crate::process::shutdown::Stop;

/// How many objects of a kind are reconciled at once.
const CONCURRENCY: u16 = 16;
/// How often a controller's loop shows that it is alive, and how long it may be silent.
const BEAT: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_mins(1);

/// Runs the controllers of `scopes` until `stop`. `context` is given the caches that the watches fill.
pub async fn run(
    client: Client,
    scopes: Vec<Scope>,
    health: &Health,
    stop: &Stop,
    context: impl FnOnce(Caches) -> Context,
) {
    let news = ClusterNews::new();
    let mut caches = Caches::default();
    let starts: Vec<Start> =
        scopes.into_iter().map(|scope| start(&client, &scope, &mut caches, news.clone(), health, stop)).collect();
    let context = Arc::new(context(caches));
    let synced = {
        let (context, health) = (Arc::clone(&context), health.clone());
        async move {
            context.observer.caches().synced().await;
            health.set_ready(true);
        }
    };
    let controllers = starts.into_iter().flat_map(|start| start(Arc::clone(&context)));
    futures::future::join(synced, futures::future::join_all(controllers)).await;
}

type Start = Box<dyn FnOnce(Arc<Context>) -> Vec<futures::future::BoxFuture<'static, ()>> + Send>;

#[allow(
    clippy::too_many_lines,
    reason = "a list of watches and of what each wakes; split, it would be harder to see whole"
)]
/// Opens the watches of a scope, adds their caches, and gives what starts its controllers.
fn start(
    client: &Client,
    scope: &Scope,
    caches: &mut Caches,
    news: ClusterNews,
    health: &Health,
    stop: &Stop,
) -> Start {
    let (woken, connects_woken) = mpsc::unbounded_channel::<ObjectRef<DeserializeGuard<RivvenConnect>>>();
    macro_rules! owned {
        ($field:ident) => {{
            let (store, events) = scope.owned(client, &caches.progress);
            caches.$field.add(scope.0.clone(), store);
            events
        }};
        // Of these, connects have some too.
        ($field:ident, shared) => {{
            let woken = woken.clone();
            owned!($field).inspect(move |event| {
                if let Some(connect) = event.as_ref().ok().and_then(connect_of) {
                    // The receiver lives as long as the controllers.
                    let _ = woken.send(connect);
                }
            })
        }};
    }
    let stateful_sets = owned!(stateful_sets);
    let services = owned!(services, shared);
    let config_maps = owned!(config_maps, shared);
    let deployments = owned!(deployments);
    let budgets = owned!(budgets);
    let policies = owned!(policies);
    let ingresses = owned!(ingresses);
    let claims = owned!(claims);
    let pods = {
        let news = news.clone();
        owned!(pods, shared).inspect(move |event| {
            if let Ok(pod) = event {
                news.pod(pod);
            }
        })
    };
    let (cluster_store, cluster_events) = scope.own(client, &caches.progress);
    let (topic_store, topic_events) = scope.own(client, &caches.progress);
    let (connect_store, connect_events) = scope.own(client, &caches.progress);
    caches.clusters.add(scope.0.clone(), cluster_store.clone());
    caches.topics.add(scope.0.clone(), topic_store.clone());
    caches.connects.add(scope.0.clone(), connect_store.clone());

    let place = scope.0.clone().unwrap_or_else(|| "all namespaces".to_owned());
    let beat = |kind: Kind| health.register(format!("{kind} controller of {place}"), SILENCE);
    let (cluster_beat, topic_beat, connect_beat) = (beat(Kind::Cluster), beat(Kind::Topic), beat(Kind::Connect));
    let stop = stop.clone();
    Box::new(move |ctx: Arc<Context>| {
        let config = || Config::default().concurrency(CONCURRENCY);
        let stopped = |stop: Stop| async move { stop.requested().await };

        let told = {
            let (ctx, news) = (Arc::clone(&ctx), news.clone());
            cluster_events.inspect(move |event| match event {
                Ok(watcher::Event::Delete(gone)) => {
                    ctx.forget(Kind::Cluster, gone.meta());
                    news.cluster(gone);
                }
                Ok(watcher::Event::Apply(seen) | watcher::Event::InitApply(seen)) => news.cluster(seen),
                _ => {}
            })
        };
        let clusters_run = Controller::for_stream(told.applied_objects(), cluster_store)
            .with_config(config())
            .reconcile_on(clusters(stateful_sets))
            .reconcile_on(clusters(services))
            .reconcile_on(clusters(config_maps))
            .reconcile_on(clusters(budgets))
            .reconcile_on(clusters(policies))
            .reconcile_on(clusters(ingresses))
            .reconcile_on(clusters(claims))
            .reconcile_on(clusters(pods))
            .graceful_shutdown_on(stopped(stop.clone()))
            .run(cluster::reconcile, cluster::back_off, Arc::clone(&ctx));

        let (rival, rivals_gone) = mpsc::unbounded_channel::<ObjectRef<DeserializeGuard<RivvenTopic>>>();
        let watched = {
            let (ctx, names) = (Arc::clone(&ctx), ctx.observer.caches().topic_names.clone());
            topic_events.inspect(move |event| match event {
                Ok(watcher::Event::Apply(seen) | watcher::Event::InitApply(seen)) => {
                    seen.0.iter().for_each(|seen| names.seen(seen));
                }
                Ok(watcher::Event::Delete(gone)) => {
                    ctx.forget(Kind::Topic, gone.meta());
                    // Two objects about the same topic concern each other: when the older goes, the other may act.
                    for (namespace, name) in gone.0.iter().flat_map(|gone| names.gone(gone)) {
                        // The receiver lives as long as this controller.
                        let _ = rival.send(ObjectRef::new(&name).within(&namespace));
                    }
                }
                _ => {}
            })
        };
        let of_cluster = |topic: &RivvenTopic, cluster: &(String, String)| {
            refers(&topic.spec.cluster_ref, topic.metadata.namespace.clone(), cluster)
        };
        let topics_run = Controller::for_stream(watched.applied_objects(), topic_store.clone())
            .with_config(config())
            .reconcile_on(news.dependents(topic_store, of_cluster))
            .reconcile_on(futures::stream::unfold(rivals_gone, |mut gone| async move {
                gone.recv().await.map(|next| (next, gone))
            }))
            .graceful_shutdown_on(stopped(stop.clone()))
            .run(topic::reconcile, topic::back_off, Arc::clone(&ctx));

        let watched = {
            let ctx = Arc::clone(&ctx);
            connect_events.inspect(move |event| {
                if let Ok(watcher::Event::Delete(gone)) = event {
                    ctx.forget(Kind::Connect, gone.meta());
                }
            })
        };
        let of_cluster = |connect: &RivvenConnect, cluster: &(String, String)| {
            refers(&connect.spec.cluster_ref, connect.metadata.namespace.clone(), cluster)
        };
        let connects_run = Controller::for_stream(watched.applied_objects(), connect_store.clone())
            .with_config(config())
            .reconcile_on(news.dependents(connect_store, of_cluster))
            .reconcile_on(deployments.filter_map(|event| std::future::ready(event.ok().as_ref().and_then(connect_of))))
            .reconcile_on(futures::stream::unfold(connects_woken, |mut woken| async move {
                woken.recv().await.map(|next| (next, woken))
            }))
            .graceful_shutdown_on(stopped(stop))
            .run(connect::reconcile, connect::back_off, ctx);

        vec![
            Box::pin(drive(clusters_run, cluster_beat)),
            Box::pin(drive(topics_run, topic_beat)),
            Box::pin(drive(connects_run, connect_beat)),
        ]
    })
}

/// Polls a controller and beats its heart: a loop that is not polled any more falls silent.
async fn drive<T, E: std::fmt::Display>(controller: impl Stream<Item = Result<T, E>>, heartbeat: Heartbeat) {
    let mut controller = std::pin::pin!(controller);
    let mut tick = tokio::time::interval(BEAT);
    loop {
        tokio::select! {
            item = controller.next() => match item {
                // A reconcile's failure was logged where it happened; a trigger for an object that is gone is none.
                Some(outcome) => if let Err(error) = outcome { debug!(%error, "controller") },
                None => break,
            },
            _ = tick.tick() => heartbeat.beat(),
        }
    }
    heartbeat.finish();
}
