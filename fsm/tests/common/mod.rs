//! Builders of observations, and what must hold of every decision, shared by the tests of this crate.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

pub mod topics;
pub mod world;

use std::sync::Arc;

use chrono::{DateTime, Duration, Utc};
use rivven_fsm::cluster::partitions::Partition;
use rivven_fsm::cluster::rollout::{self, Rollout};
use rivven_fsm::cluster::{
    Admission, Answer, Broker, Capabilities, Claim, Container, LastExit, Membership, Object, Observation, Partitions,
    Pod, Presence, ReclaimPolicy, StatefulSet, Step, Unschedulable, diagnosis,
};
use rivven_fsm::{ConditionStatus, ConditionType, Decision, Kind, Phase, Reason, Refusal};

/// The one instant of the tests: no clock is read.
pub fn now() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + Duration::days(20_000)
}

/// What a released broker can do.
pub fn standalone() -> Capabilities {
    Capabilities {
        clustering: false,
        dns_addresses: false,
        tls: false,
        auth: false,
        acls: false,
        partition_metadata: false,
        durable_topic_config: false,
        online_growth_when_full: false,
        health_split: false,
    }
}

/// What a broker can do that can do everything.
pub fn clustered() -> Capabilities {
    Capabilities {
        clustering: true,
        dns_addresses: true,
        tls: true,
        auth: true,
        acls: true,
        partition_metadata: true,
        durable_topic_config: true,
        online_growth_when_full: true,
        health_split: true,
    }
}

/// How a broker is, as one of the classes that decisions tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Absent,
    Starting,
    Unasked,
    Silent,
    Well,
    CrashLoop,
    ImagePull,
    Unschedulable,
    OutdatedWell,
    OutdatedBroken,
    Terminating,
}

impl State {
    pub const ALL: [Self; 11] = [
        Self::Absent,
        Self::Starting,
        Self::Unasked,
        Self::Silent,
        Self::Well,
        Self::CrashLoop,
        Self::ImagePull,
        Self::Unschedulable,
        Self::OutdatedWell,
        Self::OutdatedBroken,
        Self::Terminating,
    ];
}

pub const WANTED: &str = "new";
pub const OLD: &str = "old";

pub fn pod(ordinal: u32, revision: &str, ready: bool) -> Pod {
    Pod {
        uid: format!("pod-{ordinal}"),
        revision: revision.to_owned(),
        ready,
        terminating: false,
        unschedulable: None,
        failed: None,
        container: if ready { Container::Running } else { Container::Unreported },
        restarts: 0,
        last_exit: None,
    }
}

/// An answer of a broker of three that are a cluster.
pub fn said(healthy: bool, leader: bool) -> Answer {
    let membership = members(3);
    Answer::Said { healthy, version: "0.1.0".to_owned(), node_id: "n".to_owned(), leader, membership }
}

/// What a broker knows that is in a cluster of `brokers`.
pub fn members(brokers: u32) -> Membership {
    Membership::Of { voters: (0..brokers).collect(), foreign: Vec::new() }
}

/// The broker, if it answers, knows this.
pub fn knows(o: &mut Observation, ordinal: u32, what: Membership) {
    if let Some(Answer::Said { membership, .. }) = o.brokers.get_mut(ordinal as usize).map(|broker| &mut broker.answer)
    {
        *membership = what;
    }
}

pub fn claim(ordinal: u32, ours: bool, bound: bool) -> Claim {
    Claim {
        name: format!("data-rivven-x-{ordinal}"),
        uid: format!("claim-{ordinal}"),
        ours,
        bound,
        deleting: false,
        requested: 1 << 30,
        capacity: bound.then_some(1 << 30),
    }
}

fn crashed(pod: &mut Pod) {
    pod.restarts = 4;
    pod.container = Container::Waiting { reason: "CrashLoopBackOff".to_owned(), message: "back-off 40s".to_owned() };
    pod.last_exit = Some(LastExit { code: 1, reason: "Error".to_owned(), log: "no such option".to_owned() });
}

