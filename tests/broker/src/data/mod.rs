//! The records: logs on disk, replicated from leaders to followers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

mod follower;
mod log;
mod replica;
mod wire;

use crate::broker::Core;
use crate::http::same_secret;
use crate::metadata::command::PartitionId;
use crate::metadata::state::ClusterMetadata;
use crate::tls::Stream;
use follower::Following;
pub(crate) use log::Record;
use replica::Fetch;
pub(crate) use replica::{Refusal, Replica};
use wire::{Ask, Hello, Reply, What, receive, send};

/// The most that one fetch brings.
const FETCH_BYTES: u64 = 4 * 1024 * 1024;

/// A partition of one topic; a topic of the same name that is made later is another one.
type Key = (u64, PartitionId);

/// The replicas on this broker's disk.
#[derive(Default)]
pub(crate) struct Replicas {
    held: Mutex<BTreeMap<Key, Arc<Replica>>>,
    /// A follower fetched: perhaps it is in sync now.
    fetched: Notify,
}

impl Replicas {
    /// The replica of a partition on this broker.
    pub(crate) fn get(&self, topic: u64, partition: &PartitionId) -> Option<Arc<Replica>> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(&(topic, partition.clone())).cloned()
    }

    fn all(&self) -> Vec<Arc<Replica>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// How long a leader lets a follower wait that has everything: at most a third of the lag that is allowed, so that one
/// that is there is heard of in time.
fn patience(core: &Core) -> Duration {
    (lag(core) / 3).min(Duration::from_secs(1))
}

fn lag(core: &Core) -> Duration {
    Duration::from_millis(core.config.replica_lag_ms)
}

/// Aborts a follower when it is not needed any more.
struct Task(Following, AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.1.abort();
    }
}

/// Gives each replica the role that the metadata say, until the broker ends.
pub(crate) async fn run(core: Arc<Core>) {
    let directory = core.config.data_dir.join("records");
    let mut metadata = core.metadata.watch();
    let mut tasks: BTreeMap<Key, Task> = BTreeMap::new();
    loop {
        let now = metadata.borrow_and_update().clone();
        // What was applied before this run was registered may be long out of date.
        let assigned = if core.registered() { assign(&core, &directory, &now, &mut tasks) } else { Ok(()) };
        if let Err(error) = assigned {
            tracing::error!("{}: {error}", directory.display());
        }
        if metadata.changed().await.is_err() {
            return;
        }
    }
}

fn assign(
    core: &Arc<Core>,
    directory: &Path,
    metadata: &ClusterMetadata,
    tasks: &mut BTreeMap<Key, Task>,
) -> std::io::Result<()> {
    let me = &core.config.node_id;
    let mut mine = BTreeSet::new();
    for (id, topic, partition) in metadata.partitions().filter(|(_, _, partition)| partition.replicas.contains(me)) {
        let key = (topic.id, id.clone());
        let replica = match core.replicas.get(topic.id, &id) {
            Some(replica) => replica,
            None => open(core, directory, &key)?,
        };
        replica.apply(partition, topic.min_isr());
        let leader = partition.leader.clone().filter(|leader| leader != me);
        let epoch = partition.leader_epoch;
        let wanted = leader.map(|leader| Following { topic: topic.id, partition: id, epoch, leader });
        if tasks.get(&key).map(|task| &task.0) != wanted.as_ref() {
            tasks.remove(&key);
            if let Some(following) = wanted {
                let task = tokio::spawn(follower::run(Arc::clone(core), replica, following.clone()));
                tasks.insert(key.clone(), Task(following, task.abort_handle()));
            }
        }
        mine.insert(key);
    }
    tasks.retain(|key, _| mine.contains(key));
    core.replicas.held.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, replica| {
        let kept = mine.contains(key);
        if !kept {
            replica.retire();
        }
        kept
    });
    sweep(directory, &mine)
}

fn name((topic, partition): &Key) -> String {
    // Not by the topic's name, which may be as long as a file's.
    format!("{topic}-{}", partition.partition)
}

fn open(core: &Core, directory: &Path, key: &Key) -> std::io::Result<Arc<Replica>> {
    let path: PathBuf = directory.join(name(key));
    fs::create_dir_all(&path)?;
    let replica = Arc::new(Replica::open(key.1.clone(), &core.config.node_id, &path.join("log"))?);
    let mut held = core.replicas.held.lock().unwrap_or_else(PoisonError::into_inner);
    held.insert(key.clone(), Arc::clone(&replica));
    Ok(replica)
}

/// Removes the records that belong to no replica of this broker.
fn sweep(directory: &Path, mine: &BTreeSet<Key>) -> std::io::Result<()> {
    let Ok(entries) = fs::read_dir(directory) else { return Ok(()) };
    let kept: BTreeSet<String> = mine.iter().map(name).collect();
    for entry in entries {
        let entry = entry?;
        if !kept.contains(entry.file_name().to_string_lossy().as_ref()) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Keeps the in-sync sets of the partitions led here true, until the broker ends.
pub(crate) async fn keep_in_sync(core: Arc<Core>) {
    let pause = patience(&core) / 2;
    loop {
        let replicas = core.replicas.all();
        let proposals = replicas.iter().filter_map(|replica| replica.propose(lag(&core)));
        for done in join_all(proposals.map(|command| core.metadata.propose(command))).await {
            match done {
                Ok(outcome) => tracing::info!("{outcome:?}"),
                Err(error) => tracing::warn!("cannot change an in-sync set yet: {error:#}"),
            }
        }
        drop(tokio::time::timeout(pause, core.replicas.fetched.notified()).await);
    }
}

/// Serves one follower.
pub(crate) async fn connection(core: Arc<Core>, mut stream: Stream) {
    if let Err(error) = serve(&core, &mut stream).await {
        tracing::debug!("a follower's connection ended: {error:#}");
    }
}

async fn serve(core: &Core, stream: &mut Stream) -> anyhow::Result<()> {
    let hello: Hello = receive(stream).await?;
    let token = core.config.cluster_auth_token.clone().unwrap_or_default();
    anyhow::ensure!(same_secret(hello.token.as_bytes(), token.as_bytes()), "a wrong token");
    loop {
        let ask: Ask = receive(stream).await?;
        let reply = match core.replicas.get(ask.topic, &ask.partition) {
            Some(replica) => reply(core, &replica, ask.epoch, ask.what).await.unwrap_or(Reply::Refused),
            None => Reply::Refused,
        };
        send(stream, &reply).await?;
    }
}

async fn reply(core: &Core, replica: &Replica, epoch: u64, what: What) -> Result<Reply, Refusal> {
    let (node, version, offset, known) = match what {
        What::EndOf { epoch: asked } => {
            let (epoch, end) = replica.end_of(epoch, asked)?;
            return Ok(Reply::End { epoch, end });
        }
        What::Fetch { node, version, offset, high_watermark } => (node, version, offset, high_watermark),
    };
    let fetch = Fetch { node: &node, epoch, version, offset };
    let mut changed = replica.watch();
    replica.note(&fetch)?;
    core.replicas.fetched.notify_one();
    let until = Instant::now() + patience(core);
    let mut found = replica.news(&fetch, known, FETCH_BYTES)?;
    while found.is_none() && timeout_at(until, changed.changed()).await.is_ok() {
        found = replica.news(&fetch, known, FETCH_BYTES)?;
    }
    let (high_watermark, records) = found.unwrap_or((known, Vec::new()));
    Ok(Reply::Records { high_watermark, records })
}
