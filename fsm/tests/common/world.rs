//! A small imitation of what surrounds a cluster: the StatefulSet controller, the kubelet, the volume controller. It
//! carries out steps and moves on, one actor at a time.

use rivven_fsm::cluster::{
    self, Admission, Answer, Broker, Claim, Container, Deletion, LastExit, Membership, Object, Observation, Pod,
    Presence, ReclaimPolicy, StatefulSet, Step,
};
use rivven_fsm::{Decision, Kind, Phase};

use super::{claim, cluster_holds, clustered, members, now, pod};

/// A random number that is the same on every machine: the seed of a failing run is printed.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// One who acts on the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    Operator,
    StatefulSetController,
    Kubelet,
    Volumes,
}

pub const ACTORS: [Actor; 4] = [Actor::Operator, Actor::StatefulSetController, Actor::Kubelet, Actor::Volumes];

#[derive(Clone, Debug)]
pub struct Set {
    pub template: String,
    /// The revision that the controller has computed: behind the template until it acts.
    pub observed: Option<String>,
    pub deleting: bool,
}

#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct World {
    pub recorded: Option<Phase>,
    pub replicas: u32,
    /// The template that the spec in force asks for.
    pub wanted: String,
    /// Templates whose broker ends at once.
    pub broken: Vec<String>,
    pub finalizer: bool,
    pub paused: bool,
    pub deletion: Option<ReclaimPolicy>,
    pub admission: Admission,
    /// Every object but the StatefulSet.
    pub objects: Vec<(Object, Presence)>,
    pub set: Option<Set>,
    pub pods: Vec<Option<Pod>>,
    pub claims: Vec<Option<Claim>>,
    /// Which brokers know the members: it is on their volumes.
    pub told: Vec<bool>,
    /// The formation is noted on the object.
    pub formed: bool,
    pub gone: bool,
    /// Pods made so far, for their uids.
    pub made: u64,
    /// How often a cluster was begun.
    pub bootstraps: u64,
    /// Steps carried out so far.
    pub steps: Vec<Step>,
}

impl World {
    /// A cluster that was just created.
    pub fn new(replicas: u32) -> Self {
        Self {
            recorded: None,
            replicas,
            wanted: "r1".to_owned(),
            broken: Vec::new(),
            finalizer: false,
            paused: false,
            deletion: None,
            admission: Admission::Accepted,
            objects: Object::ALL
                .into_iter()
                .filter(|object| *object != Object::StatefulSet)
                .map(|object| (object, Presence::Missing))
                .collect(),
            set: None,
            pods: vec![None; replicas as usize],
            claims: vec![None; replicas as usize],
            told: vec![false; replicas as usize],
            formed: false,
            gone: false,
            made: 0,
            bootstraps: 0,
            steps: Vec::new(),
        }
    }

    /// The spec changes: pods run another template from now on.
    pub fn want(&mut self, template: &str) {
        template.clone_into(&mut self.wanted);
        for (object, is) in &mut self.objects {
            if *object == Object::ConfigMap && *is == Presence::Current {
                *is = Presence::Drifted;
            }
        }
    }

    /// The highest that is told, once more than half of them run.
    fn leader(&self) -> Option<usize> {
        let votes = |ordinal: &usize| self.told[*ordinal] && self.runs(*ordinal);
        let able: Vec<usize> = (0..self.pods.len()).filter(votes).collect();
        (2 * able.len() > self.pods.len()).then(|| able.last().copied()).flatten()
    }

    fn runs(&self, ordinal: usize) -> bool {
        self.pods[ordinal].as_ref().is_some_and(|pod| !pod.terminating && pod.container == Container::Running)
    }

    fn answer(&self, ordinal: usize, leader: Option<usize>) -> Answer {
        if !self.runs(ordinal) {
            return Answer::NotAsked;
        }
        Answer::Said {
            healthy: leader.is_some() && self.told[ordinal],
            version: "0.1.0".to_owned(),
            node_id: ordinal.to_string(),
            leader: leader == Some(ordinal),
            membership: if self.told[ordinal] { members(self.replicas) } else { Membership::Unknown },
        }
    }

    pub fn observe(&self) -> Observation {
        let leader = self.leader();
        let mut objects = self.objects.clone();
        let presence = match &self.set {
            None => Presence::Missing,
            Some(set) if set.deleting => Presence::Deleting,
            Some(set) if set.template == self.wanted => Presence::Current,
            Some(_) => Presence::Drifted,
        };
        objects.push((Object::StatefulSet, presence));
        let brokers = (0..self.replicas)
            .zip(self.pods.iter().zip(&self.claims))
            .map(|(ordinal, (pod, claim))| Broker {
                ordinal,
                answer: self.answer(ordinal as usize, leader),
                pod: pod.clone(),
                claim: claim.clone(),
            })
            .collect();
        Observation {
            recorded: self.recorded,
            deletion: self.deletion.map(|reclaim| Deletion { requested_at: now(), reclaim }),
            finalizer: self.finalizer,
            paused: self.paused,
            adopt_volumes: false,
            admission: self.admission.clone(),
            objects,
            stateful_set: self.set.as_ref().map(|set| StatefulSet {
                uid: "set".to_owned(),
                replicas: self.replicas,
                update_revision: set.observed.clone().filter(|observed| *observed == set.template),
                deleting: set.deleting,
            }),
            brokers,
            replicas: self.replicas,
            capabilities: clustered(),
            dependents: Vec::new(),
            formed: self.formed,
            partitions: rivven_fsm::cluster::Partitions::Unreplicated,
        }
    }

