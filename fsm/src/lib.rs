//! The pure core of the Rivven operator.
//!
//! One flow: an `Observation` goes in, a [`Decision`] comes out. Nothing here knows Kubernetes, a socket, a clock or a
//! random number; `now` is an argument. What a decision says is carried out elsewhere, one [`Decision::steps`] after
//! the other, and the next observation tells whether it happened.

pub mod cluster;
pub mod connect;
pub mod decision;
pub mod guard;
pub mod phase;
pub mod reason;
pub mod topic;
pub mod window;

pub use decision::{Blocked, Condition, ConditionStatus, ConditionType, Decision, Planned};
pub use guard::{Guard, Refusal};
pub use phase::{Edge, IllegalTransition, Kind, Phase, TransitionTable};
pub use reason::Reason;
