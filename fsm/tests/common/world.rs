//! A small imitation of what surrounds a cluster: the StatefulSet controller, the kubelet, the volume controller. It
//! carries out steps and moves on, one actor at a time.

use std::collections::BTreeSet;

use chrono::{DateTime, Duration, Utc};
use rivven_fsm::cluster::partitions::Partition;
use rivven_fsm::cluster::{
    self, Admission, Answer, Broker, Capabilities, Claim, Container, Deletion, LastExit, Membership, Move, Object,
    Observation, Partitions, Pod, Presence, ReclaimPolicy, Resize, StatefulSet, Step,
};
use rivven_fsm::{Decision, Kind, Phase, Reason, Refusal};

use super::{claim, cluster_holds_at, clustered, now, pod};

/// How many brokers there may ever be.
pub const MOST: u32 = 6;

/// The size of a volume.
pub const SIZE: u64 = 1 << 30;

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
    /// The last template that every broker ran well on.
    pub proven: Option<String>,
    /// The template whose rollout was halted, by which broker and why.
    pub halted: Option<(String, u32, String)>,
    pub replicas: u32,
    /// Size that its claim template asks for.
    pub claims: u64,
    pub deleting: bool,
}

#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct World {
    pub recorded: Option<Phase>,
    pub replicas: u32,
    /// The template that the spec in force asks for.
    pub wanted: String,
    /// The size of the volumes that the spec in force asks for.
    pub size: u64,
    /// The storage can make volumes larger.
    pub grows: bool,
    /// The brokers may run while it does.
    pub online: bool,
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
    /// Which brokers know members: it is on their volumes.
    pub told: Vec<bool>,
    /// The members, as whoever leads has it.
    pub voters: BTreeSet<u32>,
    pub learners: BTreeSet<u32>,
    /// Whom the leader handed over to.
    pub heir: Option<usize>,
    /// The brokers tell where partitions are.
    pub replicates: bool,
    /// Where the records are: who is in sync has every acknowledged one.
    pub partitions: Vec<Partition>,
    pub moves: Vec<Move>,
    pub rebalance: bool,
    pub scale_in: ReclaimPolicy,
    pub adopt_volumes: bool,
    /// A second passes with each look.
    pub clock: DateTime<Utc>,
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
            size: SIZE,
            grows: true,
            online: true,
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
            pods: vec![None; MOST as usize],
            claims: vec![None; MOST as usize],
            told: vec![false; MOST as usize],
            voters: (0..replicas).collect(),
            learners: BTreeSet::new(),
            heir: None,
            replicates: false,
            partitions: Vec::new(),
            moves: Vec::new(),
            rebalance: false,
            scale_in: ReclaimPolicy::Delete,
            adopt_volumes: false,
            clock: now(),
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

    /// Why the rollout of what is wanted was halted, if it was and the broker is still not well on it.
    fn halt(&self) -> Option<&str> {
        let (template, broker, message) = self.set.as_ref()?.halted.as_ref()?;
        let well = self.pods[*broker as usize].as_ref().is_some_and(|pod| pod.ready && pod.revision == *template);
        (*template == self.wanted && !well).then_some(message)
    }

    /// A halt is noted that is none any more.
    fn lifted(&self) -> bool {
        self.halt().is_none() && self.set.as_ref().is_some_and(|set| set.halted.is_some())
    }

    /// The template of the spec in force.
    fn in_force(&self) -> &str {
        let proven = self.set.as_ref().and_then(|set| set.proven.as_deref());
        proven.filter(|_| self.halt().is_some()).unwrap_or(&self.wanted)
    }

    /// The places of the brokers that should be there.
    fn wanted_pods(&self) -> impl Iterator<Item = &Option<Pod>> {
        self.pods.iter().take(self.replicas as usize)
    }

    /// Every broker runs well on the template, and that is not noted yet.
    fn to_be_proven(&self) -> bool {
        let Some(set) = &self.set else { return false };
        let well = |pod: &Option<Pod>| pod.as_ref().is_some_and(|pod| pod.is_up() && pod.revision == set.template);
        let noted = set.proven.as_ref().is_none_or(|proven| *proven == set.template);
        set.observed.as_ref() == Some(&set.template) && self.wanted_pods().all(well) && !noted
    }

    /// The highest voter that is told, once more than half of them run; or who was handed over to.
    fn leader(&self) -> Option<usize> {
        let able: Vec<usize> =
            self.voters.iter().map(|o| *o as usize).filter(|o| self.told[*o] && self.runs(*o)).collect();
        let heir = self.heir.filter(|heir| able.contains(heir));
        (2 * able.len() > self.voters.len()).then(|| heir.or(able.last().copied())).flatten()
    }

    fn is_member(&self, ordinal: usize) -> bool {
        u32::try_from(ordinal).is_ok_and(|o| self.voters.contains(&o) || self.learners.contains(&o))
    }

    /// What a broker that was told knows. Who left is not told of it.
    fn view(&self, ordinal: usize) -> Membership {
        let mut voters = self.voters.clone();
        if !self.is_member(ordinal) {
            voters.extend(u32::try_from(ordinal));
        }
        Membership::Of { voters, learners: self.learners.clone(), foreign: Vec::new() }
    }

    fn runs(&self, ordinal: usize) -> bool {
        self.pods[ordinal].as_ref().is_some_and(|pod| !pod.terminating && pod.container == Container::Running)
    }

    fn answer(&self, ordinal: usize, leader: Option<usize>) -> Answer {
        if !self.runs(ordinal) {
            return Answer::NotAsked;
        }
        Answer::Said {
            healthy: leader.is_some() && self.told[ordinal] && self.is_member(ordinal),
            version: "0.1.0".to_owned(),
            node_id: ordinal.to_string(),
            leader: leader == Some(ordinal),
            membership: if self.told[ordinal] { self.view(ordinal) } else { Membership::Unknown },
        }
    }

    pub fn observe(&self) -> Observation {
        let leader = self.leader();
        let mut objects = self.objects.clone();
        let presence = match &self.set {
            None => Presence::Missing,
            Some(set) if set.deleting => Presence::Deleting,
            Some(set) if set.template == self.in_force() && !self.lifted() && !self.to_be_proven() => Presence::Current,
            Some(_) => Presence::Drifted,
        };
        objects.push((Object::StatefulSet, presence));
        let is_there = |(ordinal, (pod, claim)): &(u32, (&Option<Pod>, &Option<Claim>))| {
            *ordinal < self.replicas || pod.is_some() || claim.is_some()
        };
        let brokers = (0..MOST)
            .zip(self.pods.iter().zip(&self.claims))
            .filter(is_there)
            .map(|(ordinal, (pod, claim))| Broker {
                ordinal,
                answer: self.answer(ordinal as usize, leader),
                pod: pod.clone().map(|pod| Pod { orphan: self.set.is_none(), ..pod }),
                claim: claim.clone(),
                external: None,
            })
            .collect();
        Observation {
            certificate: None,
            seen_at: now(),
            windows: Vec::new(),
            min_ready: std::time::Duration::ZERO,
            recorded: self.recorded,
            deletion: self.deletion.map(|reclaim| Deletion { requested_at: now(), reclaim }),
            finalizer: self.finalizer,
            paused: self.paused,
            adopt_volumes: self.adopt_volumes,
            admission: match self.halt() {
                Some(message) => {
                    Admission::Kept(vec![Refusal { reason: Reason::RolloutHalted, message: message.to_owned() }])
                }
                None => self.admission.clone(),
            },
            objects,
            stateful_set: self.set.as_ref().map(|set| StatefulSet {
                uid: "set".to_owned(),
                replicas: set.replicas,
                update_revision: set.observed.clone().filter(|observed| *observed == set.template),
                claim_bytes: set.claims,
                proven: set.proven.as_ref().is_some_and(|proven| *proven != set.template),
                deleting: set.deleting,
            }),
            brokers,
            replicas: self.replicas,
            storage_bytes: self.size,
            capabilities: Capabilities { online_growth_when_full: self.online, ..clustered() },
            dependents: Vec::new(),
            formed: self.formed,
            partitions: match leader {
                _ if !self.replicates => Partitions::Unreplicated,
                Some(_) => Partitions::Known(self.partitions.clone().into()),
                None => Partitions::Unknown { why: "no broker answers".to_owned() },
            },
            moves: self.moves.clone(),
            rebalance: self.rebalance,
            scale_in: self.scale_in,
        }
    }

    /// How many serve: without a quorum, nobody does.
    pub fn up(&self) -> usize {
        let up = |ordinal: &usize| self.told[*ordinal] && self.pods[*ordinal].as_ref().is_some_and(Pod::is_up);
        let voters = self.voters.iter().map(|ordinal| *ordinal as usize);
        if self.leader().is_some() { voters.filter(up).count() } else { 0 }
    }

    /// How many voters are away.
    fn away(&self) -> usize {
        self.voters.len() - self.up()
    }

    /// One look of the operator, and its steps carried out.
    pub fn operate(&mut self) -> Result<Decision<Step>, String> {
        let observed = self.observe();
        self.clock += Duration::seconds(1);
        let decision = cluster::decide(&observed, self.clock);
        cluster_holds_at(&observed, &decision, self.clock)
            .map_err(|what| format!("{what}: {observed:#?} {decision:#?}"))?;
        let (away, told) = (self.away(), self.voters.len());
        for step in &decision.steps {
            self.carry_out(step)?;
        }
        // One of two takes the majority away, whoever restarts it.
        let spared = told > 2 && self.online;
        if self.deletion.is_none() && spared && self.away() > away && self.away() > 1 {
            return Err(format!("{} of {told} voters up because of us: {decision:#?}", self.up()));
        }
        self.nothing_is_lost()?;
        if !Kind::Cluster.table().allows(self.recorded, decision.phase) {
            return Err(format!("{:?} to {}", self.recorded, decision.phase));
        }
        self.recorded = Some(decision.phase);
        // Nobody holds an object that is being deleted but the finalizer.
        self.gone = self.deletion.is_some() && !self.finalizer;
        Ok(decision)
    }

    /// Every acknowledged record is on a volume that stays.
    fn nothing_is_lost(&self) -> Result<(), String> {
        let kept = |ordinal: &u32| self.claims[*ordinal as usize].as_ref().is_some_and(|claim| !claim.deleting);
        let lost = self.partitions.iter().find(|p| !p.in_sync.iter().any(kept));
        match lost.filter(|_| self.deletion.is_none()) {
            Some(lost) => Err(format!("{lost} is lost: {self:#?}")),
            None => Ok(()),
        }
    }

    fn change_voters(&mut self, wanted: &[u32]) -> Result<(), String> {
        let wanted: BTreeSet<u32> = wanted.iter().copied().collect();
        let votes = |voters: &BTreeSet<u32>| {
            let able = voters.iter().filter(|o| self.runs(**o as usize) && self.told[**o as usize]).count();
            2 * able > voters.len()
        };
        if self.leader().is_none() || !votes(&wanted) || !wanted.iter().all(|o| self.is_member(*o as usize)) {
            return Err(format!("{wanted:?} cannot vote: {:?} {:?}", self.voters, self.learners));
        }
        self.learners.retain(|learner| !wanted.contains(learner));
        self.voters = wanted;
        Ok(())
    }

    /// As the broker does it: whoever leaves is no longer in sync, and one that is must be left.
    fn reassign(&mut self, topic: &str, id: u32, wanted: &[u32]) -> Result<(), String> {
        let found = self.partitions.iter_mut().find(|p| &*p.topic == topic && p.id == id);
        let Some(found) = found else { return Err(format!("{topic}/{id} is not there")) };
        found.replicas = wanted.to_vec();
        found.in_sync.retain(|replica| wanted.contains(replica));
        found.leader = found.leader.filter(|leader| found.in_sync.contains(leader)).or(found.in_sync.first().copied());
        if found.in_sync.is_empty() { Err(format!("{found} lost every record")) } else { Ok(()) }
    }

    /// Replicas follow who leads, and fall behind while they do not run.
    fn replicate(&mut self) {
        let follows: Vec<bool> =
            (0..self.pods.len()).map(|o| self.runs(o) && self.told[o] && self.is_member(o)).collect();
        for partition in &mut self.partitions {
            let serves = |ordinal: &u32| follows[*ordinal as usize];
            if !partition.in_sync.iter().any(serves) {
                partition.leader = None;
                continue;
            }
            partition.in_sync = partition.replicas.iter().copied().filter(serves).collect();
            partition.leader = partition.leader.filter(serves).or(partition.in_sync.first().copied());
        }
    }

    /// A topic of one partition is made, on the voters that run.
    pub fn place(&mut self, copies: usize) {
        let able: Vec<u32> =
            self.voters.iter().copied().filter(|o| self.runs(*o as usize) && self.told[*o as usize]).collect();
        if self.leader().is_none() || able.len() < copies {
            return;
        }
        let id = u32::try_from(self.partitions.len()).unwrap_or(0);
        let replicas: Vec<u32> = able.iter().cycle().skip(id as usize % able.len()).take(copies).copied().collect();
        let (leader, in_sync) = (replicas.first().copied(), replicas.clone());
        let min_in_sync = u32::try_from(copies.min(2)).unwrap_or(1);
        self.partitions.push(Partition { topic: "t".into(), id, leader, replicas, in_sync, min_in_sync });
    }

    #[allow(clippy::too_many_lines, reason = "a list of steps and of what comes of each")]
    fn carry_out(&mut self, step: &Step) -> Result<(), String> {
        self.steps.push(step.clone());
        match step {
            Step::AddFinalizer => self.finalizer = true,
            Step::RemoveFinalizer => self.finalizer = false,
            Step::Apply(Object::StatefulSet) => {
                let template = self.in_force().to_owned();
                let (halted, to_be_proven) = (self.halt().is_some(), self.to_be_proven());
                let before = self.set.take();
                // As observed when the spec changes: what every broker runs well on is then what there is to go back to.
                let well = |set: &Set| {
                    let on = |pod: &Option<Pod>| pod.as_ref().is_some_and(|p| p.is_up() && p.revision == set.template);
                    self.wanted_pods().all(on).then(|| set.template.clone())
                };
                let changes = before.as_ref().is_some_and(|set| set.template != template);
                let proven = match &before {
                    Some(set) if changes || to_be_proven => well(set).or_else(|| set.proven.clone()),
                    Some(set) => set.proven.clone(),
                    None => None,
                };
                self.set = Some(Set {
                    template,
                    observed: before.as_ref().and_then(|set| set.observed.clone()),
                    proven,
                    replicas: before.as_ref().map_or(self.replicas, |set| set.replicas),
                    claims: before.as_ref().map_or(self.size, |set| set.claims),
                    halted: before.and_then(|set| set.halted).filter(|_| halted),
                    deleting: false,
                });
            }
            Step::Apply(object) => {
                for (other, is) in &mut self.objects {
                    if other == object {
                        *is = Presence::Current;
                    }
                }
            }
            Step::DeleteObject { object, .. } => self.objects.retain(|(other, _)| other != object),
            Step::AdoptVolume { claim, .. } => {
                self.claims.iter_mut().flatten().filter(|c| c.name == *claim).for_each(|c| c.ours = true);
            }
            Step::Bootstrap { founder } => {
                let founder = *founder as usize;
                if self.told.iter().any(|told| *told) || !self.runs(founder) {
                    return Err(format!("bootstrap of a cluster that is one already: {:?}", self.told));
                }
                self.told[founder] = true;
                self.voters = (0..self.replicas).collect();
                self.bootstraps += 1;
            }
            Step::MarkFormed => self.formed = true,
            Step::ElectLeaders { leaders } => {
                for l in leaders {
                    let mut led = self.partitions.iter_mut().filter(|p| p.topic == l.topic && p.id == l.partition);
                    match led.find(|p| p.in_sync.contains(&l.to)) {
                        Some(partition) => partition.leader = Some(l.to),
                        None => return Err(format!("{l:?} is not in sync")),
                    }
                }
            }
            Step::HaltRollout { broker, revision, message, .. } => {
                let Some(set) = &mut self.set else { return Err("no StatefulSet to halt".to_owned()) };
                set.halted = Some((revision.clone(), *broker, message.clone()));
            }
            Step::ExpandVolume { claim, bytes, .. } => {
                for it in self.claims.iter_mut().flatten().filter(|it| it.name == *claim) {
                    if *bytes < it.capacity.unwrap_or(0) {
                        return Err(format!("the API server lets no claim shrink: {it:?} to {bytes}"));
                    }
                    (it.requested, it.asked, it.resize) = (*bytes, Some(*bytes), Resize::Silent);
                }
            }
            Step::OrphanStatefulSet { .. } => self.set = None,
            Step::Scale { replicas, .. } => {
                let Some(set) = &mut self.set else { return Err("no StatefulSet to scale".to_owned()) };
                set.replicas = *replicas;
            }
            Step::AddLearner { ordinal } => {
                if self.leader().is_none() || !self.learners.insert(*ordinal) {
                    return Err(format!("broker {ordinal} cannot learn, or learns already"));
                }
                // Whatever it knew is replaced when it has caught up.
                self.told[*ordinal as usize] = false;
            }
            Step::ChangeVoters { voters } => self.change_voters(voters)?,
            Step::TransferController { to } => self.heir = Some(*to as usize),
            Step::NoteMoves { moves } => self.moves.clone_from(moves),
            Step::Reassign { topic, partition, replicas } => self.reassign(topic, *partition, replicas)?,
            Step::NoteEmpty { claim, since, .. } => {
                self.claims.iter_mut().flatten().filter(|c| c.name == *claim).for_each(|c| c.empty_since = *since);
            }
            Step::RestartPod { ordinal, uid } => {
                let pod = self.pods.get_mut(*ordinal as usize).and_then(Option::as_mut);
                match pod {
                    Some(pod) if pod.uid == *uid => pod.terminating = true,
                    other => return Err(format!("the API server refuses the eviction of {uid}: {other:?}")),
                }
            }
            Step::DeletePod { ordinal, .. } => {
                self.pods[*ordinal as usize].iter_mut().for_each(|pod| pod.terminating = true);
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
                        Some(it) => {
                            let first = !std::mem::replace(&mut it.bound, true) || it.capacity.is_none();
                            if first || (self.grows && it.requested > it.capacity.unwrap_or(0)) {
                                (it.capacity, it.resize) = (Some(it.requested), Resize::Silent);
                            } else if it.requested > it.capacity.unwrap_or(0) {
                                it.resize = Resize::Failed { why: "no space left in the pool".to_owned() };
                            } else {
                                it.resize = Resize::Silent;
                            }
                        }
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
            if ordinal >= set.replicas {
                if let Some(pod) = place {
                    pod.terminating = true;
                }
            } else if place.is_none() && !volume.as_ref().is_some_and(|claim| claim.deleting) {
                self.made += 1;
                let mut made = pod(ordinal, &set.template, false);
                made.uid = format!("pod-{ordinal}-{}", self.made);
                *place = Some(made);
                let size = set.claims;
                volume.get_or_insert_with(|| Claim { requested: size, ..claim(ordinal, true, false) });
            }
        }
    }

    fn kubelet(&mut self) {
        // Who was told tells those that run.
        let runs: Vec<bool> = (0..self.pods.len()).map(|ordinal| self.runs(ordinal)).collect();
        let are_in: Vec<bool> = (0..self.pods.len()).map(|ordinal| self.is_member(ordinal)).collect();
        let running: Vec<bool> = runs.iter().zip(&are_in).map(|(runs, is_in)| *runs && *is_in).collect();
        if self.told.iter().zip(&running).any(|(told, runs)| *told && *runs) {
            self.told.iter_mut().zip(&running).for_each(|(told, runs)| *told |= *runs);
        }
        self.replicate();
        let leads = self.leader().is_some();
        let votes: Vec<bool> = (0..MOST).map(|ordinal| self.voters.contains(&ordinal)).collect();
        for (place, told) in self.pods.iter_mut().zip(self.told.iter().zip(&votes).map(|(told, vote)| *told && *vote)) {
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
                    pod.ready = told && leads;
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
