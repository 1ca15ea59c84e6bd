//! TLS: who is let in, and who is not.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use rivven_protocol::{Request, Response};

use crate::certificates::Authority;
use crate::cluster::{Cluster, in_sync};
use crate::load::{self, Options};
use crate::process::Node;
use crate::tls::Tls;
use crate::wire::{LIMIT, Wire};

/// A broker that runs, and its authority.
async fn broker(binary: &Path, prepare: impl FnOnce(&mut Node, &Authority) -> Result<()>) -> Result<(Node, Authority)> {
    let authority = Authority::new("authority")?;
    let mut node = Node::new(binary, "tls-0")?;
    node.speak_tls(&authority)?;
    prepare(&mut node, &authority)?;
    node.start().await?;
    Ok((node, authority))
}

/// A ping by a client of its own is answered.
async fn pings(node: &Node, tls: Option<&Tls>) -> Result<()> {
    let mut wire = Wire::connect_with(&node.address(), tls, LIMIT).await?;
    let answer = wire.call(&Request::Ping).await?;
    ensure!(matches!(answer, Response::Pong), "{answer:?}");
    Ok(())
}

pub(super) async fn plain(binary: &Path) -> Result<()> {
    let (node, _authority) = broker(binary, |_, _| Ok(())).await?;
    pings(&node, node.tls.as_ref()).await?;
    node.api().get("/membership").await?.with(200)?;
    ensure!(pings(&node, None).await.is_err(), "a client is served in plain text");
    ensure!(node.api().with_tls(None).get("/health").await.is_err(), "the API is served in plain text");
    Ok(())
}

pub(super) async fn authority(binary: &Path) -> Result<()> {
    let (node, authority) = broker(binary, |_, _| Ok(())).await?;
    let other = Tls::new(Authority::new("other")?.ca());
    ensure!(pings(&node, Some(&other)).await.is_err(), "a client believes another authority");
    ensure!(node.api().with_tls(Some(other)).get("/health").await.is_err(), "the API is believed by another authority");
    let misnamed = Tls { names: vec![(node.address(), "other".to_owned())], ..Tls::new(authority.ca()) };
    ensure!(pings(&node, Some(&misnamed)).await.is_err(), "the certificate is for any name");
    Ok(())
}

pub(super) async fn mutual(binary: &Path) -> Result<()> {
    let (node, authority) = broker(binary, |node, authority| {
        node.set("RIVVEN_TLS_VERIFY_CLIENT", "true");
        // The certificate is enough.
        node.set("RIVVEN_NO_REQUIRE_AUTH", "false");
        let own = authority.issue(&["client"])?;
        node.tls = Some(Tls { cert: Some(own.cert), key: Some(own.key), ..Tls::new(authority.ca()) });
        Ok(())
    })
    .await?;
    node.wire().await?.cluster_metadata(&[]).await?;
    let nothing = Tls::new(authority.ca());
    ensure!(pings(&node, Some(&nothing)).await.is_err(), "a client without a certificate is served");
    let foreign = Authority::new("other")?;
    let shown = foreign.issue(&["client"])?;
    let stranger = Tls { cert: Some(shown.cert), key: Some(shown.key), ..nothing.clone() };
    ensure!(pings(&node, Some(&stranger)).await.is_err(), "a client of another authority is served");
    for path in ["/health", "/health/live", "/health/ready", "/metrics"] {
        let answer = node.api().with_tls(Some(nothing.clone())).with_token(None).get(path).await?;
        ensure!(answer.status == 200, "{path} without a certificate: {}", answer.status);
    }
    Ok(())
}

pub(super) async fn cluster(binary: &Path) -> Result<()> {
    let authority = Authority::new("authority")?;
    let cluster = Cluster::start_with(binary, |node| node.speak_tls(&authority)).await?.form().await?;
    let all = ["member-0", "member-1", "member-2"];
    let [a, b, c] = all;
    cluster.topic("secret", 2, &[&[a, b, c], &[b, c, a], &[c, a, b]]).await?;
    let mut options = Options::new(cluster.nodes.iter().map(Node::address).collect(), "secret", 3);
    options.duration = Duration::from_secs(2);
    options.tls = Some(Tls::new(authority.ca()));
    let report = load::run(&options).await?;
    ensure!(report.acknowledged > 100 && report.lost == 0, "{report:?}");
    for partition in 0..3 {
        cluster.shows("secret", partition, "in sync", |p| in_sync(p, &all)).await?;
    }
    Ok(())
}
