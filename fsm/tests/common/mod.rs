//! Builders of observations, and what must hold of every decision, shared by the tests of this crate.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

pub mod connects;
pub mod topics;
pub mod world;

use std::sync::Arc;

use chrono::{DateTime, Duration, Utc};
use rivven_fsm::cluster::partitions::Partition;
use rivven_fsm::cluster::rollout;
use rivven_fsm::cluster::{
    Admission, Answer, Broker, Capabilities, Claim, Container, LastExit, Leadership, Membership, Move, Object,
    Observation, Partitions, Plan, Pod, Presence, ReclaimPolicy, Resize, StatefulSet, Step, Unschedulable, diagnosis,
};
use rivven_fsm::{Blocked, ConditionStatus, ConditionType, Decision, Kind, Phase, Reason, Refusal};

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
        ready_since: ready.then(|| now() - Duration::hours(1)),
        created: now() - Duration::minutes(1),
        restart_asked: false,
        held: None,
        orphan: false,
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
    Membership::Of { voters: (0..brokers).collect(), learners: [].into(), foreign: Vec::new() }
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
        asked: None,
        resize: Resize::Silent,
        refused: None,
        capacity: bound.then_some(1 << 30),
        empty_since: None,
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
    Broker { ordinal, pod: (state != State::Absent).then_some(made), answer, claim, external: None }
}

