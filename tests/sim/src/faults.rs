//! What shall go wrong, and when.

use crate::log::{Verb, quiet};
use crate::store::Key;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The session ends before the request has an effect: the process crashed before the write.
    CutBefore,
    /// The request takes effect, then the session ends: the process crashed after the write.
    CutAfter,
    /// The request takes effect, the answer is lost, the session goes on.
    LoseReply,
    /// The connection breaks before the request has an effect, the session goes on.
    Disconnect,
    /// Refused with this HTTP status, without effect.
    Answer(u16),
    /// Never answered, without effect.
    Hang,
    /// Not answered until the client gives up, without effect; the session goes on.
    TimeOut,
    /// The request is answered as ever, and all open watches are told that the past is forgotten.
    ExpireWatches,
}

/// Which requests a fault is counted over. Empty fields match everything.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    /// Only this verb.
    pub verb: Option<Verb>,
    /// Only requests that write; Events and Leases are not counted.
    pub writes: bool,
    /// Only this plural.
    pub plural: Option<String>,
    /// Only this name.
    pub name: Option<String>,
    /// Only this subresource, "" for the object itself.
    pub subresource: Option<String>,
}

impl Matcher {
    /// Every write but those of Events and Leases.
    pub fn writes() -> Self {
        Self { writes: true, ..Self::default() }
    }

    /// Every request about one resource.
    pub fn plural(plural: &str) -> Self {
        Self { plural: Some(plural.into()), ..Self::default() }
    }

    fn holds(&self, verb: Verb, key: &Key, subresource: &str) -> bool {
        self.verb.is_none_or(|v| v == verb)
            && (!self.writes || verb.writes() && !quiet(key))
            && self.plural.as_ref().is_none_or(|p| *p == key.plural)
            && self.name.as_ref().is_none_or(|n| *n == key.name)
            && self.subresource.as_ref().is_none_or(|s| s == subresource)
    }
}

/// From when a session's lists and watches are answered. `GET` is always answered from now, as a quorum read is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// Now.
    #[default]
    Latest,
    /// So many versions ago.
    Behind(u64),
    /// As of this version, and nothing newer.
    At(u64),
}

impl View {
    pub(crate) fn version(self, latest: u64) -> u64 {
        match self {
            Self::Latest => latest,
            Self::Behind(k) => latest.saturating_sub(k),
            Self::At(version) => version.min(latest),
        }
    }
}

pub(crate) struct Rule {
    matcher: Matcher,
    left: u64,
    fault: Fault,
}

/// One session's state: what is planned for it and what became of it.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) user: String,
    pub(crate) cut: bool,
    pub(crate) view: View,
    /// Numbers, from 1, of watch events that are not delivered.
    pub(crate) dropped: Vec<u64>,
    /// How often all open watches were told that the past is forgotten.
    pub(crate) expired: u64,
    /// How many watch events were due so far.
    pub(crate) events: u64,
    /// How many writes were asked for so far.
    pub(crate) writes: u64,
    pub(crate) rules: Vec<Rule>,
}

impl Plan {
    /// Plans a fault for the nth request, from 1, that the matcher holds for, counted from now.
    pub(crate) fn add(&mut self, matcher: Matcher, nth: u64, fault: Fault) {
        assert!(nth > 0, "requests are counted from 1");
        self.rules.push(Rule { matcher, left: nth, fault });
    }

    /// Counts a request, and tells what happens to it.
    pub(crate) fn meet(&mut self, verb: Verb, key: &Key, subresource: &str) -> Option<Fault> {
        if verb.writes() && !quiet(key) {
            self.writes += 1;
        }
        let mut fault = None;
        for rule in self.rules.iter_mut().filter(|r| r.left > 0 && r.matcher.holds(verb, key, subresource)) {
            rule.left -= 1;
            if rule.left == 0 {
                fault = fault.or(Some(rule.fault));
            }
        }
        fault
    }
}
