//! Embedded store: one SQLite file with a write-ahead log. Every commit is synced to the disk.

mod integrity;
mod migrations;

pub(super) use migrations::{SCHEMA, upgrade_entries};

use std::{fs, os::unix::fs::OpenOptionsExt as _, path::Path, time::Duration};

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};
use uuid::Uuid;

use crate::{
    files,
    store::{
        Entry, Store, StoreError, Write,
        backup::BackupHeader,
        sqlite::{
            integrity::{check_integrity, check_schema, harden},
            migrations::{migrate, schema_version},
        },
    },
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
    pub fn adopt_identity(&mut self, header: &BackupHeader) -> Result<(), StoreError> {
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
mod tests;
