//! Execution of commands, with progress messages.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Prints the next step.
pub(crate) fn print_step(what: &str) {
    println!("==> {what}");
}

/// Runs a command that must succeed. Its output goes to the terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("{} can't be run", display_command(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", display_command(command));
    }
    Ok(())
}

/// Runs a command silently. Returns true if it succeeded, and its output, stdout first.
pub(crate) fn capture(command: &mut Command) -> Result<(bool, String)> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{} can't be run", display_command(command)))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok((output.status.success(), text))
}

/// Runs a command that must succeed silently, and returns its output.
pub(crate) fn run_silently(command: &mut Command) -> Result<String> {
    let (succeeded, text) = capture(command)?;
    if !succeeded {
        bail!("{} failed:\n{text}", display_command(command));
    }
    Ok(text)
}

/// Formats a command as a person would type it.
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

/// Returns true if this process runs as root.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|metadata| {
        use std::os::unix::fs::MetadataExt as _;
        metadata.uid() == 0
    })
}
