//! What the API server refuses or holds back. It is a fact that stands on no object: whoever asks again learns it again,
//! so that it need not outlive the process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rivven_fsm::cluster::Refused;
use tokio::time::Instant;

/// How soon the same growth is asked for again: a quota is raised, or a class mended, without any watch telling.
const RETRY: Duration = Duration::from_mins(2);

/// How long an eviction is held back before that is told: in every rollout the kubelet notices a broker that is back a
/// moment later than the operator, and the budget with it.
const HELD_AFTER: Duration = Duration::from_secs(10);

/// An eviction that was not tried for so long says nothing any more. Longer than any back-off.
const HELD_UNTIL: Duration = Duration::from_mins(10);

/// A claim's uid and a size in bytes: another size is another question.
type Question = (String, u64);

/// The eviction of a pod that is held back.
struct Held {
    since: Instant,
    tried: Instant,
    words: String,
}

#[derive(Default)]
struct All {
    growth: HashMap<Question, (Instant, String)>,
    evictions: HashMap<String, Held>,
}

/// What was refused when, and in what words.
#[derive(Clone, Default)]
pub struct Refusals(Arc<Mutex<All>>);

impl Refusals {
    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a claim, by its uid, may not have this size.
    pub fn note(&self, uid: &str, bytes: u64, words: String) {
        let mut all = self.all();
        all.growth.retain(|(of, size), _| of != uid || *size == bytes);
        all.growth.insert((uid.to_owned(), bytes), (Instant::now(), words));
    }

    /// Notes that the eviction of a pod, by its uid, is held back.
    pub fn note_held(&self, uid: &str, words: String) {
        let (mut all, now) = (self.all(), Instant::now());
        all.evictions.retain(|_, held| held.tried + HELD_UNTIL > now);
        let since = all.evictions.get(uid).map_or(now, |held| held.since);
        all.evictions.insert(uid.to_owned(), Held { since, tried: now, words });
    }

    /// The claim, or the pod, got what was asked for.
    pub fn forget(&self, uid: &str) {
        let mut all = self.all();
        all.growth.retain(|(of, _), _| of != uid);
        all.evictions.remove(uid);
    }

    /// What was said to a request for this size.
    pub(super) fn of(&self, uid: &str, bytes: u64) -> Option<Refused> {
        let all = self.all();
        let (at, words) = all.growth.get(&(uid.to_owned(), bytes))?;
        Some(Refused { words: words.clone(), retry: at.elapsed() >= RETRY })
    }

    /// What has held the eviction of a pod back, if it has for long.
    pub(super) fn held(&self, uid: &str) -> Option<String> {
        let all = self.all();
        let held = all.evictions.get(uid).filter(|held| held.tried.elapsed() < HELD_UNTIL)?;
        (held.since.elapsed() >= HELD_AFTER).then(|| held.words.clone())
    }
}
