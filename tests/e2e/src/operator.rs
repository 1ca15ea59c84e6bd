//! The operator in the cluster, from its own chart with exactly the rights that the chart gives.

use std::fs;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client, ResourceExt};
use tokio::process::Command;

use crate::{client, variable, wait};

/// Where it runs.
pub const NAMESPACE: &str = "rivven-system";
/// Name of the Helm release.
pub const RELEASE: &str = "rivven-operator";
/// Who it is to the API server.
pub const USER: &str = "system:serviceaccount:rivven-system:rivven-operator";

/// Runs Helm.
pub async fn helm(args: &[&str]) -> Result<String> {
    let output = Command::new(variable("RIVVEN_E2E_HELM")?).args(args).stdin(Stdio::null()).output().await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        bail!("helm {} failed: {}", args.join(" "), text(&output.stderr));
    }
    Ok(text(&output.stdout))
}

/// Path of the chart.
pub fn chart() -> Result<String> {
    Ok(format!("{}/charts/rivven-operator", variable("RIVVEN_E2E_ROOT")?))
}

/// Installs the operator, or brings it to these values, and waits until it leads.
pub async fn ensure(values: &[&str]) -> Result<()> {
    let chart = chart()?;
    let mut args = vec![
        "upgrade",
        "--install",
        RELEASE,
        &chart,
        "--namespace",
        NAMESPACE,
        "--create-namespace",
        "--wait",
        "--timeout",
        "2m",
        "--take-ownership",
    ];
    // The tag is the same after a rebuild; with the binary's name of today the pod starts anew then.
    let binary = std::fs::metadata(variable("RIVVEN_E2E_OPERATOR")?)?.modified()?;
    let built = binary.duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let annotation = format!("podAnnotations.rivven\\.io/built=at-{built}");
    for value in ["image.tag=dev", &annotation].iter().chain(values) {
        args.extend(["--set", value]);
    }
    helm(&args).await?;
    let client = client().await?;
    leading(&client).await
}

/// Waits until one of the running pods holds the lease.
pub async fn leading(client: &Client) -> Result<()> {
    let leases = Api::<k8s_openapi::api::coordination::v1::Lease>::namespaced(client.clone(), NAMESPACE);
    wait::until("an operator that leads", || async {
        let holder = leases.get_opt(RELEASE).await?.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default();
        let pods = pods(client).await?;
        Ok(pods
            .iter()
            .any(|pod| pod.metadata.deletion_timestamp.is_none() && holder.starts_with(&pod.name_any()))
            .then_some(()))
    })
    .await
}

/// Its pods.
pub async fn pods(client: &Client) -> Result<Vec<Pod>> {
    let api = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
    Ok(api
        .list(&ListParams::default().labels("app.kubernetes.io/name=rivven-operator,app.kubernetes.io/component!=test"))
        .await?
        .items)
}

/// Kills it, as a node that dies would: no grace, no release of the lease.
pub async fn kill(client: &Client) -> Result<()> {
    let api = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
    for pod in pods(client).await? {
        api.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await?;
    }
    Ok(())
}

/// Resident memory in KiB of the operator's process, as the kernel of this machine tells it.
pub fn resident_kib() -> Result<u64> {
    for entry in fs::read_dir("/proc")?.flatten() {
        let path = entry.path();
        if fs::read_link(path.join("exe")).is_ok_and(|exe| exe.as_os_str() == "/rivven-operator") {
            let status = fs::read_to_string(path.join("status"))?;
            let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
            return Ok(line.split_whitespace().nth(1).context("no figure")?.parse()?);
        }
    }
    bail!("no process of the operator was found")
}