/// A broker of a class.
pub fn broker(ordinal: u32, state: State, leader: bool, claim: Option<Claim>) -> Broker {
    let mut answer = Answer::NotAsked;
    let mut made = pod(ordinal, WANTED, false);
    match state {
        State::Absent | State::Starting => {}
        State::Unasked => made.ready = true,
        State::Silent => {
            made.ready = true;
            answer = Answer::Silent { why: "timeout".to_owned() };
        }
        State::Well | State::OutdatedWell => {
            made.ready = true;
            answer = said(true, leader);
        }
        State::CrashLoop | State::OutdatedBroken => crashed(&mut made),
        State::ImagePull => {
            made.container =
                Container::Waiting { reason: "ImagePullBackOff".to_owned(), message: "not found".to_owned() };
        }
        State::Unschedulable => {
            made.unschedulable =
                Some(Unschedulable { message: "0/1 nodes".to_owned(), since: now() - Duration::minutes(5) });
        }
        State::Terminating => made.terminating = true,
    }
    if matches!(state, State::OutdatedWell | State::OutdatedBroken) {
        OLD.clone_into(&mut made.revision);
    }
    Broker { ordinal, pod: (state != State::Absent).then_some(made), answer, claim }
}

/// A cluster of `states` that has everything: what a test changes is what it is about.
pub fn cluster(states: &[State]) -> Observation {
    let replicas = u32::try_from(states.len()).unwrap_or_default();
    let mut observed = Observation {
        recorded: Some(Phase::Ready),
        deletion: None,
        finalizer: true,
        paused: false,
        adopt_volumes: false,
        admission: Admission::Accepted,
        objects: Object::ALL.iter().map(|object| (*object, Presence::Current)).collect(),
        stateful_set: Some(StatefulSet {
            uid: "set".to_owned(),
            replicas,
            update_revision: Some(WANTED.to_owned()),
            deleting: false,
        }),
        // The leader has the highest ordinal: the one that would restart first if leaders did not restart last.
        brokers: (0..replicas)
            .zip(states)
            .map(|(ordinal, state)| broker(ordinal, *state, ordinal + 1 == replicas, Some(claim(ordinal, true, true))))
            .collect(),
        replicas,
        capabilities: clustered(),
        dependents: Vec::new(),
        formed: true,
        partitions: Partitions::Unreplicated,
    };
    for ordinal in 0..replicas {
        knows(&mut observed, ordinal, members(replicas));
    }
    observed
}

/// A partition, its leader the first in sync.
pub fn partition(id: u32, replicas: &[u32], in_sync: &[u32], min_in_sync: u32) -> Partition {
    Partition {
        topic: "orders".into(),
        id,
        leader: in_sync.first().copied(),
        replicas: replicas.to_vec(),
        in_sync: in_sync.to_vec(),
        min_in_sync,
    }
}

/// Partitions of `brokers` brokers, by what decisions tell apart.
pub fn partition_classes(brokers: u32) -> Vec<(&'static str, Partitions)> {
    let all: Vec<u32> = (0..brokers).collect();
    let known = |partitions: Vec<Partition>| Partitions::Known(partitions.into());
    let mut classes = vec![
        ("unreplicated", Partitions::Unreplicated),
        ("unknown", Partitions::Unknown { why: "timeout".to_owned() }),
        ("no topic", Partitions::Known(Arc::new([]))),
        ("one copy each", known(all.iter().map(|o| partition(*o, &[*o], &[*o], 1)).collect())),
        ("none to spare", known(vec![partition(0, &all, &all, brokers)])),
        ("one to spare", known(vec![partition(0, &all, &all, (brokers - 1).max(1))])),
        ("offline", known(vec![partition(0, &all, &[], 1)])),
    ];
    for behind in 0..brokers {
        let in_sync: Vec<u32> = all.iter().copied().filter(|o| *o != behind).collect();
        classes.push(("one behind, at the minimum", known(vec![partition(0, &all, &in_sync, brokers - 1)])));
        classes.push(("one behind, above it", known(vec![partition(0, &all, &in_sync, 1)])));
        classes.push(("the only one in sync", known(vec![partition(0, &all, &[behind], 1)])));
    }
    classes
}

