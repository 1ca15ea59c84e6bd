//! Every combination of what decisions tell apart: no undefined pair, no dead end, no unsafe step.
#![allow(clippy::panic, reason = "a violated rule ends the test with the observation in question")]

mod common;

use std::collections::BTreeMap;

use chrono::Duration;
use common::connects::{Actor, ConnectWorld};
use common::{
    State, broker, claim, cluster, cluster_holds, members, now, partition, partition_classes, phases, refusal, said,
    sound,
};
use rivven_fsm::cluster::partitions::Partition;
use rivven_fsm::cluster::{
    self, Admission, Answer, Deletion, Membership, Move, Object, Observation, Partitions, Presence, ReclaimPolicy, Step,
};
use rivven_fsm::{Kind, Phase, Reason, connect, topic};

const OBJECTS: [&str; 6] = ["current", "missing", "drifted", "foreign", "unknown", "deleting"];

fn presence(class: &str) -> Presence {
    match class {
        "missing" => Presence::Missing,
        "drifted" => Presence::Drifted,
        "foreign" => Presence::Foreign { owner: "somebody".to_owned() },
        "unknown" => Presence::Unknown { why: "forbidden".to_owned() },
        "deleting" => Presence::Deleting,
        _ => Presence::Current,
    }
}

/// What a StatefulSet and the claims may be like together: claims matter most where no StatefulSet exists.
const SETS: [(&str, &str); 10] = [
    ("absent", "none"),
    ("absent", "ours"),
    ("absent", "unbound"),
    ("absent", "foreign"),
    ("unknown", "ours"),
    ("unknown", "unbound"),
    ("known", "ours"),
    ("known", "unbound"),
    ("deleting", "ours"),
    ("deleting", "foreign"),
];

fn with_set(o: &mut Observation, (set, claims): (&str, &str)) {
    match (set, o.stateful_set.as_mut()) {
        ("absent", _) => o.stateful_set = None,
        ("unknown", Some(set)) => set.update_revision = None,
        ("deleting", Some(set)) => set.deleting = true,
        _ => {}
    }
    for broker in &mut o.brokers {
        broker.claim = match claims {
            "none" => None,
            kind => Some(claim(broker.ordinal, kind != "foreign", kind == "ours")),
        };
    }
}

/// Decides from every recorded phase: the rules hold, and the recorded phase changes nothing but the phase.
fn from_every_phase(o: &mut Observation, phases: &[Option<Phase>]) -> u64 {
    o.recorded = None;
    let erased = cluster::decide(o, now());
    assert_eq!(erased, cluster::decide(o, now()), "not deterministic: {o:?}");
    for recorded in phases {
        o.recorded = *recorded;
        let decision = cluster::decide(o, now());
        if let Err(what) = cluster_holds(o, &decision) {
            panic!("{what}\n{o:#?}\n{decision:#?}");
        }
        assert_eq!(decision.steps, erased.steps, "steps depend on the recorded phase: {o:#?}");
    }
    phases.len() as u64
}

fn every_broker_state(replicas: u32, mut visit: impl FnMut(&[State])) {
    let mut states = vec![State::ALL[0]; replicas as usize];
    for index in 0..State::ALL.len().pow(replicas) {
        let mut rest = index;
        for state in &mut states {
            *state = State::ALL[rest % State::ALL.len()];
            rest /= State::ALL.len();
        }
        visit(&states);
    }
}

fn every_object_class(o: &Observation, paused: &[bool], mut visit: impl FnMut(&mut Observation)) {
    for class in OBJECTS {
        for set in SETS {
            for finalizer in [true, false] {
                for paused in paused {
                    let mut o = o.clone();
                    (o.finalizer, o.paused) = (finalizer, *paused);
                    with_set(&mut o, set);
                    let object = if set.0 == "absent" { Object::StatefulSet } else { Object::ConfigMap };
                    for (other, is) in &mut o.objects {
                        if *other == object {
                            *is = presence(class);
                        } else if set.0 == "absent" && *other == Object::StatefulSet && *is == Presence::Current {
                            *is = Presence::Missing;
                        }
                    }
                    visit(&mut o);
                }
            }
        }
    }
}

