//! From every state of a small world, once faults stop, the cluster is Ready or gone, and on the way nothing unsafe
//! happens. The same for topics, with a broker that loses replies and configuration.
#![allow(clippy::panic, reason = "a violated rule ends the test with the seed of the run")]

mod common;

use chrono::Duration;
use common::topics::TopicWorld;
use common::world::{ACTORS, Actor, MOST, Random, SIZE, Set, World};
use common::{claim, now, phases, pod};
use rivven_fsm::cluster::partitions::Partition;
use rivven_fsm::cluster::{Container, Move, Object, Presence, ReclaimPolicy};
use rivven_fsm::{Phase, topic};

/// Rounds in which every actor has one turn, in any order, sometimes none.
const BOUND: usize = 100;

fn round(world: &mut World, random: &mut Random) -> Result<(), String> {
    let mut order = ACTORS;
    for left in (1..order.len()).rev() {
        order.swap(left, usize::try_from(random.below(left as u64 + 1)).unwrap_or(0));
    }
    for actor in order {
        if world.gone {
            return Ok(());
        }
        match actor {
            // Late, but not for ever.
            _ if random.below(4) == 0 => {}
            Actor::Operator => drop(world.operate()?),
            actor => world.act(actor),
        }
    }
    Ok(())
}

/// Runs until at rest; says after how many rounds.
fn settle(world: &mut World, random: &mut Random) -> Result<usize, String> {
    for rounds in 0..BOUND {
        if world.at_rest() && settled(world)? {
            return Ok(rounds);
        }
        round(world, random)?;
    }
    Err(format!("not at rest after {BOUND} rounds: {world:#?}"))
}

/// Quiescence: a world at rest gives no more steps, and the phase stays.
fn settled(world: &World) -> Result<bool, String> {
    if world.gone {
        return Ok(true);
    }
    let mut copy = world.clone();
    for _ in 0..2 {
        let decision = copy.operate()?;
        if !decision.steps.is_empty() || decision.phase != Phase::Ready {
            return Ok(false);
        }
        for actor in ACTORS {
            copy.act(actor);
        }
    }
    Ok(true)
}

const PODS: [&str; 7] = ["absent", "starting", "well", "outdated", "broken", "terminating", "unbound"];

fn worlds(mut visit: impl FnMut(World)) {
    for replicas in 1..=3_u32 {
        for index in 0..PODS.len().pow(replicas) {
            for set in ["absent", "unobserved", "observed", "drifted", "deleting"] {
                for objects in [Presence::Missing, Presence::Drifted, Presence::Current] {
                    for deletion in [None, Some(ReclaimPolicy::Retain), Some(ReclaimPolicy::Delete)] {
                        let mut world = World::new(replicas);
                        (world.finalizer, world.deletion) = (index % 2 == 0 || set != "absent", deletion);
                        "r2".clone_into(&mut world.wanted);
                        world.broken = vec!["broken".to_owned()];
                        world.objects.iter_mut().for_each(|(_, is)| *is = objects.clone());
                        world.set = (set != "absent").then(|| Set {
                            template: if set == "drifted" { "r1" } else { "r2" }.to_owned(),
                            observed: (set == "observed").then(|| "r2".to_owned()),
                            proven: None,
                            halted: None,
                            replicas,
                            claims: SIZE,
                            deleting: set == "deleting",
                        });
                        place_pods(&mut world, index);
                        visit(world);
                    }
                }
            }
        }
    }
}

fn place_pods(world: &mut World, mut index: usize) {
    for ordinal in 0..world.replicas {
        let class = PODS[index % PODS.len()];
        index /= PODS.len();
        let revision = match class {
            "outdated" => "r1",
            "broken" => "broken",
            _ => "r2",
        };
        let mut made = pod(ordinal, revision, matches!(class, "well" | "outdated"));
        made.terminating = class == "terminating";
        if class == "broken" {
            made.container = Container::Waiting { reason: "CrashLoopBackOff".to_owned(), message: String::new() };
        }
        // Pods without a StatefulSet do not belong to the cluster, but for those on their way out.
        let there = class != "absent" && (world.set.is_some() || made.terminating);
        if there && made.ready {
            made.container = Container::Running;
        }
        // Who serves is a member; the others may be new or not.
        world.told[ordinal as usize] = class != "absent" && (made.ready || index.is_multiple_of(2));
        world.pods[ordinal as usize] = there.then_some(made);
        world.claims[ordinal as usize] = (class != "absent").then(|| claim(ordinal, true, class != "unbound"));
    }
}

