//! Steps that failed, and would fail again: they are told once and tried again with back-off.
//!
//! Telling a failure is a write, a write wakes the watch, and the watch brings the same decision back at once. Without a
//! memory of it, what fails for good would be tried, told and untold as fast as the API server answers.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rivven_fsm::Decision;
use tokio::time::Instant;

/// A step that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which of the decided steps.
    pub step: usize,
    /// In the words of who refused it.
    pub error: String,
    /// When it is tried again. Zero: now.
    pub wait: Duration,
}

struct Noted {
    decided: String,
    step: usize,
    error: String,
    until: Instant,
}

/// The objects of which a step failed last, by uid.
#[derive(Default)]
pub struct Faults(Mutex<HashMap<String, Noted>>);

impl Faults {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Noted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a step of this decision failed.
    pub fn note<S: Debug>(&self, uid: &str, decision: &Decision<S>, step: usize, error: String) {
        let noted = Noted { decided: text(decision), step, error, until: Instant::now() };
        self.all().insert(uid.to_owned(), noted);
    }

    /// It is tried again after this time.
    pub fn wait(&self, uid: &str, wait: Duration) {
        if let Some(noted) = self.all().get_mut(uid) {
            noted.until = Instant::now() + wait;
        }
    }

    /// The failure of what was decided once more. Another decision is another matter.
    pub fn standing<S: Debug>(&self, uid: &str, decision: &Decision<S>) -> Option<Fault> {
        let all = self.all();
        let noted = all.get(uid).filter(|noted| noted.decided == text(decision))?;
        let wait = noted.until.saturating_duration_since(Instant::now());
        Some(Fault { step: noted.step, error: noted.error.clone(), wait })
    }

    /// It went well, or the object is gone.
    pub fn forget(&self, uid: &str) {
        self.all().remove(uid);
    }
}

/// What was decided, without what it is called.
fn text<S: Debug>(decision: &Decision<S>) -> String {
    format!("{} {} {:?}", decision.phase, decision.reason, decision.steps)
}
