//! The agent's log on standard error, one line for each record.

use std::io::Write as _;

use log::{LevelFilter, Record};

use crate::model::text::escaped;

/// Starts the logger of the process. Records are written as `[TIME LEVEL MODULE] MESSAGE`.
///
/// Control characters in messages are escaped, because they could forge a line or control the reader's terminal.
pub fn init(level: LevelFilter) {
    env_logger::Builder::new()
        .filter_module("gateway", level)
        .filter_module("aya", level.min(LevelFilter::Warn))
        .format(|buffer, record| {
            let at = buffer.timestamp();
            writeln!(buffer, "[{at} {}", format_record(record))
        })
        .init();
}

/// Formats a record without its time.
fn format_record(record: &Record<'_>) -> String {
    let (level, target) = (record.level(), record.target());
    let message = record.args().to_string();
    format!("{level:<5} {target}] {}", escaped(&message))
}

#[cfg(test)]
mod tests {
    use log::Level;

    use super::*;

    #[test]
    fn control_characters_in_messages_are_escaped() {
        let mut record = Record::builder();
        record.level(Level::Info).target("gateway::agent");
        let shown = format_record(
            &record
                .args(format_args!(
                    "{}",
                    "a\n[2026 INFO  x] b\u{1b}[2J\u{9b}2J\u{202e}"
                ))
                .build(),
        );
        assert_eq!(
            shown,
            "INFO  gateway::agent] a\\u000a[2026 INFO  x] b\\u001b[2J\\u009b2J\\u202e"
        );
    }
}
