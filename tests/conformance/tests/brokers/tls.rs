//! The load generator over TLS, while all that is believed and shown is replaced.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rivven_conformance::certificates::{Authority, Issued};
use rivven_conformance::load::{Options, run};
use rivven_conformance::process::Node;
use rivven_conformance::tls::Tls;
use rivven_conformance::wait::until;

/// What the broker is called, wherever it is dialled.
const NAME: &str = "broker.example";

/// Takes the place of another certificate.
fn replace(old: &Issued, new: &Issued) {
    std::fs::copy(&new.cert, &old.cert).unwrap();
    std::fs::copy(&new.key, &old.key).unwrap();
}

/// The broker reads its files at the start only.
async fn restart(broker: &mut Node, acks: &Path) {
    broker.stop().await.unwrap();
    broker.start().await.unwrap();
    flows(acks).await;
}

async fn flows(acks: &Path) {
    let size = async || Ok(tokio::fs::metadata(acks).await?.len());
    let before = until("a first acknowledgement", Duration::from_secs(20), size).await.unwrap();
    until("records flow", Duration::from_secs(20), async || {
        let now = size().await?;
        anyhow::ensure!(now > before + 1000, "{before} bytes of acknowledgements, then {now}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_lives_through_a_rotation_of_certificates_and_authorities() {
    let [first, second] = ["first", "second"].map(|name| Authority::new(name).unwrap());
    let mut broker = Node::new(env!("CARGO_BIN_EXE_test-broker"), "tls-0").unwrap();
    broker.speak_tls(&first).unwrap();
    let (served, shown) = (first.issue(&[NAME]).unwrap(), first.issue(&["client"]).unwrap());
    broker.set("RIVVEN_TLS_CERT", served.cert.display().to_string());
    broker.set("RIVVEN_TLS_KEY", served.key.display().to_string());
    broker.set("RIVVEN_TLS_VERIFY_CLIENT", "true");
    let named = [broker.address(), broker.api_address()].map(|address| (address, NAME.to_owned()));
    let (cert, key) = (Some(shown.cert.clone()), Some(shown.key.clone()));
    broker.tls = Some(Tls { cert, key, names: named.into(), ..Tls::new(first.ca()) });
    broker.start().await.unwrap();

    let directory = tempfile::tempdir().unwrap();
    let acks = directory.path().join("acks");
    let mut options = Options::new(vec![broker.address()], "rotated", 2);
    (options.duration, options.tls) = (Duration::from_mins(5), broker.tls.clone());
    options.acks_file = Some(acks.clone());
    let stop = Arc::clone(&options.stop);
    let load = tokio::spawn(async move { run(&options).await });
    flows(&acks).await;

    // Both are believed before anybody shows a certificate of the new one; the old one goes when nobody does any more.
    std::fs::write(first.ca(), first.pem() + &second.pem()).unwrap();
    restart(&mut broker, &acks).await;
    replace(&served, &second.issue(&[NAME]).unwrap());
    replace(&shown, &second.issue(&["client"]).unwrap());
    restart(&mut broker, &acks).await;
    std::fs::write(first.ca(), second.pem()).unwrap();
    restart(&mut broker, &acks).await;

    stop.store(true, Ordering::Relaxed);
    let report = load.await.unwrap().unwrap();
    assert!(report.retries.retries > 0, "the load noticed nothing: {report:?}");
    assert_eq!((report.lost, report.moved, report.out_of_order), (0, 0, 0), "{report:?}");
}
