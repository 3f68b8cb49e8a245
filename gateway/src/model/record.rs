//! Fields that every object has: identity, history and labels.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::model::{Name, Problem, ProblemCode, Version, limits, schema, text};

/// Labels: key-value notes of the user on an object.
pub type Labels = BTreeMap<String, String>;

/// Identity and history of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Meta {
    /// Name of the object.
    pub name: Name,
    /// Identity of the object. An object that is created again under the same name has another one.
    pub uid: Uuid,
    /// Version of the object: a different number after each change. Opaque; compare it for equality only.
    #[serde(default)]
    #[schema(value_type = u64, maximum = 9_007_199_254_740_991u64)]
    pub version: Version,
    /// Time of creation.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Time of the last change by the owner.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// Labels of the object.
    #[serde(default)]
    #[schema(value_type = schema::Labels)]
    pub labels: Labels,
}

/// Object as it is stored and shown: its metadata and its own fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record<T> {
    /// Identity, history and labels.
    #[serde(flatten)]
    pub meta: Meta,
    /// Fields of the object's kind.
    #[serde(flatten)]
    pub object: T,
}

impl<T> Record<T> {
    /// Refuses a change that was made for another version of the object.
    ///
    /// # Errors
    /// [`ProblemCode::VersionConflict`].
    pub fn expect_version(&self, expected: Option<u64>) -> Result<(), Problem> {
        match expected {
            Some(expected) if expected != self.meta.version.public_value() => Err(Problem::new(
                ProblemCode::VersionConflict,
                format!(
                    "{} is at version {}, not {expected}: read it again and repeat the change",
                    self.meta.name, self.meta.version
                ),
            )
            .at("version")),
            _ => Ok(()),
        }
    }
}

/// Returns the approximate size of labels, in bytes.
#[must_use]
pub fn labels_size(labels: &Labels) -> usize {
    labels
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum()
}

/// Refuses labels that are too many, too long, or hold characters that [`text::check`] refuses.
///
/// # Errors
/// [`ProblemCode::Invalid`].
pub fn check_labels(labels: &Labels) -> Result<(), Problem> {
    let problem = |detail: String| Err(Problem::invalid("labels", detail));
    check_stored_labels(labels)?;
    for (key, value) in labels {
        text::check("labels", key, limits::MAX_LABEL_KEY)?;
        text::check("labels", value, limits::MAX_LABEL_VALUE)?;
    }
    let weight = labels_size(labels);
    if weight > limits::MAX_LABELS_BYTES {
        return problem(format!(
            "labels take {weight} bytes together: use at most {}",
            limits::MAX_LABELS_BYTES
        ));
    }
    Ok(())
}

/// Refuses stored labels that no version of the gateway can have written. Unlike [`check_labels`] it allows every
/// character, because earlier versions did and their stores must still load.
///
/// # Errors
/// [`ProblemCode::Invalid`].
pub(crate) fn check_stored_labels(labels: &Labels) -> Result<(), Problem> {
    let problem = |detail: String| Err(Problem::invalid("labels", detail));
    if labels.len() > limits::MAX_LABELS {
        return problem(format!(
            "an object has at most {} labels",
            limits::MAX_LABELS
        ));
    }
    for (key, value) in labels {
        if !(1..=limits::MAX_LABEL_KEY).contains(&key.len())
            || value.len() > limits::MAX_LABEL_VALUE
        {
            let key = text::truncated(key, 80);
            return problem(format!(
                "label {key:?}: a key has 1 to {} bytes, a value at most {}",
                limits::MAX_LABEL_KEY,
                limits::MAX_LABEL_VALUE
            ));
        }
    }
    Ok(())
}

/// Refuses a stored message that no version of the gateway can have written: one that is too long or holds control
/// characters.
///
/// # Errors
/// [`ProblemCode::Invalid`], for the field.
pub(crate) fn check_stored_text(field: &str, text: &str) -> Result<(), Problem> {
    if text.len() > limits::MAX_MESSAGE {
        let detail = format!("{field} has at most {} bytes", limits::MAX_MESSAGE);
        return Err(Problem::invalid(field, detail));
    }
    if text.chars().any(char::is_control) {
        let detail = format!("{field} must not hold control characters");
        return Err(Problem::invalid(field, detail));
    }
    Ok(())
}

/// Returns the requested labels after checking them, or the object's own labels if the request has none.
pub(crate) fn checked_labels(labels: Option<Labels>, old: &Labels) -> Result<Labels, Problem> {
    let Some(labels) = labels else {
        return Ok(old.clone());
    };
    check_labels(&labels)?;
    Ok(labels)
}

/// Refuses a message or a reason that is too long, or that holds characters that [`text::check`] refuses.
///
/// # Errors
/// [`ProblemCode::Invalid`], for the field.
pub fn check_text(field: &str, text: &str) -> Result<(), Problem> {
    text::check(field, text, limits::MAX_MESSAGE)
}
