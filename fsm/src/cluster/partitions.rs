//! Where the records are, and what the restart of a broker would take away from them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::observation::Observation;
use super::rollout;
use crate::decision::Blocked;
use crate::reason::Reason;

/// The ordinal of a replica on a node that is no broker of the StatefulSet. It is in no restart's way.
pub const ELSEWHERE: u32 = u32::MAX;

/// What the brokers' metadata says of all partitions. Shared, for it is as large as the cluster's topics are many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Partitions {
    /// The brokers replicate nothing: each record lives on one broker.
    Unreplicated,
    /// Could not be found out. Unknown is never "in sync".
    Unknown {
        /// Why, for a person.
        why: String,
    },
    /// Read from a broker.
    Known(Arc<[Partition]>),
}

/// One partition. Brokers are named by ordinal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its number in the topic.
    pub id: u32,
    /// Who serves reads and writes. `None`: nobody does.
    pub leader: Option<u32>,
    /// Who should hold it, each once.
    pub replicas: Vec<u32>,
    /// Who of them holds every acknowledged record, each once.
    pub in_sync: Vec<u32>,
    /// `min.insync.replicas`: with fewer in sync, writes are refused.
    pub min_in_sync: u32,
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.id)
    }
}

impl Partition {
    /// It has more replicas than it needs, so one of them may be away. Where it has not, nobody can keep it up.
    pub fn can_spare_one(&self) -> bool {
        self.replicas.len() > self.min_in_sync as usize
    }

    /// Whether a replica is not in sync, that of the broker `but` left out.
    pub fn is_behind(&self, but: Option<u32>) -> bool {
        // Nearly always all are, and there are thousands of partitions.
        self.in_sync.len() < self.replicas.len()
            && self.replicas.iter().any(|replica| Some(*replica) != but && !self.in_sync.contains(replica))
    }
}

impl Partitions {
    /// Those for which `wanted` holds.
    pub(super) fn matching(&self, wanted: impl Fn(&Partition) -> bool) -> Vec<&Partition> {
        match self {
            Self::Known(all) => all.iter().filter(|partition| wanted(partition)).collect(),
            Self::Unreplicated | Self::Unknown { .. } => Vec::new(),
        }
    }

    /// What keeps the cluster from being as wanted, the worst first.
    pub fn trouble(&self) -> Option<Blocked> {
        let blocked = |reason, message| Some(Blocked { reason, on: None, message });
        if let Self::Unknown { why } = self {
            return blocked(Reason::PartitionsUnknown, format!("the state of the partitions is not known: {why}"));
        }
        let mut behind = self.matching(|partition| partition.leader.is_none() || partition.is_behind(None));
        let offline: Vec<&Partition> = behind.extract_if(.., |partition| partition.leader.is_none()).collect();
        if !offline.is_empty() {
            return blocked(Reason::PartitionOffline, format!("no broker leads {}", some(&offline)));
        }
        if behind.is_empty() {
            return None;
        }
        blocked(Reason::ReplicaOutOfSync, format!("replicas are catching up in {}", some(&behind)))
    }

    /// What is out of service while the broker restarts, because no other replica may stand in. Empty if nothing is.
    pub fn out_of_service_without(&self, ordinal: u32) -> String {
        let lost = self.matching(|p| !p.can_spare_one() && p.replicas.contains(&ordinal));
        if lost.is_empty() { String::new() } else { some(&lost) }
    }
}

/// How many partitions get another leader between two looks.
const ELECTED_AT_ONCE: usize = 100;

/// A partition and who is to lead it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its number in the topic.
    pub partition: u32,
    /// The broker that is to lead it.
    pub to: u32,
}

/// Other leaders for what broker `from` leads, from the in-sync replicas on `heirs`, those first that lead the fewest. A
/// partition that none of them may lead stays as it is.
pub(super) fn new_leaders(partitions: &Partitions, from: u32, heirs: &[u32]) -> Vec<Leadership> {
    let mut load: BTreeMap<u32, usize> = heirs.iter().map(|heir| (*heir, 0)).collect();
    for partition in partitions.matching(|_| true) {
        if let Some(leads) = partition.leader.and_then(|leader| load.get_mut(&leader)) {
            *leads += 1;
        }
    }
    let mut leaders = Vec::new();
    for partition in partitions.matching(|p| p.leader == Some(from)) {
        let able = heirs.iter().filter(|heir| partition.in_sync.contains(heir));
        let Some(to) = able.copied().min_by_key(|heir| (load.get(heir), *heir)) else { continue };
        if let Some(leads) = load.get_mut(&to) {
            *leads += 1;
        }
        leaders.push(Leadership { topic: Arc::clone(&partition.topic), partition: partition.id, to });
        if leaders.len() == ELECTED_AT_ONCE {
            break;
        }
    }
    leaders
}

/// The first few by name, for a person.
pub(super) fn some(partitions: &[&Partition]) -> String {
    const NAMED: usize = 3;
    let named: Vec<String> = partitions.iter().take(NAMED).map(ToString::to_string).collect();
    let more = partitions.len().saturating_sub(NAMED);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", named.join(", "))
}

/// Guard: nobody knows what the restart would take away.
pub(super) fn not_known(observed: &Observation) -> Option<String> {
    let (broker, _) = rollout::next(observed)?;
    match &observed.partitions {
        Partitions::Unknown { why } if !rollout::is_known_down(broker) => {
            Some(format!("the state of the partitions is not known: {why}"))
        }
        _ => None,
    }
}

/// Guard: the broker before, or any other, is not back in every in-sync set.
///
/// With all others in sync, a partition that can spare a replica keeps at least `min.insync.replicas` without this one.
pub(super) fn others_behind(observed: &Observation) -> Option<String> {
    let (broker, _) = rollout::next(observed)?;
    // What is down takes nothing more away by its restart, and may be the replica that is missing.
    if rollout::is_known_down(broker) {
        return None;
    }
    let behind = observed.partitions.matching(|p| p.is_behind(Some(broker.ordinal)));
    (!behind.is_empty()).then(|| format!("replicas are catching up in {}", some(&behind)))
}
