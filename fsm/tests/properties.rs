//! Arbitrary observations, wider than the enumeration: any text, odd times, more brokers than asked for.

mod common;

use std::cell::Cell;

use chrono::Duration;
use common::{clustered, now, refusal, sound};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rivven_fsm::cluster::partitions::{ELSEWHERE, Partition};
use rivven_fsm::cluster::{
    self, Admission, Answer, Broker, Certificate, Claim, Container, Deletion, External, LastExit, Membership, Move,
    Object, Observation, Partitions, Pod, Presence, ReclaimPolicy, Refused, Resize, StatefulSet, Unschedulable,
    diagnosis,
};
use rivven_fsm::{Kind, Phase};

const CASES: u32 = 8_000;

/// Runs the cases and prints how many there were.
fn check<S: Strategy>(name: &str, strategy: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let ran = Cell::new(0_u32);
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&strategy, |value| {
        ran.set(ran.get() + 1);
        test(value)
    });
    println!("{name}: cases: {}", ran.get());
    assert!(outcome.is_ok(), "{name}: {}", outcome.err().map_or_else(String::new, |e| e.to_string()));
    assert!(ran.get() >= CASES, "{name}: only {} cases", ran.get());
}

fn phase() -> impl Strategy<Value = Option<Phase>> {
    option::of(proptest::sample::select(Phase::ALL.to_vec()))
}

fn revision() -> impl Strategy<Value = String> {
    proptest::sample::select(vec!["old", "new", ""]).prop_map(ToOwned::to_owned)
}

fn container() -> impl Strategy<Value = Container> {
    let reason = proptest::sample::select(vec![
        "CrashLoopBackOff",
        "ErrImagePull",
        "ImagePullBackOff",
        "CreateContainerConfigError",
        "ContainerCreating",
        "",
        "NeverSeenBefore",
    ]);
    prop_oneof![
        Just(Container::Unreported),
        Just(Container::Running),
        Just(Container::Terminated),
        (reason, ".{0,20}").prop_map(|(reason, message)| Container::Waiting { reason: reason.to_owned(), message }),
    ]
}

fn pod() -> impl Strategy<Value = Pod> {
    let exit = (any::<i32>(), proptest::sample::select(vec!["Error", "OOMKilled", "Completed"]), ".{0,20}")
        .prop_map(|(code, reason, log)| LastExit { code, reason: reason.to_owned(), log });
    let unschedulable = (".{0,20}", -100_000..100_000_i64)
        .prop_map(|(message, ago)| Unschedulable { message, since: now() - Duration::seconds(ago) });
    (
        "[a-z0-9-]{0,8}",
        revision(),
        prop::bool::weighted(0.7),
        prop::bool::weighted(0.1),
        option::weighted(0.1, unschedulable),
        option::weighted(0.1, ".{0,10}"),
        container(),
        any::<u32>(),
        option::weighted(0.3, exit),
    )
        .prop_map(|(uid, revision, ready, terminating, unschedulable, failed, container, restarts, last_exit)| {
            let ready_since = ready.then(|| now() - Duration::seconds(i64::from(restarts % 60)));
            let (created, restart_asked) = (now() - Duration::seconds(i64::from(restarts % 1_000)), restarts % 7 == 0);
            Pod {
                uid,
                revision,
                ready,
                ready_since,
                created,
                restart_asked,
                held: (restarts % 11 == 0).then(|| "a budget".to_owned()),
                orphan: restarts % 3 == 0,
                terminating,
                unschedulable,
                failed,
                container,
                restarts,
                last_exit,
            }
        })
}