pub fn refusal() -> Refusal {
    Refusal { reason: Reason::InvalidSpec, message: "replicas: must be odd".to_owned() }
}

pub fn well(broker: &Broker) -> bool {
    diagnosis::diagnose(broker, now()) == diagnosis::Health::Well
}

/// Every phase an object may have recorded, and none.
pub fn phases() -> impl Iterator<Item = Option<Phase>> {
    std::iter::once(None).chain(Phase::ALL.into_iter().map(Some))
}

macro_rules! hold {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err(format!($($what)+));
        }
    };
}

/// What must hold of a decision for any kind.
pub fn sound<S: PartialEq + std::fmt::Debug>(
    kind: Kind,
    recorded: Option<Phase>,
    deleting: bool,
    d: &Decision<S>,
) -> Result<(), String> {
    hold!(kind.table().allows(recorded, d.phase), "{recorded:?} to {} is not in the table", d.phase);
    // The only pair that the table refuses: an object that is not being deleted whose status says that it is.
    let tampered = recorded == Some(Phase::Terminating) && !deleting;
    hold!(d.refused.is_none() || tampered, "refused: {:?}", d.refused);
    hold!(recorded != Some(Phase::Terminating) || d.phase == Phase::Terminating, "Terminating must absorb");
    hold!(deleting == (d.phase == Phase::Terminating) || tampered, "Terminating iff deleted");
    for condition in &d.conditions {
        let of_kind = d.conditions.iter().filter(|other| other.kind == condition.kind).count();
        hold!(of_kind == 1, "{:?} stands there {of_kind} times", condition.kind);
        hold!(!condition.message.is_empty(), "{:?} has no message", condition.kind);
    }
    let ready = d.condition(ConditionType::Ready);
    hold!(ready.is_some(), "no condition Ready");
    let says_ready = ready.is_some_and(|c| c.status == ConditionStatus::True);
    hold!(says_ready == (d.reason == Reason::AsWanted), "Ready {says_ready} with {}", d.reason);
    if d.phase == Phase::Ready {
        hold!(d.reason == Reason::AsWanted, "phase Ready with {}", d.reason);
        hold!(d.requeue.is_none() && d.steps.is_empty() && d.blocked_by.is_empty(), "Ready is not silent");
    }
    hold!(!d.message.is_empty(), "no message");
    Ok(())
}

