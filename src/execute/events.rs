//! Events: one for every transition and every step, for `kubectl describe`.

use kube::Resource;
use kube::runtime::events::{Event, EventType};
use rivven_fsm::{Decision, Phase};
use tracing::warn;

use super::Executor;
use crate::observe::in_words;

/// The API server's limit on the note of an event, in bytes.
const NOTE_LIMIT: usize = 1024;

impl Executor {
    /// Tells of a change of phase. An Event that cannot be written is logged: it must never hold up what it tells of.
    pub async fn tell_transition<K, S>(&self, object: &K, from: Option<Phase>, decision: &Decision<S>)
    where
        K: Resource<DynamicType = ()>,
    {
        let type_ = if decision.phase == Phase::Degraded { EventType::Warning } else { EventType::Normal };
        let from = from.map_or("new", Phase::as_str);
        let note = format!("{from} -> {}: {}", decision.phase, decision.message);
        self.tell(object, type_, decision.reason.as_str(), decision.phase.as_str(), note).await;
    }

    /// Tells of one step, done or failed.
    pub async fn tell_step<K>(&self, object: &K, step: &'static str, outcome: Result<String, String>)
    where
        K: Resource<DynamicType = ()>,
    {
        match outcome {
            Ok(note) => self.tell(object, EventType::Normal, step, step, note).await,
            Err(note) => self.tell(object, EventType::Warning, "StepFailed", step, note).await,
        }
    }

    async fn tell<K>(&self, object: &K, type_: EventType, reason: &str, action: &str, note: String)
    where
        K: Resource<DynamicType = ()>,
    {
        if self.may_write().is_err() {
            return;
        }
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(shortened(note)),
            action: action.to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &object.object_ref(&())).await {
            warn!(error = in_words(&error), reason, "an event could not be written");
        }
    }
}

fn shortened(mut note: String) -> String {
    if note.len() > NOTE_LIMIT {
        let mut end = NOTE_LIMIT - '…'.len_utf8();
        while !note.is_char_boundary(end) {
            end -= 1;
        }
        note.truncate(end);
        note.push('…');
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_note_is_cut_at_a_character_and_within_the_limit() {
        let note = shortened("ä".repeat(NOTE_LIMIT));
        assert!(note.len() <= NOTE_LIMIT);
        assert!(note.ends_with('…'));
        assert_eq!(shortened("short".to_owned()), "short");
    }
}
