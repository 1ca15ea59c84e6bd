//! Every guard refuses what it is for, lets the rest pass, and is missed when it is taken out. Every reason says
//! something and is said by something.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{State, cluster, clustered, knows, members, now, partition, standalone};
use rivven_fsm::cluster::formation::{self, Formation};
use rivven_fsm::cluster::rollout::{self, Rollout};
use rivven_fsm::cluster::{
    Answer, Candidate, Container, Membership, Observation, Partitions, Prerequisite, Step, Wish, admission, decide,
};
use rivven_fsm::guard::Guard;
use rivven_fsm::{Decision, Reason, topic};

/// The guards but one.
fn without<O>(guards: &[Guard<O>], reason: Reason) -> Vec<Guard<O>> {
    guards
        .iter()
        .filter(|guard| guard.reason != reason)
        .map(|guard| Guard { reason: guard.reason, refuses: guard.refuses })
        .collect()
}

/// Each guard has a case; it alone refuses the case, and with it taken out the outcome is another.
fn every_guard_is_missed<O, T: PartialEq + std::fmt::Debug>(
    name: &str,
    guards: &[Guard<O>],
    cases: &[(Reason, O)],
    passing: &O,
    outcome: impl Fn(&[Guard<O>], &O) -> T,
) {
    let known: BTreeSet<Reason> = guards.iter().map(|guard| guard.reason).collect();
    assert_eq!(known.len(), guards.len(), "{name}: one guard, one reason");
    let tested: BTreeSet<Reason> = cases.iter().map(|(reason, _)| *reason).collect();
    assert_eq!(known, tested, "{name}: every guard needs a case, and every case a guard");
    let mut killed = BTreeSet::new();
    for guard in guards {
        assert_eq!(guard.check(passing), None, "{name}: {} refuses what is well", guard.reason);
    }
    for (reason, case) in cases {
        let refusing: Vec<Reason> = guards.iter().filter_map(|g| g.check(case)).map(|r| r.reason).collect();
        assert_eq!(refusing, [*reason], "{name}: who refuses the case of {reason}");
        for refusal in guards.iter().filter_map(|g| g.check(case)) {
            assert!(refusal.message.len() > 10, "{reason} says nothing: {:?}", refusal.message);
        }
        if outcome(guards, case) != outcome(&without(guards, *reason), case) {
            killed.insert(*reason);
        }
    }
    println!("{name}: guards killed: {}/{}", killed.len(), guards.len());
    assert_eq!(killed, known, "{name}: a guard that nobody misses");
}

fn wish() -> Wish {
    Wish {
        replicas: 1,
        version: "0.0.22".to_owned(),
        storage_bytes: 1 << 30,
        storage_class: String::new(),
        tls: false,
        auth: false,
        problems: Vec::new(),
        unsupported: Vec::new(),
    }
}

fn candidate(change: impl FnOnce(&mut Candidate)) -> Candidate {
    let mut candidate =
        Candidate { wish: wish(), accepted: Some(wish()), capabilities: standalone(), prerequisites: Vec::new() };
    change(&mut candidate);
    candidate
}

fn secret(present: Option<bool>) -> Vec<Prerequisite> {
    vec![Prerequisite { what: "Secret x".to_owned(), present }]
}

#[test]
fn each_guard_on_a_spec_is_missed_when_it_is_taken_out() {
    let cases = [
        (Reason::InvalidSpec, candidate(|c| c.wish.problems = vec!["replicas: must be odd".to_owned()])),
        (
            Reason::BrokerCannotCluster,
            candidate(|c| (c.capabilities, c.wish.replicas, c.accepted) = (standalone(), 3, None)),
        ),
        (Reason::BrokerCannotServeTls, candidate(|c| (c.capabilities, c.wish.tls) = (standalone(), true))),
        (Reason::BrokerCannotAuthenticate, candidate(|c| (c.capabilities, c.wish.auth) = (standalone(), true))),
        (Reason::NotSupportedByOperator, candidate(|c| c.wish.unsupported = vec!["tls.issuer: later".to_owned()])),
        (Reason::NotSupportedByOperator, candidate(|c| c.wish.storage_bytes = 2 << 30)),
        (Reason::NotSupportedByOperator, candidate(|c| (c.capabilities, c.wish.tls) = (clustered(), true))),
        (Reason::NotSupportedByOperator, candidate(|c| (c.capabilities, c.wish.auth) = (clustered(), true))),
        (Reason::PrerequisiteMissing, candidate(|c| c.prerequisites = secret(Some(false)))),
        (Reason::PrerequisiteMissing, candidate(|c| c.prerequisites = secret(None))),
        (Reason::StorageShrinkRefused, candidate(|c| c.wish.storage_bytes = 1)),
        (Reason::StorageClassChangeRefused, candidate(|c| c.wish.storage_class = "fast".to_owned())),
        (Reason::ScaleRefused, candidate(|c| c.accepted = Some(Wish { replicas: 3, ..wish() }))),
        (Reason::DowngradeRefused, candidate(|c| c.wish.version = "v0.0.21".to_owned())),
    ];
    every_guard_is_missed("spec", admission::GUARDS, &cases, &candidate(|_| {}), admission::admit_with);
    for (reason, mut case) in cases {
        case.accepted = None;
        assert!(!matches!(admission::admit(&case), admission::Admission::Kept(_)), "{reason}: nothing to keep");
    }
}