fn membership() -> impl Strategy<Value = Membership> {
    let some = || prop::collection::btree_set(0..6_u32, 0..6);
    let of = (some(), prop::collection::btree_set(0..6_u32, 0..2), vec("[a-z]{1,3}", 0..2))
        .prop_map(|(voters, learners, foreign)| Membership::Of { voters, learners, foreign });
    let all = (1..6_u32).prop_map(common::members);
    prop_oneof![1 => Just(Membership::Alone), 2 => Just(Membership::Unknown), 2 => of, 4 => all]
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        1 => Just(Answer::NotAsked),
        1 => ".{0,10}".prop_map(|why| Answer::Silent { why }),
        6 => (prop::bool::weighted(0.8), ".{0,6}", ".{0,6}", any::<bool>(), membership()).prop_map(
            |(healthy, version, node_id, leader, membership)| Answer::Said {
                healthy,
                version,
                node_id,
                leader,
                membership,
            }
        ),
    ]
}

fn claim() -> impl Strategy<Value = Claim> {
    (
        "[a-z0-9-]{1,8}",
        "[a-z0-9]{1,8}",
        prop::bool::weighted(0.8),
        any::<bool>(),
        prop::bool::weighted(0.1),
        any::<u64>(),
        option::weighted(0.3, -10..10_i64),
    )
        .prop_map(|(name, uid, ours, bound, deleting, requested, empty)| Claim {
            name,
            uid,
            ours,
            bound,
            deleting,
            requested,
            asked: Some(requested).filter(|requested| requested % 3 == 0),
            resize: match requested % 5 {
                0 => Resize::Failed { why: "no space".to_owned() },
                1 => Resize::FileSystem,
                _ => Resize::Silent,
            },
            refused: (requested % 11 == 0)
                .then(|| Refused { words: "exceeded quota".to_owned(), retry: requested % 2 == 0 }),
            capacity: bound.then_some(if requested % 4 == 0 { requested } else { requested / 2 }),
            empty_since: empty.map(|ago| now() - Duration::seconds(ago)),
        })
}

/// No two claims have one name, and without a pod there is nobody to answer.
fn numbered(ordinal: u32, broker: Broker) -> Broker {
    let claim = broker.claim.map(|claim| Claim { name: format!("{}-{ordinal}", claim.name), ..claim });
    let answer = if broker.pod.is_some() { broker.answer } else { Answer::NotAsked };
    Broker { ordinal, claim, answer, ..broker }
}

fn broker() -> impl Strategy<Value = Broker> {
    let external = (vec("[a-z]{1,5}:9292", 0..2), any::<bool>())
        .prop_map(|(addresses, balanced)| External { addresses, balanced });
    let parts = (option::weighted(0.9, pod()), answer(), option::weighted(0.9, claim()), option::of(external));
    parts.prop_map(|(pod, answer, claim, external)| Broker { ordinal: 0, pod, answer, claim, external })
}

fn presence() -> impl Strategy<Value = Presence> {
    prop_oneof![
        40 => Just(Presence::Current),
        2 => Just(Presence::Missing),
        2 => Just(Presence::Drifted),
        1 => Just(Presence::Deleting),
        2 => "[a-z]{1,3}".prop_map(|uid| Presence::Unwanted { uid }),
        1 => ".{0,10}".prop_map(|owner| Presence::Foreign { owner }),
        1 => ".{0,10}".prop_map(|why| Presence::Unknown { why }),
    ]
}

fn partitions() -> impl Strategy<Value = Partitions> {
    let brokers = proptest::sample::subsequence(vec![0, 1, 2, 3, 4, 5, ELSEWHERE], 0..5).prop_shuffle();
    let partition = ("[a-z]{0,3}", any::<u32>(), option::weighted(0.9, 0..7_u32), brokers, 0..5_usize, 0..4_u32)
        .prop_map(|(topic, id, leader, replicas, behind, min_in_sync)| Partition {
            topic: topic.into(),
            id,
            leader,
            in_sync: replicas.iter().skip(behind.saturating_sub(2)).copied().collect(),
            replicas,
            min_in_sync,
        });
    prop_oneof![
        2 => Just(Partitions::Unreplicated),
        1 => ".{0,10}".prop_map(|why| Partitions::Unknown { why }),
        4 => vec(partition, 0..6).prop_map(|all| Partitions::Known(all.into())),
    ]
}

