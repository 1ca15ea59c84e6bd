//! All brokers: what each said when it was last asked, and one admin session to each that is reused.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rivven_fsm::cluster::partitions::{ELSEWHERE, Partition};
use rivven_fsm::cluster::{Answer, Membership, Partitions};
use rivven_fsm::connect;
use rivven_protocol::TopicMetadata;
use serde_json::json;
use tokio::time::Instant;

use super::access::{Access, BrokerAddress};
use super::catalog::Listing;
use super::error::Error;
use super::http::{self, Member};
use super::session::{Reply, Request, Session, limited};
use super::token::Token;
use super::topic_config;
use super::worker::Workers;

/// How long an answer counts. Readiness is the kubelet's to watch and reaches the operator through the pod; the broker
/// itself is asked once after each start, and then this seldom, to notice one that is up and no longer well.
const ANSWER_COUNTS: Duration = Duration::from_mins(5);
/// How long an answer counts while something is going on: formation and restarts depend on it.
const RECENT: Duration = Duration::from_millis(400);
/// How soon a broker that did not answer is asked again, doubling up to the limit.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const RETRY_LIMIT: Duration = Duration::from_secs(30);
/// How long after an answer a connection is not taken for closed.
const SURELY_OPEN: Duration = Duration::from_secs(5);
/// How much of a broker's words is kept, in characters.
const WORDS_LIMIT: usize = 300;

/// Told of every call: operation, `ok` or the category of the error, and how long it took.
pub type CallObserver = Arc<dyn Fn(&'static str, &'static str, Duration) + Send + Sync>;

/// How old an answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Freshness {
    /// Nothing is going on that could change it, so an older one will do, as long as it told of no trouble.
    Settled,
    /// Something is going on.
    Recent,
    /// It must have been asked for now: a verdict stands on it.
    Now,
}

/// How a broker is asked.
pub struct Inquiry<'a> {
    /// How old the answer may be.
    pub freshness: Freshness,
    /// The token of the cluster that it should be in. `None`: it runs alone.
    pub token: Option<&'a Token>,
    /// Which broker of the cluster is reached at an address, if any.
    pub member: &'a (dyn Fn(&str) -> Option<u32> + Sync),
}

/// The brokers, by address. Cheap to clone.
#[derive(Clone)]
pub struct Brokers {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) access: Access,
    observer: CallObserver,
    pub(super) listing_counts: Duration,
    known: Mutex<HashMap<BrokerAddress, Arc<Known>>>,
    workers: Workers,
}

/// The locks are held while the broker is asked, so that many who want to know ask once.
#[derive(Default)]
pub(super) struct Known {
    itself: tokio::sync::Mutex<Option<Said<Answer>>>,
    partitions: tokio::sync::Mutex<Option<Said<Partitions>>>,
    pub(super) topics: tokio::sync::Mutex<Option<Said<Listed>>>,
    /// By group.
    lags: tokio::sync::Mutex<HashMap<Reader, Said<Option<u64>>>>,
    session: tokio::sync::Mutex<Option<Arc<Session>>>,
}

pub(super) type Listed = Result<Arc<Listing>, Error>;

/// What one start of a broker said.
pub(super) struct Said<T> {
    incarnation: String,
    pub(super) answer: T,
    pub(super) at: Instant,
    pub(super) counts_for: Duration,
    pub(super) failures: u32,
}

impl<T> Said<T> {
    pub(super) fn new(incarnation: &str, answer: T, counts_for: Duration, failures: u32) -> Self {
        Self { incarnation: incarnation.to_owned(), answer, at: Instant::now(), counts_for, failures }
    }

    /// What failed is not tried again before its back-off is over, whatever goes on.
    fn counts(&self, freshness: Freshness) -> bool {
        let age = self.at.elapsed();
        let fresh = match freshness {
            Freshness::Settled => true,
            Freshness::Recent => age < RECENT,
            Freshness::Now => false,
        };
        age < self.counts_for && (fresh || self.failures > 0)
    }
}

/// What this start of the broker said before, if anything.
pub(super) fn of<'a, T>(said: Option<&'a Said<T>>, incarnation: &str) -> Option<&'a Said<T>> {
    said.filter(|said| said.incarnation == incarnation)
}

