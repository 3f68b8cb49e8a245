//! The house rules that no compiler checks: words, the size of files, and the layers of modules.
//!
//! Every check reads the same files and returns a [`Report`]: one line of figures, and the places to
//! correct.

mod banned_words;
mod doc_comments;
mod file_size;
mod layers;
mod lexer;

use std::{fmt, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::run::{print_step, run_silently};

/// The list of words that are not used, in the workspace.
const BANNED_WORDS: &str = "xtask/banned-words.txt";

/// The table of modules and of those that they may use, in the workspace.
const LAYERS: &str = "xtask/layers.txt";

/// The crates that the table must have.
const LAYERED_CRATES: [&str; 3] = ["gateway-common", "gateway", "gateway-ebpf"];

/// A file of the workspace, by its path in it.
struct SourceFile {
    path: String,
    text: String,
}

impl SourceFile {
    fn new(path: &str, text: String) -> Self {
        Self {
            path: path.to_owned(),
            text,
        }
    }

    /// Returns the extension of the file's name.
    fn extension(&self) -> &str {
        self.path.rsplit_once('.').map_or("", |(_, end)| end)
    }

    fn is_rust(&self) -> bool {
        self.extension() == "rs"
    }
}

/// A place that a check objects to, and why.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    line: usize,
    text: String,
}

impl Finding {
    fn new(path: &str, line: usize, text: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            text: text.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}", self.path, self.line, self.text)
    }
}

/// The result of one check.
struct Report {
    findings: Vec<Finding>,
    /// The check's figures, in one line.
    summary: String,
}

/// Runs all checks, prints what they found, and fails if that is anything.
pub(crate) fn tidy(workspace: &Path) -> Result<()> {
    print_step("checking words and layers");
    let files = files(workspace)?;
    let banned = fs::read_to_string(workspace.join(BANNED_WORDS))
        .with_context(|| format!("could not read {BANNED_WORDS}"))?;
    let reports = [
        doc_comments::check(&files),
        banned_words::check(&banned_words::List::parse(&banned)?, &files),
        file_size::check(&files),
        layers::check(&layers_table(workspace)?, LAYERS, &LAYERED_CRATES, &files),
    ];
    let mut count = 0;
    for report in &reports {
        for finding in &report.findings {
            println!("{finding}");
        }
        count += report.findings.len();
    }
    for report in &reports {
        println!("{}", report.summary);
    }
    if count > 0 {
        bail!("{count} places break the rules for words and layers: see above");
    }
    Ok(())
}

/// Prints the edges between modules that the code has, in the format of the table.
///
/// Modules without a row of their own are taken together by the first `depth` parts of their paths.
pub(crate) fn draft_layers(workspace: &Path, depth: usize) -> Result<()> {
    let draft = layers::draft(&layers_table(workspace)?, &files(workspace)?, depth);
    print!("{draft}");
    Ok(())
}

fn layers_table(workspace: &Path) -> Result<layers::Table> {
    let text = fs::read_to_string(workspace.join(LAYERS))
        .with_context(|| format!("could not read {LAYERS}"))?;
    layers::Table::parse(&text)
}

/// Reads the files that git tracks, or would after `git add`, of the kinds that the checks know.
fn files(workspace: &Path) -> Result<Vec<SourceFile>> {
    let mut command = Command::new("git");
    command.current_dir(workspace).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "--deduplicate",
        "--",
    ]);
    command.args(["rs", "md", "toml", "service", "yaml"].map(|kind| format!("*.{kind}")));
    let listed = run_silently(&mut command)?;
    let mut files = Vec::new();
    for path in listed.lines() {
        let file = workspace.join(path);
        // Git lists what was deleted and not committed, too.
        if file.is_file() {
            let text =
                fs::read_to_string(&file).with_context(|| format!("could not read {path}"))?;
            files.push(SourceFile::new(path, text));
        }
    }
    Ok(files)
}
