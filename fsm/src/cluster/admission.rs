//! Which spec is in force: the new one, the last accepted one, or none. Each refusal is a guard of its own.

use super::observation::{Candidate, Move, Wish};
use super::partitions::{Partition, Partitions, some};
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
    Guard { reason: Reason::NotSupportedByOperator, refuses: |c| list(&c.wish.unsupported) },
    Guard { reason: Reason::PrerequisiteMissing, refuses: prerequisite_missing },
    Guard { reason: Reason::CertificateInvalid, refuses: |c| c.certificate_problem.clone() },
    Guard { reason: Reason::CertificateNotTrusted, refuses: |c| c.certificate_divides.clone() },
    Guard { reason: Reason::TlsSwitchRefused, refuses: tls_switched },
    Guard { reason: Reason::StorageShrinkRefused, refuses: storage_shrinks },
    Guard { reason: Reason::StorageClassChangeRefused, refuses: storage_class_changes },
    Guard { reason: Reason::ScaleRefused, refuses: scale_not_possible },
    Guard { reason: Reason::DowngradeRefused, refuses: downgrade },
    Guard { reason: Reason::VersionSkipRefused, refuses: version_skip },
    Guard { reason: Reason::RolloutHalted, refuses: |c| c.halted.clone() },
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

/// Brokers that speak TLS and brokers that do not cannot reach each other, and members know each other by URLs.
fn tls_switched(c: &Candidate) -> Option<String> {
    if !c.clusters {
        return None;
    }
    changed(c, |now, wish| {
        let (from, to) = if now.tls { ("on", "off") } else { ("off", "on") };
        (now.tls != wish.tls).then(|| {
            format!("tls.enabled was switched {to} where brokers run with it {from}, and the two cannot reach each other: set it back, or make a new cluster")
        })
    })
}

fn storage_shrinks(c: &Candidate) -> Option<String> {
    // What was asked for and not provisioned can be taken back.
    let provisioned = c.provisioned_bytes;
    let now = c.accepted.as_ref()?.storage_bytes.min(provisioned.unwrap_or(u64::MAX));
    (c.wish.storage_bytes < now).then(|| {
        format!(
            "storage.size was reduced to {} bytes where volumes have {now}, and no file system can shrink: set it back",
            c.wish.storage_bytes
        )
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

/// Brokers cannot be fewer than the replicas that a partition has.
fn scale_not_possible(c: &Candidate) -> Option<String> {
    let now = c.accepted.as_ref()?;
    let (wish, was) = (c.wish.replicas, now.replicas);
    if wish == was {
        return None;
    }
    let back = format!("set replicas back to {was}");
    if c.clusters != c.capabilities.clustering && wish.max(was) > 1 {
        let version = &c.wish.version;
        return Some(format!(
            "one broker of version {version} runs alone and several are a cluster, and records do not move between the two: name a version that clusters from the first, or {back}"
        ));
    }
    if wish > was || !c.clusters {
        return None;
    }
    let all = match &c.partitions {
        Partitions::Known(all) => all,
        // Unknown is never "yes".
        Partitions::Unknown { why } => {
            return Some(format!("which brokers hold replicas is not known: {why}; it is asked again, or {back}"));
        }
        Partitions::Unreplicated => {
            return Some(format!("the brokers do not tell which of them hold what, so none can be taken away: {back}"));
        }
    };
    let is_of = |p: &Partition, m: &Move| m.topic == p.topic && m.partition == p.id;
    let replicas = |p: &Partition| {
        let here = u32::try_from(p.replicas.len()).unwrap_or(u32::MAX);
        // One more than that is on the move.
        c.moves.iter().find(|moved| is_of(p, moved)).map_or(here, |moved| here.min(moved.copies))
    };
    let smallest = all.iter().map(replicas).max().unwrap_or(0);
    if smallest <= wish {
        return None;
    }
    let crowded: Vec<&Partition> = all.iter().filter(|partition| replicas(partition) > wish).collect();
    Some(format!(
        "replicas: {wish} is fewer than the replicas of {}; the smallest number that is possible is {smallest}",
        some(&crowded)
    ))
}

/// Somebody says of this very version that it may be taken. Of this one only, so that a forgotten annotation lets no other
/// pass.
fn forced(c: &Candidate) -> bool {
    c.forced_version.as_ref() == Some(&c.wish.version)
}

fn version_skip(c: &Candidate) -> Option<String> {
    if forced(c) {
        return None;
    }
    changed(c, |now, wish| {
        let ([major, minor, _], [to_major, to_minor, _]) = (version_key(&now.version)?, version_key(&wish.version)?);
        let skips = match to_major.checked_sub(major)? {
            0 => to_minor > minor + 1,
            1 => to_minor > 0,
            _ => true,
        };
        skips.then(|| {
            format!(
                "version goes from {} to {}, past releases in between whose changes of format and protocol build on each other: go to each minor release in turn",
                now.version, wish.version
            )
        })
    })
}

fn downgrade(c: &Candidate) -> Option<String> {
    if forced(c) {
        return None;
    }
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
