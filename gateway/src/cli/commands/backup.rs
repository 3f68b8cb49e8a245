//! `gateway backup` and `gateway restore`.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;

use crate::{
    agent::STORE,
    cli::client::Client,
    config::Config,
    lock::Lock,
    model::{Principal, RandomIdentifiers},
    store::{self, Before, Entry, Loaded, Sqlite, Store as _, StoreError, restored},
};

/// Writes the whole store to a file that only its owner can read.
pub(in crate::cli) async fn backup(client: &Client, file: PathBuf) -> Result<()> {
    let shown = file.display();
    // Not over an older one that may be the only good one.
    let mut to = fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&file)
        .with_context(|| format!("could not make the file {shown}"))?;
    let written = match client.api.backup().await {
        Ok(content) => to
            .write_all(&content)
            .and_then(|()| to.sync_all())
            .with_context(|| format!("could not write to {shown}"))
            .map(|()| content.len()),
        Err(error) => Err(error),
    };
    match written {
        Ok(length) => client.say(&format!(
            "{length} bytes in {shown}: keep it safe, it holds secrets"
        )),
        Err(error) => {
            let _gone = fs::remove_file(&file);
            Err(error)
        }
    }
}

/// Puts a backup in the place of everything, with the agent running.
pub(in crate::cli) async fn restore(client: &Client, file: &Path) -> Result<()> {
    let shown = file.display();
    let content = fs::read(file).with_context(|| format!("could not read {shown}"))?;
    client.api.restore(content).await?;
    client.say(&format!("{shown} is restored, and in force"))
}

/// The same without an agent: the store is put aside, and the backup takes its place.
pub(in crate::cli) fn restore_offline(config: &Config, file: &Path) -> Result<()> {
    let _lock = Lock::take(&config.state_dir, &config.bpf_dir)?;
    let shown = file.display();
    let at = config.state_dir.join(STORE);
    let new = config.state_dir.join(".restore-offline");
    fs::copy(file, &new).with_context(|| format!("could not copy {shown}"))?;
    let known = match prepare(config, &at, &new) {
        Ok(known) => known,
        Err(error) => {
            let _gone = fs::remove_file(&new);
            bail!("{shown} is no backup: {error}");
        }
    };
    let old = config.state_dir.join("state.db.before-restore");
    for suffix in ["", "-wal", "-shm"] {
        let of = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        match fs::rename(of(&at), of(&old)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            moved => moved.with_context(|| format!("could not put {} aside", at.display()))?,
        }
        match fs::rename(of(&new), of(&at)) {
            Err(error) if error.kind() == ErrorKind::NotFound && !suffix.is_empty() => {}
            moved => moved.with_context(|| format!("could not put {shown} in place"))?,
        }
    }
    println!(
        "{shown} is restored; what was there is {}. Start the agent.",
        old.display()
    );
    if !known {
        println!(
            "Which connections were ended since the backup is not known, so all that it has as \
             approved are approved anew: what flows over them now ends when the agent starts."
        );
    }
    Ok(())
}

/// Makes the copy of a backup what is to take the store's place. Says whether it is known
/// what was there.
fn prepare(config: &Config, at: &Path, new: &Path) -> Result<bool, StoreError> {
    let backup = store::read_backup(new)?;
    let read = |there: Sqlite| Ok((there.list("")?, store::load(&there)?));
    let exists = at.exists();
    let there: Option<(Vec<Entry>, Loaded)> = exists
        .then(|| Sqlite::open(at).and_then(read).ok())
        .flatten();
    let before = there.as_ref().map(|(_, loaded)| Before {
        state: &loaded.state,
        last_event: loaded.events.last().map_or(0, |(last, _)| last.event.id),
    });
    let mut entries = restored(
        backup,
        before,
        &Principal::operator("operator", "offline"),
        Timestamp::now(),
        config.events_kept,
        &mut RandomIdentifiers,
    )?;
    // Versions go on from where they were.
    let revisions = there.iter().flat_map(|(entries, _)| entries);
    let last = revisions.map(|entry| entry.revision).max();
    for entry in &mut entries {
        entry.revision = entry.revision.max(last.unwrap_or(0));
    }
    let mut store = Sqlite::open(new)?;
    store.replace(&entries)?;
    store.settle()?;
    Ok(there.is_some() || !exists)
}
