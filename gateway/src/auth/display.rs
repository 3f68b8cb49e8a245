//! Display names of principals. Pure functions.

/// Returns the text without characters that could hide, reorder or break other text, cut to `max` characters.
#[must_use]
pub fn sanitized(text: &str, max: usize) -> String {
    text.chars().filter(|c| !is_unsafe(*c)).take(max).collect()
}

/// Returns true if a character is a control, a bidirectional control (UAX 9), invisible, a line separator, or not
/// assigned.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{00ad}'
                | '\u{061c}'
                | '\u{115f}'
                | '\u{1160}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{e000}'..='\u{f8ff}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{fff0}'..='\u{ffff}'
                | '\u{e0000}'..='\u{10ffff}'
        )
}

/// Returns the text in printable ASCII without spaces: every other byte, and `%`, is percent-encoded (RFC 3986,
/// section 2.1). The encoding is injective.
#[must_use]
pub fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_hide_or_reorder_others_are_removed() {
        assert_eq!(sanitized("a\u{1b}[31mb\nc", 100), "a[31mbc");
        assert_eq!(
            sanitized("\u{202e}evil\u{2066}\u{200b}\u{feff}", 100),
            "evil"
        );
        assert_eq!(sanitized("Zoë 名前", 100), "Zoë 名前");
        assert_eq!(sanitized("abcdef", 3), "abc");
    }

    #[test]
    fn encoding_keeps_different_texts_different() {
        assert_eq!(encoded("auth0|42"), "auth0|42");
        assert_eq!(encoded("a (b)"), "a%20(b)");
        assert_eq!(encoded("a%20(b)"), "a%2520(b)");
        assert_eq!(encoded("ë\n"), "%C3%AB%0A");
    }
}
