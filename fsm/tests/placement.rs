//! Replicas of new topics: as many as asked for, on different brokers, evenly.

use std::collections::{BTreeMap, BTreeSet};

use rivven_fsm::topic::placement::assign;

#[test]
fn replicas_are_on_different_brokers_and_even() {
    let mut cases = 0;
    for brokers in 1..=7_u32 {
        for replication in 1..=brokers {
            for partitions in [1, 2, 3, 7, 12, 50, 84] {
                for start in [0, 1, brokers, u32::MAX] {
                    let placed = assign(partitions, replication, brokers, start);
                    assert_eq!(placed.len(), partitions as usize);
                    let (mut leads, mut holds) = (BTreeMap::new(), BTreeMap::new());
                    for replicas in &placed {
                        assert_eq!(replicas.len(), replication as usize, "{brokers} {replication} {placed:?}");
                        assert_eq!(replicas.iter().collect::<BTreeSet<_>>().len(), replicas.len(), "{placed:?}");
                        assert!(replicas.iter().all(|broker| *broker < brokers));
                        *leads.entry(replicas[0]).or_insert(0_u32) += 1;
                        for broker in replicas {
                            *holds.entry(*broker).or_insert(0_u32) += 1;
                        }
                    }
                    let spread = |count: &BTreeMap<u32, u32>| {
                        let all: Vec<u32> = (0..brokers).map(|b| count.get(&b).copied().unwrap_or(0)).collect();
                        all.iter().max().unwrap() - all.iter().min().unwrap()
                    };
                    assert!(spread(&leads) <= 1, "leaders of {partitions} on {brokers}: {leads:?}");
                    if partitions % brokers == 0 {
                        assert_eq!(spread(&holds), 0, "replicas of {partitions} on {brokers}: {holds:?}");
                    }
                    cases += 1;
                }
            }
        }
    }
    println!("placements: cases: {cases}");
    assert!(cases >= 700);
}

#[test]
fn no_broker_is_asked_for_more_than_there_is() {
    assert_eq!(assign(2, 3, 2, 0), [[0, 1], [1, 0]]);
    assert!(assign(2, 3, 0, 0).is_empty());
}
