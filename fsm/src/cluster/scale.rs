//! How brokers come and go. Out: they start, join one after the other, and are given replicas if the spec asks for it.
//! In: the highest first, one at a time, each is emptied, seen empty twice, leaves, stops, and its volume follows.
//!
//! Nothing is remembered but what stands on the objects: which replicas are on the move, on the cluster, and since when
//! a broker has been empty, on its claim. Everything else is seen anew at each look, so that a change of mind half way
//! is no case of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::decide::{SILENT_RETRY, Step};
use super::formation::{self, Membership};
use super::observation::{Answer, Broker, Claim, Move, Observation, ReclaimPolicy, StatefulSet};
use super::partitions::{ELSEWHERE, Partition, Partitions, some};
use super::plan::Plan;
use super::rollout;
use crate::decision::Blocked;
use crate::guard::{Guard, refusals};
use crate::reason::Reason;

/// How many replicas are on the move at once. Each is a copy of a whole partition, made beside the usual load.
pub const BATCH: usize = 16;
/// How far the two looks lie apart that must both find a broker empty. Closes the race with a topic that is being placed
/// while the first one looks.
pub const EMPTY_FOR: Duration = Duration::from_secs(3);

/// The guards on whatever is done to the members, or is begun with their replicas. What is half done is finished without
/// them.
pub const GUARDS: &[Guard<Observation>] = &[
    Guard { reason: Reason::MembershipDiffers, refuses: not_one_cluster },
    Guard { reason: Reason::AnotherBrokerDown, refuses: another_broker_down },
    Guard { reason: Reason::RevisionOutdated, refuses: upgrading },
    Guard { reason: Reason::PartitionsUnknown, refuses: partitions_unknown },
    Guard { reason: Reason::ReplicaOutOfSync, refuses: others_behind },
];

/// What the controller's leader says of the members: a change of them is known to it before anybody else.
struct Members<'a> {
    leader: u32,
    voters: &'a BTreeSet<u32>,
    learners: &'a BTreeSet<u32>,
}

impl Members<'_> {
    fn has(&self, ordinal: u32) -> bool {
        self.voters.contains(&ordinal) || self.learners.contains(&ordinal)
    }
}

/// `None`: nobody leads, or two say that they do, as answers of different times can.
fn members(observed: &Observation) -> Option<Members<'_>> {
    let mut leaders = observed.brokers.iter().filter_map(|broker| match &broker.answer {
        Answer::Said { healthy: true, leader: true, membership: Membership::Of { voters, learners, .. }, .. } => {
            // Who takes itself out leads on until that is agreed on, and then steps down.
            voters.contains(&broker.ordinal).then_some(Members { leader: broker.ordinal, voters, learners })
        }
        _ => None,
    });
    leaders.next().filter(|_| leaders.next().is_none())
}

/// The controller's leader, if one is known: it takes every change of the members and of the replicas.
pub fn leader(observed: &Observation) -> Option<u32> {
    members(observed).map(|members| members.leader)
}

/// The voters, as the controller's leader says. `None`: it is not known.
pub(super) fn voters(observed: &Observation) -> Option<&BTreeSet<u32>> {
    members(observed).map(|members| members.voters)
}

/// What the broker itself says of the members.
fn own_view(observed: &Observation, ordinal: u32) -> Option<&Membership> {
    match &observed.broker(ordinal)?.answer {
        Answer::Said { membership, .. } => Some(membership),
        Answer::NotAsked | Answer::Silent { .. } => None,
    }
}

fn is_well(observed: &Observation, ordinal: u32) -> bool {
    observed.broker(ordinal).is_some_and(rollout::is_known_well)
}

fn claim(observed: &Observation, ordinal: u32) -> Option<&Claim> {
    observed.broker(ordinal)?.claim.as_ref()
}

fn has_pod(observed: &Observation, ordinal: u32) -> bool {
    observed.broker(ordinal).is_some_and(|broker| broker.pod.is_some())
}

