//! Brokers as processes of this machine, which is the node they run on.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;

/// Kills a broker as nothing else does: SIGKILL to its process.
pub async fn kill(node_id: &str) -> Result<()> {
    let pid = pid(node_id)?;
    let killed = Command::new("kill").args(["-KILL", &pid.to_string()]).status().await?;
    ensure!(killed.success(), "broker {node_id}, process {pid}, could not be killed");
    Ok(())
}

/// The process of the broker with this node id.
fn pid(node_id: &str) -> Result<u32> {
    let wanted = format!("RIVVEN_NODE_ID={node_id}");
    for entry in fs::read_dir("/proc")?.flatten() {
        let path = entry.path();
        let is_broker = fs::read_link(path.join("exe")).is_ok_and(|exe| exe.as_os_str() == "/app");
        let environment = || fs::read(path.join("environ")).unwrap_or_default();
        if is_broker && environment().split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes()) {
            let pid = path.file_name().and_then(|name| name.to_str()).context("a process id")?;
            return Ok(pid.parse()?);
        }
    }
    bail!("no process of broker {node_id} was found")
}