#[test]
fn a_cluster_has_no_undefined_state_and_no_dead_end() {
    let recorded: Vec<_> = phases().collect();
    let mut visited = 0;
    for replicas in 1..=3 {
        every_broker_state(replicas, |states| {
            let base = cluster(states);
            every_object_class(&base, &[false, true], |o| visited += from_every_phase(o, &recorded));
        });
    }
    println!("cluster, accepted spec: states visited: {visited}");
    assert!(visited >= 2_500_000, "{visited} is too few");
}

#[test]
fn a_refused_spec_is_said_and_the_accepted_one_goes_on() {
    let recorded: Vec<_> = phases().collect();
    let mut visited = 0;
    for replicas in 1..=2 {
        every_broker_state(replicas, |states| {
            for admission in [Admission::Kept(vec![refusal()]), Admission::Refused(vec![refusal()])] {
                let mut base = cluster(states);
                base.admission = admission;
                every_object_class(&base, &[false, true], |o| {
                    visited += from_every_phase(o, &recorded);
                    if matches!(o.admission, Admission::Kept(_)) {
                        let kept = cluster::decide(o, now());
                        o.admission = Admission::Accepted;
                        let accepted = cluster::decide(o, now());
                        assert_eq!((kept.phase, kept.steps), (accepted.phase, accepted.steps), "{o:?}");
                    }
                });
            }
        });
    }
    println!("cluster, refused spec: states visited: {visited}");
    assert!(visited >= 400_000, "{visited} is too few");
}

#[test]
fn four_brokers_roll_one_at_a_time() {
    let recorded: Vec<_> = phases().collect();
    let (mut visited, mut restarts) = (0, 0_u64);
    every_broker_state(4, |states| {
        let mut o = cluster(states);
        visited += from_every_phase(&mut o, &recorded);
        restarts += u64::from(!cluster::decide(&o, now()).steps.is_empty());
    });
    println!("cluster of four: states visited: {visited}, with a restart: {restarts}");
    assert!(visited >= 110_000 && restarts >= 1_000, "{visited} visited, {restarts} restarts");
}

#[test]
fn no_partition_falls_below_its_minimum_because_of_us() {
    let recorded: Vec<_> = phases().collect();
    let (mut visited, mut restarts, mut held, mut handed) = (0, 0_u64, 0_u64, 0_u64);
    for replicas in 1..=4 {
        let classes = partition_classes(replicas);
        every_broker_state(replicas, |states| {
            let mut o = cluster(states);
            let unreplicated = cluster::decide(&o, now()).steps;
            if replicas == 4 && unreplicated.is_empty() {
                return;
            }
            for (_, partitions) in &classes {
                o.partitions = partitions.clone();
                visited += from_every_phase(&mut o, &recorded);
                let steps = cluster::decide(&o, now()).steps;
                let hands_over = matches!(steps[..], [Step::ElectLeaders { .. }]);
                handed += u64::from(hands_over);
                restarts += u64::from(!steps.is_empty() && !hands_over);
                held += u64::from(steps.is_empty() && !unreplicated.is_empty());
                let other = !steps.is_empty() && !hands_over && steps != unreplicated;
                assert!(!other, "partitions choose another broker: {o:#?}");
            }
        });
    }
    println!(
        "cluster, partitions: states visited: {visited}, with a restart: {restarts}, held back: {held}, handed over: {handed}"
    );
    assert!(
        visited >= 400_000 && restarts >= 30_000 && held >= 200 && handed >= 10,
        "{visited} {restarts} {held} {handed}"
    );
}

/// What a broker may say of the cluster it is in, if it says anything.
fn said_of_members(replicas: u32) -> Vec<Option<(Membership, bool)>> {
    let of = |voters: &[u32], foreign: &[&str]| Membership::Of {
        voters: voters.iter().copied().collect(),
        learners: [].into(),
        foreign: foreign.iter().map(|node| (*node).to_owned()).collect(),
    };
    vec![
        None,
        Some((Membership::Unknown, false)),
        Some((members(replicas), false)),
        Some((members(replicas), true)),
        Some((of(&[0], &[]), true)),
        Some((of(&[0, replicas], &[]), false)),
        Some((of(&[0], &["rivven-other-0"]), true)),
    ]
}

