//! Runs one set of checks against one or more brokers and prints what each of them does. Exit code 1 if a check that
//! applies fails.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use rivven_conformance::check::{Check, On, Outcome};
use rivven_conformance::checks::CHECKS;
use rivven_conformance::run::{Candidate, run};
use rivven_conformance::table::{self, Column};
use tokio::signal::ctrl_c;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(about)]
struct Arguments {
    /// A broker to test: its name in the table and its binary
    #[arg(long, required = true, value_name = "NAME=PATH", value_parser = broker)]
    broker: Vec<(String, PathBuf)>,
    /// This broker forms clusters: the checks of a cluster apply to it
    #[arg(long, value_name = "NAME")]
    clustered: Vec<String>,
    /// Only checks whose operation contains this, and those that form the cluster
    #[arg(long)]
    only: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn broker(text: &str) -> Result<(String, PathBuf)> {
    let (name, path) = text.split_once('=').context("not of the form name=path")?;
    let path = std::fs::canonicalize(path).with_context(|| path.to_owned())?;
    Ok((name.to_owned(), path))
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut terminate = signal(SignalKind::terminate())?;
    // Ended from outside, it returns as well: only so are the brokers killed and their directories removed.
    tokio::select! {
        passed = conformance(&arguments) => Ok(if passed? { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
        _ = ctrl_c() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}

async fn conformance(arguments: &Arguments) -> Result<bool> {
    let named = |name: &String| arguments.broker.iter().any(|(broker, _)| broker == name);
    ensure!(arguments.clustered.iter().all(named), "--clustered names a --broker");
    let only = arguments.only.as_deref().unwrap_or_default();
    // A cluster is formed by the checks of its formation.
    let chosen = |check: &Check| check.operation.contains(only) || matches!(check.on, On::Unformed(_));
    let checks: Vec<_> = CHECKS.iter().copied().filter(chosen).collect();
    let candidate = |(name, binary): &(String, PathBuf)| Candidate {
        name: name.clone(),
        binary: binary.clone(),
        clustered: arguments.clustered.contains(name),
    };
    let brokers: Vec<_> = arguments.broker.iter().map(candidate).collect();
    let told = |broker: &str, check: &Check, outcome: &Outcome| eprintln!("{broker}, {}: {outcome}", check.operation);
    let columns = run(&brokers, &checks, told).await;
    if arguments.json {
        println!("{:#}", table::json(&checks, &columns));
    } else {
        print!("{}", table::text(&checks, &columns));
    }
    Ok(columns.iter().all(Column::passes))
}
