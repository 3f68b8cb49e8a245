//! Errors of the store, as fixed sentences for users. SQLite's own messages go to the log only.

use log::error;
use rusqlite::ErrorCode;

use crate::{
    model::{invariants::Violation, object::DecodeError},
    store::backup::BackupError,
};

/// Error of the store. The operation that failed has changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// An entry is not at the expected revision.
    #[error("{0:?} was changed by somebody else in the meantime")]
    Conflict(String),
    /// A newer program wrote the store or backup.
    #[error(
        "the store {path} has schema version {found}, newer than version {known} of this program: use the program \
         that wrote it, or a newer one"
    )]
    TooNew {
        /// Path of the file.
        path: String,
        /// Schema version of the file.
        found: u32,
        /// Newest schema version that this program knows.
        known: u32,
    },
    /// The content of the file is not what SQLite and this program wrote.
    #[error(
        "the store {path} is damaged: replace it with a backup by `plgw restore --offline FILE`; approved \
         connections keep working meanwhile"
    )]
    Damaged {
        /// Path of the file.
        path: String,
    },
    /// An entry can't be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// An entry can be decoded but violates an invariant of the state.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// A value can't be encoded.
    #[error("an object can't be stored: the agent's log has the details")]
    Encode,
    /// The database failed.
    #[error("the store failed: {0}")]
    Database(&'static str),
    /// The file or its directory can't be used.
    #[error("the store {path} can't be opened: {error}")]
    File {
        /// Path of the file.
        path: String,
        /// Error of the operating system.
        error: std::io::Error,
    },
    /// The backup can't be restored.
    #[error(transparent)]
    Backup(#[from] BackupError),
}

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> Self {
        error!("store: encoding failed error={error}");
        Self::Encode
    }
}

impl StoreError {
    /// Logs SQLite's error, and returns the fixed sentence for it.
    pub(super) fn from_database_error(path: &str, error: &rusqlite::Error) -> Self {
        error!("store: database failed path={path} error={error}");
        Self::Database(match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => "the disk is full: make room on it",
            Some(ErrorCode::ReadOnly) => "its file system is read-only: make it writable",
            Some(ErrorCode::SystemIoFailure) => "the disk failed: look at the kernel's log",
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                "another program has it locked: stop that program"
            }
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                "it is damaged: restore a backup"
            }
            _ => "the agent's log has the details",
        })
    }

    /// Returns the error for a database that can't be opened: [`Self::Damaged`] if its file is not a database.
    pub(super) fn from_open_error(path: &str, error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::damaged(path, &error.to_string())
            }
            _ => Self::from_database_error(path, error),
        }
    }

    /// Logs how the file is damaged, and returns the fixed sentence for it.
    pub(super) fn damaged(path: &str, found: &str) -> Self {
        let found = found.replace('\n', " ");
        error!("store: damaged path={path} found={found:?}");
        Self::Damaged {
            path: path.to_owned(),
        }
    }
}
