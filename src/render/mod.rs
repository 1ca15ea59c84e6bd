//! Desired Kubernetes objects of an accepted spec. Pure: nothing is asked, nothing is written.

mod cluster;
pub mod names;
mod pod;

pub use cluster::{Input, cluster};
