//! The handle tests hold, and the sessions they give to the code under test.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chrono::{DateTime, Utc};
use kube::Client;
use serde_json::Value;
use tokio::sync::watch;

use crate::controllers::{Behaviour, Controller, Nodes, VolumeBehaviour};
use crate::faults::{Fault, Matcher, Plan, View};
use crate::http::Server;
use crate::json::{remove, text};
use crate::kinds::Kind;
use crate::log::{Entry, Log, quiet};
use crate::patch;
use crate::refusal::Refusal;
use crate::store::{Change, Key, Part, Store};

/// Everything that changes.
pub(crate) struct State {
    pub(crate) store: Store,
    pub(crate) sessions: Vec<Plan>,
    pub(crate) log: Vec<Entry>,
    pub(crate) nodes: Nodes,
    /// Requests that are not answered until the client gives up.
    pub(crate) hanging: u32,
    random: u64,
}

impl State {
    /// xorshift: enough to shuffle a handful of controllers, and the same everywhere.
    fn random(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % below as u64).unwrap()
    }
}

pub(crate) struct Inner {
    pub(crate) state: Mutex<State>,
    /// Wakes watches: on changes, cut sessions and changed views.
    pub(crate) wake: watch::Sender<()>,
}

/// A modelled cluster. Clones are the same cluster.
#[derive(Clone)]
pub struct Sim(pub(crate) Arc<Inner>);

/// The cluster did not come to rest in the time given.
#[derive(Debug)]
pub struct NotQuiet(
    /// The last requests and changes before the end of patience.
    pub Vec<String>,
);

impl std::fmt::Display for NotQuiet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not quiet; the last that happened:\n{}", self.0.join("\n"))
    }
}

impl std::error::Error for NotQuiet {}

impl Sim {
    /// A cluster with three nodes in zones a, b and c, the namespaces `default` and `kube-system`, and the storage
    /// classes `standard` (default, can grow) and `fixed` (cannot). The seed decides the order controllers run in.
    pub fn new(seed: u64) -> Self {
        let (wake, _) = watch::channel(());
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let state = State {
            store: Store::new(),
            sessions: Vec::new(),
            log: Vec::new(),
            nodes: Nodes::default(),
            hanging: 0,
            random,
        };
        let sim = Self(Arc::new(Inner { state: Mutex::new(state), wake }));
        for object in crate::controllers::furniture() {
            sim.apply(object);
        }
        sim
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.0.wake.send_replace(());
        result
    }

    /// Serves one more resource.
    pub fn serve(&self, kind: Kind) {
        self.state().store.kinds.push(kind);
    }

    /// Opens a session: what one run of one process holds. Needs a tokio runtime.
    pub fn session(&self, user: &str) -> Session {
        let mut state = self.state();
        state.sessions.push(Plan { user: user.into(), ..Plan::default() });
        Session { sim: self.clone(), id: state.sessions.len() - 1 }
    }

    /// The client of a new session of a user.
    pub fn client(&self, user: &str) -> Client {
        self.session(user).client()
    }

    // --- objects, as an administrator would see and change them, unlogged

    /// The kind and key of an object, by its `apiVersion`, `kind`, `metadata.namespace` (or `default`) and `metadata.name`.
    fn locate(&self, object: &Value) -> (Kind, Key) {
        let state = self.state();
        let kind = state.store.kind_of(object).unwrap_or_else(|| panic!("no such kind is served: {object}")).clone();
        let namespace = match text(object, "/metadata/namespace") {
            _ if !kind.namespaced => "",
            "" => "default",
            namespace => namespace,
        };
        let key = Key::new(&kind, namespace, text(object, "/metadata/name"));
        (kind, key)
    }

    /// Creates an object, or merges it into the one that is there.
    pub fn try_apply(&self, object: Value) -> Result<Value, Refusal> {
        let (kind, key) = self.locate(&object);
        self.change(|s| match s.store.get(&key).cloned() {
            None => s.store.create(&kind, &key.namespace, object),
            Some(old) => {
                let mut new = (*old).clone();
                patch::merge(&mut new, &object);
                s.store.update(&kind, &key, new, Part::Main)
            }
        })
        .map(|o| (*o).clone())
    }

    /// Like [`Sim::try_apply`], where a refusal is a mistake of the test.
    pub fn apply(&self, object: Value) -> Value {
        self.try_apply(object).unwrap_or_else(|e| panic!("refused: {e:?}"))
    }

    /// The key of an object: `key("statefulsets.apps", "default", "x")`.
    pub fn key(&self, resource: &str, namespace: &str, name: &str) -> Key {
        let state = self.state();
        let kind = state.store.kinds.iter().find(|k| k.resource() == resource);
        Key::new(kind.unwrap_or_else(|| panic!("no {resource} are served")), namespace, name)
    }

