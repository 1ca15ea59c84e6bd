//! The election against a real API server, which the imitation in `process_leader.rs` stands for.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::api::{Api, DeleteParams};
use rivven_operator::process::leader::{Elector, End, Timing, identity};
use rivven_operator::process::lease::{KubeLease, LeaseError, LeaseStore};
use rivven_operator::process::shutdown;
use tokio::time::timeout;

/// A name that no other run of this test has.
fn lease_name() -> String {
    identity().rsplit_once('_').map(|(_, random)| format!("process-lease-{random}")).unwrap()
}

fn held_by(name: &str) -> Lease {
    let spec =
        LeaseSpec { holder_identity: Some(name.to_owned()), lease_duration_seconds: Some(1), ..LeaseSpec::default() };
    Lease { spec: Some(spec), ..Lease::default() }
}

#[tokio::test]
async fn the_lease_is_written_only_at_the_version_that_was_read() {
    let (client, name) = (rivven_e2e::client().await.unwrap(), lease_name());
    let api: Api<Lease> = Api::namespaced(client.clone(), "default");
    let store = KubeLease::new(client, "default", &name);
    assert!(store.get().await.unwrap().is_none());

    let first = store.create(held_by("a")).await.unwrap();
    assert!(matches!(store.create(held_by("b")).await, Err(LeaseError::Conflict)));
    let second = store.replace(first.clone()).await.unwrap();
    let changed = Lease { spec: held_by("b").spec, ..second.clone() };
    let third = store.replace(changed.clone()).await.unwrap();
    assert!(matches!(store.replace(changed).await, Err(LeaseError::Conflict)));

    // The API server lets a PUT create a Lease; the uid keeps ours from doing that.
    api.delete(&name, &DeleteParams::default()).await.unwrap();
    let gone = store.replace(third).await.unwrap_err();
    assert!(matches!(gone, LeaseError::Conflict | LeaseError::Gone), "{gone}");
    assert!(store.get().await.unwrap().is_none());
}

#[tokio::test]
async fn leads_releases_and_hands_over() {
    let (client, name) = (rivven_e2e::client().await.unwrap(), lease_name());
    let timing = Timing {
        lease: Duration::from_secs(3),
        renew_deadline: Duration::from_secs(2),
        retry: Duration::from_millis(200),
    };
    let start = || {
        let (elector, leadership) = Elector::new(KubeLease::new(client.clone(), "default", &name), identity(), timing);
        let (stopper, stop) = shutdown::pair();
        (tokio::spawn(elector.run(async move { stop.requested().await })), leadership, stopper)
    };
    let limit = Duration::from_secs(20);
    let (first, leads, stop_first) = start();
    timeout(limit, leads.wait_until_leader()).await.expect("leads");
    let (second, follows, stop_second) = start();
    assert!(leads.may_write() && !follows.may_write());

    stop_first.stop();
    assert_eq!(first.await.unwrap(), End::Stopped);
    timeout(limit, follows.wait_until_leader()).await.expect("takes over");
    assert!(follows.may_write() && !leads.may_write());

    let api: Api<Lease> = Api::namespaced(client.clone(), "default");
    assert_eq!(api.get(&name).await.unwrap().spec.unwrap().lease_transitions, Some(1));
    stop_second.stop();
    assert_eq!(second.await.unwrap(), End::Stopped);
    let released = api.get(&name).await.unwrap().spec.unwrap();
    assert!(released.holder_identity.unwrap_or_default().is_empty());
    api.delete(&name, &DeleteParams::default()).await.unwrap();
}
