//! All tests, in parts, each timed; one summary at the end. Nothing is skipped: what cannot run fails.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::checkout::Test;
use crate::cluster::Cluster;
use crate::shell::{Run, program};
use crate::{checkout, generate, images, paths, tools};

const CLUSTER: Cluster = Cluster::Test;
/// The package that needs a Kubernetes.
const E2E: &str = "tests/e2e";
/// The package that is held against the released broker too.
const CONFORMANCE: &str = "tests/conformance";

type Part = (&'static str, fn() -> Result<Tally>);

/// What a part counted. A part that runs no test runner counts as one test.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    /// What was said of failures, to be said again at the end.
    said: Vec<String>,
}

const ONE: Tally = Tally { passed: 1, failed: 0, said: Vec::new() };

impl std::ops::Add for Tally {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self.said.extend(other.said);
        Self { passed: self.passed + other.passed, failed: self.failed + other.failed, said: self.said }
    }
}

const PARTS: &[Part] = &[
    ("format", || cargo(&["fmt", "--all", "--check"]).show().map(|()| ONE)),
    ("clippy", || {
        cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])
            .show()
            .map(|()| ONE)
    }),
    ("licences and dependencies", dependencies),
    ("chart and manifests", chart),
    ("tests without a cluster", || {
        // The proofs say how many states and cases they went through.
        let tests = tests()?.iter().filter(|test| ![E2E, CONFORMANCE].map(package).contains(&test.package));
        let tally = run_all(tests, |run| Ok(run.arg("--show-output")))?;
        Ok(tally + count(checkout::examples())?)
    }),
    ("what a broker must answer", || {
        let broker = tools::broker()?;
        let tests = tests()?.iter().filter(|test| test.package == package(CONFORMANCE));
        run_all(tests, |run| Ok(run.env("RIVVEN_RELEASED_BROKER", &broker)))
    }),
    ("end to end", || {
        // From nothing, as on a fresh machine, and nothing is left behind.
        let tally = CLUSTER.down().and_then(|()| e2e(tests()?, &[]));
        let removed = CLUSTER.down();
        let tally = tally?;
        removed.map(|()| tally)
    }),
];

/// Runs the parts whose name contains `only`.
pub(crate) fn run(only: Option<&str>) -> Result<()> {
    if only.is_none() {
        tools::in_advance();
    }
    let mut rows = Vec::new();
    for (name, part) in PARTS.iter().filter(|(name, _)| only.is_none_or(|only| name.contains(only))) {
        println!("\n=== {name}");
        let began = Instant::now();
        let outcome = part().unwrap_or_else(|error| {
            eprintln!("{error:#}");
            Tally { passed: 0, failed: 1, said: vec![format!("{error:#}")] }
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
    for (name, tally, _) in &rows {
        tally.said.iter().for_each(|said| println!("{name}: {said}"));
    }
    println!("{passed} passed, {failed} failed");
    if failed > 0 || passed == 0 {
        bail!("the tests did not pass");
    }
    Ok(())
}

/// The end-to-end tests on a cluster that stays up.
pub(crate) fn end_to_end(args: &[String]) -> Result<()> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let tests = checkout::tests(&["--test", "all"])?;
    let tally = e2e(&tests, &args)?;
    if tally.failed > 0 {
        bail!("{} tests failed", tally.failed);
    }
    Ok(())
}

fn e2e(tests: &[Test], args: &[&str]) -> Result<Tally> {
    CLUSTER.up_with_images()?;
    images::load(CLUSTER, &images::connect(), "/app", &tools::connect()?)?;
    let tests = tests.iter().filter(|test| test.package == package(E2E));
    // One after the other: they measure, kill the operator, and count requests, on one cluster.
    let tally = run_all(tests, |run| with_cluster(run.args(["--test-threads=1", "--nocapture"]).args(args)))?;
    if tally.failed == 0 {
        // Tests do not wait for what they delete; that nothing hangs is seen once, here.
        // What a run before left behind, which was ended or failed, is nobody's here.
        let ours = ["namespaces", "--selector", "rivven.io/test", "--field-selector", "status.phase=Terminating"];
        CLUSTER.kubectl().arg("wait").args(ours).args(["--for=delete", "--timeout=180s"]).quiet()?;
    }
    Ok(tally)
}

/// All test programs, built when the first part asks for them.
fn tests() -> Result<&'static [Test]> {
    static TESTS: OnceLock<Vec<Test>> = OnceLock::new();
    if TESTS.get().is_none() {
        let _ = TESTS.set(checkout::tests(&["--tests"])?);
    }
    TESTS.get().map(Vec::as_slice).context("tests")
}

fn package(folder: &str) -> PathBuf {
    paths::root().join(folder)
}

fn run_all<'a>(tests: impl Iterator<Item = &'a Test>, with: impl Fn(Run) -> Result<Run>) -> Result<Tally> {
    let mut tally = Tally::default();
    for test in tests {
        println!("\n     Running {test}");
        tally = tally + count(with(test.run())?)?;
    }
    Ok(tally)
}