#[test]
fn a_cluster_is_begun_once_and_by_all() {
    let recorded: Vec<_> = phases().collect();
    let (mut visited, mut begun, mut noted, mut ready) = (0, 0_u64, 0_u64, 0_u64);
    for replicas in 1..=4_u32 {
        let classes = said_of_members(replicas);
        for index in 0..classes.len().pow(replicas) {
            for (formed, is_ready) in [(false, false), (false, true), (true, false), (true, true)] {
                let mut o = cluster(&vec![State::Well; replicas as usize]);
                o.formed = formed;
                let mut rest = index;
                for (ordinal, broker) in (0..).zip(&mut o.brokers) {
                    let pod = broker.pod.as_mut().unwrap();
                    pod.ready = is_ready;
                    broker.answer = Answer::NotAsked;
                    if let Some((membership, leader)) = &classes[rest % classes.len()] {
                        broker.answer = said(is_ready, *leader && ordinal == replicas - 1);
                        if let Answer::Said { membership: known, .. } = &mut broker.answer {
                            known.clone_from(membership);
                        }
                    }
                    rest /= classes.len();
                }
                visited += from_every_phase(&mut o, &recorded);
                let decision = cluster::decide(&o, now());
                begun += decision.steps.iter().filter(|s| matches!(s, Step::Bootstrap { .. })).count() as u64;
                noted += decision.steps.iter().filter(|s| matches!(s, Step::MarkFormed)).count() as u64;
                ready += u64::from(decision.reason == Reason::AsWanted);
            }
        }
    }
    println!("cluster, formation: states visited: {visited}, begun: {begun}, noted: {noted}, ready: {ready}");
    assert!(visited >= 80_000 && begun >= 4 && noted >= 4 && ready >= 4, "{visited} {begun} {noted} {ready}");
}

/// What of the highest broker decisions about scaling tell apart.
#[derive(Clone, Copy, Debug)]
struct Top {
    pod: bool,
    /// Its own view of the members: none, unknown, or as the others have it.
    view: u8,
    /// Neither, a learner, or a voter.
    member: u8,
    /// No claim, one without a note, one noted a second ago, one noted long ago, one of somebody else.
    claim: u8,
    leads: bool,
}

fn tops() -> Vec<Top> {
    let mut tops = Vec::new();
    for pod in [true, false] {
        for view in 0..if pod { 3 } else { 1 } {
            for member in 0..3 {
                for claim in 0..5 {
                    for leads in [false, true] {
                        if !leads || (member == 2 && view == 2) {
                            tops.push(Top { pod, view, member, claim, leads });
                        }
                    }
                }
            }
        }
    }
    tops
}

/// A cluster of `brokers`, of which the highest is as said and the others are well.
fn topped(brokers: u32, top: Top) -> Observation {
    let mut o = cluster(&vec![State::Well; brokers as usize]);
    let highest = brokers - 1;
    let known = Membership::Of {
        voters: (0..if top.member == 2 { brokers } else { highest }).collect(),
        learners: (top.member == 1).then_some(highest).into_iter().collect(),
        foreign: Vec::new(),
    };
    for broker in &mut o.brokers {
        let is_top = broker.ordinal == highest;
        if let Answer::Said { leader, membership, healthy, .. } = &mut broker.answer {
            membership.clone_from(&known);
            *leader = if top.leads { is_top } else { broker.ordinal == 0 && !is_top };
            *healthy = !is_top || top.member == 2;
            if is_top && top.view == 1 {
                *membership = Membership::Unknown;
            }
        }
        if is_top {
            if top.view == 0 {
                broker.answer = Answer::NotAsked;
            }
            if !top.pod {
                broker.pod = None;
            }
            broker.claim = (top.claim > 0).then(|| claim(highest, top.claim != 4, true));
            if let Some(claim) = broker.claim.as_mut().filter(|_| matches!(top.claim, 2 | 3)) {
                claim.empty_since = Some(now() - Duration::seconds(if top.claim == 2 { 1 } else { 60 }));
            }
        }
    }
    o
}

