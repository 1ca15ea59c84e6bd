//! Raft's log, vote and snapshot on disk: one redb file. Each change is one durable transaction, so a killed process
//! finds what it answered for.

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::Arc;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{Entry, LogId, LogState, OptionalSend, RaftLogReader, StorageError, StorageIOError, Vote};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{NodeId, Types};
use crate::faults::Faults;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const FACTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("facts");

/// The file. Clones are the same one.
#[derive(Clone)]
pub(super) struct Store {
    file: Arc<Database>,
    faults: Arc<Faults>,
}

type Failure = StorageError<NodeId>;

fn failed(error: impl Into<redb::Error>) -> Failure {
    StorageIOError::write(&io::Error::other(error.into())).into()
}

fn malformed(error: serde_json::Error) -> Failure {
    StorageIOError::read(&io::Error::other(error)).into()
}

impl Store {
    pub(super) fn open(path: &Path, faults: Arc<Faults>) -> anyhow::Result<Self> {
        let database = Database::create(path)?;
        let write = database.begin_write()?;
        write.open_table(LOG)?;
        write.open_table(FACTS)?;
        write.commit()?;
        Ok(Self { file: Arc::new(database), faults })
    }

    pub(super) fn fact<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Failure> {
        let read = self.file.begin_read().map_err(failed)?;
        let facts = read.open_table(FACTS).map_err(failed)?;
        let found = facts.get(name).map_err(failed)?;
        found.map(|bytes| serde_json::from_slice(bytes.value())).transpose().map_err(malformed)
    }

    pub(super) fn set_fact<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Failure> {
        let bytes = serde_json::to_vec(value).map_err(malformed)?;
        let write = self.file.begin_write().map_err(failed)?;
        write.open_table(FACTS).map_err(failed)?.insert(name, bytes.as_slice()).map_err(failed)?;
        write.commit().map_err(failed)
    }

    /// For what may be large. A vote always fits: a broker with a full disk still knows whom it voted for.
    pub(super) async fn until_room(&self) {
        self.faults.until_room().await;
    }

    fn remove(&self, range: impl RangeBounds<u64>, purged: Option<LogId<NodeId>>) -> Result<(), Failure> {
        let write = self.file.begin_write().map_err(failed)?;
        write.open_table(LOG).map_err(failed)?.retain_in(range, |_, _| false).map_err(failed)?;
        if let Some(purged) = purged {
            let bytes = serde_json::to_vec(&purged).map_err(malformed)?;
            write.open_table(FACTS).map_err(failed)?.insert("purged", bytes.as_slice()).map_err(failed)?;
        }
        write.commit().map_err(failed)
    }
}

impl RaftLogReader<Types> for Store {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<Types>>, Failure> {
        let read = self.file.begin_read().map_err(failed)?;
        let log = read.open_table(LOG).map_err(failed)?;
        log.range(range)
            .map_err(failed)?
            .map(|entry| serde_json::from_slice(entry.map_err(failed)?.1.value()).map_err(malformed))
            .collect()
    }
}

impl RaftLogStorage<Types> for Store {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, Failure> {
        let last_purged_log_id = self.fact("purged")?;
        let read = self.file.begin_read().map_err(failed)?;
        let log = read.open_table(LOG).map_err(failed)?;
        let last: Option<Entry<Types>> = match log.last().map_err(failed)? {
            Some((_, bytes)) => Some(serde_json::from_slice(bytes.value()).map_err(malformed)?),
            None => None,
        };
        Ok(LogState { last_purged_log_id, last_log_id: last.map(|entry| entry.log_id).or(last_purged_log_id) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<NodeId>) -> Result<(), Failure> {
        self.set_fact("vote", vote)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<NodeId>>, Failure> {
        self.fact("vote")
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), Failure>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.until_room().await;
        let write = self.file.begin_write().map_err(failed)?;
        {
            let mut log = write.open_table(LOG).map_err(failed)?;
            for entry in entries {
                let bytes = serde_json::to_vec(&entry).map_err(malformed)?;
                log.insert(entry.log_id.index, bytes.as_slice()).map_err(failed)?;
            }
        }
        write.commit().map_err(failed)?;
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId<NodeId>) -> Result<(), Failure> {
        self.remove(log_id.index.., None)
    }

    async fn purge(&mut self, log_id: LogId<NodeId>) -> Result<(), Failure> {
        self.remove(..=log_id.index, Some(log_id))
    }
}
