//! Embedded store: one SQLite file with a write-ahead log. Every commit is synced to the disk.

use std::{fs, os::unix::fs::OpenOptionsExt as _, path::Path, time::Duration};

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, config::DbConfig, params};
use uuid::Uuid;

use crate::{
    files,
    store::{Entry, Store, StoreError, Write, backup::Header},
};

/// Migration scripts. The script at index N upgrades a store from schema version N to N + 1.
const MIGRATIONS: &[&str] = &[
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
     UPDATE entry SET value = json_set(value, '$.fields', (
        SELECT json_group_array(CASE field.value
            WHEN 'no_backend' THEN 'no_backend_action'
            WHEN 'no_flow' THEN 'unmatched_packet_action'
            ELSE field.value END)
        FROM json_each(entry.value, '$.fields') AS field))
     WHERE substr(key, 1, 7) = 'events/'
        AND CASE WHEN json_valid(value) THEN value ->> '$.kind' = 'service' AND EXISTS (
            SELECT 1 FROM json_each(entry.value, '$.fields') AS field
            WHERE field.value IN ('no_backend', 'no_flow')) END;",
];

/// Schema version that this program writes.
#[expect(
    clippy::cast_possible_truncation,
    reason = "checked in the line before"
)]
pub(super) const SCHEMA: u32 = {
    assert!(MIGRATIONS.len() < 1 << 16);
    MIGRATIONS.len() as u32
};

/// A store in an SQLite file.
#[derive(Debug)]
pub struct Sqlite {
    connection: Connection,
    path: String,
}

impl Sqlite {
    /// Opens the store, or creates it. Upgrades an older schema.
    ///
    /// # Errors
    /// Fails if the file can't be used, is damaged, or was written by a newer program.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let shown = path.display().to_string();
        let file = |error| StoreError::File {
            path: shown.clone(),
            error,
        };
        if let Some(folder) = path.parent() {
            files::make_private_directory(folder).map_err(file)?;
        }
        if !path.exists() {
            create(path, &shown)?;
        }
        // SQLite would open an unwritable file read-only and fail at the first commit.
        fs::OpenOptions::new()
            .write(true)
            .open(path)
            .map_err(file)?;
        let opening = |error| StoreError::from_open_error(&shown, &error);
        let mut connection = Connection::open(path).map_err(opening)?;
        harden(&connection).map_err(opening)?;
        let found = schema_version(&connection, &shown)?;
        if found == 0 {
            // Starting with an empty store would revoke all connections.
            return Err(StoreError::damaged(&shown, "it is empty"));
        }
        check_schema(&connection, found, &shown)?;
        let set_up = |connection: &Connection| {
            connection.busy_timeout(Duration::from_secs(5))?;
            connection.pragma_update(None, "journal_mode", "wal")?;
            connection.pragma_update(None, "synchronous", "full")
        };
        set_up(&connection).map_err(opening)?;
        check_integrity(&connection, &shown)?;
        migrate(&mut connection, &shown)?;
        Ok(Self {
            connection,
            path: shown,
        })
    }

    /// Adopts identity and seed of the store that a backup was made from. Used if the store that is replaced has no
    /// readable identity.
    ///
    /// # Errors
    /// Fails if the store can't be written.
    pub fn adopt_identity(&mut self, header: &Header) -> Result<(), StoreError> {
        let write = || -> rusqlite::Result<()> {
            let transaction = self.connection.unchecked_transaction()?;
            let seed = header.seed.cast_signed();
            transaction.execute("UPDATE meta SET seed = ?1", params![seed])?;
            let store = header.store.as_bytes();
            transaction.execute("UPDATE identity SET store = ?1", params![store])?;
            transaction.commit()
        };
        write().map_err(|error| self.database_error(&error))
    }

    fn database_error(&self, error: &rusqlite::Error) -> StoreError {
        StoreError::from_database_error(&self.path, error)
    }
}