/// The partitions, where they are known. Where brokers do not tell, nobody knows what they hold.
fn known(observed: &Observation) -> Option<&[Partition]> {
    match &observed.partitions {
        Partitions::Known(all) => Some(all),
        Partitions::Unreplicated | Partitions::Unknown { .. } => None,
    }
}

/// Whether the broker holds no replica of anything. Unknown is "no".
fn is_empty(observed: &Observation, ordinal: u32) -> bool {
    known(observed).is_some_and(|all| all.iter().all(|partition| !partition.replicas.contains(&ordinal)))
}

/// The broker that leaves next: the highest that is not wanted and is there in any way.
fn leaving(observed: &Observation) -> Option<u32> {
    let set = observed.stateful_set.as_ref().and_then(|set| set.replicas.checked_sub(1));
    let members = members(observed).into_iter().flat_map(|m| m.voters.iter().chain(m.learners)).copied();
    let pods = observed.brokers.iter().filter(|broker| broker.pod.is_some()).map(|broker| broker.ordinal);
    let holders = known(observed).into_iter().flatten().flat_map(|partition| &partition.replicas).copied();
    let all = set.into_iter().chain(members).chain(pods).chain(holders.filter(|ordinal| *ordinal != ELSEWHERE));
    all.filter(|ordinal| *ordinal >= observed.replicas).max()
}

/// A voter that is not wanted any more and does not answer: one more that is away could be one too many.
pub(super) fn surplus_voter_down(observed: &Observation) -> Option<u32> {
    let surplus = members(observed)?.voters.range(observed.replicas..).copied();
    surplus.into_iter().find(|ordinal| !is_well(observed, *ordinal))
}

fn not_one_cluster(observed: &Observation) -> Option<String> {
    let plan = formation::plan(observed);
    plan.why().map(|blocked| blocked.message.clone())
}

/// Closes the race with a broker that fails: a change of the members needs more than half of them, before and after. The
/// one that leaves may be down, as it is no loss then.
fn another_broker_down(observed: &Observation) -> Option<String> {
    let leaves = leaving(observed);
    let down = |ordinal: &u32| Some(*ordinal) != leaves && !is_well(observed, *ordinal);
    let down: Vec<String> = voters(observed)?.iter().copied().filter(down).map(|ordinal| ordinal.to_string()).collect();
    (!down.is_empty()).then(|| format!("broker {} is not known to be well", down.join(", ")))
}

/// Brokers that are not wanted wait for an upgrade to end, but for one that is down: its replicas may be what the
/// upgrade waits for.
fn upgrading(observed: &Observation) -> Option<String> {
    let leaves = leaving(observed)?;
    let (next, _) = rollout::next(observed)?;
    is_well(observed, leaves).then(|| format!("broker {} moves to the wanted revision first", next.ordinal))
}

fn partitions_unknown(observed: &Observation) -> Option<String> {
    match &observed.partitions {
        Partitions::Unknown { why } => Some(format!("the state of the partitions is not known: {why}")),
        // Nobody can say what such a broker holds; that another one joins takes nothing away.
        Partitions::Unreplicated if leaving(observed).is_some() => {
            Some("the brokers do not tell where their partitions are".to_owned())
        }
        Partitions::Unreplicated | Partitions::Known(_) => None,
    }
}

/// Of the broker that leaves, a replica may be behind: it goes away.
fn others_behind(observed: &Observation) -> Option<String> {
    let leaves = leaving(observed);
    let behind = observed.partitions.matching(|partition| partition.is_behind(leaves));
    (!behind.is_empty()).then(|| format!("replicas are catching up in {}", some(&behind)))
}

/// The guards that refuse, as what is waited for.
fn refused(guards: &[Guard<Observation>], observed: &Observation) -> Option<Plan> {
    let refused = refusals(guards, observed);
    let blocked = |r: crate::guard::Refusal| Blocked { reason: r.reason, on: None, message: r.message };
    (!refused.is_empty()).then(|| Plan::Waiting(refused.into_iter().map(blocked).collect(), Some(SILENT_RETRY)))
}

