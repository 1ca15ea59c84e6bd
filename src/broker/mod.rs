//! The brokers' admin API: how a broker is reached, what its version can do, what it says, and what may be asked of it.

mod access;
pub mod capabilities;
mod catalog;
mod error;
mod fleet;
mod http;
mod session;
pub mod tls;
mod token;
pub mod topic_config;
mod worker;

pub use access::{Access, BrokerAddress};
pub use capabilities::{capabilities, capabilities_of};
pub use catalog::Listing;
pub use error::Error;
pub use fleet::{Brokers, CallObserver, Freshness, Inquiry};
pub use http::Member;
pub use session::TopicState;
pub use tls::{Certificate, Tls};
pub use token::Token;
