//! The topics of a cluster as its broker listed them: once for all who ask, and by itself only one that is new or changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::session::TopicState;

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