fn waiting(reason: Reason, message: String) -> Plan {
    Plan::wait(reason, message, Some(SILENT_RETRY))
}

fn scaled(set: &StatefulSet, replicas: u32, reason: Reason) -> Plan {
    let step = Step::Scale { uid: set.uid.clone(), replicas };
    Plan::next(step, reason, format!("the StatefulSet goes from {} to {replicas} brokers", set.replicas))
}

fn noted(claim: &Claim, since: Option<DateTime<Utc>>, reason: Reason, message: String) -> Plan {
    Plan::next(Step::NoteEmpty { claim: claim.name.clone(), uid: claim.uid.clone(), since }, reason, message)
}

/// What is to be done so that all wanted brokers are there, members, and, if the spec asks for it, hold their part.
/// Replicas on the move are finished or taken back here too, whatever they began to move for.
pub fn plan_out(observed: &Observation) -> Plan {
    plan_out_with(GUARDS, observed)
}

/// The same under `guards`: what a test takes out, the plan must miss.
pub fn plan_out_with(guards: &[Guard<Observation>], observed: &Observation) -> Plan {
    let Some(set) = &observed.stateful_set else { return Plan::Done };
    let wanted = observed.replicas;
    let members = if observed.capabilities.clustering && observed.formed { members(observed) } else { None };
    if let Some(replicas) = restored(observed, set) {
        return unproven(observed, set.replicas..replicas).unwrap_or_else(|| scaled(set, replicas, Reason::ScalingOut));
    }
    let clusters = observed.capabilities.clustering && observed.formed;
    if clusters && members.is_none() {
        // Formation says what is missing.
        return Plan::Done;
    }
    if let Some(members) = &members {
        let staying = |claim: &&Claim, ordinal| claim.empty_since.is_some() && members.voters.contains(&ordinal);
        let mut stays = observed.brokers.iter().filter(|broker| broker.ordinal < wanted);
        if let Some(claim) = stays.find_map(|b| b.claim.as_ref().filter(|claim| staying(claim, b.ordinal))) {
            let message = format!("{} stays and is to be filled again", claim.name);
            return noted(claim, None, Reason::ScalingOut, message);
        }
        if !observed.moves.is_empty() {
            return carry_on(guards, observed, members);
        }
    }
    if set.replicas < wanted {
        if let Some(plan) = unproven(observed, set.replicas..wanted) {
            return plan;
        }
        let guarded = if clusters { refused(guards, observed) } else { None };
        return guarded.unwrap_or_else(|| scaled(set, wanted, Reason::ScalingOut));
    }
    let Some(members) = members else { return Plan::Done };
    match (0..wanted).find(|ordinal| !members.voters.contains(ordinal)) {
        Some(ordinal) => join(guards, observed, set, &members, ordinal),
        None if observed.rebalance => rebalanced(guards, observed),
        None => Plan::Done,
    }
}

/// Whether the broker was there and was not taken away by us.
fn belongs(observed: &Observation, ordinal: u32) -> bool {
    if let Some(members) = members(observed) {
        return members.has(ordinal);
    }
    // Nobody leads, as too many are away: then anybody's word will do, for a pod alone changes no membership.
    let is_told_of = observed.brokers.iter().any(|broker| match own_view(observed, broker.ordinal) {
        Some(Membership::Of { voters, learners, .. }) => voters.contains(&ordinal) || learners.contains(&ordinal),
        Some(Membership::Alone | Membership::Unknown) | None => false,
    });
    let was_there = claim(observed, ordinal).is_some_and(|claim| claim.empty_since.is_none());
    let none_is =
        observed.stateful_set.as_ref().is_some_and(|set| set.replicas == 0) && claim(observed, ordinal).is_none();
    is_told_of || (ordinal < observed.replicas && (was_there || none_is))
}

