//! Which spec is in force: the new one, the last accepted one, or none. Each refusal is a guard of its own.

use super::observation::{Candidate, Wish};
use crate::guard::{Guard, Refusal, refusals};
use crate::reason::Reason;

/// Which spec the operator runs, and why not the new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The new spec is in force.
    Accepted,
    /// The new spec is refused; the last accepted one stays in force and goes on being kept.
    Kept(Vec<Refusal>),
    /// The new spec is refused and none was ever accepted: nothing is created.
    Refused(Vec<Refusal>),
}

impl Admission {
    /// Why the new spec is not in force. Empty when it is.
    pub fn refusals(&self) -> &[Refusal] {
        match self {
            Self::Accepted => &[],
            Self::Kept(refusals) | Self::Refused(refusals) => refusals,
        }
    }
}

/// Holds the spec against [`GUARDS`].
pub fn admit(candidate: &Candidate) -> Admission {
    admit_with(GUARDS, candidate)
}

/// Holds the spec against `guards`: what a test takes out, the verdict must miss.
pub fn admit_with(guards: &[Guard<Candidate>], candidate: &Candidate) -> Admission {
    let refusals = refusals(guards, candidate);
    match (refusals.is_empty(), &candidate.accepted) {
        (true, _) => Admission::Accepted,
        (false, Some(_)) => Admission::Kept(refusals),
        (false, None) => Admission::Refused(refusals),
    }
}

/// Every guard on a spec, in the order in which their refusals are reported.
pub const GUARDS: &[Guard<Candidate>] = &[
    Guard { reason: Reason::InvalidSpec, refuses: |c| list(&c.wish.problems) },
    Guard { reason: Reason::BrokerCannotCluster, refuses: broker_cannot_cluster },
    Guard { reason: Reason::BrokerCannotServeTls, refuses: broker_cannot_serve_tls },
    Guard { reason: Reason::BrokerCannotAuthenticate, refuses: broker_cannot_authenticate },
    Guard { reason: Reason::NotSupportedByOperator, refuses: not_supported },
    Guard { reason: Reason::PrerequisiteMissing, refuses: prerequisite_missing },
    Guard { reason: Reason::StorageShrinkRefused, refuses: storage_shrinks },
    Guard { reason: Reason::StorageClassChangeRefused, refuses: storage_class_changes },
    Guard { reason: Reason::ScaleRefused, refuses: scale_not_possible },
    Guard { reason: Reason::DowngradeRefused, refuses: downgrade },
];

fn list(problems: &[String]) -> Option<String> {
    (!problems.is_empty()).then(|| problems.join("; "))
}

fn broker_cannot_cluster(c: &Candidate) -> Option<String> {
    (c.wish.replicas > 1 && !c.capabilities.clustering).then(|| {
        format!(
            "Rivven {} runs standalone only, so {} brokers would be {} unrelated stores: set replicas to 1, or use version 0.1.0 or newer",
            c.wish.version, c.wish.replicas, c.wish.replicas
        )
    })
}

fn broker_cannot_serve_tls(c: &Candidate) -> Option<String> {
    (c.wish.tls && !c.capabilities.tls).then(|| {
        format!("Rivven {} cannot serve TLS: set tls.enabled to false and terminate TLS outside, or use version 0.1.0 or newer", c.wish.version)
    })
}

fn broker_cannot_authenticate(c: &Candidate) -> Option<String> {
    (c.wish.auth && !c.capabilities.auth).then(|| {
        format!(
            "Rivven {} has no way to create a user: set auth.enabled to false, or use version 0.1.0 or newer",
            c.wish.version
        )
    })
}

fn not_supported(c: &Candidate) -> Option<String> {
    let mut unsupported = c.wish.unsupported.clone();
    // The released broker serves neither; its guards say so first.
    if c.wish.tls && c.capabilities.tls {
        unsupported.push("tls: not supported by this release of the operator; take it out".to_owned());
    }
    if c.wish.auth && c.capabilities.auth {
        unsupported.push("auth: not supported by this release of the operator; take it out".to_owned());
    }
    // The claim templates of a StatefulSet cannot be changed: the request would be refused for ever.
    unsupported.extend(changed(c, |now, wish| {
        (wish.storage_bytes > now.storage_bytes).then(|| {
            format!(
                "storage.size: growing from {} to {} bytes is not done yet, set it back",
                now.storage_bytes, wish.storage_bytes
            )
        })
    }));
    list(&unsupported)
}

fn prerequisite_missing(c: &Candidate) -> Option<String> {
    // Unknown is not "yes": what could not be looked up is reported as missing, and looked up again.
    let missing: Vec<String> = c
        .prerequisites
        .iter()
        .filter_map(|p| match p.present {
            Some(true) => None,
            Some(false) => Some(format!("{} does not exist", p.what)),
            None => Some(format!("{} could not be looked up", p.what)),
        })
        .collect();
    list(&missing)
}

/// A guard on a change: it has nothing to say while no spec was accepted.
fn changed(c: &Candidate, refuses: fn(&Wish, &Wish) -> Option<String>) -> Option<String> {
    c.accepted.as_ref().and_then(|accepted| refuses(accepted, &c.wish))
}

fn storage_shrinks(c: &Candidate) -> Option<String> {
    changed(c, |now, wish| {
        (wish.storage_bytes < now.storage_bytes).then(|| {
            format!(
                "storage.size was reduced from {} to {} bytes, and no file system can shrink: set it back",
                now.storage_bytes, wish.storage_bytes
            )
        })
    })
}

fn storage_class_changes(c: &Candidate) -> Option<String> {
    changed(c, |now, wish| {
        (wish.storage_class != now.storage_class).then(|| {
            format!(
                "storage.storageClassName was changed from {:?} to {:?}, which does not move data: set it back",
                now.storage_class, wish.storage_class
            )
        })
    })
}

fn scale_not_possible(c: &Candidate) -> Option<String> {
    changed(c, |now, wish| {
        (wish.replicas != now.replicas).then(|| {
            format!(
                "a serving cluster of {} brokers cannot be scaled to {} yet: set replicas back to {}",
                now.replicas, wish.replicas, now.replicas
            )
        })
    })
}

fn downgrade(c: &Candidate) -> Option<String> {
    changed(c, |now, wish| {
        let older = match (version_key(&now.version), version_key(&wish.version)) {
            (Some(now), Some(wish)) => wish < now,
            // A tag that is not a version cannot be compared; the person who runs such a build knows what it is.
            _ => false,
        };
        older.then(|| {
            format!(
                "version was lowered from {} to {}, and the newer broker may have written a newer format: set it back",
                now.version, wish.version
            )
        })
    })
}

/// `major.minor.patch` as numbers. `None` for anything else (`latest`, a digest, a pre-release).
pub fn version_key(version: &str) -> Option<[u64; 3]> {
    let mut parts = version.strip_prefix('v').unwrap_or(version).split('.').map(|part| part.parse::<u64>().ok());
    let key = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(key)
}