    /// How many serve: without a quorum, nobody does.
    pub fn up(&self) -> usize {
        let up = |ordinal: &usize| self.told[*ordinal] && self.pods[*ordinal].as_ref().is_some_and(Pod::is_up);
        if self.leader().is_some() { (0..self.pods.len()).filter(up).count() } else { 0 }
    }

    /// One look of the operator, and its steps carried out.
    pub fn operate(&mut self) -> Result<Decision<Step>, String> {
        let observed = self.observe();
        let decision = cluster::decide(&observed, now());
        cluster_holds(&observed, &decision).map_err(|what| format!("{what}: {observed:#?} {decision:#?}"))?;
        let up_before = self.up();
        for step in &decision.steps {
            self.carry_out(step)?;
        }
        // One of two takes the majority away, whoever restarts it.
        let spared = self.replicas > 2;
        if self.deletion.is_none() && spared && self.up() < up_before && self.up() + 1 < self.replicas as usize {
            return Err(format!("{} of {} brokers up because of us", self.up(), self.replicas));
        }
        if !Kind::Cluster.table().allows(self.recorded, decision.phase) {
            return Err(format!("{:?} to {}", self.recorded, decision.phase));
        }
        self.recorded = Some(decision.phase);
        // Nobody holds an object that is being deleted but the finalizer.
        self.gone = self.deletion.is_some() && !self.finalizer;
        Ok(decision)
    }

    fn carry_out(&mut self, step: &Step) -> Result<(), String> {
        self.steps.push(step.clone());
        match step {
            Step::AddFinalizer => self.finalizer = true,
            Step::RemoveFinalizer => self.finalizer = false,
            Step::Apply(Object::StatefulSet) => {
                let observed = self.set.take().and_then(|set| set.observed);
                self.set = Some(Set { template: self.wanted.clone(), observed, deleting: false });
            }
            Step::Apply(object) => {
                for (other, is) in &mut self.objects {
                    if other == object {
                        *is = Presence::Current;
                    }
                }
            }
            Step::AdoptVolume { claim, .. } => {
                self.claims.iter_mut().flatten().filter(|c| c.name == *claim).for_each(|c| c.ours = true);
            }
            Step::Bootstrap { founder } => {
                let founder = *founder as usize;
                if self.told.iter().any(|told| *told) || !self.runs(founder) {
                    return Err(format!("bootstrap of a cluster that is one already: {:?}", self.told));
                }
                self.told[founder] = true;
                self.bootstraps += 1;
            }
            Step::MarkFormed => self.formed = true,
            Step::RestartPod { ordinal, uid } => {
                let pod = self.pods.get_mut(*ordinal as usize).and_then(Option::as_mut);
                match pod {
                    Some(pod) if pod.uid == *uid => pod.terminating = true,
                    other => return Err(format!("the API server refuses the eviction of {uid}: {other:?}")),
                }
            }
            Step::DeleteStatefulSet { .. } => {
                let Some(set) = &mut self.set else { return Err("no StatefulSet to delete".to_owned()) };
                set.deleting = true;
            }
            Step::DeleteVolume { claim, .. } => {
                self.claims.iter_mut().flatten().filter(|c| c.name == *claim).for_each(|c| c.deleting = true);
            }
        }
        Ok(())
    }

    /// One turn of somebody else.
    pub fn act(&mut self, actor: Actor) {
        match actor {
            Actor::Operator => {}
            Actor::StatefulSetController => self.stateful_set_controller(),
            Actor::Kubelet => self.kubelet(),
            Actor::Volumes => {
                for ((claim, pod), told) in self.claims.iter_mut().zip(&self.pods).zip(&mut self.told) {
                    match claim {
                        Some(it) if it.deleting && pod.is_none() => (*claim, *told) = (None, false),
                        Some(it) => it.bound = true,
                        None => {}
                    }
                }
            }
        }
    }

    fn stateful_set_controller(&mut self) {
        let Some(set) = &mut self.set else { return };
        if set.deleting {
            self.pods.iter_mut().flatten().for_each(|pod| pod.terminating = true);
            if self.pods.iter().all(Option::is_none) {
                self.set = None;
            }
            return;
        }
        set.observed = Some(set.template.clone());
        for (ordinal, (place, volume)) in (0..).zip(self.pods.iter_mut().zip(&mut self.claims)) {
            if place.is_none() {
                self.made += 1;
                let mut made = pod(ordinal, &set.template, false);
                made.uid = format!("pod-{ordinal}-{}", self.made);
                *place = Some(made);
                volume.get_or_insert_with(|| claim(ordinal, true, false));
            }
        }
    }

    fn kubelet(&mut self) {
        // Who was told tells those that run.
        let runs: Vec<bool> = (0..self.pods.len()).map(|ordinal| self.runs(ordinal)).collect();
        if self.told.iter().zip(&runs).any(|(told, runs)| *told && *runs) {
            self.told.iter_mut().zip(&runs).for_each(|(told, runs)| *told |= *runs);
        }
        let leads = self.leader().is_some();
        for (place, told) in self.pods.iter_mut().zip(&self.told) {
            match place {
                Some(pod) if pod.terminating => *place = None,
                Some(pod) if self.broken.contains(&pod.revision) => {
                    pod.ready = false;
                    pod.restarts += 1;
                    pod.container =
                        Container::Waiting { reason: "CrashLoopBackOff".to_owned(), message: "back-off".to_owned() };
                    pod.last_exit =
                        Some(LastExit { code: 1, reason: "Error".to_owned(), log: "no such option".to_owned() });
                }
                Some(pod) => {
                    pod.ready = *told && leads;
                    pod.container = Container::Running;
                }
                None => {}
            }
        }
    }

    /// As the object wants it, or gone.
    pub fn at_rest(&self) -> bool {
        self.gone || self.recorded == Some(Phase::Ready)
    }
}
