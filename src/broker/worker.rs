//! The workers of connects: what each says of its connectors, and since when one has not failed any more.
//!
//! The released worker says "starting" of a connector for ever, and counts how often it failed. So a connector whose count
//! has just grown may be failing still, and one whose count has stood for longer than its worker ever waits before it
//! starts it again is running. That the count has stood is remembered here; a new process takes any failure for a new one.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rivven_fsm::connect::{Answer, Connector, Report, Role};
use serde::Deserialize;
use tokio::time::Instant;

use super::error::Error;

/// How long an answer counts. Shorter than the time after which connects are looked at again.
const COUNTS: Duration = Duration::from_secs(25);
/// How soon one that did not answer is asked again.
const RETRY: Duration = Duration::from_secs(1);
/// How long after a failure a connector may be waiting for its next start: the worker waits a minute at most, and the
/// start may take as long.
const FAILS_FOR: Duration = Duration::from_secs(150);
/// How long after its start a worker is not believed that nothing failed: the first attempts may still be going on.
const SETTLES_AFTER: u64 = 5;
/// How much of a worker's words is kept, in characters.
const WORDS_LIMIT: usize = 300;

/// What `/health` says.
#[derive(Debug, Deserialize)]
pub(super) struct WorkerHealth {
    sources: Vec<ConnectorHealth>,
    sinks: Vec<ConnectorHealth>,
    uptime_secs: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct ConnectorHealth {
    name: String,
    errors_count: u64,
    last_error: Option<String>,
}

/// What one start of a worker said.
struct Said {
    incarnation: String,
    answer: Answer,
    at: Instant,
    counts_for: Duration,
    /// How often each connector had failed when it last failed, and when that was seen.
    failed: BTreeMap<Connector, (u64, Instant)>,
}

type Slot = Arc<tokio::sync::Mutex<Option<Said>>>;

/// The workers, by namespace and Deployment.
#[derive(Default)]
pub(super) struct Workers(Mutex<HashMap<(String, String), Slot>>);

impl Workers {
    pub(super) async fn ask<F>(
        &self,
        namespace: &str,
        worker: &str,
        incarnation: &str,
        health: impl FnOnce() -> F,
    ) -> Answer
    where
        F: Future<Output = Result<WorkerHealth, Error>>,
    {
        let slot = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry((namespace.to_owned(), worker.to_owned())).or_default().clone()
        };
        let mut slot = slot.lock().await;
        let before = slot.take().filter(|said| said.incarnation == incarnation);
        let before = match before {
            Some(said) if said.at.elapsed() < said.counts_for => return slot.insert(said).answer.clone(),
            before => before,
        };
        let mut failed = before.map(|said| said.failed).unwrap_or_default();
        let (answer, counts_for) = match health().await {
            Ok(health) if health.uptime_secs.is_some_and(|uptime| uptime < SETTLES_AFTER) => {
                (Answer::Silent { why: "it started a moment ago".to_owned() }, RETRY)
            }
            Ok(health) => (Answer::Said(reports(health, &mut failed)), COUNTS),
            Err(error) => (Answer::Silent { why: cut(&of_a_worker(error)) }, RETRY),
        };
        let said = Said { incarnation: incarnation.to_owned(), answer, at: Instant::now(), counts_for, failed };
        slot.insert(said).answer.clone()
    }

    pub(super) fn forget(&self, namespace: &str, is_one: impl Fn(&str) -> bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(home, worker), _| home != namespace || !is_one(worker));
    }
}

fn reports(health: WorkerHealth, failed: &mut BTreeMap<Connector, (u64, Instant)>) -> BTreeMap<Connector, Report> {
    let of = |role, connectors: Vec<ConnectorHealth>| connectors.into_iter().map(move |connector| (role, connector));
    of(Role::Source, health.sources)
        .chain(of(Role::Sink, health.sinks))
        .map(|(role, connector)| {
            let id = Connector { role, name: connector.name };
            let errors = connector.errors_count;
            let last = failed.entry(id.clone()).or_insert((0, Instant::now()));
            if errors != last.0 {
                *last = (errors, Instant::now());
            }
            let failing = errors > 0 && last.1.elapsed() < FAILS_FOR;
            (id, Report { errors, last_error: connector.last_error.as_deref().map(cut), failing })
        })
        .collect()
}

/// The error in words that do not speak of a broker.
fn of_a_worker(error: Error) -> String {
    match error {
        Error::Unreachable(words) | Error::Protocol(words) | Error::Refused { words, .. } => words,
        Error::Timeout(limit) => format!("no answer within {limit:?}"),
    }
}

/// No longer than a status takes, and no word in part: of half a secret nobody could tell that it is one.
fn cut(words: &str) -> String {
    let plain = words.chars().filter(|c| !c.is_control());
    let cut: String = plain.clone().take(WORDS_LIMIT).collect();
    if plain.count() <= WORDS_LIMIT {
        return cut;
    }
    cut.rsplit_once(' ').map_or_else(|| "…".to_owned(), |(whole, _)| format!("{whole} …"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(errors: u64, uptime: u64) -> WorkerHealth {
        let body = format!(
            r#"{{"status":"unhealthy","broker_connected":false,"uptime_secs":{uptime},"sinks":[],
                "sources":[{{"name":"a","status":"starting","events_processed":0,"errors_count":{errors},"last_error":"no"}}]}}"#
        );
        serde_json::from_str(&body).unwrap()
    }

    fn failing(answer: &Answer) -> Option<bool> {
        let id = Connector { role: Role::Source, name: "a".to_owned() };
        match answer {
            Answer::Said(reports) => reports.get(&id).map(|report| report.failing),
            _ => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connector_fails_until_its_count_has_stood() {
        let workers = Workers::default();
        let ask = async |incarnation: &str, errors, uptime| {
            let answer = workers.ask("ns", "w", incarnation, async || Ok(health(errors, uptime))).await;
            failing(&answer)
        };
        assert_eq!(ask("1", 0, 1).await, None, "it started a moment ago");
        tokio::time::advance(RETRY).await;
        assert_eq!(ask("1", 0, 9).await, Some(false));
        assert_eq!(ask("1", 5, 9).await, Some(false), "the answer still counts");
        tokio::time::advance(COUNTS).await;
        assert_eq!(ask("1", 5, 9).await, Some(true));
        tokio::time::advance(FAILS_FOR).await;
        assert_eq!(ask("1", 6, 9).await, Some(true), "it failed once more");
        tokio::time::advance(FAILS_FOR).await;
        assert_eq!(ask("1", 6, 9).await, Some(false));
        assert_eq!(ask("2", 6, 9).await, Some(true), "another start of it");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_answer_is_not_believed_to_run() {
        let workers = Workers::default();
        let answer = workers.ask("ns", "w", "1", async || Err(Error::Unreachable("gone".to_owned()))).await;
        assert!(matches!(answer, Answer::Silent { .. }));
        workers.forget("ns", |worker| worker == "w");
        assert!(workers.0.lock().unwrap().is_empty());
    }
}
