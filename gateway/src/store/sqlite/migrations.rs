//! Schema versions of the store, and the migrations between them.

use rusqlite::{Connection, TransactionBehavior};

use crate::store::{BackupError, Entry, Store as _, StoreError, sqlite::Sqlite};

/// Migration scripts. The script at index N upgrades a store from schema version N to N + 1.
pub(super) const MIGRATIONS: &[&str] = &[
    "CREATE TABLE entry (
        key TEXT PRIMARY KEY NOT NULL,
        value TEXT NOT NULL,
        revision INTEGER NOT NULL
    ) WITHOUT ROWID, STRICT;
    CREATE TABLE meta (
        only_row INTEGER PRIMARY KEY CHECK (only_row = 0),
        revision INTEGER NOT NULL,
        seed INTEGER NOT NULL
    ) STRICT;
    INSERT INTO meta VALUES (0, 0, random());",
    // Entries that are not objects. Earlier programs can't read them, hence the new version.
    "",
    // A network's number shares a 32-bit word with a protocol bit, so it has 31 bits.
    "UPDATE entry SET value = json_set(value, '$.number', value ->> '$.number' & 2147483647)
     WHERE substr(key, 1, 9) = 'networks/';
     -- Two networks with one number would be one network in the data path: fail.
     CREATE TEMP TABLE numbers_of_networks_differ (number INTEGER UNIQUE);
     INSERT INTO numbers_of_networks_differ
     SELECT value ->> '$.number' FROM entry WHERE substr(key, 1, 9) = 'networks/';
     DROP TABLE numbers_of_networks_differ;",
    // Backups identify the store that they were made from.
    "CREATE TABLE identity (
        only_row INTEGER PRIMARY KEY CHECK (only_row = 0),
        store BLOB NOT NULL CHECK (length(store) = 16)
    ) STRICT;
    INSERT INTO identity VALUES (0, randomblob(16));",
    // Events have UUIDs instead of numbers, and webhook cursors count lost events. Earlier programs can't read
    // either, hence the new version. Entries that earlier programs wrote are still read as they are.
    "",
    // Fields of services have new names. The names also occur in the `fields` of events about services. An entry
    // that is not JSON is left as it is: decoding reports it with its key.
    "UPDATE entry SET value = json_remove(
        json_set(value, '$.no_backend_action', value -> '$.no_backend'), '$.no_backend')
     WHERE substr(key, 1, 9) = 'services/'
        AND CASE WHEN json_valid(value) THEN json_type(value, '$.no_backend') END IS NOT NULL;
     UPDATE entry SET value = json_remove(
        json_set(value, '$.unmatched_packet_action', value -> '$.no_flow'), '$.no_flow')
     WHERE substr(key, 1, 9) = 'services/'
        AND CASE WHEN json_valid(value) THEN json_type(value, '$.no_flow') END IS NOT NULL;
     UPDATE entry SET value = json_remove(
        json_set(value, '$.health_check.unhealthy_flow_action', value -> '$.health_check.unhealthy_flows'),
        '$.health_check.unhealthy_flows')
     WHERE substr(key, 1, 9) = 'services/'
        AND CASE WHEN json_valid(value) THEN json_type(value, '$.health_check.unhealthy_flows') END IS NOT NULL;
     UPDATE entry SET value = json_set(value, '$.fields', json((
        SELECT json_group_array(CASE field.value
            WHEN 'no_backend' THEN 'no_backend_action'
            WHEN 'no_flow' THEN 'unmatched_packet_action'
            ELSE field.value END)
        FROM json_each(entry.value, '$.fields') AS field)))
     WHERE substr(key, 1, 7) = 'events/'
        AND CASE WHEN json_valid(value) THEN value ->> '$.kind' = 'service' AND EXISTS (
            SELECT 1 FROM json_each(entry.value, '$.fields') AS field
            WHERE field.value IN ('no_backend', 'no_flow')) END;",
    // Health checks by UDP, deadlines of draining backends, and events about the health of backends. Earlier programs
    // can't read them, hence the new version.
    "",
];

/// Schema version that this program writes.
#[expect(
    clippy::cast_possible_truncation,
    reason = "checked in the line before"
)]
pub(in crate::store) const SCHEMA: u32 = {
    assert!(MIGRATIONS.len() < 1 << 16);
    MIGRATIONS.len() as u32
};

/// Returns the schema version of the file, which must be one that this program knows.
pub(super) fn schema_version(connection: &Connection, path: &str) -> Result<u32, StoreError> {
    let found: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|error| StoreError::from_open_error(path, &error))?;
    let found = u32::try_from(found)
        .map_err(|_| StoreError::damaged(path, "its schema version is negative"))?;
    if found > SCHEMA {
        return Err(StoreError::TooNew {
            path: path.to_owned(),
            found,
            known: SCHEMA,
        });
    }
    Ok(found)
}

/// Upgrades entries of an older schema, in an in-memory database. This program creates the tables, so only the keys and
/// values come from the backup.
///
/// # Errors
/// Fails if the schema is newer than this program's, or if a migration fails on the entries.
pub(in crate::store) fn upgrade_entries(
    entries: Vec<Entry>,
    schema: u32,
) -> Result<Vec<Entry>, StoreError> {
    const PATH: &str = "the backup";
    if schema == SCHEMA {
        return Ok(entries);
    }
    if schema > SCHEMA {
        return Err(BackupError::TooNew.into());
    }
    let failed = |error| StoreError::from_open_error(PATH, &error);
    let connection = Connection::open_in_memory().map_err(failed)?;
    for script in &MIGRATIONS[..(schema as usize).max(1)] {
        connection.execute_batch(script).map_err(failed)?;
    }
    connection
        .pragma_update(None, "user_version", schema.max(1))
        .map_err(failed)?;
    let mut store = Sqlite {
        connection,
        path: PATH.to_owned(),
    };
    store.replace(&entries)?;
    migrate(&mut store.connection, PATH)?;
    store.list("")
}

pub(super) fn migrate(connection: &mut Connection, path: &str) -> Result<(), StoreError> {
    let database = |error| StoreError::from_open_error(path, &error);
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(database)?;
    let found = schema_version(&transaction, path)?;
    if found == SCHEMA {
        return Ok(());
    }
    for script in &MIGRATIONS[found as usize..] {
        transaction.execute_batch(script).map_err(database)?;
    }
    transaction
        .pragma_update(None, "user_version", SCHEMA)
        .map_err(database)?;
    transaction.commit().map_err(database)
}

#[cfg(test)]
mod tests;