#[test]
fn what_a_guard_on_a_spec_must_let_pass() {
    let passes = [
        candidate(|c| c.prerequisites = secret(Some(true))),
        candidate(|c| c.accepted = None),
        candidate(|c| c.wish.version = "0.0.23".to_owned()),
        candidate(|c| c.wish.version = "0.0.100".to_owned()),
        candidate(|c| (c.wish.version, c.capabilities) = ("latest".to_owned(), clustered())),
        candidate(|c| (c.wish.replicas, c.accepted, c.capabilities) = (3, None, clustered())),
        candidate(|c| (c.wish.version, c.capabilities) = ("0.1.0".to_owned(), clustered())),
    ];
    for passing in &passes {
        assert_eq!(admission::admit(passing), admission::Admission::Accepted, "{passing:?}");
    }
    println!("specs accepted: {}", passes.len());
}

#[test]
fn versions_are_compared_as_numbers() {
    let keys = [
        ("0.1.0", Some([0, 1, 0])),
        ("v0.10.2", Some([0, 10, 2])),
        ("latest", None),
        ("0.1", None),
        ("0.1.0-rc.1", None),
        ("0.1.0.0", None),
        ("", None),
        ("sha256:12", None),
    ];
    for (version, key) in keys {
        assert_eq!(admission::version_key(version), key, "{version}");
    }
}

fn rolling(states: &[State], change: impl FnOnce(&mut Observation)) -> Observation {
    let mut observed = cluster(states);
    change(&mut observed);
    observed
}

/// Broker 0 is to restart, and these are in sync.
fn partitions(in_sync: &[u32]) -> Observation {
    let known = Partitions::Known([partition(0, &[0, 1, 2], in_sync, 2)].into());
    rolling(&[State::OutdatedWell, State::Well, State::Well], |o| o.partitions = known)
}

#[test]
fn each_guard_on_a_restart_is_missed_when_it_is_taken_out() {
    use State::{OutdatedWell as Old, Well};
    let unheard = |o: &mut Observation| {
        o.brokers[0].answer = Answer::Silent { why: "timeout".to_owned() };
    };
    let cases = [
        (Reason::Paused, rolling(&[Old, Well, Well], |o| o.paused = true)),
        (
            Reason::BrokerRestarting,
            rolling(&[Old, Well, Well], |o| o.brokers[0].pod.as_mut().unwrap().terminating = true),
        ),
        (Reason::BrokerSilent, rolling(&[Old, Well, Well], unheard)),
        (Reason::AnotherBrokerDown, rolling(&[Old, State::Absent, Well], |_| {})),
        (Reason::AnotherBrokerDown, rolling(&[Old, State::Silent, Well], |_| {})),
        (Reason::AnotherBrokerDown, rolling(&[Old, State::Unasked, Well], |_| {})),
        (Reason::AnotherBrokerDown, rolling(&[Old, State::CrashLoop, Well], |_| {})),
        (
            Reason::PartitionsUnknown,
            rolling(&[Old, Well, Well], |o| o.partitions = Partitions::Unknown { why: "timeout".to_owned() }),
        ),
        (Reason::BrokersStarting, rolling(&[State::OutdatedBroken, State::Starting, Well], |_| {})),
        (Reason::BrokersStarting, rolling(&[State::OutdatedBroken, State::Absent, Well], |_| {})),
        (Reason::BrokersStarting, rolling(&[State::OutdatedBroken, State::Terminating, Well], |_| {})),
        (Reason::ReplicaOutOfSync, partitions(&[0, 1])),
        (Reason::ReplicaOutOfSync, partitions(&[1])),
        (Reason::ReplicaOutOfSync, partitions(&[])),
    ];
    // The broker itself may be behind: its restart may be what mends it.
    assert!(matches!(rollout::plan(&partitions(&[1, 2])), Rollout::Restart(_)));
    let passing = partitions(&[0, 1, 2]);
    assert!(matches!(rollout::plan(&passing), Rollout::Restart(_)));
    every_guard_is_missed("restart", rollout::GUARDS, &cases, &passing, rollout::plan_with);
}

