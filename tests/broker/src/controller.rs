//! The Raft leader's duty: a partition whose leader is gone gets another one, from the in-sync set or not at all.

use std::sync::Arc;

use crate::broker::Core;
use crate::metadata::command::{Command, PartitionId};
use crate::metadata::state::Partition;

/// Watches until the broker ends.
pub(crate) async fn run(core: Arc<Core>) {
    let mut metadata = core.metadata.watch();
    let pause = core.sessions.length() / 4;
    let mut term = None;
    loop {
        metadata.borrow_and_update();
        if core.metadata.leads() {
            let current = core.metadata.metrics().current_term;
            if term.replace(current) != Some(current) {
                core.sessions.forget();
            }
            elect(&core).await;
        } else {
            term = None;
        }
        drop(tokio::time::timeout(pause, metadata.changed()).await);
    }
}

async fn elect(core: &Core) {
    let there = |node: &str| core.sessions.alive(node) && core.metadata.is_member(node);
    let now = core.metadata.now();
    let commands = now.partitions().filter_map(|(id, _, partition)| successor(id, partition, there));
    for command in commands {
        let epoch_checked = core.metadata.propose_here(command);
        // Without a quorum this hangs; what was decided is then out of date.
        match tokio::time::timeout(core.sessions.length(), epoch_checked).await {
            Ok(Ok(outcome)) => tracing::info!("{outcome:?}"),
            Ok(Err(error)) => return tracing::warn!("cannot elect a partition leader: {error}"),
            Err(_) => return tracing::warn!("cannot elect a partition leader: no quorum"),
        }
    }
}

/// What has to change for a partition, if anything.
fn successor(id: PartitionId, partition: &Partition, there: impl Fn(&str) -> bool) -> Option<Command> {
    if partition.leader.as_deref().is_some_and(&there) {
        return None;
    }
    let epoch = partition.leader_epoch + 1;
    let heir = partition.replicas.iter().find(|node| partition.may_lead(node) && there(node));
    match (heir, &partition.leader) {
        (Some(heir), _) => Some(Command::UpdatePartitionLeader { partition: id, leader: heir.clone(), epoch }),
        (None, Some(_)) => Some(Command::TakePartitionOffline { partition: id, epoch }),
        (None, None) => None,
    }
}
