//! One admin session with one broker: the broker's own protocol, many requests on their way at once.
//!
//! The requests and answers are the published `rivven-protocol`'s. The published client is not used: it has no way to
//! ask for the cluster's metadata (its pipelined client frames requests as no broker reads them, observed on 0.0.22),
//! and it dials by itself, where the operator may have to go through the API server.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rivven_protocol::{
    MAX_MESSAGE_SIZE, PROTOCOL_VERSION, PartitionMetadata, Request as Wire, Response, TopicConfigEntry, TopicMetadata,
    WireFormat,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::access::{Access, BrokerAddress, Stream};
use super::error::Error;
use super::topic_config;

/// How long a call may take. A synchronous call costs about 44 ms on the released broker.
pub(super) const LIMIT: Duration = Duration::from_secs(5);
/// How the operator names itself to a broker.
const CLIENT_ID: &str = "rivven-operator";
/// How many topics are asked about at once: the protocol's limit is 10 000 in a list and 10 MiB in an answer.
const TOPICS_AT_ONCE: usize = 1_000;
/// How many requests may wait to be written.
const UNDER_WAY: usize = 64;

/// What a broker says of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicState {
    /// Number of partitions.
    pub partitions: u32,
    /// The least number of replicas that a partition has, where brokers replicate.
    pub replication: Option<u32>,
    /// The least number of replicas in sync that a partition has, where brokers replicate.
    pub in_sync: Option<u32>,
    /// How many records it holds, where the broker told it.
    pub records: Option<u64>,
    /// Configuration, with the broker's keys.
    pub config: Arc<BTreeMap<String, String>>,
}

/// Configurations by topic.
pub(super) type Configs = BTreeMap<String, BTreeMap<String, String>>;

/// What may be asked of a broker.
pub(super) enum Request<'a> {
    Ping,
    /// The topic, and whether its replicas are asked for.
    DescribeTopic(&'a str, bool),
    DescribePartitions,
    ListTopics,
    /// These topics' configurations.
    DescribeConfigs(Vec<String>),
    /// All topics, where brokers replicate.
    DescribeTopics,
    /// The group, and the topics of which it is asked how far it is behind.
    Lag(&'a str, &'a [String]),
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
            Self::DescribeTopic(..) => "describe_topic",
            Self::DescribePartitions => "describe_partitions",
            Self::ListTopics | Self::DescribeTopics => "list_topics",
            Self::DescribeConfigs(_) => "describe_configs",
            Self::Lag(..) => "group_lag",
            Self::CreateTopic(..) => "create_topic",
            Self::GrowTopic(..) => "create_partitions",
            Self::AlterTopic(..) => "alter_topic_config",
            Self::DeleteTopic(_) => "delete_topic",
        }
    }

    /// Whether sending it twice is sending it once.
    pub(super) const fn is_read(&self) -> bool {
        matches!(
            self,
            Self::Ping
                | Self::DescribeTopic(..)
                | Self::DescribePartitions
                | Self::ListTopics
                | Self::DescribeConfigs(_)
                | Self::DescribeTopics
                | Self::Lag(..)
        )
    }
}

/// What a broker answers.
pub(super) enum Reply {
    Done,
    Topic(Option<TopicState>),
    /// The names of all topics.
    Topics(Vec<String>),
    /// Topics by name.
    States(Vec<(String, TopicState)>),
    Configs(Configs),
    /// How many records a group has yet to read, if it ever committed.
    Lag(Option<u64>),
    /// Each topic with its `min.insync.replicas`.
    Partitions(Vec<(TopicMetadata, u32)>),
}

/// A connection on which many requests are under way at once: the broker answers in the order in which it was asked, so
/// that nobody waits for another's answer before asking. On the released broker an answer that is waited for takes 44 ms.
pub(super) struct Session {
    questions: mpsc::Sender<Question>,
    correlation: AtomicU32,
    last_answer: Mutex<Instant>,
    /// Which start of the broker it is connected to.
    pub(super) incarnation: String,
}

