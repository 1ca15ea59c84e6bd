//! Runs the checks against one broker.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use futures::future::join_all;
use rivven_fsm::cluster::Capabilities;
use tokio::time::timeout;

use crate::check::{Capability, Check, On, Outcome, Running};
use crate::cluster::Cluster;
use crate::single::Single;
use crate::table::Column;

/// How long one check may take.
const LIMIT: Duration = Duration::from_mins(3);

/// A broker to run the checks against.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its name in the table.
    pub name: String,
    /// Its program.
    pub binary: PathBuf,
    /// It forms clusters: the checks of a cluster apply to it.
    pub clustered: bool,
}

/// All brokers at the same time, for most of a check is waiting; `told` hears of each outcome as soon as it is known.
pub async fn run(brokers: &[Candidate], checks: &[Check], told: impl Fn(&str, &Check, &Outcome)) -> Vec<Column> {
    let told = &told;
    let column = async |broker: &Candidate| Column {
        broker: broker.name.clone(),
        outcomes: outcomes(&broker.binary, broker.clustered, checks, |check, outcome| {
            told(&broker.name, check, outcome);
        })
        .await,
    };
    join_all(brokers.iter().map(column)).await
}

/// The outcome of each check, in their order.
async fn outcomes(binary: &Path, clustered: bool, checks: &[Check], told: impl Fn(&Check, &Outcome)) -> Vec<Outcome> {
    let mut single = Single::start(binary).await;
    let mut cluster = None;
    let known = single.as_ref().ok().map(|single| (single.version.clone(), single.capabilities));
    let mut outcomes = Vec::new();
    for check in checks {
        let outcome = match (missing(check, known.as_ref(), clustered), check.on) {
            (Some(capability), _) => Outcome::NotApplicable(capability.name()),
            (None, On::Single(run)) => outcome(on_single(&mut single, run)).await,
            (None, On::Own(run)) => outcome(run(binary)).await,
            (None, On::Unformed(run)) => outcome(on_cluster(&mut cluster, binary, false, run)).await,
            (None, On::Formed(run)) => outcome(on_cluster(&mut cluster, binary, true, run)).await,
        };
        told(check, &outcome);
        outcomes.push(outcome);
    }
    outcomes
}

/// A cluster is started only where somebody said that the broker can, whatever the table says about its version.
fn missing(check: &Check, known: Option<&(String, Capabilities)>, clustered: bool) -> Option<Capability> {
    let has = |capability: Capability| match (capability, known) {
        (Capability::Clustering, _) => clustered,
        (capability, Some((version, row))) => capability.of(version, row),
        (_, None) => true,
    };
    let cluster = [Capability::Clustering].into_iter().filter(|_| matches!(check.on, On::Unformed(_) | On::Formed(_)));
    cluster.chain(check.needs.iter().copied()).find(|&capability| !has(capability))
}

async fn outcome(check: impl Future<Output = Result<()>>) -> Outcome {
    match timeout(LIMIT, check).await {
        Ok(Ok(())) => Outcome::Ok,
        Ok(Err(reason)) => Outcome::Differs(format!("{reason:#}")),
        Err(_) => Outcome::Differs(format!("not within {LIMIT:?}")),
    }
}

async fn on_single(single: &mut Result<Single>, run: for<'a> fn(&'a mut Single) -> Running<'a>) -> Result<()> {
    let single = started(single)?;
    if !single.node.is_up() {
        single.node.start().await.context("after the check before")?;
    }
    run(single).await
}

async fn on_cluster(
    cluster: &mut Option<Result<Cluster>>,
    binary: &Path,
    formed: bool,
    run: for<'a> fn(&'a mut Cluster) -> Running<'a>,
) -> Result<()> {
    if cluster.is_none() {
        *cluster = Some(Cluster::start(binary).await);
    }
    let cluster = started(cluster.as_mut().context("no cluster")?)?;
    if formed {
        cluster.ready().await?;
    }
    run(cluster).await
}

/// Why it did not start is told once.
fn started<T>(brokers: &mut Result<T>) -> Result<&mut T> {
    let why = match brokers {
        Ok(brokers) => return Ok(brokers),
        Err(why) => why,
    };
    Err(std::mem::replace(why, anyhow!("did not start")))
}

#[cfg(test)]
mod tests {
    use rivven_operator::broker::capabilities;

    use super::*;
    use crate::checks::CHECKS;

    fn applies(version: &str, clustered: bool) -> usize {
        let known = Some((version.to_owned(), capabilities(version)));
        CHECKS.iter().filter(|check| missing(check, known.as_ref(), clustered).is_none()).count()
    }

    #[test]
    fn a_check_applies_where_the_capability_is() {
        assert_eq!(applies("0.1.0", true), CHECKS.len());
        let on = |kind: fn(&On) -> bool| CHECKS.iter().filter(|check| kind(&check.on)).count();
        let on_one = on(|on| matches!(on, On::Single(_)));
        let over_tls = on(|on| matches!(on, On::Own(_)));
        assert_eq!(applies("0.1.0", false), on_one + over_tls - 1, "all but the cluster over TLS");
        assert_eq!(applies("0.0.22", false), on_one - 3, "all but the health paths and many records after kill -9");
        assert!(applies("0.0.22", true) > on_one, "a cluster is tried where somebody says so");
    }
}
