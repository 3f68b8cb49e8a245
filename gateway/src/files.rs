//! Modes and owners of the agent's files and directories.
//!
//! The agent makes them with narrow modes, independent of the umask. It refuses those in which another user could read
//! secrets or replace files.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, Metadata, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::model::text::escaped;

/// Suffixes of the files that SQLite keeps beside a store.
pub const SQLITE_SUFFIXES: [&str; 2] = ["-wal", "-shm"];

/// Sets the umask of the process, so that files made without an explicit mode are accessible to their owner only.
pub fn restrict_umask() {
    // SAFETY: the call sets and returns a number of this process.
    unsafe { libc::umask(0o077) };
}

/// Makes a directory that no other user may enter. An existing directory is left unchanged.
///
/// # Errors
/// Fails if the directory can't be made.
pub fn make_private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes a directory that all users may enter and only the owner may write to. An existing directory is left unchanged.
///
/// # Errors
/// Fails if the directory can't be made.
pub fn make_open_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o755).create(path)?;
    // The umask may have removed bits of the mode.
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

/// Checks that no other user owns the directory or has access to it.
///
/// # Errors
/// Fails otherwise, with the remedy.
pub fn check_private_directory(path: &Path) -> Result<()> {
    let metadata = read_metadata(path)?;
    check_owner(path, &metadata)?;
    refuse_mode(path, &metadata, 0o077, "use", "700")
}

/// Checks that no other user owns the directory or can replace files in it.
///
/// # Errors
/// Fails otherwise, with the remedy.
pub fn check_open_directory(path: &Path) -> Result<()> {
    let metadata = read_metadata(path)?;
    check_owner(path, &metadata)?;
    refuse_mode(path, &metadata, 0o022, "write to", "755")
}

/// Checks that no other user owns the store's files or has access to them. Absent files pass the check.
///
/// # Errors
/// Fails otherwise, with the remedy.
pub fn check_store(path: &Path) -> Result<()> {
    for suffix in ["", SQLITE_SUFFIXES[0], SQLITE_SUFFIXES[1]] {
        let path = with_suffix(path, suffix);
        let metadata = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => {
                other.with_context(|| format!("could not read the mode of {}", path.display()))?
            }
        };
        if !metadata.is_file() {
            bail!(
                "{} is not a regular file: move the store itself there",
                path.display()
            );
        }
        check_owner(&path, &metadata)?;
        refuse_mode(&path, &metadata, 0o077, "use", "600")?;
    }
    Ok(())
}

/// Checks that a private key is not readable by all users, and writable by the owner only.
///
/// A group may read the key, as is usual for certificates that several services share.
///
/// # Errors
/// Fails otherwise, with the remedy.
pub fn check_key(path: &Path) -> Result<()> {
    let metadata = read_metadata(path)?;
    refuse_mode(path, &metadata, 0o026, "use", "640")
}

/// Prints a warning if other users have access to a file that holds a secret.
pub fn warn_if_readable_by_others(path: &Path) {
    let shown = path.display();
    if let Ok(metadata) = fs::metadata(path)
        && metadata.mode() & 0o077 != 0
    {
        let text = format!(
            "plgw: other users have access to {shown}, which holds a secret: chmod 600 {shown}"
        );
        #[expect(
            clippy::print_stderr,
            reason = "the command line prints the warning, too, and the text is escaped"
        )]
        {
            eprintln!("{}", escaped(&text));
        }
    }
}

/// Appends a suffix to the file name, as for the files that SQLite keeps beside a store.
#[must_use]
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn read_metadata(path: &Path) -> Result<Metadata> {
    fs::metadata(path).with_context(|| format!("could not read the mode of {}", path.display()))
}

fn check_owner(path: &Path, metadata: &Metadata) -> Result<()> {
    // SAFETY: the call takes nothing and returns a number.
    let user = unsafe { libc::geteuid() };
    if metadata.uid() == user {
        return Ok(());
    }
    let shown = path.display();
    bail!(
        "user {} owns {shown} and could change its contents: chown {user} {shown}",
        metadata.uid()
    )
}

fn refuse_mode(
    path: &Path,
    metadata: &Metadata,
    refused: u32,
    verb: &str,
    remedy: &str,
) -> Result<()> {
    let mode = metadata.mode() & 0o7777;
    if mode & refused == 0 {
        return Ok(());
    }
    let shown = path.display();
    // The sticky bit shows that the directory is shared on purpose, as /tmp is, so its mode must not be changed.
    if metadata.is_dir() && mode & 0o1000 != 0 {
        bail!(
            "{shown} is shared by all users (mode {mode:o}): configure a directory inside it instead"
        );
    }
    bail!("other users can {verb} {shown} (mode {mode:o}): chmod {remedy} {shown}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn permissive_modes_are_rejected_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("deep/state");
        make_private_directory(&directory).unwrap();
        assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o7777, 0o700);
        for mode in [0o755, 0o701, 0o710, 0o770, 0o777] {
            with_mode(&directory, mode);
            let refusal = check_private_directory(&directory).unwrap_err().to_string();
            let remedy = format!("chmod 700 {}", directory.display());
            assert!(refusal.ends_with(&remedy), "{mode:o}: {refusal}");
        }
        for (mode, fine) in [
            (0o755, true),
            (0o700, true),
            (0o775, false),
            (0o1777, false),
        ] {
            with_mode(&directory, mode);
            assert_eq!(check_open_directory(&directory).is_ok(), fine, "{mode:o}");
        }
    }

    #[test]
    fn every_store_file_is_checked() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("state.db");
        check_store(&store).unwrap();
        for suffix in ["", "-wal", "-shm"] {
            let file = with_suffix(&store, suffix);
            fs::write(&file, "").unwrap();
            with_mode(&file, 0o640);
            let refusal = check_store(&store).unwrap_err().to_string();
            let remedy = format!("chmod 600 {}", file.display());
            assert!(refusal.ends_with(&remedy), "{refusal}");
            with_mode(&file, 0o600);
            check_store(&store).unwrap();
        }
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&store, &link).unwrap();
        assert!(check_store(&link).is_err());
    }

    #[test]
    fn private_key_may_be_group_readable_only() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key.pem");
        fs::write(&key, "").unwrap();
        for (mode, fine) in [
            (0o600, true),
            (0o440, true),
            (0o640, true),
            (0o644, false),
            (0o660, false),
            (0o602, false),
        ] {
            with_mode(&key, mode);
            assert_eq!(check_key(&key).is_ok(), fine, "{mode:o}");
        }
    }
}
