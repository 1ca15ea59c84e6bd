//! One replica of a partition: its log, its role, and the rules of replication.
//!
//! A record is acknowledged when it is below the high watermark, which is the least that any in-sync replica has on
//! disk. A leader cannot raise it alone once it was deposed: the in-sync set it counts is never smaller than the real
//! one, and members of the real one have the new leader's epoch and no longer fetch with the old.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::log::{Log, Record};
use crate::metadata::command::{Command, PartitionId};
use crate::metadata::state::Partition;

/// A key and a value.
type Entry = (Option<Vec<u8>>, Vec<u8>);

/// Why a replica does not do what was asked.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It does not lead, or not in this epoch.
    NotLeader,
    /// So many are in sync, so many are needed.
    NotEnoughReplicas(usize, usize),
    /// Its disk.
    Disk(io::Error),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader => write!(f, "it does not lead, or not in this epoch"),
            Self::NotEnoughReplicas(have, need) => write!(f, "{have} in-sync replicas, {need} are needed"),
            Self::Disk(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// What a follower asks of a leader.
pub(super) struct Fetch<'a> {
    pub(super) node: &'a str,
    pub(super) epoch: u64,
    /// The version of the partition's metadata that the follower has applied.
    pub(super) version: u64,
    /// Everything before it is on the follower's disk.
    pub(super) offset: u64,
}

/// What a leader knows of a follower.
struct Progress {
    end: u64,
    version: u64,
    /// When it last had all that the leader had.
    caught_up: Instant,
    fetched: Instant,
    /// What the leader had at that time.
    end_then: u64,
}

struct Leader {
    epoch: u64,
    /// What was there when the epoch began. A high watermark below it may be too low to go by.
    epoch_start: u64,
    /// As applied from the metadata.
    metadata: Partition,
    min_isr: usize,
    /// A proposed in-sync set with the version it was proposed for. Until that version is over it may be the real one.
    proposed: Option<(u64, BTreeSet<String>)>,
    followers: BTreeMap<String, Progress>,
}

enum Role {
    Idle,
    Follower,
    Leader(Leader),
}

struct State {
    log: Log,
    role: Role,
    epoch: u64,
    version: u64,
    high_watermark: u64,
    /// Nobody is told of records before it.
    hidden: u64,
}

