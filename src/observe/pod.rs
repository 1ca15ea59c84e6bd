//! A pod and a claim as the plain facts that decisions need.

use chrono::{DateTime, Utc};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, PersistentVolumeClaim, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use rivven_fsm::cluster as fsm;

use super::redact::last_words;
use crate::api::quantity::bytes;
use crate::names;

/// The facts of a broker's pod.
pub fn facts(pod: &Pod) -> fsm::Pod {
    let status = pod.status.as_ref();
    let container = container_status(pod);
    let ready = condition(pod, "Ready").filter(|c| c.status == "True");
    fsm::Pod {
        uid: pod.uid().unwrap_or_default(),
        revision: pod.labels().get("controller-revision-hash").cloned().unwrap_or_default(),
        ready: ready.is_some(),
        ready_since: ready.and_then(|c| c.last_transition_time.as_ref()).map(time),
        created: pod.metadata.creation_timestamp.as_ref().map_or(DateTime::UNIX_EPOCH, time),
        orphan: pod.metadata.owner_references.iter().flatten().all(|owner| owner.controller != Some(true)),
        held: None,
        restart_asked: pod.annotations().get(names::RESTART).is_some_and(|value| value == "true"),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        unschedulable: condition(pod, "PodScheduled").filter(|c| c.status == "False").map(|c| fsm::Unschedulable {
            message: c.message.clone().unwrap_or_default(),
            since: c.last_transition_time.as_ref().map_or(DateTime::UNIX_EPOCH, time),
        }),
        failed: status.filter(|s| s.phase.as_deref() == Some("Failed")).map(|s| {
            let words: Vec<&str> = [&s.reason, &s.message].into_iter().flatten().map(String::as_str).collect();
            words.join(": ")
        }),
        container: container.and_then(|c| c.state.as_ref()).map_or(fsm::Container::Unreported, state),
        restarts: container.map_or(0, |c| u32::try_from(c.restart_count).unwrap_or(0)),
        last_exit: container.and_then(last_exit),
    }
}

/// What tells one start of the broker from another: the container's id. `None` while it does not run.
pub fn incarnation(pod: &Pod) -> Option<&str> {
    let container = container_status(pod)?;
    container.state.as_ref()?.running.as_ref()?;
    container.container_id.as_deref()
}

fn container_status(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.iter().find(|c| c.name == names::CONTAINER)
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

fn state(state: &ContainerState) -> fsm::Container {
    if state.running.is_some() {
        fsm::Container::Running
    } else if state.terminated.is_some() {
        fsm::Container::Terminated
    } else if let Some(waiting) = &state.waiting {
        let (reason, message) =
            (waiting.reason.clone().unwrap_or_default(), waiting.message.clone().unwrap_or_default());
        fsm::Container::Waiting { reason, message }
    } else {
        fsm::Container::Unreported
    }
}

fn last_exit(container: &ContainerStatus) -> Option<fsm::LastExit> {
    let ended = |state: &Option<ContainerState>| state.as_ref().and_then(|s| s.terminated.clone());
    let exit = ended(&container.state).or_else(|| ended(&container.last_state))?;
    Some(fsm::LastExit {
        code: exit.exit_code,
        reason: exit.reason.unwrap_or_default(),
        log: last_words(exit.message.as_deref().unwrap_or_default()),
    })
}

/// The facts of a broker's volume claim. It is ours if it carries the uid of this very cluster.
pub fn claim(claim: &PersistentVolumeClaim, cluster_uid: &str) -> fsm::Claim {
    let requested = claim.spec.as_ref().and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref());
    let capacity = claim.status.as_ref().and_then(|s| s.capacity.as_ref());
    fsm::Claim {
        name: claim.name_any(),
        uid: claim.uid().unwrap_or_default(),
        ours: claim.labels().get(names::CLUSTER_UID).map(String::as_str) == Some(cluster_uid),
        bound: claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound"),
        deleting: claim.metadata.deletion_timestamp.is_some(),
        asked: claim.annotations().get(names::ASKED).and_then(|bytes| bytes.parse().ok()),
        resize: resize(claim),
        refused: None,
        requested: requested.and_then(|r| r.get("storage")).and_then(|q| bytes(&q.0)).unwrap_or(0),
        capacity: capacity.and_then(|r| r.get("storage")).and_then(|q| bytes(&q.0)),
        empty_since: claim
            .annotations()
            .get(names::EMPTY_SINCE)
            .and_then(|since| DateTime::parse_from_rfc3339(since).ok())
            .map(|since| since.to_utc()),
    }
}

/// How far a claim's growth is. The older condition tells of a file system, the newer status of what cannot be done.
fn resize(claim: &PersistentVolumeClaim) -> fsm::Resize {
    let Some(status) = &claim.status else { return fsm::Resize::Silent };
    let conditions = status.conditions.iter().flatten().filter(|condition| condition.status == "True");
    let error = conditions.clone().find(|c| matches!(c.type_.as_str(), "ControllerResizeError" | "NodeResizeError"));
    let infeasible = status.allocated_resource_statuses.iter().flatten().map(|(_, status)| status);
    let infeasible = infeasible.clone().find(|status| status.ends_with("Infeasible") || status.ends_with("Failed"));
    if error.is_some() || infeasible.is_some() {
        let words = error.and_then(|condition| condition.message.clone()).filter(|words| !words.is_empty());
        let why = words.or_else(|| infeasible.cloned()).unwrap_or_else(|| "the storage reports an error".to_owned());
        return fsm::Resize::Failed { why };
    }
    let pending = conditions.clone().any(|condition| condition.type_ == "FileSystemResizePending");
    if pending { fsm::Resize::FileSystem } else { fsm::Resize::Silent }
}

/// Kubernetes' time as ours.
pub fn time(time: &Time) -> DateTime<Utc> {
    DateTime::from_timestamp(time.0.as_second(), 0).unwrap_or_default()
}