#[test]
fn brokers_come_and_go_one_at_a_time_and_nothing_is_left_behind() {
    let recorded: Vec<_> = phases().collect();
    let mut visited = 0;
    let mut steps: BTreeMap<&str, u64> = BTreeMap::new();
    for brokers in 2..=4_u32 {
        let highest = brokers - 1;
        let known = |partitions: Vec<Partition>| Partitions::Known(partitions.into());
        let held = partition(0, &[0, highest], &[0, highest], 1);
        let moves = |from, to| vec![Move { topic: "orders".into(), partition: 0, from, to, copies: 1 }];
        let replicas = [
            (Partitions::Unknown { why: "timeout".to_owned() }, Vec::new()),
            (Partitions::Unreplicated, Vec::new()),
            (known(vec![]), Vec::new()),
            (known(vec![partition(0, &[highest], &[highest], 1)]), Vec::new()),
            (known(vec![partition(0, &[highest], &[highest], 1)]), moves(highest, 0)),
            (known(vec![held.clone()]), moves(highest, 0)),
            (known(vec![partition(0, &[0, highest], &[highest], 1)]), moves(highest, 0)),
            (known(vec![held]), moves(0, highest)),
            (known((0..4).map(|id| partition(id, &[0], &[0], 1)).collect()), Vec::new()),
        ];
        for top in tops() {
            for (partitions, moves) in &replicas {
                for wanted in highest.max(1)..=brokers {
                    for set in highest..=brokers {
                        for (policy, adopt, rebalance, outdated) in [
                            (ReclaimPolicy::Delete, false, true, false),
                            (ReclaimPolicy::Retain, true, false, false),
                            (ReclaimPolicy::Delete, false, false, true),
                        ] {
                            let mut o = topped(brokers, top);
                            (o.replicas, o.scale_in, o.adopt_volumes, o.rebalance) = (wanted, policy, adopt, rebalance);
                            (o.partitions, o.moves) = (partitions.clone(), moves.clone());
                            o.stateful_set.as_mut().unwrap().replicas = set;
                            if let Some(pod) = o.brokers[0].pod.as_mut().filter(|_| outdated) {
                                common::OLD.clone_into(&mut pod.revision);
                            }
                            visited += from_every_phase(&mut o, &recorded);
                            for step in cluster::decide(&o, now()).steps {
                                *steps.entry(step.name()).or_default() += 1;
                            }
                        }
                    }
                }
            }
        }
    }
    println!("cluster, scaling: states visited: {visited}, steps: {steps:?}");
    let kinds = [
        "Scale",
        "AddLearner",
        "ChangeVoters",
        "TransferController",
        "NoteMoves",
        "Reassign",
        "NoteEmpty",
        "DeleteVolume",
    ];
    assert!(visited >= 100_000 && kinds.iter().all(|kind| steps.contains_key(kind)), "{visited} {steps:?}");
}

#[test]
fn deletion_is_ordered_in_every_state() {
    let recorded: Vec<_> = phases().collect();
    let mut visited = 0;
    for replicas in 1..=3 {
        every_broker_state(replicas, |states| {
            for reclaim in [ReclaimPolicy::Retain, ReclaimPolicy::Delete] {
                for set in SETS {
                    for (finalizer, going) in [(true, false), (true, true), (false, false)] {
                        for admission in [Admission::Accepted, Admission::Refused(vec![refusal()])] {
                            let mut o = cluster(states);
                            o.deletion = Some(Deletion { requested_at: now() - Duration::seconds(5), reclaim });
                            (o.finalizer, o.admission, o.paused) = (finalizer, admission, going);
                            with_set(&mut o, set);
                            for claim in o.brokers.iter_mut().filter_map(|b| b.claim.as_mut()) {
                                claim.deleting = going;
                            }
                            visited += from_every_phase(&mut o, &recorded);
                        }
                    }
                }
            }
        });
    }
    println!("cluster, deletion: states visited: {visited}");
    assert!(visited >= 1_000_000, "{visited} is too few");
}

#[test]
fn a_volume_is_adopted_only_when_asked() {
    let mut visited = 0;
    for ours in [true, false] {
        for adopt in [true, false] {
            for deleting in [true, false] {
                let mut o = cluster(&[State::Absent]);
                o.stateful_set = None;
                o.objects.iter_mut().for_each(|(_, is)| *is = Presence::Missing);
                o.adopt_volumes = adopt;
                o.brokers = vec![broker(0, State::Absent, true, Some(claim(0, ours, true)))];
                o.brokers[0].claim.as_mut().unwrap().deleting = deleting;
                let decision = cluster::decide(&o, now());
                cluster_holds(&o, &decision).unwrap();
                let adopted = decision.steps.iter().any(|s| matches!(s, cluster::Step::AdoptVolume { .. }));
                assert_eq!(adopted, adopt && !ours && !deleting, "{o:?}");
                visited += 1;
            }
        }
    }
    println!("adoption: states visited: {visited}");
    assert_eq!(visited, 8);
}

