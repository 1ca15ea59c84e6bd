//! Desired Kubernetes objects of an accepted spec. Pure: nothing is asked, nothing is written.

mod cluster;
pub mod connect;
mod pod;

pub use cluster::{Input, Material, cluster};
pub use pod::template;