/// How many brokers the StatefulSet should at least have because they belong to it: somebody scaled it by hand.
fn restored(observed: &Observation, set: &StatefulSet) -> Option<u32> {
    let is_there = |broker: &&Broker| match &broker.claim {
        None => broker.ordinal < observed.replicas,
        Some(claim) => claim.ours && !claim.deleting,
    };
    // A member without a vote is taken out by way of one, for which it has to be there.
    let learns = |ordinal: u32| members(observed).is_some_and(|members| members.learners.contains(&ordinal));
    let gone = observed.brokers.iter().filter(|broker| broker.ordinal >= set.replicas);
    let back = gone.filter(|broker| is_there(broker) || learns(broker.ordinal));
    back.map(|broker| broker.ordinal).filter(|ordinal| belongs(observed, *ordinal)).map(|ordinal| ordinal + 1).max()
}

/// A volume that a new broker would find and that is not to be joined silently: of another cluster, or of a broker that
/// left. What such a broker once knew and held is of the past.
fn unproven(observed: &Observation, ordinals: std::ops::Range<u32>) -> Option<Plan> {
    if let Some(broker) = ordinals.clone().find(|ordinal| has_pod(observed, *ordinal)) {
        return Some(waiting(Reason::ScalingOut, format!("broker {broker} is still stopping")));
    }
    if let Some(step) = discarded(observed) {
        return Some(Plan::next(step, Reason::ScalingOut, "the volume of a broker that left is deleted"));
    }
    let claims = || ordinals.clone().filter_map(|ordinal| Some((ordinal, claim(observed, ordinal)?)));
    if let Some((_, going)) = claims().find(|(_, claim)| claim.deleting) {
        let message = format!("volume claim {} is still being deleted", going.name);
        return Some(waiting(Reason::WaitingForDeletion, message));
    }
    // A member's volume is no leftover: it is as far as the member was when somebody took its pod away.
    let is_stale =
        |(ordinal, claim): &(u32, &Claim)| !claim.ours || (claim.empty_since.is_some() && !belongs(observed, *ordinal));
    let stale: Vec<&Claim> = claims().filter(is_stale).map(|(_, claim)| claim).collect();
    if stale.is_empty() {
        return None;
    }
    let names: Vec<&str> = stale.iter().map(|claim| claim.name.as_str()).collect();
    let names = names.join(", ");
    if !observed.adopt_volumes {
        return Some(Plan::broken(
            Reason::StaleVolume,
            format!(
                "volume claims {names} are of brokers that left, or nothing proves that they are this cluster's; delete them, or adopt them with the annotation rivven.io/adopt-volumes: \"true\""
            ),
        ));
    }
    let adopt = |claim: &Claim| {
        let (claim, uid) = (claim.name.clone(), claim.uid.clone());
        Step::AdoptVolume { claim, uid }
    };
    let take_off = |claim: &Claim| {
        let (claim, uid) = (claim.name.clone(), claim.uid.clone());
        Step::NoteEmpty { claim, uid, since: None }
    };
    let steps = stale.iter().map(|claim| if claim.ours { take_off(claim) } else { adopt(claim) }).collect();
    let message = format!("volume claims {names} are adopted");
    Some(Plan::Next(steps, Blocked { reason: Reason::ScalingOut, on: None, message }))
}

