//! What the released broker does that no broker should.

use rivven_conformance::load::read_partition;
use rivven_conformance::single::Single;

use crate::support::released_broker;

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
