//! Records on one broker, through the published client.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::time::Duration;

use rivven_client::Client;
use rivven_protocol::{Request, Response};
use rivven_test_broker::Config;
use rivven_test_broker::config::Mode;
use support::{Cluster, eventually};

async fn standalone(cluster: &mut Cluster) -> Client {
    cluster.run(Config::for_tests(Mode::Standalone, "s", cluster.disk("s"))).await;
    eventually("ready", async || (cluster.get("s", "/health/ready").await.0 == 200).then_some(())).await;
    assert_eq!(cluster.get("s", "/health").await.1["cluster_mode"], false);
    Client::connect(&cluster.addresses("s").client.to_string()).await.unwrap()
}

fn values(messages: &[rivven_client::MessageData]) -> Vec<&[u8]> {
    messages.iter().map(|message| message.value.as_ref()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_published_is_consumed_also_after_a_kill() {
    let mut cluster = Cluster::new();
    let mut client = standalone(&mut cluster).await;
    client.create_topic("t", Some(1)).await.unwrap();
    for number in 0..5_u64 {
        assert_eq!(client.publish("t", format!("v{number}").into_bytes()).await.unwrap(), number);
    }
    assert_eq!(values(&client.consume("t", 0, 3, 10).await.unwrap()), [b"v3", b"v4"]);
    assert_eq!(client.get_offset_bounds("t", 0).await.unwrap(), (0, 5));
    client.commit_offset("g", "t", 0, 4).await.unwrap();
    assert!(client.commit_offset("g", "t", 0, 6).await.unwrap_err().to_string().contains("OFFSET_OUT_OF_RANGE"));
    for graceful in [false, true] {
        if graceful {
            cluster.stop("s").await;
        } else {
            cluster.kill("s").await;
        }
        let mut client = standalone(&mut cluster).await;
        assert_eq!(client.consume("t", 0, 0, 10).await.unwrap().len(), 5);
        assert_eq!(client.get_offset("g", "t", 0).await.unwrap(), Some(4));
        assert_eq!(client.get_offset("h", "t", 0).await.unwrap(), None);
    }
    let mut client = standalone_again(&cluster).await;
    assert_eq!(client.publish("t", "v5").await.unwrap(), 5);
}

async fn standalone_again(cluster: &Cluster) -> Client {
    Client::connect(&cluster.addresses("s").client.to_string()).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn publishing_makes_a_topic_and_a_key_keeps_its_partition() {
    let mut cluster = Cluster::new();
    let mut client = standalone(&mut cluster).await;
    client.publish_with_key("made", Some("k"), "a").await.unwrap();
    client.publish_with_key("made", Some("k"), "b").await.unwrap();
    assert_eq!(client.get_metadata("made").await.unwrap().1, 3);
    let mut ends = Vec::new();
    for partition in 0..3 {
        ends.push(client.get_offset_bounds("made", partition).await.unwrap().1);
    }
    ends.sort_unstable();
    assert_eq!(ends, [0, 0, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_consumer_waits_for_the_next_record_and_no_longer_than_it_said() {
    let mut cluster = Cluster::new();
    let mut client = standalone(&mut cluster).await;
    client.create_topic("t", Some(1)).await.unwrap();
    let consume = |max_wait_ms| Request::Consume {
        topic: "t".to_owned(),
        partition: 0,
        offset: 0,
        max_messages: 10,
        isolation_level: None,
        max_wait_ms: Some(max_wait_ms),
    };
    let began = tokio::time::Instant::now();
    let Ok(Response::Messages { messages }) = cluster.links.ask("s", consume(700)).await else { panic!() };
    assert!(messages.is_empty());
    assert!((700..900).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());

    let began = tokio::time::Instant::now();
    let later = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        client.publish("t", "v").await.unwrap()
    };
    let (consumed, _) = tokio::join!(cluster.links.ask("s", consume(5000)), later);
    let Ok(Response::Messages { messages }) = consumed else { panic!() };
    assert_eq!(messages.len(), 1);
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
}