/// Brings one broker into the cluster: as a learner until it has what the others know, then with a vote.
///
/// A call whose answer was lost, or is late as there is much to catch up with, is never made again: the leader tells of
/// the learner from the moment that the call takes effect, and the learner of itself when it has caught up.
fn join(
    guards: &[Guard<Observation>],
    observed: &Observation,
    set: &StatefulSet,
    members: &Members<'_>,
    ordinal: u32,
) -> Plan {
    let own = own_view(observed, ordinal);
    let Some(own) = own else {
        return waiting(Reason::ScalingOut, format!("broker {ordinal} is to join and has not answered yet"));
    };
    if members.learners.contains(&ordinal) {
        return promote(guards, observed, members, ordinal, Reason::ScalingOut);
    }
    let note = claim(observed, ordinal).filter(|claim| claim.empty_since.is_some());
    let is_new = matches!(own, Membership::Unknown | Membership::Alone);
    if !is_new && !observed.adopt_volumes && is_empty(observed, ordinal) {
        // It left a moment ago and is wanted again: its leaving is finished, and it begins anew.
        if note.is_some() && ordinal + 1 == set.replicas {
            return refused(guards, observed).unwrap_or_else(|| scaled(set, ordinal, Reason::ScalingOut));
        }
        return Plan::broken(
            Reason::StaleVolume,
            format!(
                "broker {ordinal} has the volume of a broker that left; delete its claim, or adopt it with the annotation rivven.io/adopt-volumes: \"true\""
            ),
        );
    }
    if let Some(claim) = note {
        return noted(claim, None, Reason::ScalingOut, format!("{} is to be filled", claim.name));
    }
    let message = format!("broker {ordinal} answers and is brought into the cluster of {}", members.voters.len());
    refused(guards, observed).unwrap_or_else(|| Plan::next(Step::AddLearner { ordinal }, Reason::ScalingOut, message))
}

/// Gives a learner its vote once it has caught up: it knows then that it is one.
fn promote(
    guards: &[Guard<Observation>],
    observed: &Observation,
    members: &Members<'_>,
    ordinal: u32,
    reason: Reason,
) -> Plan {
    let knows = |view: &Membership| match view {
        Membership::Of { voters, learners, .. } => learners.contains(&ordinal) || voters.contains(&ordinal),
        Membership::Alone | Membership::Unknown => false,
    };
    if !own_view(observed, ordinal).is_some_and(knows) {
        return waiting(reason, format!("broker {ordinal} learns what the others know"));
    }
    let voters = members.voters.iter().copied().chain([ordinal]).collect();
    let message = format!("broker {ordinal} has caught up and is given a vote");
    refused(guards, observed).unwrap_or_else(|| Plan::next(Step::ChangeVoters { voters }, reason, message))
}

/// Takes the noted moves a step further: each replica is added first, and the old one dropped when all others are in sync.
/// Where a replica cannot go any more, it is taken back.
fn carry_on(guards: &[Guard<Observation>], observed: &Observation, members: &Members<'_>) -> Plan {
    let Some(all) = known(observed) else {
        return waiting(
            Reason::PartitionsUnknown,
            "replicas are on the move, and where they are is not known".to_owned(),
        );
    };
    // Of the batch itself, replicas may be behind: they are on their way.
    let others = |p: &&Partition| !observed.moves.iter().any(|m| m.topic == p.topic && m.partition == p.id);
    let settled: Vec<Partition> = all.iter().filter(others).cloned().collect();
    let apart = Observation { partitions: Partitions::Known(settled.into()), ..observed.clone() };
    let held = refused(guards, &apart);
    let mut steps = Vec::new();
    let mut pending = Vec::new();
    for moved in observed.moves.iter().take(BATCH) {
        let at = |partition: &&Partition| partition.topic == moved.topic && partition.id == moved.partition;
        let Some(partition) = all.iter().find(at) else { continue };
        let replicas = &partition.replicas;
        let may_go = moved.to < observed.replicas && members.voters.contains(&moved.to);
        let copies = moved.copies as usize;
        let next = match (replicas.contains(&moved.from), replicas.contains(&moved.to)) {
            (true, false) if may_go && replicas.len() == copies => {
                if held.is_some() {
                    pending.push(partition);
                    continue;
                }
                replicas.iter().copied().chain([moved.to]).collect()
            }
            // With as many as it should have, both belong there: the note is of the past, or somebody else's.
            (true, true) if replicas.len() > copies => {
                let goes = if may_go { moved.from } else { moved.to };
                if !is_safe_without(partition, goes) {
                    pending.push(partition);
                    continue;
                }
                replicas.iter().copied().filter(|replica| *replica != goes).collect()
            }
            _ => continue,
        };
        pending.push(partition);
        steps.push(Step::Reassign { topic: moved.topic.to_string(), partition: moved.partition, replicas: next });
    }
    let message = || format!("replicas of {} are on the move", some(&pending));
    match (steps.is_empty(), pending.is_empty()) {
        (false, _) => Plan::Next(steps, Blocked { reason: Reason::ReplicasMoving, on: None, message: message() }),
        (true, false) => match held {
            Some(held) if pending.iter().all(|partition| !partition.is_behind(None)) => held,
            _ => waiting(Reason::ReplicasMoving, message()),
        },
        (true, true) => {
            let message = "the replicas have moved; the note of it is taken off";
            Plan::next(Step::NoteMoves { moves: Vec::new() }, Reason::ReplicasMoving, message)
        }
    }
}

