//! Where desired state is kept: keys, values, and transactions of compare-and-swap writes.
//!
//! The model does not lean on SQL, so another store (etcd, for several gateways with one desired
//! state) can take SQLite's place behind [`Store`].

pub mod keys;
mod restore;
mod sqlite;

pub use restore::{Before, restored};
pub use sqlite::{Sqlite, read_backup};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::model::{Change, Kind, Object, Reference, State, event::Recorded, object::DecodeError};

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

/// Why the store did not do it. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// An entry is not at the revision that was expected.
    #[error("{0:?} was changed by somebody else in the meantime")]
    Conflict(String),
    /// The store was written by a program that is newer than this one.
    #[error(
        "the store {path} has schema version {found}, this program knows up to {known}: use the \
         program that wrote it, or a newer one"
    )]
    TooNew {
        /// The file.
        path: String,
        /// Its schema.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// The file is damaged.
    #[error(
        "the store {path} is damaged ({found}): put a backup in its place with `gateway restore \
         --offline FILE`; what is approved goes on meanwhile"
    )]
    Damaged {
        /// The file.
        path: String,
        /// What was found.
        found: String,
    },
    /// What is in the store can't be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A value can't be written down.
    #[error("an object can't be stored: {0}")]
    Encode(#[from] serde_json::Error),
    /// The database failed.
    #[error("the store {path} failed: {error}")]
    Database {
        /// The file.
        path: String,
        /// What SQLite says.
        error: rusqlite::Error,
    },
    /// The file or its folder can't be used.
    #[error("the store {path} can't be opened: {error}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        error: std::io::Error,
    },
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

    /// The whole store at one moment, as a file's content that [`read_backup`] reads.
    ///
    /// # Errors
    /// When it can't be read, or there is no room for a copy.
    fn backup(&self) -> Result<Vec<u8>, StoreError>;

    /// Brings everything into the one file, before the program ends. It may be ended without.
    ///
    /// # Errors
    /// When the store can't be written.
    fn settle(&self) -> Result<(), StoreError>;

    /// A secret that was made with the store: the key of the data path's hashes, the same for every
    /// gateway that shares the store.
    ///
    /// # Errors
    /// When the store can't be read.
    fn seed(&self) -> Result<u64, StoreError>;
}

/// What a store holds.
#[derive(Debug, Default)]
pub struct Loaded {
    /// What users asked for.
    pub state: State,
    /// The events of late, oldest first, and the revisions at which they were written.
    pub events: Vec<(Recorded, u64)>,
    /// How far webhooks have been told, by `TENANT/NAME`, with the revision.
    pub cursors: Vec<(String, u64, u64)>,
    /// Requests that were carried out once, by the hash of their key, with the revision.
    pub requests: Vec<(String, Once, u64)>,
}

/// A request with an idempotency key that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Once {
    /// The hash of the request.
    pub request: String,
    /// When.
    pub at: Timestamp,
    /// What it created.
    pub kind: Kind,
    /// Where.
    pub reference: Reference,
    /// Which one.
    pub uid: Uuid,
}

/// Reads everything.
///
/// # Errors
/// When the store can't be read, or holds what this program does not understand.
pub fn load(store: &dyn Store) -> Result<Loaded, StoreError> {
    interpret(store.list("")?)
}

/// What entries mean.
///
/// # Errors
/// When this program does not understand one.
pub fn interpret(entries: Vec<Entry>) -> Result<Loaded, StoreError> {
    fn read<T: DeserializeOwned>(entry: &Entry) -> Result<T, DecodeError> {
        serde_json::from_str(&entry.value).map_err(|error| DecodeError::Value {
            key: entry.key.clone(),
            error,
        })
    }
    let mut loaded = Loaded::default();
    let mut objects = Vec::with_capacity(entries.len());
    for entry in entries {
        match entry.key.split_once('/') {
            Some((keys::EVENTS, _)) => loaded.events.push((read(&entry)?, entry.revision)),
            Some((keys::CURSORS, webhook)) => {
                let cursor = (webhook.to_owned(), read(&entry)?, entry.revision);
                loaded.cursors.push(cursor);
            }
            Some((keys::REQUESTS, hash)) => {
                let request = (hash.to_owned(), read(&entry)?, entry.revision);
                loaded.requests.push(request);
            }
            _ => objects.push(entry),
        }
    }
    let objects = decode(&objects)?;
    loaded.state = State::new(objects);
    Ok(loaded)
}

/// Fewer objects than this are not worth a thread.
const MANY: usize = 1_024;

/// The objects that entries hold, read on all processors: they are the most of what a start takes.
fn decode(entries: &[Entry]) -> Result<Vec<Object>, DecodeError> {
    let decode = |entries: &[Entry]| -> Result<Vec<Object>, DecodeError> {
        entries
            .iter()
            .map(|entry| Object::decode(&entry.key, &entry.value, entry.revision))
            .collect()
    };
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let each = entries.len().div_ceil(processors).max(MANY);
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
pub fn writes(changes: &[Change]) -> Result<Vec<Write>, StoreError> {
    let mut writes = Vec::with_capacity(changes.len());
    for change in changes {
        let (object, value) = match change {
            Change::Put(object) => (object, Some(object.encode()?)),
            Change::Delete(object) => (object, None),
        };
        writes.push(Write {
            key: object.key(),
            expected: object.version(),
            value,
        });
    }
    Ok(writes)
}