    /// The object, if there is one.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = self.key(resource, namespace, name);
        self.state().store.get(&key).map(|o| (**o).clone())
    }

    /// All objects of a resource, by namespace and name.
    pub fn list(&self, resource: &str) -> Vec<Value> {
        let key = self.key(resource, "", "");
        self.state().store.list(&key.group, &key.plural, None).map(|(_, o)| (**o).clone()).collect()
    }

    /// Changes any part of an object, past all rules: drift, statuses, a clock gone wrong.
    pub fn edit(&self, resource: &str, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let key = self.key(resource, namespace, name);
        self.change(|s| s.store.edit(&key, change));
    }

    /// Deletes an object with `DeleteOptions`, as a user would.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str, options: &Value) -> Result<(), Refusal> {
        let key = self.key(resource, namespace, name);
        self.change(|s| {
            let kind = s.store.kind(&key.group, &key.plural).unwrap().clone();
            s.store.delete(&kind, &key, options).map(|_| ())
        })
    }

    // --- the world around

    /// Decides how pods behave. The rule added last decides first; without one a pod starts and becomes ready.
    pub fn behave(&self, rule: impl Fn(&Value) -> Option<Behaviour> + Send + 'static) {
        self.change(|s| s.nodes.rules.push(Box::new(rule)));
    }

    /// Decides how the pod with this name behaves.
    pub fn behave_pod(&self, name: &str, behaviour: Behaviour) {
        let name = name.to_owned();
        self.behave(move |pod| (text(pod, "/metadata/name") == name).then(|| behaviour.clone()));
    }

    /// Decides how pods with this image in any container behave.
    pub fn behave_image(&self, image: &str, behaviour: Behaviour) {
        let image = image.to_owned();
        self.behave(move |pod| {
            let found = crate::json::list(pod, "/spec/containers").iter().any(|c| text(c, "/image") == image);
            found.then(|| behaviour.clone())
        });
    }

    /// Decides how volumes grow.
    pub fn volumes(&self, behaviour: VolumeBehaviour) {
        self.change(|s| s.nodes.volumes = behaviour);
    }

    /// Ends the running containers of a pod; the kubelet starts them anew, in place.
    pub fn restart_containers(&self, namespace: &str, pod: &str) {
        self.change(|s| crate::controllers::restart(&mut s.store, namespace, pod));
    }

    /// The virtual time.
    pub fn now(&self) -> DateTime<Utc> {
        self.state().store.now
    }

    /// Lets virtual time pass. Nobody acts on it before the next step.
    pub fn advance(&self, time: Duration) {
        self.state().store.now += time;
    }

    // --- running it

    /// Runs one controller once. Says whether it changed anything.
    pub fn run(&self, controller: Controller) -> bool {
        self.change(|s| {
            let before = s.store.version;
            controller.run(&mut s.store, &s.nodes);
            s.store.version != before
        })
    }

    /// One second passes and every controller runs once, in an order drawn from the seed. Says whether anything changed.
    pub fn step(&self) -> bool {
        self.advance(Duration::from_secs(1));
        let mut order = Controller::ALL.to_vec();
        for i in (1..order.len()).rev() {
            let j = self.state().random(i + 1);
            order.swap(i, j);
        }
        let changed = order.into_iter().filter(|c| self.run(*c)).count();
        changed > 0
    }

    /// Steps until the controllers have nothing left to do, and tells how many steps that took. The code under test does
    /// not run meanwhile.
    pub fn settle(&self) -> usize {
        (1..1000).find(|_| !self.step()).expect("the controllers of the model do not come to rest")
    }

    /// Steps once per second of tokio's time, in which the code under test runs too, until nothing was written by anyone
    /// for `quiet`. With tokio's time paused this takes no real time. Writes without effect count as unrest.
    pub async fn converge(&self, quiet: Duration, limit: Duration) -> Result<(), NotQuiet> {
        let (mut calm, mut past) = (Duration::ZERO, Duration::ZERO);
        let mark = |s: &State| (s.store.loud, s.sessions.iter().map(|p| p.writes).sum::<u64>());
        // Whoever waits for an answer is not at rest.
        let at_rest = |s: &State, before| s.hanging == 0 && mark(s) == before;
        while calm < quiet {
            if past >= limit {
                return Err(NotQuiet(self.recent()));
            }
            let before = mark(&self.state());
            self.step();
            tokio::time::sleep(Duration::from_secs(1)).await;
            past += Duration::from_secs(1);
            calm = if at_rest(&self.state(), before) { calm + Duration::from_secs(1) } else { Duration::ZERO };
        }
        Ok(())
    }

    fn recent(&self) -> Vec<String> {
        let state = self.state();
        let requests = state.log.iter().filter(|e| e.verb.writes()).map(|e| format!("{}: {e}", e.user));
        let changes = state.store.history.iter().map(|c| format!("changed: {}", c.key));
        let tail = |lines: Vec<String>| lines.into_iter().rev().take(20).rev().collect::<Vec<_>>();
        [tail(requests.collect()), tail(changes.collect())].concat()
    }

    // --- looking back

    /// All requests so far.
    pub fn log(&self) -> Log {
        Log(self.state().log.clone())
    }

    /// Every change since the start, by whomever.
    pub fn history(&self) -> Vec<Change> {
        self.state().store.history.clone()
    }

    /// The newest version.
    pub fn version(&self) -> u64 {
        self.state().store.version
    }

    /// All objects as they were at a version.
    pub fn at(&self, version: u64) -> BTreeMap<Key, Arc<Value>> {
        self.state().store.at(version)
    }

    /// Forgets history as etcd's compaction does: watches from before now are answered 410.
    pub fn compact(&self) {
        self.change(|s| s.store.compacted = s.store.version);
    }

    /// The world for comparing two runs: without Events, Leases, and all that depends on when and how often rather than
    /// on what. Uids stay: they are made from the name and how often it was used.
    pub fn world(&self) -> BTreeMap<String, Value> {
        let state = self.state();
        let objects = state.store.objects.iter().filter(|(k, _)| !quiet(k));
        objects.map(|(k, o)| (k.to_string(), timeless(o))).collect()
    }
}

