//! Probes, metrics and the way out, over real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::net::SocketAddr;
use std::time::Duration;

use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rivven_fsm::{IllegalTransition, Kind, Phase, Reason};
use rivven_operator::process::health::Health;
use rivven_operator::process::metrics::{
    CONTENT_TYPE, CallOutcome, Category, METRICS, Metrics, Outcome, StepOutcome, reference,
};
use rivven_operator::process::probe::{ProbeError, probe};
use rivven_operator::process::server::{bind, serve_health, serve_metrics};
use rivven_operator::process::shutdown::{self, Stop, Stopper};
use rivven_operator::process::topics::TopicFacts;
use tokio::time::timeout;

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

struct Answer {
    status: StatusCode,
    content_type: String,
    body: String,
}

async fn ask(method: Method, addr: SocketAddr, path: &str) -> Answer {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::builder().method(method).uri(format!("http://{addr}{path}"));
    let answer = client.request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    let content_type = answer.headers().get("content-type").unwrap().to_str().unwrap().to_owned();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    Answer { status, content_type, body: String::from_utf8(body.to_vec()).unwrap() }
}

async fn get(addr: SocketAddr, path: &str) -> Answer {
    ask(Method::GET, addr, path).await
}

async fn health_server(health: &Health) -> (SocketAddr, Stopper) {
    let (stopper, stop) = shutdown::pair();
    let listener = bind(ANY_PORT).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(serve_health(listener, health.clone(), stop));
    (addr, stopper)
}

async fn metrics_server(metrics: &Metrics, stop: Stop) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = bind(ANY_PORT).await.unwrap();
    let addr = listener.local_addr().unwrap();
    (addr, tokio::spawn(serve_metrics(listener, metrics.clone(), stop)))
}

