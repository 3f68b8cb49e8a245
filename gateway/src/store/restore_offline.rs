//! Restore of a backup while no agent runs: a store made of the backup replaces the present store's files.
//!
//! The present store may be damaged: if it can't be read, nothing is known about decisions since the backup, so every
//! approved connection of the backup gets a new generation, which ends its open flows.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;

use crate::{
    files,
    lock::Lock,
    model::{Principal, RandomIdentifiers, VersionKey},
    store::{
        Backup, Baseline, Entry, PreparedRestore, RestorePlan, RestoreTarget, Sqlite, Store as _,
        StoreContents, StoreError, back_up, backup::BackupHeader, decode_entries, prepare_restore,
    },
};

/// Name of the new store's file until it replaces the present store, in the same directory.
const NEW_STORE_FILE: &str = ".restore-offline";

/// Suffix of the file that the present store is renamed to.
const PREVIOUS_SUFFIX: &str = ".before-restore";

/// Backup that is ready to replace the store.
#[derive(Debug)]
pub struct OfflineRestore {
    store_path: PathBuf,
    /// True if there is a present store, readable or not.
    exists: bool,
    backup_header: BackupHeader,
    entries: Vec<Entry>,
    plan: RestorePlan,
    /// Header of the present store, if that can be read: its identity and seed are kept.
    present_header: Option<BackupHeader>,
}

impl OfflineRestore {
    /// Compares a backup with the present store at `store_path`, and changes nothing. The lock ensures that no agent
    /// uses the store.
    ///
    /// # Errors
    /// If the backup can't be restored, or the present store can't be read for a reason that may be temporary, such as
    /// a full disk.
    pub fn prepare(
        store_path: &Path,
        backup: Backup,
        accept_foreign: bool,
        event_retention: usize,
        _lock: &Lock,
    ) -> Result<Self, StoreError> {
        let exists = store_path.exists();
        let present = if exists {
            read_present(store_path)?
        } else {
            None
        };
        let baseline = present.as_ref().map(|(_, contents)| Baseline {
            state: &contents.state,
            last_event: {
                let events = contents.events.iter();
                let ids = events.map(|(stored, _)| stored.event.id);
                ids.max().unwrap_or_default()
            },
        });
        let target = RestoreTarget {
            store: present.as_ref().map(|(present, _)| present.header.store),
            accept_foreign,
        };
        let backup_header = backup.header.clone();
        let PreparedRestore { mut entries, plan } = prepare_restore(
            backup,
            baseline,
            target,
            &Principal::operator("operator", "offline"),
            Timestamp::now(),
            event_retention,
            &mut RandomIdentifiers,
        )?;
        // Versions continue from the present store's: a client's older version must not match a restored object.
        let present_entries = present.iter().flat_map(|(present, _)| &present.entries);
        let last_revision = present_entries.map(|entry| entry.revision).max();
        for entry in &mut entries {
            entry.revision = entry.revision.max(last_revision.unwrap_or(0));
        }
        Ok(Self {
            store_path: store_path.to_owned(),
            exists,
            backup_header,
            entries,
            plan,
            present_header: present.map(|(present, _)| present.header),
        })
    }

    /// Returns the changes that the restore makes.
    #[must_use]
    pub const fn plan(&self) -> &RestorePlan {
        &self.plan
    }

    /// Returns true if there is a present store that can't be read.
    #[must_use]
    pub const fn is_present_store_unreadable(&self) -> bool {
        self.exists && self.present_header.is_none()
    }

    /// Replaces the present store. Returns the path that it was renamed to, if there was one.
    ///
    /// # Errors
    /// If a file can't be written or renamed.
    pub fn apply(self, _lock: &Lock) -> Result<Option<PathBuf>> {
        let new = self.store_path.with_file_name(NEW_STORE_FILE);
        if let Err(error) = self.write_store(&new) {
            remove_store(&new)?;
            return Err(error);
        }
        let previous = files::with_suffix(&self.store_path, PREVIOUS_SUFFIX);
        swap_stores(&self.store_path, &new, &previous)?;
        Ok(self.exists.then_some(previous))
    }

    /// Writes the new store to a file.
    fn write_store(&self, path: &Path) -> Result<()> {
        remove_store(path)?;
        let mut store = Sqlite::open(path)?;
        let header = self.present_header.as_ref();
        store.adopt_identity(header.unwrap_or(&self.backup_header))?;
        store.replace(&self.entries)?;
        store.checkpoint()?;
        Ok(())
    }
}