impl Brokers {
    /// Brokers that are reached by `access`.
    pub fn new(access: Access) -> Self {
        Self::listing(access, Arc::new(|_, _, _| {}), ANSWER_COUNTS)
    }

    /// The same, with every call told to `observer`, for objects that are looked at again after `resync`: the first of them
    /// that is has the topics listed anew, and the others take what it was told.
    pub fn listing(access: Access, observer: CallObserver, resync: Duration) -> Self {
        // Less than the least that the resyncs of two objects are apart, and more than what lies between theirs.
        let listing_counts = resync.mul_f64(0.8);
        let (known, workers) = (Mutex::default(), Workers::default());
        Self { shared: Arc::new(Shared { access, observer, listing_counts, known, workers }) }
    }

    /// Takes answers as given, as if this start of the broker had just given them: for measuring without brokers.
    pub async fn assume(&self, address: &BrokerAddress, incarnation: &str, answer: Answer, partitions: Partitions) {
        let known = self.known(address);
        *known.itself.lock().await = Some(Said::new(incarnation, answer, ANSWER_COUNTS, 0));
        *known.partitions.lock().await = Some(Said::new(incarnation, partitions, ANSWER_COUNTS, 0));
    }

    /// What the broker says of itself: health, version, the cluster it is in, and whether it answers the client
    /// protocol. It is asked when this start of it was not asked yet, when the answer is old, or when it gave none and
    /// the back-off is over.
    pub async fn ask(&self, address: &BrokerAddress, incarnation: &str, inquiry: &Inquiry<'_>) -> Answer {
        let known = self.known(address);
        let mut slot = known.itself.lock().await;
        let failures = match of(slot.as_ref(), incarnation) {
            Some(said) if said.counts(inquiry.freshness) => return said.answer.clone(),
            Some(said) => said.failures,
            None => 0,
        };
        let said = match self.question(address, incarnation, &known, inquiry).await {
            Ok(answer @ Answer::Said { healthy: true, .. }) => Said::new(incarnation, answer, ANSWER_COUNTS, 0),
            // It answered that it is not well: that may pass any moment.
            Ok(answer) => Said::new(incarnation, answer, RECENT, 0),
            Err(error) => Said::new(incarnation, Answer::Silent { why: words(&error) }, retry(failures), failures + 1),
        };
        slot.insert(said).answer.clone()
    }

    /// What the broker's metadata says of all partitions. `ordinal` tells which broker a node id is.
    pub async fn partitions(
        &self,
        address: &BrokerAddress,
        incarnation: &str,
        freshness: Freshness,
        ordinal: impl Fn(&str) -> Option<u32>,
    ) -> Partitions {
        let known = self.known(address);
        let mut slot = known.partitions.lock().await;
        let failures = match of(slot.as_ref(), incarnation) {
            Some(said) if said.counts(freshness) => return said.answer.clone(),
            Some(said) => said.failures,
            None => 0,
        };
        let said = match self.call(address, incarnation, &known, &Request::DescribePartitions).await {
            Ok(Reply::Partitions(topics)) => {
                let all = topics.iter().flat_map(|(topic, minimum)| partitions_of(topic, *minimum, &ordinal)).collect();
                let partitions = Partitions::Known(all);
                let counts_for = if partitions.trouble().is_some() { RECENT } else { ANSWER_COUNTS };
                Said::new(incarnation, partitions, counts_for, 0)
            }
            Ok(_) => {
                let why = "an answer without partitions".to_owned();
                Said::new(incarnation, Partitions::Unknown { why }, retry(failures), failures + 1)
            }
            Err(error) => {
                Said::new(incarnation, Partitions::Unknown { why: words(&error) }, retry(failures), failures + 1)
            }
        };
        slot.insert(said).answer.clone()
    }

    /// How many records of these topics a group has yet to read, if that is known. As old as an answer may be: it changes
    /// with every record, and is told in a status.
    pub async fn lag(&self, address: &BrokerAddress, incarnation: &str, group: &str, topics: &[String]) -> Option<u64> {
        let known = self.known(address);
        let mut slots = known.lags.lock().await;
        slots.retain(|_, said| said.incarnation == incarnation && said.at.elapsed() < said.counts_for);
        let reader: Reader = (group.to_owned(), topics.to_vec());
        if let Some(said) = slots.get(&reader) {
            return said.answer;
        }
        let (lag, counts_for) = match self.call(address, incarnation, &known, &Request::Lag(group, topics)).await {
            Ok(Reply::Lag(lag)) => (lag, ANSWER_COUNTS),
            _ => (None, retry(0)),
        };
        slots.insert(reader, Said::new(incarnation, lag, counts_for, 0));
        lag
    }

