//! What was acknowledged, and the longest silence between two acknowledgements.

use std::fs::{File, read_to_string};
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// A broker's word that `value` is at `offset`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The partition.
    pub partition: u32,
    /// The offset in it.
    pub offset: u64,
    /// `run/producer/partition/number`
    pub value: String,
}

/// The longest times without an acknowledgement, from the first record due to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Gaps {
    /// Of any partition.
    pub overall_ms: u128,
    /// Of the partition that was silent longest.
    pub partition_ms: u128,
}

/// Shared by all producers.
pub struct Ledger(Mutex<Inner>);

struct Inner {
    acks: Vec<Ack>,
    file: Option<File>,
    overall: Silence,
    partitions: Vec<Silence>,
}

#[derive(Clone, Copy)]
struct Silence {
    since: Instant,
    longest: Duration,
}

impl Silence {
    fn broken(&mut self, now: Instant) {
        self.longest = self.longest.max(now.saturating_duration_since(self.since));
        self.since = now;
    }
}

impl Ledger {
    /// An empty ledger; silence is counted from now.
    pub fn new(partitions: u32, file: Option<&Path>) -> Result<Self> {
        let file = file.map(|path| File::create(path).with_context(|| path.display().to_string())).transpose()?;
        let silence = Silence { since: Instant::now(), longest: Duration::ZERO };
        let partitions = (0..partitions).map(|_| silence).collect();
        Ok(Self(Mutex::new(Inner { acks: Vec::new(), file, overall: silence, partitions })))
    }

    /// Remembers one.
    pub fn record(&self, ack: Ack) -> Result<()> {
        let now = Instant::now();
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &mut inner.file {
            // In one write, so that a run that is killed leaves whole lines.
            file.write_all(format!("{} {} {}\n", ack.partition, ack.offset, ack.value).as_bytes())?;
        }
        inner.overall.broken(now);
        if let Some(partition) = inner.partitions.get_mut(ack.partition as usize) {
            partition.broken(now);
        }
        inner.acks.push(ack);
        Ok(())
    }

    /// All of them; silence is counted until now.
    pub fn close(self) -> (Vec<Ack>, Gaps) {
        let now = Instant::now();
        let mut inner = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        inner.overall.broken(now);
        inner.partitions.iter_mut().for_each(|partition| partition.broken(now));
        let worst = inner.partitions.iter().map(|partition| partition.longest).max().unwrap_or_default();
        let gaps = Gaps { overall_ms: inner.overall.longest.as_millis(), partition_ms: worst.as_millis() };
        (inner.acks, gaps)
    }
}

/// Reads what [`Ledger::record`] wrote.
pub(super) fn read(path: &Path) -> Result<Vec<Ack>> {
    let text = read_to_string(path).with_context(|| path.display().to_string())?;
    text.lines().map(|line| parse(line).with_context(|| format!("not an acknowledgement: {line:?}"))).collect()
}

fn parse(line: &str) -> Option<Ack> {
    let (partition, rest) = line.split_once(' ')?;
    let (offset, value) = rest.split_once(' ')?;
    Some(Ack { partition: partition.parse().ok()?, offset: offset.parse().ok()?, value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("acks");
        let ledger = Ledger::new(2, Some(&path)).unwrap();
        let ack = Ack { partition: 1, offset: 7, value: "a/0/1/3".to_owned() };
        ledger.record(ack.clone()).unwrap();
        assert_eq!(read(&path).unwrap(), std::slice::from_ref(&ack));
        assert_eq!(ledger.close().0, [ack]);
    }

    #[test]
    fn a_silent_partition_is_a_gap_although_others_speak() {
        let ledger = Ledger::new(2, None).unwrap();
        let began = Instant::now();
        for offset in 0.. {
            ledger.record(Ack { partition: 0, offset, value: String::new() }).unwrap();
            if began.elapsed() > Duration::from_millis(50) {
                break;
            }
        }
        let (_, gaps) = ledger.close();
        assert!(gaps.partition_ms >= 50 && gaps.overall_ms < 50, "{gaps:?}");
    }
}
