//! What makes the operator a process: command line, leadership, health, metrics, logs, and the way out.
//!
//! Nothing here knows what a reconcile does. The wiring is `main`'s:
//!
//! 1. [`cli::Cli::parse`](clap::Parser::parse), [`logging::init`], [`shutdown::Stop::on_signals`];
//! 2. [`server::bind`] twice, then [`server::serve_health`] and [`server::serve_metrics`];
//! 3. [`leader::Elector::run`] beside the controllers, which ask [`leader::Leadership::may_write`] before each write;
//! 4. on a signal: the controllers drain, then the elector is told to stop and releases the Lease, then exit.

pub mod cli;
pub mod health;
pub mod leader;
pub mod lease;
pub mod logging;
pub mod metrics;
pub mod objects;
pub mod probe;
pub mod server;
pub mod shutdown;
pub mod topics;