#[test]
fn from_every_state_a_cluster_gets_ready_or_gone() {
    let (mut traces, mut longest, mut seed) = (0_u64, 0, 1);
    worlds(|world| {
        for recorded in phases().filter(|p| world.deletion.is_some() || *p != Some(Phase::Terminating)) {
            seed += 1;
            let mut world = World { recorded, ..world.clone() };
            // An object without the finalizer is gone as soon as it is deleted: nobody is left to take a volume down.
            let held = world.finalizer;
            match settle(&mut world, &mut Random(seed)) {
                Ok(rounds) => longest = longest.max(rounds),
                Err(what) => panic!("seed {seed}, recorded {recorded:?}: {what}"),
            }
            if world.deletion == Some(ReclaimPolicy::Delete) && held {
                assert!(world.claims.iter().all(Option::is_none), "seed {seed}: a volume is left");
            }
            if world.deletion == Some(ReclaimPolicy::Retain) {
                let deleted = world.steps.iter().any(|s| s.name() == "DeleteVolume");
                assert!(!deleted, "seed {seed}: a volume was deleted");
            }
            traces += 1;
        }
    });
    println!("cluster: traces: {traces}, longest: {longest} rounds of {BOUND}");
    assert!(traces >= 100_000, "{traces} is too few");
}

/// The largest capacity: a smaller size is refused.
fn largest(world: &World) -> u64 {
    world.claims.iter().flatten().filter_map(|claim| claim.capacity).max().unwrap_or(SIZE)
}

/// Breaks something.
fn fault(world: &mut World, random: &mut Random) {
    let which = usize::try_from(random.below(u64::from(world.replicas))).unwrap_or(0);
    match random.below(13) {
        10 => world.size = SIZE * (1 + random.below(3)).max(largest(world) / SIZE),
        11 => world.grows = !world.grows,
        12 => world.set = world.set.take().filter(|set| set.deleting),
        0 => world.recorded = None,
        1 => world.pods[which] = None,
        2 => world.pods.iter_mut().flatten().for_each(|pod| pod.ready = false),
        3 => {
            let revision = format!("r{}", random.below(3));
            world.want(&revision);
        }
        4 => world.broken = vec![format!("r{}", random.below(3))],
        5 => world.broken.clear(),
        6 => world.paused = !world.paused,
        7 => world.finalizer = false,
        8 => {
            let objects = world.objects.len() as u64;
            let object = usize::try_from(random.below(objects)).unwrap_or(0);
            world.objects[object].1 = match random.below(4) {
                0 => Presence::Missing,
                1 => Presence::Drifted,
                2 => Presence::Foreign { owner: "somebody".to_owned() },
                _ => Presence::Unknown { why: "timeout".to_owned() },
            };
        }
        _ => {
            if let Some(set) = &mut world.set {
                set.observed = None;
            }
        }
    }
}

#[test]
fn after_any_faults_a_cluster_gets_ready_or_gone() {
    let (mut faults, mut longest, mut deleted) = (0_u64, 0, 0_u64);
    let traces = 20_000;
    for seed in 0..traces {
        let mut random = Random(seed);
        let mut world = World::new(1 + u32::try_from(random.below(4)).unwrap());
        world.online = random.below(4) > 0;
        for _ in 0..random.below(30) {
            if random.below(3) == 0 {
                fault(&mut world, &mut random);
                faults += 1;
            }
            round(&mut world, &mut random).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        }
        // Faults stop: what was broken works, what is foreign is gone, the pause ends.
        world.broken.clear();
        world.paused = false;
        world.grows = true;
        for (_, is) in &mut world.objects {
            if matches!(is, Presence::Foreign { .. } | Presence::Unknown { .. }) {
                *is = Presence::Missing;
            }
        }
        if random.below(4) == 0 {
            world.deletion = Some(if random.below(2) == 0 { ReclaimPolicy::Retain } else { ReclaimPolicy::Delete });
            deleted += 1;
        }
        match settle(&mut world, &mut random) {
            Ok(rounds) => longest = longest.max(rounds),
            Err(what) => panic!("seed {seed}: {what}"),
        }
    }
    println!("cluster with faults: traces: {traces}, faults: {faults}, deleted: {deleted}, longest: {longest} rounds");
    assert!(faults >= 50_000 && deleted >= 2_000);
}

/// The number of brokers that admission lets through: not fewer than any partition has replicas.
fn admitted(world: &World, wanted: u32) -> u32 {
    let copies = world.partitions.iter().map(|p| copies(world, p)).max().unwrap_or(1);
    wanted.max(u32::try_from(copies).unwrap_or(1))
}

/// How many replicas the partition has when none of them is on the move.
fn copies(world: &World, p: &Partition) -> usize {
    let noted = world.moves.iter().find(|m| m.topic == p.topic && m.partition == p.id);
    noted.map_or(p.replicas.len(), |m| p.replicas.len().min(m.copies as usize))
}

