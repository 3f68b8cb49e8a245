//! Payloads of UDP health checks: bytes, written as text with escapes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::model::schema;

/// Maximum length of a payload's text, in characters. The payload is no longer.
const MAX_TEXT: usize = 1_024;

/// Bytes of a datagram, written as printable ASCII text in which `\n`, `\r`, `\t`, `\\` and `\xHH` stand for bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Payload(Vec<u8>);

impl Payload {
    /// Returns the bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns true if there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&[u8]> for Payload {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl FromStr for Payload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            |what: String| format!("{what}: write printable ASCII, and \\xHH for other bytes");
        if text.len() > MAX_TEXT {
            return Err(format!(
                "the text of a payload has {} characters: use at most {MAX_TEXT}",
                text.len()
            ));
        }
        let mut bytes = Vec::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            let byte = match character {
                '\\' => match characters.next() {
                    Some('n') => b'\n',
                    Some('r') => b'\r',
                    Some('t') => b'\t',
                    Some('\\') => b'\\',
                    Some('x') => {
                        let digits: String = characters.by_ref().take(2).collect();
                        let value = u8::from_str_radix(&digits, 16);
                        value
                            .ok()
                            .filter(|_| digits.len() == 2 && !digits.starts_with('+'))
                            .ok_or_else(|| {
                                wrong(format!("\\x{} is not a byte", digits.escape_debug()))
                            })?
                    }
                    _ => return Err(wrong("a backslash begins no known escape".to_owned())),
                },
                ' '..='~' => character as u8,
                _ => return Err(wrong(format!("{character:?} is not printable ASCII"))),
            };
            bytes.push(byte);
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Payload {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0 {
            match byte {
                b'\n' => f.write_str("\\n")?,
                b'\r' => f.write_str("\\r")?,
                b'\t' => f.write_str("\\t")?,
                b'\\' => f.write_str("\\\\")?,
                b' '..=b'~' => write!(f, "{}", char::from(*byte))?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        Ok(())
    }
}

impl From<Payload> for String {
    fn from(payload: Payload) -> Self {
        payload.to_string()
    }
}

schema::schemas! {
    Payload, "Payload",
        schema::text("bytes: printable ASCII, with the escapes `\\n`, `\\r`, `\\t`, `\\\\` and `\\xHH`")
            .max_length(Some(MAX_TEXT))
            .pattern(Some(r"^([ -\[\]-~]|\\[nrt\\]|\\x[0-9a-fA-F]{2})*$"));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_stand_for_bytes() {
        let payload: Payload = r"a\n\x00\xFFb\\".parse().unwrap();
        assert_eq!(payload.bytes(), b"a\n\x00\xffb\\");
        for wrong in ["\\", "\\x1", "\\x+1", "\\xg0", "\\q", "\n", "é", "\u{202e}"] {
            assert!(wrong.parse::<Payload>().is_err(), "{wrong:?}");
        }
        assert!("a".repeat(MAX_TEXT).parse::<Payload>().is_ok());
        assert!("a".repeat(MAX_TEXT + 1).parse::<Payload>().is_err());
    }

    proptest! {
        #[test]
        fn every_payload_is_read_back(bytes in proptest::collection::vec(any::<u8>(), 0..=MAX_TEXT / 4)) {
            let payload = Payload::from(&bytes[..]);
            prop_assert_eq!(payload.to_string().parse::<Payload>(), Ok(payload));
        }
    }
}