/// Whether a replica may be dropped: all that are left hold every acknowledged record, and they are enough.
///
/// All of them, as the broker chooses the partition's next leader among them when the one that goes leads.
fn is_safe_without(partition: &Partition, goes: u32) -> bool {
    let left = partition.replicas.iter().filter(|replica| **replica != goes);
    let in_sync = left.clone().filter(|replica| partition.in_sync.contains(replica)).count();
    in_sync == left.count() && in_sync > 0 && in_sync >= partition.min_in_sync as usize
}

/// The next replicas to move so that no broker holds two more than another. Done: there are none.
fn rebalanced(guards: &[Guard<Observation>], observed: &Observation) -> Plan {
    let Some(all) = known(observed) else { return Plan::Done };
    let mut loads = loads(observed, all);
    let mut moves: Vec<Move> = Vec::new();
    while moves.len() < BATCH {
        let Some(((from, to), partition)) = evened(&loads, all, &moves) else { break };
        for (broker, change) in [(from, -1), (to, 1)] {
            loads.entry(broker).and_modify(|load| *load += change);
        }
        moves.push(noted_move(partition, from, to));
    }
    if moves.is_empty() {
        return Plan::Done;
    }
    let message = format!("{} replicas are to move to brokers that hold fewer", moves.len());
    refused(guards, observed).unwrap_or_else(|| Plan::next(Step::NoteMoves { moves }, Reason::ReplicasMoving, message))
}

/// How many replicas each wanted broker holds.
fn loads(observed: &Observation, all: &[Partition]) -> BTreeMap<u32, i64> {
    let mut loads: BTreeMap<u32, i64> = (0..observed.replicas).map(|ordinal| (ordinal, 0)).collect();
    for replica in all.iter().flat_map(|partition| &partition.replicas) {
        loads.entry(*replica).and_modify(|load| *load += 1);
    }
    loads
}

/// A move from a broker that holds much to one that holds at least two fewer: the largest difference first, and no leader
/// if there is another.
fn evened<'a>(loads: &BTreeMap<u32, i64>, all: &'a [Partition], moves: &[Move]) -> Option<((u32, u32), &'a Partition)> {
    let mut pairs: Vec<(i64, u32, u32)> = Vec::new();
    for (from, much) in loads {
        pairs.extend(loads.iter().filter(|(_, few)| much - **few > 1).map(|(to, few)| (few - much, *from, *to)));
    }
    pairs.sort_unstable();
    let moves_already = |p: &Partition| moves.iter().any(|m| m.topic == p.topic && m.partition == p.id);
    pairs.into_iter().find_map(|(_, from, to)| {
        let fits = |p: &&Partition| p.replicas.contains(&from) && !p.replicas.contains(&to) && !moves_already(p);
        let partition = all.iter().filter(fits).min_by_key(|partition| partition.leader == Some(from))?;
        Some(((from, to), partition))
    })
}

