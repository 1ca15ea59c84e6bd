//! The topics of a cluster as its broker listed them: once for all who ask, and by itself only one that is new or changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::access::BrokerAddress;
use super::error::Error;
use super::fleet::{Brokers, Known, Said, of, retry};
use super::http;
use super::session::{Reply, Request, TopicState};
use super::token::Token;

/// A topic in a listing. `None`: it is there, and nothing more is known of it.
type Entry = Option<Arc<TopicState>>;

/// What a broker listed, and what was learned since. Its entries are as old as the listing, but for those that the
/// operator changed: they are taken out, and asked for again.
#[derive(Debug, Default)]
pub struct Listing(Mutex<Content>);

#[derive(Debug, Default)]
struct Content {
    topics: BTreeMap<String, Entry>,
    /// Most topics have one of a few configurations, and there may be thousands of topics.
    configs: BTreeSet<Arc<BTreeMap<String, String>>>,
}

impl Listing {
    /// A listing of these.
    pub(super) fn of(topics: impl IntoIterator<Item = (String, Option<TopicState>)>) -> Self {
        let listing = Self::default();
        {
            let mut content = listing.content();
            for (name, state) in topics {
                let entry = state.map(|state| content.shared(state));
                content.topics.insert(name, entry);
            }
        }
        listing
    }

    /// Whether a topic of this name is there.
    pub fn contains(&self, topic: &str) -> bool {
        self.content().topics.contains_key(topic)
    }

    /// The names of all topics.
    pub fn names(&self) -> BTreeSet<String> {
        self.content().topics.keys().cloned().collect()
    }

    /// What is known of a topic.
    pub fn state(&self, topic: &str) -> Entry {
        self.content().topics.get(topic).cloned().flatten()
    }

    /// A topic was asked for by itself.
    pub(super) fn learn(&self, topic: &str, state: Option<TopicState>) -> Entry {
        let mut content = self.content();
        let entry = state.map(|state| content.shared(state));
        match &entry {
            Some(_) => drop(content.topics.insert(topic.to_owned(), entry.clone())),
            None => drop(content.topics.remove(topic)),
        }
        entry
    }

    /// A topic was made: it is there, and how it is must be asked.
    pub(super) fn made(&self, topic: &str) {
        self.content().topics.insert(topic.to_owned(), None);
    }

    /// A topic was changed, or may have been: what was known of it does not count.
    pub(super) fn changed(&self, topic: &str) {
        if let Some(entry) = self.content().topics.get_mut(topic) {
            *entry = None;
        }
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn shared(&mut self, mut state: TopicState) -> Arc<TopicState> {
        match self.configs.get(&state.config) {
            Some(same) => state.config = Arc::clone(same),
            None => drop(self.configs.insert(Arc::clone(&state.config))),
        }
        Arc::new(state)
    }
}

impl Brokers {
    /// The topics, as they were listed for all who ask. `token`: of the admin API, without which a broker that runs alone
    /// tells less.
    pub async fn topics(
        &self,
        address: &BrokerAddress,
        incarnation: &str,
        replicates: bool,
        token: Option<&Token>,
    ) -> Result<Arc<Listing>, Error> {
        let known = self.known(address);
        let mut slot = known.topics.lock().await;
        let failures = match of(slot.as_ref(), incarnation) {
            Some(said) if said.at.elapsed() < said.counts_for => return said.answer.clone(),
            Some(said) => said.failures,
            None => 0,
        };
        let said = match self.list_topics(address, incarnation, &known, replicates, token).await {
            Ok(listing) => Said::new(incarnation, Ok(Arc::new(listing)), self.shared.listing_counts, 0),
            Err(error) => Said::new(incarnation, Err(error), retry(failures), failures + 1),
        };
        slot.insert(said).answer.clone()
    }