    /// What the worker of a connect says of its connectors. It is asked when this start of it was not asked yet, or when
    /// the answer is old.
    pub async fn worker(&self, address: &BrokerAddress, worker: &str, incarnation: &str) -> connect::Answer {
        let ask = || self.timed("worker_health", http::worker_health(&self.shared.access, address));
        self.shared.workers.ask(&address.namespace, worker, incarnation, ask).await
    }

    /// Forgets the workers of a connect.
    pub fn forget_workers(&self, namespace: &str, is_one: impl Fn(&str) -> bool) {
        self.shared.workers.forget(namespace, is_one);
    }

    async fn question(
        &self,
        address: &BrokerAddress,
        incarnation: &str,
        known: &Known,
        inquiry: &Inquiry<'_>,
    ) -> Result<Answer, Error> {
        let access = &self.shared.access;
        let (health, version) = tokio::try_join!(
            self.timed("health", http::health(access, address)),
            self.timed("version", http::version(access, address))
        )?;
        // The process stays alive and healthy without a client port (observed on 0.0.22): only an answer counts.
        self.call(address, incarnation, known, &Request::Ping).await?;
        let mut healthy = health.ok;
        let membership = match inquiry.token {
            None => Membership::Alone,
            Some(token) => {
                if health.leader {
                    healthy &= self.timed("linearizable", http::reads_linearizably(access, address, token)).await?;
                }
                let nodes = self.timed("membership", http::membership(access, address, token)).await?;
                membership(&nodes, inquiry.member)
            }
        };
        Ok(Answer::Said { healthy, version, node_id: health.node_id, leader: health.leader, membership })
    }

    /// Tells a broker who the first members of its cluster are.
    pub async fn bootstrap(&self, address: &BrokerAddress, token: &Token, members: &[Member]) -> Result<(), Error> {
        let outcome = self.timed("bootstrap", http::bootstrap(&self.shared.access, address, token, members)).await;
        // What it said before the call says nothing any more, whether the call took effect or its reply was lost.
        *self.known(address).itself.lock().await = None;
        outcome
    }

    /// Tells the controller's leader, at `leader`, of a broker that is to learn what the others know.
    pub async fn add_learner(&self, leader: &BrokerAddress, token: &Token, member: &Member) -> Result<(), Error> {
        self.timed("add_learner", http::add_learner(&self.shared.access, leader, token, member)).await
    }

    /// Tells the controller's leader, at `leader`, who the voters are, by node id.
    pub async fn change_voters(&self, leader: &BrokerAddress, token: &Token, voters: &[String]) -> Result<(), Error> {
        self.timed("change_membership", http::change_membership(&self.shared.access, leader, token, voters)).await
    }

    /// Has the controller's leader, at `leader`, hand over to the node `to`.
    pub async fn transfer_controller(&self, leader: &BrokerAddress, token: &Token, to: &str) -> Result<(), Error> {
        self.timed("transfer_leadership", http::transfer_leadership(&self.shared.access, leader, token, to)).await
    }

    /// Sets the replicas of a partition, by node id, at the controller's leader.
    pub async fn reassign(
        &self,
        leader: &BrokerAddress,
        token: &Token,
        (topic, partition): (&str, u32),
        replicas: &[String],
    ) -> Result<(), Error> {
        let partition = json!({ "topic": topic, "partition": partition });
        let command = json!({ "ReassignPartition": { "partition": partition, "replicas": replicas } });
        self.timed("reassign", http::propose(&self.shared.access, leader, token, &command)).await
    }

    /// Gives a partition another leader, the node `to`, at the controller's leader.
    ///
    /// The request wants an epoch newer than the partition's, which no released call tells. Milliseconds since 1970 are
    /// newer than what brokers count by themselves, and than what was given before.
    pub async fn elect_leader(
        &self,
        leader: &BrokerAddress,
        token: &Token,
        (topic, partition): (&str, u32),
        to: &str,
    ) -> Result<(), Error> {
        let command = json!({ "UpdatePartitionLeader": {
            "partition": { "topic": topic, "partition": partition },
            "leader": to,
            "epoch": chrono::Utc::now().timestamp_millis(),
        } });
        self.timed("elect_leader", http::propose(&self.shared.access, leader, token, &command)).await
    }

