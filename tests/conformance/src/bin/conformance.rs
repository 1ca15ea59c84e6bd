//! Runs one set of checks against one or more brokers and prints what each of them does. Exit code 1 if a check that
//! applies fails.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use rivven_conformance::checks::CHECKS;
use rivven_conformance::run::run;
use rivven_conformance::table::{self, Column};

#[derive(Parser)]
#[command(about)]
struct Arguments {
    /// A broker to test: its name in the table and its binary
    #[arg(long, required = true, value_name = "NAME=PATH", value_parser = broker)]
    broker: Vec<(String, PathBuf)>,
    /// This broker forms clusters: the checks of a cluster apply to it
    #[arg(long, value_name = "NAME")]
    clustered: Vec<String>,
    /// Only checks whose operation contains this
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
    let named = |name: &String| arguments.broker.iter().any(|(broker, _)| broker == name);
    ensure!(arguments.clustered.iter().all(named), "--clustered names a --broker");
    let only = arguments.only.as_deref().unwrap_or_default();
    let checks: Vec<_> = CHECKS.iter().copied().filter(|check| check.operation.contains(only)).collect();
    let mut columns = Vec::new();
    for (broker, binary) in &arguments.broker {
        let outcomes = run(binary, arguments.clustered.contains(broker), &checks).await;
        columns.push(Column { broker: broker.clone(), outcomes });
    }
    if arguments.json {
        println!("{:#}", table::json(&checks, &columns));
    } else {
        print!("{}", table::text(&checks, &columns));
    }
    Ok(if columns.iter().all(Column::passes) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
