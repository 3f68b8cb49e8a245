//! Storage of desired state: keys, values, and transactions of compare-and-swap writes.
//!
//! The model does not depend on SQL. Another store can therefore replace SQLite behind [`Store`], such as etcd for
//! several gateways that share one desired state.

pub mod backup;
mod error;
pub mod keys;
mod restore;
mod restore_offline;
mod sqlite;

pub use backup::{Backup, BackupError};
pub use error::StoreError;
pub use restore::{
    Baseline, ConnectionChange, KindChanges, PreparedRestore, RestorePlan, RestoreTarget,
    prepare_restore,
};
pub use restore_offline::OfflineRestore;
pub use sqlite::Sqlite;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::model::{
    Change, Kind, Name, Object, Reference, State, VersionKey, event::StoredEvent,
    event_id::EventId, invariants, object::DecodeError,
};

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

/// Decoded content of a store.
#[derive(Debug, Default)]
pub struct StoreContents {
    /// Desired state.
    pub state: State,
    /// Retained events, oldest first, with the revisions at which they were written.
    pub events: Vec<(StoredEvent, u64)>,
    /// Delivery cursors of webhooks, by `TENANT/NAME`, with their revisions.
    pub cursors: Vec<(String, Cursor, u64)>,
    /// Idempotency records, by the hash of the idempotency key, with their revisions.
    pub idempotency_records: Vec<(String, IdempotencyRecord, u64)>,
}

/// Delivery cursor of a webhook: the position in the event log up to which events were delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "SerializedCursor")]
pub struct Cursor {
    /// Last event that was delivered or given up.
    pub delivered: Option<EventId>,
    /// Number of events that were lost.
    pub lost: u64,
}

/// Serialized forms of a cursor. Earlier programs wrote the number of the last event.
#[derive(Deserialize)]
#[serde(untagged)]
enum SerializedCursor {
    Number(u64),
    Full {
        delivered: Option<EventId>,
        lost: u64,
    },
}

impl From<SerializedCursor> for Cursor {
    fn from(serialized: SerializedCursor) -> Self {
        match serialized {
            SerializedCursor::Number(number) => Self {
                delivered: Some(EventId::from_number(number)),
                lost: 0,
            },
            SerializedCursor::Full { delivered, lost } => Self { delivered, lost },
        }
    }
}

/// Record of a request with an idempotency key that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyRecord {
    /// Hash of the request's path and body.
    pub request: String,
    /// Hash of the caller's identity.
    #[serde(default)]
    pub caller: String,
    /// Tenant of the created object; none if the caller is the operator.
    #[serde(default)]
    pub tenant: Option<Name>,
    /// Time of the request.
    pub at: Timestamp,
    /// Kind of the created object.
    pub kind: Kind,
    /// Reference of the created object.
    pub reference: Reference,
    /// UID of the created object.
    pub uid: Uuid,
}

/// Returns a backup of the whole store.
///
/// # Errors
/// Fails if the store can't be read.
pub fn back_up(store: &dyn Store, now: Timestamp) -> Result<Backup, StoreError> {
    let header = backup::Header::new(sqlite::SCHEMA, store.identity()?, store.seed()?, now);
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

/// Reads and decodes the whole store.
///
/// # Errors
/// Fails if the store can't be read, or holds an entry that this program can't decode.
pub fn load(store: &dyn Store) -> Result<StoreContents, StoreError> {
    decode_entries(store.list("")?, VersionKey::new(store.seed()?))
}

/// Decodes entries. `key` derives the object versions that users see from revisions.
///
/// # Errors
/// Fails if an entry can't be decoded, or if the objects violate an [invariant](invariants) of the state.
pub fn decode_entries(entries: Vec<Entry>, key: VersionKey) -> Result<StoreContents, StoreError> {
    fn read<T: DeserializeOwned>(entry: &Entry) -> Result<T, DecodeError> {
        serde_json::from_str(&entry.value).map_err(|error| DecodeError::Value {
            key: entry.key.clone(),
            error,
        })
    }
    let mut contents = StoreContents::default();
    let mut objects = Vec::with_capacity(entries.len());
    for entry in entries {
        match entry.key.split_once('/') {
            Some((keys::EVENTS, _)) => {
                let recorded: StoredEvent = read(&entry)?;
                // The clock of events continues from the identifier in the value, so it must be that of the key.
                let id = recorded.event.id;
                if entry.key != keys::event(id) || !id.is_usable() {
                    return Err(DecodeError::Key(entry.key).into());
                }
                contents.events.push((recorded, entry.revision));
            }
            Some((keys::CURSORS, webhook)) => {
                let cursor = (webhook.to_owned(), read(&entry)?, entry.revision);
                contents.cursors.push(cursor);
            }
            Some((keys::IDEMPOTENCY, hash)) => {
                let request = (hash.to_owned(), read(&entry)?, entry.revision);
                contents.idempotency_records.push(request);
            }
            _ => objects.push(entry),
        }
    }
    let objects = decode_objects(&objects)?;
    // The indexes of the state rely on the invariants.
    invariants::check(&objects)?;
    contents.state = State::new(objects, key);
    Ok(contents)
}

/// Smallest number of entries for which another decoding thread is started.
const MIN_ENTRIES_PER_THREAD: usize = 1_024;

/// Decodes objects on all processors, since decoding takes most of the time of a start.
fn decode_objects(entries: &[Entry]) -> Result<Vec<Object>, DecodeError> {
    let decode = |entries: &[Entry]| -> Result<Vec<Object>, DecodeError> {
        entries
            .iter()
            .map(|entry| Object::decode(&entry.key, &entry.value, entry.revision))
            .collect()
    };
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let each = entries
        .len()
        .div_ceil(processors)
        .max(MIN_ENTRIES_PER_THREAD);
    std::thread::scope(|scope| {
        let parts: Vec<_> = entries
            .chunks(each)
            .map(|part| scope.spawn(move || decode(part)))
            .collect();
        let mut objects = Vec::with_capacity(entries.len());
        for part in parts {
            // Decoding does not panic. If a thread did, pass its panic on.
            let part = part
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            objects.extend(part?);
        }
        Ok(objects)
    })
}

/// Returns the writes that store changes.
///
/// # Errors
/// Fails if an object can't be serialized.
pub fn writes_for_changes(changes: &[Change]) -> Result<Vec<Write>, StoreError> {
    let mut writes = Vec::with_capacity(changes.len());
    for change in changes {
        let (object, value) = match change {
            Change::Put(object) => (object, Some(object.encode()?)),
            Change::Delete(object) => (object, None),
        };
        writes.push(Write {
            key: object.key(),
            expected: object.version().revision(),
            value,
        });
    }
    Ok(writes)
}
