//! Waiting for a condition, with a limit.

use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::time::{Instant, sleep, timeout};

/// How often a condition is looked at.
pub(crate) const PACE: Duration = Duration::from_millis(20);

/// Asks until the answer is `Ok`. When `patience` is over, the last reason why not is the error.
pub async fn until<T, F>(what: &str, patience: Duration, mut ask: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let end = Instant::now() + patience;
    let mut last = None;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match timeout(left, ask()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(reason)) => last = Some(reason),
            Err(_) => {
                let last = last.unwrap_or_else(|| anyhow!("no answer"));
                return Err(last.context(format!("{what}: not within {patience:?}")));
            }
        }
        sleep(PACE).await;
    }
}
