//! What goes wrong on request, seen through the watcher and the client the operator uses.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::time::Duration;

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, PostParams, WatchParams};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Client, Error, ResourceExt};
use rivven_sim::{Fault, Matcher, Session, Sim, Verb, View};
use serde_json::json;

fn map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap()
}

fn maps(client: Client) -> Api<ConfigMap> {
    Api::namespaced(client, "default")
}

/// A minimal operator: for every map `x` there shall be `x-copy` and `x-note`.
async fn operator(client: Client) {
    let api = maps(client.clone());
    let (reader, writer) = reflector::store();
    let stream = watcher(api.clone(), watcher::Config::default()).default_backoff().reflect(writer).touched_objects();
    pin_mut!(stream);
    while let Some(event) = stream.next().await {
        let Ok(object) = event else { continue };
        let name = object.name_any();
        for copy in ["copy", "note"] {
            if !name.contains('-') && reader.state().iter().all(|m| m.name_any() != format!("{name}-{copy}")) {
                let _ = api.create(&PostParams::default(), &map(&format!("{name}-{copy}"))).await;
            }
        }
    }
}

/// Runs the operator until the world is at rest, with a new process whenever its session ends.
async fn run(sim: &Sim, plan: impl FnOnce(&Session)) {
    let session = sim.session("operator");
    plan(&session);
    let operator_run = tokio::spawn(operator(session.client()));
    let restarted = sim.clone();
    let watchdog = tokio::spawn(async move {
        session.ended().await;
        operator_run.abort();
        operator(restarted.client("operator")).await;
    });
    sim.converge(Duration::from_secs(400), Duration::from_secs(4000)).await.unwrap();
    watchdog.abort();
}

fn with_two_maps() -> Sim {
    let sim = Sim::new(7);
    for name in ["a", "b"] {
        sim.apply(json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } }));
    }
    sim
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_write_ends_in_the_same_world() {
    let reference = with_two_maps();
    run(&reference, |_| {}).await;
    let writes = reference.log().of("operator").writes();
    assert_eq!(writes.0.len(), 4, "{:#?}", writes.lines());
    for nth in 1..=4 {
        for fault in [Fault::CutBefore, Fault::CutAfter, Fault::LoseReply] {
            let sim = with_two_maps();
            run(&sim, |s| s.on_write(nth, fault)).await;
            assert_eq!(sim.world(), reference.world(), "{fault:?} at {nth}");
            assert_eq!(sim.log().of("operator").writes().counts(), writes.counts(), "{fault:?} at {nth}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_is_the_same_every_time() {
    let lines = async || {
        let sim = with_two_maps();
        run(&sim, |s| s.on_write(2, Fault::CutAfter)).await;
        sim.log().lines()
    };
    let (first, second) = (lines().await, lines().await);
    assert!(first.contains(&"create configmaps default/a-copy 201".to_owned()), "{first:#?}");
    assert_eq!(first, second);
}

#[tokio::test(start_paused = true)]
async fn a_cut_session_reaches_nothing_and_a_new_one_does() {
    let sim = Sim::new(1);
    let session = sim.session("operator");
    let api = maps(session.client());
    session.on_write(1, Fault::CutBefore);
    assert!(matches!(api.create(&PostParams::default(), &map("x")).await, Err(Error::Service(_))));
    assert!(session.is_cut() && matches!(api.get("x").await, Err(Error::Service(_))));
    session.ended().await;
    assert!(sim.get("configmaps", "default", "x").is_none());
    maps(sim.client("operator")).create(&PostParams::default(), &map("x")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn answers_can_be_chosen() {
    let sim = Sim::new(1);
    let session = sim.session("operator");
    let api = maps(session.client());
    for (code, reason) in [(409, "Conflict"), (429, "TooManyRequests"), (500, "InternalError"), (504, "Timeout")] {
        session.on(Matcher { verb: Some(Verb::Get), ..Matcher::plural("configmaps") }, 1, Fault::Answer(code));
        match api.get("x").await {
            Err(Error::Api(status)) => assert_eq!((status.code, status.reason.as_str()), (code, reason)),
            other => panic!("{other:?}"),
        }
    }
    session.on(Matcher::default(), 1, Fault::Hang);
    let never = tokio::time::timeout(Duration::from_hours(1), api.get("x")).await;
    assert!(never.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_stale_view_shows_the_past_and_catches_up() {
    let sim = with_two_maps();
    let session = sim.session("operator");
    let api = maps(session.client());
    session.view(View::Behind(1));
    let names =
        async || api.list(&ListParams::default()).await.unwrap().iter().map(ResourceExt::name_any).collect::<Vec<_>>();
    assert_eq!(names().await, ["a"]);
    assert!(api.get("b").await.is_ok(), "a get is a quorum read");
    let (reader, writer) = reflector::store::<ConfigMap>();
    let stream = watcher(api.clone(), watcher::Config::default()).reflect(writer).for_each(|_| async {});
    let watching = tokio::spawn(stream);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(reader.state().len(), 1);
    session.view(View::Latest);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(reader.state().len(), 2);
    session.drop_event(session.events() + 1);
    sim.delete("configmaps", "default", "b", &json!({})).unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(reader.state().len(), 2, "the deletion was not told");
    watching.abort();
}

#[tokio::test(start_paused = true)]
async fn a_watch_from_a_compacted_version_is_gone_and_is_listed_anew() {
    let sim = with_two_maps();
    let api = maps(sim.client("operator"));
    let old = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    sim.delete("configmaps", "default", "a", &json!({})).unwrap();
    sim.compact();
    let stream = api.watch(&WatchParams::default(), &old).await.unwrap().boxed();
    pin_mut!(stream);
    match stream.next().await {
        Some(Ok(kube::api::WatchEvent::Error(status))) => {
            assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn server_side_apply_is_seen() {
    let sim = Sim::new(1);
    let params = kube::api::PatchParams::apply("x");
    let patch = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "x" } });
    match maps(sim.client("x")).patch("x", &params, &kube::api::Patch::Apply(patch)).await {
        Err(Error::Api(status)) => assert_eq!(status.code, 415),
        other => panic!("{other:?}"),
    }
}
