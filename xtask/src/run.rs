//! Running commands, with a word about each.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Says what comes next.
pub(crate) fn print_step(what: &str) {
    println!("==> {what}");
}

/// Runs a command that must succeed; its output is the user's to read.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("could not run {}", display_command(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", display_command(command));
    }
    Ok(())
}

/// Runs a command silently; returns whether it succeeded and what it printed, stdout first.
pub(crate) fn capture(command: &mut Command) -> Result<(bool, String)> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("could not run {}", display_command(command)))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok((output.status.success(), text))
}

/// Runs a command silently that must succeed.
pub(crate) fn run_silently(command: &mut Command) -> Result<String> {
    let (succeeded, text) = capture(command)?;
    if !succeeded {
        bail!("{} failed:\n{text}", display_command(command));
    }
    Ok(text)
}

/// The command as a person would type it.
pub(crate) fn display_command(command: &Command) -> String {
    let arguments = std::iter::once(command.get_program()).chain(command.get_args());
    let arguments: Vec<String> = arguments
        .map(|word| {
            let word = word.to_string_lossy();
            if word.is_empty() || word.contains([' ', '*', '?', '\'', '&', '{', '}']) {
                format!("'{word}'")
            } else {
                word.into_owned()
            }
        })
        .collect();
    arguments.join(" ")
}

/// Whether this process is root's.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|metadata| {
        use std::os::unix::fs::MetadataExt as _;
        metadata.uid() == 0
    })
}