    async fn list_topics(
        &self,
        address: &BrokerAddress,
        incarnation: &str,
        known: &Known,
        replicates: bool,
        token: Option<&Token>,
    ) -> Result<Listing, Error> {
        if replicates {
            return match self.call(address, incarnation, known, &Request::DescribeTopics).await? {
                Reply::States(topics) => Ok(Listing::of(topics.into_iter().map(|(name, state)| (name, Some(state))))),
                _ => Err(Error::Protocol("an answer without topics".to_owned())),
            };
        }
        // A short cut and no condition: a broker may have none, or know another token than the Secret has by now.
        let shown = match token {
            Some(token) => self.timed("dashboard", http::dashboard(&self.shared.access, address, token)).await,
            None => Ok(None),
        };
        let Ok(Some(shown)) = shown else {
            // Then each topic is asked for by itself.
            return match self.call(address, incarnation, known, &Request::ListTopics).await? {
                Reply::Topics(topics) => Ok(Listing::of(topics.into_iter().map(|name| (name, None)))),
                _ => Err(Error::Protocol("an answer without topics".to_owned())),
            };
        };
        let names = shown.iter().map(|topic| topic.name.clone()).collect();
        let reply = self.call(address, incarnation, known, &Request::DescribeConfigs(names)).await?;
        let Reply::Configs(mut configs) = reply else {
            return Err(Error::Protocol("an answer without configurations".to_owned()));
        };
        Ok(Listing::of(shown.into_iter().map(|topic| {
            let state = configs.remove(&topic.name).map(|config| TopicState {
                partitions: topic.partitions,
                replication: None,
                in_sync: None,
                records: Some(topic.message_count),
                config: Arc::new(config),
            });
            (topic.name, state)
        })))
    }

    /// What the listing that counts says, if there is one: for changing it.
    async fn listed(&self, address: &BrokerAddress) -> Option<Arc<Listing>> {
        self.known(address).topics.lock().await.as_ref()?.answer.as_ref().ok().cloned()
    }

    /// How a topic is; `None` if there is none of the name. As it was listed, and one that is new since, or was changed,
    /// is asked for by itself.
    pub async fn describe_topic(
        &self,
        address: &BrokerAddress,
        incarnation: &str,
        topic: &str,
        replicates: bool,
        token: Option<&Token>,
    ) -> Result<Option<Arc<TopicState>>, Error> {
        let listing = self.topics(address, incarnation, replicates, token).await?;
        if let Some(state) = listing.state(topic) {
            return Ok(Some(state));
        }
        let request = Request::DescribeTopic(topic, replicates);
        match self.call(address, incarnation, &self.known(address), &request).await? {
            Reply::Topic(state) => Ok(listing.learn(topic, state)),
            _ => Err(Error::Protocol("an answer without a topic".to_owned())),
        }
    }

    pub(super) async fn made(&self, address: &BrokerAddress, topic: &str, outcome: &Result<(), Error>) {
        let Some(listing) = self.listed(address).await else { return };
        match outcome {
            Err(error) if !error.is_already_exists() => listing.changed(topic),
            _ => listing.made(topic),
        }
    }

    pub(super) async fn changed(&self, address: &BrokerAddress, topic: &str) {
        if let Some(listing) = self.listed(address).await {
            listing.changed(topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(retention: &str) -> TopicState {
        let config = Arc::new(BTreeMap::from([("retention.ms".to_owned(), retention.to_owned())]));
        TopicState { partitions: 1, replication: None, in_sync: None, records: None, config }
    }

    #[test]
    fn what_was_changed_is_there_and_not_known() {
        let listing = Listing::of([("a".to_owned(), Some(state("1"))), ("b".to_owned(), None)]);
        assert!(listing.state("a").is_some() && listing.state("b").is_none() && listing.contains("b"));
        listing.changed("a");
        listing.changed("c");
        assert!(listing.contains("a") && listing.state("a").is_none() && !listing.contains("c"));
        listing.made("c");
        assert_eq!(listing.names().len(), 3);
        assert!(listing.learn("a", None).is_none());
        assert!(!listing.contains("a"));
    }

    #[test]
    fn topics_of_one_configuration_share_it() {
        let listing = Listing::of([("a".to_owned(), Some(state("1"))), ("b".to_owned(), Some(state("1")))]);
        let c = listing.learn("c", Some(state("1"))).unwrap();
        assert!(Arc::ptr_eq(&c.config, &listing.state("a").unwrap().config));
        assert!(Arc::ptr_eq(&c.config, &listing.state("b").unwrap().config));
    }
}
