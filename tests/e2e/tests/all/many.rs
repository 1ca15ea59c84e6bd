//! Many topics. `cargo xtask many` does the same with 10 000.

use anyhow::{Result, ensure};
use rivven_e2e::variable;
use tokio::process::Command;

#[tokio::test]
async fn many_topics_are_made_as_fast_as_bare_clients_make_them_and_are_silent() -> Result<()> {
    let status = Command::new(variable("RIVVEN_E2E_MANY")?).arg("200").status().await?;
    ensure!(status.success(), "{status}");
    Ok(())
}
