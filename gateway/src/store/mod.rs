//! Where desired state is kept: keys, values, and transactions of compare-and-swap writes.
//!
//! The model does not lean on SQL, so another store (etcd, for several gateways with one desired
//! state) can take SQLite's place behind [`Store`].

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
    /// Its key.
    pub key: String,
    /// The value.
    pub value: String,
    /// The revision at which it was last written.
    pub revision: u64,
}

/// One write of a transaction: only if the key's entry still has the expected revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The key.
    pub key: String,
    /// The entry's revision; 0 if there must be none.
    pub expected: u64,
    /// The new value; none to delete it.
    pub value: Option<String>,
}

/// A store.
pub trait Store: Send {
    /// All entries whose keys start with `prefix`, in the keys' order.
    ///
    /// # Errors
    /// When the store can't be read.
    fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError>;

    /// Does all of the writes, or none; returns the revision that they are at.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if an entry is not as expected; else when the store can't be written.
    fn commit(&mut self, writes: &[Write]) -> Result<u64, StoreError>;

    /// Puts these entries in the place of all there are; returns the revision that they are at.
    ///
    /// # Errors
    /// When the store can't be written; nothing has changed then.
    fn replace(&mut self, entries: &[Entry]) -> Result<u64, StoreError>;

    /// Returns the identity that was made with the store, by which its backups are told from others'.
    ///
    /// # Errors
    /// When the store can't be read.
    fn identity(&self) -> Result<Uuid, StoreError>;

    /// Brings everything into the one file, before the program ends. It may be ended without.
    ///
    /// # Errors
    /// When the store can't be written.
    fn checkpoint(&self) -> Result<(), StoreError>;

    /// A secret that was made with the store: the key of the data path's hashes, the same for every
    /// gateway that shares the store.
    ///
    /// # Errors
    /// When the store can't be read.
    fn seed(&self) -> Result<u64, StoreError>;
}

/// What a store holds.
#[derive(Debug, Default)]
pub struct StoreContents {
    /// What users asked for.
    pub state: State,
    /// The events of late, oldest first, and the revisions at which they were written.
    pub events: Vec<(StoredEvent, u64)>,
    /// How far webhooks have been told, by `TENANT/NAME`, with the revision.
    pub cursors: Vec<(String, Cursor, u64)>,
    /// Requests that were carried out once, by the hash of their key, with the revision.
    pub idempotency_records: Vec<(String, IdempotencyRecord, u64)>,
}

/// How far a webhook has been told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "SerializedCursor")]
pub struct Cursor {
    /// The last event that was delivered, or given up.
    pub delivered: Option<EventId>,
    /// Events that were lost.
    pub lost: u64,
}

/// How cursors are written, by earlier programs too.
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

/// A request with an idempotency key that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyRecord {
    /// The hash of the request.
    pub request: String,
    /// The hash of the caller's name.
    #[serde(default)]
    pub caller: String,
    /// The tenant in which the caller created something; none: it is the operator.
    #[serde(default)]
    pub tenant: Option<Name>,
    /// When.
    pub at: Timestamp,
    /// What it created.
    pub kind: Kind,
    /// Where.
    pub reference: Reference,
    /// Which one.
    pub uid: Uuid,
}

/// Returns a backup of the whole store.
///
/// # Errors
/// When the store can't be read.
pub fn back_up(store: &dyn Store, now: Timestamp) -> Result<Backup, StoreError> {
    let header = backup::Header::new(sqlite::SCHEMA, store.identity()?, store.seed()?, now);
    let entries = store.list("")?;
    Ok(Backup { header, entries })
}

/// Reads a backup: the container, entries of an older schema brought up to date, and what they mean, which
/// must hold every invariant. Nothing is changed.
///
/// # Errors
/// When it can't be restored, whatever is there.
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

/// Reads everything.
///
/// # Errors
/// When the store can't be read, or holds what this program does not understand.
pub fn load(store: &dyn Store) -> Result<StoreContents, StoreError> {
    decode_entries(store.list("")?, VersionKey::new(store.seed()?))
}

/// Returns what entries mean. The key makes the versions that users see of objects.
///
/// # Errors
/// When an entry can't be read, or does not hold the [invariants] of a state.
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
                // The identifier in the value is the one that the clock of events goes on from.
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
    // Before any index is built on them.
    invariants::check(&objects)?;
    contents.state = State::new(objects, key);
    Ok(contents)
}

/// Fewer objects than this are not worth a thread.
const MIN_ENTRIES_PER_THREAD: usize = 1_024;

/// The objects that entries hold, read on all processors: they are the most of what a start takes.
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
            // A thread of these does not panic; if it does, so does this one.
            let part = part
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            objects.extend(part?);
        }
        Ok(objects)
    })
}

/// The writes that carry out changes.
///
/// # Errors
/// When an object can't be written down.
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