fn clusters() -> Vec<topic::Cluster> {
    let ready = |uid: &str, can| topic::Cluster::Ready { uid: uid.to_owned(), replicates: can, brokers: 3, acls: can };
    vec![
        topic::Cluster::Missing,
        topic::Cluster::NotAllowed,
        topic::Cluster::Terminating,
        topic::Cluster::NotReady { phase: Phase::Degraded },
        ready("here", true),
        ready("here", false),
        ready("replaced", true),
    ]
}

fn seen() -> Vec<topic::Seen> {
    let mut seen = vec![topic::Seen::NotAsked, topic::Seen::Unknown { why: "reset".to_owned() }, topic::Seen::Absent];
    for partitions in [2, 3, 4] {
        for replication in [None, Some(1), Some(2)] {
            for value in [None, Some("1"), Some("2")] {
                let config = value.map(|v| ("retention.ms".to_owned(), v.to_owned())).into_iter().collect();
                seen.push(topic::Seen::Present { partitions, replication, config });
            }
        }
    }
    seen
}

fn topic_holds(o: &topic::Observation, d: &rivven_fsm::Decision<topic::Step>) -> Result<(), String> {
    sound(Kind::Topic, o.recorded, o.deletion.is_some(), d)?;
    let mine = matches!(&o.cluster, topic::Cluster::Ready { uid, .. } if o.mark.as_ref() == Some(uid));
    let there = matches!(o.seen, topic::Seen::Present { .. });
    let absent = o.seen == topic::Seen::Absent;
    for (nth, step) in d.steps.iter().enumerate() {
        let after = |name: &str| d.steps[..nth].iter().any(|before| before.name() == name);
        let claimed = (mine && o.finalizer) || after("Claim");
        let holds = match step {
            topic::Step::Claim { cluster_uid } => {
                let this = matches!(&o.cluster, topic::Cluster::Ready { uid, .. } if uid == cluster_uid);
                let free = absent || (there && (o.adopt || mine));
                nth == 0 && this && free && o.older.is_none() && o.deletion.is_none()
            }
            topic::Step::Create { .. } => claimed && absent && o.older.is_none(),
            topic::Step::Configure { .. } if absent => after("Create"),
            topic::Step::Grow { .. } | topic::Step::Configure { .. } => mine && there && o.older.is_none(),
            topic::Step::DeleteTopic => {
                mine && there && o.older.is_none() && o.deletion.is_some_and(|deletion| deletion.delete_topic)
            }
            topic::Step::RemoveFinalizer { .. } => o.deletion.is_some() && o.finalizer,
        };
        if !holds || (d.steps.len() != 1 && !absent) {
            return Err(format!("unsafe: {:?}", d.steps));
        }
    }
    let waits = !d.blocked_by.is_empty() || d.requeue.is_some() || !d.steps.is_empty();
    let rests = d.reason == rivven_fsm::Reason::AsWanted || (o.deletion.is_some() && !o.finalizer);
    if waits || rests { Ok(()) } else { Err("a dead end".to_owned()) }
}

#[test]
fn a_topic_has_no_undefined_state_and_no_dead_end() {
    let mut visited = 0_u64;
    let bits: Vec<u8> = (0..64).collect();
    let deletions = [None, Some((true, 1)), Some((true, 600)), Some((false, 1))];
    for cluster in clusters() {
        for seen in seen() {
            for mark in [None, Some("here".to_owned()), Some("gone".to_owned())] {
                for deletion in deletions {
                    for bit in &bits {
                        let mut o = topic::Observation {
                            recorded: None,
                            deletion: deletion.map(|(delete_topic, ago)| topic::Deletion {
                                requested_at: now() - Duration::seconds(ago),
                                delete_topic,
                            }),
                            finalizer: bit & 1 > 0,
                            wish: topic::Wish {
                                topic: "t".to_owned(),
                                partitions: 3,
                                replication: if bit & 2 > 0 { 2 } else { 1 },
                                config: BTreeMap::from([("retention.ms".to_owned(), "1".to_owned())]),
                                acls: bit & 4 > 0,
                                problems: if bit & 8 > 0 { vec!["name: empty".to_owned()] } else { Vec::new() },
                            },
                            cluster: cluster.clone(),
                            mark: mark.clone(),
                            adopt: bit & 16 > 0,
                            older: (bit & 32 > 0).then(|| "ns/older".to_owned()),
                            seen: seen.clone(),
                        };
                        let erased = topic::decide(&o, now());
                        assert_eq!(erased, topic::decide(&o, now()));
                        for recorded in phases() {
                            o.recorded = recorded;
                            let decision = topic::decide(&o, now());
                            if let Err(what) = topic_holds(&o, &decision) {
                                panic!("{what}\n{o:#?}\n{decision:#?}");
                            }
                            assert_eq!(decision.steps, erased.steps, "{o:#?}");
                            visited += 1;
                        }
                    }
                }
            }
        }
    }
    println!("topic: states visited: {visited}");
    assert!(visited >= 1_000_000, "{visited} is too few");
}