fn noted_move(partition: &Partition, from: u32, to: u32) -> Move {
    let copies = u32::try_from(partition.replicas.len()).unwrap_or(u32::MAX);
    Move { topic: partition.topic.clone(), partition: partition.id, from, to, copies }
}

/// What is to be done so that no broker is there that is not wanted.
pub fn plan_in(observed: &Observation, now: DateTime<Utc>) -> Plan {
    plan_in_with(GUARDS, observed, now)
}

/// The same under `guards`: what a test takes out, the plan must miss.
pub fn plan_in_with(guards: &[Guard<Observation>], observed: &Observation, now: DateTime<Utc>) -> Plan {
    let Some(set) = &observed.stateful_set else { return Plan::Done };
    if !observed.capabilities.clustering || !observed.formed {
        return unformed(observed, set);
    }
    let Some(members) = members(observed) else { return Plan::Done };
    if let Some(step) = discarded(observed) {
        return Plan::next(step, Reason::ScalingIn, "the volume of a broker that left is deleted");
    }
    let Some(ordinal) = leaving(observed) else { return Plan::Done };
    if !observed.moves.is_empty() {
        return waiting(Reason::ReplicasMoving, "replicas are on the move".to_owned());
    }
    if let Some(plan) = refused(guards, observed) {
        return plan;
    }
    let Some(all) = known(observed) else {
        return waiting(Reason::PartitionsUnknown, "what the brokers hold is not known".to_owned());
    };
    let claim = claim(observed, ordinal);
    if !is_empty(observed, ordinal) {
        return match claim.filter(|claim| claim.empty_since.is_some()) {
            Some(claim) => noted(claim, None, Reason::ScalingIn, format!("broker {ordinal} holds replicas again")),
            None => emptied(observed, all, &members, ordinal),
        };
    }
    if let Some(plan) = claim.and_then(|claim| seen_empty(claim, ordinal, members.has(ordinal), now)) {
        return plan;
    }
    if members.has(ordinal) {
        return left(guards, observed, &members, ordinal);
    }
    if ordinal < set.replicas {
        return scaled(set, ordinal, Reason::ScalingIn);
    }
    waiting(Reason::ScalingIn, format!("broker {ordinal} has left and is stopping"))
}

/// Brokers that are no cluster: each that is not wanted just stops. Their volumes stay, as nobody knows what is in them.
fn unformed(observed: &Observation, set: &StatefulSet) -> Plan {
    if set.replicas <= observed.replicas {
        return Plan::Done;
    }
    // The founder is told before anybody else, so as long as it knows of no members nobody does.
    let is_alone = matches!(own_view(observed, formation::FOUNDER), Some(Membership::Unknown | Membership::Alone));
    if !observed.capabilities.clustering || is_alone {
        return scaled(set, observed.replicas, Reason::ScalingIn);
    }
    let message = "brokers are not wanted any more, and whether they are members of a cluster is not known";
    waiting(Reason::ScalingIn, message.to_owned())
}

