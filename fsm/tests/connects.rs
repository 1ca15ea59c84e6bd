//! Connectors and their workers: whoever acts in whatever order, no connector is ever active twice, every change of phase
//! is on the table, and in the end everything runs.
#![allow(clippy::panic, reason = "a violated rule ends the test with the seed of the run")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::connects::{Actor, ConnectWorld, connector, wanted};
use common::now;
use common::world::Random;
use rivven_fsm::connect::{Connector, Role, Runs, place, worker_of};
use rivven_fsm::{Phase, Reason, Refusal};

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const WALKS: u64 = 3_000;
const STEPS: u64 = 80;

fn step(world: &mut ConnectWorld, random: &mut Random) -> Result<(), String> {
    let worker = u32::try_from(random.below(4)).unwrap_or(0);
    match random.below(16) {
        0..=4 => world.operate(false).map(drop),
        5 => world.operate(true).map(drop),
        6..=7 => world.act(Actor::Controller(worker)),
        8..=9 => world.act(Actor::ReplicaSet(worker)),
        10..=12 => world.act(Actor::Kubelet(worker)),
        13 => world.act(Actor::Drain(worker)),
        14 => {
            world.o.wish.replicas = u32::try_from(random.below(5)).unwrap_or(1);
            Ok(())
        }
        _ => {
            let nth = usize::try_from(random.below(NAMES.len() as u64)).unwrap_or(0);
            let id = connector(NAMES[nth]);
            if world.o.wish.connectors.iter().any(|wanted| wanted.id == id) {
                world.o.wish.connectors.retain(|wanted| wanted.id != id);
            } else {
                world.o.wish.connectors.push(wanted(NAMES[nth]));
            }
            Ok(())
        }
    }
}

#[test]
fn no_connector_is_ever_active_twice_and_all_run_in_the_end() {
    let (mut steps, mut moved) = (0, 0);
    for seed in 0..WALKS {
        let mut random = Random(seed);
        let mut world = ConnectWorld::new(2, &NAMES[..4]);
        for nth in 0..STEPS {
            if let Err(what) = step(&mut world, &mut random) {
                panic!("seed {seed}, step {nth}: {what}");
            }
            moved += u64::from(!world.o.placement.waiting.is_empty());
        }
        world.o.wish.replicas = world.o.wish.replicas.max(1);
        if let Err(what) = world.settle() {
            panic!("seed {seed}: {what}");
        }
        let active: BTreeSet<&Connector> = world.pods.iter().flat_map(|pod| &pod.runs).collect();
        let enabled: BTreeSet<&Connector> = world.o.wish.connectors.iter().map(|wanted| &wanted.id).collect();
        assert_eq!(active, enabled, "seed {seed}");
        assert_eq!(world.o.recorded, Some(Phase::Ready), "seed {seed}");
        assert!(world.deployments.values().all(|dep| !dep.template.is_empty()), "a worker without connectors");
        let rest = world.steps;
        assert!(world.operate(false).is_ok() && world.steps == rest, "seed {seed}: not silent at rest");
        steps += world.steps;
    }
    println!("connect: walks: {WALKS}, steps taken: {steps}, looks with a connector on its way: {moved}");
    assert!(moved > 5_000, "{moved}: hardly anything moved");
}

#[test]
fn every_deletion_ends() {
    for seed in 0..WALKS / 4 {
        let mut random = Random(seed);
        let mut world = ConnectWorld::new(3, &NAMES);
        for _ in 0..random.below(STEPS) {
            assert!(step(&mut world, &mut random).is_ok());
        }
        world.o.deletion = Some(now());
        if let Err(what) = world.settle() {
            panic!("seed {seed}: {what}");
        }
        assert!(world.gone && world.pods.is_empty() && world.deployments.is_empty(), "seed {seed}");
    }
}

#[test]
fn placement_is_stable_and_moves_only_what_it_must() {
    let all: Vec<Connector> = (0..200).map(|nth| connector(&format!("c{nth}"))).collect();
    for workers in 1..20 {
        let mut used = BTreeMap::<u32, usize>::new();
        for id in &all {
            let (now, then) = (worker_of(id, workers), worker_of(id, workers + 1));
            assert!(now.is_some_and(|worker| worker < workers));
            assert!(now == then || then == Some(workers), "{id} moved between old workers");
            *used.entry(now.unwrap_or_default()).or_default() += 1;
        }
        let fair = all.len() / workers as usize;
        assert!(used.values().all(|count| *count <= 2 * fair + 4), "{workers}: {used:?}");
    }
    assert_eq!(worker_of(&all[0], 0), None);
    let source = connector("a");
    let sink = Connector { role: Role::Sink, name: "a".to_owned() };
    assert_eq!(Connector::parse(&sink.to_string()), Some(sink.clone()));
    assert_ne!(source, sink);
}

#[test]
fn a_connector_waits_for_its_old_worker_and_for_a_change_that_nobody_acted_on() {
    let id = connector("a");
    let to = worker_of(&id, 2).unwrap_or_default();
    let other = 1 - to;
    let on = |worker: u32| Runs::from([(worker, BTreeSet::from([id.clone()]))]);
    assert_eq!(place([&id], 2, &on(to), false).runs, on(to));
    assert_eq!(place([&id], 2, &on(to), true).runs, on(to), "what it may run already goes on");
    let waits = place([&id], 2, &on(other), false);
    assert!(waits.runs.is_empty() && waits.waiting[0].on == Some(other));
    let waits = place([&id], 2, &Runs::new(), true);
    assert!(waits.runs.is_empty() && waits.waiting[0].on.is_none());
}

#[test]
fn one_that_cannot_be_run_holds_nobody_up() {
    let refusal = || Refusal { reason: Reason::ConnectorRefused, message: "no such connector".to_owned() };
    let mut world = ConnectWorld::new(1, &["a", "b"]);
    world.o.wish.connectors[0].refusal = Some(refusal());
    assert!(world.settle().is_ok());
    let decision = world.operate(false).unwrap_or_else(|what| panic!("{what}"));
    assert_eq!((decision.phase, decision.reason), (Phase::Degraded, Reason::ConnectorRefused));
    assert_eq!(world.pods[0].runs, BTreeSet::from([connector("b")]));

    let mut world = ConnectWorld::new(1, &["a"]);
    world.o.wish.connectors[0].refusal = Some(refusal());
    world.o.finalizer = true;
    let decision = world.operate(false).unwrap_or_else(|what| panic!("{what}"));
    assert_eq!((decision.phase, decision.reason), (Phase::Pending, Reason::ConnectorRefused));
    assert!(decision.steps.is_empty());
}

#[test]
fn a_connector_that_fails_makes_degraded_and_the_others_run() {
    let mut world = ConnectWorld::new(2, &["a", "b", "c"]);
    assert!(world.settle().is_ok());
    world.failing.insert(connector("b"));
    let decision = world.operate(false).unwrap_or_else(|what| panic!("{what}"));
    assert_eq!((decision.phase, decision.reason), (Phase::Degraded, Reason::ConnectorFailing));
    assert!(decision.steps.is_empty() && decision.message.contains("source/b: refused"), "{}", decision.message);
    world.failing.clear();
    let decision = world.operate(false).unwrap_or_else(|what| panic!("{what}"));
    assert_eq!(decision.phase, Phase::Ready);
}
