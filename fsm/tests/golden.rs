//! Whole lives as readable traces, held against `tests/golden/`. `UPDATE_GOLDEN=1` writes them anew.

mod common;

use std::fmt::{Debug, Write};
use std::path::Path;

use common::connects::{Actor, ConnectWorld, connector, ready_cluster};
use common::now;
use common::topics::TopicWorld;
use common::world::{ACTORS, SIZE, World};
use rivven_fsm::cluster::storage::quantity;
use rivven_fsm::cluster::{Candidate, ReclaimPolicy, Step, Wish, admit};
use rivven_fsm::{Decision, Phase, Reason, Refusal, topic};

#[derive(Default)]
struct Trace {
    text: String,
    tick: usize,
    last: String,
}

impl Trace {
    fn happens(&mut self, what: &str) {
        let _ = writeln!(self.text, "-- {what}");
        self.last.clear();
    }

    /// A line per look; looks that repeat the last one are left out.
    fn look<S: Debug>(&mut self, decision: &Decision<S>) {
        self.tick += 1;
        let mut line = format!("{} {}: {}\n", decision.phase, decision.reason, decision.message);
        for step in &decision.steps {
            let _ = writeln!(line, "     step    {step:?}");
        }
        for blocked in &decision.blocked_by {
            let on = blocked.on.as_deref().map_or_else(String::new, |on| format!(" ({on})"));
            let _ = writeln!(line, "     waits   {}{on}", blocked.reason);
        }
        for condition in &decision.conditions {
            let _ = writeln!(
                line,
                "     is      {}={} {}",
                condition.kind.as_str(),
                condition.status.as_str(),
                condition.reason
            );
        }
        if line != self.last {
            let _ = write!(self.text, "{:>3}  {line}", self.tick);
            self.last = line;
        }
    }

    /// Lets every actor have its turn, in order, `rounds` times.
    fn cluster(&mut self, world: &mut World, rounds: usize) {
        for _ in 0..rounds {
            if world.gone {
                self.happens("the object is gone");
                return;
            }
            let decision = world.operate();
            assert!(decision.is_ok(), "{decision:?}");
            if let Ok(decision) = decision {
                self.look(&decision);
            }
            for actor in ACTORS {
                world.act(actor);
            }
        }
    }

    fn topic(&mut self, world: &mut TopicWorld, looks: usize) {
        for _ in 0..looks {
            if world.gone {
                self.happens("the object is gone");
                return;
            }
            let decision = world.operate(true, false, false);
            assert!(decision.is_ok(), "{decision:?}");
            if let Ok(decision) = decision {
                self.look(&decision);
            }
        }
    }

    fn is_golden(&self, name: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            assert!(std::fs::write(&path, &self.text).is_ok(), "{name} cannot be written");
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(!golden.is_empty(), "{name} is missing: run with UPDATE_GOLDEN=1");
        assert!(golden == self.text, "{name} differs:\n{}", self.text);
        println!("{name}: lines: {}", golden.lines().count());
    }
}

/// A cluster that was provisioned a while ago.
fn serving(replicas: u32) -> World {
    let mut world = World::new(replicas);
    Trace::default().cluster(&mut world, 10);
    world.steps.clear();
    world
}

#[test]
fn capacities_are_written_in_the_largest_exact_unit() {
    assert_eq!(quantity(10 << 30), "10Gi");
    assert_eq!(quantity(1536 << 20), "1536Mi");
    assert_eq!(quantity(1_000_000_000), "1000000000");
    assert_eq!(quantity(0), "0");
}

#[test]
fn provisioning_of_three_brokers() {
    let mut trace = Trace::default();
    trace.happens("a cluster of three is created");
    trace.cluster(&mut World::new(3), 10);
    trace.is_golden("cluster-provisioning.txt");
}

#[test]
fn upgrade_of_three_brokers_one_at_a_time() {
    let (mut trace, mut world) = (Trace::default(), serving(3));
    trace.happens("the spec asks for another image");
    world.want("r2");
    trace.cluster(&mut world, 20);
    let restarts: Vec<u32> = world
        .steps
        .iter()
        .filter_map(|step| if let Step::RestartPod { ordinal, .. } = step { Some(*ordinal) } else { None })
        .collect();
    assert_eq!(restarts.len(), 3, "{restarts:?}");
    trace.is_golden("cluster-upgrade.txt");
}

