//! The check for words that are not used: each stands for something that has a standard term.
//!
//! Comments, doc comments and string literals of Rust files are searched, and the whole text of
//! documents and configuration. A phrase is found across the lines of one comment, too.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};

use super::{
    Finding, Report, SourceFile,
    lexer::{Kind, Token, tokens},
};

/// The words that are not used.
pub(super) struct List(Vec<Entry>);

/// One word or phrase that is not used.
struct Entry {
    /// The words, in lower case.
    words: Vec<String>,
    /// Texts must not have the words.
    in_prose: bool,
    /// Identifiers must not have the words as parts of theirs.
    in_identifiers: bool,
    /// The one file that may use the phrase.
    exempt: Option<String>,
    /// The terms to use instead.
    instead: String,
}

impl List {
    /// Reads the list: `PHRASE MARKS # TERMS TO USE`, one a line.
    ///
    /// The mark `[ident]` bans the phrase in identifiers, too, `[only ident]` in nothing else, and
    /// `[except FILE]` leaves one file out.
    ///
    /// # Errors
    /// When a line has no phrase, no terms to use, or a mark that is not known.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut entries = Vec::new();
        for line in text.lines().map(str::trim) {
            if !line.is_empty() && !line.starts_with('#') {
                entries.push(Entry::parse(line).with_context(|| format!("banned word `{line}`"))?);
            }
        }
        Ok(Self(entries))
    }
}

impl Entry {
    fn parse(line: &str) -> Result<Self> {
        let (left, instead) = line
            .split_once('#')
            .context("no `# term to use` after it: add one")?;
        let mut marks = left.split('[').map(str::trim);
        let phrase = marks.next().unwrap_or_default();
        let mut entry = Self {
            words: phrase.split_whitespace().map(str::to_lowercase).collect(),
            in_prose: true,
            in_identifiers: false,
            exempt: None,
            instead: instead.trim().to_owned(),
        };
        if entry.words.is_empty() {
            bail!("no word before the marks: add one");
        }
        for mark in marks {
            let mark = mark.strip_suffix(']').context("a mark without its `]`")?;
            match mark.split_once(' ') {
                None if mark == "ident" => entry.in_identifiers = true,
                Some(("only", "ident")) => {
                    entry.in_prose = false;
                    entry.in_identifiers = true;
                }
                Some(("except", file)) => entry.exempt = Some(file.to_owned()),
                _ => {
                    bail!("`[{mark}]` is no mark: use `[ident]`, `[only ident]` or `[except FILE]`")
                }
            }
        }
        Ok(entry)
    }

    /// Returns the lines of `text` in which the phrase begins.
    fn lines_in(&self, text: &[Word]) -> Vec<usize> {
        text.windows(self.words.len())
            .filter(|window| {
                window
                    .iter()
                    .zip(&self.words)
                    .all(|(word, wanted)| word.text == *wanted)
            })
            .map(|window| window[0].line)
            .collect()
    }
}

/// A word in lower case, and the line that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    text: String,
    line: usize,
}

/// Checks every file for every entry of the list.
pub(super) fn check(list: &List, files: &[SourceFile]) -> Report {
    let mut findings = Vec::new();
    let mut counts = BTreeMap::<String, usize>::new();
    for file in files {
        let phrases = Phrases::from_file(file);
        for entry in &list.0 {
            if entry.exempt.as_deref() == Some(file.path.as_str()) {
                continue;
            }
            let searched = phrases
                .prose
                .iter()
                .filter(|_| entry.in_prose)
                .chain(phrases.identifiers.iter().filter(|_| entry.in_identifiers));
            for line in searched.flat_map(|words| entry.lines_in(words)) {
                let phrase = entry.words.join(" ");
                let text = format!("`{phrase}` is not used here: {}", entry.instead);
                findings.push(Finding::new(&file.path, line, text));
                *counts.entry(phrase).or_default() += 1;
            }
        }
    }
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    let mut summary = format!(
        "banned words: {} of {} occur, {} times",
        counts.len(),
        list.0.len(),
        findings.len()
    );
    if !counts.is_empty() {
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        let counts = counts
            .iter()
            .map(|(phrase, count)| format!("{phrase} {count}"));
        summary.push_str(": ");
        summary.push_str(&counts.collect::<Vec<_>>().join(", "));
    }
    Report { findings, summary }
}

