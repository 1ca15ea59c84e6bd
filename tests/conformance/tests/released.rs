//! The released broker is the measure of the checks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use rivven_conformance::check::{On, Outcome};
use rivven_conformance::checks::CHECKS;
use rivven_conformance::load::read_partition;
use rivven_conformance::run::run;
use rivven_conformance::single::Single;
use support::released_broker;

#[tokio::test(flavor = "multi_thread")]
async fn the_released_broker_does_all_that_applies_to_it() {
    let outcomes = run(&released_broker(), false, CHECKS, |_, _| ()).await;
    for (check, outcome) in CHECKS.iter().zip(&outcomes) {
        let expected = match check.on {
            On::Single(_) => match check.needs {
                [] => Outcome::Ok,
                [lacking, ..] => Outcome::NotApplicable(lacking.name()),
            },
            On::Unformed(_) | On::Formed(_) => Outcome::NotApplicable("clustering"),
        };
        assert_eq!(outcome, &expected, "{}", check.operation);
    }
}

/// Why `crash_safe_records` exists. A release in which this fails has it.
#[tokio::test(flavor = "multi_thread")]
async fn the_released_broker_hides_after_kill_9_what_it_acknowledged() {
    let mut broker = Single::start(&released_broker()).await.unwrap();
    let mut client = broker.client().await.unwrap();
    client.create_topic("hidden", Some(1)).await.unwrap();
    for number in 0..20 {
        let value = format!("{number} {}", "x".repeat(1000));
        client.publish_to_partition("hidden", 0, None::<&str>, value).await.unwrap();
    }
    broker.crash().await.unwrap();
    let mut client = broker.client().await.unwrap();
    assert_eq!(client.get_offset_bounds("hidden", 0).await.unwrap(), (0, 20), "it knows that there are twenty");
    let read = read_partition(&mut broker.wire().await.unwrap(), "hidden", 0).await.unwrap();
    assert!(read.len() < 20 && read.iter().all(|record| record.offset == 0), "{read:?}");
    for offset in 1..20 {
        assert!(client.consume("hidden", 0, offset, 100).await.unwrap().is_empty(), "{offset}");
    }
    broker.restart().await.unwrap();
    let mut client = broker.client().await.unwrap();
    assert_eq!(client.get_offset_bounds("hidden", 0).await.unwrap(), (0, 1), "and offsets begin again");
}
