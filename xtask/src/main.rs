//! The chores of this repository: `cargo xtask <chore>`.

mod checkout;
mod cluster;
mod demo;
mod generate;
mod images;
mod paths;
mod shell;
mod test;
mod tools;

use anyhow::Result;
use clap::{Parser, Subcommand};

use cluster::Cluster;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The chores of this repository")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// The main job: a local Kubernetes, the operator from its chart, a cluster, a topic, a record written and read.
    Demo,
    /// All tests: this is what CI runs.
    Test {
        /// Only the parts whose name contains this.
        #[arg(long)]
        only: Option<String>,
    },
    /// The end-to-end tests on a local Kubernetes that stays up, so that the next run is quick.
    E2e {
        /// Passed on to the test runner.
        args: Vec<String>,
    },
    /// Many topics on a local Kubernetes that stays up: how fast they are made, and that they are silent then.
    Many {
        /// How many.
        #[arg(default_value_t = 10_000)]
        topics: u32,
    },
    /// The custom resources and every sample on the oldest supported Kubernetes.
    Oldest,
    /// Starts a local Kubernetes with the images of the broker and of the operator.
    Up {
        /// Which: `demo` or `test`.
        #[arg(long, default_value = "demo")]
        name: Cluster,
    },
    /// Removes a local Kubernetes and all it left.
    Down {
        /// Which: `demo` or `test`.
        #[arg(long, default_value = "demo")]
        name: Cluster,
    },
    /// Writes the generated files, or checks that they are current.
    Generate {
        /// Change nothing; fail if a file is stale.
        #[arg(long)]
        check: bool,
    },
    /// Writes the assets of a release to `target/release-assets`.
    Release,
}

fn main() -> Result<()> {
    match Cli::parse().chore {
        Chore::Demo => demo::run(),
        Chore::Test { only } => test::run(only.as_deref()),
        Chore::E2e { args } => test::end_to_end(&args),
        Chore::Many { topics } => test::many(topics),
        Chore::Oldest => test::oldest(),
        Chore::Up { name } => {
            name.up_with_images()?;
            println!("\nexport KUBECONFIG={}", name.kubeconfig().display());
            Ok(())
        }
        Chore::Down { name } => name.down(),
        Chore::Generate { check } => generate::run(check),
        Chore::Release => generate::release(),
    }
}
