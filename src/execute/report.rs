//! What was observed and decided, as the status of an object. Nothing here is taken from the spec.

use std::collections::BTreeSet;

use kube::ResourceExt;
use rivven_fsm::cluster::diagnosis::{Health, diagnose};
use rivven_fsm::cluster::storage::quantity;
use rivven_fsm::cluster::{self, Answer, Broker};
use rivven_fsm::topic::{Cluster, Seen};
use rivven_fsm::{Decision, Reason, connect, topic};

use chrono::{DateTime, Utc};

use super::status::{conditions, kubernetes_time};
use crate::api::connect::{ConnectorStatus, ConnectorType};
use crate::api::{
    BlockedBy, BrokerStatus, PlannedStep, RivvenCluster, RivvenClusterStatus, RivvenConnect, RivvenConnectStatus,
    RivvenTopic, RivvenTopicStatus, VolumeStatus,
};
use crate::names;

/// The status of a cluster.
pub fn cluster(
    object: &RivvenCluster,
    seen: &cluster::Observation,
    decision: &Decision<cluster::Step>,
    now: DateTime<Utc>,
) -> RivvenClusterStatus {
    let before = object.status.as_ref();
    let name = object.name_any();
    let is_wanted = |b: &Broker| b.ordinal < seen.replicas;
    let brokers: Vec<BrokerStatus> =
        seen.brokers.iter().map(|b| broker(&name, b, is_wanted(b), decision, now)).collect();
    let is_wanted = |b: &&BrokerStatus| b.ordinal < seen.replicas;
    let ready = brokers.iter().filter(is_wanted).filter(|b| b.ready).count();
    let versions: BTreeSet<&str> = brokers.iter().filter_map(|b| b.version.as_deref()).collect();
    let pods = seen.brokers.iter().filter(|b| b.pod.is_some()).count();
    let capacity = seen.brokers.iter().filter_map(|b| b.claim.as_ref()?.capacity).min();
    let exists = seen.stateful_set.is_some();
    RivvenClusterStatus {
        phase: Some(decision.phase.into()),
        reason: Some(decision.reason.as_str().to_owned()),
        message: Some(decision.message.clone()),
        observed_generation: object.metadata.generation,
        replicas: Some(u32::try_from(pods).unwrap_or(u32::MAX)),
        ready_replicas: Some(u32::try_from(ready).unwrap_or(u32::MAX)),
        ready: Some(format!("{ready}/{}", seen.replicas)),
        selector: exists.then(|| {
            let pairs: Vec<String> =
                names::selector(&name).into_iter().map(|(key, value)| format!("{key}={value}")).collect();
            pairs.join(",")
        }),
        version: (!versions.is_empty()).then(|| versions.into_iter().collect::<Vec<_>>().join(",")),
        storage: capacity.map(quantity),
        conditions: conditions(
            decision,
            before.map_or(&[], |s| s.conditions.as_slice()),
            object.metadata.generation,
            &kubernetes_time(now),
        ),
        brokers: brokers.into_iter().filter(|b| exists || b.volume.is_some()).collect(),
        blocked_by: decision.blocked_by.iter().map(BlockedBy::from).collect(),
        plan: decision.plan.iter().map(|p| PlannedStep { step: p.step.to_owned(), on: p.on.clone() }).collect(),
    }
}

fn broker(
    cluster: &str,
    broker: &Broker,
    is_wanted: bool,
    decision: &Decision<cluster::Step>,
    now: DateTime<Utc>,
) -> BrokerStatus {
    let ordinal = broker.ordinal.to_string();
    let blocked_by = decision.blocked_by.iter().filter(|blocked| blocked.on.as_ref() == Some(&ordinal));
    let health = diagnose(broker, now);
    let (reason, message) = match &health {
        _ if !is_wanted => {
            let does = if broker.pod.is_some() { "is leaving" } else { "has left; its volume stays" };
            (Some(Reason::ScalingIn.as_str().to_owned()), Some(format!("broker {} {does}", broker.ordinal)))
        }
        Health::Well => (None, None),
        Health::Coming(reason, message) | Health::Trouble(reason, message) => {
            (Some(reason.as_str().to_owned()), Some(message.clone()))
        }
    };
    let (version, node_id, leader) = match &broker.answer {
        Answer::Said { version, node_id, leader, .. } => (Some(version.clone()), Some(node_id.clone()), *leader),
        Answer::NotAsked | Answer::Silent { .. } => (None, None, false),
    };
    BrokerStatus {
        ordinal: broker.ordinal,
        name: names::pod(cluster, broker.ordinal),
        node_id,
        version,
        revision: broker.pod.as_ref().map(|pod| pod.revision.clone()).filter(|revision| !revision.is_empty()),
        ready: health == Health::Well,
        leader,
        restarts: broker.pod.as_ref().map_or(0, |pod| pod.restarts),
        reason,
        message,
        blocked_by: blocked_by.map(BlockedBy::from).collect(),
        external: broker.external.as_ref().map_or_else(Vec::new, |external| external.addresses.clone()),
        volume: broker.claim.as_ref().map(|claim| VolumeStatus {
            claim: claim.name.clone(),
            bound: claim.bound,
            capacity: claim.capacity.map(quantity),
        }),
    }
}

