//! Produces numbered records to a topic, reads them back and reports what was lost. Exit code 1 if anything was.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use rivven_conformance::load::{Options, run, verify_file};

#[derive(Parser)]
#[command(about)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Produces nothing; reads back what is in this file of acknowledgements
    #[arg(long)]
    verify_only: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let report = match &arguments.verify_only {
        Some(acks) => verify_file(&arguments.options, acks).await?,
        None => run(&arguments.options).await?,
    };
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(if report.lost > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
