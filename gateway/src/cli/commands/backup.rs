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
        context::CliContext,
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

/// Arguments of `plgw restore`.
#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct RestoreArguments {
    /// A file written by `plgw backup`
    pub(in crate::cli) file: PathBuf,
    /// Show the changes without applying them
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Accept a backup of another gateway
    #[arg(long)]
    foreign: bool,
    /// Replace the store's files directly, while no agent runs; for an agent that does not start
    #[arg(long)]
    pub(in crate::cli) offline: bool,
}

/// Writes the whole store to a new file that only its owner can read.
pub(in crate::cli) async fn backup(context: &CliContext, file: PathBuf) -> Result<()> {
    let shown = file.display();
    // `create_new`: an existing file may be the only good backup.
    let mut output = fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&file)
        .with_context(|| format!("the file {shown} can't be created"))?;
    let written = match context.api.backup().await {
        Ok(content) => output
            .write_all(&content)
            .and_then(|()| output.sync_all())
            .with_context(|| format!("{shown} can't be written"))
            .map(|()| content.len()),
        Err(error) => Err(error),
    };
    match written {
        Ok(length) => context.print_message(&format!(
            "backup written to {shown}, {length} bytes: keep it safe, it contains secrets"
        )),
        Err(error) => {
            let _gone = fs::remove_file(&file);
            Err(error)
        }
    }
}

/// Replaces all state with a backup, through the running agent.
pub(in crate::cli) async fn restore(
    context: &CliContext,
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
    let api = &context.api;
    // A dry run first, for the plan that is confirmed; with --yes nobody reads it.
    if !yes {
        let plan = api
            .restore(Some(true), Some(*foreign), content.clone())
            .await?;
        context.print_value(&plan, render_plan)?;
        if *dry_run {
            return Ok(());
        }
        confirm()?;
    }
    let plan = api.restore(Some(false), Some(*foreign), content).await?;
    if *yes {
        context.print_value(&plan, render_plan)?;
    }
    context.print_message(&format!("{} restored and in effect", file.display()))
}

/// Replaces all state with a backup, without an agent: a store made of the backup replaces the present one, which is
/// renamed.
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
            "The present store can't be read, so connections that were rejected or removed since the \
             backup are not known. All approved connections of the backup get a new approval: their \
             open flows end when the agent starts.\n",
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
    print(&format!("{shown} restored: start the agent.\n"))?;
    if exists {
        print(&format!(
            "The previous store was renamed to {}.\n",
            old.display()
        ))?;
    }
    Ok(())
}

/// Backup that is ready to replace the store.
struct OfflineRestore {
    backup_header: store::backup::Header,
    entries: Vec<Entry>,
    plan: RestorePlan,
    /// Header of the present store, if that can be read: its identity and seed are kept.
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
        // A damaged store can't be compared. Any other failure, such as a full disk, may be temporary.
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
    // Versions continue from the present store's: a client's older version must not match a restored object.
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

/// Writes the new store to a file beside the present one.
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

/// Replaces the present store with the new one, and renames the present one. A store exists at every moment.
fn swap_stores(store_path: &Path, new: &Path, old: &Path) -> Result<()> {
    let shown = store_path.display();
    let rename_error = || format!("{shown} can't be renamed");
    remove_store(old)?;
    // SQLite would apply a write-ahead log that is left beside the new store to it.
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
        .with_context(|| format!("the new store can't be renamed to {shown}"))?;
    let directory = store_path.parent().unwrap_or(Path::new("."));
    fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("{} can't be synced", directory.display()))
}

/// Removes a store and its SQLite side files, if they exist.
fn remove_store(path: &Path) -> Result<()> {
    for suffix in ["", files::SQLITE_SUFFIXES[0], files::SQLITE_SUFFIXES[1]] {
        let path = files::with_suffix(path, suffix);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => {
                removed.with_context(|| format!("{} can't be removed", path.display()))?;
            }
        }
    }
    Ok(())
}

/// Reads a file, up to one byte more than the maximum size of a backup: the path may be any file.
fn read(path: &Path) -> Result<Vec<u8>> {
    let shown = path.display();
    let mut content = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES as u64 + 1).read_to_end(&mut content))
        .with_context(|| format!("{shown} can't be read"))?;
    Ok(content)
}

/// Asks for confirmation on the terminal. Fails without a terminal: nobody can have read the plan.
fn confirm() -> Result<()> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        bail!(
            "nothing was changed: a restore needs confirmation on a terminal: give --yes to skip it"
        );
    }
    notice("Restore this? [y/N]");
    let mut answer = String::new();
    input
        .read_line(&mut answer)
        .context("the answer can't be read from standard input")?;
    if ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) {
        return Ok(());
    }
    bail!("nothing was changed")
}

/// Formats a plan for people.
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
                        format!("{after} (new approval: open flows end)")
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