/// Worlds of one connect, each as it is after so many turns, with what may be wrong with it.
fn connects() -> Vec<connect::Observation> {
    let mut all = Vec::new();
    for replicas in 0..=2 {
        for turns in 0..12 {
            let mut world = ConnectWorld::new(replicas, &["a", "b", "c"]);
            for turn in 0..turns {
                assert!(world.operate(false).is_ok());
                let worker = turn % 2;
                for actor in [Actor::Controller(worker), Actor::ReplicaSet(worker), Actor::Kubelet(worker)] {
                    assert!(world.act(actor).is_ok());
                }
                if turn == 6 {
                    world.o.wish.replicas = (replicas + 1) % 3;
                }
            }
            world.look();
            all.push(world.o);
        }
    }
    all
}

#[test]
fn a_connect_has_no_undefined_state_and_no_dead_end() {
    let mut visited = 0_u64;
    let topics = [
        connect::Topics::NotAsked,
        connect::Topics::Unknown { why: "reset".to_owned() },
        connect::Topics::Known { missing: Vec::new() },
    ];
    for base in connects() {
        for cluster in clusters() {
            for bits in 0..256_u32 {
                let bit = |nth: u32| bits & (1 << nth) > 0;
                let mut o = base.clone();
                o.cluster = cluster.clone();
                o.deletion = bit(0).then(now);
                o.finalizer = bit(1);
                o.paused = bit(2);
                if bit(3) {
                    o.wish.problems = vec!["sources: twice".to_owned()];
                }
                if bit(4) {
                    let message = "no such connector".to_owned();
                    o.wish.connectors[0].refusal =
                        Some(rivven_fsm::Refusal { reason: Reason::ConnectorRefused, message });
                }
                if bit(5) {
                    let what = "Secret certs".to_owned();
                    o.prerequisites = vec![cluster::Prerequisite { what, present: (!bit(6)).then_some(false) }];
                }
                if bit(7) {
                    o.objects.push((connect::Object::Service, presence(OBJECTS[bits as usize % OBJECTS.len()])));
                }
                for topics in &topics {
                    o.topics = topics.clone();
                    o.recorded = None;
                    let erased = connect::decide(&o, now());
                    for recorded in phases() {
                        o.recorded = recorded;
                        let decision = connect::decide(&o, now());
                        sound(Kind::Connect, recorded, o.deletion.is_some(), &decision)
                            .unwrap_or_else(|what| panic!("{what}\n{o:#?}\n{decision:#?}"));
                        assert_eq!(decision.steps, erased.steps, "{o:#?}");
                        let rests = matches!(decision.phase, Phase::Ready | Phase::Degraded);
                        let goes_on = !decision.steps.is_empty() || !decision.blocked_by.is_empty();
                        // An object that says it is being deleted and is not, or that is and may go.
                        let ends = recorded == Some(Phase::Terminating) && o.deletion.is_none()
                            || o.deletion.is_some() && !o.finalizer;
                        let on_the_way = decision.requeue.is_some();
                        assert!(rests || goes_on || ends || on_the_way, "a dead end: {o:#?}\n{decision:#?}");
                        visited += 1;
                    }
                }
            }
        }
    }
    println!("connect: states visited: {visited}");
    assert!(visited >= 200_000, "{visited} is too few");
}

#[test]
fn what_cannot_be_read_is_said_from_every_phase() {
    let mut visited = 0;
    for recorded in phases() {
        for kind in Kind::ALL {
            let decision = rivven_fsm::Decision::<()>::malformed(kind, recorded, "spec.replicas: not a number");
            assert!(decision.refused.is_none(), "{kind} {recorded:?}: {:?}", decision.refused);
            assert!(decision.steps.is_empty());
            visited += 1;
        }
    }
    println!("malformed: states visited: {visited}");
    assert_eq!(visited, 24);
}
