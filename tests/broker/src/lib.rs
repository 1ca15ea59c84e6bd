//! A small clustered broker, for tests only.
//!
//! The released Rivven broker cannot form a cluster, so nothing released shows the contract that the operator is
//! written for. This one does, and honestly: its metadata goes through Raft, its records through leader, followers and
//! in-sync set, and everything acknowledged is on disk. It speaks Rivven's wire protocol and the HTTP admin API, both
//! in the shapes of the released broker, and over TLS where it is told to. Only faults on demand are its own.
//!
//! All timers are tokio's, and nothing blocks but file input and output: a whole cluster can run inside one test on a
//! paused clock.

pub mod config;
pub mod metadata;
pub mod tls;

mod admin;
mod broker;
mod client;
mod controller;
mod data;
mod faults;
mod http;
mod membership;
mod program;

pub use broker::{Addresses, Broker};
pub use config::Config;
pub use http::Resolver;
pub use program::program;