    /// Forgets what the brokers said of their cluster and of their partitions: it was just changed, or may have been.
    pub async fn ask_anew(&self, addresses: impl Iterator<Item = &BrokerAddress>) {
        for address in addresses {
            let known = self.known(address);
            *known.itself.lock().await = None;
            *known.partitions.lock().await = None;
            *known.topics.lock().await = None;
        }
    }

    /// Creates a topic.
    pub async fn create_topic(
        &self,
        address: &BrokerAddress,
        incarnation: &str,
        topic: &str,
        partitions: u32,
    ) -> Result<(), Error> {
        let request = Request::CreateTopic(topic, partitions);
        let outcome = self.call(address, incarnation, &self.known(address), &request).await.map(drop);
        self.made(address, topic, &outcome).await;
        outcome
    }

    /// Creates a topic whose partitions have their replicas where `assignments` says, by node id, the leader first. Only
    /// the controller's leader takes it.
    pub async fn create_replicated_topic(
        &self,
        address: &BrokerAddress,
        token: &Token,
        topic: &str,
        min_in_sync: u32,
        assignments: &[Vec<String>],
    ) -> Result<(), Error> {
        let command = json!({ "CreateTopic": {
            "config": {
                "name": topic,
                "partitions": assignments.len(),
                "replication_factor": assignments.first().map_or(0, Vec::len),
                "retention_ms": topic_config::DEFAULT_RETENTION_MS,
                "segment_bytes": topic_config::DEFAULT_SEGMENT_BYTES,
                "min_isr": min_in_sync,
                "config": {},
            },
            "partition_assignments": assignments,
        } });
        let outcome = self.timed("create_topic", http::propose(&self.shared.access, address, token, &command)).await;
        self.made(address, topic, &outcome).await;
        outcome
    }

    /// What the broker said when it was last asked, if this start of it was asked.
    pub async fn said(&self, address: &BrokerAddress, incarnation: &str) -> Option<Answer> {
        of(self.known(address).itself.lock().await.as_ref(), incarnation).map(|said| said.answer.clone())
    }

    /// Adds partitions up to `partitions`.
    pub async fn grow_topic(
        &self,
        address: &BrokerAddress,
        incarnation: &str,
        topic: &str,
        partitions: u32,
    ) -> Result<(), Error> {
        let outcome = self
            .call(address, incarnation, &self.known(address), &Request::GrowTopic(topic, partitions))
            .await
            .map(drop);
        self.changed(address, topic).await;
        outcome
    }

    /// Alters the configuration of a topic.
    pub async fn alter_topic(
        &self,
        address: &BrokerAddress,
        incarnation: &str,
        topic: &str,
        entries: &BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let outcome =
            self.call(address, incarnation, &self.known(address), &Request::AlterTopic(topic, entries)).await.map(drop);
        self.changed(address, topic).await;
        outcome
    }

    /// Deletes a topic.
    pub async fn delete_topic(&self, address: &BrokerAddress, incarnation: &str, topic: &str) -> Result<(), Error> {
        let outcome =
            self.call(address, incarnation, &self.known(address), &Request::DeleteTopic(topic)).await.map(drop);
        self.changed(address, topic).await;
        outcome
    }

