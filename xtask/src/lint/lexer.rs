//! Splits Rust source into tokens, as far as the checks need them.
//!
//! The lexer knows names, comments and literals, and returns every other character as a token of its
//! own. Any text is accepted: the compiler is what refuses wrong source.

/// The kind of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An identifier or a keyword, without the `r#` of a raw one.
    Name,
    /// A doc comment of the item that follows: `///` or `/**`.
    OuterDoc,
    /// A doc comment of the item around: `//!` or `/*!`.
    InnerDoc,
    /// Any other comment.
    Comment,
    /// A string literal of any sort; the text is without prefix and quotes, and escaped as written.
    Text,
    /// A number, a character or a lifetime.
    Other,
    /// One character of punctuation.
    Sign,
}

/// A token: a piece of the source, and the line that it begins in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
    pub(super) line: usize,
}

impl Token<'_> {
    /// Tells whether this is the given punctuation character.
    pub(super) fn is_sign(&self, sign: &str) -> bool {
        self.kind == Kind::Sign && self.text == sign
    }

    /// Tells whether this is the given identifier or keyword.
    pub(super) fn is_name(&self, name: &str) -> bool {
        self.kind == Kind::Name && self.text == name
    }

    /// Tells whether this is a comment, of documentation or not.
    pub(super) fn is_comment(&self) -> bool {
        matches!(self.kind, Kind::OuterDoc | Kind::InnerDoc | Kind::Comment)
    }
}

/// Returns all tokens of a source file, comments included.
pub(super) fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 1);
    while let Some(first) = source[at..].chars().next() {
        let rest = &source[at..];
        if first.is_whitespace() {
            line += usize::from(first == '\n');
            at += first.len_utf8();
            continue;
        }
        let (kind, text, length) = token(rest, first);
        found.push(Token { kind, text, line });
        line += newlines(&rest[..length]);
        at += length;
    }
    found
}

/// Counts line ends.
fn newlines(text: &str) -> usize {
    text.bytes().filter(|&byte| byte == b'\n').count()
}

/// Returns the kind, the text and the whole length of the token at the beginning of `rest`.
fn token(rest: &str, first: char) -> (Kind, &str, usize) {
    let whole = |kind, length: usize| (kind, &rest[..length], length);
    if rest.starts_with("//") {
        let length = rest.find('\n').unwrap_or(rest.len());
        return whole(comment_kind(&rest[..length], '/'), length);
    }
    if rest.starts_with("/*") {
        let length = block_comment(rest);
        return whole(comment_kind(&rest[..length], '*'), length);
    }
    if let Some((open, hashes, raw)) = string_start(rest) {
        let (content, close) = string_content(&rest[open..], hashes, raw);
        return (
            Kind::Text,
            &rest[open..open + content],
            open + content + close,
        );
    }
    if first == '\'' || rest.starts_with("b'") {
        return whole(Kind::Other, quoted(rest));
    }
    let prefix = if rest.starts_with("r#") { 2 } else { 0 };
    if rest[prefix..].starts_with(|start: char| start.is_alphabetic() || start == '_') {
        let length = prefix + word(&rest[prefix..]);
        return (Kind::Name, &rest[prefix..length], length);
    }
    if first.is_ascii_digit() {
        return whole(Kind::Other, word(rest));
    }
    whole(Kind::Sign, first.len_utf8())
}

/// Tells the kinds of comments apart; `mark` is the second character of the comment's beginning.
fn comment_kind(comment: &str, mark: char) -> Kind {
    let mut marks = comment.chars().skip(2);
    match (marks.next(), marks.next()) {
        (Some('!'), _) => Kind::InnerDoc,
        // `////` and `/***` begin ordinary comments, and `/**/` is an empty one.
        (Some(third), fourth)
            if third == mark && fourth != Some(mark) && comment.len() > 2 && comment != "/**/" =>
        {
            Kind::OuterDoc
        }
        _ => Kind::Comment,
    }
}

