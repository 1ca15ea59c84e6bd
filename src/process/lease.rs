//! The Lease as the election needs it: read, created, replaced at the version it was read at.

use std::future::Future;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, ObjectMeta, PostParams};

/// Why the Lease could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Somebody else wrote it, created it or deleted it in between.
    #[error("the Lease has changed in between")]
    Conflict,
    /// There is no such Lease (any more).
    #[error("there is no Lease")]
    Gone,
    /// The API server refused or did not answer; whether a write happened is unknown.
    #[error("{0}")]
    Unknown(String),
}

/// Where the Lease is kept.
pub trait LeaseStore: Send + Sync {
    /// The Lease as it is, or `None` if there is none.
    fn get(&self) -> impl Future<Output = Result<Option<Lease>, LeaseError>> + Send;

    /// Creates it; [`LeaseError::Conflict`] if it exists.
    fn create(&self, lease: Lease) -> impl Future<Output = Result<Lease, LeaseError>> + Send;

    /// Replaces it if it is still at `metadata.resourceVersion` (and has `metadata.uid`).
    fn replace(&self, lease: Lease) -> impl Future<Output = Result<Lease, LeaseError>> + Send;
}

/// The Lease in Kubernetes.
#[derive(Clone, Debug)]
pub struct KubeLease {
    api: Api<Lease>,
    name: String,
    write: PostParams,
}

impl KubeLease {
    /// The Lease `namespace/name`.
    pub fn new(client: kube::Client, namespace: &str, name: &str) -> Self {
        let write = PostParams { field_manager: Some("rivven-operator".to_owned()), ..PostParams::default() };
        Self { api: Api::namespaced(client, namespace), name: name.to_owned(), write }
    }
}

impl LeaseStore for KubeLease {
    async fn get(&self) -> Result<Option<Lease>, LeaseError> {
        self.api.get_opt(&self.name).await.map_err(classify)
    }

    async fn create(&self, lease: Lease) -> Result<Lease, LeaseError> {
        let metadata = ObjectMeta { name: Some(self.name.clone()), ..lease.metadata };
        self.api.create(&self.write, &Lease { metadata, ..lease }).await.map_err(classify)
    }

    async fn replace(&self, lease: Lease) -> Result<Lease, LeaseError> {
        self.api.replace(&self.name, &self.write, &lease).await.map_err(classify)
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn classify(error: kube::Error) -> LeaseError {
    match &error {
        kube::Error::Api(status) if status.is_conflict() || status.is_already_exists() => LeaseError::Conflict,
        kube::Error::Api(status) if status.is_not_found() => LeaseError::Gone,
        _ => LeaseError::Unknown(error.to_string()),
    }
}
