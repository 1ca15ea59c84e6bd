//! Watch caches and broker answers into the plain observations that decisions are made from. Reads only.

pub mod caches;
mod certificate;
mod cluster;
pub mod compare;
mod connect;
mod external;
mod history;
mod live;
mod malformed;
pub mod moves;
pub mod pod;
mod redact;
mod refusals;
mod rules;
mod topic;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::Client;
use tokio::time::Instant;

pub use caches::{Cache, Caches};
pub use cluster::ClusterSight;
pub use connect::{ConnectSight, WorkerSecret};
pub use history::Halt;
pub use malformed::RecordedStatus;
pub use topic::TopicSight;

use crate::broker::{Brokers, Token};
use crate::render::connect::translate::SecretData;

pub use refusals::Refusals;

/// What was read by name, as it is never watched or listed: Secrets, and a kind that is not Kubernetes' own. Reading it at
/// each look would make an idle operator talk.
#[derive(Clone)]
struct Remembered {
    at: Instant,
    /// The admin token, of one that was read for it.
    token: Option<Token>,
    /// What it holds, of one that was read for a connector.
    data: Option<Arc<SecretData>>,
}

/// The hashes of each `ConfigMap` that a spec names, by namespace and name, and when they were read.
type Contents = HashMap<(String, String), (Instant, String)>;

/// Looks at the world.
#[derive(Clone)]
pub struct Observer {
    client: Client,
    caches: Caches,
    brokers: Brokers,
    domain: String,
    secrets: Arc<Mutex<HashMap<(String, String), Remembered>>>,
    certificates: Arc<Mutex<certificate::ReadBefore>>,
    contents: Arc<Mutex<Contents>>,
    refusals: Refusals,
}

impl Observer {
    /// An observer over `caches` and `brokers`. `domain` is the DNS domain of the Kubernetes cluster.
    pub fn new(client: Client, caches: Caches, brokers: Brokers, domain: String) -> Self {
        Self {
            client,
            caches,
            brokers,
            domain,
            secrets: Arc::default(),
            certificates: Arc::default(),
            contents: Arc::default(),
            refusals: Refusals::default(),
        }
    }

    /// The caches.
    pub const fn caches(&self) -> &Caches {
        &self.caches
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the API server refused.
    pub const fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// The brokers.
    pub const fn brokers(&self) -> &Brokers {
        &self.brokers
    }
}

/// Why the world could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The API server refused or did not answer.
    #[error("{}", in_words(.0))]
    Kubernetes(Box<kube::Error>),
    /// The API server does not know the kind.
    #[error(
        "the API server knows no {kind} of {group}: install what brings it, or take out of the spec what asks for it"
    )]
    NoSuchKind {
        /// The API group.
        group: String,
        /// The kind.
        kind: &'static str,
    },
    /// A defect of the operator.
    #[error("{0}")]
    Internal(String),
}

impl From<kube::Error> for ObserveError {
    fn from(error: kube::Error) -> Self {
        Self::Kubernetes(Box::new(error))
    }
}

/// An API server's words, without the structure around them.
pub(crate) fn in_words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => other.to_string(),
    }
}