#[test]
fn upgrade_of_the_only_broker() {
    let (mut trace, mut world) = (Trace::default(), serving(1));
    trace.happens("the spec asks for another image");
    world.want("r2");
    trace.cluster(&mut world, 10);
    trace.is_golden("cluster-upgrade-single.txt");
}

#[test]
fn a_broken_image_and_back() {
    let (mut trace, mut world) = (Trace::default(), serving(3));
    trace.happens("the spec asks for an image whose broker ends at once");
    world.broken = vec!["r2".to_owned()];
    world.want("r2");
    trace.cluster(&mut world, 10);
    trace.happens("the image is set back");
    world.want("r1");
    trace.cluster(&mut world, 15);
    trace.is_golden("cluster-broken-image.txt");
}

#[test]
fn growth_of_the_volumes() {
    let (mut trace, mut world) = (Trace::default(), serving(3));
    let pods: Vec<String> = world.pods.iter().flatten().map(|pod| pod.uid.clone()).collect();
    trace.happens("the spec asks for volumes twice as large");
    world.size = 2 * SIZE;
    trace.cluster(&mut world, 10);
    let after: Vec<String> = world.pods.iter().flatten().map(|pod| pod.uid.clone()).collect();
    assert_eq!(pods, after, "no broker is restarted");
    assert!(world.claims.iter().flatten().all(|claim| claim.capacity == Some(2 * SIZE)));
    trace.is_golden("cluster-storage-growth.txt");
}

#[test]
fn growth_of_a_volume_that_must_be_stopped_for() {
    let (mut trace, mut world) = (Trace::default(), serving(1));
    world.online = false;
    trace.happens("the spec asks for a volume twice as large");
    world.size = 2 * SIZE;
    trace.cluster(&mut world, 12);
    assert!(world.claims.iter().flatten().all(|claim| claim.capacity == Some(2 * SIZE)));
    trace.is_golden("cluster-storage-growth-offline.txt");
}

#[test]
fn growth_that_the_storage_cannot_do_and_back() {
    let (mut trace, mut world) = (Trace::default(), serving(3));
    trace.happens("the spec asks for more than the storage has");
    (world.size, world.grows) = (9 * SIZE, false);
    trace.cluster(&mut world, 6);
    trace.happens("the size is set back");
    world.size = SIZE;
    trace.cluster(&mut world, 6);
    trace.is_golden("cluster-storage-stuck.txt");
}

#[test]
fn deletion_that_keeps_the_volumes() {
    let (mut trace, mut world) = (Trace::default(), serving(2));
    trace.happens("the cluster is deleted, reclaimPolicy Retain");
    world.deletion = Some(ReclaimPolicy::Retain);
    trace.cluster(&mut world, 10);
    assert!(world.gone && world.claims.iter().flatten().count() == 2);
    trace.is_golden("cluster-deletion-retain.txt");
}

#[test]
fn deletion_that_takes_the_volumes() {
    let (mut trace, mut world) = (Trace::default(), serving(2));
    trace.happens("the cluster is deleted, reclaimPolicy Delete");
    world.deletion = Some(ReclaimPolicy::Delete);
    trace.cluster(&mut world, 10);
    assert!(world.gone && world.claims.iter().all(Option::is_none));
    trace.is_golden("cluster-deletion-delete.txt");
}

/// A cluster that serves, with partitions of two replicas.
fn serving_records(replicas: u32, partitions: usize) -> World {
    let mut world = serving(replicas);
    world.replicates = true;
    (0..partitions).for_each(|_| world.place(2));
    world
}

#[test]
fn two_brokers_join_and_are_given_replicas() {
    let (mut trace, mut world) = (Trace::default(), serving_records(3, 4));
    trace.happens("five brokers are asked for, rebalance: true");
    (world.replicas, world.rebalance) = (5, true);
    trace.cluster(&mut world, 25);
    assert_eq!((world.voters.len(), world.moves.len()), (5, 0));
    trace.is_golden("cluster-scale-out.txt");
}

#[test]
fn two_brokers_are_emptied_and_leave() {
    let (mut trace, mut world) = (Trace::default(), serving_records(5, 5));
    trace.happens("three brokers are asked for, scaleInPolicy Delete");
    world.replicas = 3;
    trace.cluster(&mut world, 40);
    assert_eq!((world.voters.len(), world.claims.iter().flatten().count()), (3, 3));
    trace.is_golden("cluster-scale-in.txt");
}

