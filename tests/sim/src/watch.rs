//! Watches: a stream of changes from a version on, as one session may see them.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use futures::stream;
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Sleep, sleep};
use tower::BoxError;

use crate::http::{Answer, Call};
use crate::refusal::Refusal;
use crate::sim::{Session, State};
use crate::store::Change;

struct Watch {
    session: Session,
    call: Call,
    /// The newest version that was looked at.
    seen: u64,
    ready: VecDeque<String>,
    wake: watch::Receiver<()>,
    end: Pin<Box<Sleep>>,
    ended: bool,
    /// How often the session's watches had expired when this one was opened.
    epoch: u64,
}

/// The answer to a watch.
pub(crate) fn stream(session: Session, call: Call) -> Answer {
    let seconds = call.param("timeoutSeconds").parse().unwrap_or(1800);
    let wake = session.sim.0.wake.subscribe();
    let end = Box::pin(sleep(Duration::from_secs(seconds)));
    let epoch = session.sim.state().sessions[session.id].expired;
    let mut watch = Watch { session, call, seen: 0, ready: VecDeque::new(), wake, end, ended: false, epoch };
    watch.start();
    let frames = stream::unfold(watch, |mut watch| async move {
        let frame = watch.next().await?;
        Some((frame.map(|line| Frame::data(Bytes::from(line))), watch))
    });
    let body = StreamBody::new(frames).boxed_unsync();
    Response::builder().status(200).header("content-type", "application/json").body(body).unwrap()
}

impl Watch {
    fn push(&mut self, kind: &str, object: &Value) {
        self.ready.push_back(format!("{}\n", json!({ "type": kind, "object": object })));
    }

    fn bookmark(&mut self, annotations: &Value) {
        let meta = json!({ "resourceVersion": self.seen.to_string(), "annotations": annotations });
        let bookmark =
            json!({ "kind": self.call.kind.kind, "apiVersion": self.call.kind.api_version(), "metadata": meta });
        self.push("BOOKMARK", &bookmark);
    }

    fn start(&mut self) {
        let sim = self.session.sim.clone();
        let state = sim.state();
        let visible = state.sessions[self.session.id].view.version(state.store.version);
        let from: u64 = self.call.param("resourceVersion").parse().unwrap_or(0);
        let initial = self.call.param("sendInitialEvents") == "true";
        if from == 0 || initial {
            for (key, object) in state.store.at(visible) {
                if self.call.covers(&key, &object) {
                    let object = self.call.present(&object);
                    self.push("ADDED", &object);
                }
            }
            self.seen = visible;
            if initial {
                self.bookmark(&json!({ "k8s.io/initial-events-end": "true" }));
            }
        } else if from < state.store.compacted {
            let why = format!("too old resource version: {from} ({})", state.store.compacted);
            self.push("ERROR", &Refusal::of(410, why).body());
            self.ended = true;
        } else {
            self.seen = from;
        }
    }

    /// Takes in what has become visible since.
    fn gather(&mut self, state: &mut State) {
        let plan = &mut state.sessions[self.session.id];
        let visible = plan.view.version(state.store.version);
        let start = state.store.history.partition_point(|c| c.version <= self.seen);
        for change in state.store.history[start..].iter().take_while(|c| c.version <= visible) {
            self.seen = change.version;
            let Some((kind, object)) = event(&self.call, change) else { continue };
            plan.events += 1;
            if !plan.dropped.contains(&plan.events) {
                self.push(kind, &object);
            }
        }
    }

    async fn next(&mut self) -> Option<Result<String, BoxError>> {
        loop {
            let sim = self.session.sim.clone();
            {
                let mut state = sim.state();
                if state.sessions[self.session.id].cut {
                    if self.ended {
                        return None;
                    }
                    self.ended = true;
                    self.ready.clear();
                    return Some(Err(io::Error::new(io::ErrorKind::ConnectionReset, "the session was cut off").into()));
                }
                if !self.ended {
                    self.wake.mark_unchanged();
                    if state.sessions[self.session.id].expired > self.epoch {
                        self.push("ERROR", &Refusal::of(410, "too old resource version").body());
                        self.ended = true;
                    } else {
                        self.gather(&mut state);
                    }
                }
            }
            if let Some(line) = self.ready.pop_front() {
                return Some(Ok(line));
            }
            if self.ended {
                return None;
            }
            tokio::select! {
                biased;
                _ = self.wake.changed() => {}
                () = &mut self.end => {
                    self.ended = true;
                    if self.call.param("allowWatchBookmarks") == "true" {
                        self.bookmark(&json!({}));
                    }
                }
            }
        }
    }
}

/// What a change means to a watch: an object that begins or ends to match its selector is added or deleted to it.
fn event(call: &Call, change: &Change) -> Option<(&'static str, Value)> {
    let covered = |o: &Option<std::sync::Arc<Value>>| o.clone().filter(|o| call.covers(&change.key, o));
    match (covered(&change.before), covered(&change.after)) {
        (None, None) => None,
        (None, Some(after)) => Some(("ADDED", call.present(&after))),
        (Some(_), Some(after)) => Some(("MODIFIED", call.present(&after))),
        (Some(before), None) => {
            let mut last = call.present(&before);
            last["metadata"]["resourceVersion"] = change.version.to_string().into();
            Some(("DELETED", last))
        }
    }
}
