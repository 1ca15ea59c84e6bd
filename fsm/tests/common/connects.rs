//! A small imitation of Deployments, their pods and their workers around one connect.

use std::collections::{BTreeMap, BTreeSet};

use rivven_fsm::cluster::{Container, Pod, Presence};
use rivven_fsm::connect::{
    self, Answer, Connector, Deployment, NewTopic, Object, Observation, Report, Role, Runs, Step, Topics, Wanted,
    WorkerPod,
};
use rivven_fsm::topic::Cluster;
use rivven_fsm::{Decision, Kind, Phase};

use super::now;

/// A Deployment. `acted`: what its controller has seen of it; until then pods of the old template may still come.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dep {
    pub template: BTreeSet<Connector>,
    pub acted: BTreeSet<Connector>,
    pub observed: bool,
    pub deleting: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SimPod {
    pub worker: u32,
    pub runs: BTreeSet<Connector>,
    pub ready: bool,
    pub terminating: bool,
}

/// Who may act beside the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The Deployment controller sees this worker's Deployment.
    Controller(u32),
    /// Its `ReplicaSet` makes the pod that is missing.
    ReplicaSet(u32),
    /// Its pods come up, or are gone if they are to go.
    Kubelet(u32),
    /// Its pod is evicted.
    Drain(u32),
}

/// A connect and what is around it.
#[derive(Clone, Debug)]
pub struct ConnectWorld {
    pub o: Observation,
    pub ledger: Option<Runs>,
    pub secret: bool,
    pub deployments: BTreeMap<u32, Dep>,
    pub pods: Vec<SimPod>,
    pub topic: bool,
    pub failing: BTreeSet<Connector>,
    pub gone: bool,
    pub steps: usize,
}

pub fn connector(name: &str) -> Connector {
    Connector { role: Role::Source, name: name.to_owned() }
}

pub fn wanted(name: &str) -> Wanted {
    Wanted { id: connector(name), refusal: None }
}

pub fn ready_cluster() -> Cluster {
    Cluster::Ready { uid: "here".to_owned(), replicates: false, brokers: 1, acls: false }
}

pub fn pod(ready: bool, terminating: bool) -> Pod {
    Pod {
        uid: "u".to_owned(),
        revision: String::new(),
        ready,
        ready_since: None,
        created: now(),
        orphan: false,
        restart_asked: false,
        held: None,
        terminating,
        unschedulable: None,
        failed: None,
        container: if ready { Container::Running } else { Container::Unreported },
        restarts: 0,
        last_exit: None,
    }
}

impl ConnectWorld {
    pub fn new(replicas: u32, connectors: &[&str]) -> Self {
        let o = Observation {
            recorded: None,
            deletion: None,
            finalizer: false,
            paused: false,
            wish: connect::Wish {
                replicas,
                connectors: connectors.iter().map(|name| wanted(name)).collect(),
                problems: Vec::new(),
                unsupported: Vec::new(),
            },
            cluster: ready_cluster(),
            prerequisites: Vec::new(),
            topics: Topics::NotAsked,
            placement: connect::Placement::default(),
            objects: Vec::new(),
            workers: Vec::new(),
            health: true,
            unmonitored: false,
            lags: BTreeMap::new(),
        };
        Self {
            o,
            ledger: None,
            secret: true,
            deployments: BTreeMap::new(),
            pods: Vec::new(),
            topic: false,
            failing: BTreeSet::new(),
            gone: false,
            steps: 0,
        }
    }

    fn may_run(&self) -> Runs {
        let mut may = self.ledger.clone().unwrap_or_default();
        for (index, dep) in &self.deployments {
            may.entry(*index).or_default().extend(dep.template.clone());
        }
        for pod in &self.pods {
            may.entry(pod.worker).or_default().extend(pod.runs.clone());
        }
        may
    }

    pub fn look(&mut self) {
        let missing = NewTopic { topic: "t".to_owned(), partitions: 1, replication: 1 };
        self.o.topics = Topics::Known { missing: if self.topic { Vec::new() } else { vec![missing] } };
        let unsettled = self.deployments.values().any(|dep| !dep.observed);
        let run: Vec<Connector> =
            self.o.wish.connectors.iter().filter(|w| w.refusal.is_none()).map(|w| w.id.clone()).collect();
        self.o.placement = connect::place(&run, self.o.wish.replicas, &self.may_run(), unsettled);
        let runs = self.o.placement.runs.clone();
        let mut objects = Vec::new();
        let ledger = match &self.ledger {
            None => Presence::Missing,
            Some(ledger) if *ledger == runs => Presence::Current,
            Some(_) => Presence::Drifted,
        };
        objects.push((Object::ConfigMap, ledger));
        for (index, wanted) in &runs {
            let presence = match self.deployments.get(index) {
                None => Presence::Missing,
                Some(dep) if dep.deleting => Presence::Deleting,
                Some(dep) if dep.template == *wanted => Presence::Current,
                Some(_) => Presence::Drifted,
            };
            objects.push((Object::Worker(*index), presence));
        }
        self.o.objects = objects;
        let mut indices: BTreeSet<u32> = runs.keys().copied().collect();
        indices.extend(self.deployments.keys());
        indices.extend(self.pods.iter().map(|pod| pod.worker));
        self.o.workers = indices.into_iter().map(|index| self.worker(index, runs.get(&index))).collect();
    }

