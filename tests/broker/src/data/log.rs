//! The records of one replica: one file that only grows, except when a tail is cut off.
//!
//! A record is a frame: length, CRC-32 of the rest, the record. What a crash tore is at the end, and nobody was told of
//! it: it is cut off at the start.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

const HEADER: u64 = 8;

/// A record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The epoch of the leader that took it.
    pub(crate) epoch: u64,
    pub(crate) offset: u64,
    /// Milliseconds since 1970.
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Vec<u8>,
}

/// The file, and where what is in it.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    /// Where each record starts, by offset; the last one is where the next record will.
    starts: Vec<u64>,
    /// The epochs of the records with their first offsets, ascending.
    epochs: Vec<(u64, u64)>,
}

impl Log {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let length = file.metadata()?.len();
        let mut log = Self { file, starts: vec![0], epochs: Vec::new() };
        while let Some((record, next)) = log.at(log.length(), length)? {
            if record.offset != log.end() {
                break;
            }
            log.note(&record, next);
        }
        if log.length() < length {
            log.file.set_len(log.length())?;
            log.file.sync_data()?;
        }
        Ok(log)
    }

    /// The offset that the next record gets.
    pub(super) fn end(&self) -> u64 {
        self.starts.len() as u64 - 1
    }

    fn length(&self) -> u64 {
        self.starts.last().copied().unwrap_or_default()
    }

    fn note(&mut self, record: &Record, next: u64) {
        if self.last_epoch() != Some(record.epoch) {
            self.epochs.push((record.epoch, record.offset));
        }
        self.starts.push(next);
    }

    /// The whole record that starts at a position, and where the next one does.
    fn at(&self, position: u64, length: u64) -> io::Result<Option<(Record, u64)>> {
        let body = position + HEADER;
        if body > length {
            return Ok(None);
        }
        let (mut size, mut sum) = ([0; 4], [0; 4]);
        self.file.read_exact_at(&mut size, position)?;
        self.file.read_exact_at(&mut sum, position + 4)?;
        let (size, sum) = (u32::from_le_bytes(size), u32::from_le_bytes(sum));
        let next = body + u64::from(size);
        if next > length {
            return Ok(None);
        }
        let mut bytes = vec![0; size as usize];
        self.file.read_exact_at(&mut bytes, body)?;
        let whole = crc32fast::hash(&bytes) == sum;
        Ok(postcard::from_bytes(&bytes).ok().filter(|_| whole).map(|record| (record, next)))
    }

    /// Appends records that follow on each other, and returns when they are on disk.
    pub(super) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let before = self.length();
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for record in records {
            let body = postcard::to_stdvec(record).map_err(io::Error::other)?;
            let size = u32::try_from(body.len()).map_err(io::Error::other)?;
            bytes.extend(size.to_le_bytes());
            bytes.extend(crc32fast::hash(&body).to_le_bytes());
            bytes.extend(body);
            ends.push(before + bytes.len() as u64);
        }
        let written = self.file.write_all_at(&bytes, before).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // A full disk: what got through is not to be taken for a record.
            self.file.set_len(before)?;
            return Err(error);
        }
        records.iter().zip(ends).for_each(|(record, end)| self.note(record, end));
        Ok(())
    }

    /// Records from one offset to before another, as many as fit, but at least one.
    pub(super) fn read(&self, from: u64, to: u64, max: usize, max_bytes: u64) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for offset in (from..to.min(self.end())).take(max) {
            let Ok(index) = usize::try_from(offset) else { break };
            if !records.is_empty() && self.starts[index + 1] > self.start(from) + max_bytes {
                break;
            }
            let (record, _) = self
                .at(self.starts[index], self.length())?
                .ok_or_else(|| io::Error::other(format!("the record at offset {offset} is damaged")))?;
            records.push(record);
        }
        Ok(records)
    }

    fn start(&self, offset: u64) -> u64 {
        usize::try_from(offset).ok().and_then(|index| self.starts.get(index)).copied().unwrap_or_default()
    }

    /// Cuts off the records from an offset on.
    pub(super) fn truncate(&mut self, offset: u64) -> io::Result<()> {
        if offset >= self.end() {
            return Ok(());
        }
        self.file.set_len(self.start(offset))?;
        self.file.sync_data()?;
        self.starts.truncate(usize::try_from(offset).map_err(io::Error::other)? + 1);
        self.epochs.retain(|(_, start)| *start < offset);
        Ok(())
    }

    pub(super) fn last_epoch(&self) -> Option<u64> {
        self.epochs.last().map(|(epoch, _)| *epoch)
    }

    /// The largest epoch with records that is not above the given one, and where its records end. Two logs that agree
    /// on the epoch of a record agree on everything up to it, so this is where they can differ first.
    pub(super) fn end_of(&self, epoch: u64) -> (Option<u64>, u64) {
        let next = self.epochs.partition_point(|(known, _)| *known <= epoch);
        let end = self.epochs.get(next).map_or(self.end(), |(_, start)| *start);
        let found = next.checked_sub(1).and_then(|index| self.epochs.get(index)).map(|(epoch, _)| *epoch);
        (found, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(epoch: u64, offset: u64) -> Record {
        Record { epoch, offset, timestamp: 1, key: None, value: vec![7; 10] }
    }

    #[test]
    fn a_torn_tail_is_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut log = Log::open(&path).unwrap();
        log.append(&[record(1, 0), record(1, 1), record(3, 2)]).unwrap();
        let whole = log.length();
        drop(log);
        for (cut, left) in [(1, 2), (8, 2), (0, 3)] {
            let copy = directory.path().join("copy");
            std::fs::copy(&path, &copy).unwrap();
            OpenOptions::new().write(true).open(&copy).unwrap().set_len(whole - cut).unwrap();
            let mut log = Log::open(&copy).unwrap();
            assert_eq!(log.end(), left);
            log.append(&[record(4, left)]).unwrap();
            let again = Log::open(&copy).unwrap();
            assert_eq!(again.read(0, 9, 9, 999).unwrap().len() as u64, left + 1);
        }
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(Log::open(&path).unwrap().end(), 2);
    }

    #[test]
    fn epochs_tell_where_logs_part() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::open(&directory.path().join("log")).unwrap();
        assert_eq!(log.end_of(9), (None, 0));
        log.append(&[record(2, 0), record(2, 1), record(5, 2)]).unwrap();
        assert_eq!(log.end_of(1), (None, 0));
        assert_eq!(log.end_of(2), (Some(2), 2));
        assert_eq!(log.end_of(4), (Some(2), 2));
        assert_eq!(log.end_of(5), (Some(5), 3));
        log.truncate(2).unwrap();
        assert_eq!((log.end(), log.last_epoch(), log.end_of(7)), (2, Some(2), (Some(2), 2)));
        log.truncate(0).unwrap();
        assert_eq!((log.end(), log.last_epoch()), (0, None));
    }

    #[test]
    fn a_read_is_bounded_but_not_empty() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::open(&directory.path().join("log")).unwrap();
        log.append(&[record(1, 0), record(1, 1), record(1, 2)]).unwrap();
        assert_eq!(log.read(1, 3, 9, 1).unwrap(), [record(1, 1)]);
        assert_eq!(log.read(0, 2, 9, 999).unwrap().len(), 2);
        assert_eq!(log.read(0, 3, 1, 999).unwrap().len(), 1);
        assert_eq!(log.read(3, 9, 9, 999).unwrap(), []);
    }
}
