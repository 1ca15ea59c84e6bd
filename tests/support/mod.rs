//! The operator's real controllers on the model of the API server, with brokers in the same process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "tests")]

pub mod broker;
pub mod cluster;
pub mod play;
pub mod records;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rivven_operator::api::{RivvenCluster, RivvenConnect, RivvenTopic};
use rivven_operator::broker::{Access, Brokers};
use rivven_operator::controllers::{self, Context, Scope};
use rivven_operator::execute::Executor;
use rivven_operator::observe::Observer;
use rivven_operator::process::health::Health;
use rivven_operator::process::metrics::Metrics;
use rivven_operator::process::shutdown;
use rivven_sim::{Log, Session, Sim};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use broker::{Fleet, Topic};
use cluster::Clustered;

/// Who the operator is in the log.
pub const OPERATOR: &str = "operator";
/// Long enough at rest that nothing is waited for any more.
pub const QUIET: Duration = Duration::from_secs(12);
pub const PATIENCE: Duration = Duration::from_mins(50);

/// Brokers in the pods of a model.
pub trait Served {
    /// In the pods of this model.
    fn of(sim: &Sim) -> Self;
    /// How the operator reaches them.
    fn access(&self) -> Access;
    /// What they hold, as two runs are compared by it.
    fn topics(&self) -> BTreeMap<String, Topic>;
}

impl Served for Fleet {
    fn of(sim: &Sim) -> Self {
        Self::new(sim)
    }

    fn access(&self) -> Access {
        Self::access(self)
    }

    fn topics(&self) -> BTreeMap<String, Topic> {
        Self::topics(self)
    }
}

impl Served for Clustered {
    fn of(sim: &Sim) -> Self {
        Self::new(sim)
    }

    fn access(&self) -> Access {
        Self::access(self)
    }

    fn topics(&self) -> BTreeMap<String, Topic> {
        BTreeMap::new()
    }
}

/// A model, its brokers, and the operator as long as it runs.
pub struct World<B: Served = Fleet> {
    pub sim: Sim,
    pub fleet: B,
    pub resync: Duration,
    watchdog: Option<JoinHandle<()>>,
}

impl<B: Served> Drop for World<B> {
    fn drop(&mut self) {
        self.stop();
    }
}

impl<B: Served> World<B> {
    pub fn new(seed: u64) -> Self {
        let sim = Sim::new(seed);
        for crd in rivven_operator::api::crds() {
            sim.apply(serde_json::to_value(crd).unwrap());
        }
        let fleet = B::of(&sim);
        Self { sim, fleet, resync: Duration::from_secs(8), watchdog: None }
    }

    /// Starts the operator, with a new process and empty memory whenever its session ends.
    pub fn start(&mut self, plan: impl FnOnce(&Session)) -> Session {
        let session = self.sim.session(OPERATOR);
        plan(&session);
        let (first, sim, access, resync) = (session.clone(), self.sim.clone(), self.fleet.access(), self.resync);
        self.watchdog = Some(tokio::spawn(async move {
            let mut session = first;
            loop {
                tokio::select! {
                    () = operator(&session, access.clone(), resync) => panic!("the controllers ended"),
                    () = session.ended() => {}
                }
                session = sim.session(OPERATOR);
            }
        }));
        session
    }

