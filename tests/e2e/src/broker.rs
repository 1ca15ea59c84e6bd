//! What is done to brokers from outside of Kubernetes.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use tokio::process::Command;

use crate::{Place, variable};

/// Kills a broker as nothing else does: SIGKILL.
pub async fn kill(place: &Place, pod: &str) -> Result<()> {
    let status = place.api::<Pod>().get(pod).await?.status.unwrap_or_default();
    let container = status.container_statuses.unwrap_or_default().into_iter().next();
    let id =
        container.and_then(|container| container.container_id).with_context(|| format!("{pod} has no container"))?;
    let script = format!("{}/tests/cluster/kill.sh", variable("RIVVEN_E2E_ROOT")?);
    let killed = Command::new(script).arg(&id).output().await?;
    ensure!(killed.status.success(), "{pod}, {id}: {}", String::from_utf8_lossy(&killed.stderr));
    Ok(())
}
