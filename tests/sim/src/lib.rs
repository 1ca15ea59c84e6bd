//! A deterministic, in-process model of the Kubernetes API server and of the controllers around it.
//!
//! The operator's real code runs against it through an ordinary [`kube::Client`]: [`Sim::session`] gives a named client
//! whose requests are logged, counted and, on request, refused, delayed, answered from the past or cut off. Nothing here
//! reads a clock, sleeps or draws randomness that is not derived from the seed.
//!
//! | Module | Holds |
//! |---|---|
//! | `kinds` | what resources are served |
//! | `store` | objects, versions, history; create, update, delete and their rules |
//! | `defaults`, `validate` | what the real server fills in and refuses, as far as this operator can get it wrong |
//! | `http`, `patch`, `watch`, `evict` | the wire |
//! | `log`, `faults` | what was asked, and what shall go wrong |
//! | `controllers` | `StatefulSet` controller, scheduler, kubelet, volumes, garbage collector, … as plain functions |
//! | `conformance` | checks that hold here and on a real API server |
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use rivven_sim::{Fault, Sim};
//! use std::time::Duration;
//!
//! let sim = Sim::new(1);
//! sim.apply(serde_json::json!({
//!     "apiVersion": "rivven.io/v1alpha1", "kind": "RivvenCluster", "metadata": { "name": "x" }, "spec": { "replicas": 3 },
//! }));
//! let session = sim.session("operator");
//! session.on_write(3, Fault::CutAfter); // the process dies after its third write
//! let client = session.client(); // run the operator with it: tokio::spawn(operator(client))
//! session.ended().await; // then abort that task and start another with sim.client("operator")
//! sim.converge(Duration::from_secs(60), Duration::from_secs(3600)).await?;
//! println!("{:#?} {:#?}", sim.world(), sim.log().of("operator").writes().counts());
//! # Ok(())
//! # }
//! ```
//!
//! Not modelled: schemas, defaults and CEL rules of custom resources (a real API server checks those), server-side apply
//! (answered 415, so that a use is seen), `PersistentVolume`s, `ControllerRevision` objects, authorization, pagination.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "test support: a broken assumption shall end the test where it is broken"
)]

pub mod conformance;
mod controllers;
mod defaults;
mod evict;
mod faults;
mod http;
mod json;
mod kinds;
mod log;
mod patch;
mod quantity;
mod refusal;
mod selector;
mod sim;
mod store;
mod validate;
mod watch;

pub use controllers::{Behaviour, Controller, VolumeBehaviour};
pub use faults::{Fault, Matcher, View};
pub use kinds::Kind;
pub use log::{Entry, Log, Verb};
pub use refusal::Refusal;
pub use sim::{NotQuiet, Session, Sim};
pub use store::{Change, Key};