/// What must hold of every decision for a cluster.
pub fn cluster_holds(o: &Observation, d: &Decision<Step>) -> Result<(), String> {
    sound(Kind::Cluster, o.recorded, o.deletion.is_some(), d)?;
    let disruptive = d.steps.iter().filter(|step| step.is_disruptive()).count();
    hold!(disruptive <= 1, "{disruptive} disruptive steps at once");
    let in_range = || o.brokers.iter().filter(|b| b.ordinal < o.replicas);
    let no_pods = o.brokers.iter().all(|b| b.pod.is_none());
    let refused = matches!(o.admission, Admission::Refused(_));
    if o.deletion.is_none() {
        hold!(!(o.paused || refused) || d.steps.is_empty(), "a step while paused or refused");
        for kind in [ConditionType::Progressing, ConditionType::Degraded, ConditionType::SpecAccepted] {
            hold!(d.condition(kind).is_some(), "no condition {kind:?}");
        }
        let accepted = d.condition(ConditionType::SpecAccepted).map(|c| c.status);
        hold!(
            accepted == Some((o.admission == Admission::Accepted).into()),
            "SpecAccepted {accepted:?} for {:?}",
            o.admission
        );
    }
    if d.reason == Reason::AsWanted {
        hold!(
            in_range().count() == o.replicas as usize && in_range().all(well),
            "Ready with a broker that is not well"
        );
        let wanted = o.stateful_set.as_ref().and_then(|set| set.update_revision.as_deref());
        hold!(wanted.is_some(), "Ready without a known revision");
        hold!(
            in_range().all(|b| b.pod.as_ref().map(|p| p.revision.as_str()) == wanted),
            "Ready with an outdated broker"
        );
        hold!(o.objects.iter().all(|(_, p)| *p == Presence::Current), "Ready with objects not as wanted");
        if o.capabilities.clustering {
            let leads = |b: &Broker| matches!(b.answer, Answer::Said { leader: true, .. });
            hold!(in_range().any(leads), "Ready without a leader");
            hold!(in_range().all(|b| knows_of(b) == Some(&members(o.replicas))), "Ready before all are voters");
            hold!(o.formed, "Ready before the formation is noted");
        }
        hold!(!matches!(o.partitions, Partitions::Unknown { .. }), "Ready with partitions unknown");
        if let Partitions::Known(all) = &o.partitions {
            hold!(
                all.iter().all(|p| p.leader.is_some() && p.replicas.iter().all(|r| p.in_sync.contains(r))),
                "Ready with a partition out of sync"
            );
        }
    }
    let untouchable = o.objects.iter().any(|(_, p)| matches!(p, Presence::Foreign { .. } | Presence::Unknown { .. }));
    let stale = !o.adopt_volumes
        && o.stateful_set.is_none()
        && o.brokers.iter().any(|b| b.claim.as_ref().is_some_and(|c| !c.ours));
    for step in &d.steps {
        match step {
            Step::AddFinalizer => hold!(o.deletion.is_none() && !o.finalizer, "the finalizer is there"),
            Step::Apply(object) => {
                hold!(o.finalizer, "applied without a finalizer");
                hold!(!untouchable && !stale, "applied {object:?} next to something foreign or unknown");
                hold!(
                    o.objects
                        .iter()
                        .any(|(other, p)| other == object && matches!(p, Presence::Missing | Presence::Drifted)),
                    "applied {object:?} although it is as wanted"
                );
            }
            Step::AdoptVolume { claim, .. } => hold!(o.adopt_volumes, "adopted {claim} unasked"),
            Step::Bootstrap { founder } => bootstrap_holds(o, *founder)?,
            Step::MarkFormed => {
                hold!(!o.formed, "marked twice");
                let all = members(o.replicas);
                hold!(in_range().count() == o.replicas as usize, "marked while a broker was not looked at");
                hold!(in_range().all(|b| knows_of(b) == Some(&all)), "marked before all know of all");
            }
            Step::RestartPod { ordinal, uid } => restart_holds(o, *ordinal, uid)?,
            Step::DeleteStatefulSet { .. } => hold!(o.deletion.is_some(), "StatefulSet deleted unasked"),
            Step::DeleteVolume { claim, .. } => {
                hold!(o.deletion.is_some_and(|x| x.reclaim == ReclaimPolicy::Delete), "volume deleted unasked");
                hold!(o.stateful_set.is_none() && no_pods, "volume deleted under a broker");
                hold!(
                    o.brokers.iter().filter_map(|b| b.claim.as_ref()).any(|c| c.name == *claim && c.ours),
                    "{claim} is not proven to be ours"
                );
            }
            Step::RemoveFinalizer => {
                hold!(o.deletion.is_some(), "finalizer removed from a living cluster");
                hold!(o.stateful_set.is_none() && no_pods, "finalizer removed while brokers run");
                let left = o.brokers.iter().filter_map(|b| b.claim.as_ref()).any(|c| c.ours);
                let delete = o.deletion.is_some_and(|x| x.reclaim == ReclaimPolicy::Delete);
                hold!(!(left && delete), "finalizer removed before the volumes are gone");
            }
        }
    }
    // Something goes on, or is waited for, or a person has to act, or the broker's trouble is named.
    let moves = !d.steps.is_empty() || !d.blocked_by.is_empty() || d.requeue.is_some();
    let trouble = in_range().any(|b| matches!(diagnosis::diagnose(b, now()), diagnosis::Health::Trouble(..)));
    let rests =
        d.reason == Reason::AsWanted || o.paused || refused || trouble || (o.deletion.is_some() && !o.finalizer);
    hold!(moves || rests, "a dead end: {} {}", d.phase, d.reason);
    Ok(())
}

