//! The table of layers: the modules of each crate, and those that each may use.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};

use super::graph::Graph;

/// The rows of all crates.
pub(in crate::lint) struct Table(pub(super) Vec<Section>);

/// The rows of one crate.
#[derive(Debug)]
pub(super) struct Section {
    /// The crate's folder in the workspace.
    pub(super) name: String,
    pub(super) rows: Vec<Row>,
}

/// A module and what it may use.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) module: String,
    pub(super) allowed: BTreeSet<String>,
    /// The row's first line in the table.
    pub(super) line: usize,
}

impl Table {
    /// Reads the table.
    ///
    /// `[CRATE]` begins a crate, and `MODULE -> MODULE MODULE …` is a row. An indented line goes on
    /// with the row before it. A `#` begins a comment.
    ///
    /// # Errors
    /// When a line is none of these, or a crate or a module has two entries.
    pub(in crate::lint) fn parse(text: &str) -> Result<Self> {
        let mut table = Self(Vec::new());
        for (at, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim_end();
            if !line.is_empty() {
                table
                    .add(line, at + 1)
                    .with_context(|| format!("line {} of the table of layers", at + 1))?;
            }
        }
        Ok(table)
    }

    fn add(&mut self, line: &str, number: usize) -> Result<()> {
        if let Some(name) = line.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
            if self.0.iter().any(|section| section.name == name) {
                bail!("`[{name}]` is there twice: make one of both");
            }
            self.0.push(Section {
                name: name.to_owned(),
                rows: Vec::new(),
            });
            return Ok(());
        }
        let section = self
            .0
            .last_mut()
            .context("a row before the first crate: begin with `[CRATE]`")?;
        let words = |text: &str| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        if line.starts_with(char::is_whitespace) {
            let row = section
                .rows
                .last_mut()
                .context("an indented line that belongs to no row: write `MODULE -> …`")?;
            row.allowed.extend(words(line));
            return Ok(());
        }
        let (module, allowed) = line
            .split_once("->")
            .context("no row: write `MODULE -> MODULE MODULE …`")?;
        let module = module.trim();
        if section.rows.iter().any(|row| row.module == module) {
            bail!("`{module}` has two rows: make one of both");
        }
        section.rows.push(Row {
            module: module.to_owned(),
            allowed: words(allowed).into_iter().collect(),
            line: number,
        });
        Ok(())
    }
}

impl Section {
    /// Returns the row of a module: that of the longest path which leads to it.
    pub(super) fn row_of(&self, module: &str) -> Option<&Row> {
        self.rows
            .iter()
            .filter(|row| is_within(module, &row.module))
            .max_by_key(|row| row.module.len())
    }

    /// Returns the edges that the rows allow.
    pub(super) fn graph(&self) -> Graph {
        self.rows
            .iter()
            .map(|row| (row.module.clone(), row.allowed.clone()))
            .collect()
    }
}

/// Tells whether a module is another one, or lies within it.
///
/// The crate's own module, the empty path, has all others within it.
pub(super) fn is_within(module: &str, outer: &str) -> bool {
    module
        .strip_prefix(outer)
        .is_some_and(|rest| rest.is_empty() || outer.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rows_comments_and_continued_lines() {
        let table =
            Table::parse("# Head\n[one]\na -> b c # why\n  d\nb ->\n\n[two]\na -> b\n").unwrap();
        let names: Vec<_> = table.0.iter().map(|section| &section.name).collect();
        assert_eq!(names, ["one", "two"]);
        let row = &table.0[0].rows[0];
        assert_eq!((row.module.as_str(), row.line), ("a", 3));
        let allowed: Vec<_> = row.allowed.iter().collect();
        assert_eq!(allowed, ["b", "c", "d"]);
        assert!(table.0[0].rows[1].allowed.is_empty());
    }

    #[test]
    fn refuses_what_is_no_table() {
        for text in [
            "a -> b",
            "[one]\na b",
            "[one]\n  a",
            "[one]\na -> b\na -> c",
            "[one]\n[one]",
        ] {
            assert!(Table::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_longest_path_wins() {
        let table = Table::parse("[one]\nagent -> a\nagent::status -> b\n").unwrap();
        let row = |module| table.0[0].row_of(module).map(|row| row.module.as_str());
        assert_eq!(row("agent"), Some("agent"));
        assert_eq!(row("agent::core"), Some("agent"));
        assert_eq!(row("agent::status"), Some("agent::status"));
        assert_eq!(row("agent::status::health"), Some("agent::status"));
        assert_eq!(row("agents"), None);
    }
}