/// The measurement of many topics by itself.
pub(crate) fn many(topics: u32) -> Result<()> {
    CLUSTER.up_with_images()?;
    with_cluster(program(checkout::built("many")?).arg(topics.to_string()))?.show()
}

/// What programs that use the cluster are told.
fn with_cluster(run: Run) -> Result<Run> {
    let state = CLUSTER.state();
    let run = run.env("KUBECONFIG", CLUSTER.kubeconfig()).env("RIVVEN_E2E_AUDIT_LOG", state.join("audit/audit.log"));
    // For the scripts that tests run themselves.
    let run = CLUSTER.variables()?.iter().fold(run, |run, (name, value)| run.env(name, value));
    let run = run.env("RIVVEN_E2E_HELM", tools::helm()?).env("RIVVEN_E2E_ROOT", paths::root());
    let operator = checkout::path("rivven-operator");
    Ok(run.env("RIVVEN_E2E_OPERATOR", operator).env("RIVVEN_E2E_MANY", checkout::path("many")))
}

/// The custom resources and every sample on the oldest Kubernetes that is supported. Not part of every run: it builds an
/// API server of its own.
pub(crate) fn oldest() -> Result<()> {
    let (etcd, apiserver) = tools::oldest()?;
    let state = paths::cache()?.join("oldest");
    let script = program(paths::root().join("tests/cluster/oldest.sh")).arg(state).arg(etcd).arg(apiserver);
    let tests = ["cargo", "test", "--package", "rivven-e2e", "--locked", "--test", "all", "--", "--nocapture", "api::"];
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
        Ok(_) => Ok(ONE + ONE),
        Err(error) if format!("{error:#}").contains("failed to fetch advisory database") => {
            println!("    NOT CHECKED: advisories, as their database cannot be fetched from here");
            Ok(ONE)
        }
        Err(error) => Err(error),
    }
}

fn chart() -> Result<Tally> {
    program(tools::helm()?).args(["lint", "--strict"]).arg(paths::root().join("charts/rivven-operator")).show()?;
    generate::manifests_are_current(true)?;
    Ok(ONE + ONE)
}

fn cargo(args: &[&str]) -> Run {
    program("cargo").args(args).dir(paths::root())
}

/// Runs a test runner, shows what it prints, and adds up its `test result:` lines.
fn count(tests: Run) -> Result<Tally> {
    // Both by one pipe, as a test that fails says why on the one and that it failed on the other.
    let (output, theirs) = std::io::pipe()?;
    let mut child = tests.command().stdout(theirs.try_clone()?).stderr(theirs).spawn()?;
    let mut tally = Tally::default();
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        if line.starts_with("Error: ") || line.contains(" panicked at ") || line.ends_with("FAILED") {
            tally.said.push(line.clone());
        }
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
