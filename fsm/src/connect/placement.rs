//! Which worker runs which connector: each on exactly one, and on a new one only when it has stopped on the old.

use std::collections::{BTreeMap, BTreeSet};

use super::observation::Connector;

/// What each worker may run, by its number.
pub type Runs = BTreeMap<u32, BTreeSet<Connector>>;

/// A connector that waits for its worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Which.
    pub connector: Connector,
    /// The worker it is going to.
    pub to: u32,
    /// The worker on which it may run still. `None`: a change of some worker is not acted on yet, so nobody knows.
    pub on: Option<u32>,
}

/// Which worker runs what now, and what waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// What each worker is to run now. Workers without connectors are not in it.
    pub runs: Runs,
    /// What will run when it has stopped elsewhere.
    pub waiting: Vec<Waiting>,
}

/// The worker of a connector, by rendezvous hashing: with one worker more or less, only the connectors that go to it or
/// come from it move. `None`: there is no worker.
pub fn worker_of(connector: &Connector, workers: u32) -> Option<u32> {
    (0..workers).max_by_key(|worker| weight(connector, *worker))
}

/// FNV-1a over both, mixed at the end so that names that differ in one letter do not go the same way.
fn weight(connector: &Connector, worker: u32) -> u64 {
    let text = format!("{connector}#{worker}");
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Places connectors on workers.
///
/// `may_run` is what each worker may be running by all that is seen: the ledger, its Deployment's template, each of its
/// pods, also those that are going. A connector that another worker may run waits. `unsettled`: a Deployment was changed
/// and its controller has not acted on it, so a pod of the old template may still come; then nothing moves either.
pub fn place<'a>(
    connectors: impl IntoIterator<Item = &'a Connector>,
    workers: u32,
    may_run: &Runs,
    unsettled: bool,
) -> Placement {
    let mut placement = Placement::default();
    for connector in connectors {
        let Some(to) = worker_of(connector, workers) else { continue };
        let runs_on = |worker: &u32| may_run.get(worker).is_some_and(|runs| runs.contains(connector));
        let on = may_run.keys().copied().find(|worker| *worker != to && runs_on(worker));
        if on.is_some() || (unsettled && !runs_on(&to)) {
            placement.waiting.push(Waiting { connector: connector.clone(), to, on });
        } else {
            placement.runs.entry(to).or_default().insert(connector.clone());
        }
    }
    placement
}