/// Creates a store under a temporary name and renames it when it is complete. An empty or incomplete file at `path` is
/// therefore always a damaged store.
fn create(path: &Path, shown: &str) -> Result<(), StoreError> {
    let file = |error| StoreError::File {
        path: shown.to_owned(),
        error,
    };
    let new = files::with_suffix(path, ".new");
    for suffix in ["", "-journal"] {
        match fs::remove_file(files::with_suffix(&new, suffix)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(file(error)),
            _ => {}
        }
    }
    // SQLite would create the file with the mode that the umask leaves. The write-ahead log gets the file's mode.
    fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&new)
        .map_err(file)?;
    let mut connection =
        Connection::open(&new).map_err(|error| StoreError::from_open_error(shown, &error))?;
    migrate(&mut connection, shown)?;
    drop(connection);
    fs::rename(&new, path).map_err(file)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(file)
}

/// Disables what a crafted database file could abuse: functions with side effects in the schema, writes to internal
/// tables, triggers, views, and cells that point outside of their page.
fn harden(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    connection.pragma_update(None, "cell_size_check", true)
}

/// Returns the schema version of the file, which must be one that this program knows.
fn schema_version(connection: &Connection, path: &str) -> Result<u32, StoreError> {
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

/// Refuses a file whose tables differ from those that the migrations up to its version create. A view in place of a
/// table, for example, would run a query of its author's choice.
fn check_schema(connection: &Connection, version: u32, path: &str) -> Result<(), StoreError> {
    type SchemaObject = (String, String, String, Option<String>);
    let parts = |connection: &Connection| -> rusqlite::Result<Vec<SchemaObject>> {
        let mut statement = connection
            .prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name")?;
        let rows = statement.query_map([], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?;
        rows.collect()
    };
    let failed = |error| StoreError::from_open_error(path, &error);
    let model = Connection::open_in_memory().map_err(failed)?;
    for script in &MIGRATIONS[..version as usize] {
        model.execute_batch(script).map_err(failed)?;
    }
    if parts(connection).map_err(failed)? == parts(&model).map_err(failed)? {
        return Ok(());
    }
    Err(StoreError::damaged(
        path,
        "its tables differ from those of its schema version",
    ))
}

/// Runs SQLite's quick check of the file, before any of its content is used.
fn check_integrity(connection: &Connection, path: &str) -> Result<(), StoreError> {
    let found: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| StoreError::from_open_error(path, &error))?;
    if found == "ok" {
        return Ok(());
    }
    Err(StoreError::damaged(path, &found))
}

/// Upgrades entries of an older schema, in an in-memory database. This program creates the tables, so only the keys and
/// values come from the backup.
///
/// # Errors
/// Fails if the schema is newer than this program's, or if a migration fails on the entries.
pub(super) fn upgrade_entries(entries: Vec<Entry>, schema: u32) -> Result<Vec<Entry>, StoreError> {
    const PATH: &str = "the backup";
    if schema == SCHEMA {
        return Ok(entries);
    }
    if schema > SCHEMA {
        return Err(StoreError::TooNew {
            path: PATH.to_owned(),
            found: schema,
            known: SCHEMA,
        });
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

fn migrate(connection: &mut Connection, path: &str) -> Result<(), StoreError> {
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

impl Store for Sqlite {
    fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        let read = || -> rusqlite::Result<Vec<Entry>> {
            let mut statement = self.connection.prepare_cached(
                "SELECT key, value, revision FROM entry
                 WHERE substr(key, 1, length(?1)) = ?1 ORDER BY key",
            )?;
            let rows = statement.query_map(params![prefix], |row| {
                Ok(Entry {
                    key: row.get(0)?,
                    value: row.get(1)?,
                    revision: row.get(2)?,
                })
            })?;
            rows.collect()
        };
        read().map_err(|error| self.database_error(&error))
    }

    fn commit(&mut self, writes: &[Write]) -> Result<u64, StoreError> {
        let path = self.path.clone();
        let database = |error| StoreError::from_database_error(&path, &error);
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(database)?;
        let last: u64 = transaction
            .query_row("SELECT revision FROM meta", [], |row| row.get(0))
            .map_err(database)?;
        let revision = last + 1;
        for write in writes {
            let found: Option<u64> = transaction
                .query_row(
                    "SELECT revision FROM entry WHERE key = ?1",
                    params![write.key],
                    |row| row.get(0),
                )
                .optional()
                .map_err(database)?;
            if found.unwrap_or(0) != write.expected {
                return Err(StoreError::Conflict(write.key.clone()));
            }
            match &write.value {
                Some(value) => transaction.execute(
                    "INSERT INTO entry VALUES (?1, ?2, ?3) ON CONFLICT (key)
                     DO UPDATE SET value = excluded.value, revision = excluded.revision",
                    params![write.key, value, revision],
                ),
                None => transaction.execute("DELETE FROM entry WHERE key = ?1", params![write.key]),
            }
            .map_err(database)?;
        }
        transaction
            .execute("UPDATE meta SET revision = ?1", params![revision])
            .map_err(database)?;
        transaction.commit().map_err(database)?;
        Ok(revision)
    }

    fn replace(&mut self, entries: &[Entry]) -> Result<u64, StoreError> {
        let path = self.path.clone();
        let database = |error| StoreError::from_database_error(&path, &error);
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(database)?;
        let write = || -> rusqlite::Result<u64> {
            let last: u64 =
                transaction.query_row("SELECT revision FROM meta", [], |row| row.get(0))?;
            // Revisions continue above those of both stores: an object must not get a version that it had before with
            // other content.
            let last_revision = entries.iter().map(|entry| entry.revision).max();
            let revision = last.max(last_revision.unwrap_or(0)) + 1;
            transaction.execute("DELETE FROM entry", [])?;
            let mut insert = transaction.prepare_cached("INSERT INTO entry VALUES (?1, ?2, ?3)")?;
            for entry in entries {
                insert.execute(params![entry.key, entry.value, revision])?;
            }
            transaction.execute("UPDATE meta SET revision = ?1", params![revision])?;
            Ok(revision)
        };
        let revision = write().map_err(database)?;
        transaction.commit().map_err(database)?;
        Ok(revision)
    }

    fn identity(&self) -> Result<Uuid, StoreError> {
        self.connection
            .query_row("SELECT store FROM identity", [], |row| {
                row.get::<_, [u8; 16]>(0)
            })
            .map(Uuid::from_bytes)
            .map_err(|error| self.database_error(&error))
    }

    fn checkpoint(&self) -> Result<(), StoreError> {
        self.connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(|error| self.database_error(&error))
    }

    fn seed(&self) -> Result<u64, StoreError> {
        self.connection
            .query_row("SELECT seed FROM meta", [], |row| row.get::<_, i64>(0))
            .map(i64::cast_unsigned)
            .map_err(|error| self.database_error(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{VersionKey, operations::tests::World},
        store::{Backup, decode_entries, load, read_backup},
    };

    fn put(key: &str, expected: u64, value: &str) -> Write {
        Write {
            key: key.to_owned(),
            expected,
            value: Some(value.to_owned()),
        }
    }

    fn open() -> (tempfile::TempDir, Sqlite) {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("deep/state.db")).unwrap();
        (folder, store)
    }

    #[test]
    fn entries_persist_after_reopening() {
        let (folder, mut store) = open();
        let seed = store.seed().unwrap();
        assert_eq!(
            store
                .commit(&[put("a/x", 0, "1"), put("b/y", 0, "2")])
                .unwrap(),
            1
        );
        assert_eq!(store.commit(&[put("a/x", 1, "3")]).unwrap(), 2);
        drop(store);
        let store = Sqlite::open(&folder.path().join("deep/state.db")).unwrap();
        assert_eq!(store.seed().unwrap(), seed);
        let entries = store.list("a/").unwrap();
        assert_eq!((entries[0].value.as_str(), entries[0].revision), ("3", 2));
        assert_eq!(store.list("").unwrap().len(), 2);
        assert_eq!(store.list("_/").unwrap(), []);
    }

    #[test]
    fn conflicting_commit_changes_nothing() {
        let (_folder, mut store) = open();
        store.commit(&[put("a", 0, "1")]).unwrap();
        for stale in [
            [put("b", 0, "2"), put("a", 0, "2")],
            [put("b", 0, "2"), put("a", 7, "2")],
            [
                put("b", 0, "2"),
                Write {
                    value: None,
                    ..put("c", 3, "")
                },
            ],
        ] {
            assert!(matches!(store.commit(&stale), Err(StoreError::Conflict(_))));
            assert_eq!(store.list("").unwrap().len(), 1);
        }
        assert_eq!(
            store
                .commit(&[Write {
                    value: None,
                    ..put("a", 1, "")
                }])
                .unwrap(),
            2
        );
        assert_eq!(store.list("").unwrap(), []);
    }

    /// Creates a store of an older schema version.
    fn store_with_schema(version: u32) -> (tempfile::TempDir, Sqlite) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let connection = Connection::open(&path).unwrap();
        for script in &MIGRATIONS[..version as usize] {
            connection.execute_batch(script).unwrap();
        }
        connection
            .pragma_update(None, "user_version", version)
            .unwrap();
        let path = path.display().to_string();
        (folder, Sqlite { connection, path })
    }

    #[test]
    fn schema_3_truncates_network_numbers_to_31_bits() {
        let (folder, mut store) = store_with_schema(2);
        let network = |number: u32| format!(r#"{{"name":"n","number":{number}}}"#);
        let writes = [
            ("networks/t/large", u32::MAX),
            ("networks/t/small", 77),
            ("services/t/large", u32::MAX),
        ]
        .map(|(key, number)| put(key, 0, &network(number)));
        store.commit(&writes).unwrap();
        let old = store.list("").unwrap();
        drop(store);
        let store = Sqlite::open(&folder.path().join("state.db")).unwrap();
        // Entries of a backup are upgraded in the same way.
        let upgraded = upgrade_entries(old, 2).unwrap().into_iter().map(|e| e.value);
        assert!(upgraded.eq(store.list("").unwrap().into_iter().map(|e| e.value)));
        let values: Vec<_> = store
            .list("")
            .unwrap()
            .into_iter()
            .map(|e| e.value)
            .collect();
        assert_eq!(
            values,
            [network(u32::MAX >> 1), network(77), network(u32::MAX)]
        );
    }

    /// Service entries as schema 5 has them, and the same ones with the names of schema 6.
    fn renamed_entries() -> Vec<(&'static str, &'static str, &'static str)> {
        vec![
            (
                "services/t/all",
                r#"{"name":"s","no_backend":"drop","no_flow":"drop","bit_rate":9007199254740993,"health_check":{"check":"tcp","unhealthy_flows":"reset"}}"#,
                r#"{"name":"s","no_backend_action":"drop","unmatched_packet_action":"drop","bit_rate":9007199254740993,"health_check":{"check":"tcp","unhealthy_flow_action":"reset"}}"#,
            ),
            (
                "services/t/new",
                r#"{"no_backend_action":"drop","name":"s"}"#,
                r#"{"no_backend_action":"drop","name":"s"}"#,
            ),
            ("services/t/not-json", "{\"no_flow\"", "{\"no_flow\""),
            (
                "events/01900000-0000-7000-8000-000000000001",
                r#"{"kind":"service","fields":["labels","no_backend","no_flow","timeouts"]}"#,
                r#"{"kind":"service","fields":["labels","no_backend_action","unmatched_packet_action","timeouts"]}"#,
            ),
            (
                "events/01900000-0000-7000-8000-000000000002",
                r#"{"kind":"network","fields":["no_flow"]}"#,
                r#"{"kind":"network","fields":["no_flow"]}"#,
            ),
            (
                "networks/t/n",
                r#"{"no_flow":"drop"}"#,
                r#"{"no_flow":"drop"}"#,
            ),
        ]
    }

    /// Returns a value's JSON, or the text itself where it is not JSON.
    fn parsed(text: &str) -> serde_json::Value {
        serde_json::from_str(text).unwrap_or_else(|_| text.into())
    }

    #[test]
    fn schema_6_renames_fields_of_services() {
        let (folder, mut store) = store_with_schema(5);
        let entries = renamed_entries();
        let writes: Vec<Write> = entries.iter().map(|(key, old, _)| put(key, 0, old)).collect();
        store.commit(&writes).unwrap();
        let old = store.list("").unwrap();
        let (identity, seed) = (store.identity().unwrap(), store.seed().unwrap());
        drop(store);
        let store = Sqlite::open(&folder.path().join("state.db")).unwrap();
        assert_eq!((store.identity().unwrap(), store.seed().unwrap()), (identity, seed));
        for upgraded in [store.list("").unwrap(), upgrade_entries(old, 5).unwrap()] {
            assert_eq!(upgraded.len(), entries.len());
            for (key, _, new) in &entries {
                let entry = upgraded.iter().find(|entry| entry.key == *key).unwrap();
                assert_eq!(parsed(&entry.value), parsed(new), "{key}");
            }
        }
    }

    #[test]
    fn state_of_schema_5_is_loaded_and_restored() {
        let old_names = |text: String| {
            text.replace("\"no_backend_action\"", "\"no_backend\"")
                .replace("\"unmatched_packet_action\"", "\"no_flow\"")
                .replace("\"unhealthy_flow_action\"", "\"unhealthy_flows\"")
        };
        let mut world = World::furnished();
        let settings = serde_json::json!({
            "nat_addresses": ["10.1.9.0/28"], "no_backend_action": "drop", "unmatched_packet_action": "drop",
            "health_check": { "check": "tcp", "unhealthy_flow_action": "reset" },
        });
        world.service("provider/other", settings).unwrap();
        let objects: Vec<(String, String)> = world
            .state
            .objects()
            .map(|object| (object.key(), object.encode().unwrap()))
            .collect();
        let (folder, mut store) = store_with_schema(5);
        let writes = objects.iter().map(|(key, value)| put(key, 0, &old_names(value.clone())));
        store.commit(&writes.collect::<Vec<Write>>()).unwrap();
        let old = store.list("").unwrap();
        assert!(old.iter().any(|entry| entry.value.contains("\"no_backend\":\"drop\"")));
        let now = jiff::Timestamp::UNIX_EPOCH;
        let header = Header::new(5, store.identity().unwrap(), store.seed().unwrap(), now);
        drop(store);

        let store = Sqlite::open(&folder.path().join("state.db")).unwrap();
        let backup = Backup { header, entries: old }.encode().unwrap();
        let restored = read_backup(&backup).unwrap().entries;
        let restored = decode_entries(restored, VersionKey::default()).unwrap();
        for loaded in [load(&store).unwrap().state, restored.state] {
            assert_eq!(loaded.objects().count(), objects.len());
            for object in loaded.objects() {
                let expected = objects.iter().find(|(key, _)| *key == object.key());
                assert_eq!(expected.map(|(_, value)| value), Some(&object.encode().unwrap()));
            }
        }
    }

    #[test]
    fn schema_3_refuses_networks_whose_numbers_collide() {
        let (folder, mut store) = store_with_schema(2);
        let network = |number: u32| format!(r#"{{"name":"n","number":{number}}}"#);
        let before = [("networks/t/a", 77), ("networks/t/b", 77 | 1 << 31)]
            .map(|(key, number)| put(key, 0, &network(number)));
        store.commit(&before).unwrap();
        drop(store);
        let path = folder.path().join("state.db");
        // The failed migration is rolled back: a second attempt fails in the same way.
        for _ in 0..2 {
            let refusal = Sqlite::open(&path).unwrap_err().to_string();
            assert!(refusal.contains("the store failed"), "{refusal}");
        }
    }

    #[test]
    fn newer_schema_is_refused() {
        let (folder, store) = open();
        store
            .connection
            .pragma_update(None, "user_version", 99)
            .unwrap();
        drop(store);
        let refusal = Sqlite::open(&folder.path().join("deep/state.db")).unwrap_err();
        assert!(
            refusal.to_string().contains("schema version 99"),
            "{refusal}"
        );
    }

    #[test]
    fn identity_is_persistent_unique_and_adoptable() {
        let (folder, store) = open();
        let identity = store.identity().unwrap();
        drop(store);
        let mut store = Sqlite::open(&folder.path().join("deep/state.db")).unwrap();
        assert_eq!(store.identity().unwrap(), identity);
        let (_folder, other) = open();
        assert_ne!(other.identity().unwrap(), identity);
        let header = Header::new(SCHEMA, other.identity().unwrap(), 9, jiff::Timestamp::now());
        store.adopt_identity(&header).unwrap();
        assert_eq!(store.identity().unwrap(), other.identity().unwrap());
        assert_eq!(store.seed().unwrap(), 9);
    }

    #[test]
    fn foreign_tables_are_refused_before_they_are_used() {
        let crafted = [
            "CREATE VIEW v AS SELECT 1",
            "DROP TABLE entry; CREATE VIEW entry AS WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL \
             SELECT n + 1 FROM r) SELECT n AS key, n AS value, n AS revision FROM r",
            "CREATE TRIGGER t AFTER INSERT ON entry BEGIN DELETE FROM entry; END",
            "CREATE INDEX i ON entry (value)",
            "CREATE VIRTUAL TABLE f USING fts5 (x)",
            "CREATE TABLE extra (x)",
            "ALTER TABLE entry ADD COLUMN extra TEXT",
            "DROP TABLE entry",
        ];
        for sql in crafted {
            let (folder, store) = open();
            let path = folder.path().join("deep/state.db");
            drop(store);
            let connection = Connection::open(&path).unwrap();
            connection.execute_batch(sql).unwrap();
            drop(connection);
            let refusal = Sqlite::open(&path).unwrap_err();
            assert!(
                matches!(refusal, StoreError::Damaged { .. }),
                "{sql}: {refusal}"
            );
        }
    }

    #[test]
    fn errors_for_users_contain_no_sql() {
        let (_folder, mut store) = open();
        store.connection.execute_batch("DROP TABLE meta").unwrap();
        for refusal in [
            store.seed().unwrap_err(),
            store.commit(&[]).unwrap_err(),
            store.replace(&[]).unwrap_err(),
        ] {
            let text = refusal.to_string();
            assert_eq!(text, "the store failed: the agent's log has the details");
        }
    }

    #[test]
    fn empty_file_is_a_damaged_store() {
        let (folder, store) = open();
        drop(store);
        let path = folder.path().join("deep/state.db");
        fs::write(&path, "").unwrap();
        let refusal = Sqlite::open(&path).unwrap_err();
        assert!(matches!(refusal, StoreError::Damaged { .. }), "{refusal}");
        assert_eq!(fs::read(&path).unwrap(), b"");
        // An incomplete file of an earlier attempt is replaced.
        fs::remove_file(&path).unwrap();
        fs::write(folder.path().join("deep/state.db.new"), "begun").unwrap();
        Sqlite::open(&path).unwrap();
    }
}
