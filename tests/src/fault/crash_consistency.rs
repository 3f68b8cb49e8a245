//! Power cuts: what a program wrote and synced, as strace saw it, and the files that a disk may hold when
//! the power goes at any moment of that.

use std::{collections::BTreeMap, fs, path::Path};

/// One thing that was done to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum FileOperation {
    Write(u64, Vec<u8>),
    Truncate(u64),
    Sync,
    Remove,
}

/// What was done to files, by their names' last parts, in order.
#[derive(Debug, Default)]
pub struct SyscallTrace {
    /// The files that were there before, whole.
    initial_files: BTreeMap<String, Vec<u8>>,
    operations: Vec<(String, FileOperation)>,
}

/// What happens to writes that were not synced when the power goes. A disk may do any of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnsyncedWrites {
    /// None of them is there.
    Lost,
    /// All of them are.
    Kept,
    /// Every second one is.
    Holes,
    /// All are, but of the last one only half.
    Torn,
}

impl UnsyncedWrites {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Lost, Self::Kept, Self::Holes, Self::Torn];
}

impl SyscallTrace {
    /// From what strace wrote with `-f -y -xx` of `pwrite64`, `ftruncate`, `fsync`, `fdatasync` and
    /// `unlink`.
    ///
    /// # Panics
    /// When a line can't be understood.
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
            let step = match name {
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
            let file = if step == FileOperation::Remove {
                rest.split('"').nth(1)
            } else {
                rest.split(['<', '>']).nth(1)
            };
            let file = String::from_utf8(unescape(file.expect("a path"))).expect("text");
            let name = file.rsplit('/').next().expect("a name").to_owned();
            trace.operations.push((name, step));
        }
        trace
    }

    /// Takes in a file that was there before the first step.
    #[must_use]
    pub fn with_file(mut self, name: &str, content: Vec<u8>) -> Self {
        self.initial_files.insert(name.to_owned(), content);
        self
    }

    /// After how many steps the power can go.
    #[must_use]
    pub fn moments(&self) -> usize {
        self.operations.len() + 1
    }

    /// Writes the files as a disk may have them when the power goes after so many steps.
    ///
    /// # Panics
    /// When they can't be written.
    pub fn cut(&self, moment: usize, unsynced: UnsyncedWrites, directory: &Path) {
        let before = self.initial_files.iter();
        let mut files: BTreeMap<&str, Vec<u8>> = before
            .map(|(name, content)| (name.as_str(), content.clone()))
            .collect();
        let done = &self.operations[..moment];
        for (place, (name, step)) in done.iter().enumerate() {
            let of_file = |other: &&(String, FileOperation)| other.0 == *name;
            let later = || done[place + 1..].iter().filter(of_file);
            let synced = later().any(|(_, step)| *step == FileOperation::Sync);
            let is_last = !later().any(|(_, step)| matches!(step, FileOperation::Write(..)));
            let here = synced
                || match unsynced {
                    UnsyncedWrites::Lost => false,
                    UnsyncedWrites::Kept | UnsyncedWrites::Torn => true,
                    UnsyncedWrites::Holes => place % 2 == 0,
                };
            if !here {
                continue;
            }
            match step {
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

/// `\x61\x62` as bytes.
fn unescape(text: &str) -> Vec<u8> {
    let pairs = text.split("\\x").skip(1);
    pairs
        .map(|pair| u8::from_str_radix(&pair[..2], 16).expect("a byte"))
        .collect()
}
