//! RivvenTopic: what is seen ([`observation`]) and what to do next ([`decide()`]).

pub mod decide;
pub mod observation;
pub mod placement;

pub use decide::{RELEASE_AFTER, Step, decide, malformed, step_failed};
pub use observation::*;
