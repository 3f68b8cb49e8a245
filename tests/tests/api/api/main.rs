//! Behaviour of the API and the command line: problems, lists, versions, connection states and output formats.

mod command_line;
mod objects;
mod problems;

use serde_json::Value;

/// Parses a problem (RFC 9457).
fn problem(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("not a problem: {text}"))
}