/// The runs of words in a file: a phrase is searched in each by itself.
#[derive(Default)]
struct Phrases {
    prose: Vec<Vec<Word>>,
    /// The parts of identifiers, of the file's path as well.
    identifiers: Vec<Vec<Word>>,
}

impl Phrases {
    fn from_file(file: &SourceFile) -> Self {
        let mut found = Self::default();
        for name in file.path.split(['/', '.']) {
            found.identifiers.push(parts(name, 1));
        }
        if file.is_rust() {
            found.add_rust(&file.text);
        } else {
            found.add_prose(&file.text, 1);
        }
        found
    }

    /// Adds comments, literals and identifiers of Rust source.
    fn add_rust(&mut self, source: &str) {
        let mut comment = Vec::<Token<'_>>::new();
        for token in tokens(source) {
            let continued = comment.last().is_some_and(|last| {
                token.kind == last.kind && token.line <= last.line + last.text.lines().count()
            });
            if !continued {
                self.add_comment(&comment);
                comment.clear();
            }
            match token.kind {
                Kind::Text => self.add_prose(&unescaped(token.text), token.line),
                Kind::Name => self.identifiers.push(parts(token.text, token.line)),
                _ if token.is_comment() => comment.push(token),
                _ => {}
            }
        }
        self.add_comment(&comment);
    }

    /// Adds the lines of one comment, as one text.
    fn add_comment(&mut self, lines: &[Token<'_>]) {
        let Some(first) = lines.first() else { return };
        let mut text = String::new();
        let mut line = first.line;
        for token in lines {
            // A phrase goes over a line's end; the lines must stay countable.
            text.push_str(&"\n".repeat(token.line - line));
            text.push_str(token.text.trim_start_matches(['/', '!', '*']));
            line = token.line + token.text.matches('\n').count();
        }
        self.add_prose(&text, first.line);
    }

    /// Adds a text that begins in `line`, cut into runs at punctuation.
    fn add_prose(&mut self, text: &str, mut line: usize) {
        let mut run = Vec::new();
        let mut word = String::new();
        for character in text.chars().chain(['\n']) {
            if character.is_alphanumeric() || character == '_' {
                word.push(character);
                continue;
            }
            if !word.is_empty() {
                let parts = parts(&word, line);
                if parts.len() > 1 {
                    self.identifiers.push(parts);
                }
                run.push(Word {
                    text: word.to_lowercase(),
                    line,
                });
                word.clear();
            }
            line += usize::from(character == '\n');
            // These stand within phrases; everything else ends one.
            if !character.is_whitespace() && !"-*`".contains(character) && !run.is_empty() {
                self.prose.push(std::mem::take(&mut run));
            }
        }
        self.prose.push(run);
    }
}

/// Replaces the escapes of a string literal: a continued line is one line, others end a phrase.
fn unescaped(literal: &str) -> String {
    let mut text = String::new();
    let mut characters = literal.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            text.push(character);
            continue;
        }
        text.push(match characters.next() {
            Some('\n') => '\n',
            _ => '.',
        });
    }
    text
}

