//! The embedded store: one SQLite file, write-ahead log, every commit synced to the disk.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, TransactionBehavior, params};

use crate::store::{Entry, Store, StoreError, Write};

/// What brings a store from the schema version that is the script's place to the next one.
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
    // Entries that are no objects: programs before this one would not understand them.
    "",
    // A network's number shares a word with a protocol: it has 31 bits.
    "UPDATE entry SET value = json_set(value, '$.number', value ->> '$.number' & 2147483647)
     WHERE substr(key, 1, 9) = 'networks/';
     -- No two may have become the same: each would be in the other's network.
     CREATE TEMP TABLE numbers_of_networks_differ (number INTEGER UNIQUE);
     INSERT INTO numbers_of_networks_differ
     SELECT value ->> '$.number' FROM entry WHERE substr(key, 1, 9) = 'networks/';
     DROP TABLE numbers_of_networks_differ;",
];

/// A store in an SQLite file.
#[derive(Debug)]
pub struct Sqlite {
    connection: Connection,
    path: String,
}

impl Sqlite {
    /// Opens the store, or makes it; brings an older schema up to date.
    ///
    /// # Errors
    /// When the file can't be used, or was written by a newer program.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let shown = path.display().to_string();
        let file = |error| StoreError::File {
            path: shown.clone(),
            error,
        };
        if let Some(folder) = path.parent() {
            let mut builder = fs::DirBuilder::new();
            builder
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(file)?;
        }
        // SQLite would make it readable for everyone.
        fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(file)?;
        let database = |error| StoreError::Database {
            path: shown.clone(),
            error,
        };
        let mut connection = Connection::open(path).map_err(database)?;
        let set_up = |connection: &Connection| {
            connection.busy_timeout(Duration::from_secs(5))?;
            connection.pragma_update(None, "journal_mode", "wal")?;
            connection.pragma_update(None, "synchronous", "full")
        };
        set_up(&connection).map_err(|error| damaged_or_failed(error, &shown))?;
        check(&connection, &shown)?;
        migrate(&mut connection, &shown)?;
        Ok(Self {
            connection,
            path: shown,
        })
    }

    fn failed(&self, error: rusqlite::Error) -> StoreError {
        StoreError::Database {
            path: self.path.clone(),
            error,
        }
    }
}

/// Whether the error says that the file is not what SQLite left there.
fn damaged_or_failed(error: rusqlite::Error, path: &str) -> StoreError {
    let code = error.sqlite_error_code();
    let path = path.to_owned();
    match code {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Damaged {
            path,
            found: error.to_string(),
        },
        _ => StoreError::Database { path, error },
    }
}

/// Looks for damage, before anything is built on what is there.
fn check(connection: &Connection, path: &str) -> Result<(), StoreError> {
    let found: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| damaged_or_failed(error, path))?;
    if found == "ok" {
        return Ok(());
    }
    Err(StoreError::Damaged {
        path: path.to_owned(),
        found: found.replace('\n', " "),
    })
}

/// The entries in a backup.
///
/// # Errors
/// When it is damaged, no backup at all, or of a newer program.
pub fn read_backup(path: &Path) -> Result<Vec<Entry>, StoreError> {
    // Older ones are brought up to date, so it is opened like the store itself.
    Sqlite::open(path)?.list("")
}

fn migrate(connection: &mut Connection, path: &str) -> Result<(), StoreError> {
    let database = |error| StoreError::Database {
        path: path.to_owned(),
        error,
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked in the line before"
    )]
    const KNOWN: u32 = {
        assert!(MIGRATIONS.len() < 1 << 16);
        MIGRATIONS.len() as u32
    };
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(database)?;
    let found: u32 = transaction
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(database)?;
    if found > KNOWN {
        return Err(StoreError::TooNew {
            path: path.to_owned(),
            found,
            known: KNOWN,
        });
    }
    for script in &MIGRATIONS[found as usize..] {
        transaction.execute_batch(script).map_err(database)?;
    }
    transaction
        .pragma_update(None, "user_version", KNOWN)
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
        read().map_err(|error| self.failed(error))
    }

    fn commit(&mut self, writes: &[Write]) -> Result<u64, StoreError> {
        let path = self.path.clone();
        let database = |error| StoreError::Database {
            path: path.clone(),
            error,
        };
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
        let database = |error| StoreError::Database {
            path: path.clone(),
            error,
        };
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(database)?;
        let write = || -> rusqlite::Result<u64> {
            let last: u64 =
                transaction.query_row("SELECT revision FROM meta", [], |row| row.get(0))?;
            // No object gets a version that it had before with another content.
            let theirs = entries.iter().map(|entry| entry.revision).max();
            let revision = last.max(theirs.unwrap_or(0)) + 1;
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

    fn backup(&self) -> Result<Vec<u8>, StoreError> {
        let file = |error| StoreError::File {
            path: self.path.clone(),
            error,
        };
        // Beside the store, where secrets are at home.
        let folder = Path::new(&self.path).parent().unwrap_or(Path::new("."));
        let copy = folder.join(format!(".backup-{}", std::process::id()));
        let remove = || match fs::remove_file(&copy) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        remove().map_err(file)?;
        let name = copy.display().to_string();
        let copied = self.connection.execute("VACUUM INTO ?1", params![name]);
        let content = match copied {
            Ok(_) => fs::read(&copy).map_err(file),
            Err(error) => Err(self.failed(error)),
        };
        remove().map_err(file)?;
        content
    }

    fn settle(&self) -> Result<(), StoreError> {
        self.connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(|error| self.failed(error))
    }

    fn seed(&self) -> Result<u64, StoreError> {
        self.connection
            .query_row("SELECT seed FROM meta", [], |row| row.get::<_, i64>(0))
            .map(i64::cast_unsigned)
            .map_err(|error| self.failed(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn what_is_written_is_there_after_reopening() {
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
    fn a_conflict_changes_nothing() {
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

    #[test]
    fn numbers_of_networks_are_made_to_fit() {
        let (folder, mut store) = open();
        let network = |number: u32| format!(r#"{{"name":"n","number":{number}}}"#);
        let writes = [
            ("networks/t/large", u32::MAX),
            ("networks/t/small", 77),
            ("services/t/large", u32::MAX),
        ]
        .map(|(key, number)| put(key, 0, &network(number)));
        store.commit(&writes).unwrap();
        store
            .connection
            .pragma_update(None, "user_version", 2)
            .unwrap();
        drop(store);
        let store = Sqlite::open(&folder.path().join("deep/state.db")).unwrap();
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

    #[test]
    fn networks_whose_numbers_become_the_same_are_refused() {
        let (folder, mut store) = open();
        let network = |number: u32| format!(r#"{{"name":"n","number":{number}}}"#);
        let before = [("networks/t/a", 77), ("networks/t/b", 77 | 1 << 31)]
            .map(|(key, number)| put(key, 0, &network(number)));
        store.commit(&before).unwrap();
        store
            .connection
            .pragma_update(None, "user_version", 2)
            .unwrap();
        drop(store);
        let path = folder.path().join("deep/state.db");
        // Tried again, it is as it was.
        for _ in 0..2 {
            let refusal = Sqlite::open(&path).unwrap_err().to_string();
            assert!(refusal.contains("numbers_of_networks_differ"), "{refusal}");
        }
    }

    #[test]
    fn a_newer_schema_is_left_alone() {
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
}
