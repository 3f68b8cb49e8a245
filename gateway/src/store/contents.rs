//! Decoded content of a store, and the conversion from and to entries.

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{
    model::{
        Change, Kind, Name, Object, Reference, State, VersionKey, event::StoredEvent,
        event_id::EventId, invariants, object::DecodeError,
    },
    store::{Entry, Store, StoreError, Write, keys},
};

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