/// Splits an identifier at `_` and at capital letters.
///
/// `two_words`, `TwoWords` and `TWO_WORDS` are alike.
fn parts(identifier: &str, line: usize) -> Vec<Word> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let mut characters = identifier.chars().peekable();
    let mut before_was_lower = false;
    while let Some(character) = characters.next() {
        // `HTTPServer` is `HTTP` and `Server`: a word begins at the last of several capitals.
        let last_capital = character.is_uppercase()
            && !part.is_empty()
            && characters.peek().is_some_and(|next| next.is_lowercase());
        let begins = character.is_uppercase() && (before_was_lower || last_capital);
        if (begins || character == '_') && !part.is_empty() {
            parts.push(Word {
                text: std::mem::take(&mut part),
                line,
            });
        }
        if character != '_' {
            part.extend(character.to_lowercase());
        }
        before_was_lower = character.is_lowercase() || character.is_numeric();
    }
    if !part.is_empty() {
        parts.push(Word { text: part, line });
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# Comment\n\nfrob [ident] # turn\nblue moon # seldom\n\
                        wux [ident] [except docs/old.md] # wax\nquip [only ident] # answer\n";

    fn found(path: &str, text: &str) -> Vec<(usize, String)> {
        let list = List::parse(LIST).unwrap();
        check(&list, &[SourceFile::new(path, text.to_owned())])
            .findings
            .into_iter()
            .map(|finding| {
                let phrase = finding.text.split('`').nth(1).unwrap_or_default();
                (finding.line, phrase.to_owned())
            })
            .collect()
    }

    fn lines(path: &str, text: &str) -> Vec<usize> {
        found(path, text)
            .into_iter()
            .map(|(line, _)| line)
            .collect()
    }

    #[test]
    fn finds_whole_words_in_comments_and_literals() {
        assert_eq!(
            lines("a.rs", "// Frob\n/// frobs frob's\nlet a = \"x frob\";"),
            [1, 2, 3]
        );
        assert_eq!(lines("a.rs", "// frobs afrob\nlet a = 'f';"), [0; 0]);
    }

    #[test]
    fn finds_parts_of_identifiers_where_marked() {
        assert_eq!(
            lines(
                "a.rs",
                "fn to_frob() {}\nstruct FrobIt;\nconst FROB: u8 = 0;\nlet frobs = 1;"
            ),
            [1, 2, 3]
        );
        assert_eq!(
            lines("a.rs", "// see `to_frob`\nlet blue_moon = 1; // quip"),
            [1]
        );
        assert_eq!(lines("a.rs", "// quip\nlet quip_at = 1;"), [2]);
        assert_eq!(lines("frob/a.rs", ""), [1]);
    }

    #[test]
    fn finds_phrases_across_lines_but_not_across_sentences() {
        assert_eq!(lines("a.rs", "// once in a blue\n// moon"), [1]);
        assert_eq!(lines("a.rs", "// it is blue. Moon"), [0; 0]);
        assert_eq!(lines("a.rs", "// it is blue\nfn a() {} // moon"), [0; 0]);
        assert_eq!(lines("a.rs", "let a = \"x\n blue \\\n moon\";"), [2]);
        assert_eq!(lines("a.rs", "let a = \"blue\\nmoon\";"), [0; 0]);
        assert_eq!(lines("a.md", "A\n**blue-moon**"), [2]);
    }

    #[test]
    fn exempts_the_named_file_only() {
        assert_eq!(lines("docs/old.md", "wux, frob"), [1]);
        assert_eq!(found("docs/new.md", "wux"), [(1, "wux".to_owned())]);
    }

    #[test]
    fn counts_by_word() {
        let list = List::parse(LIST).unwrap();
        let files = [SourceFile::new("a.md", "frob wux frob".to_owned())];
        assert_eq!(
            check(&list, &files).summary,
            "banned words: 2 of 4 occur, 3 times: frob 2, wux 1"
        );
    }

    #[test]
    fn splits_identifiers() {
        let split =
            |name| -> Vec<String> { parts(name, 1).into_iter().map(|word| word.text).collect() };
        assert_eq!(split("has_two_words"), ["has", "two", "words"]);
        assert_eq!(split("TwoWordsV4"), ["two", "words", "v4"]);
        assert_eq!(split("HTTPServer"), ["http", "server"]);
        assert_eq!(split("NOT_OK"), ["not", "ok"]);
        assert_eq!(split("_"), [""; 0]);
    }

    #[test]
    fn refuses_entries_without_a_term_and_unknown_marks() {
        for entry in ["frob", "[ident] # x", "frob [idnt] # x", "frob [ident # x"] {
            assert!(List::parse(entry).is_err(), "{entry}");
        }
    }
}