/// The next batch of replicas that go away from the broker.
fn emptied(observed: &Observation, all: &[Partition], members: &Members<'_>, ordinal: u32) -> Plan {
    let mut loads = loads(observed, all);
    let (mut moves, mut stuck, mut crowded) = (Vec::new(), Vec::new(), Vec::new());
    for partition in all.iter().filter(|partition| partition.replicas.contains(&ordinal)) {
        if !is_well(observed, ordinal) && !partition.in_sync.iter().any(|replica| *replica != ordinal) {
            stuck.push(partition);
            continue;
        }
        let takes = |broker: &u32| members.voters.contains(broker) && !partition.replicas.contains(broker);
        let least = loads.iter().filter(|(broker, _)| takes(broker)).min_by_key(|(broker, load)| (**load, **broker));
        let Some(to) = least.map(|(broker, _)| *broker) else {
            crowded.push(partition);
            continue;
        };
        loads.entry(to).and_modify(|load| *load += 1);
        moves.push(noted_move(partition, ordinal, to));
        if moves.len() == BATCH {
            break;
        }
    }
    if !moves.is_empty() {
        let message = format!("{} replicas are to move away from broker {ordinal}", moves.len());
        return Plan::next(Step::NoteMoves { moves }, Reason::ReplicasMoving, message);
    }
    if !stuck.is_empty() {
        return Plan::broken(
            Reason::LastReplica,
            format!("broker {ordinal} is down and has the only in-sync replica of {}", some(&stuck)),
        );
    }
    Plan::broken(
        Reason::ScaleRefused,
        format!(
            "{} of broker {ordinal} have a replica on each of the {} brokers that are to stay: set replicas to more, or give the topics fewer replicas",
            some(&crowded),
            observed.replicas
        ),
    )
}

/// Notes that a broker is empty, and waits until it was so for long enough. `None`: it was.
fn seen_empty(claim: &Claim, ordinal: u32, is_member: bool, now: DateTime<Utc>) -> Option<Plan> {
    if claim.deleting {
        return None;
    }
    let note =
        |claim| noted(claim, Some(now), Reason::ScalingIn, format!("broker {ordinal} is empty; that is being noted"));
    let Some(since) = claim.empty_since else { return Some(note(claim)) };
    let Ok(for_long) = now.signed_duration_since(since).to_std() else {
        // Of the future: a clock was put back, or somebody wrote it.
        return Some(note(claim));
    };
    // Topics are placed on members only.
    let left = EMPTY_FOR.checked_sub(for_long).filter(|left| is_member && !left.is_zero())?;
    let message = format!("broker {ordinal} is empty and is looked at once more before it leaves");
    Some(Plan::wait(Reason::ScalingIn, message, Some(left)))
}

/// Takes a member out of the cluster.
fn left(guards: &[Guard<Observation>], observed: &Observation, members: &Members<'_>, ordinal: u32) -> Plan {
    let stays = |other: &u32| *other < observed.replicas && is_well(observed, *other);
    let Some(heir) = members.voters.iter().copied().find(stays) else {
        return waiting(Reason::ScalingIn, format!("no other broker could lead without broker {ordinal}"));
    };
    if members.leader == ordinal {
        let message = format!("broker {ordinal} leads the cluster; it hands over to broker {heir}");
        return Plan::next(Step::TransferController { to: heir }, Reason::ScalingIn, message);
    }
    if !members.voters.contains(&ordinal) {
        // Members without a vote cannot be taken out but by way of one (observed on the broker's Raft).
        return promote(guards, observed, members, ordinal, Reason::ScalingIn);
    }
    let voters = members.voters.iter().copied().filter(|voter| *voter != ordinal).collect();
    let message = format!("broker {ordinal} is empty and leaves the cluster");
    Plan::next(Step::ChangeVoters { voters }, Reason::ScalingIn, message)
}

/// The volume of a broker that left and stopped, if the policy is to delete it: proven to be ours, and noted and seen to
/// be empty.
fn discarded(observed: &Observation) -> Option<Step> {
    let members = members(observed)?;
    let set = observed.stateful_set.as_ref()?;
    if observed.scale_in != ReclaimPolicy::Delete {
        return None;
    }
    let has_left =
        |broker: &&Broker| broker.ordinal >= set.replicas && broker.pod.is_none() && !members.has(broker.ordinal);
    let doomed = observed.brokers.iter().filter(has_left).find_map(|broker| {
        let claim = broker.claim.as_ref()?;
        (claim.ours && !claim.deleting && claim.empty_since.is_some() && is_empty(observed, broker.ordinal))
            .then_some(claim)
    })?;
    Some(Step::DeleteVolume { claim: doomed.name.clone(), uid: doomed.uid.clone() })
}
