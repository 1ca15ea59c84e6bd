//! A follower: gets its log to agree with the leader's, then fetches.

use std::sync::Arc;

use anyhow::bail;

use super::replica::Replica;
use super::wire::{Ask, Hello, Reply, What, receive, send};
use crate::broker::Core;
use crate::metadata::command::PartitionId;
use crate::tls::Stream;

/// Whom a replica follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Following {
    pub(super) topic: u64,
    pub(super) partition: PartitionId,
    pub(super) epoch: u64,
    pub(super) leader: String,
}

/// Follows until it is aborted, that is, until the metadata say something else.
pub(super) async fn run(core: Arc<Core>, replica: Arc<Replica>, following: Following) {
    loop {
        if let Err(error) = follow(&core, &replica, &following).await {
            tracing::debug!("{} follows {}: {error:#}", following.partition, following.leader);
        }
        tokio::time::sleep(super::patience(&core) / 5).await;
    }
}

async fn follow(core: &Core, replica: &Replica, following: &Following) -> anyhow::Result<()> {
    let metadata = core.metadata.now();
    let Some(leader) = metadata.nodes.get(&following.leader) else { bail!("unknown leader") };
    let answer_limit = super::patience(core) * 2;
    let connect = core.caller.follow(&leader.cluster_addr);
    let mut stream = tokio::time::timeout(answer_limit, connect).await??;
    let token = core.config.cluster_auth_token.clone().unwrap_or_default();
    send(&mut stream, &Hello { token }).await?;
    let mut ask = async |what| tokio::time::timeout(answer_limit, asked(&mut stream, following, what)).await?;
    while let Some(last) = replica.last_epoch() {
        let Reply::End { epoch, end } = ask(What::EndOf { epoch: last }).await? else { bail!("refused") };
        if replica.cut(following.epoch, last, epoch, end)? {
            break;
        }
    }
    loop {
        core.faults.late().await;
        let (offset, version, high_watermark) = replica.position();
        let node = core.config.node_id.clone();
        let fetch = What::Fetch { node, version, offset, high_watermark };
        let Reply::Records { high_watermark, records } = ask(fetch).await? else { bail!("refused") };
        if !records.is_empty() {
            core.faults.room()?;
        }
        replica.follow(following.epoch, high_watermark, &records)?;
    }
}

async fn asked(stream: &mut Stream, following: &Following, what: What) -> anyhow::Result<Reply> {
    let Following { topic, partition, epoch, .. } = following.clone();
    send(stream, &Ask { topic, partition, epoch, what }).await?;
    receive(stream).await
}
