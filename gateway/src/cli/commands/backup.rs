//! `gateway backup` and `gateway restore`.

use std::{
    fs,
    io::{ErrorKind, IsTerminal as _, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use jiff::Timestamp;

use crate::{
    agent::{STORE, backups::unfit},
    cli::{
        client::Client,
        output::Table,
        terminal::{notice, print},
    },
    config::Config,
    files,
    lock::Lock,
    model::{ConnectionState, Principal, RandomIdentifiers, VersionKey},
    store::{
        self, Backup, Before, Entry, Loaded, Replacing, RestorePlan, Restored, Sqlite, Store as _,
        StoreError, backup::MOST_BYTES, restored,
    },
};

/// What is asked for beside the file.
#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct RestoreArguments {
    /// The file, which `gateway backup` wrote
    pub(in crate::cli) file: PathBuf,
    /// Change nothing, only show what would change
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// The backup may be of another gateway
    #[arg(long)]
    foreign: bool,
    /// Without an agent, which may not even start
    #[arg(long)]
    pub(in crate::cli) offline: bool,
}

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
pub(in crate::cli) async fn restore(client: &Client, arguments: &RestoreArguments) -> Result<()> {
    let RestoreArguments {
        file,
        dry_run,
        yes,
        foreign,
        ..
    } = arguments;
    let content = read(file)?;
    let api = &client.api;
    // Without a plan that somebody reads, one request does.
    if !yes {
        let plan = api
            .restore(Some(true), Some(*foreign), content.clone())
            .await?;
        client.show(&plan, shown)?;
        if *dry_run {
            return Ok(());
        }
        confirm()?;
    }
    let plan = api.restore(Some(false), Some(*foreign), content).await?;
    if *yes {
        client.show(&plan, shown)?;
    }
    client.say(&format!("{} is restored, and in force", file.display()))
}

/// Does the same without an agent: the store is put aside, and one made of the backup takes its place.
pub(in crate::cli) fn restore_offline(config: &Config, arguments: &RestoreArguments) -> Result<()> {
    files::narrow_umask();
    let _lock = Lock::for_maintenance(&config.state_dir, &config.bpf_dir)?;
    let shown = arguments.file.display();
    let at = config.state_dir.join(STORE);
    files::check_store(&at)?;
    let backup = store::read_backup(&read(&arguments.file)?).map_err(unfit)?;
    let exists = at.exists();
    let prepared = prepare(config, &at, backup, arguments.foreign).map_err(unfit)?;
    print(&self::shown(&prepared.plan).text())?;
    let known = prepared.kept.is_some() || !exists;
    if !known {
        print(
            "What is in the store can't be read. Which connections were ended since the backup is not \
             known, so all that it has as approved are approved anew: what flows over them now ends \
             when the agent starts.\n",
        )?;
    }
    if arguments.dry_run {
        return Ok(());
    }
    if !arguments.yes {
        confirm()?;
    }
    let new = config.state_dir.join(".restore-offline");
    let written = write(&new, &prepared);
    if let Err(error) = written {
        remove(&new)?;
        return Err(error);
    }
    let old = config.state_dir.join("state.db.before-restore");
    exchange(&at, &new, &old)?;
    print(&format!("{shown} is restored. Start the agent.\n"))?;
    if exists {
        print(&format!("The store that was there is {}.\n", old.display()))?;
    }
    Ok(())
}

/// A backup that is fit to take the store's place.
struct Prepared {
    backup: store::backup::Header,
    entries: Vec<Entry>,
    plan: RestorePlan,
    /// Identity and seed of the store that is there, if it can be read: they stay.
    kept: Option<store::backup::Header>,
}

fn prepare(
    config: &Config,
    at: &Path,
    backup: Backup,
    foreign: bool,
) -> Result<Prepared, StoreError> {
    let read = |there: Sqlite| -> Result<(Backup, Loaded), StoreError> {
        let there = store::back_up(&there, Timestamp::now())?;
        let loaded = store::interpret(there.entries.clone(), VersionKey::default())?;
        Ok((there, loaded))
    };
    let there = match at.exists().then(|| Sqlite::open(at).and_then(read)) {
        None => None,
        Some(Ok(there)) => Some(there),
        // What can't be read can't be compared. Any other failure, such as a full disk, may pass.
        Some(Err(
            StoreError::Damaged { .. }
            | StoreError::Decode(_)
            | StoreError::Violation(_)
            | StoreError::TooNew { .. },
        )) => None,
        Some(Err(error)) => return Err(error),
    };
    let before = there.as_ref().map(|(_, loaded)| Before {
        state: &loaded.state,
        last_event: {
            let ids = loaded.events.iter().map(|(recorded, _)| recorded.event.id);
            ids.max().unwrap_or_default()
        },
    });
    let header = backup.header.clone();
    let replacing = Replacing {
        store: there.as_ref().map(|(there, _)| there.header.store),
        foreign,
    };
    let Restored { mut entries, plan } = restored(
        backup,
        before,
        replacing,
        &Principal::operator("operator", "offline"),
        Timestamp::now(),
        config.events_kept,
        &mut RandomIdentifiers,
    )?;
    // Versions go on from where they were.
    let revisions = there.iter().flat_map(|(there, _)| &there.entries);
    let last = revisions.map(|entry| entry.revision).max();
    for entry in &mut entries {
        entry.revision = entry.revision.max(last.unwrap_or(0));
    }
    Ok(Prepared {
        backup: header,
        entries,
        plan,
        kept: there.map(|(there, _)| there.header),
    })
}

/// Writes the new store to a file beside the old one.
fn write(new: &Path, prepared: &Prepared) -> Result<()> {
    remove(new)?;
    let mut store = Sqlite::open(new)?;
    store.adopt(prepared.kept.as_ref().unwrap_or(&prepared.backup))?;
    store.replace(&prepared.entries)?;
    store.settle()?;
    Ok(())
}

/// Puts the new store in the place of the old one, which gets another name. At no moment there is none.
fn exchange(at: &Path, new: &Path, old: &Path) -> Result<()> {
    let shown = at.display();
    let aside = || format!("could not put {shown} aside");
    remove(old)?;
    // A log that is left beside the new store would be taken for its own.
    for suffix in files::BESIDE {
        match fs::rename(files::beside(at, suffix), files::beside(old, suffix)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            moved => moved.with_context(aside)?,
        }
    }
    match fs::hard_link(at, old) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        linked => linked.with_context(aside)?,
    }
    fs::rename(new, at).with_context(|| format!("could not put the new store at {shown}"))?;
    let directory = at.parent().unwrap_or(Path::new("."));
    fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("could not sync {}", directory.display()))
}

