//! How a broker tells that it is there: it registers once per run, through Raft, and then reports to the Raft leader.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use crate::broker::Core;
use crate::metadata::command::{Command, NodeInfo};

/// The body of `/raft/heartbeat`.
#[derive(Serialize, Deserialize)]
pub(crate) struct Heartbeat {
    pub(crate) node_id: String,
}

/// When the Raft leader heard of each broker last.
pub(crate) struct Sessions {
    length: Duration,
    seen: Mutex<HashMap<String, Instant>>,
}

impl Sessions {
    pub(crate) fn new(length: Duration) -> Self {
        Self { length, seen: Mutex::default() }
    }

    pub(crate) fn length(&self) -> Duration {
        self.length
    }

    pub(crate) fn seen(&self, node: &str) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(node.to_owned(), Instant::now());
    }

    /// A broker that was never asked for before is given half the time: to a new leader all report at once.
    pub(crate) fn alive(&self, node: &str) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let first = seen.entry(node.to_owned()).or_insert(now.checked_sub(self.length / 2).unwrap_or(now));
        first.elapsed() < self.length
    }

    /// This broker leads anew: nobody has had the time to report to it.
    pub(crate) fn forget(&self) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Registers and reports until the broker ends.
pub(crate) async fn run(core: Arc<Core>) {
    let node_id = &core.config.node_id;
    let pause = core.sessions.length() / 4;
    let mut metrics = core.metadata.raft.metrics();
    loop {
        let leader = metrics.borrow_and_update().current_leader;
        let member = leader.is_some() && core.metadata.is_member(node_id);
        let reported = if member && core.registered() {
            report(&core).await
        } else if member {
            let registered = core.metadata.propose(Command::RegisterNode { info: info(&core) }).await;
            drop(registered.inspect_err(|error| tracing::warn!("cannot register yet: {error:#}")));
            false
        } else {
            true
        };
        let elsewhere = metrics.wait_for(|metrics| metrics.current_leader != leader);
        // A new leader knows nobody yet, and one that was not reached may think that this broker is gone.
        let pause = if reported { pause } else { pause / 5 };
        drop(tokio::time::timeout(pause, elsewhere).await);
    }
}

async fn report(core: &Core) -> bool {
    let node_id = core.config.node_id.clone();
    if core.metadata.leads() {
        core.sessions.seen(&node_id);
        return true;
    }
    let Some(leader) = core.metadata.leader_url() else { return false };
    let limit = core.sessions.length() / 2;
    let told = core.caller.post::<_, Value>(&leader, "/raft/heartbeat", &Heartbeat { node_id }, limit).await;
    told.inspect_err(|error| tracing::debug!("heartbeat to {leader}: {error}")).is_ok()
}

fn info(core: &Core) -> NodeInfo {
    let config = &core.config;
    let tags = [("disk", &core.disk), ("incarnation", &core.incarnation)];
    NodeInfo {
        id: config.node_id.clone(),
        name: None,
        rack: config.rack.clone(),
        client_addr: config.client_addr(),
        cluster_addr: config.cluster_addr(),
        version: config.version.clone(),
        tags: tags.map(|(key, mark)| (key.to_owned(), mark.clone())).into(),
    }
}
