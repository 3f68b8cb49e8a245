//! What every object has beside its own fields.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::model::{Code, Context, Name, Problem, schema};

/// Labels: the user's own notes on an object.
pub type Labels = BTreeMap<String, String>;

/// Identity and history of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Meta {
    /// The object's name.
    pub name: Name,
    /// Its identity: a new one each time an object of the name is created.
    pub uid: Uuid,
    /// The store's revision when the object was last written. Set by the store.
    #[serde(default)]
    pub version: u64,
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
    pub fn create(context: &mut Context<'_>, name: Name, labels: Labels, object: T) -> Self {
        Self {
            meta: Meta {
                name,
                uid: context.identifiers.uid(),
                version: 0,
                created_at: context.now,
                updated_at: context.now,
                labels,
            },
            object,
        }
    }

    /// The object with other fields.
    #[must_use]
    pub fn update(&self, context: &Context<'_>, labels: Labels, object: T) -> Self {
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
            Some(expected) if expected != self.meta.version => Err(Problem::new(
                Code::VersionConflict,
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
    if labels.len() > 64 {
        return Err(Problem::invalid(
            "labels",
            "an object has at most 64 labels",
        ));
    }
    for (key, value) in labels {
        if key.is_empty() || key.len() > 63 || value.len() > 255 {
            return Err(Problem::invalid(
                "labels",
                format!(
                    "label {:?}: a key has 1 to 63 bytes, a value at most 255",
                    key.chars().take(80).collect::<String>()
                ),
            ));
        }
    }
    Ok(())
}

/// A labels field that is fit to be stored.
pub(crate) fn checked_labels(labels: Option<Labels>, old: &Labels) -> Result<Labels, Problem> {
    let labels = labels.unwrap_or_else(|| old.clone());
    check_labels(&labels)?;
    Ok(labels)
}

/// Refuses free text that is too long or holds control characters.
///
/// # Errors
/// [`Code::Invalid`], for the field.
pub fn check_text(field: &str, text: &str) -> Result<(), Problem> {
    const LIMIT: usize = 1_000;
    if text.len() > LIMIT {
        return Err(Problem::invalid(
            field,
            format!("{field} has at most {LIMIT} bytes"),
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(Problem::invalid(
            field,
            format!("{field} must not hold control characters"),
        ));
    }
    Ok(())
}
