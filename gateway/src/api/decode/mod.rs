//! Decoding of JSON bodies from bytes directly into the request's type, within bounds.
//!
//! A body is never parsed into a tree of JSON values first. A tree takes up to sixty times the body's size, so a
//! few megabytes of tiny objects would exhaust memory before the first unknown field is refused.

mod bounded;

use std::cell::Cell;

use serde::de::DeserializeOwned;

use self::bounded::Bounded;
use crate::model::{Problem, ProblemCode};

/// Maximum length of a reported error text, in bytes. Errors repeat parts of the body, which may be long.
const MAX_ERROR_TEXT: usize = 600;

/// Maximum length of a string or field name, in bytes. Every field has a smaller limit of its own.
const MAX_TEXT: usize = 64 << 10;

/// Bounds on the content of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DecodeBounds {
    /// Maximum estimated size of the decoded value in memory, in bytes.
    pub(super) memory: usize,
    /// Maximum number of elements of a list and of members of an object.
    pub(super) elements: usize,
}

/// A meter of the value decoded so far.
struct DecodeMeter {
    bounds: DecodeBounds,
    memory: Cell<usize>,
    exceeded: Cell<Option<ExceededBound>>,
}

/// The bound that a body exceeds.
#[derive(Clone, Copy)]
enum ExceededBound {
    Memory,
    Text,
    Elements,
}

/// Decodes a body that holds one JSON object.
///
/// # Errors
/// [`ProblemCode::Malformed`] if the body is not JSON or not an object, [`ProblemCode::TooLarge`] beyond a bound, and
/// [`ProblemCode::Invalid`], with the field, if a value does not fit its type.
pub(super) fn decode<T: DeserializeOwned>(
    bytes: &[u8],
    bounds: DecodeBounds,
) -> Result<T, Problem> {
    // A derived `Deserialize` also accepts an array of a struct's fields, but every body must be an object.
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if first.is_some_and(|byte| *byte == b'[') {
        let detail = "the body must be a JSON object: { ... }";
        return Err(Problem::new(ProblemCode::Malformed, detail));
    }
    let meter = DecodeMeter {
        bounds,
        memory: Cell::new(0),
        exceeded: Cell::new(None),
    };
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let decoded = serde_path_to_error::deserialize(Bounded::new(&mut json, &meter));
    let value = decoded.map_err(|error| {
        let path = truncated(error.path().to_string());
        decode_problem(error.inner(), &path, &meter)
    })?;
    json.end()
        .map_err(|error| decode_problem(&error, ".", &meter))?;
    Ok(value)
}

fn decode_problem(error: &serde_json::Error, path: &str, meter: &DecodeMeter) -> Problem {
    let elements = meter.bounds.elements;
    let named = !matches!(path, "." | "?");
    let problem = match meter.exceeded.get() {
        Some(ExceededBound::Memory) => {
            let detail = "the body holds more objects than one request may: split it";
            return Problem::new(ProblemCode::TooLarge, detail);
        }
        Some(ExceededBound::Text) => {
            let detail = format!("a text is longer than {MAX_TEXT} bytes: shorten it");
            Problem::new(ProblemCode::TooLarge, detail)
        }
        Some(ExceededBound::Elements) => {
            let detail = format!(
                "a list or object holds more than {elements} elements: split the request into several"
            );
            Problem::new(ProblemCode::TooLarge, detail)
        }
        None if error.is_data() => {
            // The field names the position already.
            let position = format!(" at line {} column {}", error.line(), error.column());
            let text = error.to_string();
            let text = text.strip_suffix(&position).unwrap_or(&text).to_owned();
            Problem::new(ProblemCode::Invalid, truncated(text))
        }
        None => {
            let text = truncated(error.to_string());
            return Problem::new(
                ProblemCode::Malformed,
                format!("the body is not valid JSON: {text}"),
            );
        }
    };
    if named { problem.at(path) } else { problem }
}

