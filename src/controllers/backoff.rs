//! Back-off per object: exponential with jitter, capped, forgotten at the first success.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

const FIRST: Duration = Duration::from_millis(500);
const LIMIT: Duration = Duration::from_mins(1);

/// The objects that failed, by uid.
#[derive(Default)]
pub struct Backoffs(Mutex<HashMap<String, ExponentialBackoff>>);

impl Backoffs {
    /// How long to wait after one more failure of this object.
    pub fn next(&self, uid: &str) -> Duration {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let backoff = all.entry(uid.to_owned()).or_insert_with(|| {
            ExponentialBuilder::new()
                .with_min_delay(FIRST)
                .with_max_delay(LIMIT)
                .with_jitter()
                .without_max_times()
                .build()
        });
        backoff.next().unwrap_or(LIMIT)
    }

    /// The object succeeded, or is gone.
    pub fn reset(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_is_capped_and_is_forgotten() {
        let backoffs = Backoffs::default();
        let waits: Vec<Duration> = (0..12).map(|_| backoffs.next("a")).collect();
        assert!(waits[0] >= FIRST && waits[0] < 3 * FIRST, "{waits:?}");
        assert!(waits[11] >= LIMIT && waits[11] <= 2 * LIMIT, "{waits:?}");
        backoffs.reset("a");
        assert!(backoffs.next("a") < 3 * FIRST);
    }
}