/// Everybody comes and goes; somebody scales by hand, writes notes, breaks brokers, and changes their mind.
fn disturbed(world: &mut World, random: &mut Random) {
    let which = random.below(u64::from(MOST));
    let ordinal = usize::try_from(which).unwrap_or(0);
    match random.below(14) {
        0..=4 => world.replicas = admitted(world, 1 + u32::try_from(random.below(u64::from(MOST))).unwrap_or(0)),
        5 => world.recorded = None,
        6 => world.pods[ordinal] = None,
        7 => world.want(&format!("r{}", random.below(3))),
        8 => world.rebalance = !world.rebalance,
        9 => world.place(1 + usize::try_from(random.below(3)).unwrap_or(0)),
        10 => {
            if let (Some(set), 0) = (&mut world.set, random.below(3)) {
                set.replicas = u32::try_from(which).unwrap_or(0);
            }
        }
        11 => {
            let policies = [ReclaimPolicy::Retain, ReclaimPolicy::Delete];
            world.scale_in = policies[usize::try_from(random.below(2)).unwrap_or(0)];
        }
        12 => {
            // Of the past, or forged: copies say that both replicas belong there.
            let (from, to) = (u32::try_from(which).unwrap_or(0), u32::try_from(random.below(6)).unwrap_or(0));
            let of = world.partitions.first().map(|p| (p.topic.clone(), p.id, copies(world, p)));
            if let (Some((topic, partition, copies)), true) = (of, world.moves.is_empty() && from != to) {
                let copies = u32::try_from(copies).unwrap_or(0);
                world.moves = vec![Move { topic, partition, from, to, copies }];
            }
        }
        _ => {
            let since = (random.below(2) == 0).then_some(world.clock);
            world.claims.iter_mut().flatten().filter(|c| c.name.ends_with(&which.to_string())).for_each(|c| {
                c.empty_since = since;
            });
        }
    }
}

#[test]
fn brokers_come_and_go_as_often_as_somebody_changes_their_mind() {
    let (mut longest, mut scaled, mut moved, mut left, mut disturbances) = (0, 0_u64, 0_u64, 0_u64, 0_u64);
    let traces = 20_000;
    for seed in 0..traces {
        let mut random = Random(seed);
        let mut world = World::new(1 + u32::try_from(random.below(5)).unwrap());
        world.replicates = true;
        settle(&mut world, &mut random).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        for _ in 0..random.below(6) {
            world.place(1 + usize::try_from(random.below(3)).unwrap());
        }
        let topics: Vec<usize> = world.partitions.iter().map(|p| p.replicas.len()).collect();
        for _ in 0..random.below(60) {
            if random.below(4) == 0 {
                disturbed(&mut world, &mut random);
                disturbances += 1;
            }
            round(&mut world, &mut random).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        }
        // Kept volumes of brokers that are wanted again are adopted, as a person would.
        world.adopt_volumes = true;
        // What was placed since may need more brokers than were asked for before it was.
        world.replicas = admitted(&world, world.replicas);
        let rounds = settle(&mut world, &mut random).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        longest = longest.max(rounds);
        let wanted: std::collections::BTreeSet<u32> = (0..world.replicas).collect();
        assert_eq!((&world.voters, world.learners.len()), (&wanted, 0), "seed {seed}");
        for (p, before) in world.partitions.iter().zip(topics) {
            assert_eq!(p.replicas.len(), before, "seed {seed}: {p} has another number of replicas");
            assert!(p.replicas.iter().all(|replica| wanted.contains(replica)), "seed {seed}: {p:?}");
        }
        let count = |name: &str| world.steps.iter().filter(|step| step.name() == name).count() as u64;
        scaled += count("Scale");
        moved += count("Reassign");
        left += count("ChangeVoters");
    }
    println!(
        "scaling: traces: {traces}, disturbances: {disturbances}, scaled: {scaled}, replicas moved: {moved}, voters changed: {left}, longest: {longest} rounds"
    );
    assert!(scaled >= 20_000 && moved >= 10_000 && left >= 20_000, "{scaled} {moved} {left}");
}

#[test]
fn a_broken_template_takes_one_broker_and_is_mended_by_setting_it_back() {
    let traces = 500;
    for seed in 0..traces {
        let mut random = Random(seed);
        let mut world = World::new(3);
        settle(&mut world, &mut random).unwrap();
        world.broken = vec!["r2".to_owned()];
        world.want("r2");
        for _ in 0..30 {
            round(&mut world, &mut random).unwrap();
            assert!(world.up() >= 2, "seed {seed}: {} brokers up", world.up());
        }
        assert_eq!(world.recorded, Some(Phase::Degraded), "seed {seed}");
        world.want("r1");
        settle(&mut world, &mut random).unwrap();
        let restarts = world.steps.iter().filter(|s| s.name() == "RestartPod").count();
        assert_eq!(restarts, 2, "seed {seed}: one restart onto the broken template, one back");
    }
    println!("broken template: traces: {traces}");
}

