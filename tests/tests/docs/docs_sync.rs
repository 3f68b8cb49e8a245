//! The manual names the tests that show what it says: they are there.

use std::{fs, path::Path};

/// All test code, with its line breaks and indentation taken out.
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

/// Checks that every test in the last column of a document's tables exists, and that there are at least so
/// many.
#[track_caller]
fn check_document(document: &str, min_names: usize) {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(document);
    let manual = fs::read_to_string(manual).expect("the manual");
    let sources = sources();
    let mut names = 0;
    for row in manual.lines().filter(|line| line.starts_with("| ")) {
        let shown = row
            .trim_end_matches('|')
            .rsplit('|')
            .next()
            .unwrap_or_default();
        // Sentences are rows of the packet table, words are tests.
        let sentences = shown.split('"').skip(1).step_by(2);
        for sentence in sentences {
            let quoted = format!("\"{sentence}\"");
            assert!(sources.contains(&quoted), "there is no row {quoted}");
            names += 1;
        }
        let tests = shown.split('`').skip(1).step_by(2);
        for test in tests {
            assert!(
                sources.contains(&format!("fn {test}()")),
                "there is no test {test}"
            );
            names += 1;
        }
    }
    assert!(names >= min_names, "{names} names");
}