/// Returns the length of a block comment, with the ones nested in it.
fn block_comment(rest: &str) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// Returns the length of a string literal's beginning, its number of hashes, and whether it is raw.
fn string_start(rest: &str) -> Option<(usize, usize, bool)> {
    let prefix = ["br", "cr", "r", "b", "c", ""]
        .into_iter()
        .find(|prefix| rest.starts_with(prefix))?;
    let raw = prefix.ends_with('r');
    let after = &rest[prefix.len()..];
    let hashes = if raw {
        after.len() - after.trim_start_matches('#').len()
    } else {
        0
    };
    after[hashes..]
        .starts_with('"')
        .then_some((prefix.len() + hashes + 1, hashes, raw))
}

/// Returns the length of a string literal's content, and of what closes it.
fn string_content(rest: &str, hashes: usize, raw: bool) -> (usize, usize) {
    let end = format!("\"{}", "#".repeat(hashes));
    let mut escaped = false;
    for (at, character) in rest.char_indices() {
        if escaped {
            escaped = false;
        } else if character == '\\' && !raw {
            escaped = true;
        } else if rest[at..].starts_with(&end) {
            return (at, end.len());
        }
    }
    (rest.len(), 0)
}

/// Returns the length of a character, a byte or a lifetime.
fn quoted(rest: &str) -> usize {
    let open = if rest.starts_with('b') { 2 } else { 1 };
    let mut characters = rest[open..].char_indices();
    match characters.next() {
        Some((_, '\\')) => {
            // The escaped character may be a quote itself.
            characters.next();
            characters
                .find(|&(_, character)| character == '\'')
                .map_or(rest.len(), |(at, _)| open + at + 1)
        }
        Some((_, character)) if rest[open + character.len_utf8()..].starts_with('\'') => {
            open + character.len_utf8() + 1
        }
        _ => open + word(&rest[open..]),
    }
}

/// Returns the length of a name or a number.
fn word(rest: &str) -> usize {
    rest.find(|character: char| !character.is_alphanumeric() && character != '_')
        .unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(source: &str) -> Vec<(Kind, &str)> {
        tokens(source)
            .iter()
            .map(|token| (token.kind, token.text))
            .collect()
    }

    #[test]
    fn tells_comments_apart() {
        let source =
            "/// a\n//! b\n// c\n//// d\n/** e */ /*! f */ /* g /* h */ i */ /**/ /*** j */";
        assert_eq!(
            kinds(source),
            [
                (Kind::OuterDoc, "/// a"),
                (Kind::InnerDoc, "//! b"),
                (Kind::Comment, "// c"),
                (Kind::Comment, "//// d"),
                (Kind::OuterDoc, "/** e */"),
                (Kind::InnerDoc, "/*! f */"),
                (Kind::Comment, "/* g /* h */ i */"),
                (Kind::Comment, "/**/"),
                (Kind::Comment, "/*** j */"),
            ]
        );
    }

    #[test]
    fn finds_the_ends_of_literals() {
        let source = r####""a\"// b" r#"c"d"# br"e\" b'\'' '"' 'x' 'life b"f" r#type"####;
        assert_eq!(
            kinds(source),
            [
                (Kind::Text, r#"a\"// b"#),
                (Kind::Text, r#"c"d"#),
                (Kind::Text, r"e\"),
                (Kind::Other, r"b'\''"),
                (Kind::Other, "'\"'"),
                (Kind::Other, "'x'"),
                (Kind::Other, "'life"),
                (Kind::Text, "f"),
                (Kind::Name, "type"),
            ]
        );
    }

    #[test]
    fn counts_lines() {
        let found = tokens("a\n\"b\n\nc\" d /* e\n*/ f");
        let lines: Vec<_> = found.iter().map(|token| (token.text, token.line)).collect();
        assert_eq!(
            lines,
            [("a", 1), ("b\n\nc", 2), ("d", 4), ("/* e\n*/", 4), ("f", 5)]
        );
    }

    #[test]
    fn accepts_unfinished_source() {
        for source in ["\"a", "/* a", "r#\"a\"", "'", "b'\\", "r#"] {
            assert!(!tokens(source).is_empty(), "{source}");
        }
    }
}
