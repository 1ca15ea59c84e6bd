//! Which brokers hold the replicas of a new topic's partitions.

/// The replicas of each partition by ordinal, the leader first: leaders go round the brokers, and the distance between a
/// leader and its followers changes with each round, so that one broker's followers are not all on the same other one.
///
/// `start` is where the round begins; topics that begin at different brokers spread their first leaders. Each broker
/// holds a partition once, so there are no more replicas than brokers.
pub fn assign(partitions: u32, replication: u32, brokers: u32, start: u32) -> Vec<Vec<u32>> {
    if brokers == 0 {
        return Vec::new();
    }
    let others = brokers - 1;
    let of = |partition: u32| {
        let leader = (start % brokers + partition % brokers) % brokers;
        let shift = partition / brokers;
        let followers = (0..replication.saturating_sub(1).min(others))
            .map(|nth| (leader + 1 + (shift % others.max(1) + nth) % others.max(1)) % brokers);
        std::iter::once(leader).chain(followers).collect()
    };
    (0..partitions).map(of).collect()
}
