//! The check of doc comments' first words.
//!
//! A doc comment that begins with a question word or a pronoun hides the subject of its sentence. A
//! function's begins with a verb, a type's with a noun phrase.

use super::{
    Finding, Report, SourceFile,
    lexer::{Kind, Token, tokens},
};

/// Words and phrases that no doc comment begins with.
const FIRST_WORDS: [&str; 10] = [
    "What", "Whether", "How", "Who", "Where", "It", "Its", "The same", "Likewise", "And",
];

/// Checks every doc comment of the Rust files.
pub(super) fn check(files: &[SourceFile]) -> Report {
    let (mut all, mut findings) = (0, Vec::new());
    for file in files.iter().filter(|file| file.is_rust()) {
        for (line, text) in doc_comments(&file.text) {
            all += 1;
            if FIRST_WORDS.iter().any(|word| begins_with(&text, word)) {
                findings.push(Finding::new(&file.path, line, text));
            }
        }
    }
    let summary = format!(
        "doc comments: {all}, of which {} ({}) begin with a question word or a pronoun",
        findings.len(),
        percentage(findings.len(), all)
    );
    Report { findings, summary }
}

/// Tells whether a text begins with a word or a phrase, whole and as written.
fn begins_with(text: &str, phrase: &str) -> bool {
    text.strip_prefix(phrase)
        .is_some_and(|rest| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_'))
}

/// Writes a share with one decimal.
fn percentage(part: usize, all: usize) -> String {
    let tenths = (part * 1000).checked_div(all).unwrap_or(0);
    format!("{}.{} %", tenths / 10, tenths % 10)
}

/// Returns the line and the text of each doc comment's beginning.
///
/// Consecutive lines of one style are one comment. An attribute `doc = "…"` is one by itself.
fn doc_comments(source: &str) -> Vec<(usize, String)> {
    let tokens = tokens(source);
    let mut found = Vec::new();
    let mut before: Option<Token<'_>> = None;
    for (at, token) in tokens.iter().enumerate() {
        match token.kind {
            Kind::OuterDoc | Kind::InnerDoc => {
                let continued = before.is_some_and(|before| {
                    before.kind == token.kind && before.line + 1 == token.line
                });
                if !continued {
                    found.push((token.line, first_line(token.text)));
                }
                before = Some(*token);
            }
            Kind::Text if is_doc_attribute(&tokens[..at]) => {
                found.push((token.line, first_line(token.text)));
            }
            _ => {}
        }
    }
    found
}

/// Tells whether the tokens end with `[doc =`, the beginning of a doc attribute.
fn is_doc_attribute(before: &[Token<'_>]) -> bool {
    matches!(before, [.., open, doc, equals]
        if open.is_sign("[") && doc.is_name("doc") && equals.is_sign("="))
}

/// Returns the first line with text, without the comment's marks.
fn first_line(comment: &str) -> String {
    comment
        .lines()
        .map(|line| line.trim_matches(|mark: char| mark.is_whitespace() || "/!*".contains(mark)))
        .find(|line| !line.is_empty())
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(source: &str) -> Report {
        check(&[SourceFile::new("a.rs", source.to_owned())])
    }

    #[test]
    fn reports_first_words_of_runs_only() {
        let report = report(
            "//! What is here.\n\n/// Returns it.\n/// What is returned is new.\nfn a() {}\n\
             /// Its own.\nstruct B;\n",
        );
        let lines: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["a.rs:1: What is here.", "a.rs:6: Its own."]);
        assert_eq!(
            report.summary,
            "doc comments: 3, of which 2 (66.6 %) begin with a question word or a pronoun"
        );
    }

    #[test]
    fn knows_whole_words_as_written() {
        for text in [
            "Whatever",
            "Items",
            "Android",
            "The samples",
            "it",
            "Itself",
        ] {
            assert_eq!(report(&format!("/// {text}\n")).findings, [], "{text}");
        }
        for text in ["It's so", "The same as before", "And", "Who: the caller"] {
            assert_eq!(report(&format!("/// {text}\n")).findings.len(), 1, "{text}");
        }
    }

    #[test]
    fn reads_attributes_and_blocks() {
        let report = report(
            "#[doc = \"How so\"]\n#![doc = \"Fine\"]\n/** Where */\n/*!\n * Likewise */\n\
             const A: &str = \"What is no comment\"; // What is no doc comment\n",
        );
        let lines: Vec<_> = report.findings.iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [1, 3, 4]);
    }

    #[test]
    fn a_comment_of_the_module_and_one_of_its_first_item_are_two() {
        assert_eq!(doc_comments("//! A.\n/// B.\nfn b() {}\n").len(), 2);
    }
}
