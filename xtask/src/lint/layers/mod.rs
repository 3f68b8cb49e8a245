//! The check of layers: which module may use which, and that there is no circle.
//!
//! The table in `xtask/layers.txt` has a row for each module. A row may name a module in a folder,
//! as `agent::status`; the longest path that fits is a file's row. As every edge of the code must be
//! in the table and the table must have no circle, the code has none. Tests may use anything, and so
//! may the crate's own file.

mod graph;
mod resolve;
mod source;
mod table;

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt::Write as _};

use graph::{Graph, circles, round_trip};
use resolve::{Crate, Edge};
use table::{Row, Section};

pub(super) use table::Table;

use super::{Finding, Report, SourceFile};

/// The name of a crate's own module, `lib.rs` or `main.rs`.
const CRATE: &str = "crate";

/// The longest line of a draft.
const MAX_COLUMNS: usize = 100;

/// Holds the code of `crates` against the table, which is the file `path`.
pub(super) fn check(table: &Table, path: &str, crates: &[&str], files: &[SourceFile]) -> Report {
    let mut findings: Vec<_> = crates
        .iter()
        .filter(|name| !table.0.iter().any(|section| section.name == **name))
        .map(|name| {
            Finding::new(
                path,
                1,
                format!("no rows for {name}: begin with `[{name}]`"),
            )
        })
        .collect();
    let (mut modules, mut edges, mut circle_count, mut file_circles) = (0, 0, 0, 0);
    for section in &table.0 {
        let code = crate_of(section, files);
        let found = rows_of(section, &code);
        modules += section.rows.len();
        edges += found.values().map(BTreeSet::len).sum::<usize>();
        findings.extend(missing_modules(section, &code, path));
        findings.extend(forbidden_edges(section, &code));
        findings.extend(stale_entries(section, &code, &found, path));
        file_circles += circles(&graph_of(&code, |module| module.to_owned())).len();
        let circles = table_circles(section, path);
        circle_count += circles.len();
        findings.extend(circles);
    }
    let summary = format!(
        "layers: {modules} modules, {edges} edges, {circle_count} circles in the table, \
         {file_circles} between files"
    );
    Report { findings, summary }
}

/// Reads the crate of a section.
fn crate_of(section: &Section, files: &[SourceFile]) -> Crate {
    let folder = format!("{}/src/", section.name);
    let files: Vec<_> = files
        .iter()
        .filter(|file| file.is_rust())
        .filter_map(|file| {
            let in_crate = file.path.strip_prefix(&folder)?;
            Some((file.path.as_str(), in_crate, file.text.as_str()))
        })
        .collect();
    Crate::from_sources(&files)
}

/// Returns the rows that an edge is between, if they are two.
fn rows_between<'a>(section: &'a Section, edge: &'a Edge) -> Option<(&'a Row, &'a str)> {
    let from = section.row_of(&edge.from)?;
    let to = if edge.to == CRATE {
        CRATE
    } else {
        &section.row_of(&edge.to)?.module
    };
    (from.module != to).then_some((from, to))
}

/// Returns the edges between rows that the code has.
fn rows_of(section: &Section, code: &Crate) -> Graph {
    let mut graph = Graph::new();
    for (from, to) in code
        .edges
        .iter()
        .filter_map(|edge| rows_between(section, edge))
    {
        graph
            .entry(from.module.clone())
            .or_default()
            .insert(to.to_owned());
    }
    graph
}

/// Reports modules that no row is for.
fn missing_modules(section: &Section, code: &Crate, path: &str) -> Vec<Finding> {
    let missing: BTreeSet<&str> = code
        .modules
        .iter()
        .filter(|module| section.row_of(module).is_none())
        .map(|module| first_parts(module, 1))
        .collect();
    missing
        .into_iter()
        .map(|module| {
            let text = format!("`{module}` of {} has no row: add one", section.name);
            Finding::new(path, 1, text)
        })
        .collect()
}

