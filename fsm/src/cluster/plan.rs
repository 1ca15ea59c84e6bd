//! What a planner says: whether its part of the cluster is as wanted and, if not, what may be done now or is waited for.

use std::time::Duration;

use super::decide::Step;
use crate::decision::Blocked;
use crate::reason::Reason;

/// What a planner says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Its part is as wanted.
    Done,
    /// These steps may be taken now, and this is why.
    Next(Vec<Step>, Blocked),
    /// Something is waited for, the most telling first. No watch tells when it is there, if a time is given.
    Waiting(Vec<Blocked>, Option<Duration>),
    /// Time alone does not mend it.
    Broken(Blocked),
}

impl Plan {
    /// One step, and why.
    pub(super) fn next(step: Step, reason: Reason, message: impl Into<String>) -> Self {
        Self::Next(vec![step], Blocked { reason, on: None, message: message.into() })
    }

    /// One thing is waited for.
    pub(super) fn wait(reason: Reason, message: impl Into<String>, again: Option<Duration>) -> Self {
        Self::Waiting(vec![Blocked { reason, on: None, message: message.into() }], again)
    }

    /// One thing that a person has to mend.
    pub(super) fn broken(reason: Reason, message: impl Into<String>) -> Self {
        Self::Broken(Blocked { reason, on: None, message: message.into() })
    }

    /// Why its part is not as wanted. `None`: it is.
    pub fn why(&self) -> Option<&Blocked> {
        match self {
            Self::Done => None,
            Self::Next(_, why) | Self::Broken(why) => Some(why),
            Self::Waiting(blocked, _) => blocked.first(),
        }
    }
}
