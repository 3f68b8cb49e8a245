//! `gateway backup` and `gateway restore`.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{agent::STORE, cli::client::Client, config::Config, lock::Lock, store};

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
    let understood = store::read_backup(&new).and_then(store::interpret);
    if let Err(error) = understood {
        let _gone = fs::remove_file(&new);
        bail!("{shown} is no backup: {error}");
    }
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
    Ok(())
}