#[test]
fn what_is_not_ours_is_waited_for_and_nothing_is_half_made() {
    for object in Object::ALL.into_iter().filter(|object| *object != Object::StatefulSet) {
        let mut world = World::new(3);
        for (other, is) in &mut world.objects {
            if *other == object {
                *is = Presence::Foreign { owner: "somebody".to_owned() };
            }
        }
        let mut random = Random(7);
        for _ in 0..20 {
            round(&mut world, &mut random).unwrap();
        }
        assert_eq!(world.recorded, Some(Phase::Pending));
        assert_eq!(world.steps.len(), 1, "{:?}", world.steps);
        assert!(world.operate().unwrap().requeue.is_some(), "no watch tells that a foreign {object:?} is gone");
    }
}

#[test]
fn after_any_faults_a_topic_is_ready_or_gone() {
    let (mut longest, mut deleted, mut replies, mut refused) = (0, 0_u64, 0_u64, 0_u64);
    let traces = 50_000;
    for seed in 0..traces {
        let mut random = Random(seed);
        let mut world = TopicWorld::new();
        for _ in 0..random.below(20) {
            match random.below(12) {
                0 => world.o.recorded = None,
                // A released broker forgets configuration when it restarts.
                1 => world.there.iter_mut().for_each(|(_, config)| config.clear()),
                2 => world.there = None,
                3 => world.o.cluster = topic::Cluster::NotReady { phase: Phase::Degraded },
                4 | 5 => {
                    let uid = if random.below(6) == 0 { "replaced" } else { "here" }.to_owned();
                    world.o.cluster = topic::Cluster::Ready { uid, replicates: false, brokers: 3, acls: false };
                }
                6 => world.o.finalizer = false,
                7 => world.o.wish.partitions = 3 + u32::try_from(random.below(2)).unwrap(),
                8 => world.o.adopt = !world.o.adopt,
                _ => {}
            }
            let (answers, lost, taken) = (random.below(4) > 0, random.below(4) == 0, random.below(8) == 0);
            replies += u64::from(lost);
            world.operate(answers, lost, taken).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        }
        let uid = "here".to_owned();
        world.o.cluster = topic::Cluster::Ready { uid, replicates: false, brokers: 3, acls: false };
        world.o.wish.partitions = 4;
        // A topic of somebody else is waited for until the object may have it.
        refused += u64::from(!world.o.adopt && world.there.is_some());
        world.o.adopt = true;
        let marked = world.o.mark.as_deref() == Some("here");
        let delete = random.below(4) == 0;
        if delete {
            deleted += 1;
            world.o.deletion = Some(topic::Deletion { requested_at: now(), delete_topic: random.below(2) == 0 });
        }
        let before = world.there.clone();
        match world.settle() {
            Ok(looks) => longest = longest.max(looks),
            Err(what) => panic!("seed {seed}: {what}"),
        }
        match world.o.deletion {
            Some(deletion) if deletion.delete_topic && marked => assert!(!world.o.finalizer || world.there.is_none()),
            Some(_) => assert_eq!(world.there, before, "seed {seed}: a topic was touched that is not ours to delete"),
            None => assert_eq!(world.there.as_ref().map(|(n, c)| (*n, c)), Some((4, &world.o.wish.config))),
        }
    }
    println!(
        "topic with faults: traces: {traces}, replies lost: {replies}, deleted: {deleted}, taken over: {refused}, longest: {longest} looks"
    );
    assert!(replies >= 50_000 && deleted >= 5_000 && refused >= 1_000);
}

#[test]
fn a_topic_whose_broker_stays_away_is_released_in_time() {
    let mut world = TopicWorld::new();
    world.settle().unwrap();
    world.o.deletion = Some(topic::Deletion { requested_at: now(), delete_topic: true });
    world.operate(false, false, false).unwrap();
    assert!(!world.gone, "released at once");
    let asked = now() - Duration::from_std(topic::RELEASE_AFTER).unwrap();
    world.o.deletion = Some(topic::Deletion { requested_at: asked, delete_topic: true });
    world.operate(false, false, false).unwrap();
    assert!(world.gone, "a topic must not hang on a broker that is away");
    assert!(world.there.is_some(), "nothing was deleted that nobody saw");
}
