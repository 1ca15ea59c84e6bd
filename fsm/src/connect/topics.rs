//! Which topics connectors need: which are there, which are made for them, and which cannot be.

use std::collections::{BTreeMap, BTreeSet};

use super::observation::NewTopic;
use crate::guard::Refusal;
use crate::reason::Reason;

/// What topics may be: which exist, whether missing ones are made, and how many copies of one there can be.
pub struct TopicRules<'a> {
    /// The topics that are there. `None`: not known.
    pub exist: Option<&'a BTreeSet<String>>,
    /// Topics that an object of their own is there to make, by its namespace and name. Nobody else makes them: with the
    /// partitions and copies of somebody else, they would be of no use to it.
    pub promised: &'a BTreeMap<String, String>,
    /// Missing topics are made.
    pub auto_create: bool,
    /// Number of partitions of one that nobody says more of.
    pub partitions: u32,
    /// Copies of such a one.
    pub replication: u32,
    /// How many brokers there are.
    pub brokers: u32,
    /// They replicate.
    pub replicates: bool,
}

/// What a source says of its topic: it asks for it to be made.
pub struct Asked {
    /// Number of partitions.
    pub partitions: Option<u32>,
    /// Copies of each.
    pub replication: Option<u32>,
}

impl TopicRules<'_> {
    /// What is to be made, if the topic is missing.
    pub fn need(&self, topic: &str, asked: Option<&Asked>) -> Option<NewTopic> {
        let missing = self.exist.is_some_and(|exist| !exist.contains(topic));
        (missing && !self.promised.contains_key(topic)).then(|| NewTopic {
            topic: topic.to_owned(),
            partitions: asked.and_then(|asked| asked.partitions).unwrap_or(self.partitions),
            replication: asked.and_then(|asked| asked.replication).unwrap_or(self.replication),
        })
    }

    /// Whether the topic is there, or can be made.
    pub fn check(&self, topic: &str, asked: Option<&Asked>) -> Result<(), Refusal> {
        let refused = |reason, message| Err(Refusal { reason, message });
        if let (Some(maker), Some(false)) = (self.promised.get(topic), self.exist.map(|exist| exist.contains(topic))) {
            let message = format!("topic {topic} does not exist yet, and RivvenTopic {maker} is to make it: see there");
            return refused(Reason::TopicMissing, message);
        }
        let Some(new) = self.need(topic, asked) else { return Ok(()) };
        let copies = new.replication;
        if !self.auto_create && asked.is_none() {
            let message = format!("topic {topic} does not exist, and settings.topic.autoCreate is false: create it");
            return refused(Reason::TopicMissing, message);
        }
        if copies > 1 && !self.replicates {
            let message =
                format!("topic {topic}: {copies} copies are asked for, and the brokers do not replicate: set 1");
            return refused(Reason::BrokerCannotReplicate, message);
        }
        if copies > self.brokers {
            let message =
                format!("topic {topic}: {copies} copies are asked for of {} brokers: set fewer", self.brokers);
            return refused(Reason::NotEnoughBrokers, message);
        }
        Ok(())
    }

    /// The topics that are read where these are asked for, by name or by pattern. None of a pattern is no fault while
    /// nobody knows which topics there are.
    pub fn read(&self, wanted: &[String]) -> Result<Vec<String>, Refusal> {
        let mut read = BTreeSet::new();
        for wanted in wanted {
            if wanted.contains('*') {
                read.extend(self.exist.into_iter().flatten().filter(|topic| matches(wanted, topic)).cloned());
            } else {
                self.check(wanted, None)?;
                read.insert(wanted.clone());
            }
        }
        if read.is_empty() && self.exist.is_some() {
            return Err(Refusal {
                reason: Reason::TopicMissing,
                message: format!("topics: no topic matches {}", wanted.join(", ")),
            });
        }
        Ok(read.into_iter().collect())
    }
}

/// Whether a name is of a pattern, in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    name.strip_prefix(first).is_some_and(|tail| {
        (0..=tail.len()).filter(|at| tail.is_char_boundary(*at)).any(|at| matches(rest, &tail[at..]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_made_is_named() {
        let exist = BTreeSet::from(["there".to_owned()]);
        let promised =
            BTreeMap::from(["promised".to_owned(), "there".to_owned()].map(|topic| (topic, "ns/o".to_owned())));
        let rules = |auto_create, replicates, brokers| TopicRules {
            exist: Some(&exist),
            promised: &promised,
            auto_create,
            partitions: 1,
            replication: 2,
            brokers,
            replicates,
        };
        let reason = |outcome: Result<(), Refusal>| outcome.err().map(|refusal| refusal.reason);
        assert_eq!(reason(rules(false, false, 1).check("there", None)), None);
        assert_eq!(reason(rules(false, true, 3).check("new", None)), Some(Reason::TopicMissing));
        assert_eq!(reason(rules(true, false, 1).check("new", None)), Some(Reason::BrokerCannotReplicate));
        assert_eq!(reason(rules(true, true, 1).check("new", None)), Some(Reason::NotEnoughBrokers));
        // Not even by who asks for it.
        let asked = Asked { partitions: Some(4), replication: Some(1) };
        assert_eq!(reason(rules(true, true, 3).check("promised", Some(&asked))), Some(Reason::TopicMissing));
        assert!(rules(true, true, 3).need("promised", Some(&asked)).is_none());
        // A source that says how its topic is to be asks for it.
        assert_eq!(reason(rules(false, false, 1).check("new", Some(&asked))), None);
        assert_eq!(rules(false, false, 1).need("new", Some(&asked)).map(|new| new.partitions), Some(4));
        assert_eq!(rules(true, true, 3).read(&["th*".to_owned()]).unwrap(), ["there"]);
        assert!(rules(true, true, 3).read(&["x*".to_owned()]).is_err());
        let unknown = TopicRules { exist: None, ..rules(true, true, 3) };
        assert!(unknown.read(&["x*".to_owned()]).unwrap().is_empty() && unknown.need("new", None).is_none());
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, name) in [("cdc.*", "cdc.orders"), ("*", "x"), ("a*b*c", "a-b-b-c"), ("*.x", "a.x"), ("a", "a")] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("cdc.*", "cd.orders"), ("a*b", "ac"), ("a", "ab"), ("a*bc", "abcd")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
