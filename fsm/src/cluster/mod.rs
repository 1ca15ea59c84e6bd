//! RivvenCluster: what is seen ([`observation`]), whether the spec can be carried out ([`admission`]), what is wrong
//! with a broker ([`diagnosis`]), and what to do next ([`decide()`]).

pub mod admission;
pub mod observation;

pub use admission::{Admission, admit};
pub use observation::*;
