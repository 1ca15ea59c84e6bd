//! Waiting for a condition, with a limit and the condition's name in the failure.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long anything may take on a slow shared machine.
const LIMIT: Duration = Duration::from_mins(3);
/// How often the condition is looked at.
const PACE: Duration = Duration::from_millis(100);

/// The same where the time is measured.
const FINE_PACE: Duration = Duration::from_millis(20);

/// Looks until there is something.
pub async fn until<T, F>(what: &str, look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    looked(what, PACE, look).await
}

/// Looks often until there is something: the time that it takes is measured.
pub async fn closely<T, F>(what: &str, look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    looked(what, FINE_PACE, look).await
}

async fn looked<T, F>(what: &str, pace: Duration, mut look: impl FnMut() -> F) -> Result<T>
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
        tokio::time::sleep(pace).await;
    }
}
