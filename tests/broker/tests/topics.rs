//! Topics and their configuration, through the published client and on the wire.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use rivven_client::Client;
use rivven_protocol::{Request, Response};
use support::{Cluster, eventually, topic};

async fn client(cluster: &Cluster, name: &str) -> Client {
    Client::connect(&cluster.addresses(name).client.to_string()).await.unwrap()
}

fn message<T: std::fmt::Debug>(result: rivven_client::Result<T>) -> String {
    result.unwrap_err().to_string()
}

#[tokio::test(start_paused = true)]
async fn a_topic_made_anywhere_is_known_everywhere_and_replicated() {
    let cluster = Cluster::formed(3, |_| {}).await;
    for (number, name) in cluster.names().into_iter().enumerate() {
        let made = format!("t{number}");
        assert_eq!(client(&cluster, &name).await.create_topic(&made, Some(3)).await.unwrap(), 3);
        assert_eq!(client(&cluster, &name).await.get_metadata(&made).await.unwrap(), (made.clone(), 3));
        for name in cluster.names() {
            let partition = eventually("the topic", async || cluster.links.partition(&name, &made, 1).await).await;
            assert_eq!(partition.replicas, ["b1", "b2", "b0"]);
            assert_eq!(partition.isr, ["b0", "b1", "b2"]);
            assert_eq!((partition.leader.as_deref(), partition.offline), (Some("b1"), false));
        }
    }
    let request = Request::GetClusterMetadata { topics: vec!["t1".to_owned()] };
    let Ok(Response::ClusterMetadata { controller_id, brokers, topics }) = cluster.links.ask("b1", request).await
    else {
        panic!()
    };
    assert_eq!(controller_id, Some(cluster.leader().await));
    let hosts: Vec<_> = brokers.iter().map(|broker| (broker.host.as_str(), broker.port)).collect();
    assert_eq!(hosts, [("b0", 9292), ("b1", 9292), ("b2", 9292)]);
    assert_eq!(topics.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_configuration_is_checked_and_durable() {
    let mut cluster = Cluster::formed(3, |_| {}).await;
    let mut admin = client(&cluster, "b0").await;
    admin.create_topic("t", Some(1)).await.unwrap();
    let config = admin.describe_topic_configs(&["t"]).await.unwrap().remove("t").unwrap();
    assert_eq!((config["min.insync.replicas"].as_str(), config["retention.ms"].as_str()), ("2", "604800000"));

    let bad = [("retention.ms", Some("5")), ("no.such.key", Some("5"))];
    let refused = message(admin.alter_topic_config("t", &bad).await);
    assert!(refused.contains("INVALID_CONFIG: Unknown configuration key: no.such.key"), "{refused}");
    let config = admin.describe_topic_configs(&["t"]).await.unwrap().remove("t").unwrap();
    assert_eq!(config["retention.ms"], "5", "what comes before a mistake stays");
    for (key, value) in [("retention.ms", "-2"), ("cleanup.policy", "none"), ("min.insync.replicas", "0")] {
        let refused = message(admin.alter_topic_config("t", &[(key, Some(value))]).await);
        assert!(refused.contains("INVALID_CONFIG: "), "{refused}");
    }
    let good = [("retention.ms", Some("6")), ("min.insync.replicas", Some("3"))];
    assert_eq!(admin.alter_topic_config("t", &good).await.unwrap().changed_count, 2);
    let unknown = message(admin.alter_topic_config("u", &good).await);
    assert!(unknown.contains("UNKNOWN_TOPIC_OR_PARTITION: Topic 'u' not found"), "{unknown}");
    for name in cluster.names() {
        cluster.kill(&name).await;
    }
    for name in ["b0", "b1", "b2"] {
        cluster.start(name).await;
    }
    cluster.all_ready().await;
    let mut admin = client(&cluster, "b2").await;
    let config = admin.describe_topic_configs(&["t"]).await.unwrap().remove("t").unwrap();
    assert_eq!((config["min.insync.replicas"].as_str(), config["retention.ms"].as_str()), ("3", "6"));
    admin.alter_topic_config("t", &[("retention.ms", None)]).await.unwrap();
    let config = admin.describe_topic_configs(&["t"]).await.unwrap().remove("t").unwrap();
    assert_eq!(config["retention.ms"], "604800000");
    let defaults = admin.describe_topic_configs(&["nobody"]).await.unwrap().remove("nobody").unwrap();
    assert_eq!(defaults["min.insync.replicas"], "1");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_is_refused_in_the_released_words() {
    let cluster = Cluster::formed(1, |_| {}).await;
    let mut admin = client(&cluster, "b0").await;
    admin.create_topic("t", Some(2)).await.unwrap();
    assert!(message(admin.create_topic("t", Some(2)).await).contains("Topic 't' already exists"));
    assert!(message(admin.create_topic("_t", Some(2)).await).contains("INVALID_TOPIC_NAME: "));
    let count = "INVALID_PARTITION_COUNT: must be between 1 and 1000, got 1001";
    assert!(message(admin.create_topic("u", Some(1001)).await).contains(count));
    assert!(message(admin.delete_topic("u").await).contains("Topic not found: u"));
    assert!(message(admin.get_metadata("u").await).contains("Topic not found: u"));
    assert!(message(admin.get_offset_bounds("u", 0).await).contains("Topic not found: u"));
    let shrink = "INVALID_PARTITIONS: New partition count 2 must be greater than current count 2";
    assert!(message(admin.create_partitions("t", 2).await).contains(shrink));
    let unknown = "UNKNOWN_TOPIC_OR_PARTITION: Topic 'u' not found";
    assert!(message(admin.create_partitions("u", 2).await).contains(unknown));
    assert!(
        message(admin.publish_to_partition("t", 2, None::<&[u8]>, "v").await)
            .contains("Invalid partition 2: must be < 2")
    );
    assert!(message(admin.commit_offset("g", "u", 0, 0).await).contains("UNKNOWN_TOPIC: topic 'u' does not exist"));
    assert_eq!(admin.create_partitions("t", 3).await.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_topic_of_the_same_name_is_another_one() {
    let cluster = Cluster::formed(2, |_| {}).await;
    let mut admin = client(&cluster, "b0").await;
    cluster.propose(topic("t", 1, &[&["b0", "b1"]])).await;
    cluster.links.publish("t", 0, b"old").await.unwrap();
    admin.delete_topic("t").await.unwrap();
    assert!(admin.list_topics().await.unwrap().is_empty());
    cluster.propose(topic("t", 1, &[&["b0", "b1"]])).await;
    eventually("the topic", async || cluster.links.partition("b0", "t", 0).await).await;
    assert_eq!(cluster.links.publish("t", 0, b"new").await.unwrap(), 0);
    let all = cluster.links.read_all("t", 0).await;
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].value, "new");
}

#[tokio::test(start_paused = true)]
async fn without_authentication_only_a_ping_is_answered() {
    let cluster = Cluster::formed(1, |config| config.no_require_auth = false).await;
    assert!(matches!(cluster.links.ask("b0", Request::Ping).await, Ok(Response::Pong)));
    let refused = cluster.links.ask("b0", Request::ListTopics).await.unwrap_err();
    assert_eq!(refused, "AUTHENTICATION_REQUIRED: Please authenticate first");
}
