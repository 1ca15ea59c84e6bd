//! The brokers' admin API: how a broker is reached, what its version can do, what it says, and what may be asked of it.

mod access;
pub mod capabilities;
mod error;
mod fleet;
mod http;
mod session;
pub mod topic_config;

pub use access::{Access, BrokerAddress};
pub use capabilities::{capabilities, capabilities_with};
pub use error::Error;
pub use fleet::{Brokers, CallObserver};
pub use session::TopicState;
