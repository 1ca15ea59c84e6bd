//! Every guard refuses what it is for, lets the rest pass, and is missed when it is taken out. Every reason says
//! something and is said by something.

mod common;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use common::connects::ConnectWorld;
use common::{State, cluster, clustered, knows, members, now, partition, standalone};
use rivven_fsm::cluster::{self, formation};
use rivven_fsm::cluster::{
    Answer, Broker, Candidate, Capabilities, Certificate, Container, External, Leadership, Membership, Move, Object,
    Observation, Partitions, Plan, Prerequisite, Presence, Step, Wish, admission, decide,
};
use rivven_fsm::cluster::{rollout, scale};
use rivven_fsm::guard::Guard;
use rivven_fsm::window::Window;
use rivven_fsm::{ConditionStatus, ConditionType, Decision, Phase, Reason, connect, topic};

/// The guards but one.
fn without<O>(guards: &[Guard<O>], reason: Reason) -> Vec<Guard<O>> {
    guards
        .iter()
        .filter(|guard| guard.reason != reason)
        .map(|guard| Guard { reason: guard.reason, refuses: guard.refuses })
        .collect()
}

thread_local! {
    /// How many guards were missed when they were taken out, in the tests that ran on this thread.
    static KILLED: Cell<usize> = const { Cell::new(0) };
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
    KILLED.set(KILLED.get() + killed.len());
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
    let mut candidate = Candidate {
        accepted: Some(wish()),
        provisioned_bytes: Some(1 << 30),
        ..Candidate::first(wish(), standalone())
    };
    change(&mut candidate);
    candidate
}

/// A cluster of so many brokers, of which so many are asked for.
fn scaled(from: u32, to: u32, change: impl FnOnce(&mut Candidate)) -> Candidate {
    candidate(|c| {
        c.capabilities = Capabilities { tls: false, auth: false, ..clustered() };
        c.clusters = true;
        c.wish.replicas = to;
        c.accepted = Some(Wish { replicas: from, ..wish() });
        c.partitions = on(&[]);
        change(c);
    })
}

/// Partitions with these replicas, all in sync.
fn on(replicas: &[&[u32]]) -> Partitions {
    let one = |(id, replicas): (u32, &&[u32])| partition(id, replicas, replicas, 1);
    Partitions::Known((0..).zip(replicas).map(one).collect())
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
        (Reason::CertificateInvalid, candidate(|c| c.certificate_problem = Some("Secret x has no tls.crt".to_owned()))),
        (Reason::CertificateNotTrusted, candidate(|c| c.certificate_divides = Some("unknown issuer".to_owned()))),
        (Reason::TlsSwitchRefused, candidate(|c| (c.capabilities, c.clusters, c.wish.tls) = (clustered(), true, true))),
        (Reason::PrerequisiteMissing, candidate(|c| c.prerequisites = secret(Some(false)))),
        (Reason::PrerequisiteMissing, candidate(|c| c.prerequisites = secret(None))),
        (Reason::StorageShrinkRefused, candidate(|c| c.wish.storage_bytes = 1)),
        (Reason::StorageClassChangeRefused, candidate(|c| c.wish.storage_class = "fast".to_owned())),
        (Reason::ScaleRefused, scaled(5, 2, |c| c.partitions = on(&[&[0, 1], &[0, 3, 4]]))),
        (Reason::ScaleRefused, scaled(3, 2, |c| c.partitions = Partitions::Unknown { why: "timeout".to_owned() })),
        (Reason::ScaleRefused, scaled(3, 2, |c| c.partitions = Partitions::Unreplicated)),
        (Reason::ScaleRefused, scaled(3, 1, |c| c.capabilities.clustering = false)),
        (Reason::ScaleRefused, scaled(1, 3, |c| c.clusters = false)),
        (Reason::DowngradeRefused, candidate(|c| c.wish.version = "v0.0.21".to_owned())),
        (Reason::VersionSkipRefused, candidate(|c| c.wish.version = "0.2.0".to_owned())),
        (Reason::VersionSkipRefused, candidate(|c| c.wish.version = "1.1.0".to_owned())),
        (Reason::VersionSkipRefused, candidate(|c| c.wish.version = "2.0.0".to_owned())),
        (Reason::RolloutHalted, candidate(|c| c.halted = Some("broker 2 did not come back".to_owned()))),
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
        candidate(|c| c.wish.version = "1.0.0".to_owned()),
        // Growth, and growth that was not provisioned taken back.
        candidate(|c| c.wish.storage_bytes = 2 << 30),
        candidate(|c| c.accepted.iter_mut().for_each(|accepted| accepted.storage_bytes = 9 << 30)),
        // Forced by name, and no other version with it.
        candidate(|c| (c.wish.version, c.forced_version) = ("0.0.1".to_owned(), Some("0.0.1".to_owned()))),
        candidate(|c| (c.wish.version, c.forced_version) = ("0.5.0".to_owned(), Some("0.5.0".to_owned()))),
        scaled(3, 5, |c| c.partitions = Partitions::Unknown { why: "timeout".to_owned() }),
        scaled(5, 3, |c| c.partitions = on(&[&[0, 1, 2], &[2, 3, 4]])),
        scaled(5, 3, |c| {
            c.partitions = on(&[&[0, 1, 2, 4]]);
            c.moves = vec![Move { topic: "orders".into(), partition: 0, from: 4, to: 2, copies: 3 }];
        }),
        scaled(3, 1, |_| {}),
        scaled(1, 3, |_| {}),
    ];
    let other = candidate(|c| (c.wish.version, c.forced_version) = ("0.5.0".to_owned(), Some("0.4.0".to_owned())));
    assert!(matches!(admission::admit(&other), admission::Admission::Kept(_)));
    for passing in &passes {
        assert_eq!(admission::admit(passing), admission::Admission::Accepted, "{passing:?}");
    }
    println!("specs accepted: {}", passes.len());
}

