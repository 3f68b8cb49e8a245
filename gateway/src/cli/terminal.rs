//! The only module that writes to the terminal.
//!
//! Text from elsewhere (a server's response, another tenant's labels, a file) could move the cursor, change colours
//! or reorder the line. Characters that are forbidden in users' text (`model::text`) are therefore escaped here.

#![expect(
    clippy::print_stderr,
    reason = "all other code prints through this file"
)]

use std::io::{ErrorKind, IsTerminal as _, Write as _};

use anyhow::{Context as _, Result};

use crate::model::text::{escaped, escaped_lines};

/// Text with a colour, which applies only if the output is a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StyledText {
    /// Foreground colour (ECMA-48, SGR 30 to 37); none: the terminal's default.
    pub(super) colour: Option<u8>,
    /// Text of one line, not escaped.
    pub(super) text: String,
}

/// Prints text of one or more lines, escaped. A closed pipe is not an error.
///
/// # Errors
/// If standard output can't be written.
pub(super) fn print(text: &str) -> Result<()> {
    write(&escaped_lines(text))
}

/// Prints lines of coloured pieces. Everything but the colours is escaped.
///
/// # Errors
/// If standard output can't be written.
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
        other => other.context("standard output can't be written"),
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
    fn escape_sequences_in_text_are_escaped_and_colours_are_not() {
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
