//! RivvenCluster: what is seen ([`observation`]), whether the spec can be carried out ([`admission`]), what is wrong
//! with a broker ([`diagnosis`]), and what to do next ([`decide()`]).

pub mod admission;
pub mod decide;
pub mod diagnosis;
pub mod formation;
pub mod observation;
pub mod partitions;
pub mod plan;
pub mod rollout;
pub mod scale;
pub mod storage;
pub mod teardown;

pub use admission::{Admission, admit};
pub use decide::{Step, decide, malformed, step_failed};
pub use formation::Membership;
pub use observation::*;
pub use partitions::{Leadership, Partitions};
pub use plan::Plan;