/// Returns the text, or its beginning if it is long.
fn truncated(mut text: String) -> String {
    if text.len() > MAX_ERROR_TEXT {
        text.truncate(text.floor_char_boundary(MAX_ERROR_TEXT));
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::model::{manifest::Manifest, service::ServiceRequest, tenant::TenantRequest};

    const BOUNDS: DecodeBounds = DecodeBounds {
        memory: 50_000,
        elements: 100,
    };

    fn refused<T: DeserializeOwned + std::fmt::Debug>(body: &str) -> Problem {
        decode::<T>(body.as_bytes(), BOUNDS).unwrap_err()
    }

    #[test]
    fn whole_numbers_may_be_written_as_decimals() {
        #[derive(Debug, Deserialize)]
        struct Numbers {
            unsigned: u8,
            signed: i32,
            optional: Option<u64>,
            real: f64,
            list: Vec<u16>,
        }
        let body = r#"{"unsigned": 7.0, "signed": -1e2, "optional": 9007199254740992.0, "real": 2.0, "list": [1.0]}"#;
        let numbers: Numbers = decode(body.as_bytes(), BOUNDS).unwrap();
        assert_eq!((numbers.unsigned, numbers.signed), (7, -100));
        assert_eq!(numbers.optional, Some(9_007_199_254_740_992));
        assert_eq!((numbers.real, numbers.list), (2.0, vec![1]));
        for wrong in ["7.5", "256.0", "1e300", "\"7\"", "null"] {
            let body = format!(
                r#"{{"unsigned": {wrong}, "signed": 1, "optional": null, "real": 1, "list": []}}"#
            );
            let problem = refused::<Numbers>(&body);
            assert_eq!(problem.code, ProblemCode::Invalid, "{wrong}");
            assert_eq!(problem.field.as_deref(), Some("unsigned"), "{wrong}");
        }
    }

    #[test]
    fn errors_name_the_field_and_no_position() {
        let problem = refused::<Manifest>(
            r#"{"endpoints": [{"tenant": "a", "name": "x", "network": "n", "service": 7}]}"#,
        );
        assert_eq!(problem.code, ProblemCode::Invalid);
        assert_eq!(problem.field.as_deref(), Some("endpoints[0].service"));
        assert!(!problem.detail.contains("column"), "{}", problem.detail);
        let problem = refused::<TenantRequest>(r#"{"quotas": {"networks": -1}}"#);
        assert_eq!(problem.field.as_deref(), Some("quotas.networks"));
    }

    #[test]
    fn a_body_other_than_an_object_is_refused() {
        for body in [
            "[]", " [1]", "7", "null", "\"x\"", "", "{", "{} {}", "nonsense",
        ] {
            let problem = refused::<TenantRequest>(body);
            assert!(
                matches!(problem.code, ProblemCode::Malformed | ProblemCode::Invalid),
                "{body}: {problem:?}"
            );
        }
        assert_eq!(refused::<TenantRequest>("[]").code, ProblemCode::Malformed);
        assert_eq!(
            refused::<TenantRequest>("{} {}").code,
            ProblemCode::Malformed
        );
    }

    #[test]
    fn unknown_and_repeated_fields_are_refused() {
        for body in [
            r#"{"tenants": [], "more": 1}"#,
            r#"{"tenants": [], "tenants": []}"#,
            r#"{"networks": [{"tenant": "a", "tenant": "a", "name": "n"}]}"#,
            r#"{"networks": [{"tenant": "a", "name": "n", "alias": "x"}]}"#,
            r#"{"networks": [{"name": "n"}]}"#,
            r#"{"services": [{"tenant": "a", "name": "n", "network": "n", "resources": [], "nat_addresses": [], "x": 1}]}"#,
            r#"{"services": [{"tenant": "a", "name": "n", "name": "n", "network": "n", "resources": [], "nat_addresses": []}]}"#,
        ] {
            let problem = refused::<Manifest>(body);
            assert_eq!(problem.code, ProblemCode::Invalid, "{body}: {problem:?}");
        }
    }

    #[test]
    fn alias_is_accepted_for_services_only() {
        let body = r#"{"services": [{"tenant": "a", "alias": "w.x", "name": "n", "network": "n", "resources": [{"ports": [{"port": 80.0}]}], "nat_addresses": []}]}"#;
        let manifest: Manifest = decode(body.as_bytes(), BOUNDS).unwrap();
        assert_eq!(manifest.services[0].alias.as_deref(), Some("w.x"));
        assert_eq!(manifest.services[0].request.spec.resources.len(), 1);
    }

    #[test]
    fn lists_and_bodies_are_refused_at_their_bounds() {
        let list = |count: usize| format!(r#"{{"tenants": [{}]}}"#, vec!["{}"; count].join(","));
        assert!(decode::<Manifest>(list(100).as_bytes(), BOUNDS).is_ok());
        let problem = refused::<Manifest>(&list(101));
        assert_eq!(problem.code, ProblemCode::TooLarge);
        assert!(
            problem.detail.contains("more than 100 elements"),
            "{problem}"
        );
        let labels: Vec<String> = (0..101).map(|n| format!(r#""k{n}": """#)).collect();
        let body = format!(r#"{{"labels": {{{}}}}}"#, labels.join(","));
        assert_eq!(refused::<TenantRequest>(&body).code, ProblemCode::TooLarge);
        let labels: Vec<String> = (0..50).map(|n| format!(r#""k{n}": """#)).collect();
        let tenant = format!(r#"{{"labels": {{{}}}}}"#, labels.join(","));
        let body = format!(r#"{{"tenants": [{}]}}"#, vec![tenant; 20].join(","));
        let problem = refused::<Manifest>(&body);
        assert_eq!(problem.code, ProblemCode::TooLarge);
        assert!(problem.detail.contains("more objects"), "{problem}");
        // A bound also applies within content that serde buffers to flatten it.
        let body = format!(
            r#"{{"network": "n", "nat_addresses": [{}], "resources": []}}"#,
            vec![r#""10.0.0.1""#; 101].join(",")
        );
        assert_eq!(refused::<ServiceRequest>(&body).code, ProblemCode::TooLarge);
    }

    #[test]
    fn deep_nesting_is_refused() {
        let body = format!(r#"{{"network": {}"#, "[".repeat(100_000));
        let problem = refused::<ServiceRequest>(&body);
        assert!(
            matches!(problem.code, ProblemCode::Malformed | ProblemCode::Invalid),
            "{problem:?}"
        );
    }

    #[test]
    fn an_error_quotes_a_bounded_part_of_the_body() {
        let longest = "x".repeat(MAX_TEXT + 1);
        let body = format!(r#"{{"name": "{longest}"}}"#);
        let problem = refused::<TenantRequest>(&body);
        assert_eq!(problem.code, ProblemCode::TooLarge);
        assert_eq!(problem.field.as_deref(), Some("name"));
        let long = "x".repeat(MAX_TEXT / 2);
        for body in [
            format!(r#"{{"{long}": 1}}"#),
            format!(r#"{{"name": "{long}"}}"#),
            format!(r#"{{"labels": {{"{long}": 1}}}}"#),
        ] {
            let problem = refused::<TenantRequest>(&body);
            let field = problem.field.unwrap_or_default();
            assert!(
                problem.detail.len() + field.len() < 2_000,
                "{}",
                problem.detail.len()
            );
        }
    }
}
