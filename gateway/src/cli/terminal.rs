//! The only place that writes to the terminal. Text from elsewhere (a server's answer, another tenant's
//! labels, a file) could move the cursor, change colours or reorder what is read, so whatever text of users
//! may not hold is escaped here.

#![expect(
    clippy::print_stderr,
    reason = "all other code prints through this file"
)]

use std::io::{ErrorKind, IsTerminal as _, Write as _};

use anyhow::{Context as _, Result};

use crate::model::text::{escaped, escaped_lines};

/// Text that is shown in a colour where the output is a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StyledText {
    /// The foreground colour's number (ECMA-48, SGR 30 to 37); none for the usual one.
    pub(super) colour: Option<u8>,
    /// Text of one line, not escaped yet.
    pub(super) text: String,
}

/// Prints text of one or more lines, escaped. A reader that has gone away is no failure.
///
/// # Errors
/// When standard output can't be written.
pub(super) fn print(text: &str) -> Result<()> {
    write(&escaped_lines(text))
}

/// Prints lines of coloured pieces. Only the colours are not escaped.
///
/// # Errors
/// When standard output can't be written.
pub(super) fn print_pieces(lines: &[Vec<StyledText>]) -> Result<()> {
    let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    write(&painted(lines, coloured))
}

fn painted(lines: &[Vec<StyledText>], coloured: bool) -> String {
    let mut output = String::new();
    for line in lines {
        for StyledText { colour, text } in line {
            let text = escaped(text);
            match colour.filter(|_| coloured) {
                Some(colour) => output.push_str(&format!("\x1b[{colour}m{text}\x1b[0m")),
                None => output.push_str(&text),
            }
        }
        output.push('\n');
    }
    output
}

fn write(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.context("could not print"),
    }
}

/// Prints a notice or an error to standard error, escaped.
pub(super) fn notice(text: &str) {
    eprintln!("{}", escaped_lines(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_colours_reach_the_terminal() {
        let lines = [vec![
            StyledText {
                colour: Some(31),
                text: "- a\u{1b}[2J".to_owned(),
            },
            StyledText {
                colour: None,
                text: " b\n\u{202e}".to_owned(),
            },
        ]];
        assert_eq!(
            painted(&lines, true),
            "\u{1b}[31m- a\\u001b[2J\u{1b}[0m b\\u000a\\u202e\n"
        );
        assert_eq!(painted(&lines, false), "- a\\u001b[2J b\\u000a\\u202e\n");
    }
}