/// A request on its way, and who waits for the answer.
struct Question {
    correlation: u32,
    frame: Vec<u8>,
    asker: oneshot::Sender<Result<Response, Error>>,
}

impl Session {
    pub(super) async fn connect(access: &Access, address: &BrokerAddress, incarnation: &str) -> Result<Self, Error> {
        let stream = access.open(address, address.client_port).await?;
        Self::over(stream, incarnation).await
    }

    async fn over(stream: Box<dyn Stream>, incarnation: &str) -> Result<Self, Error> {
        let (questions, asked) = mpsc::channel(UNDER_WAY);
        // It ends with the stream, or when the session is dropped.
        tokio::spawn(serve(stream, asked));
        let session = Self {
            questions,
            correlation: AtomicU32::new(0),
            last_answer: Mutex::new(Instant::now()),
            incarnation: incarnation.to_owned(),
        };
        let hello = Wire::Handshake { protocol_version: PROTOCOL_VERSION, client_id: CLIENT_ID.to_owned() };
        match session.exchange(hello).await? {
            Response::HandshakeResult { compatible: true, .. } => Ok(session),
            Response::HandshakeResult { server_version, message, .. } => Err(Error::Protocol(format!(
                "the broker speaks protocol version {server_version}, the operator {PROTOCOL_VERSION}: {message}"
            ))),
            other => Err(unexpected("handshake", &other)),
        }
    }

    pub(super) fn is_broken(&self) -> bool {
        self.questions.is_closed()
    }

