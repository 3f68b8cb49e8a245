//! Backup file format: lines of JSON between a header and a checksum.
//!
//! ```text
//! {"format":"plgw-backup","version":1,"schema":6,"store":"…","seed":…,"created_at":"…","entries":2}
//! ["networks/blue/net","{…}",17]
//! ["tenants/blue","{…}",16]
//! {"sha256":"…"}
//! ```
//!
//! The first line identifies the store that the backup was made from. The last line holds the SHA-256 of all bytes
//! before it. A backup is untrusted input. The format is not a database file, so that it can't contain views, triggers
//! or virtual tables. Reading it takes time and memory in proportion to its length.

use std::fmt::Write as _;

use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::store::{Entry, StoreError};

/// Maximum size of a backup, in bytes.
pub const MAX_BYTES: usize = 1 << 30;

/// Maximum number of entries of a backup: all objects that the data path has room for, and a million events.
pub const MAX_ENTRIES: u64 = 4_000_000;

/// Maximum revision and event number in a backup. Later ones continue from there and must not overflow.
pub const MAX_NUMBER: u64 = 1 << 53;

/// Maximum length of a key, in bytes: the longest kind and two names.
const MAX_KEY: usize = 256;

const FORMAT: &str = "plgw-backup";
/// Name of the format in backups that earlier programs wrote.
const OLD_FORMAT: &str = "gateway-backup";
const FORMAT_VERSION: u32 = 1;

/// Reason why a file is refused as a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// The file is empty.
    #[error("the backup is empty: give a file that `plgw backup` wrote")]
    Empty,
    /// The file is larger than [`MAX_BYTES`], or has more entries than [`MAX_ENTRIES`].
    #[error(
        "the backup is larger than 1 GiB or 4000000 entries: lower event_retention before the next backup"
    )]
    TooLarge,
    /// The file is not a backup.
    #[error("the file is not a backup of a gateway: give a file that `plgw backup` wrote")]
    NotABackup,
    /// The file is an SQLite database, which programs before 0.1.0 wrote as a backup.
    #[error(
        "the backup is an SQLite file of a version before 0.1.0: stop the agent, copy the file to state.db in the \
         state directory with mode 0600, and start the agent"
    )]
    Sqlite,
    /// A newer program wrote the file.
    #[error("a newer program wrote the backup: restore it with that program")]
    TooNew,
    /// The content was truncated, extended or changed.
    #[error("the backup is damaged: its content does not match its checksum; use another copy")]
    Damaged,
    /// A revision or event number is out of range.
    #[error(
        "the backup has a revision or event number above 2^53: use a backup that `plgw backup` wrote"
    )]
    NumberTooLarge,
    /// The backup was made from another store, and the caller did not allow that.
    #[error(
        "the backup is of another gateway (its store is {backup_store}, this one is {current_store}): restore it with \
         --foreign if that is intended"
    )]
    OtherStore {
        /// Store that the backup was made from.
        backup_store: Uuid,
        /// Store that would be replaced.
        current_store: Uuid,
    },
}

/// First line of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupHeader {
    format: String,
    version: u32,
    /// Schema version of the entries.
    pub schema: u32,
    /// Identity of the store that the backup was made from.
    pub store: Uuid,
    /// Key of the data path's hashes.
    pub seed: u64,
    /// Time at which the backup was made. Earlier programs called it `made_at`.
    #[serde(alias = "made_at")]
    pub created_at: Timestamp,
    /// Number of entries.
    pub entries: u64,
}

impl BackupHeader {
    /// Creates the header of a backup without entries.
    #[must_use]
    pub fn new(schema: u32, store: Uuid, seed: u64, created_at: Timestamp) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: FORMAT_VERSION,
            schema,
            store,
            seed,
            created_at,
            entries: 0,
        }
    }
}

/// Decoded backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// First line of the file.
    pub header: BackupHeader,
    /// Entries of the store, sorted by key.
    pub entries: Vec<Entry>,
}

