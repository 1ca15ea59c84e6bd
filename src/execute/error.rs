//! Why a step did not take effect.

use crate::observe::in_words;

/// A step's failure.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// This process does not lead, or its lease is about to run out.
    #[error("this process does not hold the lease")]
    NotLeading,
    /// The world moved since it was looked at; the next look decides anew. Not a fault.
    #[error("the object changed meanwhile: {0}")]
    Moved(String),
    /// The API server holds the step back for now: a disruption budget, a quota of requests. Not a fault.
    #[error("held back: {0}")]
    Held(String),
    /// The API server refused or did not answer.
    #[error("{}", in_words(.0))]
    Kubernetes(Box<kube::Error>),
    /// The broker refused or did not answer.
    #[error(transparent)]
    Broker(crate::broker::Error),
    /// A defect of the operator.
    #[error("{0}")]
    Internal(String),
}

impl From<kube::Error> for StepError {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == 409 => Self::Moved(in_words(&error)),
            kube::Error::Api(status) if status.code == 429 => Self::Held(in_words(&error)),
            // Told as an internal error; it is a budget beside the operator's own.
            kube::Error::Api(status) if status.message.contains("more than one PodDisruptionBudget") => {
                Self::Held(in_words(&error))
            }
            _ => Self::Kubernetes(Box::new(error)),
        }
    }
}

impl From<crate::broker::Error> for StepError {
    fn from(error: crate::broker::Error) -> Self {
        if error.is_not_leader() { Self::Moved(error.to_string()) } else { Self::Broker(error) }
    }
}

impl StepError {
    /// The metric label. A closed set.
    pub fn category(&self) -> &'static str {
        match self {
            Self::NotLeading => "not_leading",
            Self::Moved(_) => "moved",
            Self::Held(_) => "held",
            Self::Kubernetes(error) => match error.as_ref() {
                kube::Error::Api(status) if status.code == 403 => "forbidden",
                kube::Error::Api(status) if status.code == 404 => "not_found",
                kube::Error::Api(status) if status.code == 422 => "invalid",
                kube::Error::Api(_) => "api",
                _ => "unreachable",
            },
            Self::Broker(error) => error.category(),
            Self::Internal(_) => "internal",
        }
    }

    /// Whether the API server understood the request and will not do it: a rule, a quota, a missing right.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Kubernetes(error) if matches!(error.as_ref(), kube::Error::Api(s) if matches!(s.code, 403 | 422)))
    }

    /// Whether it is a fault that a person should see, and not a race that the next look settles.
    pub const fn is_fault(&self) -> bool {
        !matches!(self, Self::NotLeading | Self::Moved(_) | Self::Held(_))
    }
}