    fn worker(&self, index: u32, wanted: Option<&BTreeSet<Connector>>) -> connect::Worker {
        let pods: Vec<WorkerPod> = self
            .pods
            .iter()
            .filter(|pod| pod.worker == index)
            .enumerate()
            .map(|(nth, sim)| WorkerPod {
                name: format!("w{index}-{nth}"),
                runs: sim.runs.clone(),
                current: wanted == Some(&sim.runs),
                pod: pod(sim.ready, sim.terminating),
            })
            .collect();
        let mut worker = connect::Worker {
            index,
            deployment: self.deployments.get(&index).map(|dep| Deployment {
                uid: format!("d{index}"),
                runs: dep.template.clone(),
                observed: dep.observed,
                deleting: dep.deleting,
            }),
            pods,
            answer: Answer::NotAsked,
        };
        if let Some(up) = worker.current().filter(|_| worker.is_up()) {
            let report = |id: &Connector| {
                let failing = self.failing.contains(id);
                let last_error = failing.then(|| "refused".to_owned());
                (id.clone(), Report { errors: u64::from(failing), last_error, failing })
            };
            worker.answer = Answer::Said(up.runs.iter().map(report).collect());
        }
        worker
    }

    /// One look and its steps. `lost`: the first step takes effect, its reply is lost, and the run ends.
    pub fn operate(&mut self, lost: bool) -> Result<Decision<Step>, String> {
        self.look();
        let decision = connect::decide(&self.o, now());
        let mut recorded = decision.phase;
        if decision.refused.is_some() || !Kind::Connect.table().allows(self.o.recorded, recorded) {
            return Err(format!("{:?} to {recorded}: {decision:?}", self.o.recorded));
        }
        for step in &decision.steps {
            self.steps += 1;
            self.run(step)?;
            if lost {
                recorded = connect::step_failed(&decision, step, "the reply was lost").phase;
                break;
            }
        }
        self.o.recorded = Some(recorded);
        self.gone = self.o.deletion.is_some() && !self.o.finalizer;
        self.holds()?;
        Ok(decision)
    }

    fn run(&mut self, step: &Step) -> Result<(), String> {
        let runs = self.o.placement.runs.clone();
        match step {
            Step::AddFinalizer => self.o.finalizer = true,
            Step::RemoveFinalizer => self.o.finalizer = false,
            Step::CreateTopic { .. } => self.topic = true,
            Step::Apply(Object::ConfigMap) => self.ledger = Some(runs),
            Step::Apply(Object::Worker(index)) => {
                if !self.topic || self.ledger.as_ref() != Some(&runs) {
                    return Err(format!("worker {index} before its topics or the ledger"));
                }
                let Some(template) = runs.get(index) else { return Err(format!("worker {index} runs nothing")) };
                let fresh = Dep { template: BTreeSet::new(), acted: BTreeSet::new(), observed: false, deleting: false };
                let dep = self.deployments.entry(*index).or_insert(fresh);
                (dep.template, dep.observed) = (template.clone(), false);
            }
            Step::Apply(other) => return Err(format!("{other:?} is not in this world")),
            Step::DeleteWorker { index, .. } => match self.deployments.get_mut(index) {
                Some(dep) => dep.deleting = true,
                None => return Err(format!("worker {index} is deleted and not there")),
            },
        }
        Ok(())
    }

    pub fn act(&mut self, actor: Actor) -> Result<(), String> {
        match actor {
            Actor::Controller(index) => {
                let Some(dep) = self.deployments.get_mut(&index) else { return Ok(()) };
                if dep.deleting {
                    dep.acted.clear();
                    self.stop(index, |_| true);
                    if !self.pods.iter().any(|pod| pod.worker == index) {
                        self.deployments.remove(&index);
                    }
                } else {
                    dep.observed = true;
                    let template = dep.template.clone();
                    self.stop(index, |pod| pod.runs != template);
                    // Recreate: the new ReplicaSet is filled when the pods of the old one are gone.
                    let old = self.pods.iter().any(|pod| pod.worker == index && pod.runs != template);
                    if let Some(dep) = self.deployments.get_mut(&index) {
                        dep.acted = if old { BTreeSet::new() } else { template };
                    }
                }
            }
            Actor::ReplicaSet(index) => {
                let Some(dep) = self.deployments.get(&index).filter(|dep| !dep.acted.is_empty()) else { return Ok(()) };
                let there = self.pods.iter().any(|pod| pod.worker == index);
                if !there {
                    let runs = dep.acted.clone();
                    self.pods.push(SimPod { worker: index, runs, ready: false, terminating: false });
                }
            }
            Actor::Kubelet(index) => {
                self.pods.retain(|pod| pod.worker != index || !pod.terminating);
                self.pods.iter_mut().filter(|pod| pod.worker == index).for_each(|pod| pod.ready = true);
            }
            Actor::Drain(index) => self.stop(index, |_| true),
        }
        self.holds()
    }

    fn stop(&mut self, index: u32, which: impl Fn(&SimPod) -> bool) {
        for pod in self.pods.iter_mut().filter(|pod| pod.worker == index && which(pod)) {
            (pod.terminating, pod.ready) = (true, false);
        }
    }

    /// No connector is in two pods, whether they come, run or go.
    pub fn holds(&self) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        for pod in &self.pods {
            for id in &pod.runs {
                if !seen.insert(id) {
                    return Err(format!("{id} is active twice: {self:#?}"));
                }
            }
        }
        Ok(())
    }

    /// Everybody acts in turn until nothing moves.
    pub fn settle(&mut self) -> Result<usize, String> {
        for round in 0..40 {
            let decision = self.operate(false)?;
            let rests = decision.steps.is_empty() && matches!(decision.phase, Phase::Ready | Phase::Degraded);
            if self.gone || (rests && decision.blocked_by.is_empty()) {
                return Ok(round);
            }
            for index in 0..4 {
                self.act(Actor::Controller(index))?;
                self.act(Actor::ReplicaSet(index))?;
                self.act(Actor::Kubelet(index))?;
            }
        }
        Err(format!("not at rest: {self:#?}"))
    }
}
