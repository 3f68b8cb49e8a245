//! Storage of desired state: keys, values, and transactions of compare-and-swap writes.
//!
//! The model does not depend on SQL. Another store can therefore replace SQLite behind [`Store`], such as etcd for
//! several gateways that share one desired state.

pub mod backup;
mod contents;
mod error;
pub mod keys;
mod restore;
mod restore_offline;
mod sqlite;

pub use backup::{Backup, BackupError};
pub use contents::{
    Cursor, IdempotencyRecord, StoreContents, decode_entries, load, writes_for_changes,
};
pub use error::StoreError;
pub use restore::{
    Baseline, ConnectionChange, KindChanges, PreparedRestore, RestorePlan, RestoreTarget,
    prepare_restore,
};
pub use restore_offline::OfflineRestore;
pub use sqlite::Sqlite;

use jiff::Timestamp;
use uuid::Uuid;

use crate::model::VersionKey;

/// File name of the store within the state directory.
pub const STORE_FILE: &str = "state.db";

/// A stored value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Key, `KIND/NAME` or `KIND/TENANT/NAME`.
    pub key: String,
    /// Value, as JSON.
    pub value: String,
    /// Revision at which the entry was last written.
    pub revision: u64,
}

/// One write of a transaction, which requires that the key's entry still has the expected revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Key of the entry.
    pub key: String,
    /// Expected revision of the entry; 0 if the entry must not exist.
    pub expected: u64,
    /// New value; none to delete the entry.
    pub value: Option<String>,
}

/// A transactional key-value store.
pub trait Store: Send {
    /// Returns all entries whose keys start with `prefix`, sorted by key.
    ///
    /// # Errors
    /// Fails if the store can't be read.
    fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError>;

    /// Carries out all of the writes or none of them, and returns the revision of the commit.
    ///
    /// # Errors
    /// Fails with [`StoreError::Conflict`] if an entry does not have its expected revision, and with other errors if
    /// the store can't be written.
    fn commit(&mut self, writes: &[Write]) -> Result<u64, StoreError>;

    /// Replaces all entries with these, and returns the revision of the commit.
    ///
    /// # Errors
    /// Fails if the store can't be written. The store is unchanged then.
    fn replace(&mut self, entries: &[Entry]) -> Result<u64, StoreError>;

    /// Returns the UUID that was generated with the store. A backup carries it, so that a backup of another store is
    /// recognised.
    ///
    /// # Errors
    /// Fails if the store can't be read.
    fn identity(&self) -> Result<Uuid, StoreError>;

    /// Moves the write-ahead log into the database file before the program ends. The program may also end without it:
    /// the next start replays the log.
    ///
    /// # Errors
    /// Fails if the store can't be written.
    fn checkpoint(&self) -> Result<(), StoreError>;

    /// Returns the secret that was generated with the store. The data path uses it as the key of its hashes, so every
    /// gateway that shares the store must have the same one.
    ///
    /// # Errors
    /// Fails if the store can't be read.
    fn seed(&self) -> Result<u64, StoreError>;
}

/// Returns a backup of the whole store.
///
/// # Errors
/// Fails if the store can't be read.
pub fn back_up(store: &dyn Store, now: Timestamp) -> Result<Backup, StoreError> {
    let header = backup::BackupHeader::new(sqlite::SCHEMA, store.identity()?, store.seed()?, now);
    let entries = store.list("")?;
    Ok(Backup { header, entries })
}

/// Decodes a backup file, upgrades entries of an older schema, and checks the decoded state against every invariant.
/// No store is changed.
///
/// # Errors
/// Fails if the backup can't be restored into any store.
pub fn read_backup(content: &[u8]) -> Result<Backup, StoreError> {
    let mut backup = Backup::decode(content)?;
    backup.entries = sqlite::upgrade_entries(backup.entries, backup.header.schema)?;
    let contents = decode_entries(backup.entries.clone(), VersionKey::default())?;
    let numbers = contents
        .events
        .iter()
        .map(|(recorded, _)| recorded.event.id);
    let cursors = contents.cursors.iter();
    let cursors = cursors.filter_map(|(_, cursor, _)| cursor.delivered);
    let webhooks = contents.state.webhooks.values();
    let since = webhooks.map(|record| record.object.since);
    if numbers.chain(cursors).chain(since).any(|id| {
        let too_high = |number| number > backup::MAX_NUMBER;
        !id.is_usable() || id.number().is_some_and(too_high)
    }) {
        return Err(BackupError::NumberTooLarge.into());
    }
    Ok(backup)
}