    /// How long ago the broker answered.
    pub(super) fn idle(&self) -> Duration {
        self.last_answer.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Sends one request.
    pub(super) async fn send(&self, request: &Request<'_>) -> Result<Reply, Error> {
        let (wire, expected): (Wire, fn(&Response) -> bool) = match *request {
            Request::DescribeConfigs(ref topics) => return self.describe_configs(topics).await.map(Reply::Configs),
            Request::DescribeTopics => return self.describe_topics().await.map(Reply::States),
            Request::DescribeTopic(topic, replicas) => {
                return self.describe_topic(topic, replicas).await.map(Reply::Topic);
            }
            Request::DescribePartitions => return self.describe_partitions().await.map(Reply::Partitions),
            Request::Lag(group, topics) => return self.lag(group, topics).await.map(Reply::Lag),
            Request::ListTopics => {
                return match self.exchange(Wire::ListTopics).await? {
                    Response::Topics { topics } => Ok(Reply::Topics(topics)),
                    other => Err(unexpected("list_topics", &other)),
                };
            }
            Request::Ping => (Wire::Ping, |answer| matches!(answer, Response::Pong)),
            Request::CreateTopic(topic, partitions) => {
                (Wire::CreateTopic { name: topic.to_owned(), partitions: Some(partitions) }, |answer| {
                    matches!(answer, Response::TopicCreated { .. })
                })
            }
            Request::GrowTopic(topic, partitions) => (
                Wire::CreatePartitions {
                    topic: topic.to_owned(),
                    new_partition_count: partitions,
                    assignments: Vec::new(),
                },
                |answer| matches!(answer, Response::PartitionsCreated { .. }),
            ),
            Request::AlterTopic(topic, entries) => {
                (alter_topic(topic, entries)?, |answer| matches!(answer, Response::TopicConfigAltered { .. }))
            }
            Request::DeleteTopic(topic) => {
                (Wire::DeleteTopic { name: topic.to_owned() }, |answer| matches!(answer, Response::TopicDeleted))
            }
        };
        let answer = self.exchange(wire).await?;
        if expected(&answer) { Ok(Reply::Done) } else { Err(unexpected(request.operation(), &answer)) }
    }

    /// `None`: there is no such topic. Its configuration is asked for at the same time, and counts only if there is one: for
    /// an unknown topic the broker answers with defaults and no error (observed on 0.0.22).
    async fn describe_topic(&self, topic: &str, replicas: bool) -> Result<Option<TopicState>, Error> {
        let name = [topic.to_owned()];
        let (metadata, configs) =
            tokio::join!(self.exchange(Wire::GetMetadata { topic: topic.to_owned() }), self.describe_configs(&name));
        let partitions = match metadata {
            Ok(Response::Metadata { partitions, .. }) => partitions,
            Ok(other) => return Err(unexpected("metadata", &other)),
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let config = configs?
            .remove(topic)
            .ok_or_else(|| Error::Protocol(format!("the configuration of {topic} is missing in the answer")))?;
        if replicas {
            let topics = self.metadata(vec![topic.to_owned()]).await?;
            let found = topics.into_iter().find(|found| found.name == topic);
            return Ok(Some(match found {
                Some(found) => TopicState { partitions, ..state_of(&found, config) },
                None => {
                    TopicState { partitions, replication: None, in_sync: None, records: None, config: config.into() }
                }
            }));
        }
        Ok(Some(TopicState { partitions, replication: None, in_sync: None, records: None, config: config.into() }))
    }

    async fn describe_topics(&self) -> Result<Vec<(String, TopicState)>, Error> {
        let topics = self.metadata(Vec::new()).await?;
        let mut configs = self.describe_configs(&names_of(&topics)).await?;
        let state = |topic: TopicMetadata| {
            let config = configs
                .remove(&topic.name)
                .ok_or_else(|| Error::Protocol(format!("the configuration of {} is missing", topic.name)))?;
            let state = state_of(&topic, config);
            Ok((topic.name, state))
        };
        topics.into_iter().map(state).collect()
    }

    /// By the offsets that the group committed: of a partition without one nobody knows where reading began.
    async fn lag(&self, group: &str, topics: &[String]) -> Result<Option<u64>, Error> {
        let described = self.exchange(Wire::DescribeGroup { consumer_group: group.to_owned() }).await;
        let mut offsets = match described {
            Ok(Response::GroupDescription { offsets, .. }) => offsets,
            Ok(other) => return Err(unexpected("describe_group", &other)),
            Err(Error::Refused { words, .. }) if words.starts_with("Consumer group") => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut lag = None;
        for topic in topics {
            for (partition, committed) in offsets.remove(topic).into_iter().flatten() {
                match self.exchange(Wire::GetOffsetBounds { topic: topic.clone(), partition }).await? {
                    Response::OffsetBounds { latest, .. } => {
                        *lag.get_or_insert(0) += latest.saturating_sub(committed);
                    }
                    other => return Err(unexpected("offset_bounds", &other)),
                }
            }
        }
        Ok(lag)
    }

    async fn metadata(&self, topics: Vec<String>) -> Result<Vec<TopicMetadata>, Error> {
        match self.exchange(Wire::GetClusterMetadata { topics }).await? {
            Response::ClusterMetadata { topics, .. } => Ok(topics),
            other => Err(unexpected("cluster metadata", &other)),
        }
    }

    async fn describe_partitions(&self) -> Result<Vec<(TopicMetadata, u32)>, Error> {
        let topics = self.metadata(Vec::new()).await?;
        let configs = self.describe_configs(&names_of(&topics)).await?;
        let with_minimum = |topic: TopicMetadata| {
            let minimum = configs.get(&topic.name).and_then(|config| config.get(topic_config::MIN_INSYNC_REPLICAS));
            match minimum.and_then(|value| value.parse().ok()) {
                Some(minimum) => Ok((topic, minimum)),
                None => {
                    Err(Error::Protocol(format!("{} of {} is missing", topic_config::MIN_INSYNC_REPLICAS, topic.name)))
                }
            }
        };
        topics.into_iter().map(with_minimum).collect()
    }

    async fn describe_configs(&self, topics: &[String]) -> Result<Configs, Error> {
        let mut all = Configs::new();
        for topics in topics.chunks(TOPICS_AT_ONCE) {
            match self.exchange(Wire::DescribeTopicConfigs { topics: topics.to_vec() }).await? {
                Response::TopicConfigsDescribed { configs } => all.extend(configs.into_iter().map(|described| {
                    let values = described.configs.into_iter().map(|(key, entry)| (key, entry.value));
                    (described.topic, values.collect())
                })),
                other => return Err(unexpected("topic configurations", &other)),
            }
        }
        Ok(all)
    }

    /// One frame there and one back: length, format, correlation id, body.
    async fn exchange(&self, request: Wire) -> Result<Response, Error> {
        let correlation = self.correlation.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let body = request.to_wire(WireFormat::Postcard, correlation).map_err(senseless)?;
        let length = u32::try_from(body.len()).map_err(|error| Error::Protocol(error.to_string()))?;
        let mut frame = Vec::with_capacity(body.len() + 4);
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(&body);
        let (asker, answer) = oneshot::channel();
        let closed = || Error::Unreachable("the broker closed the connection".to_owned());
        self.questions.send(Question { correlation, frame, asker }).await.map_err(|_| closed())?;
        let answer = answer.await.map_err(|_| closed())??;
        *self.last_answer.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        match answer {
            Response::Error { message } => Err(Error::refused(message)),
            Response::Throttled { throttle_time_ms, quota_type, entity } => {
                Err(Error::throttled(Duration::from_millis(throttle_time_ms), &format!("{quota_type} of {entity}")))
            }
            answer => Ok(answer),
        }
    }
}

fn names_of(topics: &[TopicMetadata]) -> Vec<String> {
    topics.iter().map(|topic| topic.name.clone()).collect()
}

fn state_of(topic: &TopicMetadata, config: BTreeMap<String, String>) -> TopicState {
    let least = |count: fn(&PartitionMetadata) -> usize| {
        let counts = topic.partitions.iter().map(|partition| u32::try_from(count(partition)).unwrap_or(u32::MAX));
        counts.min()
    };
    TopicState {
        partitions: u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX),
        replication: least(|partition| partition.replicas.len()),
        in_sync: least(|partition| partition.isr.len()),
        records: None,
        config: Arc::new(config),
    }
}

/// Those who wait for an answer, in the order in which they asked.
type Askers = Mutex<VecDeque<(u32, oneshot::Sender<Result<Response, Error>>)>>;

/// Carries questions and answers until one of the two ends. Who still waits then is told.
async fn serve(stream: Box<dyn Stream>, asked: mpsc::Receiver<Question>) {
    let (reader, writer) = tokio::io::split(stream);
    let askers = Askers::default();
    let end = tokio::select! {
        end = ask(writer, asked, &askers) => end,
        end = answer(reader, &askers) => end,
    };
    if let Err(error) = end {
        let waiting = std::mem::take(&mut *askers.lock().unwrap_or_else(PoisonError::into_inner));
        for (_, asker) in waiting {
            // Who gave up does not want to know.
            let _ = asker.send(Err(error.clone()));
        }
    }
}

async fn ask(
    mut writer: WriteHalf<Box<dyn Stream>>,
    mut asked: mpsc::Receiver<Question>,
    askers: &Askers,
) -> Result<(), Error> {
    let mut together = Vec::with_capacity(UNDER_WAY);
    while asked.recv_many(&mut together, UNDER_WAY).await > 0 {
        let mut frames = Vec::new();
        {
            let mut askers = askers.lock().unwrap_or_else(PoisonError::into_inner);
            for question in together.drain(..) {
                frames.extend_from_slice(&question.frame);
                askers.push_back((question.correlation, question.asker));
            }
        }
        writer.write_all(&frames).await.map_err(lost)?;
        writer.flush().await.map_err(lost)?;
    }
    Ok(())
}

async fn answer(reader: ReadHalf<Box<dyn Stream>>, askers: &Askers) -> Result<(), Error> {
    let mut reader = BufReader::new(reader);
    loop {
        let length = reader.read_u32().await.map_err(lost)? as usize;
        if length > MAX_MESSAGE_SIZE {
            return Err(Error::Protocol(format!("an answer of {length} bytes")));
        }
        let mut answer = vec![0; length];
        reader.read_exact(&mut answer).await.map_err(lost)?;
        let (answer, _, correlation) = Response::from_wire(&answer).map_err(senseless)?;
        {
            let mut askers = askers.lock().unwrap_or_else(PoisonError::into_inner);
            if askers.front().is_none_or(|(asked, _)| *asked != correlation) {
                return Err(Error::Protocol("an answer to another request".to_owned()));
            }
            if let Some((_, asker)) = askers.pop_front() {
                // Who gave up waiting is not there any more; its answer is read all the same, as others follow it.
                let _ = asker.send(Ok(answer));
            }
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the signature of what maps errors")]
fn senseless(error: rivven_protocol::ProtocolError) -> Error {
    Error::Protocol(error.to_string())
}

#[allow(clippy::needless_pass_by_value, reason = "the signature of what maps errors")]
fn lost(error: std::io::Error) -> Error {
    Error::Unreachable(error.to_string())
}

/// The request, if every key and value is one the broker takes: it stops at the first that is not, and what came before
/// stays applied (observed on 0.0.22).
fn alter_topic(topic: &str, entries: &BTreeMap<String, String>) -> Result<Wire, Error> {
    for (key, value) in entries {
        topic_config::check(key, value)
            .map_err(|problem| Error::refused(format!("INVALID_CONFIG: {key}: {problem}")))?;
    }
    let entry = |(key, value): (&String, &String)| TopicConfigEntry { key: key.clone(), value: Some(value.clone()) };
    Ok(Wire::AlterTopicConfig { topic: topic.to_owned(), configs: entries.iter().map(entry).collect() })
}

/// The answer itself is not shown: it may carry records.
fn unexpected(asked: &str, _: &Response) -> Error {
    Error::Protocol(format!("an answer to {asked} of another kind"))
}

/// Bounds a call from outside as well: a port-forward can hang where no socket time limit reaches.
pub(super) async fn limited<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(LIMIT, call).await.unwrap_or(Err(Error::Timeout(LIMIT)))
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    /// Reads one request and answers it: `answer` is given what was asked.
    async fn serve(broker: &mut DuplexStream, shift: u32, answer: impl FnOnce(Wire) -> Response) {
        let length = broker.read_u32().await.unwrap() as usize;
        let mut frame = vec![0; length];
        broker.read_exact(&mut frame).await.unwrap();
        let (request, format, correlation) = Wire::from_wire(&frame).unwrap();
        let reply = answer(request).to_wire(format, correlation + shift).unwrap();
        broker.write_u32(u32::try_from(reply.len()).unwrap()).await.unwrap();
        broker.write_all(&reply).await.unwrap();
    }

    fn greet(compatible: bool) -> impl FnOnce(Wire) -> Response {
        move |request| {
            assert!(matches!(request, Wire::Handshake { protocol_version: PROTOCOL_VERSION, .. }));
            Response::HandshakeResult { server_version: 2, compatible, message: "hello".to_owned() }
        }
    }

    async fn session() -> (Session, DuplexStream) {
        let (near, mut far) = tokio::io::duplex(1024);
        let (session, ()) = tokio::join!(Session::over(Box::new(near), "c-1"), serve(&mut far, 0, greet(true)));
        (session.unwrap(), far)
    }

    #[tokio::test]
    async fn a_broker_of_another_protocol_is_refused() {
        let (near, mut far) = tokio::io::duplex(1024);
        let (session, ()) = tokio::join!(Session::over(Box::new(near), "c-1"), serve(&mut far, 0, greet(false)));
        assert!(matches!(session.err(), Some(Error::Protocol(_))));
    }

    #[tokio::test]
    async fn refusals_are_classified_and_leave_the_session_whole() {
        let (session, mut broker) = session().await;
        let words = Response::Error { message: "Topic 'orders' already exists".to_owned() };
        let request = Request::CreateTopic("orders", 3);
        let (outcome, ()) = tokio::join!(session.send(&request), serve(&mut broker, 0, |_| words));
        assert!(outcome.err().unwrap().is_already_exists());
        let throttled = Response::Throttled {
            throttle_time_ms: 100,
            quota_type: "request_rate".to_owned(),
            entity: "default".to_owned(),
        };
        let (outcome, ()) = tokio::join!(session.send(&Request::Ping), serve(&mut broker, 0, |_| throttled));
        assert_eq!(outcome.err().unwrap().category(), "overloaded");
        assert!(!session.is_broken());
    }

    #[tokio::test]
    async fn an_answer_of_another_kind_is_no_success() {
        let (session, mut broker) = session().await;
        let request = Request::DeleteTopic("orders");
        let (outcome, ()) = tokio::join!(session.send(&request), serve(&mut broker, 0, |_| Response::Pong));
        assert!(matches!(outcome.err(), Some(Error::Protocol(_))));
    }

    #[tokio::test]
    async fn an_answer_to_another_request_breaks_the_session() {
        let (session, mut broker) = session().await;
        let (outcome, ()) = tokio::join!(session.send(&Request::Ping), serve(&mut broker, 7, |_| Response::Pong));
        assert!(outcome.err().unwrap().breaks_session() && session.is_broken());
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_to_a_call_that_was_given_up_is_nobody_elses() {
        let (session, mut broker) = session().await;
        let outcome = limited(session.send(&Request::Ping)).await;
        assert_eq!(outcome.err(), Some(Error::Timeout(LIMIT)));
        let words = Response::Error { message: "Topic not found: late".to_owned() };
        let answers = async {
            serve(&mut broker, 0, |_| words).await;
            serve(&mut broker, 0, |_| Response::Pong).await;
        };
        let (outcome, ()) = tokio::join!(session.send(&Request::Ping), answers);
        assert!(matches!(outcome, Ok(Reply::Done)));
    }

    #[tokio::test]
    async fn many_ask_at_once_and_each_gets_its_own_answer() {
        let (session, mut broker) = session().await;
        let answers = async {
            for _ in 0..3 {
                serve(&mut broker, 0, |request| match request {
                    Wire::Ping => Response::Pong,
                    _ => Response::TopicDeleted,
                })
                .await;
            }
        };
        let (delete, ping) = (Request::DeleteTopic("orders"), Request::Ping);
        let (first, second, third, ()) =
            tokio::join!(session.send(&ping), session.send(&delete), session.send(&ping), answers);
        assert!([first, second, third].iter().all(|outcome| matches!(outcome, Ok(Reply::Done))));
    }

    #[tokio::test]
    async fn whoever_waits_is_told_when_the_broker_goes() {
        let (session, broker) = session().await;
        let gone = async { drop(broker) };
        let (outcome, ()) = tokio::join!(session.send(&Request::Ping), gone);
        assert_eq!(outcome.err().unwrap().category(), "unreachable");
        assert!(session.is_broken());
    }

    #[tokio::test]
    async fn the_configuration_of_an_unknown_topic_does_not_count() {
        let (session, mut broker) = session().await;
        let words = Response::Error { message: "Topic not found: orders".to_owned() };
        let answers = async {
            serve(&mut broker, 0, |_| words).await;
            serve(&mut broker, 0, |_| Response::TopicConfigsDescribed { configs: Vec::new() }).await;
        };
        let request = Request::DescribeTopic("orders", false);
        let (outcome, ()) = tokio::join!(session.send(&request), answers);
        assert!(matches!(outcome, Ok(Reply::Topic(None))));
    }

    #[tokio::test]
    async fn nothing_is_sent_of_a_configuration_that_is_wrong_in_one_key() {
        let (session, broker) = session().await;
        drop(broker);
        let entries = BTreeMap::from([("retention.ms".to_owned(), "1".to_owned()), ("x".to_owned(), "1".to_owned())]);
        let outcome = session.send(&Request::AlterTopic("orders", &entries)).await;
        assert_eq!(outcome.err().unwrap().category(), "invalid");
    }
}