impl Backup {
    /// Encodes the backup as the content of a file.
    ///
    /// # Errors
    /// Fails with [`BackupError::TooLarge`] if [`Self::decode`] would refuse the size. Serialization itself does not
    /// fail for strings and numbers.
    pub fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let mut header = self.header.clone();
        header.entries = self.entries.len() as u64;
        let mut content = serde_json::to_vec(&header)?;
        content.push(b'\n');
        for Entry {
            key,
            value,
            revision,
        } in &self.entries
        {
            serde_json::to_writer(&mut content, &(key, value, revision))?;
            content.push(b'\n');
        }
        let trailer = compute_trailer(&content);
        content.extend_from_slice(trailer.as_bytes());
        content.push(b'\n');
        // A backup that can't be restored must be reported when it is made.
        if header.entries > MAX_ENTRIES || content.len() > MAX_BYTES {
            return Err(BackupError::TooLarge.into());
        }
        Ok(content)
    }

    /// Decodes the content of a file, without decoding the values of its entries.
    ///
    /// # Errors
    /// Fails if the content is not what [`Self::encode`] writes.
    pub fn decode(content: &[u8]) -> Result<Self, BackupError> {
        if content.is_empty() {
            return Err(BackupError::Empty);
        }
        if content.len() > MAX_BYTES {
            return Err(BackupError::TooLarge);
        }
        let header = decode_header(content)?;
        // Check the checksum before the content is used.
        let body = content.strip_suffix(b"\n").ok_or(BackupError::Damaged)?;
        let end = body
            .iter()
            .rposition(|byte| *byte == b'\n')
            .ok_or(BackupError::Damaged)?
            + 1;
        let (covered, trailer) = body.split_at(end);
        if trailer != compute_trailer(covered).as_bytes() {
            return Err(BackupError::Damaged);
        }
        if header.entries > MAX_ENTRIES {
            return Err(BackupError::TooLarge);
        }
        let mut entries: Vec<Entry> = Vec::new();
        let lines = covered.split_inclusive(|byte| *byte == b'\n').skip(1);
        for line in lines {
            if entries.len() as u64 == header.entries {
                return Err(BackupError::Damaged);
            }
            let (key, value, revision): (String, String, u64) =
                serde_json::from_slice(line).map_err(|_| BackupError::Damaged)?;
            // Strictly ascending keys exclude duplicates.
            let in_order = entries.last().is_none_or(|last| last.key < key);
            if key.len() > MAX_KEY || !in_order {
                return Err(BackupError::Damaged);
            }
            if revision > MAX_NUMBER {
                return Err(BackupError::NumberTooLarge);
            }
            entries.push(Entry {
                key,
                value,
                revision,
            });
        }
        if entries.len() as u64 != header.entries {
            return Err(BackupError::Damaged);
        }
        Ok(Self { header, entries })
    }
}

/// Decodes the header, by which a backup differs from other files.
fn decode_header(content: &[u8]) -> Result<BackupHeader, BackupError> {
    /// Fields of the header in every version of the format.
    #[derive(Deserialize)]
    struct FormatHeader {
        format: String,
        version: u32,
    }
    const MAX_HEADER: usize = 4_096;
    let line = content[..content.len().min(MAX_HEADER)]
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    if content.starts_with(b"SQLite format 3\0") {
        return Err(BackupError::Sqlite);
    }
    let start: FormatHeader = serde_json::from_slice(line).map_err(|_| BackupError::NotABackup)?;
    if start.format != FORMAT && start.format != OLD_FORMAT {
        return Err(BackupError::NotABackup);
    }
    if start.version > FORMAT_VERSION {
        return Err(BackupError::TooNew);
    }
    let mut header: BackupHeader =
        serde_json::from_slice(line).map_err(|_| BackupError::Damaged)?;
    FORMAT.clone_into(&mut header.format);
    Ok(header)
}

