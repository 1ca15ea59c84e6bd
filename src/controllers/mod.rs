//! Wiring: watches into caches and queues, one reconcile after the other per object, back-off per object. No decisions.

mod backoff;
mod cluster;
mod connect;
mod context;
mod faults;
mod run;
mod topic;
mod watches;

pub use context::{Context, ReconcileError};
pub use run::run;
pub use watches::Scope;
