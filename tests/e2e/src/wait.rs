//! Waiting for a condition, with a limit and the condition's name in the failure.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long anything may take on a slow shared machine.
const LIMIT: Duration = Duration::from_mins(3);
/// How often the condition is looked at.
const PACE: Duration = Duration::from_millis(100);

/// Looks until there is something.
pub async fn until<T, F>(what: &str, mut look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let began = Instant::now();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if began.elapsed() > LIMIT {
            bail!("waited {} s in vain: {what}", LIMIT.as_secs());
        }
        tokio::time::sleep(PACE).await;
    }
}
