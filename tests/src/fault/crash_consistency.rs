//! Simulated power cuts: the file operations of a program, as strace recorded them, and the files that a disk may hold
//! after a power cut at any point of them.

use std::{collections::BTreeMap, fs, path::Path};

/// An operation on a file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum FileOperation {
    Write(u64, Vec<u8>),
    Truncate(u64),
    Sync,
    Remove,
}

/// File operations in order, each with the last part of the file's name.
#[derive(Debug, Default)]
pub struct SyscallTrace {
    /// Content of the files that existed before.
    initial_files: BTreeMap<String, Vec<u8>>,
    operations: Vec<(String, FileOperation)>,
}

/// The fate of writes that were not synced at a power cut. A disk may do any of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnsyncedWrites {
    /// None persisted.
    Lost,
    /// All persisted.
    Kept,
    /// Every second one persisted.
    Holes,
    /// All persisted, but only half of the last one.
    Torn,
}

impl UnsyncedWrites {
    /// Every fate.
    pub const ALL: [Self; 4] = [Self::Lost, Self::Kept, Self::Holes, Self::Torn];
}

impl SyscallTrace {
    /// Parses the output of `strace -f -y -xx` for `pwrite64`, `ftruncate`, `fsync`, `fdatasync` and `unlink`.
    ///
    /// # Panics
    /// Panics if a line can't be understood.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("strace's file");
        let mut trace = Self::default();
        for line in text.lines() {
            let call = line
                .split_once(' ')
                .map_or("", |(_, call)| call.trim_start());
            let Some((name, rest)) = call.split_once('(') else {
                continue;
            };
            let operation = match name {
                "pwrite64" => {
                    let data = rest.split('"').nth(1).expect("data");
                    let after = rest.rsplit_once('"').expect("an end").1;
                    let numbers = after.split(')').next().expect("numbers");
                    let offset = numbers
                        .rsplit(", ")
                        .next()
                        .and_then(|text| text.parse().ok());
                    FileOperation::Write(offset.expect("an offset"), unescape(data))
                }
                "ftruncate" => {
                    let length = rest
                        .split(", ")
                        .nth(1)
                        .and_then(|text| text.split(')').next());
                    FileOperation::Truncate(
                        length.and_then(|text| text.parse().ok()).expect("a length"),
                    )
                }
                "fsync" | "fdatasync" => FileOperation::Sync,
                "unlink" => FileOperation::Remove,
                _ => continue,
            };
            let file = if operation == FileOperation::Remove {
                rest.split('"').nth(1)
            } else {
                rest.split(['<', '>']).nth(1)
            };
            let file = String::from_utf8(unescape(file.expect("a path"))).expect("text");
            let name = file.rsplit('/').next().expect("a name").to_owned();
            trace.operations.push((name, operation));
        }
        trace
    }

    /// Adds a file that existed before the first operation.
    #[must_use]
    pub fn with_file(mut self, name: &str, content: Vec<u8>) -> Self {
        self.initial_files.insert(name.to_owned(), content);
        self
    }

    /// Returns the number of points at which the power can be cut.
    #[must_use]
    pub fn crash_points(&self) -> usize {
        self.operations.len() + 1
    }

    /// Writes the files as a disk may hold them after a power cut at `crash_point`.
    ///
    /// # Panics
    /// Panics if they can't be written.
    pub fn replay_until(&self, crash_point: usize, unsynced: UnsyncedWrites, directory: &Path) {
        let before = self.initial_files.iter();
        let mut files: BTreeMap<&str, Vec<u8>> = before
            .map(|(name, content)| (name.as_str(), content.clone()))
            .collect();
        let done = &self.operations[..crash_point];
        for (index, (name, operation)) in done.iter().enumerate() {
            let of_file = |other: &&(String, FileOperation)| other.0 == *name;
            let later = || done[index + 1..].iter().filter(of_file);
            let synced = later().any(|(_, operation)| *operation == FileOperation::Sync);
            let is_last =
                !later().any(|(_, operation)| matches!(operation, FileOperation::Write(..)));
            let persisted = synced
                || match unsynced {
                    UnsyncedWrites::Lost => false,
                    UnsyncedWrites::Kept | UnsyncedWrites::Torn => true,
                    UnsyncedWrites::Holes => index % 2 == 0,
                };
            if !persisted {
                continue;
            }
            match operation {
                FileOperation::Write(offset, data) => {
                    let file = files.entry(name).or_default();
                    let torn = unsynced == UnsyncedWrites::Torn && !synced && is_last;
                    let data = if torn { &data[..data.len() / 2] } else { data };
                    let start = usize::try_from(*offset).expect("an offset");
                    file.resize(file.len().max(start + data.len()), 0);
                    file[start..start + data.len()].copy_from_slice(data);
                }
                FileOperation::Truncate(length) => {
                    let length = usize::try_from(*length).expect("a length");
                    files.entry(name).or_default().resize(length, 0);
                }
                FileOperation::Remove => {
                    files.remove(name.as_str());
                }
                FileOperation::Sync => {}
            }
        }
        for (name, content) in files {
            fs::write(directory.join(name), content).expect("a file");
        }
    }
}

/// Decodes `\x61\x62`.
fn unescape(text: &str) -> Vec<u8> {
    let pairs = text.split("\\x").skip(1);
    pairs
        .map(|pair| u8::from_str_radix(&pair[..2], 16).expect("a byte"))
        .collect()
}
