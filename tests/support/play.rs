//! What is done to a cluster at rest, played with something that goes wrong meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use rivven_sim::{Key, Log, Session, Verb, VolumeBehaviour};
use serde_json::{Value, json};

use super::broker::Fleet;
use super::cluster::Clustered;
use super::{Served, World, cluster, ready, records, status};

/// One thing that somebody does.
pub struct Operation {
    pub name: &'static str,
    /// The cluster before.
    spec: fn() -> Value,
    /// What is changed of its spec; nothing: it is deleted.
    pub change: fn() -> Option<Value>,
    /// How many brokers there are before and after.
    brokers: (u32, u32),
}

/// Three brokers, with records.
const fn of_three(name: &'static str, change: fn() -> Option<Value>, brokers: (u32, u32)) -> Operation {
    Operation { name, spec: three, change, brokers }
}

fn three() -> Value {
    json!({ "replicas": 3, "version": "0.1.0", "rebalance": true, "storage": { "size": "1Gi" } })
}

fn four() -> Value {
    json!({ "replicas": 4, "version": "0.1.0", "rebalance": true, "storage": { "size": "1Gi" } })
}

fn one() -> Value {
    json!({ "replicas": 1, "version": "0.0.22", "storage": { "size": "1Gi" } })
}

fn one_to_delete() -> Value {
    json!({ "replicas": 1, "version": "0.0.22", "storage": { "size": "1Gi", "reclaimPolicy": "Delete" } })
}

fn louder() -> Value {
    json!({ "config": { "logLevel": "debug" } })
}

fn larger() -> Value {
    json!({ "storage": { "size": "2Gi" } })
}

/// On brokers that are one cluster.
pub const CLUSTERED: [Operation; 5] = [
    of_three("rollout", || Some(louder()), (3, 3)),
    of_three("scale out", || Some(json!({ "replicas": 4 })), (3, 4)),
    Operation { spec: four, ..of_three("scale in", || Some(json!({ "replicas": 3 })), (4, 3)) },
    of_three("storage", || Some(larger()), (3, 3)),
    of_three("deletion", || None, (3, 0)),
];

/// On a released broker, which runs alone. Its volume grows while it is stopped.
pub const ALONE: [Operation; 4] = [
    Operation { name: "rollout", spec: one, change: || Some(louder()), brokers: (1, 1) },
    Operation { name: "storage", spec: one, change: || Some(larger()), brokers: (1, 1) },
    Operation { name: "deletion", spec: one, change: || None, brokers: (1, 0) },
    Operation { name: "deletion of all", spec: one_to_delete, change: || None, brokers: (1, 0) },
];

/// How it ended.
pub struct Played<B: Served> {
    pub world: World<B>,
    pub session: Session,
    pub end: BTreeMap<String, Value>,
    /// Requests to the API server, writes among them, calls that change something at a broker, and watch events.
    pub requests: u64,
    pub writes: u64,
    pub calls: u64,
    pub events: u64,
    /// The version before.
    pub version: u64,
    /// How often each object was made, changed and deleted; statuses are not counted, as they tell what happened.
    pub counts: BTreeMap<(Key, Verb), usize>,
}

/// What brokers of a kind have that others have not.
#[allow(async_fn_in_trait, reason = "tests")]
pub trait Stocked: Served {
    /// Puts something in them.
    async fn stock(world: &World<Self>)
    where
        Self: Sized;
    /// What is missing of it.
    async fn missing(world: &World<Self>) -> usize
    where
        Self: Sized;
    /// How many calls changed something.
    fn changed(&self) -> u64;
}

impl Stocked for Clustered {
    async fn stock(world: &World<Self>) {
        records::fill(world, 2).await;
    }

    async fn missing(world: &World<Self>) -> usize {
        records::lost(world).await
    }

    fn changed(&self) -> u64 {
        self.calls()
    }
}

impl Stocked for Fleet {
    async fn stock(world: &World<Self>) {
        world.sim.volumes(VolumeBehaviour::Offline);
    }

    async fn missing(_: &World<Self>) -> usize {
        0
    }

    fn changed(&self) -> u64 {
        self.writes().len() as u64
    }
}

