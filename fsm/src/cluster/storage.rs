//! Volumes grow: the claims first, then, when all have, the StatefulSet is replaced around the running pods, as its claim
//! template cannot be changed.
//!
//! Where a broker that ran into a full disk would lose records if it went on writing into the grown volume, it is stopped
//! first: nobody can see from outside whether it did.

use super::decide::Step;
use super::observation::{Claim, Observation, Resize};
use super::plan::Plan;
use crate::decision::Planned;
use crate::reason::Reason;
use crate::window;

/// How the volumes are, held against the size in force.
pub fn plan(observed: &Observation) -> Plan {
    let Some(set) = observed.stateful_set.as_ref().filter(|set| !set.deleting) else { return Plan::Done };
    let offline = !observed.capabilities.online_growth_when_full;
    let up = || Step::Scale { uid: set.uid.clone(), replicas: observed.replicas };
    if let Some((reason, message)) = stuck(observed) {
        // What was stopped to grow and cannot grow goes on as it was.
        return if offline && set.replicas < observed.replicas {
            Plan::next(up(), reason, message)
        } else {
            Plan::broken(reason, message)
        };
    }
    let small: Vec<&Claim> = ours(observed).filter(|claim| is_small(claim, observed)).collect();
    if offline && !small.is_empty() {
        if set.replicas > 0 {
            return stop(observed, set.uid.clone());
        }
        if let Some(broker) = observed.brokers.iter().find(|broker| broker.pod.is_some()) {
            let message = format!("broker {} is stopping before its volume grows", broker.ordinal);
            return Plan::wait(Reason::StoppedToGrow, message, None);
        }
    }
    let ask: Vec<Step> = ours(observed).filter_map(|claim| asked_of(claim, observed)).collect();
    if !ask.is_empty() {
        let on = names(ask.iter().filter_map(|step| match step {
            Step::ExpandVolume { claim, .. } => Some(claim.as_str()),
            _ => None,
        }));
        let (reason, on, message) = (Reason::VolumesGrowing, None, format!("{on} to {} bytes", observed.storage_bytes));
        return Plan::Next(ask, crate::decision::Blocked { reason, on, message });
    }
    if !small.is_empty() {
        let message = format!(
            "waiting for {} to grow to {} bytes",
            names(small.iter().map(|c| c.name.as_str())),
            observed.storage_bytes
        );
        return Plan::wait(Reason::VolumesGrowing, message, None);
    }
    if set.claim_bytes != observed.storage_bytes && ours(observed).next().is_some() {
        let step = Step::OrphanStatefulSet { uid: set.uid.clone() };
        let message = "the StatefulSet is replaced around the running brokers, so that new volumes have the new size";
        return Plan::next(step, Reason::ReplacingStatefulSet, message);
    }
    if offline && set.replicas < observed.replicas {
        return Plan::next(up(), Reason::StoppedToGrow, "the volumes have grown; the brokers start again");
    }
    Plan::Done
}

/// Claims whose growth was refused some time ago: they are asked for again beside what else is done.
pub(super) fn retries(observed: &Observation) -> impl Iterator<Item = Step> + '_ {
    ours(observed).filter(|claim| claim.refused.as_ref().is_some_and(|refused| refused.retry)).map(|claim| {
        Step::ExpandVolume {
            claim: claim.name.clone(),
            uid: claim.uid.clone(),
            bytes: wanted(claim, observed.storage_bytes),
        }
    })
}

/// The steps that will come, as things are now.
pub fn ahead(observed: &Observation) -> Vec<Planned> {
    let Some(set) = &observed.stateful_set else { return Vec::new() };
    let grow = ours(observed).filter(|claim| asked_of(claim, observed).is_some() || is_small(claim, observed));
    let mut steps: Vec<Planned> = grow.map(|claim| Planned { step: "ExpandVolume", on: claim.name.clone() }).collect();
    if set.claim_bytes != observed.storage_bytes && ours(observed).next().is_some() {
        steps.push(Planned { step: "OrphanStatefulSet", on: "StatefulSet".to_owned() });
    }
    steps
}

