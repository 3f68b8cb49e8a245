//! Checks of a database file, whose content is untrusted until it has passed them.

use rusqlite::{Connection, config::DbConfig};

use crate::store::{StoreError, sqlite::migrations::MIGRATIONS};

/// Disables what a crafted database file could abuse: functions with side effects in the schema, writes to internal
/// tables, triggers, views, and cells that point outside of their page.
pub(super) fn harden(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    connection.pragma_update(None, "cell_size_check", true)
}

/// Refuses a file whose tables differ from those that the migrations up to its version create. A view in place of a
/// table, for example, would run a query of its author's choice.
pub(super) fn check_schema(
    connection: &Connection,
    version: u32,
    path: &str,
) -> Result<(), StoreError> {
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
pub(super) fn check_integrity(connection: &Connection, path: &str) -> Result<(), StoreError> {
    let found: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| StoreError::from_open_error(path, &error))?;
    if found == "ok" {
        return Ok(());
    }
    Err(StoreError::damaged(path, &found))
}
