//! Checks of the documents against the repository: the tests, files and links that they name exist.

use std::{fs, path::Path};

/// Returns the source text of all tests.
fn sources() -> String {
    fn add(directory: &Path, text: &mut String) {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                add(&path, text);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&fs::read_to_string(path).expect("a source"));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut text = String::new();
    add(&root.join("tests/tests"), &mut text);
    add(&root.join("gateway/src"), &mut text);
    text
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
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(document);
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
                sources.contains(&format!("fn {test}()")),
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