/// Only what is proven to be this cluster's, of brokers that should be there.
fn ours(observed: &Observation) -> impl Iterator<Item = &Claim> {
    let wanted = observed.brokers.iter().filter(|broker| broker.ordinal < observed.replicas);
    wanted.filter_map(|broker| broker.claim.as_ref()).filter(|claim| claim.ours && !claim.deleting && claim.bound)
}

/// How much above the capacity a request is lowered to: the API server takes none that equals it.
const JUST_ABOVE: u64 = 1 << 20;

/// What is to be requested of a claim for volumes of `size` bytes. Never less than was provisioned: a volume that somebody
/// made larger stays so. What was requested before and not provisioned is lowered as far as the API server allows.
pub fn wanted(claim: &Claim, size: u64) -> u64 {
    let capacity = claim.capacity.unwrap_or(0);
    if size <= capacity && claim.requested > capacity { capacity + JUST_ABOVE } else { size.max(capacity) }
}

/// A larger request that is not the operator's was made by hand, and is let happen.
fn is_by_hand(claim: &Claim, size: u64) -> bool {
    claim.requested > wanted(claim, size) && claim.asked != Some(claim.requested)
}

/// Its file system must still grow. One that grows when the pod starts is as far as it can be without one.
fn is_small(claim: &Claim, observed: &Observation) -> bool {
    let grows_at_start = !observed.capabilities.online_growth_when_full && claim.resize == Resize::FileSystem;
    claim.capacity.unwrap_or(0) < observed.storage_bytes && !grows_at_start
}

/// What is to be asked of a claim.
fn asked_of(claim: &Claim, observed: &Observation) -> Option<Step> {
    let (size, bytes) = (observed.storage_bytes, wanted(claim, observed.storage_bytes));
    (claim.requested != bytes && !is_by_hand(claim, size) && claim.refused.is_none()).then(|| Step::ExpandVolume {
        claim: claim.name.clone(),
        uid: claim.uid.clone(),
        bytes,
    })
}

/// A claim that does not grow by waiting, and why.
fn stuck(observed: &Observation) -> Option<(Reason, String)> {
    ours(observed).filter(|claim| is_small(claim, observed)).find_map(|claim| {
        if let Some(refused) = &claim.refused {
            let quota = refused.words.contains("exceeded quota");
            let reason = if quota { Reason::QuotaExceeded } else { Reason::VolumeCannotExpand };
            return Some((reason, format!("{}: {}", claim.name, refused.words)));
        }
        match &claim.resize {
            Resize::Failed { why } if claim.requested == wanted(claim, observed.storage_bytes) => {
                Some((Reason::VolumeResizeFailed, format!("{}: {why}", claim.name)))
            }
            _ => None,
        }
    })
}

/// The brokers stop, if a window is open: their data is out of reach meanwhile.
fn stop(observed: &Observation, uid: String) -> Plan {
    let message = "this broker version must be stopped while its volume grows";
    match window::opens_in(&observed.windows, observed.seen_at) {
        Some(wait) if wait.is_zero() => Plan::next(Step::Scale { uid, replicas: 0 }, Reason::StoppedToGrow, message),
        again => Plan::wait(Reason::OutsideMaintenanceWindow, format!("{message}, in a maintenance window"), again),
    }
}

/// Whether the brokers have to be stopped to grow, or are.
pub(super) fn takes_down(observed: &Observation) -> bool {
    !observed.capabilities.online_growth_when_full
        && stuck(observed).is_none()
        && ours(observed).any(|claim| is_small(claim, observed))
}

/// Bytes as a quantity in the largest binary unit that keeps them exact.
pub fn quantity(bytes: u64) -> String {
    const UNITS: [(u32, &str); 6] = [(6, "Ei"), (5, "Pi"), (4, "Ti"), (3, "Gi"), (2, "Mi"), (1, "Ki")];
    let exact = UNITS.iter().find(|(power, _)| bytes > 0 && bytes.is_multiple_of(1024_u64.pow(*power)));
    exact.map_or_else(|| bytes.to_string(), |(power, unit)| format!("{}{unit}", bytes / 1024_u64.pow(*power)))
}

fn names<'a>(claims: impl Iterator<Item = &'a str>) -> String {
    claims.collect::<Vec<_>>().join(", ")
}
