//! Checks of the documents against the repository: the tests, files and links that they name exist.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// First components of paths that name files of this repository.
const FOLDERS: [&str; 8] = [
    "docs",
    "examples",
    "gateway",
    "gateway-common",
    "gateway-ebpf",
    "packaging",
    "tests",
    "xtask",
];
/// Extensions of names that name files of this repository.
const EXTENSIONS: [&str; 5] = ["md", "rs", "snap", "toml", "yaml"];

/// Returns the root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the files below a folder, sorted by path.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Returns true if the name of a file or path has the extension.
fn has_extension(name: impl AsRef<Path>, extension: &str) -> bool {
    name.as_ref().extension().is_some_and(|e| e == extension)
}

/// Returns the source text of all tests.
fn sources() -> String {
    let files = ["tests/tests", "gateway/src"].map(|folder| files_below(&root().join(folder)));
    files
        .iter()
        .flatten()
        .filter(|path| has_extension(path, "rs"))
        .map(|path| fs::read_to_string(path).expect("a source"))
        .collect()
}

#[test]
fn nat_doc_references_existing_tests() {
    check_document("nat.md", 40);
}

#[test]
fn security_doc_references_existing_tests() {
    check_document("security.md", 60);
}

/// Checks that every test in the last column of a document's tables exists, and that there are at least
/// `min_names` names.
///
/// The minimum catches a change of the tables' format, after which the check would find nothing.
#[track_caller]
fn check_document(document: &str, min_names: usize) {
    let path = root().join("docs").join(document);
    let text = fs::read_to_string(path).expect("the document");
    let sources = sources();
    let mut names = 0;
    for row in text.lines().filter(|line| line.starts_with("| ")) {
        let shown = row
            .trim_end_matches('|')
            .rsplit('|')
            .next()
            .unwrap_or_default();
        // Quoted sentences are cases of the packet tests; names in backticks are test functions.
        let sentences = shown.split('"').skip(1).step_by(2);
        for sentence in sentences {
            let quoted = format!("\"{sentence}\"");
            assert!(
                sources.contains(&quoted),
                "docs/{document} names a case that does not exist: {quoted}"
            );
            names += 1;
        }
        let tests = shown.split('`').skip(1).step_by(2);
        for test in tests {
            assert!(
                // A property test has arguments.
                sources.contains(&format!("fn {test}(")),
                "docs/{document} names a test that does not exist: {test}"
            );
            names += 1;
        }
    }
    assert!(
        names >= min_names,
        "docs/{document} names {names} tests, at least {min_names} are expected"
    );
}

/// Returns the documents: the path of each from the root, and its lines outside code blocks.
fn documents() -> Vec<(String, Vec<String>)> {
    let mut names: Vec<String> = ["ARCHITECTURE", "CONTRIBUTING", "README", "SECURITY"]
        .map(|name| format!("{name}.md"))
        .to_vec();
    let docs = files_below(&root().join("docs")).into_iter();
    names.extend(docs.filter(|path| has_extension(path, "md")).map(|path| {
        let name = path.strip_prefix(root()).expect("a path below the root");
        name.display().to_string()
    }));
    names
        .into_iter()
        .map(|name| {
            let text = fs::read_to_string(root().join(&name)).expect("the document");
            let mut in_block = false;
            let lines = text.lines().filter(|line| {
                let is_fence = line.trim_start().starts_with("```");
                in_block ^= is_fence;
                !is_fence && !in_block
            });
            let lines = lines.map(str::to_owned).collect();
            (name, lines)
        })
        .collect()
}

/// Returns true if a code span names a file of this repository: a path into one of its folders, or a name with one
/// of its extensions. An absolute path names a file of the host.
fn names_repository_file(span: &str) -> bool {
    let is_path_char = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let is_in_folder = span
        .split_once('/')
        .is_some_and(|(first, _)| FOLDERS.contains(&first));
    let has_known_extension = EXTENSIONS
        .iter()
        .any(|extension| has_extension(span, extension));
    span.chars().all(is_path_char)
        && !span.starts_with('/')
        && (is_in_folder || has_known_extension)
}

#[test]
fn documents_name_existing_files() {
    // A name without a folder has to be the name of any file.
    let files = FOLDERS.map(|folder| files_below(&root().join(folder)));
    let mut names: BTreeSet<String> = files
        .iter()
        .flatten()
        .filter_map(|path| path.file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    for entry in fs::read_dir(root()).expect("a folder") {
        names.insert(
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned(),
        );
    }
    let mut found = 0;
    let mut missing = Vec::new();
    for (document, lines) in documents() {
        for line in &lines {
            let spans = line.split('`').skip(1).step_by(2);
            for span in spans.filter(|span| names_repository_file(span)) {
                found += 1;
                let exists = if span.contains('/') {
                    root().join(span).exists()
                } else {
                    names.contains(span)
                };
                if !exists {
                    missing.push(format!("{document}: {span}"));
                }
            }
        }
    }
    assert!(
        missing.is_empty(),
        "documents name files that do not exist:\n{}",
        missing.join("\n")
    );
    assert!(
        found >= 40,
        "the documents name {found} files, at least 40 are expected"
    );
}

#[test]
fn relative_links_of_documents_resolve() {
    let mut found = 0;
    let mut broken = Vec::new();
    for (document, lines) in documents() {
        let path = root().join(&document);
        let folder = path.parent().expect("a folder");
        for line in &lines {
            for rest in line.split("](").skip(1) {
                let target = rest.split([')', ' ']).next().unwrap_or_default();
                let file = target.split('#').next().unwrap_or_default();
                // A link with a scheme leaves the repository; one without a file stays in its document.
                if file.is_empty() || file.contains(':') {
                    continue;
                }
                found += 1;
                if !folder.join(file).exists() {
                    broken.push(format!("{document}: {target}"));
                }
            }
        }
    }
    assert!(
        broken.is_empty(),
        "documents have links to files that do not exist:\n{}",
        broken.join("\n")
    );
    assert!(
        found >= 40,
        "the documents have {found} relative links, at least 40 are expected"
    );
}
