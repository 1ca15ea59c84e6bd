//! What is built of this checkout for the local Kubernetes and for the tests: optimized a little and static, all of it for
//! the whole workspace at once, so that what programs and tests share is built once.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::paths;
use crate::shell::{Run, program, step};
use crate::tools::{STATIC, TARGET};

const PROFILE: &str = "local";

/// The programs are as the checkout is.
static BUILT: OnceLock<()> = OnceLock::new();

/// A program of this checkout, built.
pub(crate) fn built(name: &str) -> Result<PathBuf> {
    if BUILT.get().is_none() {
        step("building the operator, the test broker and the programs of tests", || {
            cargo("build").args(["--quiet", "--workspace", "--exclude", "xtask", "--bins"]).show()
        })?;
        let _ = BUILT.set(());
    }
    Ok(path(name))
}

/// Where [`built`] puts it.
pub(crate) fn path(name: &str) -> PathBuf {
    paths::root().join("target").join(TARGET).join(PROFILE).join(name)
}

/// A test program.
pub(crate) struct Test {
    /// The folder of its package.
    pub(crate) package: PathBuf,
    file: PathBuf,
}

impl Test {
    /// As `cargo test` would run it.
    pub(crate) fn run(&self) -> Run {
        program(&self.file).dir(&self.package).env("CARGO_MANIFEST_DIR", &self.package)
    }
}

impl std::fmt::Display for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.file.strip_prefix(paths::root()).unwrap_or(&self.file).display())
    }
}

/// Builds the programs, and the test programs that `which` of cargo's options selects.
pub(crate) fn tests(which: &[&str]) -> Result<Vec<Test>> {
    let build = cargo("build").args(["--workspace", "--bins", "--message-format=json-render-diagnostics"]);
    let mut child = build.args(which).command().stdout(Stdio::piped()).spawn()?;
    let mut tests = Vec::new();
    for line in BufReader::new(child.stdout.take().context("the output of cargo")?).lines() {
        let message: Value = serde_json::from_str(&line?)?;
        let (file, manifest) = (message["executable"].as_str(), message["manifest_path"].as_str());
        if let (Some(file), Some(manifest), Some(true)) = (file, manifest, message["profile"]["test"].as_bool()) {
            let package = Path::new(manifest).parent().context("a manifest in a folder")?.to_owned();
            tests.push(Test { package, file: file.into() });
        }
    }
    if !child.wait()?.success() {
        bail!("the tests could not be built");
    }
    let _ = BUILT.set(());
    // In the same order each time, whatever was ready first.
    tests.sort_by(|a, b| (&a.package, &a.file).cmp(&(&b.package, &b.file)));
    Ok(tests)
}

/// The examples in the documentation.
pub(crate) fn examples() -> Run {
    cargo("test").args(["--workspace", "--doc"])
}

fn cargo(what: &str) -> Run {
    let cargo = program("cargo").args([what, "--profile", PROFILE, "--locked", "--target", TARGET]);
    cargo.env("RUSTFLAGS", STATIC).dir(paths::root())
}