    /// Ends the operator at once, whatever it does.
    pub fn stop(&mut self) {
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.abort();
        }
    }

    pub async fn settle(&self) -> Result<(), String> {
        self.sim.converge(QUIET, PATIENCE).await.map_err(|error| error.to_string())
    }

    /// The world as two runs are compared by it: objects, and what the brokers hold. The token is random.
    pub fn end(&self) -> BTreeMap<String, Value> {
        let mut world = self.sim.world();
        for (key, object) in &mut world {
            if key.starts_with("secrets")
                && let Some(data) = object["data"].as_object_mut()
            {
                data.values_mut().for_each(|value| *value = json!(value.as_str().map(str::len)));
            }
            // Whether a broker is ready at this very moment is its own affair.
            if key.starts_with("poddisruptionbudgets") {
                object["status"] = Value::Null;
            }
            // Who leads is the brokers' own choice.
            if let Some(brokers) = object.pointer_mut("/status/brokers").and_then(Value::as_array_mut) {
                for broker in brokers {
                    broker["leader"] = Value::Null;
                }
            }
        }
        for (name, topic) in self.fleet.topics() {
            world.insert(format!("topic {name}"), json!({ "partitions": topic.partitions, "config": topic.config }));
        }
        world
    }

    /// What the operator asked of the API server.
    pub fn log(&self) -> Log {
        self.sim.log().of(OPERATOR)
    }

    pub fn phase(&self, resource: &str, name: &str) -> String {
        let object = self.sim.get(resource, "default", name);
        object.and_then(|o| o.pointer("/status/phase")?.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

async fn operator(session: &Session, access: Access, resync: Duration) {
    let client = session.client();
    let (health, (_stopper, stop)) = (Health::new(), shutdown::pair());
    let executor = Executor::new(client.clone(), Arc::new(|| true));
    let brokers = Brokers::listing(access, Arc::new(|_, _, _| {}), resync);
    let (sim, looking) = (session.sim(), client.clone());
    let context = move |caches| {
        let observer = Observer::new(looking, caches, brokers, "cluster.local".to_owned());
        Context::new(observer, executor, Metrics::new("test"), resync).with_clock(move || sim.now())
    };
    controllers::run(client, vec![Scope(None)], &health, &stop, context).await;
}

/// As the API server keeps an object: with every default filled in.
fn filled<K: Serialize + DeserializeOwned>(object: Value) -> Value {
    let typed: K = serde_json::from_value(object).unwrap();
    serde_json::to_value(typed).unwrap()
}

pub fn cluster(spec: &Value) -> Value {
    filled::<RivvenCluster>(json!({
        "apiVersion": "rivven.io/v1alpha1", "kind": "RivvenCluster", "metadata": { "name": "x", "namespace": "default" },
        "spec": spec,
    }))
}

pub fn topic(name: &str, spec: &Value) -> Value {
    filled::<RivvenTopic>(json!({
        "apiVersion": "rivven.io/v1alpha1", "kind": "RivvenTopic", "metadata": { "name": name, "namespace": "default" },
        "spec": spec,
    }))
}

pub fn status<B: Served>(world: &World<B>) -> Value {
    world.sim.get("rivvenclusters.rivven.io", "default", "x").unwrap_or_default()["status"].clone()
}

/// Until nothing happens any more, and the cluster is Ready with so many brokers.
pub async fn ready<B: Served>(world: &World<B>, replicas: u32) -> Result<(), String> {
    world.settle().await.map_err(|why| format!("{why}\n{:#}", status(world)))?;
    // What a broker is asked is not written anywhere, so rest alone is no end.
    for _ in 0..20 {
        let status = status(world);
        if status["phase"] == "Ready" && status["ready"] == format!("{replicas}/{replicas}") {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        world.settle().await?;
    }
    Err(format!("not Ready with {replicas}: {:#}", status(world)))
}

/// Changes the cluster's spec.
pub fn change<B: Served>(world: &World<B>, spec: &Value) {
    world.sim.apply(json!({
        "apiVersion": "rivven.io/v1alpha1", "kind": "RivvenCluster", "metadata": { "name": "x" }, "spec": spec,
    }));
}

pub fn connect(spec: &Value) -> Value {
    let mut all = json!({ "clusterRef": { "name": "x" } });
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    filled::<RivvenConnect>(json!({
        "apiVersion": "rivven.io/v1alpha1", "kind": "RivvenConnect", "metadata": { "name": "p", "namespace": "default" },
        "spec": all,
    }))
}