/// Returns the last line, with the SHA-256 of everything before it in hexadecimal digits.
fn compute_trailer(content: &[u8]) -> String {
    let mut sum = String::with_capacity(64);
    for byte in digest(&SHA256, content).as_ref() {
        // Writing to a string does not fail.
        let _ = write!(sum, "{byte:02x}");
    }
    format!("{{\"sha256\":\"{sum}\"}}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn backup() -> Backup {
        let entry = |key: &str, value: &str| Entry {
            key: key.to_owned(),
            value: value.to_owned(),
            revision: 7,
        };
        let store = Uuid::from_u128(0x1234);
        let mut header = BackupHeader::new(4, store, u64::MAX, Timestamp::UNIX_EPOCH);
        header.entries = 2;
        Backup {
            header,
            entries: vec![
                entry("networks/a/n", "{\"x\":\"\\n\"}"),
                entry("tenants/a", "{}"),
            ],
        }
    }

    /// Appends a valid checksum to tampered lines.
    fn with_trailer(lines: &str) -> Vec<u8> {
        let trailer = compute_trailer(lines.as_bytes());
        format!("{lines}{trailer}\n").into_bytes()
    }

    /// Returns the lines of a backup without its trailer.
    fn lines() -> String {
        let text = String::from_utf8(backup().encode().unwrap()).unwrap();
        let end = text.trim_end().rfind('\n').unwrap() + 1;
        text[..end].to_owned()
    }

    #[test]
    fn encode_and_decode_round_trip() {
        assert_eq!(Backup::decode(&backup().encode().unwrap()), Ok(backup()));
        assert_eq!(Backup::decode(&with_trailer(&lines())), Ok(backup()));
    }

    #[test]
    fn header_of_an_earlier_program_is_read() {
        let old = lines()
            .replace("plgw-backup", "gateway-backup")
            .replace("\"created_at\"", "\"made_at\"");
        assert!(old.contains("gateway-backup") && old.contains("made_at"));
        assert_eq!(Backup::decode(&with_trailer(&old)), Ok(backup()));
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_refused() {
        let content = backup().encode().unwrap();
        for length in 0..content.len() {
            assert!(
                Backup::decode(&content[..length]).is_err(),
                "{length} bytes"
            );
        }
        for index in 0..content.len() {
            for bit in 0..8 {
                let mut flipped = content.clone();
                flipped[index] ^= 1 << bit;
                assert!(
                    Backup::decode(&flipped).is_err(),
                    "bit {bit} of byte {index}"
                );
            }
        }
        let mut longer = content;
        longer.extend_from_slice(b"{}\n");
        assert_eq!(Backup::decode(&longer), Err(BackupError::Damaged));
    }

    #[test]
    fn other_files_are_refused_with_a_reason() {
        for (content, error) in [
            (&b""[..], BackupError::Empty),
            (b"SQLite format 3\0", BackupError::Sqlite),
            (b"\0", BackupError::NotABackup),
            (b"{}\n", BackupError::NotABackup),
            (
                b"{\"format\":\"other\",\"version\":1}\n",
                BackupError::NotABackup,
            ),
            (
                b"{\"format\":\"plgw-backup\",\"version\":2}\n",
                BackupError::TooNew,
            ),
            (
                b"{\"format\":\"plgw-backup\",\"version\":1}\n",
                BackupError::Damaged,
            ),
        ] {
            assert_eq!(Backup::decode(content), Err(error), "{content:?}");
        }
    }

    #[test]
    fn tampering_with_a_valid_checksum_is_refused() {
        let lines = lines();
        let entry = "[\"tenants/a\",\"{}\",7]\n";
        let key = "k".repeat(MAX_KEY + 1);
        for (lines, error) in [
            (lines.replace(entry, ""), BackupError::Damaged),
            (lines.clone() + entry, BackupError::Damaged),
            (
                lines.replace("tenants/a", "networks/a/n"),
                BackupError::Damaged,
            ),
            (lines.replace("tenants/a", "a"), BackupError::Damaged),
            (lines.replace("tenants/a", &key), BackupError::Damaged),
            (lines.replace(",7]", ",-1]"), BackupError::Damaged),
            (
                lines.replace(",7]", ",9007199254740993]"),
                BackupError::NumberTooLarge,
            ),
            (
                lines.replace(",7]", ",18446744073709551615]"),
                BackupError::NumberTooLarge,
            ),
            (
                lines.replace("\"entries\":2", "\"entries\":4000001"),
                BackupError::TooLarge,
            ),
        ] {
            assert_eq!(Backup::decode(&with_trailer(&lines)), Err(error), "{lines}");
        }
    }

    proptest! {
        #[test]
        fn random_input_is_refused_without_panic(
            content in proptest::collection::vec(any::<u8>(), 0..400),
            cut in 0usize..600,
        ) {
            prop_assert!(Backup::decode(&content).is_err());
            let mut spliced = backup().encode().unwrap();
            let cut = cut.min(spliced.len());
            spliced.truncate(cut);
            spliced.extend_from_slice(&content);
            let same = spliced == backup().encode().unwrap();
            prop_assert_eq!(Backup::decode(&spliced).is_ok(), same);
        }
    }
}
