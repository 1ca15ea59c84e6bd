//! What a check is, and what it finds.

use std::fmt;
use std::path::Path;
use std::pin::Pin;

use anyhow::Result;
use rivven_fsm::cluster::Capabilities;
use serde::Serialize;

use crate::cluster::Cluster;
use crate::single::Single;

/// What not every broker can do; the operator's table says which version can, for all but the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Several brokers form one cluster.
    Clustering,
    /// TLS is served.
    Tls,
    /// Leader, replicas and in-sync set of each partition can be read.
    PartitionMetadata,
    /// `/health/live`, `/health/ready` and `/health/startup` exist.
    HealthSplit,
    /// Records can be read after `kill -9`, however many there were.
    ///
    /// The released broker appends again what it finds in its write-ahead log, with offset 0 in each record. As soon
    /// as one of these gets an entry in the sparse index (one every 4096 bytes of a segment), lookups begin behind
    /// all earlier records: they are on disk, and no offset leads to them.
    CrashSafeRecords,
}

impl Capability {
    /// As the operator's table names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clustering => "clustering",
            Self::Tls => "tls",
            Self::PartitionMetadata => "partition_metadata",
            Self::HealthSplit => "health_split",
            Self::CrashSafeRecords => "crash_safe_records",
        }
    }

    /// Whether a broker of this version, with this row of the table, has it.
    pub fn of(self, version: &str, row: &Capabilities) -> bool {
        match self {
            Self::Clustering => row.clustering,
            Self::Tls => row.tls,
            Self::PartitionMetadata => row.partition_metadata,
            Self::HealthSplit => row.health_split,
            Self::CrashSafeRecords => !version.starts_with("0.0."),
        }
    }
}

/// A check at work.
pub type Running<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// What a check runs on.
#[derive(Clone, Copy)]
pub enum On {
    /// One broker, standalone. Checks share it: each has topics of its own.
    Single(for<'a> fn(&'a mut Single) -> Running<'a>),
    /// Brokers of its own, from this program.
    Own(for<'a> fn(&'a Path) -> Running<'a>),
    /// Brokers that were started and are not formed yet.
    Unformed(for<'a> fn(&'a mut Cluster) -> Running<'a>),
    /// A formed cluster, every broker up.
    Formed(for<'a> fn(&'a mut Cluster) -> Running<'a>),
}

/// One thing that a broker must do.
#[derive(Clone, Copy)]
pub struct Check {
    /// What is asked of the broker, and what must come of it.
    pub operation: &'static str,
    /// Without these it does not apply.
    pub needs: &'static [Capability],
    /// How it is found out.
    pub on: On,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome", content = "what")]
pub enum Outcome {
    /// As it must be.
    Ok,
    /// Not as it must be.
    Differs(String),
    /// The broker lacks this capability.
    NotApplicable(&'static str),
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => write!(out, "ok"),
            Self::Differs(what) => write!(out, "differs: {what}"),
            Self::NotApplicable(capability) => write!(out, "not applicable: {capability}"),
        }
    }
}
