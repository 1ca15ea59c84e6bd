//! The operator's process: `main` wires the rooms together and holds nothing else.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use kube::{Client, Config};
use rivven_operator::api;
use rivven_operator::broker::{Access, Brokers};
use rivven_operator::controllers::{self, Context, Scope};
use rivven_operator::execute::Executor;
use rivven_operator::observe::Observer;
use rivven_operator::process::cli::{BrokerAccess, Cli, Command, ProbeArgs, RunArgs};
use rivven_operator::process::health::Health;
use rivven_operator::process::leader::{self, Elector, Leadership, Timing};
use rivven_operator::process::lease::KubeLease;
use rivven_operator::process::metrics::{CallOutcome, Metrics};
use rivven_operator::process::shutdown::{self, DRAIN, GRACE, Stop};
use rivven_operator::process::{logging, probe, server};
use tracing::{error, info};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Two threads: the work is waiting, and memory at rest is what users notice.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcome = match (runtime, cli.command) {
        (Err(error), _) => Err(error.into()),
        (Ok(_), Some(Command::Crd)) => print_crds(),
        (Ok(runtime), Some(Command::Probe(args))) => runtime.block_on(ask(args)),
        (Ok(runtime), None) => runtime.block_on(run(cli.run)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rivven-operator: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print_crds() -> Result<(), Failure> {
    for crd in api::crds() {
        println!("---\n{}", api::crd_yaml(&crd)?.trim_end());
    }
    Ok(())
}

async fn ask(args: ProbeArgs) -> Result<(), Failure> {
    Ok(probe::probe(args.url, std::time::Duration::from_secs(args.timeout_seconds)).await?)
}

async fn run(args: RunArgs) -> Result<(), Failure> {
    logging::init(args.log_format)?;
    let stop = Stop::on_signals()?;
    shutdown::enforce(&stop, GRACE);
    let health = Health::new();
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION"));
    let health_listener = server::bind(args.health_addr).await?;
    let metrics_listener = server::bind(args.metrics_addr).await?;
    tokio::spawn(server::serve_health(health_listener, health.clone(), stop.clone()));
    tokio::spawn(server::serve_metrics(metrics_listener, metrics.clone(), stop.clone()));
    info!(version = env!("CARGO_PKG_VERSION"), health = %args.health_addr, metrics = %args.metrics_addr, "started");

    let mut config = Config::infer().await?;
    // The client would hide refusals (429, 503) behind up to 15 retries of its own; here a refusal is a value that the
    // next look decides about, with a back-off per object.
    config.default_retry = false;
    let client = Client::try_from(config)?;
    api_is_there(&client).await?;
    if !args.leader_election {
        let leadership = Leadership::always();
        tokio::spawn(leadership.clone().show(metrics.clone()));
        operate(client, &args, leadership, &health, metrics, &stop).await;
        return Ok(());
    }
    let store = KubeLease::new(client.clone(), &args.lease_namespace, &args.lease_name);
    let (elector, leadership) = Elector::new(store, leader::identity(), Timing::default());
    let elector = elector.with_heartbeat(health.register("leader election", Timing::default().lease * 4));
    tokio::spawn(leadership.clone().show(metrics.clone()));
    let (done, released) = shutdown::pair();
    let election = tokio::spawn(async move { elector.run(async move { released.requested().await }).await });
    // A standby is ready: it is there to take over, and a rollout of the operator must not wait for the old one.
    health.set_ready(true);
    tokio::select! {
        () = stop.requested() => {}
        () = leadership.wait_until_leader() => {
            info!("leading");
            tokio::select! {
                () = operate(client, &args, leadership.clone(), &health, metrics, &stop) => {}
                () = leadership.lost() => {
                    error!("the lease was lost; exiting, as what is in the queues was decided as leader");
                    return Err("the lease was lost".into());
                }
            }
        }
    }
    done.stop();
    election.await?;
    info!("stopped");
    Ok(())
}

/// Fails early, and says what to do, where the custom resources are not installed.
async fn api_is_there(client: &Client) -> Result<(), Failure> {
    match client.list_api_group_resources("rivven.io/v1alpha1").await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            Err("the custom resources of rivven.io/v1alpha1 are not installed: kubectl apply -f deploy/crds/".into())
        }
        Err(error) => Err(error.into()),
    }
}

async fn operate(
    client: Client,
    args: &RunArgs,
    leadership: Leadership,
    health: &Health,
    metrics: Metrics,
    stop: &Stop,
) {
    let in_a_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    let access = match args.broker_access {
        BrokerAccess::Direct => Access::Direct,
        BrokerAccess::Auto if in_a_pod => Access::Direct,
        BrokerAccess::Auto | BrokerAccess::PortForward => Access::PortForward(client.clone()),
    };
    let counted = metrics.clone();
    let brokers = Brokers::listing(
        access,
        Arc::new(move |operation, outcome, took| {
            let outcome = match outcome {
                "ok" => CallOutcome::Ok,
                "timeout" => CallOutcome::Timeout,
                "unreachable" => CallOutcome::Unavailable,
                _ => CallOutcome::Refused,
            };
            counted.broker_call(operation, outcome, took);
        }),
        args.resync(),
    );
    let scopes = if args.namespaces.is_all() {
        vec![Scope(None)]
    } else {
        args.namespaces.names().iter().map(|name| Scope(Some(name.clone()))).collect()
    };
    let executor = Executor::new(client.clone(), Arc::new(move || leadership.may_write()));
    let context = {
        let (client, domain, resync) = (client.clone(), args.cluster_domain.clone(), args.resync());
        move |caches| Context::new(Observer::new(client, caches, brokers, domain), executor, metrics, resync)
    };
    let work = controllers::run(client, scopes, health, stop, context);
    if stop.drain(DRAIN, work).await.is_none() {
        error!("work was still going on; what is left is decided anew by the next leader");
    }
}
