//! A small imitation of a broker and of the objects around one topic.

use std::collections::BTreeMap;

use rivven_fsm::topic::{self, Seen};
use rivven_fsm::{Decision, Kind, Phase};

use super::now;

/// A broker and the objects around one topic.
#[derive(Clone, Debug)]
pub struct TopicWorld {
    pub o: topic::Observation,
    pub there: Option<(u32, BTreeMap<String, String>)>,
    pub gone: bool,
    pub steps: usize,
}

impl TopicWorld {
    pub fn new() -> Self {
        let wish = topic::Wish {
            topic: "t".to_owned(),
            partitions: 3,
            replication: 1,
            config: BTreeMap::from([("retention.ms".to_owned(), "1".to_owned())]),
            acls: false,
            problems: Vec::new(),
        };
        Self {
            o: topic::Observation {
                recorded: None,
                deletion: None,
                finalizer: false,
                wish,
                cluster: topic::Cluster::Ready { uid: "here".to_owned(), replicates: false, brokers: 3, acls: false },
                mark: None,
                adopt: false,
                older: None,
                seen: Seen::NotAsked,
            },
            there: None,
            gone: false,
            steps: 0,
        }
    }

    pub fn look(&mut self, answers: bool) {
        self.o.seen = match (&self.o.cluster, &self.there) {
            (topic::Cluster::Ready { .. }, _) if !answers => Seen::Unknown { why: "reset".to_owned() },
            (topic::Cluster::Ready { .. }, Some((partitions, config))) => {
                Seen::Present { partitions: *partitions, replication: None, config: config.clone() }
            }
            (topic::Cluster::Ready { .. }, None) => Seen::Absent,
            _ => Seen::NotAsked,
        };
    }

    /// One look and its steps. `lost`: a step takes effect, and its reply is lost. `taken`: somebody creates the topic
    /// between the look and the step.
    pub fn operate(&mut self, answers: bool, lost: bool, taken: bool) -> Result<Decision<topic::Step>, String> {
        self.look(answers);
        let decision = topic::decide(&self.o, now());
        let mut recorded = decision.phase;
        if decision.refused.is_some() || !Kind::Topic.table().allows(self.o.recorded, recorded) {
            return Err(format!("{:?} to {recorded}", self.o.recorded));
        }
        for step in &decision.steps {
            self.steps += 1;
            let mut error = lost.then_some("the reply was lost");
            match step {
                topic::Step::Claim { cluster_uid } => {
                    (self.o.finalizer, self.o.mark) = (true, Some(cluster_uid.clone()));
                }
                topic::Step::Create { partitions, .. } => {
                    if taken && self.there.is_none() {
                        self.there = Some((1, BTreeMap::new()));
                        self.o.mark = None;
                        error = Some("already exists");
                    } else {
                        self.there.get_or_insert((*partitions, BTreeMap::new()));
                    }
                }
                topic::Step::Grow { partitions } => match &mut self.there {
                    Some((has, _)) if *has < *partitions => *has = *partitions,
                    other => return Err(format!("grown without need: {other:?}")),
                },
                topic::Step::Configure { entries } => {
                    let Some((_, config)) = &mut self.there else { return Err("configured nothing".to_owned()) };
                    config.extend(entries.clone());
                }
                topic::Step::DeleteTopic => self.there = None,
                topic::Step::RemoveFinalizer { .. } => self.o.finalizer = false,
            }
            if let Some(error) = error {
                let failed = topic::step_failed(&decision, step, error);
                if failed.refused.is_some() {
                    return Err(format!("{failed:?}"));
                }
                recorded = failed.phase;
                break;
            }
        }
        self.o.recorded = Some(recorded);
        self.gone = self.o.deletion.is_some() && !self.o.finalizer;
        Ok(decision)
    }

    pub fn settle(&mut self) -> Result<usize, String> {
        for looks in 0..12 {
            let decision = self.operate(true, false, false)?;
            if self.gone || (decision.steps.is_empty() && decision.phase == Phase::Ready) {
                return Ok(looks);
            }
        }
        Err(format!("not at rest: {self:#?}"))
    }
}
