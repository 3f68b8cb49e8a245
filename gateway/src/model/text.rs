//! Forbidden characters of users' text, and escaping of text for display.
//!
//! The forbidden characters are those that the PRECIS `FreeformClass` (RFC 8264, section 4.3) disallows: controls,
//! format characters and default ignorable code points. They move a terminal's cursor, reorder the displayed text (UTS
//! 39, section 5.4) or are invisible. Joiners, which the class allows in some contexts, are forbidden everywhere.
//! Unassigned code points are allowed unless Unicode reserves them as default ignorable.

use std::{borrow::Cow, fmt::Write as _};

use crate::model::Problem;

/// Inclusive ranges of forbidden code points, in ascending order.
const FORBIDDEN_CHARACTERS: [(u32, u32); 35] = [
    // C0 and C1 controls.
    (0x0000, 0x001f),
    (0x007f, 0x009f),
    // Soft hyphen, combining grapheme joiner.
    (0x00ad, 0x00ad),
    (0x034f, 0x034f),
    // Arabic number signs and the Arabic letter mark.
    (0x0600, 0x0605),
    (0x061c, 0x061c),
    (0x06dd, 0x06dd),
    (0x070f, 0x070f),
    (0x0890, 0x0891),
    (0x08e2, 0x08e2),
    // Hangul fillers, inherent vowels, Mongolian selectors.
    (0x115f, 0x1160),
    (0x17b4, 0x17b5),
    (0x180b, 0x180f),
    // Zero-width characters and directional marks.
    (0x200b, 0x200f),
    // Line and paragraph separators, directional embeddings and overrides.
    (0x2028, 0x202e),
    // Word joiner, invisible operators, directional isolates.
    (0x2060, 0x206f),
    (0x3164, 0x3164),
    // Private use.
    (0xe000, 0xf8ff),
    // Noncharacters, variation selectors, byte order mark.
    (0xfdd0, 0xfdef),
    (0xfe00, 0xfe0f),
    (0xfeff, 0xfeff),
    (0xffa0, 0xffa0),
    (0xfff0, 0xfffb),
    (0xfffe, 0xffff),
    (0x1_10bd, 0x1_10bd),
    (0x1_10cd, 0x1_10cd),
    (0x1_3430, 0x1_343f),
    // Shorthand and musical format controls.
    (0x1_bca0, 0x1_bca3),
    (0x1_d173, 0x1_d17a),
    (0x1_fffe, 0x1_ffff),
    (0x2_fffe, 0x2_ffff),
    (0x3_fffe, 0x3_ffff),
    // Tags and variation selectors.
    (0xe_0000, 0xe_0fff),
    (0xe_fffe, 0xe_ffff),
    // Private use, up to the last code point.
    (0xf_0000, 0x10_ffff),
];

/// Returns true if users' text must not contain the character.
#[must_use]
pub fn is_forbidden(character: char) -> bool {
    let code = u32::from(character);
    if (0x20..0x7f).contains(&code) {
        return false;
    }
    let index = FORBIDDEN_CHARACTERS.partition_point(|(_, last)| *last < code);
    FORBIDDEN_CHARACTERS
        .get(index)
        .is_some_and(|(first, _)| *first <= code)
}

/// Refuses text that is longer than `max` bytes of UTF-8, or that contains a forbidden character.
///
/// # Errors
/// Fails with [`ProblemCode::Invalid`](crate::model::ProblemCode::Invalid), for the field.
pub fn check(field: &str, text: &str, max: usize) -> Result<(), Problem> {
    if text.len() > max {
        let detail = format!("{field} has {} bytes: use at most {max}", text.len());
        return Err(Problem::invalid(field, detail));
    }
    check_characters(field, text)
}

fn check_characters(field: &str, text: &str) -> Result<(), Problem> {
    let Some(character) = text.chars().find(|character| is_forbidden(*character)) else {
        return Ok(());
    };
    let detail = format!(
        "{} must not hold the character U+{:04X}: leave out control, formatting, invisible and \
         private-use characters",
        escaped(field),
        u32::from(character)
    );
    Err(Problem::invalid(escaped(field), detail))
}

/// Returns the text with every forbidden character, including line feeds, escaped as in JSON: `\u202e`.
#[must_use]
pub fn escaped(text: &str) -> Cow<'_, str> {
    escape(text, is_forbidden)
}

/// Returns the text with every forbidden character except line feeds escaped as in JSON.
#[must_use]
pub fn escaped_lines(text: &str) -> Cow<'_, str> {
    escape(text, |character| {
        character != '\n' && is_forbidden(character)
    })
}

fn escape(text: &str, must_escape: impl Fn(char) -> bool) -> Cow<'_, str> {
    let Some(first) = text.find(&must_escape) else {
        return Cow::Borrowed(text);
    };
    let mut escaped = text[..first].to_owned();
    for character in text[first..].chars() {
        if must_escape(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a `String` does not fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// Returns the first `max` characters of untrusted text, escaped so that they can be stored, logged or displayed.
#[must_use]
pub fn truncated(text: &str, max: usize) -> String {
    let start: String = text.chars().take(max).collect();
    escaped(&start).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_sorted_and_disjoint() {
        for pair in FORBIDDEN_CHARACTERS.windows(2) {
            assert!(pair[0].0 <= pair[0].1 && pair[0].1 < pair[1].0, "{pair:x?}");
        }
    }

    #[test]
    fn each_class_of_forbidden_characters_is_refused() {
        for (class, character) in [
            ("escape", '\u{1b}'),
            ("line feed", '\n'),
            ("delete", '\u{7f}'),
            ("C1 control", '\u{9b}'),
            ("soft hyphen", '\u{ad}'),
            ("Arabic letter mark", '\u{61c}'),
            ("zero-width space", '\u{200b}'),
            ("joiner", '\u{200d}'),
            ("right-to-left mark", '\u{200f}'),
            ("line separator", '\u{2028}'),
            ("override", '\u{202e}'),
            ("isolate", '\u{2066}'),
            ("end of isolate", '\u{2069}'),
            ("private use", '\u{e000}'),
            ("byte order mark", '\u{feff}'),
            ("noncharacter", '\u{ffff}'),
            ("tag", '\u{e0041}'),
            ("private plane", '\u{10fffd}'),
        ] {
            let problem = check("labels", &format!("a{character}b"), 100).unwrap_err();
            assert_eq!(problem.field.as_deref(), Some("labels"), "{class}");
            assert!(
                !escaped(&character.to_string()).contains(character),
                "{class}"
            );
        }
        for fine in [
            "",
            "shop.example",
            "Ärger mit Umlauten",
            "数据库",
            "עברית",
            "a\u{a0}b",
            "🚀",
        ] {
            assert_eq!(check("labels", fine, 100), Ok(()), "{fine}");
            assert_eq!(escaped(fine), fine);
        }
        assert!(check("reason", "12345", 4).is_err());
    }

    #[test]
    fn escapes_are_those_of_json() {
        assert_eq!(escaped("a\u{1b}[31m\n"), "a\\u001b[31m\\u000a");
        assert_eq!(escaped_lines("a\nb\u{202e}"), "a\nb\\u202e");
        let text = format!("\"{}\"", escaped("\u{e0041}"));
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), "\u{e0041}");
        assert_eq!(truncated("abcdef", 3), "abc");
    }
}
