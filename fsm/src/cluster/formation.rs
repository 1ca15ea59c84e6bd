//! How brokers become one cluster: each starts alone and knows of no other until one of them is told, once, who the
//! first members are. What makes it "once" is not a memory of the operator but what the brokers themselves know.

use std::collections::BTreeSet;

use super::decide::{SILENT_RETRY, Step};
use super::observation::{Answer, Broker, Observation};
use super::plan::Plan;
use super::scale;
use crate::guard::{Guard, refusals};
use crate::reason::Reason;

/// The broker that is told. Always the same one: two calls, of two operators or of one that lost a reply, then meet at
/// one broker, and the second is refused there.
pub const FOUNDER: u32 = 0;

/// What a broker says of the cluster it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Membership {
    /// It runs alone and keeps none.
    Alone,
    /// It knows of no member: it was never told, or its volume is new.
    Unknown,
    /// It knows the members.
    Of {
        /// The voters among this cluster's brokers, by ordinal.
        voters: BTreeSet<u32>,
        /// The members among them that have no vote, by ordinal: on their way to one.
        learners: BTreeSet<u32>,
        /// Node ids of members that are no brokers of this cluster.
        foreign: Vec<String>,
    },
}

/// The guards on telling the first members.
pub const GUARDS: &[Guard<Observation>] = &[
    Guard { reason: Reason::StaleVolume, refuses: foreign_members },
    Guard { reason: Reason::BrokersStarting, refuses: not_all_answer },
    Guard { reason: Reason::Forming, refuses: already_told },
    Guard { reason: Reason::MembershipLost, refuses: formed_before },
];

/// How far the brokers are, under [`GUARDS`]. Done: there is nothing to form, or every broker is a voter of one cluster
/// that has a leader.
pub fn plan(observed: &Observation) -> Plan {
    plan_with(GUARDS, observed)
}

/// The same under `guards`: what a test takes out, the plan must miss.
pub fn plan_with(guards: &[Guard<Observation>], observed: &Observation) -> Plan {
    if !observed.capabilities.clustering {
        return Plan::Done;
    }
    let waiting = |reason, message: String| Plan::wait(reason, message, Some(SILENT_RETRY));
    let refused = refusals(guards, observed);
    if let Some(voters) = scale::voters(observed).filter(|_| observed.formed) {
        let stale = refused.into_iter().find(|refusal| refusal.reason == Reason::StaleVolume);
        return match (stale, not_agreed(observed, voters)) {
            (Some(stale), _) => Plan::broken(stale.reason, stale.message),
            (None, Some((reason, message))) => waiting(reason, message),
            (None, None) => Plan::Done,
        };
    }
    let Some(first) = refused.into_iter().next() else {
        let message = format!("all {} brokers answer; they are being made one cluster", observed.replicas);
        return Plan::next(Step::Bootstrap { founder: FOUNDER }, Reason::Forming, message);
    };
    if matches!(first.reason, Reason::StaleVolume | Reason::MembershipLost) {
        return Plan::broken(first.reason, first.message);
    }
    if first.reason != Reason::Forming {
        return waiting(first.reason, first.message);
    }
    // Somebody was told. Every broker must be a voter in everybody's eyes, and one must lead.
    if let Some(message) = not_all_voters(observed) {
        let reason = if observed.formed { Reason::MembershipDiffers } else { Reason::Forming };
        return waiting(reason, message);
    }
    if !wanted(observed).any(|broker| matches!(broker.answer, Answer::Said { leader: true, .. })) {
        return waiting(Reason::NoLeader, "no broker leads the cluster".to_owned());
    }
    if observed.formed {
        return Plan::Done;
    }
    Plan::next(Step::MarkFormed, Reason::Forming, "the brokers are one cluster; that is being noted")
}

/// Once they were formed: whether every broker that is wanted and has a vote, as the controller's leader says, says the
/// same. A wanted broker without a vote, and a vote of one that is not wanted, are for [`scale`] to change.
fn not_agreed(observed: &Observation, voters: &BTreeSet<u32>) -> Option<(Reason, String)> {
    voters.range(..observed.replicas).find_map(|ordinal| match observed.broker(*ordinal).and_then(membership) {
        None => Some((Reason::BrokersStarting, format!("broker {ordinal} has not answered yet"))),
        Some(Membership::Of { voters: known, .. }) if known == voters => None,
        Some(Membership::Of { .. }) => {
            Some((Reason::MembershipDiffers, format!("broker {ordinal} knows other voters than the leader")))
        }
        Some(Membership::Alone | Membership::Unknown) => {
            Some((Reason::MembershipDiffers, format!("broker {ordinal} does not know the members yet")))
        }
    })
}

/// The brokers that should be there. One that was not looked at is missing.
fn wanted(observed: &Observation) -> impl Iterator<Item = &Broker> {
    (0..observed.replicas).filter_map(|ordinal| observed.broker(ordinal))
}

fn membership(broker: &Broker) -> Option<&Membership> {
    match &broker.answer {
        Answer::Said { membership, .. } => Some(membership),
        Answer::NotAsked | Answer::Silent { .. } => None,
    }
}

/// Closes the race of a broker that comes late: told without it, the others would go on as a cluster of fewer.
fn not_all_answer(observed: &Observation) -> Option<String> {
    let missing: Vec<String> = (0..observed.replicas)
        .filter(|ordinal| observed.broker(*ordinal).and_then(membership).is_none())
        .map(|ordinal| ordinal.to_string())
        .collect();
    match missing.as_slice() {
        [] => None,
        [one] => Some(format!("broker {one} has not answered yet")),
        several => Some(format!("brokers {} have not answered yet", several.join(", "))),
    }
}

/// Closes the race of a lost reply, of an operator that ended during the call, and of two operators: whoever was told
/// tells the others, and nobody is told twice.
fn already_told(observed: &Observation) -> Option<String> {
    let told = wanted(observed).find(|broker| matches!(membership(broker), Some(Membership::Of { .. })))?;
    Some(format!("broker {} knows the members and tells the others", told.ordinal))
}

/// A cluster that was formed and of which no broker knows has lost its volumes. A new one in its place would hide that.
fn formed_before(observed: &Observation) -> Option<String> {
    observed.formed.then(|| {
        "this cluster was formed before, and no broker knows of it any more: all volumes are new or empty".to_owned()
    })
}

/// A volume from elsewhere: its broker would bring members, and records, that are not this cluster's.
fn foreign_members(observed: &Observation) -> Option<String> {
    wanted(observed).find_map(|broker| match membership(broker) {
        Some(Membership::Of { foreign, .. }) if !foreign.is_empty() => Some(format!(
            "broker {} is in a cluster with {}, which is none of this cluster's brokers: its volume is another cluster's",
            broker.ordinal,
            foreign.join(", ")
        )),
        _ => None,
    })
}

fn not_all_voters(observed: &Observation) -> Option<String> {
    wanted(observed).find_map(|broker| {
        let Some(Membership::Of { voters, .. }) = membership(broker) else {
            return Some(format!("broker {} does not know the members yet", broker.ordinal));
        };
        let eyes = format!("in the eyes of broker {}", broker.ordinal);
        let missing = (0..observed.replicas).find(|ordinal| !voters.contains(ordinal));
        let missing = missing.map(|ordinal| format!("broker {ordinal} is not a voter {eyes}"));
        let surplus = || voters.iter().find(|ordinal| **ordinal >= observed.replicas);
        missing.or_else(|| Some(format!("broker {} is a voter and not wanted {eyes}", surplus()?)))
    })
}
