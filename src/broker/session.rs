//! One admin session with one broker, over the published client.

use std::collections::BTreeMap;
use std::time::Duration;

use rivven_client::Client;

use super::access::{Access, BrokerAddress, Tunnel};
use super::error::Error;
use super::topic_config;

/// How long a call may take. A synchronous call costs about 44 ms on the released broker.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

/// What a broker says of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicState {
    /// Number of partitions.
    pub partitions: u32,
    /// Configuration, with the broker's keys.
    pub config: BTreeMap<String, String>,
}

/// What may be asked of a broker.
pub(super) enum Request<'a> {
    Ping,
    DescribeTopic(&'a str),
    CreateTopic(&'a str, u32),
    GrowTopic(&'a str, u32),
    AlterTopic(&'a str, &'a BTreeMap<String, String>),
    DeleteTopic(&'a str),
}

impl Request<'_> {
    /// The metric label.
    pub(super) const fn operation(&self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::DescribeTopic(_) => "describe_topic",
            Self::CreateTopic(..) => "create_topic",
            Self::GrowTopic(..) => "create_partitions",
            Self::AlterTopic(..) => "alter_topic_config",
            Self::DeleteTopic(_) => "delete_topic",
        }
    }

    /// Whether sending it twice is sending it once.
    pub(super) const fn is_read(&self) -> bool {
        matches!(self, Self::Ping | Self::DescribeTopic(_))
    }
}

/// What a broker answers.
pub(super) enum Reply {
    Done,
    Topic(Option<TopicState>),
}

/// A connection. After an error that breaks it, it is dropped: the client's stream is then out of step.
pub(super) struct Session {
    client: Client,
    /// Which start of the broker it is connected to.
    pub(super) incarnation: String,
    _tunnel: Tunnel,
}

impl Session {
    pub(super) async fn connect(access: &Access, address: &BrokerAddress, incarnation: &str) -> Result<Self, Error> {
        let (target, tunnel) = limited(access.dial_string(address)).await?;
        let mut client = Client::connect_with_timeout(&target, LIMIT).await?;
        client.set_request_timeout(LIMIT);
        Ok(Self { client, incarnation: incarnation.to_owned(), _tunnel: tunnel })
    }

    pub(super) fn is_broken(&self) -> bool {
        self.client.is_poisoned()
    }

    /// Sends one request.
    pub(super) async fn send(&mut self, request: &Request<'_>) -> Result<Reply, Error> {
        match *request {
            Request::Ping => self.client.ping().await?,
            Request::DescribeTopic(topic) => return self.describe_topic(topic).await.map(Reply::Topic),
            Request::CreateTopic(topic, partitions) => drop(self.client.create_topic(topic, Some(partitions)).await?),
            Request::GrowTopic(topic, partitions) => drop(self.client.create_partitions(topic, partitions).await?),
            Request::AlterTopic(topic, entries) => self.alter_topic(topic, entries).await?,
            Request::DeleteTopic(topic) => self.client.delete_topic(topic).await?,
        }
        Ok(Reply::Done)
    }

    /// `None`: there is no such topic. Its configuration is asked for only then: for an unknown topic the broker
    /// answers with defaults and no error (observed on 0.0.22).
    async fn describe_topic(&mut self, topic: &str) -> Result<Option<TopicState>, Error> {
        let partitions = match self.client.get_metadata(topic).await.map_err(Error::from) {
            Ok((_, partitions)) => partitions,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut configs = self.client.describe_topic_configs(&[topic]).await?;
        let config = configs
            .remove(topic)
            .ok_or_else(|| Error::Protocol(format!("the configuration of {topic} is missing in the answer")))?;
        Ok(Some(TopicState { partitions, config: config.into_iter().collect() }))
    }

    async fn alter_topic(&mut self, topic: &str, entries: &BTreeMap<String, String>) -> Result<(), Error> {
        for (key, value) in entries {
            topic_config::check(key, value)
                .map_err(|problem| Error::refused(format!("INVALID_CONFIG: {key}: {problem}")))?;
        }
        let entries: Vec<(&str, Option<&str>)> =
            entries.iter().map(|(key, value)| (key.as_str(), Some(value.as_str()))).collect();
        self.client.alter_topic_config(topic, &entries).await?;
        Ok(())
    }
}

/// Bounds a call from outside as well: a port-forward can hang where no socket time limit reaches.
pub(super) async fn limited<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(LIMIT, call).await.unwrap_or(Err(Error::Timeout(LIMIT)))
}