/// Three brokers that answer and were never told of each other.
fn unformed(change: impl FnOnce(&mut Observation)) -> Observation {
    let mut observed = cluster(&[State::Well; 3]);
    observed.formed = false;
    for ordinal in 0..3 {
        knows(&mut observed, ordinal, Membership::Unknown);
    }
    change(&mut observed);
    observed
}

#[test]
fn each_guard_on_a_bootstrap_is_missed_when_it_is_taken_out() {
    let foreign = || Membership::Of { voters: [0].into(), foreign: vec!["rivven-other-1".to_owned()] };
    let cases = [
        (Reason::BrokersStarting, unformed(|o| o.brokers[2].answer = Answer::NotAsked)),
        (Reason::BrokersStarting, unformed(|o| o.brokers[1].answer = Answer::Silent { why: "timeout".to_owned() })),
        (Reason::BrokersStarting, unformed(|o| drop(o.brokers.pop()))),
        (Reason::Forming, unformed(|o| knows(o, 1, members(3)))),
        (Reason::MembershipLost, unformed(|o| o.formed = true)),
    ];
    let passing = unformed(|_| {});
    assert!(matches!(formation::plan(&passing), Formation::Next(Step::Bootstrap { founder: 0 }, _)));
    let guards: Vec<Guard<Observation>> = without(formation::GUARDS, Reason::StaleVolume);
    every_guard_is_missed("bootstrap", &guards, &cases, &passing, formation::plan_with);

    // A volume from elsewhere is told of members too; taken for what it is, it is broken and not waited for.
    let stale = unformed(|o| knows(o, 1, foreign()));
    assert!(matches!(formation::plan(&stale), Formation::Broken(blocked) if blocked.reason == Reason::StaleVolume));
    let missed = formation::plan_with(&guards, &stale);
    assert!(matches!(missed, Formation::Waiting(blocked) if blocked.reason == Reason::Forming));
}

#[test]
fn brokers_that_run_alone_are_not_formed() {
    let alone = unformed(|o| o.capabilities = standalone());
    assert_eq!(formation::plan(&alone), Formation::Complete);
}

#[test]
fn a_broker_that_is_down_itself_restarts_although_another_is_down() {
    use State::{CrashLoop, OutdatedBroken, OutdatedWell};
    let observed = cluster(&[OutdatedBroken, CrashLoop, OutdatedWell]);
    let Rollout::Restart(step) = rollout::plan(&observed) else { unreachable!("{:?}", rollout::plan(&observed)) };
    assert_eq!(step, Step::RestartPod { ordinal: 0, uid: "pod-0".to_owned() });
}

#[test]
fn one_end_is_no_loop() {
    let mut observed = cluster(&[State::CrashLoop, State::Well, State::Well]);
    assert_eq!(decide(&observed, now()).reason, Reason::CrashLoop);
    observed.brokers[0].pod.as_mut().unwrap().container = Container::Terminated;
    let decision = decide(&observed, now());
    assert_eq!(decision.reason, Reason::BrokerExited);
    assert!(decision.message.contains("no such option"), "its last words: {}", decision.message);
}

#[test]
fn the_leader_restarts_last_and_the_broken_one_first() {
    use State::{OutdatedBroken, OutdatedWell};
    let mut observed = cluster(&[OutdatedWell, OutdatedBroken, OutdatedWell]);
    let mut order = Vec::new();
    while let Some(ordinal) = rollout::next(&observed).map(|(broker, _)| broker.ordinal) {
        order.push(ordinal);
        observed.brokers[ordinal as usize].pod.as_mut().unwrap().revision = common::WANTED.to_owned();
    }
    assert_eq!(order, [1, 0, 2]);
}

