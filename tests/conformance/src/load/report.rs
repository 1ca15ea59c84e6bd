//! Acknowledged against read.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::ledger::{Ack, Gaps};
use super::read::Record;

/// What a run found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Acknowledged records.
    pub acknowledged: usize,
    /// Records of these producers that were read.
    pub read: usize,
    /// Acknowledged, and neither at their offset nor anywhere else.
    pub lost: usize,
    /// Some of the lost ones: partition, offset, value.
    pub lost_examples: Vec<String>,
    /// Partitions that nobody serves any more, and why; what was acknowledged there is lost.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unreadable: BTreeMap<u32, String>,
    /// Acknowledged, and found only at another offset than promised.
    pub moved: usize,
    /// Read more than once, counted without the first time.
    pub duplicates: usize,
    /// First readings that come after a later number of the same producer and partition.
    pub out_of_order: usize,
    /// Missing where nothing was produced.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub gaps: Option<Gaps>,
    /// Attempts that were not acknowledged.
    #[serde(flatten)]
    pub retries: Retries,
}

/// Attempts that were not acknowledged, and why.
#[derive(Debug, Default, Serialize)]
pub struct Retries {
    /// How many.
    pub retries: u64,
    /// Why, of the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_retry: Option<String>,
}

impl Retries {
    pub(super) fn note(&mut self, error: &anyhow::Error) {
        self.retries += 1;
        self.last_retry = Some(format!("{error:#}"));
    }

    pub(super) fn add(&mut self, other: Self) {
        self.retries += other.retries;
        self.last_retry = other.last_retry.or(self.last_retry.take());
    }
}

/// What was read, held against what was acknowledged.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Records of these producers that were read.
    pub read: usize,
    /// Acknowledged and nowhere.
    pub lost: Vec<Ack>,
    /// Partitions that could not be read, and why.
    pub unreadable: BTreeMap<u32, String>,
    /// Acknowledged and elsewhere.
    pub moved: usize,
    /// Read again.
    pub duplicates: usize,
    /// Read after a later one.
    pub out_of_order: usize,
}

impl Report {
    pub(super) fn of(acks: &[Ack], compared: &Comparison) -> Self {
        let example = |ack: &Ack| format!("{} {} {}", ack.partition, ack.offset, ack.value);
        Self {
            acknowledged: acks.len(),
            read: compared.read,
            lost: compared.lost.len(),
            lost_examples: compared.lost.iter().take(5).map(example).collect(),
            unreadable: compared.unreadable.clone(),
            moved: compared.moved,
            duplicates: compared.duplicates,
            out_of_order: compared.out_of_order,
            gaps: None,
            retries: Retries::default(),
        }
    }
}

/// Compares. `log` is in the order of each partition; records of other runs in it do not count.
pub fn compare(acks: &[Ack], log: &[Record]) -> Comparison {
    let ours: BTreeSet<&str> = acks.iter().filter_map(|ack| lane(&ack.value)).map(|(lane, _)| lane).collect();
    let mut offsets: BTreeMap<&str, BTreeSet<(u32, u64)>> = BTreeMap::new();
    let mut highest: BTreeMap<&str, u64> = BTreeMap::new();
    let mut compared = Comparison::default();
    for record in log {
        let Some((lane, number)) = lane(&record.value).filter(|(lane, _)| ours.contains(lane)) else { continue };
        compared.read += 1;
        let first = !offsets.contains_key(record.value.as_str());
        offsets.entry(&record.value).or_default().insert((record.partition, record.offset));
        if !first {
            compared.duplicates += 1;
            continue;
        }
        match highest.get_mut(lane) {
            Some(highest) if number < *highest => compared.out_of_order += 1,
            Some(highest) => *highest = number,
            None => drop(highest.insert(lane, number)),
        }
    }
    for ack in acks {
        match offsets.get(ack.value.as_str()) {
            None => compared.lost.push(ack.clone()),
            Some(found) if !found.contains(&(ack.partition, ack.offset)) => compared.moved += 1,
            Some(_) => {}
        }
    }
    compared
}

/// `run/producer/partition` and the number.
fn lane(value: &str) -> Option<(&str, u64)> {
    let (lane, number) = value.rsplit_once('/')?;
    Some((lane, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(offset: u64, number: u64) -> Ack {
        Ack { partition: 0, offset, value: format!("r/0/0/{number}") }
    }

    fn log(entries: &[(u64, u64)]) -> Vec<Record> {
        let record = |&(offset, number)| Record { partition: 0, offset, value: format!("r/0/0/{number}") };
        entries.iter().map(record).collect()
    }

    #[test]
    fn all_there_is_silence() {
        let compared = compare(&[ack(0, 0), ack(1, 1)], &log(&[(0, 0), (1, 1)]));
        assert_eq!(compared, Comparison { read: 2, ..Comparison::default() });
    }

    #[test]
    fn lost_moved_duplicate_and_late_are_told_apart() {
        let acks = [ack(0, 0), ack(1, 1), ack(2, 2), ack(3, 3)];
        let compared = compare(&acks, &log(&[(0, 0), (1, 2), (2, 1), (0, 0)]));
        let lost = vec![ack(3, 3)];
        let expected = Comparison { read: 4, lost, moved: 2, duplicates: 1, out_of_order: 1, ..Comparison::default() };
        assert_eq!(compared, expected);
    }

    #[test]
    fn records_of_others_do_not_count() {
        let mut log = log(&[(0, 0)]);
        log.extend(["other/0/0/9", "other/0/0/9", "text"].map(|value| Record {
            partition: 0,
            offset: 1,
            value: value.to_owned(),
        }));
        assert_eq!(compare(&[ack(0, 0)], &log), Comparison { read: 1, ..Comparison::default() });
    }
}
