//! Differences between two versions of an object, field by field.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::model::{Kind, Object, Reference};

/// Action on an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DiffAction {
    /// The object is created.
    Create,
    /// The object is changed.
    Update,
    /// The object is deleted.
    Delete,
}

/// Change of one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldDiff {
    /// Path of the field: `resources[0].backends[1].weight`.
    pub field: String,
    /// Old value. Absent if the field had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub old: Option<String>,
    /// New value. Absent if the field has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub new: Option<String>,
}

/// Change of one object and of its fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ObjectDiff {
    /// Action on the object.
    pub action: DiffAction,
    /// Kind of the object.
    pub kind: Kind,
    /// Name of the object: `TENANT`, or `TENANT/NAME`.
    pub object: String,
    /// Fields that change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldDiff>,
}

/// Returns the name of an object as users know it: `TENANT`, or `TENANT/NAME`.
pub(super) fn display_name(kind: Kind, reference: &Reference) -> String {
    if kind == Kind::Tenant {
        reference.tenant.to_string()
    } else {
        reference.to_string()
    }
}

/// Returns true if the object is the same apart from its version and time of change.
pub(super) fn is_unchanged(before: Option<&Object>, after: Option<&Object>) -> bool {
    match (before, after) {
        (None, None) => true,
        (Some(before), Some(after)) => {
            let mut after = after.clone();
            let meta = after.meta_mut();
            meta.version = before.version();
            meta.updated_at = before.meta().updated_at;
            *before == after
        }
        _ => false,
    }
}

/// Fields that are left out of differences, because the gateway maintains them.
const HIDDEN_FIELDS: [&str; 12] = [
    "version",
    "updated_at",
    "created_at",
    "uid",
    "number",
    "resource_numbers",
    "service_identity",
    "name",
    "connection.generation",
    "connection.slot",
    "connection.link_id",
    "connection.decided_at",
];

/// Returns the difference between two versions of an object, of which one may be absent.
pub(super) fn diff_object(
    before: Option<&Object>,
    after: Option<&Object>,
    kind: Kind,
    reference: &Reference,
) -> ObjectDiff {
    let action = match (before, after) {
        (None, _) => DiffAction::Create,
        (_, None) => DiffAction::Delete,
        _ => DiffAction::Update,
    };
    let tree = |object: Option<&Object>| object.and_then(|object| object.to_value().ok());
    let mut fields = Vec::new();
    if action != DiffAction::Delete {
        let (old, new) = (tree(before), tree(after));
        diff_fields("", old.as_ref(), new.as_ref(), &mut fields);
    }
    ObjectDiff {
        action,
        kind,
        object: display_name(kind, reference),
        fields,
    }
}

/// Adds the differences between two values of the field at `path`.
fn diff_fields(path: &str, old: Option<&Value>, new: Option<&Value>, fields: &mut Vec<FieldDiff>) {
    if old == new || HIDDEN_FIELDS.contains(&path) {
        return;
    }
    let empty = |value: Option<&Value>| match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::String(text)) => text.is_empty(),
        Some(_) => false,
    };
    if empty(old) && empty(new) {
        return;
    }
    let is_tree = |value: Option<&Value>| matches!(value, Some(Value::Object(_) | Value::Array(_)));
    let descend = (is_tree(old) || empty(old)) && (is_tree(new) || empty(new));
    match (old.unwrap_or(&Value::Null), new.unwrap_or(&Value::Null)) {
        (old @ (Value::Object(_) | Value::Null), new @ (Value::Object(_) | Value::Null))
            if descend =>
        {
            let none = serde_json::Map::new();
            let (old, new) = (
                old.as_object().unwrap_or(&none),
                new.as_object().unwrap_or(&none),
            );
            let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for name in names {
                let inner = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                diff_fields(&inner, old.get(name), new.get(name), fields);
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            for index in 0..old.len().max(new.len()) {
                let inner = format!("{path}[{index}]");
                diff_fields(&inner, old.get(index), new.get(index), fields);
            }
        }
        _ => {
            let text = |value: Option<&Value>| {
                value
                    .filter(|value| !value.is_null())
                    .map(|value| match value {
                        Value::String(text) => text.clone(),
                        other => other.to_string(),
                    })
            };
            fields.push(FieldDiff {
                field: path.to_owned(),
                old: text(old),
                new: text(new),
            });
        }
    }
}
