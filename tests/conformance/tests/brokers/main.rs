//! Every check against every broker, and the load generator against honest brokers and others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod checks;
mod load;
mod loss;
mod released;
mod support;
mod tls;
