//! `plgw backup` and `plgw restore`.

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
    agent::{STORE_FILE, backups::restore_problem},
    cli::{
        client::CliContext,
        output::Table,
        terminal::{notice, print},
    },
    config::Config,
    files,
    lock::Lock,
    model::{ConnectionState, Principal, RandomIdentifiers, VersionKey},
    store::{
        self, Backup, Baseline, Entry, PreparedRestore, RestorePlan, RestoreTarget, Sqlite,
        Store as _, StoreContents, StoreError, backup::MAX_BYTES, prepare_restore,
    },
};

/// What is asked for beside the file.
#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct RestoreArguments {
    /// The file, which `plgw backup` wrote
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
pub(in crate::cli) async fn backup(client: &CliContext, file: PathBuf) -> Result<()> {
    let shown = file.display();
    // Not over an older one that may be the only good one.
    let mut output = fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&file)
        .with_context(|| format!("could not make the file {shown}"))?;
    let written = match client.api.backup().await {
        Ok(content) => output
            .write_all(&content)
            .and_then(|()| output.sync_all())
            .with_context(|| format!("could not write to {shown}"))
            .map(|()| content.len()),
        Err(error) => Err(error),
    };
    match written {
        Ok(length) => client.print_message(&format!(
            "{length} bytes in {shown}: keep it safe, it holds secrets"
        )),
        Err(error) => {
            let _gone = fs::remove_file(&file);
            Err(error)
        }
    }
}

/// Puts a backup in the place of everything, with the agent running.
pub(in crate::cli) async fn restore(
    client: &CliContext,
    arguments: &RestoreArguments,
) -> Result<()> {
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
        client.show(&plan, render_plan)?;
        if *dry_run {
            return Ok(());
        }
        confirm()?;
    }
    let plan = api.restore(Some(false), Some(*foreign), content).await?;
    if *yes {
        client.show(&plan, render_plan)?;
    }
    client.print_message(&format!("{} is restored, and in force", file.display()))
}

/// Does the same without an agent: the store is put aside, and one made of the backup takes its place.
pub(in crate::cli) fn restore_offline(config: &Config, arguments: &RestoreArguments) -> Result<()> {
    files::restrict_umask();
    let _lock = Lock::for_maintenance(&config.state_dir, &config.bpf_dir)?;
    let shown = arguments.file.display();
    let store_path = config.state_dir.join(STORE_FILE);
    files::check_store(&store_path)?;
    let backup = store::read_backup(&read(&arguments.file)?).map_err(restore_problem)?;
    let exists = store_path.exists();
    let prepared =
        prepare(config, &store_path, backup, arguments.foreign).map_err(restore_problem)?;
    print(&render_plan(&prepared.plan).render())?;
    let known = prepared.current_header.is_some() || !exists;
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
    let written = write_store(&new, &prepared);
    if let Err(error) = written {
        remove_store(&new)?;
        return Err(error);
    }
    let old = config.state_dir.join("state.db.before-restore");
    swap_stores(&store_path, &new, &old)?;
    print(&format!("{shown} is restored. Start the agent.\n"))?;
    if exists {
        print(&format!("The store that was there is {}.\n", old.display()))?;
    }
    Ok(())
}

/// A backup that is fit to take the store's place.
struct OfflineRestore {
    backup_header: store::backup::Header,
    entries: Vec<Entry>,
    plan: RestorePlan,
    /// Identity and seed of the store that is there, if it can be read: they stay.
    current_header: Option<store::backup::Header>,
}

fn prepare(
    config: &Config,
    store_path: &Path,
    backup: Backup,
    foreign: bool,
) -> Result<OfflineRestore, StoreError> {
    let read = |current: Sqlite| -> Result<(Backup, StoreContents), StoreError> {
        let current = store::back_up(&current, Timestamp::now())?;
        let loaded = store::decode_entries(current.entries.clone(), VersionKey::default())?;
        Ok((current, loaded))
    };
    let current = match store_path
        .exists()
        .then(|| Sqlite::open(store_path).and_then(read))
    {
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
    let baseline = current.as_ref().map(|(_, loaded)| Baseline {
        state: &loaded.state,
        last_event: {
            let ids = loaded.events.iter().map(|(recorded, _)| recorded.event.id);
            ids.max().unwrap_or_default()
        },
    });
    let header = backup.header.clone();
    let replacing = RestoreTarget {
        store: current.as_ref().map(|(there, _)| there.header.store),
        accept_foreign: foreign,
    };
    let PreparedRestore { mut entries, plan } = prepare_restore(
        backup,
        baseline,
        replacing,
        &Principal::operator("operator", "offline"),
        Timestamp::now(),
        config.event_retention,
        &mut RandomIdentifiers,
    )?;
    // Versions go on from where they were.
    let revisions = current.iter().flat_map(|(there, _)| &there.entries);
    let last = revisions.map(|entry| entry.revision).max();
    for entry in &mut entries {
        entry.revision = entry.revision.max(last.unwrap_or(0));
    }
    Ok(OfflineRestore {
        backup_header: header,
        entries,
        plan,
        current_header: current.map(|(there, _)| there.header),
    })
}

/// Writes the new store to a file beside the old one.
fn write_store(new: &Path, prepared: &OfflineRestore) -> Result<()> {
    remove_store(new)?;
    let mut store = Sqlite::open(new)?;
    store.adopt_identity(
        prepared
            .current_header
            .as_ref()
            .unwrap_or(&prepared.backup_header),
    )?;
    store.replace(&prepared.entries)?;
    store.checkpoint()?;
    Ok(())
}

/// Puts the new store in the place of the old one, which gets another name. At no moment there is none.
fn swap_stores(store_path: &Path, new: &Path, old: &Path) -> Result<()> {
    let shown = store_path.display();
    let rename_error = || format!("could not put {shown} aside");
    remove_store(old)?;
    // A log that is left beside the new store would be taken for its own.
    for suffix in files::SQLITE_SUFFIXES {
        match fs::rename(
            files::with_suffix(store_path, suffix),
            files::with_suffix(old, suffix),
        ) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            moved => moved.with_context(rename_error)?,
        }
    }
    match fs::hard_link(store_path, old) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        linked => linked.with_context(rename_error)?,
    }
    fs::rename(new, store_path)
        .with_context(|| format!("could not put the new store at {shown}"))?;
    let directory = store_path.parent().unwrap_or(Path::new("."));
    fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("could not sync {}", directory.display()))
}

/// Removes a store that may be there, with the files beside it.
fn remove_store(path: &Path) -> Result<()> {
    for suffix in ["", files::SQLITE_SUFFIXES[0], files::SQLITE_SUFFIXES[1]] {
        let path = files::with_suffix(path, suffix);
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
        .and_then(|file| file.take(MAX_BYTES as u64 + 1).read_to_end(&mut content))
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
fn render_plan(plan: &RestorePlan) -> Table {
    let yes_no = |yes: bool| if yes { "yes" } else { "no" };
    let mut tables = vec![Table::Fields(vec![
        ("backup of", plan.created_at.to_string()),
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
    let header = vec!["KIND", "CREATED", "UPDATED", "DELETED"];
    tables.push(Table::Rows(header, rows.collect()));
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
        let header = vec!["CONNECTION", "SERVICE", "NOW", "AFTER"];
        tables.push(Table::Rows(header, rows));
    }
    Table::Several(tables)
}
