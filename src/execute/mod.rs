//! The only code that writes, to Kubernetes or to a broker. It runs the steps that were decided and decides nothing.

pub(crate) mod apply;
mod cluster;
mod connect;
mod error;
mod events;
pub mod report;
pub mod status;
mod topic;

use std::sync::Arc;

use kube::Client;
use kube::runtime::events::{Recorder, Reporter};

pub use apply::MANAGER;
pub use error::StepError;

/// Whether a write may begin now: this process leads, and its lease has not run into the renew deadline.
pub type MayWrite = Arc<dyn Fn() -> bool + Send + Sync>;

/// Runs steps.
#[derive(Clone)]
pub struct Executor {
    client: Client,
    may_write: MayWrite,
    recorder: Recorder,
}

impl Executor {
    /// An executor that writes through `client` while `may_write` says yes.
    pub fn new(client: Client, may_write: MayWrite) -> Self {
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: std::env::var("POD_NAME").ok() };
        let recorder = Recorder::new(client.clone(), reporter);
        Self { client, may_write, recorder }
    }

    /// Asked before every single write. No fencing exists in Kubernetes: what closes the race between an old leader
    /// that is slow and the new one is that no write begins after the old one's own deadline, and that every write
    /// that could hurt carries a uid or a resourceVersion.
    fn may_write(&self) -> Result<(), StepError> {
        if (self.may_write)() { Ok(()) } else { Err(StepError::NotLeading) }
    }
}