/// The status of a topic.
pub fn topic(
    object: &RivvenTopic,
    seen: &topic::Observation,
    decision: &Decision<topic::Step>,
    now: DateTime<Utc>,
) -> RivvenTopicStatus {
    let before = object.status.as_ref();
    let mut status = RivvenTopicStatus {
        phase: Some(decision.phase.into()),
        reason: Some(decision.reason.as_str().to_owned()),
        message: Some(decision.message.clone()),
        observed_generation: object.metadata.generation,
        topic_name: Some(seen.wish.topic.clone()),
        conditions: conditions(
            decision,
            before.map_or(&[], |s| s.conditions.as_slice()),
            object.metadata.generation,
            &kubernetes_time(now),
        ),
        blocked_by: decision.blocked_by.iter().map(BlockedBy::from).collect(),
        topic_labels: object.spec.topic_labels.clone(),
        ..RivvenTopicStatus::default()
    };
    match &seen.seen {
        Seen::Present { partitions, replication, config } => {
            status.partitions = Some(*partitions);
            status.replication_factor = *replication;
            status.config.clone_from(config);
            if let Cluster::Ready { uid, .. } = &seen.cluster {
                status.cluster_uid = Some(uid.clone());
            }
        }
        // Not asked, or no answer: what was read last stays, and the condition says that it may be old.
        Seen::NotAsked | Seen::Unknown { .. } => {
            if let Some(before) = before {
                status.partitions = before.partitions;
                status.replication_factor = before.replication_factor;
                status.config.clone_from(&before.config);
                status.cluster_uid.clone_from(&before.cluster_uid);
            }
        }
        Seen::Absent => {}
    }
    status
}

/// The status of a connect.
pub fn connect(
    object: &RivvenConnect,
    seen: &connect::Observation,
    decision: &Decision<connect::Step>,
    now: DateTime<Utc>,
) -> RivvenConnectStatus {
    let before = object.status.as_ref();
    let name = object.name_any();
    let states = connect::states(seen);
    let running = states.iter().filter(|connector| connector.state == connect::State::Running).count();
    let pods: usize = seen.workers.iter().map(|worker| worker.pods.len()).sum();
    let up = seen.workers.iter().filter(|worker| worker.is_up()).count();
    let pairs = names::connect_selector(&name).into_iter().map(|(key, value)| format!("{key}={value}"));
    RivvenConnectStatus {
        phase: Some(decision.phase.into()),
        reason: Some(decision.reason.as_str().to_owned()),
        message: Some(decision.message.clone()),
        observed_generation: object.metadata.generation,
        replicas: Some(u32::try_from(pods).unwrap_or(u32::MAX)),
        ready: Some(format!("{up}/{}", seen.placement.runs.len())),
        running: Some(format!("{running}/{}", states.len())),
        selector: Some(pairs.collect::<Vec<_>>().join(",")),
        conditions: conditions(
            decision,
            before.map_or(&[], |s| s.conditions.as_slice()),
            object.metadata.generation,
            &kubernetes_time(now),
        ),
        connectors: states.into_iter().map(|state| connector(seen, state)).collect(),
        blocked_by: decision.blocked_by.iter().map(BlockedBy::from).collect(),
    }
}

fn connector(seen: &connect::Observation, state: connect::ConnectorState) -> ConnectorStatus {
    let pod = state.worker.and_then(|worker| seen.worker(worker)?.current());
    let lag = seen.lags.get(&state.id).copied();
    let report = state.report;
    // The worker starts a connector again after each of its errors.
    let restarts = report.as_ref().map(|report| u32::try_from(report.errors).unwrap_or(u32::MAX));
    let said = match &state.state {
        connect::State::Refused(refusal) => Some(refusal.message.clone()),
        connect::State::Waiting(words) | connect::State::Unknown(words) => Some(words.clone()),
        connect::State::Running | connect::State::Failing(_) => None,
    };
    ConnectorStatus {
        name: state.id.name,
        type_: match state.id.role {
            connect::Role::Source => ConnectorType::Source,
            connect::Role::Sink => ConnectorType::Sink,
        },
        state: Some(state.state.as_str().to_owned()),
        message: said,
        worker: pod.map(|pod| pod.name.clone()),
        restarts: restarts.zip(pod).map(|(restarts, pod)| restarts.saturating_add(pod.pod.restarts)),
        errors: report.as_ref().map(|report| report.errors),
        last_error: report.and_then(|report| report.last_error),
        lag,
    }
}
