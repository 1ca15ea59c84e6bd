//! What was asked of the API server.

use std::collections::BTreeMap;
use std::fmt;

use crate::store::Key;

/// What a request wants, in the words of authorization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are those of Kubernetes")]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
}

impl Verb {
    /// Whether it may change anything.
    pub fn writes(self) -> bool {
        matches!(self, Self::Create | Self::Update | Self::Patch | Self::Delete)
    }
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Position in the log, from 0.
    pub seq: usize,
    /// Who asked: the name given to [`crate::Sim::session`].
    pub user: String,
    /// Which of that user's sessions.
    pub session: usize,
    /// What was asked.
    pub verb: Verb,
    /// Of which object; the name is empty for lists, watches and generated names.
    pub key: Key,
    /// `status`, `eviction`, … or "".
    pub subresource: String,
    /// The answer; 0 if the session was cut off before there was one.
    pub code: u16,
    /// Whether the store changed.
    pub changed: bool,
}

impl fmt::Display for Entry {
    /// One line that is the same on every run: `create statefulsets.apps default/x 201`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = format!("{:?}", self.verb).to_lowercase();
        let slash = if self.subresource.is_empty() { "" } else { "/" };
        let same = if self.verb.writes() && self.code < 300 && !self.changed { " unchanged" } else { "" };
        write!(f, "{verb} {}{slash}{} {}{same}", self.key, self.subresource, self.code)
    }
}

/// A selection of requests, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log(pub Vec<Entry>);

impl Log {
    /// Those that hold.
    #[must_use]
    pub fn only(&self, holds: impl Fn(&Entry) -> bool) -> Self {
        Self(self.0.iter().filter(|e| holds(e)).cloned().collect())
    }

    /// Those of one user, over all its sessions.
    #[must_use]
    pub fn of(&self, user: &str) -> Self {
        self.only(|e| e.user == user)
    }

    /// Those that wanted to write, Events and Leases left out: they are told and kept, but nothing depends on them.
    #[must_use]
    pub fn writes(&self) -> Self {
        self.only(|e| e.verb.writes() && !quiet(&e.key))
    }

    /// Those that changed something.
    #[must_use]
    pub fn effective(&self) -> Self {
        self.only(|e| e.changed)
    }

    /// How often each object was created, updated (or patched) and deleted, by requests that changed something.
    pub fn counts(&self) -> BTreeMap<(Key, Verb), usize> {
        let mut counts = BTreeMap::new();
        for e in self.effective().0 {
            let verb = if e.verb == Verb::Patch { Verb::Update } else { e.verb };
            *counts.entry((e.key, verb)).or_default() += 1;
        }
        counts
    }

    /// One line per request, for golden traces.
    pub fn lines(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}

/// Events and Leases.
pub(crate) fn quiet(key: &Key) -> bool {
    key.plural == "events" || key.plural == "leases"
}