#[tokio::test]
async fn alive_until_a_loop_is_silent_and_the_answer_names_it() {
    let health = Health::new();
    let (addr, _stopper) = health_server(&health).await;
    let fine = health.register("controller RivvenCluster", Duration::from_mins(10));
    fine.beat();
    for path in ["/healthz", "/livez"] {
        assert_eq!(get(addr, path).await.status, StatusCode::OK);
    }

    // A promise to be silent for no time at all is broken at once.
    let stuck = health.register("leader election", Duration::ZERO);
    let answer = get(addr, "/healthz").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.body.contains("leader election") && !answer.body.contains("RivvenCluster"), "{}", answer.body);

    stuck.finish();
    assert_eq!(get(addr, "/livez").await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_died_is_noticed_and_one_that_beats_is_not() {
    let health = Health::new();
    drop(health.register("died", Duration::from_secs(30)));
    let beating = health.register("beating", Duration::from_secs(30));
    for _ in 0..4 {
        tokio::time::advance(Duration::from_secs(10)).await;
        beating.beat();
    }
    assert_eq!(health.stuck(), [("died".to_owned(), Duration::from_secs(40))]);
}

#[tokio::test]
async fn ready_when_told_so_whether_leader_or_not() {
    let health = Health::new();
    let (addr, _stopper) = health_server(&health).await;
    assert_eq!(get(addr, "/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
    health.set_ready(true);
    assert_eq!(get(addr, "/readyz").await.status, StatusCode::OK);
    health.set_ready(false);
    assert_eq!(get(addr, "/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn nothing_else_is_served() {
    let (addr, _stopper) = health_server(&Health::new()).await;
    for path in ["/", "/metrics", "/healthz/", "/debug"] {
        assert_eq!(get(addr, path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(ask(Method::POST, addr, "/healthz").await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(ask(Method::HEAD, addr, "/healthz").await.body, "");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let listener = bind(ANY_PORT).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let error = bind(addr).await.unwrap_err();
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
}

#[tokio::test]
async fn metrics_are_scraped_as_open_metrics() {
    let (metrics, (_stopper, stop)) = (everything_counted(), shutdown::pair());
    let (addr, _server) = metrics_server(&metrics, stop).await;
    let answer = get(addr, "/metrics").await;
    assert_eq!((answer.status, answer.content_type.as_str()), (StatusCode::OK, CONTENT_TYPE));
    assert!(answer.body.ends_with("# EOF\n"));
    for line in [
        r#"rivven_operator_reconciles_total{kind="RivvenCluster",outcome="waiting"} 1"#,
        r#"rivven_operator_reconcile_errors_total{kind="RivvenTopic",category="broker"} 1"#,
        r#"rivven_operator_reconcile_duration_seconds_count{kind="RivvenCluster"} 1"#,
        r#"rivven_operator_transitions_total{kind="RivvenCluster",from="None",to="Pending"} 1"#,
        r#"rivven_operator_illegal_transitions_total{kind="RivvenTopic",from="Ready",to="Pending"} 1"#,
        r#"rivven_operator_steps_total{kind="RivvenCluster",step="Apply",outcome="done"} 1"#,
        r#"rivven_operator_broker_calls_total{operation="create_topic",outcome="refused"} 1"#,
        r#"rivven_operator_broker_call_duration_seconds_count{operation="create_topic"} 1"#,
        "rivven_operator_leader 1",
        r#"rivven_operator_build_info{version="1.2.3"} 1"#,
    ] {
        assert!(answer.body.lines().any(|served| served == line), "{line} in\n{}", answer.body);
    }
}

#[test]
fn what_is_documented_is_what_is_served() {
    let text = everything_counted().encode().unwrap();
    let mut served: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let mut documented: Vec<_> = METRICS
        .iter()
        .map(|metric| {
            let name = metric.name.trim_end_matches("_total");
            format!("{} {}", if metric.kind == "info" { name.trim_end_matches("_info") } else { name }, metric.kind)
        })
        .collect();
    served.sort_unstable();
    documented.sort_unstable();
    assert_eq!(served, documented);
    for metric in METRICS {
        let sample = text.lines().find(|line| line.starts_with(metric.name) && line.contains('{'));
        let labels: Vec<_> = sample
            .and_then(|line| line.split_once('{')?.1.split_once('}'))
            .map(|(labels, _)| {
                labels.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name).collect()
            })
            .unwrap_or_default();
        let users = |label| if str::starts_with(label, "label_") { "label_*" } else { label };
        let labels: Vec<_> = labels.into_iter().filter(|label| *label != "le").map(users).collect();
        assert_eq!(labels, metric.labels, "{}", metric.name);
        assert!(reference().contains(&format!("| `{}` |", metric.name)));
    }
}

#[test]
fn exactly_one_phase_of_an_object_is_on_and_none_when_it_is_gone() {
    let metrics = Metrics::new("0");
    let on = |metrics: &Metrics, series: &str| {
        let text = metrics.encode().unwrap();
        text.lines()
            .filter(|line| line.starts_with(series) && line.ends_with(" 1"))
            .map(ToOwned::to_owned)
            .collect::<Vec<_>>()
    };
    metrics.object(Kind::Cluster, "a", "x", Phase::Pending, [Reason::ALL[0], Reason::ALL[1]]);
    metrics.object(Kind::Topic, "a", "x", Phase::Ready, []);
    assert_eq!(on(&metrics, "rivven_operator_blocked").len(), 2);
    metrics.object(Kind::Cluster, "a", "x", Phase::Ready, []);
    assert_eq!(
        on(&metrics, "rivven_operator_object_phase"),
        [
            r#"rivven_operator_object_phase{kind="RivvenCluster",namespace="a",name="x",phase="Ready"} 1"#,
            r#"rivven_operator_object_phase{kind="RivvenTopic",namespace="a",name="x",phase="Ready"} 1"#,
        ]
    );
    assert!(on(&metrics, "rivven_operator_blocked").is_empty());
    metrics.forget(Kind::Cluster, "a", "x");
    metrics.forget(Kind::Topic, "a", "x");
    assert!(!metrics.encode().unwrap().contains("rivven_operator_object_phase"));
}

fn everything_counted() -> Metrics {
    let (metrics, took) = (Metrics::new("1.2.3"), Duration::from_millis(3));
    metrics.reconciled(Kind::Cluster, Outcome::Waiting, took);
    metrics.failed(Kind::Topic, Category::Broker);
    metrics.object(Kind::Cluster, "a", "x", Phase::Pending, [Reason::ALL[0]]);
    metrics.transition(Kind::Cluster, None, Phase::Pending);
    metrics.illegal_transition(&IllegalTransition { kind: Kind::Topic, from: Some(Phase::Ready), to: Phase::Pending });
    metrics.step(Kind::Cluster, "Apply", StepOutcome::Done);
    metrics.broker_call("create_topic", CallOutcome::Refused, took);
    metrics.set_leader(true);
    let facts = TopicFacts {
        topic: "orders".to_owned(),
        partitions: 3,
        replicas: Some(3),
        in_sync: Some(2),
        records: Some(7),
        labels: [("team".to_owned(), "a".to_owned())].into(),
    };
    metrics.topic("a", "x", facts);
    metrics
}

#[tokio::test]
async fn the_probe_tells_success_from_failure() {
    let (metrics, (_stopper, stop)) = (Metrics::new("0"), shutdown::pair());
    let (addr, _server) = metrics_server(&metrics, stop).await;
    let url = |path: &str| format!("http://{addr}{path}").parse::<Uri>().unwrap();
    let limit = Duration::from_secs(10);
    probe(url("/metrics"), limit).await.unwrap();
    let missing = probe(url("/nothing"), limit).await.unwrap_err();
    assert!(matches!(missing, ProbeError::Status { status: StatusCode::NOT_FOUND, .. }));

    let closed = bind(ANY_PORT).await.unwrap().local_addr().unwrap();
    let refused = probe(format!("http://{closed}/").parse().unwrap(), limit).await.unwrap_err();
    assert!(refused.to_string().contains("refused"), "{refused}");

    let silent = bind(ANY_PORT).await.unwrap();
    let mute = format!("http://{}/", silent.local_addr().unwrap()).parse().unwrap();
    let late = probe(mute, Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(late, ProbeError::Timeout(_)));
}

#[tokio::test]
async fn asked_to_stop_a_server_closes_its_port() {
    let (stopper, stop) = shutdown::pair();
    let (addr, server) = metrics_server(&Metrics::new("0"), stop.clone()).await;
    assert!(!stop.is_requested());
    stopper.stop();
    timeout(Duration::from_secs(5), server).await.expect("ends").unwrap();
    assert!(stop.is_requested());
    tokio::net::TcpStream::connect(addr).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn work_is_drained_but_not_for_ever() {
    let (stopper, stop) = shutdown::pair();
    assert_eq!(stop.drain(shutdown::DRAIN, async { 7 }).await, Some(7));
    stopper.stop();
    let asked = tokio::time::Instant::now();
    assert_eq!(stop.drain(shutdown::DRAIN, std::future::pending::<()>()).await, None);
    assert_eq!(asked.elapsed(), shutdown::DRAIN);
}

#[tokio::test]
async fn nobody_left_to_ask_is_the_end_too() {
    let (stopper, stop) = shutdown::pair();
    drop(stopper);
    timeout(Duration::from_secs(5), stop.requested()).await.expect("ends");
    assert!(stop.is_requested());
}

#[tokio::test]
async fn a_signal_asks_to_stop() {
    let stop = Stop::on_signals().unwrap();
    assert!(!stop.is_requested());
    let kill = std::process::Command::new("sh").arg("-c").arg("kill -TERM $PPID").status().unwrap();
    assert!(kill.success());
    timeout(Duration::from_secs(5), stop.requested()).await.expect("asked");
}

/// Tells the child process that it is one.
const BLOCKS: &str = "PROCESS_SERVERS_BLOCKS";

/// What the child does: all of its runtime's thread is lost to a task that blocks.
async fn block() {
    let stop = Stop::on_signals().unwrap();
    shutdown::enforce(&stop, Duration::from_millis(100));
    let asked = std::process::Command::new("sh").arg("-c").arg("kill -TERM $PPID").status().unwrap();
    assert!(asked.success());
    stop.requested().await;
    // Lets the watchdog see the request before this thread is lost to the runtime.
    tokio::task::yield_now().await;
    std::thread::park();
    unreachable!("the watchdog did not end the process");
}

#[tokio::test]
async fn a_task_that_blocks_does_not_keep_the_process() {
    if std::env::var_os(BLOCKS).is_some() {
        return block().await;
    }
    let child = tokio::task::spawn_blocking(|| {
        std::process::Command::new(std::env::current_exe().unwrap())
            .env(BLOCKS, "")
            .args(["--exact", "a_task_that_blocks_does_not_keep_the_process", "--nocapture"])
            .output()
            .unwrap()
    });
    let output = timeout(shutdown::GRACE, child).await.expect("ends in time").unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not everything stopped in time"));
}
