//! Generated files: made from the code, and checked to be current.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use rivven_operator::api;

use crate::shell::program;
use crate::{paths, reference, tools};

/// The oldest Kubernetes that is supported; Helm alone would assume an older one still.
const OLDEST: &str = "1.28.0";

/// Every generated file, as path and content.
fn files() -> Result<Vec<(String, String)>> {
    let mut files = vec![
        ("docs/reference/phases.md".to_owned(), reference::phases()),
        ("docs/reference/reasons.md".to_owned(), reference::reasons()),
        ("docs/reference/metrics.md".to_owned(), reference::metrics()),
        ("docs/reference/fields.md".to_owned(), reference::fields()?),
    ];
    for crd in api::crds() {
        let yaml = api::crd_yaml(&crd).map_err(|error| anyhow!(error))?;
        for folder in ["deploy/crds", "charts/rivven-operator/files/crds"] {
            files.push((format!("{folder}/{}", api::crd_file(&crd)), yaml.clone()));
        }
    }
    Ok(files)
}

/// Writes them, or with `check` fails if one is not current.
pub(crate) fn run(check: bool) -> Result<()> {
    let mut stale = Vec::new();
    for (path, content) in files()? {
        put(&path, &content, check, &mut stale)?;
    }
    // After the CRDs, which the chart carries.
    put("deploy/operator/operator.yaml", &manifests()?, check, &mut stale)?;
    if !stale.is_empty() {
        bail!("stale: {}\nrun `cargo xtask generate` and commit what it writes", stale.join(", "));
    }
    Ok(())
}

fn put(path: &str, content: &str, check: bool, stale: &mut Vec<String>) -> Result<()> {
    let file = paths::root().join(path);
    if fs::read_to_string(&file).is_ok_and(|current| current == content) {
        return Ok(());
    }
    if check {
        stale.push(path.to_owned());
        return Ok(());
    }
    fs::create_dir_all(file.parent().context("a file in a folder")?)?;
    fs::write(&file, content)?;
    println!("wrote {path}");
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
    let folder = paths::root().join("target/release-assets");
    fs::create_dir_all(&folder)?;
    let mut crds = String::new();
    for crd in api::crds() {
        crds.push_str("---\n");
        crds.push_str(&api::crd_yaml(&crd).map_err(|error| anyhow!(error))?);
    }
    write(&folder.join("rivven-crds.yaml"), &crds)?;
    write(&folder.join("rivven-operator.yaml"), &manifests()?)
}

fn write(file: &Path, content: &str) -> Result<()> {
    fs::write(file, content)?;
    println!("wrote {}", file.display());
    Ok(())
}