fn a_topic(change: impl FnOnce(&mut topic::Observation)) -> topic::Observation {
    let mut observed = topic::Observation {
        recorded: Some(rivven_fsm::Phase::Ready),
        deletion: None,
        finalizer: true,
        wish: topic::Wish {
            topic: "t".to_owned(),
            partitions: 3,
            replication: 1,
            config: BTreeMap::new(),
            acls: false,
            problems: Vec::new(),
        },
        cluster: topic::Cluster::Ready { uid: "here".to_owned(), replicates: false, brokers: 3, acls: false },
        mark: Some("here".to_owned()),
        adopt: false,
        older: None,
        seen: topic::Seen::Present { partitions: 3, replication: Some(1), config: BTreeMap::new() },
    };
    change(&mut observed);
    observed
}

#[test]
fn each_guard_on_a_topic_is_missed_when_it_is_taken_out() {
    let cases = [
        (Reason::InvalidSpec, a_topic(|o| o.wish.problems = vec!["topicName: empty".to_owned()])),
        (Reason::BrokerCannotReplicate, a_topic(|o| (o.wish.replication, o.seen) = (2, topic::Seen::Absent))),
        (
            Reason::NotEnoughBrokers,
            a_topic(|o| {
                o.cluster = topic::Cluster::Ready { uid: "here".to_owned(), replicates: true, brokers: 3, acls: false };
                (o.wish.replication, o.seen) = (4, topic::Seen::Absent);
            }),
        ),
        (Reason::TopicConflict, a_topic(|o| o.older = Some("ns/older".to_owned()))),
        (Reason::TopicExists, a_topic(|o| o.mark = None)),
        (Reason::TopicExists, a_topic(|o| o.mark = Some("gone".to_owned()))),
        (Reason::PartitionShrinkRefused, a_topic(|o| o.wish.partitions = 2)),
        (
            Reason::ReplicationChangeRefused,
            a_topic(|o| {
                o.cluster = topic::Cluster::Ready { uid: "here".to_owned(), replicates: true, brokers: 3, acls: false };
                o.wish.replication = 2;
            }),
        ),
    ];
    let passing = a_topic(|_| {});
    assert_eq!(topic::decide(&passing, now()).reason, Reason::AsWanted);
    let outcome = |guards: &[Guard<topic::Observation>], o: &topic::Observation| -> Decision<topic::Step> {
        topic::decide::decide_with(guards, o, now())
    };
    every_guard_is_missed("topic", topic::decide::GUARDS, &cases, &passing, outcome);
}

/// Reasons that nothing here says, and why they exist.
const RESERVED: [(Reason, &str); 1] = [(Reason::NameTooLong, "said where specs are read, before a decision")];

#[test]
fn every_reason_is_said_by_something() {
    let sources = [
        include_str!("../src/cluster/admission.rs"),
        include_str!("../src/cluster/decide.rs"),
        include_str!("../src/cluster/diagnosis.rs"),
        include_str!("../src/cluster/formation.rs"),
        include_str!("../src/cluster/partitions.rs"),
        include_str!("../src/cluster/rollout.rs"),
        include_str!("../src/cluster/teardown.rs"),
        include_str!("../src/connect/mod.rs"),
        include_str!("../src/decision.rs"),
        include_str!("../src/topic/decide.rs"),
    ]
    .concat();
    let said: BTreeSet<&str> = sources
        .split("Reason::")
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default())
        .collect();
    for reason in Reason::ALL {
        let reserved = RESERVED.iter().any(|(other, _)| other == reason);
        assert!(said.contains(reason.as_str()) != reserved, "{reason}: said or reserved, and not both");
    }
    println!("reasons: {}, reserved: {}", Reason::ALL.len(), RESERVED.len());
}

#[test]
fn every_reason_has_a_code_a_meaning_and_a_way_out() {
    let mut codes = BTreeSet::new();
    for reason in Reason::ALL {
        let code = reason.as_str();
        assert!(codes.insert(code), "{code} twice");
        assert!(code.starts_with(|c: char| c.is_ascii_uppercase()), "{code} is not CamelCase");
        assert!(code.chars().all(|c| c.is_ascii_alphanumeric()), "{code} is not CamelCase");
        for text in [reason.meaning(), reason.remedy()] {
            let text = text.trim();
            assert!(text.len() > 4 && text.ends_with('.'), "{code}: {text:?} is not a sentence");
        }
    }
}