/// A replica.
pub(crate) struct Replica {
    id: PartitionId,
    me: String,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl Replica {
    pub(super) fn open(id: PartitionId, me: &str, path: &Path) -> io::Result<Self> {
        let log = Log::open(path)?;
        let state = State { log, role: Role::Idle, epoch: 0, version: 0, high_watermark: 0, hidden: 0 };
        Ok(Self { id, me: me.to_owned(), state: Mutex::new(state), changed: watch::Sender::new(()) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of each change of the log, the high watermark or the role.
    pub(super) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Takes the role that the metadata give.
    pub(super) fn apply(&self, partition: &Partition, min_isr: usize) {
        let mut state = self.state();
        let state = &mut *state;
        state.version = partition.version;
        let leads = partition.leader.as_deref() == Some(&self.me);
        match &mut state.role {
            Role::Leader(leader) if leads && state.epoch == partition.leader_epoch => {
                if leader.proposed.as_ref().is_some_and(|(version, _)| *version < partition.version) {
                    leader.proposed = None;
                }
                leader.metadata.clone_from(partition);
                leader.min_isr = min_isr;
                leader.followers.retain(|node, _| partition.replicas.contains(node));
            }
            role if leads => {
                *role = Role::Leader(Leader {
                    epoch: partition.leader_epoch,
                    epoch_start: state.log.end(),
                    metadata: partition.clone(),
                    min_isr,
                    proposed: None,
                    followers: BTreeMap::new(),
                });
            }
            role => *role = if partition.leader.is_some() { Role::Follower } else { Role::Idle },
        }
        state.epoch = partition.leader_epoch;
        if let Role::Leader(leader) = &mut state.role {
            for node in partition.replicas.iter().filter(|node| **node != self.me) {
                // It is given the time that any follower has.
                leader.followers.entry(node.clone()).or_insert_with(|| Progress::unknown(Instant::now()));
            }
        }
        self.advance(state);
    }

    /// Raises the high watermark to what every in-sync replica has.
    fn advance(&self, state: &mut State) {
        if let Role::Leader(leader) = &state.role {
            let proposed = leader.proposed.iter().flat_map(|(_, isr)| isr);
            let everywhere = leader.metadata.isr.iter().chain(proposed).filter(|node| **node != self.me);
            let ends = everywhere.map(|node| leader.followers.get(node).map_or(0, |follower| follower.end));
            let least = ends.min().unwrap_or(u64::MAX).min(state.log.end());
            state.high_watermark = state.high_watermark.max(least);
        }
        self.changed.send_replace(());
    }

    /// Takes records as the leader and returns the first one's offset when all are acknowledged.
    pub(crate) async fn publish(&self, entries: Vec<Entry>, timestamp: i64) -> Result<u64, Refusal> {
        let mut changed = self.watch();
        let (epoch, base, end) = self.append(entries, timestamp)?;
        loop {
            if let Some(done) = self.acknowledged(epoch, end) {
                return done.map(|()| base);
            }
            changed.changed().await.map_err(|_| Refusal::NotLeader)?;
        }
    }

    fn append(&self, entries: Vec<Entry>, timestamp: i64) -> Result<(u64, u64, u64), Refusal> {
        let mut state = self.state();
        let state = &mut *state;
        let Role::Leader(leader) = &state.role else { return Err(Refusal::NotLeader) };
        leader.enough()?;
        let (epoch, base) = (leader.epoch, state.log.end());
        let numbered = (base..).zip(entries);
        let records: Vec<_> =
            numbered.map(|(offset, (key, value))| Record { epoch, offset, timestamp, key, value }).collect();
        state.log.append(&records)?;
        self.advance(state);
        Ok((epoch, base, state.log.end()))
    }

    /// Whether all before an offset, taken in an epoch, is acknowledged; `None`: not yet.
    fn acknowledged(&self, epoch: u64, end: u64) -> Option<Result<(), Refusal>> {
        let state = self.state();
        match &state.role {
            Role::Leader(leader) if leader.epoch == epoch => (state.high_watermark >= end).then(|| leader.enough()),
            _ => Some(Err(Refusal::NotLeader)),
        }
    }

    /// Acknowledged records from an offset on.
    pub(crate) fn read(&self, from: u64, max: usize, max_bytes: u64) -> Result<Vec<Record>, Refusal> {
        let state = self.state();
        match &state.role {
            Role::Leader(_) => Ok(state.log.read(from.max(state.hidden), state.high_watermark, max, max_bytes)?),
            _ => Err(Refusal::NotLeader),
        }
    }

    /// The first acknowledged record that is not older than a time.
    pub(crate) fn at_time(&self, time: i64) -> Result<Option<u64>, Refusal> {
        let (mut from, end) = self.bounds()?;
        while from < end {
            // One at a time, for they may be many.
            let page = self.read(from, 1, u64::MAX)?;
            if let Some(record) = page.iter().find(|record| record.timestamp >= time) {
                return Ok(Some(record.offset));
            }
            from += 1;
        }
        Ok(None)
    }

    /// Hides the records before an offset, if there is such a one, and tells the bounds.
    pub(crate) fn hide(&self, before: u64) -> Result<(u64, u64), Refusal> {
        let (hidden, latest) = self.bounds()?;
        if before <= latest {
            self.state().hidden = hidden.max(before);
        }
        self.bounds()
    }

    /// Waits until there is an acknowledged record at an offset, or the replica leads no more.
    pub(crate) async fn readable(&self, offset: u64) {
        let mut changed = self.watch();
        while self.bounds().is_ok_and(|(_, end)| end <= offset) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// The first record that is not hidden, and the end of what is acknowledged.
    pub(crate) fn bounds(&self) -> Result<(u64, u64), Refusal> {
        let state = self.state();
        match &state.role {
            Role::Leader(_) => Ok((state.hidden, state.high_watermark)),
            _ => Err(Refusal::NotLeader),
        }
    }

    /// Whether it leads here.
    pub(crate) fn leads(&self) -> bool {
        self.bounds().is_ok()
    }

    /// Takes no role any more.
    pub(super) fn retire(&self) {
        self.state().role = Role::Idle;
        self.changed.send_replace(());
    }

    /// Takes note of what a follower has.
    pub(super) fn note(&self, fetch: &Fetch<'_>) -> Result<(), Refusal> {
        let mut state = self.state();
        let state = &mut *state;
        let end = state.log.end();
        let Role::Leader(leader) = &mut state.role else { return Err(Refusal::NotLeader) };
        let follower = leader.followers.get_mut(fetch.node);
        let Some(follower) = follower.filter(|_| leader.epoch == fetch.epoch && fetch.offset <= end) else {
            return Err(Refusal::NotLeader);
        };
        follower.fetched(fetch, end);
        self.advance(state);
        Ok(())
    }

    /// What a follower has not, with the high watermark. `None`: it has all, and knows it.
    pub(super) fn news(
        &self,
        fetch: &Fetch<'_>,
        known: u64,
        max_bytes: u64,
    ) -> Result<Option<(u64, Vec<Record>)>, Refusal> {
        let state = self.state();
        match &state.role {
            Role::Leader(leader) if leader.epoch == fetch.epoch => {}
            _ => return Err(Refusal::NotLeader),
        }
        let end = state.log.end();
        // A new leader may know less about that than its followers, until it has heard of all of them.
        if fetch.offset == end && known >= state.high_watermark {
            return Ok(None);
        }
        Ok(Some((state.high_watermark, state.log.read(fetch.offset, end, usize::MAX, max_bytes)?)))
    }

    /// As the leader of an epoch: where the records of an earlier epoch end.
    pub(super) fn end_of(&self, epoch: u64, asked: u64) -> Result<(Option<u64>, u64), Refusal> {
        let state = self.state();
        match &state.role {
            Role::Leader(leader) if leader.epoch == epoch => Ok(state.log.end_of(asked)),
            _ => Err(Refusal::NotLeader),
        }
    }

    /// As a follower in an epoch: the epoch of the last record.
    pub(super) fn last_epoch(&self) -> Option<u64> {
        self.state().log.last_epoch()
    }

    /// As a follower in an epoch: what to fetch next, with the version applied and the high watermark known.
    pub(super) fn position(&self) -> (u64, u64, u64) {
        let state = self.state();
        (state.log.end(), state.version, state.high_watermark)
    }

    /// As a follower in an epoch: cuts off what the leader of that epoch does not have. Its records of `found`, the
    /// largest epoch up to the one asked about, end at `end`. Says whether the logs agree now.
    pub(super) fn cut(&self, epoch: u64, asked: u64, found: Option<u64>, end: u64) -> Result<bool, Refusal> {
        self.following(epoch, |state| {
            let own_end = found.map_or(0, |found| state.log.end_of(found).1);
            let keep = own_end.min(end);
            if keep < state.high_watermark {
                tracing::error!("{}: {keep} cuts off acknowledged records up to {}", self.id, state.high_watermark);
                state.high_watermark = keep;
            }
            state.log.truncate(keep)?;
            Ok(found == Some(asked) || state.log.last_epoch().is_none_or(|last| Some(last) == found))
        })
    }

    /// As a follower in an epoch: takes what the leader sent.
    pub(super) fn follow(&self, epoch: u64, high_watermark: u64, records: &[Record]) -> Result<(), Refusal> {
        self.following(epoch, |state| {
            if records.iter().zip(state.log.end()..).any(|(record, offset)| record.offset != offset) {
                return Err(Refusal::NotLeader);
            }
            if !records.is_empty() {
                state.log.append(records)?;
            }
            state.high_watermark = state.high_watermark.max(high_watermark.min(state.log.end()));
            Ok(())
        })
    }

    fn following<T>(&self, epoch: u64, act: impl FnOnce(&mut State) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let mut state = self.state();
        match state.role {
            Role::Follower if state.epoch == epoch => act(&mut state),
            _ => Err(Refusal::NotLeader),
        }
    }

    /// As the leader: the in-sync set to propose, if it should be another one.
    pub(super) fn propose(&self, lag: Duration) -> Option<Command> {
        let mut state = self.state();
        let high_watermark = state.high_watermark;
        let Role::Leader(leader) = &mut state.role else { return None };
        let (version, isr) = match leader.proposed.clone() {
            // Whether it was agreed on is not known here yet: the same again does no harm.
            Some(proposed) => proposed,
            None => (leader.metadata.version, leader.in_sync(&self.me, high_watermark, lag)),
        };
        if isr == leader.metadata.isr {
            return None;
        }
        leader.proposed = Some((version, isr.clone()));
        let (partition, leader_epoch) = (self.id.clone(), leader.epoch);
        Some(Command::UpdatePartitionIsr { partition, isr, leader_epoch, version: Some(version) })
    }
}

impl Leader {
    fn enough(&self) -> Result<(), Refusal> {
        let have = self.metadata.isr.len();
        if have < self.min_isr { Err(Refusal::NotEnoughReplicas(have, self.min_isr)) } else { Ok(()) }
    }

    /// Who should be in sync: members until they lag for too long, others as soon as they have everything that may
    /// have been acknowledged. What they have counts only if they told it since the metadata last changed: a replica
    /// that was taken away and given back, or came back with another disk, has nothing.
    fn in_sync(&self, me: &str, high_watermark: u64, lag: Duration) -> BTreeSet<String> {
        let needed = high_watermark.max(self.epoch_start);
        let follows = |node: &String| {
            let Some(follower) = self.followers.get(node) else { return false };
            if self.metadata.isr.contains(node) {
                return follower.caught_up.elapsed() <= lag;
            }
            let told = follower.version == self.metadata.version && follower.fetched.elapsed() <= lag;
            told && follower.end >= needed
        };
        self.metadata.replicas.iter().filter(|node| *node == me || follows(node)).cloned().collect()
    }
}

impl Progress {
    fn unknown(now: Instant) -> Self {
        Self { end: 0, version: 0, caught_up: now, fetched: now, end_then: u64::MAX }
    }

    fn fetched(&mut self, fetch: &Fetch<'_>, leader_end: u64) {
        let now = Instant::now();
        if fetch.offset >= leader_end {
            self.caught_up = now;
        } else if fetch.offset >= self.end_then {
            // Under load it never has all, but it has what there was when it asked before.
            self.caught_up = self.caught_up.max(self.fetched);
        }
        self.end = fetch.offset;
        self.version = fetch.version;
        self.fetched = now;
        self.end_then = leader_end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAG: Duration = Duration::from_secs(1);

    struct Bench {
        directory: tempfile::TempDir,
        partition: Partition,
    }

    impl Bench {
        /// A partition on `a` and `b`, led by `a` in epoch 1.
        fn new(isr: &[&str]) -> Self {
            let names = |nodes: &[&str]| nodes.iter().map(|&node| node.to_owned()).collect::<Vec<_>>();
            let partition = Partition {
                leader: Some("a".to_owned()),
                leader_epoch: 1,
                version: 1,
                replicas: names(&["a", "b"]),
                isr: names(isr).into_iter().collect(),
                lost: BTreeMap::new(),
            };
            Self { directory: tempfile::tempdir().unwrap(), partition }
        }

        fn replica(&self, node: &str) -> Replica {
            let id = PartitionId { topic: "t".to_owned(), partition: 0 };
            let replica = Replica::open(id, node, &self.directory.path().join(node)).unwrap();
            replica.apply(&self.partition, 1);
            replica
        }

        fn lead(&mut self, node: &str) {
            self.partition.leader = Some(node.to_owned());
            self.partition.leader_epoch += 1;
            self.partition.version += 1;
        }
    }

    fn fetch(epoch: u64, version: u64, offset: u64) -> Fetch<'static> {
        Fetch { node: "b", epoch, version, offset }
    }

    fn append(replica: &Replica, values: &[&str]) {
        let entries = values.iter().map(|value| (None, value.as_bytes().to_vec())).collect();
        replica.append(entries, 0).unwrap();
    }

    fn high_watermark(replica: &Replica) -> u64 {
        replica.state().high_watermark
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_in_sync_replica_has_not_is_not_acknowledged() {
        let bench = Bench::new(&["a", "b"]);
        let leader = bench.replica("a");
        append(&leader, &["one", "two"]);
        assert_eq!(high_watermark(&leader), 0);
        assert!(leader.acknowledged(1, 1).is_none());
        leader.note(&fetch(1, 1, 1)).unwrap();
        assert_eq!(high_watermark(&leader), 1);
        assert!(leader.acknowledged(1, 1).unwrap().is_ok());
        assert!(leader.acknowledged(1, 2).is_none());
        for stale in [fetch(0, 1, 2), fetch(2, 1, 2), fetch(1, 1, 3)] {
            assert!(leader.note(&stale).is_err());
        }
        assert_eq!(high_watermark(&leader), 1);
        assert_eq!(leader.read(0, 9, 999).unwrap().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_joins_the_in_sync_set_has_everything() {
        let mut bench = Bench::new(&["a"]);
        let leader = bench.replica("a");
        append(&leader, &["one", "two"]);
        assert!(leader.propose(LAG).is_none());
        leader.note(&fetch(1, 1, 1)).unwrap();
        assert!(leader.propose(LAG).is_none(), "one record is missing");
        leader.note(&fetch(1, 0, 2)).unwrap();
        assert!(leader.propose(LAG).is_none(), "told before the metadata changed");
        leader.note(&fetch(1, 1, 2)).unwrap();
        assert!(leader.propose(LAG).is_some());
        // From the proposal on it counts, for it may be in the set already.
        append(&leader, &["three"]);
        assert_eq!(high_watermark(&leader), 2);
        bench.partition.isr.insert("b".to_owned());
        bench.partition.version += 1;
        leader.apply(&bench.partition, 1);
        assert_eq!(high_watermark(&leader), 2);
        leader.note(&fetch(1, 2, 3)).unwrap();
        assert_eq!(high_watermark(&leader), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_leader_lets_nobody_join_before_its_own_end() {
        let mut bench = Bench::new(&["a"]);
        append(&bench.replica("a"), &["one", "two"]);
        bench.partition.isr.insert("c".to_owned());
        bench.partition.replicas.push("c".to_owned());
        bench.lead("a");
        let leader = bench.replica("a");
        // It has not heard of `c`, so it does not know how much was acknowledged.
        assert_eq!(high_watermark(&leader), 0);
        leader.note(&fetch(2, 2, 1)).unwrap();
        assert!(leader.propose(LAG).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lagging_replica_counts_until_it_is_agreed_that_it_does_not() {
        let mut bench = Bench::new(&["a", "b"]);
        let leader = bench.replica("a");
        append(&leader, &["one"]);
        leader.note(&fetch(1, 1, 0)).unwrap();
        assert!(leader.propose(LAG).is_none());
        tokio::time::advance(LAG * 2).await;
        assert!(leader.propose(LAG).is_some());
        assert!(leader.propose(LAG).is_some(), "again, for the first may be lost");
        assert_eq!(high_watermark(&leader), 0);
        bench.partition.isr.remove("b");
        bench.partition.version += 1;
        leader.apply(&bench.partition, 2);
        assert_eq!(high_watermark(&leader), 1);
        let too_few = leader.acknowledged(1, 1).unwrap();
        assert!(matches!(too_few, Err(Refusal::NotEnoughReplicas(1, 2))));
    }

    /// Both took records that the other did not: the follower's go, and nothing else.
    #[tokio::test(start_paused = true)]
    async fn a_follower_cuts_off_what_its_leader_does_not_have() {
        let mut bench = Bench::new(&["a", "b"]);
        let (a, b) = (bench.replica("a"), bench.replica("b"));
        append(&a, &["both"]);
        b.follow(1, 0, &a.state().log.read(0, 1, 9, 999).unwrap()).unwrap();
        append(&a, &["only a", "only a"]);
        bench.lead("b");
        b.apply(&bench.partition, 1);
        append(&b, &["only b"]);
        a.apply(&bench.partition, 1);
        assert!(matches!(a.acknowledged(1, 2), Some(Err(Refusal::NotLeader))));
        assert!(a.follow(1, 0, &[]).is_err(), "of an epoch that is over");
        let last = a.last_epoch().unwrap();
        let (found, end) = b.end_of(2, last).unwrap();
        assert!(a.cut(2, last, found, end).unwrap());
        assert_eq!(a.position().0, 1);
        a.follow(2, 0, &b.state().log.read(1, 2, 9, 999).unwrap()).unwrap();
        let logs = [&a, &b].map(|replica| replica.state().log.read(0, 9, 9, 999).unwrap());
        assert_eq!(logs[0], logs[1]);
    }
}
