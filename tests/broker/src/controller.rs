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
        if core.metadata.leads() && core.faults.room().is_ok() {
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
    let commands = now.partitions().flat_map(|(id, _, partition)| succession(id, partition, there));
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

/// What has to change for a partition, if anything. Whoever is known to be gone leaves the in-sync set as well: the new
/// leader would wait for it as long as for any follower that is late.
fn succession(id: PartitionId, partition: &Partition, there: impl Fn(&str) -> bool) -> Vec<Command> {
    if partition.leader.as_deref().is_some_and(&there) {
        return Vec::new();
    }
    let epoch = partition.leader_epoch + 1;
    let heir = partition.replicas.iter().find(|node| partition.may_lead(node) && there(node));
    match (heir, &partition.leader) {
        (Some(heir), _) => {
            let isr = partition.isr.iter().filter(|node| there(node)).cloned().collect();
            // Only if nothing happened but this change of the leader.
            let version = Some(partition.version + 1);
            let lead = Command::UpdatePartitionLeader { partition: id.clone(), leader: heir.clone(), epoch };
            vec![lead, Command::UpdatePartitionIsr { partition: id, isr, leader_epoch: epoch, version }]
        }
        (None, Some(_)) => vec![Command::TakePartitionOffline { partition: id, epoch }],
        (None, None) => Vec::new(),
    }
}