/// Reads the present store. Returns `None` if it is damaged.
fn read_present(path: &Path) -> Result<Option<(Backup, StoreContents)>, StoreError> {
    let read = |store: Sqlite| {
        let present = back_up(&store, Timestamp::now())?;
        let contents = decode_entries(present.entries.clone(), VersionKey::default())?;
        Ok((present, contents))
    };
    match Sqlite::open(path).and_then(read) {
        Ok(present) => Ok(Some(present)),
        Err(
            StoreError::Damaged { .. }
            | StoreError::Decode(_)
            | StoreError::Violation(_)
            | StoreError::TooNew { .. },
        ) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces the present store with the new one, and renames the present one to `previous`. A store exists at every
/// moment.
fn swap_stores(store_path: &Path, new: &Path, previous: &Path) -> Result<()> {
    let shown = store_path.display();
    let rename_error = || format!("{shown} can't be renamed");
    remove_store(previous)?;
    // SQLite would apply a write-ahead log that is left beside the new store to it.
    for suffix in files::SQLITE_SUFFIXES {
        let from = files::with_suffix(store_path, suffix);
        match fs::rename(from, files::with_suffix(previous, suffix)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            renamed => renamed.with_context(rename_error)?,
        }
    }
    match fs::hard_link(store_path, previous) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        linked => linked.with_context(rename_error)?,
    }
    fs::rename(new, store_path)
        .with_context(|| format!("the new store can't be renamed to {shown}"))?;
    let directory = store_path.parent().unwrap_or(Path::new("."));
    fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("{} can't be synced", directory.display()))
}

/// Removes a store and its SQLite side files, if they exist.
fn remove_store(path: &Path) -> Result<()> {
    for suffix in ["", files::SQLITE_SUFFIXES[0], files::SQLITE_SUFFIXES[1]] {
        let path = files::with_suffix(path, suffix);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.with_context(|| format!("{} can't be removed", path.display()))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        folder: tempfile::TempDir,
        lock: Lock,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let lock =
                Lock::for_maintenance(&folder.path().join("state"), &folder.path().join("bpf"));
            Self {
                lock: lock.unwrap(),
                folder,
            }
        }

        fn store_path(&self) -> PathBuf {
            self.folder.path().join("state/state.db")
        }

        fn backup(&self) -> Backup {
            back_up(&Sqlite::open(&self.store_path()).unwrap(), Timestamp::now()).unwrap()
        }

        fn prepare(&self, backup: Backup, foreign: bool) -> Result<OfflineRestore, StoreError> {
            OfflineRestore::prepare(&self.store_path(), backup, foreign, 100, &self.lock)
        }
    }

    #[test]
    fn a_restore_keeps_the_identity_of_a_readable_store_and_the_previous_files() {
        let (fixture, other) = (Fixture::new(), Fixture::new());
        let present = fixture.backup().header.store;
        let foreign = other.backup();
        assert!(fixture.prepare(foreign.clone(), false).is_err());
        let restore = fixture.prepare(foreign, true).unwrap();
        assert!(restore.plan().foreign && !restore.is_present_store_unreadable());
        let previous = restore.apply(&fixture.lock).unwrap().unwrap();
        assert_eq!(fixture.backup().header.store, present);
        assert!(previous.ends_with("state.db.before-restore") && previous.exists());
        let new = fixture.store_path().with_file_name(NEW_STORE_FILE);
        assert!(!new.exists());
    }

    #[test]
    fn a_restore_over_a_damaged_store_takes_the_identity_of_the_backup() {
        let (fixture, other) = (Fixture::new(), Fixture::new());
        let backup = other.backup();
        let identity = backup.header.store;
        fs::write(fixture.store_path(), "not a database".repeat(100)).unwrap();
        let restore = fixture.prepare(backup, false).unwrap();
        assert!(restore.is_present_store_unreadable());
        let previous = restore.apply(&fixture.lock).unwrap().unwrap();
        assert_eq!(fixture.backup().header.store, identity);
        assert!(fs::read(previous).unwrap().starts_with(b"not a database"));
    }

    #[test]
    fn a_restore_without_a_present_store_renames_nothing() {
        let (fixture, other) = (Fixture::new(), Fixture::new());
        let restore = fixture.prepare(other.backup(), false).unwrap();
        assert!(!restore.is_present_store_unreadable());
        assert_eq!(restore.apply(&fixture.lock).unwrap(), None);
        assert!(fixture.store_path().exists());
    }
}
