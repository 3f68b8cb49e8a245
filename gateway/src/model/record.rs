//! What every object has beside its own fields.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::model::{Name, OpContext, Problem, ProblemCode, Version, limits, schema, text};

/// Labels: the user's own notes on an object.
pub type Labels = BTreeMap<String, String>;

/// Identity and history of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Meta {
    /// The object's name.
    pub name: Name,
    /// Its identity: a new one each time an object of the name is created.
    pub uid: Uuid,
    /// The object's version: another number after each change. Opaque, only to be compared for equality.
    #[serde(default)]
    #[schema(value_type = u64, maximum = 9_007_199_254_740_991u64)]
    pub version: Version,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When its user last changed it.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// The user's own notes.
    #[serde(default)]
    #[schema(value_type = schema::Labels)]
    pub labels: Labels,
}

/// An object as it is stored and shown: identity, and its own fields beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record<T> {
    /// Identity and history.
    #[serde(flatten)]
    pub meta: Meta,
    /// The object's own fields.
    #[serde(flatten)]
    pub object: T,
}

impl<T> Record<T> {
    /// A new object.
    pub fn create(context: &mut OpContext<'_>, name: Name, labels: Labels, object: T) -> Self {
        Self {
            meta: Meta {
                name,
                uid: context.identifiers.uid(),
                version: Version::default(),
                created_at: context.now,
                updated_at: context.now,
                labels,
            },
            object,
        }
    }

    /// The object with other fields.
    #[must_use]
    pub fn update(&self, context: &OpContext<'_>, labels: Labels, object: T) -> Self {
        Self {
            meta: Meta {
                updated_at: context.now,
                labels,
                ..self.meta.clone()
            },
            object,
        }
    }

    /// Refuses a write that was made for another version.
    ///
    /// # Errors
    /// [`Code::VersionConflict`].
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

/// Refuses labels that are too many or too long.
///
/// # Errors
/// [`Code::Invalid`].
pub fn check_labels(labels: &Labels) -> Result<(), Problem> {
    let problem = |detail: String| Err(Problem::invalid("labels", detail));
    check_stored_labels(labels)?;
    for (key, value) in labels {
        text::check("labels", key, limits::MAX_LABEL_KEY)?;
        text::check("labels", value, limits::MAX_LABEL_VALUE)?;
    }
    let weight = limits::labels_size(labels);
    if weight > limits::MAX_LABELS_BYTES {
        return problem(format!(
            "labels take {weight} bytes together: use at most {}",
            limits::MAX_LABELS_BYTES
        ));
    }
    Ok(())
}

/// Refuses labels that no program ever stored. Earlier ones let any characters through, and a store that has
/// some must still be read.
///
/// # Errors
/// [`Code::Invalid`].
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

/// Refuses a stored message that no program ever stored: one that is too long or holds control characters.
///
/// # Errors
/// [`Code::Invalid`], for the field.
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

/// Returns the labels that are asked for, checked; those that the object has where none are given.
pub(crate) fn checked_labels(labels: Option<Labels>, old: &Labels) -> Result<Labels, Problem> {
    let Some(labels) = labels else {
        return Ok(old.clone());
    };
    check_labels(&labels)?;
    Ok(labels)
}

/// Refuses a message or a reason that is too long, or that holds characters that [`text`] refuses.
///
/// # Errors
/// [`Code::Invalid`], for the field.
pub fn check_text(field: &str, text: &str) -> Result<(), Problem> {
    text::check(field, text, limits::MAX_MESSAGE)
}
