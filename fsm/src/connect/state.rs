//! How each connector is, from all that was seen of it.

use super::observation::{Answer, Connector, Observation, Report};
use crate::guard::Refusal;

/// How a connector is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is not run, and this is why.
    Refused(Refusal),
    /// It will run when it has stopped on another worker, or when its worker is up.
    Waiting(String),
    /// Its worker is up and tells of no failure of late.
    Running,
    /// It failed a short while ago; its worker starts it again with back-off.
    Failing(String),
    /// Its worker is up and cannot be asked.
    Unknown(String),
}

impl State {
    /// The word in the status.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Refused(_) => "Refused",
            Self::Waiting(_) => "Waiting",
            Self::Running => "Running",
            Self::Failing(_) => "Failing",
            Self::Unknown(_) => "Unknown",
        }
    }
}

/// A connector, how it is, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectorState {
    /// Which.
    pub id: Connector,
    /// How it is.
    pub state: State,
    /// The worker that runs it, or is about to.
    pub worker: Option<u32>,
    /// What the worker said of it.
    pub report: Option<Report>,
}

/// Every enabled connector, in the order of the spec.
pub fn states(o: &Observation) -> Vec<ConnectorState> {
    o.wish
        .connectors
        .iter()
        .map(|wanted| {
            let id = wanted.id.clone();
            let worker = o.placement.runs.iter().find(|(_, runs)| runs.contains(&id)).map(|(worker, _)| *worker);
            let report = match worker.and_then(|worker| o.worker(worker)).map(|worker| &worker.answer) {
                Some(Answer::Said(reports)) => reports.get(&id).cloned(),
                _ => None,
            };
            let state = match (&wanted.refusal, worker) {
                (Some(refusal), _) => State::Refused(refusal.clone()),
                (None, Some(worker)) => on_worker(o, &id, worker),
                (None, None) => State::Waiting(waits_for(o, &id)),
            };
            ConnectorState { id, state, worker, report }
        })
        .collect()
}

fn waits_for(o: &Observation, id: &Connector) -> String {
    match o.placement.waiting.iter().find(|waiting| waiting.connector == *id) {
        Some(waiting) => match waiting.on {
            Some(on) => format!("stops on worker {on} before it starts on worker {}", waiting.to),
            None => format!("starts on worker {} when the last change of the workers was acted on", waiting.to),
        },
        None => "no worker is wanted".to_owned(),
    }
}

fn on_worker(o: &Observation, id: &Connector, index: u32) -> State {
    let Some(worker) = o.worker(index).filter(|worker| worker.is_up()) else {
        return State::Waiting(format!("worker {index} is not up"));
    };
    match &worker.answer {
        // A worker that serves no health is asked for nothing more than to be up.
        Answer::NotAsked if !o.health => State::Running,
        Answer::NotAsked => State::Unknown(format!("worker {index} has not been asked yet")),
        Answer::Silent { why } => State::Unknown(format!("worker {index} does not answer: {why}")),
        Answer::Said(reports) => match reports.get(id) {
            None => State::Unknown(format!("worker {index} does not tell of it")),
            Some(Report { failing: true, last_error, .. }) => {
                State::Failing(last_error.clone().unwrap_or_else(|| "it failed".to_owned()))
            }
            Some(_) => State::Running,
        },
    }
}