/// As the operator writes it, of the past, or forged.
fn moved() -> impl Strategy<Value = Move> {
    ("[a-z]{0,3}", 0..4_u32, 0..7_u32, 0..7_u32, 0..5_u32).prop_map(|(topic, partition, from, to, copies)| Move {
        topic: topic.into(),
        partition,
        from,
        to,
        copies,
    })
}

/// What comes and goes with the spec.
const OUTSIDE: [Object; 3] = [Object::ExternalService(0), Object::ExternalService(7), Object::Ingress];

fn observation() -> impl Strategy<Value = Observation> {
    let deletion = (any::<bool>(), -100_000..100_000_i64).prop_map(|(keep, ago)| Deletion {
        requested_at: now() - Duration::seconds(ago),
        reclaim: if keep { ReclaimPolicy::Retain } else { ReclaimPolicy::Delete },
    });
    let admission = prop_oneof![
        6 => Just(Admission::Accepted),
        1 => Just(Admission::Kept(vec![refusal()])),
        1 => Just(Admission::Refused(vec![refusal(), refusal()])),
    ];
    let set = (option::weighted(0.9, revision()), 0..7_u32, prop::bool::weighted(0.1)).prop_map(
        |(update_revision, replicas, deleting)| StatefulSet {
            uid: "set".to_owned(),
            replicas,
            update_revision,
            claim_bytes: 1 << 30,
            proven: replicas % 2 == 0,
            deleting,
        },
    );
    (
        (phase(), option::weighted(0.2, deletion), prop::bool::weighted(0.9), prop::bool::weighted(0.1), any::<bool>()),
        admission,
        vec(presence(), Object::ALL.len() + OUTSIDE.len()),
        option::weighted(0.9, set),
        vec(broker(), 0..7),
        0..6_u32,
        vec("[a-z]{1,5}", 0..3),
        (partitions(), any::<bool>(), vec(moved(), 0..4), any::<bool>(), any::<bool>()),
    )
        .prop_map(|(head, admission, objects, stateful_set, brokers, replicas, dependents, scaling)| {
            let (partitions, formed, moves, rebalance, keep) = scaling;
            Observation {
                seen_at: now(),
                windows: Vec::new(),
                min_ready: std::time::Duration::from_secs(30),
                recorded: head.0,
                deletion: head.1,
                finalizer: head.2,
                paused: head.3,
                adopt_volumes: head.4,
                admission,
                certificate: (replicas % 2 == 0).then(|| Certificate {
                    awaited: (head.0 == Some(Phase::Pending)).then(|| "why".to_owned()),
                    ends_soon: rebalance,
                }),
                objects: Object::ALL.into_iter().chain(OUTSIDE).zip(objects).collect(),
                stateful_set,
                brokers: (0..).zip(brokers).map(|(ordinal, broker)| numbered(ordinal, broker)).collect(),
                replicas,
                storage_bytes: 1 << 30,
                capabilities: clustered(),
                dependents,
                partitions,
                formed,
                moves,
                rebalance,
                scale_in: if keep { ReclaimPolicy::Retain } else { ReclaimPolicy::Delete },
            }
        })
}

#[test]
fn any_observation_of_a_cluster_is_decided_safely() {
    check("cluster", observation(), |o| {
        let decision = cluster::decide(&o, now());
        prop_assert_eq!(&decision, &cluster::decide(&o, now()));
        common::cluster_holds(&o, &decision).map_err(TestCaseError::fail)?;
        let erased = cluster::decide(&Observation { recorded: None, ..o }, now());
        prop_assert_eq!(decision.steps, erased.steps);
        prop_assert_eq!(decision.requeue.is_some() || erased.requeue.is_some(), erased.requeue.is_some());
        Ok(())
    });
}

