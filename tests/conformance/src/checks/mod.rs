//! The checks, by what they are about.

mod api;
mod config;
mod failover;
mod formation;
mod membership;
mod offsets;
mod placement;
mod records;
mod restart;
mod tls;
mod topics;
mod unknown;

use crate::check::Capability::{Clustering, CrashSafeRecords, HealthSplit, PartitionMetadata, Tls};
use crate::check::{Check, On};

macro_rules! check {
    ($on:ident: $operation:literal, $function:path $(, needs $($capability:ident),+)?) => {
        Check { operation: $operation, needs: &[$($($capability),+)?], on: On::$on(|on| Box::pin($function(on))) }
    };
}

/// All of them, in the order in which they run.
pub const CHECKS: &[Check] = &[
    check!(Single: "handshake", api::handshake),
    check!(Single: "ping", api::ping),
    check!(Single: "health", api::health),
    check!(Single: "health by purpose", api::health_by_purpose, needs HealthSplit),
    check!(Single: "metrics, version", api::metrics),
    check!(Single: "no token, wrong token", api::token),
    check!(Single: "membership of one", api::membership),
    check!(Single: "bootstrap of one, twice", api::bootstrap),
    check!(Single: "metadata over HTTP", api::metadata),
    check!(Single: "a refused proposal is answered with 200", api::refused_proposal),
    check!(Single: "brokers of one", api::brokers),
    check!(Single: "create topic, default partitions", topics::create_default),
    check!(Single: "create topic, so many partitions", topics::create_counted),
    check!(Single: "create topic, exists", topics::create_existing),
    check!(Single: "create topic, bad names", topics::bad_names),
    check!(Single: "create topic, bad counts", topics::bad_counts),
    check!(Single: "list topics", topics::list),
    check!(Single: "delete topic", topics::delete),
    check!(Single: "grow topic", topics::grow),
    check!(Single: "shrink topic is refused", topics::shrink),
    check!(Single: "unknown topic, every request", unknown::topic),
    check!(Single: "unknown partition, every request", unknown::partition),
    check!(Single: "unknown group", unknown::group),
    check!(Single: "topic config, defaults", config::defaults),
    check!(Single: "topic config, every key", config::every_key),
    check!(Single: "topic config, reset", config::reset),
    check!(Single: "topic config, unknown key", config::unknown_key),
    check!(Single: "topic config, bad values", config::bad_values),
    check!(Single: "topic config, earlier keys stay", config::not_atomic),
    check!(Single: "topic config, unknown topic", config::unknown_topic),
    check!(Single: "publish and consume in order", records::order),
    check!(Single: "publish creates the topic", records::auto_create),
    check!(Single: "publish by key", records::by_key),
    check!(Single: "publish batch", records::batch),
    check!(Single: "consume by page", records::pages),
    check!(Single: "consume waits for a record", records::long_poll),
    check!(Single: "offset bounds", offsets::bounds),
    check!(Single: "offset of a time", offsets::of_a_time),
    check!(Single: "delete records", offsets::delete_records),
    check!(Single: "commit offset, get offset", offsets::commit),
    check!(Single: "groups", offsets::groups),
    check!(Single: "records after a restart", restart::records),
    check!(Single: "records after kill -9", restart::records_killed),
    check!(Single: "many records after kill -9", restart::many_killed, needs CrashSafeRecords),
    check!(Single: "records under load over a restart", restart::load),
    check!(Single: "records under load over kill -9", restart::load_killed, needs CrashSafeRecords),
    check!(Single: "topics after a restart", restart::topics),
    check!(Single: "topics after kill -9", restart::topics_killed),
    check!(Single: "topic config after a restart", restart::config),
    check!(Single: "committed offsets after a restart", restart::offsets),
    check!(Own: "TLS, a client in plain text", tls::plain, needs Tls),
    check!(Own: "TLS, another authority", tls::authority, needs Tls),
    check!(Own: "TLS, clients without a certificate", tls::mutual, needs Tls),
    check!(Own: "TLS, three brokers form and replicate", tls::cluster, needs Tls, Clustering),
    check!(Unformed: "health before formation", formation::before),
    check!(Unformed: "formation", formation::form),
    check!(Formed: "membership equal on all", formation::membership),
    check!(Formed: "second bootstrap changes nothing", formation::again),
    check!(Formed: "brokers and controller", formation::brokers, needs PartitionMetadata),
    check!(Formed: "metrics of Raft", formation::metrics),
    check!(Formed: "propose CreateTopic", placement::create, needs PartitionMetadata),
    check!(Formed: "linearizable read", placement::linearizable),
    check!(Formed: "propose AddPartitions", placement::grow, needs PartitionMetadata),
    check!(Formed: "propose on a follower", placement::follower),
    check!(Formed: "not leader", placement::not_leader, needs PartitionMetadata),
    check!(Formed: "propose UpdatePartitionLeader", placement::move_leader, needs PartitionMetadata),
    check!(Formed: "propose ReassignPartition", placement::reassign, needs PartitionMetadata),
    check!(Formed: "transfer-leadership", membership::transfer),
    check!(Formed: "membership changes on the leader only", membership::follower),
    check!(Formed: "change-membership, unknown voter", membership::unknown),
    check!(Formed: "add-learner, change-membership", membership::join),
    check!(Formed: "change-membership without it", membership::leave),
    check!(Formed: "kill the Raft leader", failover::raft),
    check!(Formed: "kill a partition's leader", failover::partition, needs PartitionMetadata),
    check!(Formed: "records under load over a leader's kill -9", failover::load, needs PartitionMetadata),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn operations_are_told_apart() {
        let operations: BTreeSet<_> = CHECKS.iter().map(|check| check.operation).collect();
        assert_eq!(operations.len(), CHECKS.len());
    }
}
