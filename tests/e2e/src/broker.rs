//! Brokers as processes of this machine, which is the node they run on.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;

use crate::Place;

/// Kills a broker as nothing else does: SIGKILL to its process.
pub async fn kill(place: &Place, node_id: &str) -> Result<()> {
    let pid = pid(&place.namespace, node_id)?;
    let killed = Command::new("kill").args(["-KILL", &pid.to_string()]).status().await?;
    ensure!(killed.success(), "broker {node_id}, process {pid}, could not be killed");
    Ok(())
}

/// The process of the broker that is known by this name in the cluster's network.
fn pid(namespace: &str, node_id: &str) -> Result<u32> {
    // A node id alone may be there in another namespace as well.
    let wanted = format!("RIVVEN_ADVERTISE_ADDR={node_id}.");
    let namespace = format!(".{namespace}.svc");
    for entry in fs::read_dir("/proc")?.flatten() {
        let path = entry.path();
        let is_broker = fs::read_link(path.join("exe")).is_ok_and(|exe| exe.as_os_str() == "/app");
        let environment = || String::from_utf8_lossy(&fs::read(path.join("environ")).unwrap_or_default()).into_owned();
        let is_wanted = |variable: &str| variable.starts_with(&wanted) && variable.contains(&namespace);
        if is_broker && environment().split('\0').any(is_wanted) {
            let pid = path.file_name().and_then(|name| name.to_str()).context("a process id")?;
            return Ok(pid.parse()?);
        }
    }
    bail!("no process of broker {node_id} was found")
}
