//! Locks that keep two agents out of the same directories. The kernel releases them when the process ends.

use std::{
    fs::{self, File, TryLockError},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use anyhow::{Context as _, Result, bail};

use crate::files;

/// Locks on the directories of an agent. They are released when the value is dropped.
#[derive(Debug)]
pub struct Lock {
    _files: Vec<File>,
}

impl Lock {
    /// Takes the locks of a running agent: on the state directory, on the directory on the bpf file system, and on the
    /// run directory, which holds the control socket. Missing directories are made.
    ///
    /// # Errors
    /// Fails if another process has one of the locks, or if another user could change the contents of a directory.
    pub fn for_agent(state_dir: &Path, bpf_dir: &Path, run_dir: &Path) -> Result<Self> {
        let mut lock = Self::for_maintenance(state_dir, bpf_dir)?;
        create_directory(run_dir, files::make_open_directory)?;
        files::check_open_directory(run_dir)?;
        lock._files.push(lock_directory(run_dir)?);
        Ok(lock)
    }

    /// Takes the locks for offline work on an agent's state, while no agent is running.
    ///
    /// # Errors
    /// Fails in the same cases as [`Self::for_agent`].
    pub fn for_maintenance(state_dir: &Path, bpf_dir: &Path) -> Result<Self> {
        for directory in [state_dir, bpf_dir] {
            create_directory(directory, files::make_private_directory)?;
        }
        files::check_private_directory(state_dir)?;
        // Pinned objects have modes of their own that keep other users out.
        files::check_open_directory(bpf_dir)?;
        Ok(Self {
            _files: vec![lock_directory(state_dir)?, lock_directory(bpf_dir)?],
        })
    }
}

fn create_directory(directory: &Path, make: impl Fn(&Path) -> std::io::Result<()>) -> Result<()> {
    make(directory).with_context(|| format!("could not make the directory {}", directory.display()))
}

fn lock_directory(directory: &Path) -> Result<File> {
    let shown = directory.display();
    let file = File::open(directory).with_context(|| format!("could not open {shown}"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let holder = match lock_holder(&file) {
                Some(process) => format!(" (process {process})"),
                None => String::new(),
            };
            bail!(
                "another agent is running with {shown}{holder}: stop it first, or configure other directories \
                 for this one"
            )
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("could not lock {shown}"))
        }
    }
}

/// Returns the process that holds the lock, if `/proc/locks` shows it.
fn lock_holder(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let (major, minor) = (libc::major(metadata.dev()), libc::minor(metadata.dev()));
    parse_lock_holder(
        &locks,
        &format!("{major:02x}:{minor:02x}:{}", metadata.ino()),
    )
}

/// Finds the holder of the lock on an inode in the text of `/proc/locks` (proc_locks(5)).
fn parse_lock_holder(locks: &str, inode: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields[..] {
            [_, "FLOCK", _, _, process, file_id, ..] if file_id == inode => process.parse().ok(),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_is_exclusive_and_released_on_drop() {
        let folder = tempfile::tempdir().unwrap();
        let lock = |names: [&str; 3]| {
            let [state, bpf, run] = names.map(|name| folder.path().join(name));
            Lock::for_agent(&state, &bpf, &run)
        };
        let first = lock(["state", "bpf", "run"]).unwrap();
        for names in [
            ["state", "bpf", "run"],
            ["other", "bpf", "other-run"],
            ["state", "other", "other-run"],
            ["other", "other-bpf", "run"],
        ] {
            let refusal = lock(names).unwrap_err().to_string();
            let holder = format!("(process {})", std::process::id());
            assert!(
                refusal.contains("another agent is running") && refusal.contains(&holder),
                "{names:?}: {refusal}"
            );
        }
        drop(first);
        lock(["state", "bpf", "run"]).unwrap();
    }

    #[test]
    fn lock_holder_is_found_by_device_and_inode() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 fe:01:99 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 8 fe:01:9 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 9 fe:01:99 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 10 fe:01:99 0 EOF\n";
        assert_eq!(parse_lock_holder(locks, "fe:01:99"), Some(10));
        assert_eq!(parse_lock_holder(locks, "fe:02:99"), None);
        assert_eq!(parse_lock_holder("", "fe:01:99"), None);
    }
}