    /// Forgets the brokers of a namespace whose pods are `gone`, and closes the sessions with them.
    pub fn forget(&self, namespace: &str, gone: impl Fn(&str) -> bool) {
        let mut known = self.shared.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|address, _| address.namespace != namespace || !gone(&address.pod));
    }

    pub(super) fn known(&self, address: &BrokerAddress) -> Arc<Known> {
        let mut known = self.shared.known.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(address.clone()).or_default())
    }

    /// Runs one call on the broker's session, connecting first where there is none.
    ///
    /// The broker closes a connection that was idle for 120 s, which shows only at the next call. A read is then sent
    /// again on a new connection; a write never is, for its reply may have been lost after its effect.
    pub(super) async fn call(
        &self,
        address: &BrokerAddress,
        incarnation: &str,
        known: &Known,
        request: &Request<'_>,
    ) -> Result<Reply, Error> {
        let (mut session, mut reused) = self.session(address, incarnation, known).await?;
        // A write must not be what finds the connection closed: it is tried with a ping first.
        if reused
            && !request.is_read()
            && session.idle() > SURELY_OPEN
            && limited(session.send(&Request::Ping)).await.is_err()
        {
            close(known, &session).await;
            (session, reused) = self.session(address, incarnation, known).await?;
        }
        let outcome = self.timed(request.operation(), limited(session.send(request))).await;
        if !outcome.as_ref().is_err_and(Error::breaks_session) {
            return outcome;
        }
        close(known, &session).await;
        if !(reused && request.is_read()) {
            return outcome;
        }
        let (session, _) = self.session(address, incarnation, known).await?;
        let outcome = self.timed(request.operation(), limited(session.send(request))).await;
        if outcome.as_ref().is_err_and(Error::breaks_session) {
            close(known, &session).await;
        }
        outcome
    }

    /// The session with this start of the broker, which all share, and whether it was there before.
    async fn session(
        &self,
        address: &BrokerAddress,
        incarnation: &str,
        known: &Known,
    ) -> Result<(Arc<Session>, bool), Error> {
        let mut slot = known.session.lock().await;
        if let Some(session) = slot.as_ref().filter(|s| s.incarnation == incarnation && !s.is_broken()) {
            return Ok((Arc::clone(session), true));
        }
        *slot = None;
        let connecting = limited(Session::connect(&self.shared.access, address, incarnation));
        let session = Arc::new(self.timed("connect", connecting).await?);
        Ok((Arc::clone(slot.insert(session)), false))
    }

    pub(super) async fn timed<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let began = Instant::now();
        let outcome = call.await;
        (self.shared.observer)(operation, outcome.as_ref().map_or_else(Error::category, |_| "ok"), began.elapsed());
        outcome
    }
}

/// Closes a session that failed, unless another took its place meanwhile.
async fn close(known: &Known, failed: &Arc<Session>) {
    let mut slot = known.session.lock().await;
    if slot.as_ref().is_some_and(|session| Arc::ptr_eq(session, failed)) {
        *slot = None;
    }
}

fn words(error: &Error) -> String {
    error.to_string().chars().take(WORDS_LIMIT).collect()
}

fn membership(nodes: &[http::Node], member: &(dyn Fn(&str) -> Option<u32> + Sync)) -> Membership {
    if nodes.is_empty() {
        return Membership::Unknown;
    }
    let (mut voters, mut learners) = (BTreeSet::new(), BTreeSet::new());
    let mut foreign = Vec::new();
    for node in nodes {
        match member(&node.addr) {
            Some(ordinal) if node.is_voter => drop(voters.insert(ordinal)),
            Some(ordinal) => drop(learners.insert(ordinal)),
            None => foreign.push(node.addr.clone()),
        }
    }
    Membership::Of { voters, learners, foreign }
}

fn partitions_of(
    topic: &TopicMetadata,
    min_in_sync: u32,
    ordinal: &impl Fn(&str) -> Option<u32>,
) -> impl Iterator<Item = Partition> {
    let name: Arc<str> = topic.name.as_str().into();
    let broker = |node: &String| ordinal(node).unwrap_or(ELSEWHERE);
    topic.partitions.iter().map(move |partition| {
        // In the order that the broker has them, each once: its first that is in sync is whom it would have lead.
        let mut seen = BTreeSet::new();
        let replicas: Vec<&String> = partition.replicas.iter().filter(|node| seen.insert(*node)).collect();
        let in_sync = replicas.iter().filter(|node| partition.isr.contains(node)).map(|node| broker(node)).collect();
        Partition {
            topic: Arc::clone(&name),
            id: partition.partition,
            leader: partition.leader.as_ref().filter(|_| !partition.offline).map(broker),
            replicas: replicas.into_iter().map(broker).collect(),
            in_sync,
            min_in_sync,
        }
    })
}

pub(super) fn retry(failures: u32) -> Duration {
    FIRST_RETRY.saturating_mul(1 << failures.min(6)).min(RETRY_LIMIT)
}

/// A group, and the topics that one of its members reads: members of one group may read different ones.
type Reader = (String, Vec<String>);
