//! One GET, for `rivven-operator probe`. The image has nothing but the operator in it, no shell and no `wget`, so the
//! chart's test asks with the operator itself.

use std::time::Duration;

use http::{StatusCode, Uri};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// Why the answer was not a success.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Nobody answered.
    #[error("{url}: {cause}")]
    Unreachable {
        /// What was asked.
        url: Uri,
        /// What happened.
        cause: String,
    },
    /// Nobody answered in time.
    #[error("{0}: no answer in time")]
    Timeout(Uri),
    /// The answer was no success.
    #[error("{url}: {status}")]
    Status {
        /// What was asked.
        url: Uri,
        /// What was answered.
        status: StatusCode,
    },
}

/// Succeeds if `url` answers with a 2xx status within `limit`.
pub async fn probe(url: Uri, limit: Duration) -> Result<(), ProbeError> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let Ok(answer) = tokio::time::timeout(limit, client.get(url.clone())).await else {
        return Err(ProbeError::Timeout(url));
    };
    match answer {
        Ok(answer) if answer.status().is_success() => Ok(()),
        Ok(answer) => Err(ProbeError::Status { url, status: answer.status() }),
        Err(error) => {
            // The outer errors say only that something went wrong; what did is at the root.
            let mut root: &dyn std::error::Error = &error;
            while let Some(source) = root.source() {
                root = source;
            }
            Err(ProbeError::Unreachable { url, cause: root.to_string() })
        }
    }
}