/// Removes a store that may be there, with the files beside it.
fn remove(path: &Path) -> Result<()> {
    for suffix in ["", files::BESIDE[0], files::BESIDE[1]] {
        let path = files::beside(path, suffix);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => {
                removed.with_context(|| format!("could not remove {}", path.display()))?;
            }
        }
    }
    Ok(())
}

/// Reads a file that may be anything, up to the size that a backup has at the most.
fn read(path: &Path) -> Result<Vec<u8>> {
    let shown = path.display();
    let mut content = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(MOST_BYTES as u64 + 1).read_to_end(&mut content))
        .with_context(|| format!("could not read {shown}"))?;
    Ok(content)
}

/// Asks on the terminal. Where there is none, nobody can have seen what changes.
fn confirm() -> Result<()> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        bail!(
            "nothing was changed: a restore asks on a terminal, so give --yes where there is none"
        );
    }
    notice("Restore this? [y/N]");
    let mut answer = String::new();
    input
        .read_line(&mut answer)
        .context("could not read the answer")?;
    if ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) {
        return Ok(());
    }
    bail!("nothing was changed")
}

/// Returns a plan for people.
fn shown(plan: &RestorePlan) -> Table {
    let yes_no = |yes: bool| if yes { "yes" } else { "no" };
    let mut tables = vec![Table::Fields(vec![
        ("backup of", plan.made_at.to_string()),
        ("another gateway's", yes_no(plan.foreign).to_owned()),
    ])];
    let rows = plan.changes.iter().map(|changes| {
        vec![
            changes.kind.plural().to_owned(),
            changes.created.to_string(),
            changes.updated.to_string(),
            changes.deleted.to_string(),
        ]
    });
    let head = vec!["KIND", "CREATED", "UPDATED", "DELETED"];
    tables.push(Table::Rows(head, rows.collect()));
    if !plan.connections.is_empty() {
        let state = |state: Option<ConnectionState>| {
            state.map_or_else(|| "-".to_owned(), |state| state.to_string())
        };
        let mut rows: Vec<Vec<String>> = plan
            .connections
            .iter()
            .map(|change| {
                let after = match (change.before, change.after) {
                    (Some(before), Some(after)) if before == after => {
                        format!("{after} anew: open flows end")
                    }
                    (_, after) => state(after),
                };
                let (endpoint, service) = (change.endpoint.clone(), change.service.clone());
                vec![endpoint, service, state(change.before), after]
            })
            .collect();
        let named = plan.connections.len() as u64;
        if plan.connections_changed > named {
            let more = plan.connections_changed - named;
            rows.push(vec![format!("and {more} more")]);
        }
        let head = vec!["CONNECTION", "SERVICE", "NOW", "AFTER"];
        tables.push(Table::Rows(head, rows));
    }
    Table::Several(tables)
}