/// A cluster of `states` that has everything: what a test changes is what it is about.
pub fn cluster(states: &[State]) -> Observation {
    let replicas = u32::try_from(states.len()).unwrap_or_default();
    let mut observed = Observation {
        seen_at: now(),
        windows: Vec::new(),
        min_ready: std::time::Duration::ZERO,
        recorded: Some(Phase::Ready),
        deletion: None,
        finalizer: true,
        paused: false,
        adopt_volumes: false,
        admission: Admission::Accepted,
        certificate: None,
        objects: Object::ALL.iter().map(|object| (*object, Presence::Current)).collect(),
        stateful_set: Some(StatefulSet {
            uid: "set".to_owned(),
            replicas,
            update_revision: Some(WANTED.to_owned()),
            claim_bytes: 1 << 30,
            proven: true,
            deleting: false,
        }),
        // The leader has the highest ordinal: the one that would restart first if leaders did not restart last.
        brokers: (0..replicas)
            .zip(states)
            .map(|(ordinal, state)| broker(ordinal, *state, ordinal + 1 == replicas, Some(claim(ordinal, true, true))))
            .collect(),
        replicas,
        storage_bytes: 1 << 30,
        capabilities: clustered(),
        dependents: Vec::new(),
        formed: true,
        partitions: Partitions::Unreplicated,
        moves: Vec::new(),
        rebalance: false,
        scale_in: ReclaimPolicy::Delete,
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
    let why = ready.map(|c| c.reason);
    hold!(says_ready == (why == Some(Reason::AsWanted)), "Ready {says_ready} with {why:?}");
    let refused = d.condition(ConditionType::SpecAccepted).is_some_and(|c| c.status == ConditionStatus::False);
    hold!(d.phase != Phase::Ready || d.reason == Reason::AsWanted || refused, "phase Ready with {}", d.reason);
    hold!(says_ready || d.phase != Phase::Ready, "phase Ready, and the condition is not");
    if d.phase == Phase::Ready {
        // Nothing in Kubernetes tells that a connector fails: its worker is asked, now and then, and nobody else.
        let asks = kind == Kind::Connect && d.requeue == Some(rivven_fsm::connect::ASK_AGAIN);
        hold!((d.requeue.is_none() || asks) && d.steps.is_empty(), "Ready is not silent");
        // Somebody else's to give, and the brokers serve without it.
        let waits = |b: &Blocked| b.reason != Reason::ExternalAddressPending;
        hold!(!d.blocked_by.iter().any(waits), "Ready waits: {:?}", d.blocked_by);
    }
    hold!(!d.message.is_empty(), "no message");
    Ok(())
}

/// What must hold of every decision for a cluster.
pub fn cluster_holds(o: &Observation, d: &Decision<Step>) -> Result<(), String> {
    cluster_holds_at(o, d, now())
}

/// The same at another time.
#[allow(clippy::too_many_lines, reason = "a list of steps and of what each must not do")]
pub fn cluster_holds_at(o: &Observation, d: &Decision<Step>, at: DateTime<Utc>) -> Result<(), String> {
    sound(Kind::Cluster, o.recorded, o.deletion.is_some(), d)?;
    let disruptive = d.steps.iter().filter(|step| step.is_disruptive() || lowers(o, step)).count();
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
    if says_ready(d) {
        ready_holds(o)?;
    }
    // Nothing in Kubernetes tells when a broker becomes well whose pod was ready all the time.
    let unheard = |b: &Broker| !well(b) && b.pod.as_ref().is_some_and(Pod::is_up);
    let held = refused || d.reason == Reason::WaitingForDeletion || (o.paused && o.stateful_set.is_none());
    if o.deletion.is_none() && !held && d.steps.is_empty() && in_range().any(unheard) {
        hold!(d.requeue.is_some(), "a broker that is not known to be well is never looked at again");
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
            Step::DeleteObject { object, uid } => {
                hold!(!untouchable && !stale, "deleted {object:?} next to something foreign or unknown");
                let unwanted = Presence::Unwanted { uid: uid.clone() };
                hold!(o.objects.contains(&(*object, unwanted)), "deleted {object:?}, which is wanted or not ours");
            }
            Step::AdoptVolume { claim, .. } => hold!(o.adopt_volumes, "adopted {claim} unasked"),
            Step::Bootstrap { founder } => bootstrap_holds(o, *founder)?,
            Step::MarkFormed => {
                hold!(!o.formed, "marked twice");
                hold!(in_range().count() == o.replicas as usize, "marked while a broker was not looked at");
                let votes = |b: &Broker| match knows_of(b) {
                    Some(Membership::Of { voters, foreign, .. }) => {
                        voters.iter().copied().eq(0..o.replicas) && foreign.is_empty()
                    }
                    _ => false,
                };
                hold!(in_range().all(votes), "marked before all have a vote in the eyes of all");
            }
            Step::ElectLeaders { leaders } => leaders_hold(o, leaders)?,
            Step::TransferController { to } => {
                hold!(o.broker(*to).is_some_and(well), "the controller goes to broker {to}, which is not well");
                let leads = |b: &Broker| matches!(b.answer, Answer::Said { leader: true, .. });
                hold!(o.brokers.iter().any(|b| leads(b) && b.ordinal != *to), "nobody hands the controller over");
                hold!(*to < o.replicas, "broker {to} is to leave itself");
            }
            Step::ExpandVolume { claim, bytes, .. } => expand_holds(o, claim, *bytes)?,
            Step::OrphanStatefulSet { .. } => {
                hold!(o.deletion.is_none(), "orphaned while it is deleted");
                let grown = |c: &Claim| !c.ours || c.requested >= o.storage_bytes;
                hold!(in_range().filter_map(|b| b.claim.as_ref()).all(grown), "replaced before the volumes have grown");
            }
            // To grow, a broker is stopped that would lose records otherwise.
            Step::Scale { replicas: 0, .. } if !o.capabilities.online_growth_when_full => {
                hold!(o.deletion.is_none(), "scaled while it is deleted");
            }
            Step::HaltRollout { broker, revision, .. } => {
                let set = o.stateful_set.as_ref();
                hold!(set.is_some_and(|set| set.proven), "halted with nowhere to go back to");
                hold!(set.and_then(|set| set.update_revision.as_ref()) == Some(revision), "halted another revision");
                let pod = o.broker(*broker).and_then(|broker| broker.pod.as_ref());
                hold!(
                    pod.is_some_and(|pod| pod.revision == *revision && !pod.ready),
                    "halted by a broker that is well"
                );
            }
            Step::RestartPod { ordinal, uid } => restart_holds(o, *ordinal, uid)?,
            Step::DeletePod { ordinal, uid } => {
                hold!(o.deletion.is_some() && o.stateful_set.is_none(), "a broker stopped that is kept by somebody");
                let it = o.broker(*ordinal);
                hold!(it.and_then(|b| b.claim.as_ref()).is_some_and(|c| c.ours), "{ordinal} is not proven to be ours");
                hold!(it.and_then(|b| b.pod.as_ref()).is_some_and(|p| p.orphan && p.uid == *uid), "another's pod");
            }
            Step::DeleteStatefulSet { .. } => hold!(o.deletion.is_some(), "StatefulSet deleted unasked"),
            Step::DeleteVolume { claim, .. } if o.deletion.is_none() => discard_holds(o, claim)?,
            Step::Scale { uid, replicas } => scale_holds(o, uid, *replicas)?,
            Step::AddLearner { ordinal } => {
                let (voters, learners) = told_by_the_leader(o)?;
                hold!(*ordinal < o.replicas, "broker {ordinal} is not wanted and is brought in");
                hold!(!voters.contains(ordinal) && !learners.contains(ordinal), "broker {ordinal} is a member");
                let claim = o.broker(*ordinal).and_then(|b| b.claim.as_ref());
                hold!(claim.is_none_or(|c| c.empty_since.is_none()), "broker {ordinal} joins with a note that it left");
                change_holds(o, *ordinal)?;
            }
            Step::ChangeVoters { voters } => voters_hold(o, voters, at)?,
            Step::NoteMoves { moves } => moves_hold(o, moves)?,
            Step::Reassign { topic, partition, replicas } => reassign_holds(o, topic, *partition, replicas)?,
            Step::NoteEmpty { claim, since, .. } => {
                let found = o.brokers.iter().find(|b| b.claim.as_ref().is_some_and(|c| c.name == *claim));
                let Some(found) = found else { return Err(format!("{claim} is not there")) };
                let empty = found.claim.as_ref().and_then(|c| c.empty_since);
                hold!(empty != *since, "{claim} is noted as it is");
                hold!(since.is_none() || found.ordinal >= o.replicas, "{claim} is wanted and noted as empty");
                hold!(since.is_none() || holds_none(o, found.ordinal), "{claim} is noted as empty and is not");
            }
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
    let rests = says_ready(d) || o.paused || refused || trouble || (o.deletion.is_some() && !o.finalizer);
    hold!(moves || rests, "a dead end: {} {}", d.phase, d.reason);
    Ok(())
}

fn says_ready(d: &Decision<Step>) -> bool {
    d.condition(ConditionType::Ready).is_some_and(|c| c.status == ConditionStatus::True)
}

/// Everything is as wanted.
fn ready_holds(o: &Observation) -> Result<(), String> {
    let in_range = || o.brokers.iter().filter(|b| b.ordinal < o.replicas);
    hold!(in_range().count() == o.replicas as usize && in_range().all(well), "Ready with a broker that is not well");
    let wanted = o.stateful_set.as_ref().and_then(|set| set.update_revision.as_deref());
    hold!(wanted.is_some(), "Ready without a known revision");
    hold!(in_range().all(|b| b.pod.as_ref().map(|p| p.revision.as_str()) == wanted), "Ready with an outdated broker");
    hold!(o.objects.iter().all(|(_, p)| *p == Presence::Current), "Ready with objects not as wanted");
    if o.capabilities.clustering {
        let leads = |b: &Broker| matches!(b.answer, Answer::Said { leader: true, .. });
        hold!(in_range().any(leads), "Ready without a leader");
        hold!(in_range().all(|b| knows_of(b) == Some(&members(o.replicas))), "Ready before all are voters");
        hold!(o.formed, "Ready before the formation is noted");
        let beyond = |b: &Broker| b.ordinal >= o.replicas && b.pod.is_some();
        hold!(!o.brokers.iter().any(beyond), "Ready while a broker is there that is not wanted");
        hold!(o.stateful_set.as_ref().is_some_and(|s| s.replicas == o.replicas), "Ready with another number");
        hold!(o.moves.is_empty(), "Ready while replicas are on the move");
    }
    hold!(!matches!(o.partitions, Partitions::Unknown { .. }), "Ready with partitions unknown");
    if let Partitions::Known(all) = &o.partitions {
        hold!(
            all.iter().all(|p| p.leader.is_some() && p.replicas.iter().all(|r| p.in_sync.contains(r))),
            "Ready with a partition out of sync"
        );
    }
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

/// Only ours, never smaller than it is, and not under a broker that may lose records by it.
fn expand_holds(o: &Observation, claim: &str, bytes: u64) -> Result<(), String> {
    let it = o.brokers.iter().filter_map(|b| b.claim.as_ref()).find(|c| c.name == claim);
    hold!(it.is_some_and(|c| c.ours && !c.deleting), "{claim} is not ours to grow");
    hold!(it.is_some_and(|c| bytes >= c.capacity.unwrap_or(0)), "{claim} would shrink to {bytes}");
    let stopped = o.brokers.iter().all(|b| b.pod.is_none());
    let grows = it.is_some_and(|c| bytes > c.requested);
    hold!(!grows || o.capabilities.online_growth_when_full || stopped, "grown under a broker that may lose records");
    Ok(())
}

/// Only to brokers that are well and in sync.
fn leaders_hold(o: &Observation, leaders: &[Leadership]) -> Result<(), String> {
    let Partitions::Known(all) = &o.partitions else { return Err("leaders of unknown partitions".to_owned()) };
    for l in leaders {
        hold!(o.broker(l.to).is_some_and(well), "broker {} is to lead and not well", l.to);
        let able = |p: &Partition| p.topic == l.topic && p.id == l.partition && p.in_sync.contains(&l.to);
        hold!(all.iter().any(able), "{l:?} is not in sync");
    }
    Ok(())
}

fn lowers(o: &Observation, step: &Step) -> bool {
    let now = o.stateful_set.as_ref().map_or(0, |set| set.replicas);
    matches!(step, Step::Scale { replicas, .. } if *replicas < now)
}

type Ordinals = std::collections::BTreeSet<u32>;

/// What the one leader says of voters and learners.
fn told_by_the_leader(o: &Observation) -> Result<(&Ordinals, &Ordinals), String> {
    let mut told = o.brokers.iter().filter_map(|b| match &b.answer {
        Answer::Said { healthy: true, leader: true, membership: Membership::Of { voters, learners, .. }, .. } => {
            // One that takes itself out leads on for a moment, and then steps down.
            voters.contains(&b.ordinal).then_some((voters, learners))
        }
        _ => None,
    });
    match (told.next(), told.next()) {
        (Some(told), None) => Ok(told),
        _ => Err("a change while nobody, or more than one, leads".to_owned()),
    }
}

fn holds_none(o: &Observation, ordinal: u32) -> bool {
    match &o.partitions {
        Partitions::Known(all) => all.iter().all(|p| !p.replicas.contains(&ordinal)),
        _ => false,
    }
}

/// A change of the members: all others are well, and nothing is behind but what leaves.
fn change_holds(o: &Observation, but: u32) -> Result<(), String> {
    let (voters, _) = told_by_the_leader(o)?;
    for voter in voters.iter().filter(|voter| **voter != but) {
        let is_well = o.broker(*voter).is_some_and(|b| {
            b.pod.as_ref().is_some_and(Pod::is_up) && matches!(b.answer, Answer::Said { healthy: true, .. })
        });
        let leaves = *voter >= o.replicas && voters.iter().all(|other| other <= voter);
        hold!(is_well || leaves, "the members change while broker {voter} is not well");
    }
    if let Partitions::Known(all) = &o.partitions {
        let behind = |p: &Partition| p.replicas.iter().any(|r| *r < o.replicas && !p.in_sync.contains(r));
        hold!(!all.iter().any(behind), "the members change while a replica is behind");
    }
    hold!(!matches!(o.partitions, Partitions::Unknown { .. }), "the members change with partitions unknown");
    hold!(o.moves.is_empty(), "the members change while replicas are on the move");
    Ok(())
}

/// One comes or one goes, and who goes holds nothing and was seen empty before.
fn voters_hold(o: &Observation, wanted: &[u32], at: DateTime<Utc>) -> Result<(), String> {
    let (voters, learners) = told_by_the_leader(o)?;
    let wanted: Ordinals = wanted.iter().copied().collect();
    let (come, go): (Vec<_>, Vec<_>) = (wanted.difference(voters).collect(), voters.difference(&wanted).collect());
    hold!(come.len() + go.len() == 1, "{} come and {} go at once", come.len(), go.len());
    for ordinal in come {
        hold!(learners.contains(ordinal), "broker {ordinal} is given a vote and has learnt nothing");
        change_holds(o, *ordinal)?;
    }
    for ordinal in go {
        change_holds(o, *ordinal)?;
        hold!(*ordinal >= o.replicas, "broker {ordinal} is wanted and taken out");
        hold!(holds_none(o, *ordinal), "broker {ordinal} is taken out and not known to be empty");
        hold!(voters.iter().all(|other| other <= ordinal), "broker {ordinal} leaves before one above it");
        let leads = matches!(o.broker(*ordinal).map(|b| &b.answer), Some(Answer::Said { leader: true, .. }));
        hold!(!leads, "broker {ordinal} is taken out while it leads");
        if let Some(claim) = o.broker(*ordinal).and_then(|b| b.claim.as_ref()).filter(|c| !c.deleting) {
            let seen = claim.empty_since.is_some_and(|since| at - since >= Duration::seconds(3));
            hold!(seen, "broker {ordinal} is taken out and was not seen empty before");
        }
        hold!(wanted.iter().any(|voter| *voter < o.replicas), "nobody is left");
    }
    Ok(())
}

/// Never fewer while the broker above is a member, or holds a replica, or that is not known.
fn scale_holds(o: &Observation, uid: &str, replicas: u32) -> Result<(), String> {
    let Some(set) = &o.stateful_set else { return Err("scaled what is not there".to_owned()) };
    hold!(set.uid == uid && set.replicas != replicas, "scaled another set, or to what it is");
    for gone in replicas..set.replicas {
        if !o.capabilities.clustering {
            hold!(gone >= o.replicas, "the only broker is taken away");
            continue;
        }
        if !o.formed {
            let alone = matches!(o.broker(0).and_then(knows_of), Some(Membership::Unknown | Membership::Alone));
            hold!(gone >= o.replicas && alone, "scaled in before it is known who is told");
            continue;
        }
        let (voters, learners) = told_by_the_leader(o)?;
        hold!(!voters.contains(&gone) && !learners.contains(&gone), "broker {gone} is a member and taken away");
        hold!(holds_none(o, gone), "broker {gone} is taken away and not known to be empty");
        hold!(gone + 1 == set.replicas, "more than one broker is taken away at once");
    }
    for comes in set.replicas..replicas {
        let claim = o.broker(comes).and_then(|b| b.claim.as_ref());
        let says = |m: &Membership| match m {
            Membership::Of { voters, learners, .. } => voters.contains(&comes) || learners.contains(&comes),
            _ => false,
        };
        // While nobody leads, anybody's word counts.
        let is_member = match told_by_the_leader(o) {
            Ok((voters, learners)) => voters.contains(&comes) || learners.contains(&comes),
            Err(_) => o.brokers.iter().filter_map(knows_of).any(says),
        };
        let stale = claim.is_some_and(|c| !c.ours || (!is_member && c.empty_since.is_some()));
        hold!(!stale, "broker {comes} is made with a volume that is not proven");
    }
    Ok(())
}

/// Only of a broker that left, stopped, and was empty.
fn discard_holds(o: &Observation, claim: &str) -> Result<(), String> {
    hold!(o.scale_in == ReclaimPolicy::Delete, "{claim} deleted although it is to stay");
    let found = o.brokers.iter().find(|b| b.claim.as_ref().is_some_and(|c| c.name == *claim));
    let Some((broker, claim)) = found.and_then(|b| Some((b, b.claim.as_ref()?))) else {
        return Err(format!("{claim} is not there"));
    };
    let (voters, learners) = told_by_the_leader(o)?;
    let ordinal = broker.ordinal;
    hold!(claim.ours && claim.empty_since.is_some(), "{} is not proven to be ours and empty", claim.name);
    hold!(broker.pod.is_none(), "the volume of a broker that runs is deleted");
    hold!(o.stateful_set.as_ref().is_some_and(|s| ordinal >= s.replicas), "the volume of a broker that is to run");
    hold!(!voters.contains(&ordinal) && !learners.contains(&ordinal), "the volume of a member is deleted");
    hold!(holds_none(o, ordinal), "the volume of a broker that is not known to be empty is deleted");
    Ok(())
}

fn moves_hold(o: &Observation, moves: &[Move]) -> Result<(), String> {
    if moves.is_empty() {
        hold!(!o.moves.is_empty(), "no note is taken off");
        return Ok(());
    }
    hold!(o.moves.is_empty(), "a note is written over another");
    let (voters, _) = told_by_the_leader(o)?;
    hold!(moves.len() <= 16, "{} moves at once", moves.len());
    for m in moves {
        hold!(m.to < o.replicas && voters.contains(&m.to), "a replica is to move to broker {}", m.to);
        let Partitions::Known(all) = &o.partitions else { return Err("moves with partitions unknown".to_owned()) };
        let found = all.iter().find(|p| p.topic == m.topic && p.id == m.partition);
        let fits = |p: &Partition| p.replicas.contains(&m.from) && !p.replicas.contains(&m.to);
        hold!(found.is_some_and(fits), "{m:?} is no move");
    }
    Ok(())
}

/// One replica comes, or one goes and all that stay are in sync and enough.
fn reassign_holds(o: &Observation, topic: &str, id: u32, replicas: &[u32]) -> Result<(), String> {
    let (voters, _) = told_by_the_leader(o)?;
    let Partitions::Known(all) = &o.partitions else { return Err("moved with partitions unknown".to_owned()) };
    let Some(p) = all.iter().find(|p| &*p.topic == topic && p.id == id) else {
        return Err(format!("{topic}/{id} is not there"));
    };
    hold!(o.moves.iter().any(|m| &*m.topic == topic && m.partition == id), "{p} is moved without a note");
    let come: Vec<_> = replicas.iter().filter(|r| !p.replicas.contains(r)).collect();
    let go: Vec<_> = p.replicas.iter().filter(|r| !replicas.contains(r)).collect();
    hold!(come.len() + go.len() == 1, "{} come to {p} and {} go", come.len(), go.len());
    hold!(come.iter().all(|r| voters.contains(r) && **r < o.replicas), "{p} is moved to {come:?}");
    if !go.is_empty() {
        hold!(replicas.iter().all(|r| p.in_sync.contains(r)), "{p} loses a replica while others are behind");
        hold!(replicas.len() >= p.min_in_sync as usize, "{p} falls below its minimum because of us");
        hold!(!replicas.is_empty(), "{p} loses its last replica");
    }
    Ok(())
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
    hold!(pod.revision != *wanted || pod.restart_asked, "restart of a broker that is current");
    let halted = o.admission.refusals().iter().any(|refusal| refusal.reason == Reason::RolloutHalted);
    hold!(!halted || pod.restart_asked, "restart in a halted rollout");
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
    hold!(matches!(rollout::plan(o), Plan::Next(..)), "restart that is not the plan's");
    Ok(())
}
