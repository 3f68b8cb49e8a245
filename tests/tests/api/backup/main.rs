//! Backups, restores and the permissions of the agent's files.
//!
//! Damaged and crafted backups are refused online and offline, without a change. A restore shows its changes and
//! asks for confirmation. No other user can read or replace the agent's files.

mod files;
mod refused;
mod restore;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use gateway::store::{Backup, Entry};
use tests::{
    net::{process::fail, topology::Testbed},
    services::agent::{Agent, binary},
};

/// Returns the command of an offline restore with the agent's settings.
fn offline(agent: &Agent, arguments: &str, file: &Path) -> Command {
    let mut restore = Command::new(binary());
    for (key, value) in agent.run_command().get_envs() {
        if let Some(value) = value {
            restore.env(key, value);
        }
    }
    restore
        .args(["restore", "--offline"])
        .args(arguments.split_whitespace())
        .arg(file);
    restore
}

/// A testbed with the file and content of its backup.
struct BackupFixture {
    testbed: Testbed,
    directory: tempfile::TempDir,
    content: Vec<u8>,
}

impl BackupFixture {
    fn new() -> Self {
        let testbed = Testbed::new();
        testbed.agent.cli("connection approve a/web");
        testbed.agent.cli("tenant token create a/t --role viewer");
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("good");
        testbed.agent.cli(&format!("backup {}", file.display()));
        let content = fs::read(&file).expect("the backup");
        Self {
            testbed,
            directory,
            content,
        }
    }

    /// Returns the path of the backup.
    fn valid_backup(&self) -> PathBuf {
        self.directory.path().join("good")
    }

    /// Writes a file beside the backup and returns its path.
    fn file(&self, content: &[u8]) -> PathBuf {
        let file = self.directory.path().join("file");
        fs::write(&file, content).expect("a file");
        file
    }

    /// Returns the backup with changed entries and a valid checksum.
    fn craft(&self, change: impl FnOnce(&mut Vec<Entry>)) -> Vec<u8> {
        let mut backup = Backup::decode(&self.content).expect("the backup");
        change(&mut backup.entries);
        backup.entries.sort_by(|one, other| one.key.cmp(&other.key));
        backup.encode().expect("a backup")
    }

    /// Checks that each file is refused online and offline, and changes nothing.
    ///
    /// A file has a name for messages, its content, and a part of the expected error.
    fn expect_all_refused(&mut self, files: &[(&str, Vec<u8>, &str)]) {
        let before = self.testbed.agent.cli("export");
        let tokens = self.testbed.agent.json("tenant token list");
        for (what, content, expected) in files {
            let file = self.file(content);
            let line = format!("restore --yes {}", file.display());
            let refusal = self.testbed.agent.cli_error(&line);
            assert!(refusal.contains(expected), "{what}: {refusal}");
            assert!(!refusal.contains("SELECT"), "{what}: {refusal}");
        }
        assert_eq!(self.testbed.agent.cli("export"), before);
        assert_eq!(self.testbed.agent.json("tenant token list"), tokens);
        self.testbed.agent.stop();
        let store = self.testbed.agent.state_directory().join("state.db");
        let bytes = fs::read(&store).expect("the store");
        for (what, content, expected) in files {
            let file = self.file(content);
            let refusal = fail(&mut offline(&self.testbed.agent, "--yes", &file));
            assert!(refusal.contains(expected), "{what}: {refusal}");
            assert_eq!(fs::read(&store).expect("the store"), bytes, "{what}");
        }
        for entry in fs::read_dir(self.testbed.agent.state_directory()).expect("a directory") {
            let name = entry.expect("a file").file_name();
            let name = name.to_string_lossy();
            let belongs_to_store = ["state.db", "state.db-wal", "state.db-shm"].contains(&&*name);
            assert!(belongs_to_store, "{name} was left beside the store");
        }
        self.testbed.agent.restart();
        assert_eq!(self.testbed.agent.cli("export"), before);
        assert_eq!(self.testbed.agent.json("tenant token list"), tokens);
    }
}