impl Operation {
    /// Its cluster, at rest.
    pub async fn before<B: Stocked>(&self, seed: u64) -> Result<(World<B>, Session), String> {
        let mut world = World::<B>::new(seed);
        let session = world.start(|_| {});
        world.sim.apply(cluster(&(self.spec)()));
        ready(&world, self.brokers.0).await?;
        B::stock(&world).await;
        Ok((world, session))
    }

    /// Does it.
    pub fn act<B: Served>(&self, world: &World<B>) {
        match (self.change)() {
            None => world.sim.delete("rivvenclusters.rivven.io", "default", "x", &json!({})).unwrap(),
            Some(spec) => super::change(world, &spec),
        }
    }

    /// Until it is done: Ready with so many brokers, or gone, and nothing lost.
    pub async fn done<B: Stocked>(&self, world: &World<B>) -> Result<(), String> {
        let (_, brokers) = self.brokers;
        if brokers > 0 {
            ready(world, brokers).await?;
            let missing = B::missing(world).await;
            return if missing == 0 { Ok(()) } else { Err(format!("{missing} records lost")) };
        }
        for _ in 0..40 {
            world.settle().await?;
            if world.sim.get("rivvenclusters.rivven.io", "default", "x").is_none() && world.sim.list("pods").is_empty()
            {
                return Ok(());
            }
        }
        Err(format!("not gone: {:#}", status(world)))
    }

    /// From a cluster at rest to the end, with what `plan` lets go wrong.
    pub async fn play<B: Stocked>(
        &self,
        seed: u64,
        plan: impl FnOnce(&World<B>, &Session),
    ) -> Result<Played<B>, String> {
        let (world, session) = self.before::<B>(seed).await?;
        let (before, calls, events) = (world.log().0.len(), world.fleet.changed(), session.events());
        let version = world.sim.version();
        plan(&world, &session);
        self.act(&world);
        self.done(&world).await?;
        // API servers end every watch after some minutes, and what was missed is listed anew.
        session.expire_watches();
        self.done(&world).await?;
        let log = Log(world.log().0[before..].to_vec());
        let counts = log.writes().only(|entry| entry.subresource != "status").counts();
        let (requests, writes) = (log.0.len() as u64, log.writes().0.len() as u64);
        let (calls, events) = (world.fleet.changed() - calls, session.events() - events);
        let end = world.end();
        Ok(Played { world, session, end, requests, writes, calls, events, version, counts })
    }

    /// Plays it so, and holds it against the run in which nothing went wrong: oracles 5 and the one that asks.
    pub async fn same<B: Stocked>(
        &self,
        reference: &Played<B>,
        what: &str,
        plan: impl FnOnce(&World<B>, &Session),
    ) -> Played<B> {
        let run = self.play(1, plan).await.unwrap_or_else(|why| panic!("{}, {what}: {why}", self.name));
        differ_nowhere(&reference.end, &run.end, &format!("{}, {what}", self.name));
        assert_eq!(reference.counts, run.counts, "{}, {what}: how often each object was written", self.name);
        run
    }
}

pub fn differ_nowhere(reference: &BTreeMap<String, Value>, other: &BTreeMap<String, Value>, what: &str) {
    let keys: BTreeSet<_> = reference.keys().chain(other.keys()).collect();
    for key in keys {
        let (expected, found) = (reference.get(key), other.get(key));
        assert!(expected == found, "{what}: {key}\n{:#}\n{:#}", json!(expected), json!(found));
    }
}

/// Pods are left out, and what depends on how often one was made anew; so is what the StatefulSet controller remembers of
/// revisions.
pub fn but_for_restarts(mut world: BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    world.retain(|key, _| !key.starts_with("pods"));
    for (key, object) in &mut world {
        if key.starts_with("statefulsets") {
            object["status"] = Value::Null;
        }
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("uid");
        }
        let brokers = object.pointer_mut("/status/brokers").and_then(Value::as_array_mut);
        brokers.into_iter().flatten().for_each(|broker| broker["restarts"] = Value::Null);
    }
    world
}

/// About so many of `1..=total`, at a fixed distance, the first of each stretch.
pub fn sample(total: u64, most: u64) -> impl Iterator<Item = u64> {
    (1..=total).step_by(usize::try_from(total.div_ceil(most)).unwrap().max(1))
}
