//! One agent for one data path: locks that end with the process, however it ends.

use std::{
    fs::{self, File, TryLockError},
    path::Path,
};

use anyhow::{Context as _, Result, bail};

/// Locks held by the running agent.
#[derive(Debug)]
pub struct Lock {
    _state: File,
    _bpf: File,
}

impl Lock {
    /// Takes the locks of the state directory and of the directory on the bpf file system.
    ///
    /// # Errors
    /// When another agent has one of them.
    pub fn take(state_dir: &Path, bpf_dir: &Path) -> Result<Self> {
        Ok(Self {
            _state: lock(state_dir)?,
            _bpf: lock(bpf_dir)?,
        })
    }
}

fn lock(directory: &Path) -> Result<File> {
    fs::create_dir_all(directory)
        .with_context(|| format!("could not make the directory {}", directory.display()))?;
    let file =
        File::open(directory).with_context(|| format!("could not open {}", directory.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "another agent is running with {}: stop it first, or give this one directories of its \
             own",
            directory.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("could not lock {}", directory.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_and_the_next_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (state, bpf) = (folder.path().join("state"), folder.path().join("bpf"));
        let first = Lock::take(&state, &bpf).unwrap();
        let other = folder.path().join("other");
        for (state, bpf) in [(&state, &bpf), (&other, &bpf), (&state, &other)] {
            let refusal = Lock::take(state, bpf).unwrap_err();
            assert!(
                refusal.to_string().contains("another agent is running"),
                "{refusal}"
            );
        }
        drop(first);
        Lock::take(&state, &bpf).unwrap();
    }
}
