//! Whether the process is alive and ready.
//!
//! Alive: every long-running loop has given a sign of life within the silence it promised not to exceed. Ready: the
//! custom resources exist and the caches are filled; a standby is ready too, or a rollout of two replicas would wait
//! for a leadership that only comes when the old replica goes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The registry of loops, and the flag of readiness. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    ready: AtomicBool,
    loops: Mutex<BTreeMap<String, Loop>>,
}

#[derive(Debug)]
struct Loop {
    last: Instant,
    max_silence: Duration,
}

/// One loop's side of the promise. Dropping it does not end the promise: a loop that died in a panic must be noticed.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    health: Health,
    name: String,
}

impl Health {
    /// Nothing registered, not ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// A loop promises to beat at least every `max_silence`, from now on. The same name again starts its promise anew.
    pub fn register(&self, name: impl Into<String>, max_silence: Duration) -> Heartbeat {
        let name = name.into();
        self.loops().insert(name.clone(), Loop { last: Instant::now(), max_silence });
        Heartbeat { health: self.clone(), name }
    }

    /// The loops that have been silent for too long, each with how long, sorted by name.
    pub fn stuck(&self) -> Vec<(String, Duration)> {
        let now = Instant::now();
        let silence = |entry: &Loop| now.saturating_duration_since(entry.last);
        self.loops()
            .iter()
            .filter(|(_, entry)| silence(entry) > entry.max_silence)
            .map(|(name, entry)| (name.clone(), silence(entry)))
            .collect()
    }

    /// Says whether the custom resources were found and the caches are filled.
    pub fn set_ready(&self, ready: bool) {
        self.0.ready.store(ready, Ordering::Release);
    }

    /// Whether [`set_ready`](Self::set_ready) said so.
    pub fn is_ready(&self) -> bool {
        self.0.ready.load(Ordering::Acquire)
    }

    fn loops(&self) -> MutexGuard<'_, BTreeMap<String, Loop>> {
        self.0.loops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heartbeat {
    /// A sign of life.
    pub fn beat(&self) {
        if let Some(entry) = self.health.loops().get_mut(&self.name) {
            entry.last = Instant::now();
        }
    }

    /// The loop has come to its proper end and is silent from now on.
    pub fn finish(self) {
        self.health.loops().remove(&self.name);
    }
}
