//! Output of results: tables for people, JSON and YAML for programs.

use anyhow::Result;
use clap::ValueEnum;
use comfy_table::{ContentArrangement, presets::NOTHING};
use serde::Serialize;

use crate::model::text::{escaped, is_forbidden};

/// Output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Table for people, with selected fields
    Table,
    /// All fields, as JSON
    Json,
    /// All fields, as YAML
    Yaml,
}

/// Maximum width of a table, in columns.
const MAX_WIDTH: u16 = 100;

/// A table, or a list of fields with their values.
#[derive(Clone, Debug)]
pub(super) enum Table {
    /// A header, and the rows.
    Rows(Vec<&'static str>, Vec<Vec<String>>),
    /// Names and values, one pair a line.
    Fields(Vec<(&'static str, String)>),
    /// Several tables, one below the other.
    Several(Vec<Table>),
}

impl Table {
    pub(super) fn render(&self) -> String {
        match self {
            Self::Rows(_, rows) if rows.is_empty() => "none\n".to_owned(),
            Self::Rows(head, rows) => render_rows(head, rows),
            Self::Fields(fields) => {
                let rows: Vec<Vec<String>> = fields
                    .iter()
                    .filter(|(_, value)| !value.is_empty())
                    .map(|(name, value)| vec![format!("{name}:"), value.clone()])
                    .collect();
                render_rows(&[], &rows)
            }
            Self::Several(tables) => {
                let texts: Vec<String> = tables.iter().map(Self::render).collect();
                texts.join("\n")
            }
        }
    }
}

fn render_rows(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = comfy_table::Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(MAX_WIDTH);
    if !header.is_empty() {
        table.set_header(header);
    }
    // Escaped: a line feed in a cell would forge a row.
    for row in rows {
        table.add_row(row.iter().map(|cell| escaped(cell).into_owned()));
    }
    if let Some(first) = table.column_mut(0) {
        first.set_padding((0, 1));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Renders a value in the output format.
pub(super) fn render<T: Serialize>(
    format: Format,
    value: &T,
    table: impl FnOnce(&T) -> Table,
) -> Result<String> {
    Ok(match format {
        Format::Table => table(value).render(),
        Format::Json => serde_json::to_string_pretty(value)? + "\n",
        Format::Yaml => yaml(value)?,
    })
}

/// Renders a value as YAML.
///
/// A value with characters that the terminal module would escape is rendered as JSON instead. JSON is valid YAML, and
/// a JSON escape stands for the character, so a parser restores the value.
pub(super) fn yaml<T: Serialize>(value: &T) -> Result<String> {
    let text = serde_norway::to_string(value)?;
    if text.chars().any(|c| c != '\n' && is_forbidden(c)) {
        return Ok(serde_json::to_string_pretty(value)? + "\n");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_keeps_to_the_width_without_trailing_blanks() {
        let long = "a very long sentence about a problem ".repeat(8);
        let table = Table::Rows(vec!["NAME", "PROBLEM"], vec![vec!["one".to_owned(), long]]);
        let text = table.render();
        assert!(text.starts_with("NAME  PROBLEM\n"), "{text}");
        for line in text.lines() {
            assert!(
                line.chars().count() <= 100 && !line.ends_with(' '),
                "{line:?}"
            );
        }
        assert_eq!(Table::Rows(vec!["NAME"], vec![]).render(), "none\n");
    }

    #[test]
    fn control_characters_in_cells_are_escaped() {
        let cell = "a\n\u{1b}[1A\u{202e}".to_owned();
        let text = Table::Rows(vec!["NAME"], vec![vec![cell.clone()]]).render();
        assert_eq!(text, "NAME\na\\u000a\\u001b[1A\\u202e\n");
        let yaml = yaml(&std::slice::from_ref(&cell)).unwrap();
        let printed = crate::model::text::escaped_lines(&yaml);
        let back: Vec<String> = serde_norway::from_str(&printed).unwrap();
        assert_eq!(back, [cell]);
    }

    #[test]
    fn fields_without_a_value_are_omitted() {
        let fields = Table::Fields(vec![("name", "x".to_owned()), ("reason", String::new())]);
        assert_eq!(fields.render(), "name:  x\n");
    }
}