/// Reports uses that the table does not allow: the first of each file.
fn forbidden_edges(section: &Section, code: &Crate) -> Vec<Finding> {
    let mut reported = BTreeSet::new();
    code.edges
        .iter()
        .filter_map(|edge| {
            let (from, to) = rows_between(section, edge)?;
            if from.allowed.contains(to)
                || !reported.insert((&edge.file, &from.module, to.to_owned()))
            {
                return None;
            }
            let allowed: Vec<_> = from.allowed.iter().map(String::as_str).collect();
            let allowed = if allowed.is_empty() {
                "none".to_owned()
            } else {
                allowed.join(" ")
            };
            let text = format!(
                "`{}` must not use `{to}`: allowed are {allowed}: move the item down, or say in \
                 layers.txt why",
                from.module
            );
            Some(Finding::new(&edge.file, edge.line, text))
        })
        .collect()
}

/// Reports rows without a module, and entries that the code does not use.
fn stale_entries(section: &Section, code: &Crate, found: &Graph, path: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for row in &section.rows {
        if !code.modules.contains(&row.module) {
            let text = format!(
                "{} has no module `{}`: remove the row",
                section.name, row.module
            );
            findings.push(Finding::new(path, row.line, text));
            continue;
        }
        let used = found.get(&row.module);
        for entry in &row.allowed {
            if !used.is_some_and(|used| used.contains(entry)) {
                let text = format!("`{}` does not use `{entry}`: remove it", row.module);
                findings.push(Finding::new(path, row.line, text));
            }
        }
    }
    findings
}

/// Reports the circles that the table itself has.
fn table_circles(section: &Section, path: &str) -> Vec<Finding> {
    let graph = section.graph();
    circles(&graph)
        .iter()
        .map(|circle| {
            let first = section
                .rows
                .iter()
                .find(|row| circle.contains(&row.module))
                .map_or(1, |row| row.line);
            let text = format!(
                "a circle of {} modules of {}: {}: break it by moving items down",
                circle.len(),
                section.name,
                round_trip(&graph, circle).join(" -> ")
            );
            Finding::new(path, first, text)
        })
        .collect()
}

/// Returns the first `depth` parts of a module's path.
fn first_parts(module: &str, depth: usize) -> &str {
    let end = module.match_indices("::").nth(depth.saturating_sub(1));
    end.map_or(module, |(at, _)| &module[..at])
}

/// Writes the table that the code has, and its circles as comments.
///
/// The rows of `table` stay apart; other modules are taken together by the first `depth` parts of
/// their paths.
pub(super) fn draft(table: &Table, files: &[SourceFile], depth: usize) -> String {
    let mut text = String::new();
    for section in &table.0 {
        let code = crate_of(section, files);
        let row = |module: &str| -> String {
            let cut = first_parts(module, depth);
            match section.row_of(module) {
                Some(row) if row.module.len() > cut.len() => row.module.clone(),
                _ => cut.to_owned(),
            }
        };
        let graph = graph_of(&code, row);
        let edges: usize = graph.values().map(BTreeSet::len).sum();
        let circles = circles(&graph);
        // Writing to a string doesn't fail.
        let _ = writeln!(text, "[{}]", section.name);
        let _ = writeln!(text, "# {edges} edges, {} circles", circles.len());
        for circle in circles {
            let names: Vec<_> = circle.iter().map(String::as_str).collect();
            let trip = round_trip(&graph, &circle).join(" -> ");
            let _ = writeln!(text, "# circle of {}: {}", circle.len(), names.join(" "));
            let _ = writeln!(text, "#   {trip}");
        }
        for (module, used) in &graph {
            text.push_str(&row_text(module, used));
        }
        text.push('\n');
    }
    text
}

/// Returns the edges between modules that are named by `row`; the crate's own uses nothing.
fn graph_of(code: &Crate, row: impl Fn(&str) -> String) -> Graph {
    let mut graph = Graph::new();
    for module in &code.modules {
        graph.entry(row(module)).or_default();
    }
    for edge in code.edges.iter().filter(|edge| edge.from != CRATE) {
        let (from, to) = (row(&edge.from), row(&edge.to));
        if from != to {
            graph.entry(from).or_default().insert(to);
        }
    }
    graph
}

/// Writes a row, over several lines where it is long.
fn row_text(module: &str, used: &BTreeSet<String>) -> String {
    let mut text = String::new();
    let mut line = format!("{module} ->");
    for name in used {
        if line.len() + 1 + name.len() > MAX_COLUMNS {
            text.push_str(&line);
            text.push('\n');
            line = "   ".to_owned();
        }
        line.push(' ');
        line.push_str(name);
    }
    text + &line + "\n"
}