#[test]
fn brokers_beyond_the_wanted_number_change_nothing_about_a_restart() {
    check("beyond", observation(), |mut o| {
        let wanted = o.replicas as usize;
        let with = cluster::rollout::plan(&o);
        o.brokers.truncate(wanted);
        prop_assert_eq!(with, cluster::rollout::plan(&o));
        Ok(())
    });
}

#[test]
fn a_failed_step_leaves_a_decision_that_may_be_recorded() {
    check("failed", (observation(), ".{0,20}"), |(o, error)| {
        let decision = cluster::decide(&o, now());
        for step in &decision.steps {
            let failed = cluster::step_failed(&decision, step, &error);
            prop_assert!(failed.refused.is_none() && failed.steps.is_empty());
            prop_assert!(Kind::Cluster.table().allows(Some(decision.phase), failed.phase));
            sound(Kind::Cluster, Some(decision.phase), o.deletion.is_some(), &failed).map_err(TestCaseError::fail)?;
        }
        Ok(())
    });
}

#[test]
fn a_diagnosis_always_names_the_broker_and_never_ends_in_nothing() {
    check("diagnosis", (broker(), 0..100_u32), |(broker, ordinal)| {
        let broker = Broker { ordinal, ..broker };
        match diagnosis::diagnose(&broker, now()) {
            diagnosis::Health::Well => prop_assert!(broker.pod.is_some_and(|pod| pod.is_up())),
            diagnosis::Health::Coming(_, message) | diagnosis::Health::Trouble(_, message) => {
                prop_assert!(message.contains(&ordinal.to_string()));
            }
        }
        Ok(())
    });
}

#[test]
fn any_text_is_a_version_or_not() {
    check("version", ".{0,20}", |text| {
        let _ = cluster::admission::version_key(&text);
        Ok(())
    });
    check("version parts", any::<[u64; 3]>(), |[a, b, c]| {
        prop_assert_eq!(cluster::admission::version_key(&format!("{a}.{b}.{c}")), Some([a, b, c]));
        Ok(())
    });
}

#[test]
fn every_hop_is_an_edge_and_hops_arrive_or_are_refused() {
    let mut pairs = 0;
    for kind in Kind::ALL {
        let table = kind.table();
        for from in common::phases() {
            assert_eq!(table.next_hop(from, Phase::Terminating), Ok(Phase::Terminating));
            for target in Phase::ALL {
                pairs += 1;
                let mut at = from;
                let mut hops = 0;
                while at != Some(target) {
                    match table.next_hop(at, target) {
                        Ok(next) => {
                            assert!(table.allows(at, next), "{kind}: {at:?} to {next}");
                            assert_ne!(at, Some(next), "{kind}: a hop that stays on the way to {target}");
                            at = Some(next);
                        }
                        Err(refused) => {
                            assert_eq!((refused.kind, refused.from, refused.to), (kind, at, target));
                            assert!(!table.allows(at, target));
                            break;
                        }
                    }
                    hops += 1;
                    assert!(hops <= Phase::ALL.len(), "{kind}: {from:?} to {target} goes round");
                }
            }
        }
        for target in Phase::ALL.into_iter().filter(|target| *target != Phase::Terminating) {
            assert!(table.next_hop(Some(Phase::Terminating), target).is_err(), "{kind}: a way out of Terminating");
        }
    }
    println!("transition tables: pairs: {pairs}");
    assert_eq!(pairs, 3 * 8 * 7);
}

#[test]
fn every_edge_is_listed_once_and_every_phase_can_be_reached() {
    for kind in Kind::ALL {
        let table = kind.table();
        for (index, edge) in table.edges.iter().enumerate() {
            assert!(!edge.when.is_empty());
            assert_ne!(edge.to, Phase::Terminating, "{kind}: Terminating is part of every table");
            assert!(
                table.edges[index + 1..].iter().all(|other| (other.from, other.to) != (edge.from, edge.to)),
                "{kind}: {edge:?} twice"
            );
        }
        for target in Phase::ALL {
            assert!(table.next_hop(None, target).is_ok(), "{kind}: {target} cannot be reached");
        }
    }
}
