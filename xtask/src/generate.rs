//! Generated files: CRDs and reference by a test of the operator, which knows them; the plain manifests by Helm.

use std::fs;

use anyhow::{Result, bail};

use crate::shell::program;
use crate::{paths, tools};

/// The oldest Kubernetes that is supported; Helm alone would assume an older one still.
const OLDEST: &str = "1.28.0";
const MANIFESTS: &str = "deploy/operator/operator.yaml";

/// Writes them, or with `check` fails if one is not current.
pub(crate) fn run(check: bool) -> Result<()> {
    let test = program("cargo").args(["test", "--quiet", "--locked", "--test", "generated_files"]).dir(paths::root());
    let test = test.args(["--", "--nocapture"]);
    if check { test } else { test.env("UPDATE_GENERATED", "1") }.show()?;
    // After the CRDs, which the chart carries.
    manifests_are_current(check)
}

/// Writes the plain manifests, or with `check` fails if they are not current.
pub(crate) fn manifests_are_current(check: bool) -> Result<()> {
    let (file, content) = (paths::root().join(MANIFESTS), manifests()?);
    if fs::read_to_string(&file).is_ok_and(|current| current == content) {
        return Ok(());
    }
    if check {
        bail!("stale: {MANIFESTS}\nrun `cargo xtask generate` and commit what it writes");
    }
    fs::write(file, content)?;
    println!("wrote {MANIFESTS}");
    Ok(())
}

/// The operator as plain manifests: the chart with its defaults, and the namespace that Helm would have made.
fn manifests() -> Result<String> {
    let helm =
        program(tools::helm()?).args(["template", "rivven-operator"]).arg(paths::root().join("charts/rivven-operator"));
    let helm = helm.args([
        "--namespace",
        "rivven-system",
        "--kube-version",
        OLDEST,
        "--skip-tests",
        "--set",
        "crds.enabled=false",
    ]);
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: rivven-system\n  labels:\n    pod-security.kubernetes.io/enforce: restricted\n";
    Ok(format!(
        "# Generated from charts/rivven-operator by `cargo xtask generate`; do not edit.\n---\n{namespace}{}",
        helm.read()?
    ))
}

/// The assets of a release: all CRDs in one file, the operator in another.
pub(crate) fn release() -> Result<()> {
    run(true)?;
    let folder = paths::root().join("target/release-assets");
    fs::create_dir_all(&folder)?;
    let mut files: Vec<_> =
        fs::read_dir(paths::root().join("deploy/crds"))?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    let mut crds = String::new();
    for file in files {
        crds.push_str("---\n");
        crds.push_str(&fs::read_to_string(file)?);
    }
    for (name, content) in [("rivven-crds.yaml", crds), ("rivven-operator.yaml", manifests()?)] {
        let file = folder.join(name);
        fs::write(&file, content)?;
        println!("wrote {}", file.display());
    }
    Ok(())
}
