//! All tests, in parts, each timed; one summary at the end. Nothing is skipped: what cannot run fails.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cluster::Cluster;
use crate::shell::{Run, program};
use crate::{generate, images, paths, tools};

const CLUSTER: Cluster = Cluster::Test;

type Part = (&'static str, fn() -> Result<Tally>);

/// What a part counted. A part that runs no test runner counts as one test.
#[derive(Clone, Copy, Default)]
struct Tally {
    passed: usize,
    failed: usize,
}

const ONE: Tally = Tally { passed: 1, failed: 0 };

const PARTS: &[Part] = &[
    ("format", || cargo(&["fmt", "--all", "--check"]).show().map(|()| ONE)),
    ("clippy", || {
        cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])
            .show()
            .map(|()| ONE)
    }),
    ("licences and dependencies", dependencies),
    ("generated files", || generate::run(true).map(|()| ONE)),
    ("tests without a cluster", || {
        // The proofs say how many states and cases they went through.
        let others = ["--exclude", "rivven-e2e", "--exclude", "rivven-conformance", "--", "--show-output"];
        count(cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]).args(others))
    }),
    ("what a broker must answer", || {
        let broker = tools::broker()?;
        let tests = cargo(&["test", "--package", "rivven-conformance", "--locked", "--no-fail-fast"]);
        count(tests.env("RIVVEN_RELEASED_BROKER", broker))
    }),
    ("chart", chart),
    ("end to end", || {
        // From nothing, as on a fresh machine, and nothing is left behind.
        let tally = CLUSTER.down().and_then(|()| e2e(&[]));
        let removed = CLUSTER.down();
        let tally = tally?;
        removed.map(|()| tally)
    }),
];

/// Runs the parts whose name contains `only`.
pub(crate) fn run(only: Option<&str>) -> Result<()> {
    let mut rows = Vec::new();
    for (name, part) in PARTS.iter().filter(|(name, _)| only.is_none_or(|only| name.contains(only))) {
        println!("\n=== {name}");
        let began = Instant::now();
        let outcome = part().unwrap_or_else(|error| {
            eprintln!("{error:#}");
            Tally { passed: 0, failed: 1 }
        });
        rows.push((*name, outcome, began.elapsed()));
    }
    println!("\n{:<28} {:>8} {:>8} {:>9}", "part", "passed", "failed", "seconds");
    for (name, tally, took) in &rows {
        println!("{name:<28} {:>8} {:>8} {:>9.1}", tally.passed, tally.failed, took.as_secs_f64());
    }
    let took: Duration = rows.iter().map(|(_, _, took)| *took).sum();
    println!("{:<28} {:>8} {:>8} {:>9.1}\n", "all", "", "", took.as_secs_f64());
    let (passed, failed) = rows.iter().fold((0, 0), |(p, f), (_, tally, _)| (p + tally.passed, f + tally.failed));
    println!("{passed} passed, {failed} failed");
    if failed > 0 || passed == 0 {
        bail!("the tests did not pass");
    }
    Ok(())
}

/// The end-to-end tests on a cluster that stays up.
pub(crate) fn end_to_end(args: &[String]) -> Result<()> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let tally = e2e(&args)?;
    if tally.failed > 0 {
        bail!("{} tests failed", tally.failed);
    }
    Ok(())
}

fn e2e(args: &[&str]) -> Result<Tally> {
    CLUSTER.up_with_images()?;
    images::load(CLUSTER, &images::connect(), "/app", &tools::connect()?)?;
    // One after the other: they measure, kill the operator, and count requests, on one cluster.
    let tests = cargo(&[
        "test",
        "--package",
        "rivven-e2e",
        "--locked",
        "--no-fail-fast",
        "--",
        "--test-threads=1",
        "--nocapture",
    ])
    .args(args);
    count(with_cluster(tests)?)
}

/// The measurement of many topics by itself.
pub(crate) fn many(topics: u32) -> Result<()> {
    CLUSTER.up_with_images()?;
    with_cluster(program(tools::many()?).arg(topics.to_string()))?.show()
}

/// What programs that use the cluster are told.
fn with_cluster(tests: Run) -> Result<Run> {
    let state = CLUSTER.state();
    let tests =
        tests.env("KUBECONFIG", CLUSTER.kubeconfig()).env("RIVVEN_E2E_AUDIT_LOG", state.join("audit/audit.log"));
    // For the scripts that tests run themselves.
    let tests = CLUSTER.variables()?.iter().fold(tests, |tests, (name, value)| tests.env(name, value));
    Ok(tests
        .env("RIVVEN_E2E_HELM", tools::helm()?)
        .env("RIVVEN_E2E_OPERATOR", tools::operator_binary()?)
        .env("RIVVEN_E2E_MANY", tools::many()?)
        .env("RIVVEN_E2E_ROOT", paths::root()))
}

/// The custom resources and every sample on the oldest Kubernetes that is supported. Not part of every run: it builds an
/// API server of its own.
pub(crate) fn oldest() -> Result<()> {
    let (etcd, apiserver) = tools::oldest()?;
    let state = paths::cache()?.join("oldest");
    let script = program(paths::root().join("tests/cluster/oldest.sh")).arg(state).arg(etcd).arg(apiserver);
    let tests = ["cargo", "test", "--package", "rivven-e2e", "--locked", "--test", "api", "--", "--nocapture"];
    script.args(tests).env("RIVVEN_E2E_ROOT", paths::root()).dir(paths::root()).show()
}

/// Advisories need a database that is fetched; where it cannot be, that is said, and the rest is checked.
fn dependencies() -> Result<Tally> {
    let deny = tools::cargo_deny()?;
    program(&deny)
        .args(["--log-level", "error", "--all-features", "check", "bans", "licenses", "sources"])
        .dir(paths::root())
        .show()?;
    let advisories = program(&deny).args(["check", "advisories"]).dir(paths::root()).read();
    match advisories {
        Ok(_) => Ok(Tally { passed: 2, failed: 0 }),
        Err(error) if format!("{error:#}").contains("failed to fetch advisory database") => {
            println!("    NOT CHECKED: advisories, as their database cannot be fetched from here");
            Ok(ONE)
        }
        Err(error) => Err(error),
    }
}

fn chart() -> Result<Tally> {
    program(tools::helm()?).args(["lint", "--strict"]).arg(paths::root().join("charts/rivven-operator")).show()?;
    Ok(ONE)
}

fn cargo(args: &[&str]) -> Run {
    program("cargo").args(args).dir(paths::root())
}

/// Runs a test runner, shows what it prints, and adds up its `test result:` lines.
fn count(tests: Run) -> Result<Tally> {
    let mut child = tests.command().stdout(Stdio::piped()).spawn()?;
    let mut tally = Tally::default();
    let output = BufReader::new(child.stdout.take().context("the output of cargo")?);
    for line in output.lines() {
        let line = line?;
        println!("{line}");
        if let Some(result) = line.strip_prefix("test result: ") {
            tally.passed += number_before(result, " passed");
            tally.failed += number_before(result, " failed");
            if number_before(result, " ignored") > 0 {
                bail!("a test is ignored; a test that is not run is no test");
            }
        }
    }
    let status = child.wait()?;
    // A test program that crashed has counted nothing.
    if !status.success() && tally.failed == 0 {
        bail!("the tests could not be run: {status}");
    }
    Ok(tally)
}

fn number_before(text: &str, word: &str) -> usize {
    let before = text.split(word).next().unwrap_or_default();
    before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}
