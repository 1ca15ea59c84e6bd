//! What is wrong with a broker, from what the kubelet, the scheduler and the broker itself report.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::observation::{Answer, Broker, Claim, Container, Pod};
use crate::reason::Reason;

/// How long a pod may wait for the scheduler before that is trouble: a volume that is just being made, or a node that
/// an autoscaler adds, makes the first attempts fail.
pub const SCHEDULING_GRACE: Duration = Duration::from_secs(10);

/// How a broker is, as one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Ready, and it answered that it is well.
    Well,
    /// Not ready, and nothing is wrong so far.
    Coming(Reason, String),
    /// Something is wrong that time alone does not mend.
    Trouble(Reason, String),
}

/// Diagnoses one broker.
pub fn diagnose(broker: &Broker, now: DateTime<Utc>) -> Health {
    let name = broker.ordinal;
    let Some(pod) = &broker.pod else {
        return Health::Coming(Reason::BrokersStarting, format!("broker {name} has no pod yet"));
    };
    if pod.terminating {
        return Health::Coming(Reason::BrokerRestarting, format!("broker {name} is stopping"));
    }
    if let Some((reason, message)) = pod_trouble(pod, broker.claim.as_ref(), now) {
        return Health::Trouble(reason, format!("broker {name}: {message}"));
    }
    if !pod.ready {
        return Health::Coming(Reason::BrokersStarting, format!("broker {name} is starting"));
    }
    match &broker.answer {
        Answer::Said { healthy: true, .. } => Health::Well,
        Answer::Said { healthy: false, .. } => {
            Health::Coming(Reason::BrokerNotReady, format!("broker {name} says of itself that it is not healthy"))
        }
        // Unknown is never "yes": a pod that is ready by its probes does not make the broker well.
        Answer::NotAsked => Health::Coming(Reason::BrokerSilent, format!("broker {name} has not been asked yet")),
        Answer::Silent { why } => {
            Health::Coming(Reason::BrokerSilent, format!("broker {name} does not answer the operator: {why}"))
        }
    }
}

/// What is wrong with a pod that time alone does not mend. `claim`: its volume's, if it has one.
pub fn pod_trouble(pod: &Pod, claim: Option<&Claim>, now: DateTime<Utc>) -> Option<(Reason, String)> {
    if let Some(why) = &pod.failed {
        return Some((Reason::PodFailed, format!("its pod failed and is being replaced: {why}")));
    }
    // A pod that is ready has been placed, whatever an older condition still says.
    if pod.ready {
        return None;
    }
    if let Some(unschedulable) = &pod.unschedulable {
        let waited = now.signed_duration_since(unschedulable.since).to_std().unwrap_or_default();
        if waited < SCHEDULING_GRACE {
            return None;
        }
        return Some(match claim {
            Some(claim) if !claim.bound => {
                (Reason::VolumeNotBound, format!("volume claim {} is not bound: {}", claim.name, unschedulable.message))
            }
            _ => (Reason::Unschedulable, unschedulable.message.clone()),
        });
    }
    let last_words = || {
        pod.last_exit.as_ref().map_or_else(
            || "it ended".to_owned(),
            |exit| {
                let log = exit.log.trim();
                let said = if log.is_empty() { String::new() } else { format!("; its last words: {log}") };
                format!("it ended with code {} ({}){said}", exit.code, exit.reason)
            },
        )
    };
    if pod.last_exit.as_ref().is_some_and(|exit| exit.reason == "OOMKilled") {
        return Some((
            Reason::OutOfMemory,
            format!("it was killed for using more memory than its limit, {} restarts so far", pod.restarts),
        ));
    }
    match &pod.container {
        Container::Waiting { reason, message } => match reason.as_str() {
            "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" | "RegistryUnavailable" => {
                Some((Reason::ImagePullFailed, format!("{reason}: {message}")))
            }
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                Some((Reason::ContainerConfigError, format!("{reason}: {message}")))
            }
            "CrashLoopBackOff" => Some((Reason::CrashLoop, last_words())),
            _ => None,
        },
        Container::Terminated => Some((Reason::BrokerExited, last_words())),
        _ => None,
    }
}
