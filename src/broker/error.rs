//! Errors of a broker, classified.
//!
//! The protocol carries errors as text only, so the class is read from how the text begins; the texts were observed on
//! 0.0.22.

use std::time::Duration;

/// Why a call to a broker did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No connection.
    #[error("the broker cannot be reached: {0}")]
    Unreachable(String),
    /// No answer in time. Whether the call took effect is unknown.
    #[error("the broker did not answer within {0:?}")]
    Timeout(Duration),
    /// The answer makes no sense.
    #[error("the broker's answer makes no sense: {0}")]
    Protocol(String),
    /// The broker refused, in its own words.
    #[error("{words}")]
    Refused {
        /// The class.
        class: Class,
        /// The broker's words.
        words: String,
    },
}

/// Classes of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the name says it")]
pub enum Class {
    NotFound,
    AlreadyExists,
    Invalid,
    Unauthorized,
    NotLeader,
    DiskFull,
    Overloaded,
    Other,
}

/// How the broker's messages begin, or end, by class.
const BEGINNINGS: &[(&str, Class)] = &[
    ("Topic not found", Class::NotFound),
    ("UNKNOWN_TOPIC_OR_PARTITION", Class::NotFound),
    ("UNKNOWN_TOPIC", Class::NotFound),
    ("INVALID_TOPIC_NAME", Class::Invalid),
    ("INVALID_PARTITION_COUNT", Class::Invalid),
    ("INVALID_PARTITIONS", Class::Invalid),
    ("INVALID_PARTITION", Class::Invalid),
    ("INVALID_CONFIG", Class::Invalid),
    ("AUTHENTICATION_REQUIRED", Class::Unauthorized),
    ("Authentication failed", Class::Unauthorized),
    ("AUTHORIZATION_FAILED", Class::Unauthorized),
    ("NOT_LEADER_FOR_PARTITION", Class::NotLeader),
    ("FENCED_LEADER_EPOCH", Class::NotLeader),
    ("Not leader", Class::NotLeader),
    ("Not the leader", Class::NotLeader),
    ("I/O error: No space left on device", Class::DiskFull),
    ("RATE_LIMIT_EXCEEDED", Class::Overloaded),
    ("BUFFER_FULL", Class::Overloaded),
    ("WAL_ERROR", Class::Overloaded),
];

impl Error {
    /// The error for the broker's words.
    pub fn refused(words: impl Into<String>) -> Self {
        let words = words.into();
        let class = BEGINNINGS.iter().find(|(beginning, _)| words.starts_with(beginning)).map_or(
            if words.ends_with("already exists") { Class::AlreadyExists } else { Class::Other },
            |(_, class)| *class,
        );
        Self::Refused { class, words }
    }

    /// The error for an answer that asks to wait.
    pub fn throttled(wait: Duration, what: &str) -> Self {
        Self::Refused { class: Class::Overloaded, words: format!("throttled for {wait:?}: {what}") }
    }

    /// The metric label. A closed set.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Timeout(_) => "timeout",
            Self::Protocol(_) => "protocol",
            Self::Refused { class, .. } => match class {
                Class::NotFound => "not_found",
                Class::AlreadyExists => "already_exists",
                Class::Invalid => "invalid",
                Class::Unauthorized => "unauthorized",
                Class::NotLeader => "not_leader",
                Class::DiskFull => "disk_full",
                Class::Overloaded => "overloaded",
                Class::Other => "refused",
            },
        }
    }

    /// The topic does not exist.
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { class: Class::NotFound, .. })
    }

    /// The topic exists.
    pub const fn is_already_exists(&self) -> bool {
        matches!(self, Self::Refused { class: Class::AlreadyExists, .. })
    }

    /// Another broker leads: what it was told of the leader is of the past.
    pub const fn is_not_leader(&self) -> bool {
        matches!(self, Self::Refused { class: Class::NotLeader, .. })
    }

    /// Nobody refused: the connection is of no use any more.
    pub const fn breaks_session(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Timeout(_) | Self::Protocol(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_words_are_classified() {
        for (words, category) in [
            ("Topic 'orders' already exists", "already_exists"),
            ("Topic not found: orders", "not_found"),
            ("UNKNOWN_TOPIC_OR_PARTITION: Topic 'orders' not found", "not_found"),
            ("UNKNOWN_TOPIC: topic 'orders' does not exist", "not_found"),
            ("INVALID_TOPIC_NAME: bad", "invalid"),
            ("INVALID_PARTITION_COUNT: must be between 1 and 1000, got 2000", "invalid"),
            ("INVALID_PARTITIONS: New partition count 2 must be greater than current count 3", "invalid"),
            ("INVALID_PARTITION: Invalid partition 7: must be < 3", "invalid"),
            ("INVALID_CONFIG: Unknown configuration key: x", "invalid"),
            ("AUTHENTICATION_REQUIRED: Please authenticate first", "unauthorized"),
            ("Authentication failed", "unauthorized"),
            ("AUTHORIZATION_FAILED: no", "unauthorized"),
            ("NOT_LEADER_FOR_PARTITION: x", "not_leader"),
            ("FENCED_LEADER_EPOCH: x", "not_leader"),
            ("Not leader", "not_leader"),
            ("Not the leader - cannot transfer leadership", "not_leader"),
            ("I/O error: No space left on device (os error 28)", "disk_full"),
            ("RATE_LIMIT_EXCEEDED: x", "overloaded"),
            ("BUFFER_FULL: x", "overloaded"),
            ("WAL_ERROR: x", "overloaded"),
            ("Consumer group 'g' not found", "refused"),
        ] {
            assert_eq!(Error::refused(words).category(), category, "{words}");
        }
    }
}
