//! RivvenConnect: what is seen ([`observation`]), which worker runs what ([`placement`]), which topics connectors need
//! ([`topics`]), how each connector is ([`state`]), and what to do next ([`decide()`]).

pub mod decide;
pub mod observation;
pub mod placement;
pub mod state;
pub mod topics;

pub use decide::{ASK_AGAIN, RELEASE_AFTER, Step, decide, malformed, step_failed};
pub use observation::*;
pub use placement::{Placement, Runs, place, worker_of};
pub use state::{ConnectorState, State, states};
pub use topics::{Asked, TopicRules};