#[test]
fn a_refused_number_names_the_partitions_and_the_smallest_that_is_possible() {
    let refused = scaled(5, 2, |c| c.partitions = on(&[&[0, 1], &[0, 3, 4], &[1, 2, 3, 4]]));
    let refusals = admission::admit(&refused);
    let message = &refusals.refusals()[0].message;
    for part in ["orders/1", "orders/2", "possible is 4"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(!message.contains("orders/0"), "{message}");
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

fn kept(reason: Reason) -> admission::Admission {
    admission::Admission::Kept(vec![rivven_fsm::Refusal { reason, message: "broker 2 did not come back".to_owned() }])
}

/// Broker 1 has been ready for so many seconds, of ten.
fn settled(seconds: i64) -> Observation {
    rolling(&[State::OutdatedWell, State::Well, State::Well], |o| {
        o.min_ready = std::time::Duration::from_secs(10);
        let since = now() - chrono::Duration::seconds(seconds);
        o.brokers[1].pod.iter_mut().for_each(|pod| pod.ready_since = Some(since));
    })
}

/// A window that opens in `hours`.
fn nightly(at: chrono::DateTime<chrono::Utc>, hours: i64) -> Window {
    let opens = at + chrono::Duration::hours(hours);
    Window { schedule: opens.format("%M %H * * *").to_string(), time_zone: "UTC".to_owned(), minutes: 30 }
}

fn never() -> Window {
    Window { schedule: "0 2 31 2 *".to_owned(), time_zone: "UTC".to_owned(), minutes: 30 }
}

#[test]
fn time_alone_is_waited_for_as_long_as_it_takes_and_holds_no_healing_back() {
    use State::{OutdatedBroken as Broken, OutdatedWell as Old, Well};
    let wait = |o: &Observation| match rollout::plan(o) {
        Plan::Waiting(_, again) => again.map(|wait| wait.as_secs()),
        other => panic!("{other:?}"),
    };
    assert_eq!(wait(&settled(3)), Some(7));
    let mut closed = rolling(&[Old, Well, Well], |o| o.windows = vec![nightly(now(), 3), never()]);
    assert_eq!(wait(&closed), Some(3 * 3600));
    let decision = decide(&closed, now());
    assert_eq!((decision.phase, decision.reason), (rivven_fsm::Phase::Upgrading, Reason::OutsideMaintenanceWindow));
    assert!(decision.message.contains("1970") || decision.message.contains("opens at"), "{}", decision.message);
    closed.seen_at += chrono::Duration::hours(3);
    assert!(matches!(rollout::plan(&closed), Plan::Next(..)), "open");
    let broken = rolling(&[Broken, Well, Well], |o| {
        (o.windows, o.min_ready) = (vec![never()], std::time::Duration::from_hours(10));
    });
    assert!(matches!(rollout::plan(&broken), Plan::Next(..)), "healing waits for neither");
}

#[test]
fn a_broker_hands_over_what_it_leads_before_it_restarts() {
    use State::{OutdatedWell as Old, Well};
    let led = |id: u32, leader: u32, in_sync: &[u32]| {
        let mut one = partition(id, &[0, 1, 2], in_sync, 2);
        one.leader = Some(leader);
        one
    };
    let mut observed = rolling(&[Well, Well, Old], |o| {
        let all = [0, 1, 2];
        o.partitions = Partitions::Known(vec![led(0, 2, &all), led(1, 2, &all), led(2, 0, &all)].into());
    });
    let elect = |topic: &str, partition, to| Leadership { topic: topic.into(), partition, to };
    let Plan::Next(steps, _) = rollout::plan(&observed) else { panic!() };
    // To who leads the fewest.
    let leaders = vec![elect("orders", 0, 1), elect("orders", 1, 0)];
    assert_eq!(steps, [Step::ElectLeaders { leaders }]);
    let all = [0, 1, 2];
    observed.partitions = Partitions::Known(vec![led(0, 1, &all), led(1, 0, &all), led(2, 0, &all)].into());
    let Plan::Next(steps, _) = rollout::plan(&observed) else { panic!() };
    assert_eq!(steps, [Step::TransferController { to: 0 }]);
    observed.brokers[2].answer = common::said(true, false);
    observed.brokers[0].answer = common::said(true, true);
    let Plan::Next(steps, _) = rollout::plan(&observed) else { panic!() };
    assert_eq!(steps, [Step::RestartPod { ordinal: 2, uid: "pod-2".to_owned() }]);
    assert_eq!(rollout::ahead(&observed).len(), 1);
}

#[test]
fn a_rollout_is_halted_by_what_does_not_come_back_and_by_nothing_else() {
    use State::{CrashLoop, ImagePull, OutdatedWell as Old, Starting, Well};
    let halts = |o: &Observation| match rollout::plan(o) {
        Plan::Next(steps, _) => matches!(steps[..], [Step::HaltRollout { .. }]),
        _ => false,
    };
    for broken in [CrashLoop, ImagePull] {
        assert!(halts(&rolling(&[Old, Old, broken], |_| {})), "{broken:?}");
        assert!(!halts(&rolling(&[Well, Well, broken], |_| {})), "nobody is left to be spared");
        assert!(!halts(&rolling(&[Old, Old, broken], |o| o.stateful_set.as_mut().unwrap().proven = false)));
        assert!(!halts(&rolling(&[Old, Old, broken], |o| o.admission = kept(Reason::RolloutHalted))), "it is");
        assert!(!halts(&rolling(&[Old, Old, broken], |o| o.paused = true)));
    }
    let waiting = |minutes: i64| {
        rolling(&[Old, Old, Starting], |o| {
            o.brokers[2].pod.as_mut().unwrap().created = now() - chrono::Duration::minutes(minutes);
        })
    };
    assert!(!halts(&waiting(9)), "it may still come");
    assert!(halts(&waiting(11)), "too long");
    let pulled = rolling(&[Old, Old, ImagePull], |o| {
        let reason = "ErrImagePull".to_owned();
        o.brokers[2].pod.as_mut().unwrap().container = Container::Waiting { reason, message: String::new() };
    });
    assert!(!halts(&pulled), "the kubelet tries again");
}

#[test]
fn a_restart_that_was_asked_for_happens_also_in_a_halted_rollout() {
    use State::{OutdatedWell as Old, Well};
    let mut observed = rolling(&[Well, Well, Well], |o| o.brokers[1].pod.as_mut().unwrap().restart_asked = true);
    let first = |o: &Observation| match rollout::plan(o) {
        Plan::Next(steps, _) => steps.into_iter().next(),
        _ => None,
    };
    let restart = Some(Step::RestartPod { ordinal: 1, uid: "pod-1".to_owned() });
    assert_eq!(first(&observed), restart);
    observed = rolling(&[Old, Well, Well], |o| o.brokers[1].pod.as_mut().unwrap().restart_asked = true);
    observed.admission = kept(Reason::RolloutHalted);
    assert_eq!(first(&observed), restart);
}

#[test]
fn an_eviction_that_is_held_back_is_tried_again_and_told() {
    use State::{OutdatedWell as Old, Well};
    let words = "the budget of somebody else allows none";
    let held = |o: &mut Observation| o.brokers[0].pod.as_mut().unwrap().held = Some(words.to_owned());
    let decision = decide(&rolling(&[Old, Well, Well], held), now());
    assert_eq!((decision.phase, decision.reason), (rivven_fsm::Phase::Upgrading, Reason::EvictionHeld));
    assert!(decision.message.contains(words), "{}", decision.message);
    assert_eq!(decision.steps, [Step::RestartPod { ordinal: 0, uid: "pod-0".to_owned() }]);
}

#[test]
fn a_load_balancer_without_an_address_is_said_and_holds_nothing_up() {
    let mut observed = cluster(&[State::Well; 3]);
    let external = |balanced, addresses: &[&str]| {
        let addresses = addresses.iter().map(ToString::to_string).collect();
        Some(External { addresses, balanced })
    };
    observed.brokers[0].external = external(true, &["lb.example:9292"]);
    observed.brokers[1].external = external(true, &[]);
    observed.brokers[2].external = external(false, &[]);
    let decision = decide(&observed, now());
    assert_eq!((decision.phase, decision.reason), (rivven_fsm::Phase::Ready, Reason::AsWanted));
    assert_eq!((decision.steps, decision.requeue), (Vec::new(), None), "a watch tells");
    let waits: Vec<_> = decision.blocked_by.iter().map(|b| (b.reason, b.on.as_deref())).collect();
    assert_eq!(waits, [(Reason::ExternalAddressPending, Some("1"))]);
}

#[test]
fn what_lets_clients_in_is_applied_last_and_deleted_when_it_is_wanted_no_more() {
    let mut observed = cluster(&[State::Well; 3]);
    let unwanted = Presence::Unwanted { uid: "service-3".to_owned() };
    observed.objects[0].1 = Presence::Drifted;
    observed.objects.push((Object::ExternalService(0), Presence::Missing));
    observed.objects.push((Object::ExternalService(3), unwanted));
    let delete = Step::DeleteObject { object: Object::ExternalService(3), uid: "service-3".to_owned() };
    let steps = [Step::Apply(Object::AuthSecret), Step::Apply(Object::ExternalService(0)), delete];
    assert_eq!(decide(&observed, now()).steps, steps);
    observed.objects[1].1 = Presence::Foreign { owner: "somebody".to_owned() };
    let held = decide(&observed, now());
    assert_eq!((held.reason, held.steps), (Reason::NameCollision, Vec::new()));
}

#[test]
fn a_refused_change_of_a_cluster_that_is_well_is_seen_at_once() {
    let mut observed = cluster(&[State::Well; 3]);
    observed.admission = kept(Reason::StorageShrinkRefused);
    let decision = decide(&observed, now());
    assert_eq!((decision.phase, decision.reason), (rivven_fsm::Phase::Ready, Reason::StorageShrinkRefused));
    assert!(decision.message.contains("last accepted spec"), "{}", decision.message);
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
        (Reason::RolloutHalted, rolling(&[Old, Well, Well], |o| o.admission = kept(Reason::RolloutHalted))),
        (Reason::BrokerSettling, settled(9)),
        (Reason::OutsideMaintenanceWindow, rolling(&[Old, Well, Well], |o| o.windows = vec![nightly(now(), 1)])),
        (Reason::OutsideMaintenanceWindow, rolling(&[Old, Well, Well], |o| o.windows = vec![never()])),
        (Reason::ReplicaOutOfSync, partitions(&[0, 1])),
        (Reason::ReplicaOutOfSync, partitions(&[1])),
        (Reason::ReplicaOutOfSync, partitions(&[])),
    ];
    // The broker itself may be behind: its restart may be what mends it.
    assert!(matches!(rollout::plan(&partitions(&[1, 2])), Plan::Next(..)));
    let passing = partitions(&[0, 1, 2]);
    assert!(matches!(rollout::plan(&passing), Plan::Next(..)));
    assert!(matches!(rollout::plan(&settled(10)), Plan::Next(..)));
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
    let foreign =
        || Membership::Of { voters: [0].into(), learners: [].into(), foreign: vec!["rivven-other-1".to_owned()] };
    let cases = [
        (Reason::BrokersStarting, unformed(|o| o.brokers[2].answer = Answer::NotAsked)),
        (Reason::BrokersStarting, unformed(|o| o.brokers[1].answer = Answer::Silent { why: "timeout".to_owned() })),
        (Reason::BrokersStarting, unformed(|o| drop(o.brokers.pop()))),
        (Reason::Forming, unformed(|o| knows(o, 1, members(3)))),
        (Reason::MembershipLost, unformed(|o| o.formed = true)),
    ];
    let passing = unformed(|_| {});
    assert!(
        matches!(formation::plan(&passing), Plan::Next(ref steps, _) if steps[..] == [Step::Bootstrap { founder: 0 }])
    );
    let guards: Vec<Guard<Observation>> = without(formation::GUARDS, Reason::StaleVolume);
    every_guard_is_missed("bootstrap", &guards, &cases, &passing, formation::plan_with);

    // A volume from elsewhere is told of members too; taken for what it is, it is broken and not waited for.
    let stale = unformed(|o| knows(o, 1, foreign()));
    assert!(matches!(formation::plan(&stale), Plan::Broken(blocked) if blocked.reason == Reason::StaleVolume));
    let missed = formation::plan_with(&guards, &stale);
    assert!(matches!(missed, Plan::Waiting(blocked, _) if blocked[0].reason == Reason::Forming));
    KILLED.set(KILLED.get() + 1);
}

/// Five brokers of which three are wanted; the highest two are empty. The last but one is where it was seen so before.
fn shrinking(change: impl FnOnce(&mut Observation)) -> Observation {
    let mut observed = cluster(&[State::Well; 5]);
    observed.replicas = 3;
    observed.partitions = on(&[&[0, 1, 2]]);
    for broker in &mut observed.brokers {
        if let Answer::Said { leader, .. } = &mut broker.answer {
            *leader = broker.ordinal == 0;
        }
    }
    if let Some(claim) = &mut observed.brokers[4].claim {
        claim.empty_since = Some(now() - chrono::Duration::seconds(3));
    }
    change(&mut observed);
    observed
}

/// A well broker of the wanted ones is outdated.
fn outdated(o: &mut Observation) {
    if let Some(pod) = &mut o.brokers[1].pod {
        common::OLD.clone_into(&mut pod.revision);
    }
}

#[test]
fn each_guard_on_scaling_is_missed_when_it_is_taken_out() {
    let behind = |replicas: &[u32], in_sync: &[u32]| Partitions::Known([partition(0, replicas, in_sync, 1)].into());
    let down = |o: &mut Observation, ordinal: usize| o.brokers[ordinal].pod.as_mut().unwrap().ready = false;
    let cases = [
        (Reason::MembershipDiffers, shrinking(|o| knows(o, 1, members(4)))),
        (Reason::AnotherBrokerDown, shrinking(|o| down(o, 1))),
        (Reason::AnotherBrokerDown, shrinking(|o| down(o, 3))),
        (Reason::RevisionOutdated, shrinking(outdated)),
        (Reason::PartitionsUnknown, shrinking(|o| o.partitions = Partitions::Unknown { why: "timeout".to_owned() })),
        (Reason::PartitionsUnknown, shrinking(|o| o.partitions = Partitions::Unreplicated)),
        (Reason::ReplicaOutOfSync, shrinking(|o| o.partitions = behind(&[0, 1], &[0]))),
    ];
    let passing = shrinking(|_| {});
    let plan = |guards: &[Guard<Observation>], o: &Observation| scale::plan_in_with(guards, o, now());
    let leaves = Step::ChangeVoters { voters: vec![0, 1, 2, 3] };
    assert!(matches!(scale::plan_in(&passing, now()), Plan::Next(steps, _) if steps == [leaves.clone()]));
    every_guard_is_missed("scaling", scale::GUARDS, &cases, &passing, plan);

    // What leaves may be down, and it may be what others wait for.
    for mended in [
        shrinking(|o| down(o, 4)),
        shrinking(|o| {
            down(o, 4);
            outdated(o);
        }),
    ] {
        assert!(matches!(scale::plan_in(&mended, now()), Plan::Next(steps, _) if steps == [leaves.clone()]));
    }
}

#[test]
fn the_last_replica_is_not_left_behind() {
    let down = |o: &mut Observation| o.brokers[4].pod.as_mut().unwrap().ready = false;
    let only = |in_sync: &[u32]| Partitions::Known([partition(7, &[0, 4], in_sync, 1)].into());
    let stuck = shrinking(|o| {
        down(o);
        o.partitions = only(&[4]);
        o.brokers[4].claim.as_mut().unwrap().empty_since = None;
    });
    // Its other replica is behind, so nothing is begun; alone on the broker, it is named.
    assert!(matches!(scale::plan_in(&stuck, now()), Plan::Waiting(..)));
    let alone = Partitions::Known([partition(7, &[4], &[4], 1)].into());
    let stuck = Observation { partitions: alone, ..stuck };
    let plan = scale::plan_in(&stuck, now());
    assert!(
        matches!(&plan, Plan::Broken(why) if why.reason == Reason::LastReplica && why.message.contains("orders/7")),
        "{plan:?}"
    );
    let other = Observation { partitions: only(&[0]), ..stuck };
    assert!(matches!(scale::plan_in(&other, now()), Plan::Next(steps, _) if steps[0].name() == "NoteMoves"));
}

/// Broker 4 gives its replica of one partition to broker 1.
fn moving(replicas: &[u32], in_sync: &[u32], note: (u32, u32, u32)) -> Plan {
    let (from, to, copies) = note;
    scale::plan_out(&shrinking(|o| {
        o.partitions = Partitions::Known([partition(0, replicas, in_sync, 2)].into());
        o.moves = vec![Move { topic: "orders".into(), partition: 0, from, to, copies }];
    }))
}

#[test]
fn a_move_adds_waits_and_drops_and_a_note_of_the_past_moves_nothing() {
    let reassign = |replicas: &[u32]| {
        let replicas = replicas.to_vec();
        vec![Step::Reassign { topic: "orders".to_owned(), partition: 0, replicas }]
    };
    let cleared = vec![Step::NoteMoves { moves: Vec::new() }];
    let steps = |plan| if let Plan::Next(steps, _) = plan { steps } else { Vec::new() };
    let note = (4, 1, 3);
    assert_eq!(steps(moving(&[0, 2, 4], &[0, 2, 4], note)), reassign(&[0, 2, 4, 1]));
    assert_eq!(steps(moving(&[0, 2, 4, 1], &[0, 2, 4], note)), []);
    assert_eq!(steps(moving(&[0, 2, 4, 1], &[0, 2, 4, 1], note)), reassign(&[0, 2, 1]));
    assert_eq!(steps(moving(&[0, 2, 4, 1], &[0, 2, 1], note)), reassign(&[0, 2, 1]), "the one that goes may be behind");
    assert_eq!(steps(moving(&[0, 2, 1], &[0, 2, 1], note)), cleared);
    // Both have one by right; neither has; it is to go where nobody stays; it would be too few.
    assert_eq!(steps(moving(&[0, 1, 4], &[0, 1, 4], note)), cleared);
    assert_eq!(steps(moving(&[0, 2, 3], &[0, 2, 3], note)), cleared);
    assert_eq!(steps(moving(&[0, 2, 4], &[0, 2, 4], (4, 3, 3))), cleared);
    assert_eq!(steps(moving(&[4, 1], &[4, 1], (4, 1, 1))), []);
    // What was begun toward a broker that is to leave is taken back.
    assert_eq!(steps(moving(&[0, 1, 2, 3], &[0, 1, 2, 3], (2, 3, 3))), reassign(&[0, 1, 2]));
}

#[test]
fn brokers_that_run_alone_are_not_formed() {
    let alone = unformed(|o| o.capabilities = standalone());
    assert_eq!(formation::plan(&alone), Plan::Done);
}

#[test]
fn a_broker_that_is_down_itself_restarts_although_another_is_down() {
    use State::{CrashLoop, OutdatedBroken, OutdatedWell};
    let mut observed = cluster(&[OutdatedBroken, CrashLoop, OutdatedWell]);
    observed.stateful_set.as_mut().unwrap().proven = false;
    let Plan::Next(steps, _) = rollout::plan(&observed) else { unreachable!("{:?}", rollout::plan(&observed)) };
    assert_eq!(steps, [Step::RestartPod { ordinal: 0, uid: "pod-0".to_owned() }]);
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

/// How many lists of guards the sources below a folder have.
#[allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
fn lists(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let count = |path: PathBuf| {
        if path.is_dir() {
            lists(&path)
        } else {
            fs::read_to_string(path).unwrap().matches("pub const GUARDS:").count()
        }
    };
    entries.map(count).sum()
}

#[test]
fn oracle_20_no_guard_of_any_list_is_taken_out_unseen() {
    each_guard_on_a_spec_is_missed_when_it_is_taken_out();
    each_guard_on_a_restart_is_missed_when_it_is_taken_out();
    each_guard_on_a_bootstrap_is_missed_when_it_is_taken_out();
    each_guard_on_scaling_is_missed_when_it_is_taken_out();
    each_guard_on_a_topic_is_missed_when_it_is_taken_out();
    each_guard_on_a_connect_is_missed_when_it_is_taken_out();
    let lengths = [
        admission::GUARDS.len(),
        rollout::GUARDS.len(),
        formation::GUARDS.len(),
        scale::GUARDS.len(),
        topic::decide::GUARDS.len(),
        connect::decide::GUARDS.len(),
    ];
    println!("oracle 20: guards killed: {}/{}", KILLED.get(), lengths.iter().sum::<usize>());
    assert_eq!(KILLED.get(), lengths.iter().sum::<usize>());
    assert_eq!(
        lists(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")),
        lengths.len(),
        "a list that no test goes through"
    );
}

fn a_connect(change: impl FnOnce(&mut connect::Observation)) -> connect::Observation {
    let mut world = ConnectWorld::new(2, &["a", "b", "c"]);
    assert!(world.settle().is_ok());
    world.look();
    change(&mut world.o);
    world.o
}

#[test]
fn each_guard_on_a_connect_is_missed_when_it_is_taken_out() {
    let certificates = |present| Prerequisite { what: "Secret certs".to_owned(), present };
    let foreign = cluster::Presence::Foreign { owner: "Deployment other".to_owned() };
    let cases = [
        (Reason::InvalidSpec, a_connect(|o| o.wish.problems = vec!["sources: the name a is there twice".to_owned()])),
        (Reason::NotSupportedByOperator, a_connect(|o| o.wish.unsupported = vec!["tls.issuerRef: no".to_owned()])),
        (Reason::PrerequisiteMissing, a_connect(|o| o.prerequisites = vec![certificates(Some(false))])),
        (Reason::PrerequisiteMissing, a_connect(|o| o.prerequisites = vec![certificates(None)])),
        (Reason::NameCollision, a_connect(|o| o.objects[0].1 = foreign)),
    ];
    let passing = a_connect(|_| {});
    assert_eq!(connect::decide(&passing, now()).reason, Reason::AsWanted);
    let outcome = |guards: &[Guard<connect::Observation>], o: &connect::Observation| -> Decision<connect::Step> {
        connect::decide::decide_with(guards, o, now())
    };
    every_guard_is_missed("connect", connect::decide::GUARDS, &cases, &passing, outcome);
}

#[test]
fn a_connect_waits_for_what_is_not_its_own() {
    for (cluster, reason) in [
        (topic::Cluster::Missing, Reason::ClusterNotFound),
        (topic::Cluster::NotAllowed, Reason::NamespaceNotAllowed),
        (topic::Cluster::Terminating, Reason::ClusterTerminating),
        (topic::Cluster::NotReady { phase: rivven_fsm::Phase::Degraded }, Reason::ClusterNotReady),
    ] {
        let mut observed = a_connect(|o| o.cluster = cluster);
        for (recorded, phase) in [(None, rivven_fsm::Phase::Pending), (observed.recorded, rivven_fsm::Phase::Degraded)]
        {
            observed.recorded = recorded;
            let decision = connect::decide(&observed, now());
            assert_eq!((decision.phase, decision.reason), (phase, reason));
            assert!(decision.steps.is_empty(), "workers that run are left as they are");
        }
    }
    let paused = a_connect(|o| (o.paused, o.objects[0].1) = (true, cluster::Presence::Drifted));
    let decision = connect::decide(&paused, now());
    assert_eq!((decision.phase, decision.reason), (rivven_fsm::Phase::Degraded, Reason::Paused));
    assert!(decision.steps.is_empty());
    assert_eq!(connect::decide(&a_connect(|o| o.paused = true), now()).reason, Reason::AsWanted);
    let unmonitored = connect::decide(&a_connect(|o| o.unmonitored = true), now());
    let condition = unmonitored.condition(rivven_fsm::ConditionType::Monitored).unwrap();
    assert_eq!(condition.reason, Reason::NoServiceMonitors);
}

#[test]
fn a_worker_in_trouble_is_told_apart() {
    let crashed = |reason: &str, container: Container| {
        a_connect(|o| {
            let pod = &mut o.workers[0].pods[0].pod;
            (pod.ready, pod.container) = (false, container);
            let exit = cluster::LastExit { code: 1, reason: reason.to_owned(), log: "invalid config".to_owned() };
            pod.last_exit = Some(exit);
        })
    };
    let waiting = Container::Waiting { reason: "CrashLoopBackOff".to_owned(), message: String::new() };
    for (observed, reason) in [
        (crashed("Error", waiting), Reason::CrashLoop),
        (crashed("Error", Container::Terminated), Reason::WorkerExited),
        (crashed("OOMKilled", Container::Terminated), Reason::OutOfMemory),
        (a_connect(|o| o.workers[0].pods[0].pod.ready = false), Reason::WorkerNotReady),
        (
            a_connect(|o| o.workers[0].answer = connect::Answer::Silent { why: "reset".to_owned() }),
            Reason::ConnectorsUnknown,
        ),
    ] {
        let decision = connect::decide(&observed, now());
        assert_eq!((decision.phase, decision.reason), (rivven_fsm::Phase::Degraded, reason));
    }
}

#[test]
fn workers_that_do_not_go_hold_no_deletion_up() {
    let mut observed = a_connect(|o| o.deletion = Some(now()));
    for worker in &mut observed.workers {
        worker.deployment.as_mut().unwrap().deleting = true;
    }
    let decision = connect::decide(&observed, now());
    assert_eq!(decision.blocked_by[0].reason, Reason::WaitingForDeletion);
    assert!(decision.steps.is_empty());
    let later = now() + connect::RELEASE_AFTER;
    assert_eq!(connect::decide(&observed, later).steps, [connect::Step::RemoveFinalizer]);
}

/// Reasons that nothing here says, and why they exist.
const RESERVED: [(Reason, &str); 2] = [
    (Reason::NameTooLong, "said where specs are read, before a decision"),
    (Reason::TopicMissing, "said where connectors are translated, of one of them"),
];

#[test]
fn every_reason_is_said_by_something() {
    let sources = [
        include_str!("../src/cluster/admission.rs"),
        include_str!("../src/cluster/decide.rs"),
        include_str!("../src/cluster/diagnosis.rs"),
        include_str!("../src/cluster/formation.rs"),
        include_str!("../src/cluster/partitions.rs"),
        include_str!("../src/cluster/rollout.rs"),
        include_str!("../src/cluster/scale.rs"),
        include_str!("../src/cluster/storage.rs"),
        include_str!("../src/cluster/teardown.rs"),
        include_str!("../src/connect/decide.rs"),
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

fn certified(change: impl FnOnce(&mut Certificate)) -> Observation {
    let mut certificate = Certificate::default();
    change(&mut certificate);
    rolling(&[State::Well; 3], |o| o.certificate = Some(certificate))
}

#[test]
fn no_broker_is_started_before_its_certificate_is_there() {
    let mut new = certified(|certificate| certificate.awaited = Some("Secret t does not exist".to_owned()));
    (new.recorded, new.stateful_set, new.formed) = (Some(Phase::Pending), None, false);
    new.brokers = (0..3).map(Broker::unseen).collect();
    new.objects.iter_mut().for_each(|(_, presence)| *presence = Presence::Missing);
    let applied = decide(&new, now()).steps;
    let needs_it = |step: &Step| matches!(step, Step::Apply(Object::StatefulSet | Object::ConfigMap));
    assert!(!applied.is_empty() && !applied.iter().any(needs_it), "{applied:?}");
    for (object, presence) in &mut new.objects {
        if !matches!(object, Object::StatefulSet | Object::ConfigMap) {
            *presence = Presence::Current;
        }
    }
    let waits = decide(&new, now());
    assert_eq!((waits.phase, waits.reason), (Phase::Pending, Reason::CertificateNotIssued));
    assert!(waits.steps.is_empty() && waits.requeue.is_some());
    new.certificate = Some(Certificate::default());
    assert!(decide(&new, now()).steps.iter().any(needs_it));
}

#[test]
fn a_certificate_that_ends_is_told_in_time_and_changes_nothing() {
    let said = |observed: &Observation| {
        let decision = decide(observed, now());
        assert_eq!(decision.phase, Phase::Ready);
        let found = decision.condition(ConditionType::CertificateValid).cloned();
        found.map(|condition| (condition.status, condition.reason))
    };
    assert_eq!(said(&rolling(&[State::Well; 3], |_| {})), None);
    assert_eq!(said(&certified(|_| {})), Some((ConditionStatus::True, Reason::AsWanted)));
    let ending = certified(|certificate| certificate.ends_soon = true);
    assert_eq!(said(&ending), Some((ConditionStatus::False, Reason::CertificateEnding)));
    let refused = Observation { admission: kept(Reason::CertificateInvalid), ..ending };
    assert_eq!(said(&refused), Some((ConditionStatus::False, Reason::CertificateInvalid)));
}
