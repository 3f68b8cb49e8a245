//! `plgw backup` and `plgw restore`.

use std::{
    fs,
    io::{IsTerminal as _, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{
    agent::controller::restore_problem,
    cli::{
        context::CliContext,
        output::Table,
        terminal::{notice, print},
    },
    config::Config,
    files, former_paths,
    lock::Lock,
    model::ConnectionState,
    store::{self, OfflineRestore, RestorePlan, STORE_FILE, backup::MAX_BYTES},
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

/// Replaces all state with a backup, without an agent: a store made of the backup replaces the present one.
pub(in crate::cli) fn restore_offline(config: &Config, arguments: &RestoreArguments) -> Result<()> {
    former_paths::check(&config.state_dir, &config.bpf_dir)?;
    files::restrict_umask();
    let lock = Lock::for_maintenance(&config.state_dir, &config.bpf_dir)?;
    let store_path = config.state_dir.join(STORE_FILE);
    files::check_store(&store_path)?;
    let backup = store::read_backup(&read(&arguments.file)?).map_err(restore_problem)?;
    let restore = OfflineRestore::prepare(
        &store_path,
        backup,
        arguments.foreign,
        config.event_retention,
        &lock,
    )
    .map_err(restore_problem)?;
    print(&render_plan(restore.plan()).render())?;
    if restore.is_present_store_unreadable() {
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
    let previous = restore.apply(&lock)?;
    print(&format!(
        "{} restored: start the agent.\n",
        arguments.file.display()
    ))?;
    if let Some(previous) = previous {
        print(&format!(
            "The previous store was renamed to {}.\n",
            previous.display()
        ))?;
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