/// No partition falls below its minimum because of us, unless it has no replica to spare; and all others have caught up.
fn partitions_hold(partitions: &Partitions, ordinal: u32) -> Result<(), String> {
    hold!(!matches!(partitions, Partitions::Unknown { .. }), "restart of {ordinal} with partitions unknown");
    let Partitions::Known(all) = partitions else { return Ok(()) };
    for p in all.iter() {
        let left = p.in_sync.iter().filter(|r| **r != ordinal).count();
        let concerned = p.replicas.contains(&ordinal) && p.replicas.len() > p.min_in_sync as usize;
        hold!(!concerned || left >= p.min_in_sync as usize, "{p} left with {left} of {} in sync", p.min_in_sync);
        let caught_up = p.replicas.iter().all(|r| *r == ordinal || p.in_sync.contains(r));
        hold!(caught_up, "restart of {ordinal} while another replica of {p} is behind");
    }
    Ok(())
}

fn knows_of(broker: &Broker) -> Option<&Membership> {
    match &broker.answer {
        Answer::Said { membership, .. } => Some(membership),
        _ => None,
    }
}

/// Once: nobody may have been told before, and nobody may be left out.
fn bootstrap_holds(o: &Observation, founder: u32) -> Result<(), String> {
    hold!(o.capabilities.clustering, "bootstrap of brokers that run alone");
    hold!(o.deletion.is_none() && !o.paused, "bootstrap of a cluster that is deleted or paused");
    hold!(founder == 0, "another founder than always");
    hold!(!o.formed, "bootstrap of a cluster that was formed before");
    for ordinal in 0..o.replicas {
        let knows = o.broker(ordinal).and_then(knows_of);
        hold!(
            matches!(knows, Some(Membership::Unknown | Membership::Alone)),
            "bootstrap although broker {ordinal} says {knows:?}"
        );
    }
    Ok(())
}

fn restart_holds(o: &Observation, ordinal: u32, uid: &str) -> Result<(), String> {
    hold!(o.deletion.is_none(), "restart of a cluster that is being deleted");
    hold!(o.objects.iter().all(|(_, p)| *p == Presence::Current), "restart onto a template that is not as wanted");
    let Some(wanted) = o.stateful_set.as_ref().and_then(|set| set.update_revision.as_ref()) else {
        return Err("restart without a known revision".to_owned());
    };
    let Some((it, pod)) = o
        .brokers
        .iter()
        .find(|b| b.ordinal == ordinal && b.ordinal < o.replicas)
        .and_then(|b| b.pod.as_ref().map(|pod| (b, pod)))
    else {
        return Err(format!("restart of broker {ordinal}, which is not there"));
    };
    hold!(pod.uid == uid, "restart by another pod's uid");
    hold!(pod.revision != *wanted, "restart of a broker that is current");
    hold!(!pod.terminating, "restart of a broker that stops already");
    let up = |b: &Broker| {
        b.pod.as_ref().is_some_and(|p| p.ready && !p.terminating)
            && !matches!(b.answer, Answer::Said { healthy: false, .. })
    };
    if up(it) {
        hold!(matches!(it.answer, Answer::Said { .. }), "restart of a broker that nobody has heard of");
        let others = || o.brokers.iter().filter(|b| b.ordinal < o.replicas && b.ordinal != ordinal);
        hold!(others().count() + 1 == o.replicas as usize, "restart of {ordinal} while another was not looked at");
        hold!(
            others().all(|b| up(b) && matches!(b.answer, Answer::Said { healthy: true, .. })),
            "restart of {ordinal} while another is not well"
        );
        partitions_hold(&o.partitions, ordinal)?;
        if matches!(it.answer, Answer::Said { leader: true, .. }) {
            let behind = others().any(|b| {
                b.pod.as_ref().is_some_and(|p| p.revision != *wanted)
                    && !matches!(b.answer, Answer::Said { leader: true, .. })
            });
            hold!(!behind, "the leader restarts before broker behind it");
        }
    }
    hold!(matches!(rollout::plan(o), Rollout::Restart(_)), "restart that is not the plan's");
    Ok(())
}