/// An object without versions, times, addresses and counters.
fn timeless(object: &Value) -> Value {
    const GONE: [&str; 12] = [
        "resourceVersion",
        "generation",
        "observedGeneration",
        "creationTimestamp",
        "clusterIP",
        "clusterIPs",
        "nodePort",
        "containerID",
        "podIP",
        "podIPs",
        "restartCount",
        "disruptedPods",
    ];
    let mut o = object.clone();
    strip(&mut o, &|k| GONE.contains(&k) || k.ends_with("Time") || k.ends_with("At"));
    remove(&mut o["metadata"], "deletionTimestamp");
    o
}

fn strip(v: &mut Value, gone: &impl Fn(&str) -> bool) {
    match v {
        Value::Object(map) => {
            map.retain(|k, _| !gone(k));
            map.values_mut().for_each(|v| strip(v, gone));
        }
        Value::Array(items) => items.iter_mut().for_each(|v| strip(v, gone)),
        _ => {}
    }
}

/// What one run of one process holds: its client, its faults, its view. Clones are the same session.
#[derive(Clone)]
pub struct Session {
    pub(crate) sim: Sim,
    pub(crate) id: usize,
}

impl Session {
    fn plan(&self, change: impl FnOnce(&mut Plan)) {
        self.sim.change(|s| change(&mut s.sessions[self.id]));
    }

    /// A client of this session, with `default` as its namespace. Needs a tokio runtime.
    pub fn client(&self) -> Client {
        Client::new(Server(self.clone()), "default")
    }

    /// The cluster this session is with.
    pub fn sim(&self) -> Sim {
        self.sim.clone()
    }

    /// Ends the open watches as an API server does that has forgotten the past: what they missed is listed anew.
    pub fn expire_watches(&self) {
        self.plan(|p| p.expired += 1);
    }

    /// Plans a fault for the nth write from now on, counted from 1; Events and Leases are not counted.
    pub fn on_write(&self, nth: u64, fault: Fault) {
        self.on(Matcher::writes(), nth, fault);
    }

    /// Plans a fault for the nth request from now on, counted from 1, that the matcher holds for.
    pub fn on(&self, matcher: Matcher, nth: u64, fault: Fault) {
        self.plan(|p| p.add(matcher, nth, fault));
    }

    /// How many writes this session asked for.
    pub fn writes(&self) -> u64 {
        self.sim.state().sessions[self.id].writes
    }

    /// Loses the nth watch event of this session, counted from 1 over all its watches.
    pub fn drop_event(&self, nth: u64) {
        self.plan(|p| p.dropped.push(nth));
    }

    /// How many watch events were due in this session so far, lost ones included.
    pub fn events(&self) -> u64 {
        self.sim.state().sessions[self.id].events
    }

    /// From when lists and watches are answered.
    pub fn view(&self, view: View) {
        self.plan(|p| p.view = view);
    }

    /// Ends the session: open watches break, and every further request fails.
    pub fn cut(&self) {
        self.plan(|p| p.cut = true);
    }

    /// Whether the session has ended.
    pub fn is_cut(&self) -> bool {
        self.sim.state().sessions[self.id].cut
    }

    /// Waits for the end of the session, so that a test can drop the code under test as a crash would.
    pub async fn ended(&self) {
        let mut wake = self.sim.0.wake.subscribe();
        while !self.is_cut() {
            if wake.changed().await.is_err() {
                return;
            }
        }
    }
}