#[test]
fn a_number_that_is_refused_changes_nothing() {
    let (mut trace, mut world) = (Trace::default(), serving_records(3, 2));
    trace.happens("one broker is asked for, and partitions have two replicas");
    let wish = |replicas| Wish {
        replicas,
        version: "0.1.0".to_owned(),
        storage_bytes: 1 << 30,
        storage_class: String::new(),
        tls: false,
        auth: false,
        problems: Vec::new(),
        unsupported: Vec::new(),
    };
    world.admission = admit(&Candidate {
        accepted: Some(wish(3)),
        partitions: world.observe().partitions,
        ..Candidate::first(wish(1), common::clustered())
    });
    for refusal in world.admission.refusals() {
        trace.happens(&format!("refused: {}: {}", refusal.reason, refusal.message));
    }
    trace.cluster(&mut world, 5);
    assert!(world.steps.is_empty(), "{:?}", world.steps);
    trace.is_golden("cluster-scale-in-refused.txt");
}

#[test]
fn life_of_a_topic() {
    let (mut trace, mut world) = (Trace::default(), TopicWorld::new());
    trace.happens("a topic of three partitions is created");
    trace.topic(&mut world, 8);
    trace.happens("five partitions are asked for");
    world.o.wish.partitions = 5;
    trace.topic(&mut world, 4);
    trace.happens("another retention is asked for");
    world.o.wish.config.insert("retention.ms".to_owned(), "2".to_owned());
    trace.topic(&mut world, 4);
    trace.happens("the broker restarts and forgets its configuration");
    world.there.iter_mut().for_each(|(_, config)| config.clear());
    trace.topic(&mut world, 4);
    trace.happens("four partitions are asked for");
    world.o.wish.partitions = 4;
    trace.topic(&mut world, 2);
    trace.happens("the object is deleted, deleteOnRemove: true");
    world.o.deletion = Some(topic::Deletion { requested_at: now(), delete_topic: true });
    trace.topic(&mut world, 5);
    assert!(world.gone && world.there.is_none());
    trace.is_golden("topic.txt");
}

impl Trace {
    fn connect(&mut self, world: &mut ConnectWorld, rounds: usize) {
        for _ in 0..rounds {
            if world.gone {
                self.happens("the object is gone");
                return;
            }
            let decision = world.operate(false);
            assert!(decision.is_ok(), "{decision:?}");
            if let Ok(decision) = decision {
                self.look(&decision);
            }
            for worker in 0..3 {
                for actor in [Actor::Controller(worker), Actor::ReplicaSet(worker), Actor::Kubelet(worker)] {
                    assert!(world.act(actor).is_ok());
                }
            }
        }
    }
}

#[test]
fn life_of_a_connect() {
    let (mut trace, mut world) = (Trace::default(), ConnectWorld::new(1, &["a", "b", "c"]));
    trace.happens("three sources on one worker");
    trace.connect(&mut world, 8);
    trace.happens("two workers are asked for");
    world.o.wish.replicas = 2;
    trace.connect(&mut world, 8);
    trace.happens("one connector fails, and heals");
    world.failing.insert(connector("b"));
    trace.connect(&mut world, 2);
    world.failing.clear();
    trace.connect(&mut world, 1);
    trace.happens("the worker is asked for something that it lacks");
    let refusal =
        Refusal { reason: Reason::ConnectorRefused, message: "tables: the worker has no columnMasks".to_owned() };
    world.o.wish.connectors[2].refusal = Some(refusal);
    trace.connect(&mut world, 6);
    world.o.wish.connectors[2].refusal = None;
    trace.connect(&mut world, 6);
    trace.happens("one worker again");
    world.o.wish.replicas = 1;
    trace.connect(&mut world, 8);
    trace.happens("the cluster is upgraded");
    world.o.cluster = topic::Cluster::NotReady { phase: Phase::Upgrading };
    trace.connect(&mut world, 2);
    world.o.cluster = ready_cluster();
    trace.connect(&mut world, 2);
    trace.happens("the object is deleted");
    world.o.deletion = Some(now());
    trace.connect(&mut world, 6);
    assert!(world.gone);
    trace.is_golden("connect.txt");
}
