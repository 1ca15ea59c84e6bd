//! The load generator finds what is lost, and nothing where nothing is.

use std::time::Duration;

use crate::support::{Cheat, released_broker};
use rivven_conformance::load::{Options, Report, run, verify_file};
use rivven_conformance::process::Node;

fn options(address: String) -> Options {
    Options {
        duration: Duration::from_secs(2),
        rate: 100.0,
        patience: Duration::from_secs(30),
        ..Options::new(vec![address], "load", 3)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_over_a_graceful_restart() {
    let mut broker = Node::new(released_broker(), "released").unwrap();
    broker.start().await.unwrap();
    let mut options = options(broker.address());
    let acks = tempfile::tempdir().unwrap();
    options.acks_file = Some(acks.path().join("acks"));
    options.duration = Duration::from_secs(15);
    let load = tokio::spawn({
        let options = options.clone();
        async move { run(&options).await }
    });
    // The restart begins when records flow.
    rivven_conformance::wait::until("a first acknowledgement", Duration::from_secs(10), || async {
        let size = tokio::fs::metadata(acks.path().join("acks")).await?.len();
        anyhow::ensure!(size > 0);
        Ok(())
    })
    .await
    .unwrap();
    broker.stop().await.unwrap();
    broker.start().await.unwrap();
    let report = load.await.unwrap().unwrap();
    assert!(report.acknowledged > 100 && report.retries.retries > 0, "{report:?}");
    assert_eq!((report.lost, report.moved, report.out_of_order), (0, 0, 0), "{report:?}");

    let again = verify_file(&options, &acks.path().join("acks")).await.unwrap();
    assert_eq!((again.acknowledged, again.lost, again.read), (report.acknowledged, 0, report.read), "{again:?}");
}

async fn cheated(cheat: Cheat) -> Report {
    let address = cheat.serve().await;
    run(&Options { patience: Duration::from_millis(500), ..options(address) }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_broker_keeps_all() {
    let report = cheated(Cheat::Nothing).await;
    assert!(report.acknowledged > 50, "{report:?}");
    assert_eq!(report.read, report.acknowledged, "{report:?}");
    assert_eq!((report.lost, report.moved, report.duplicates, report.out_of_order), (0, 0, 0, 0), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_acknowledges_and_drops_is_found_out() {
    let report = cheated(Cheat::DropEveryTenth).await;
    assert!(report.lost > 5 && !report.lost_examples.is_empty(), "{report:?}");
    assert_eq!(report.lost + report.read, report.acknowledged, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_writes_twice_and_one_that_reorders_lose_nothing() {
    let report = cheated(Cheat::WriteEveryTenthTwice).await;
    assert!(report.duplicates > 5, "{report:?}");
    assert_eq!((report.lost, report.out_of_order), (0, 0), "{report:?}");

    let report = cheated(Cheat::ReadBackwards).await;
    assert!(report.out_of_order > 5, "{report:?}");
    assert_eq!(report.lost, 0, "{report:?}");
}
