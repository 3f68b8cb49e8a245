//! Enforcement of the sizes that OpenAPI schemas state, and of the permitted characters of text.
//!
//! Bodies of requests are checked against the published schemas (`maxLength`, `maxItems` and `maxProperties`), and
//! every string and key against [`text`], so that no field can be forgotten. A body is checked while it is parsed,
//! without building a tree.

use std::{cell::RefCell, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use utoipa::openapi::{
    Components, RefOr, Schema, Type,
    schema::{AdditionalProperties, Array, ArrayItems, Object, SchemaType},
};

use crate::model::{Problem, text};

/// Refuses a JSON document that exceeds a limit of its schema, or in which a string or a key has a forbidden character.
/// Malformed JSON, types, required fields and patterns are left to decoding.
///
/// # Errors
/// Fails with [`ProblemCode::Invalid`](crate::model::ProblemCode::Invalid), for the first field at fault.
pub fn check<'de, D: Deserializer<'de>>(
    components: &Components,
    name: &str,
    document: D,
) -> Result<(), Problem> {
    let found = RefCell::new(None);
    let mut schemas = Vec::new();
    if let Some(schema) = components.schemas.get(name) {
        resolve(components, schema, &mut schemas);
    }
    let walk = SchemaWalker {
        components,
        schemas,
        path: Path::Root,
        problem: &found,
    };
    // Decoding reports all other errors.
    let _parsed = walk.deserialize(document);
    found.into_inner().map_or(Ok(()), Err)
}

/// Collects the schemas that a schema consists of: follows references, and takes every alternative.
fn resolve<'a>(components: &'a Components, schema: &'a RefOr<Schema>, found: &mut Vec<&'a Schema>) {
    match schema {
        RefOr::Ref(reference) => {
            let name = reference
                .ref_location
                .rsplit('/')
                .next()
                .unwrap_or_default();
            if let Some(schema) = components.schemas.get(name) {
                resolve(components, schema, found);
            }
        }
        RefOr::T(Schema::OneOf(several)) => {
            for schema in &several.items {
                resolve(components, schema, found);
            }
        }
        RefOr::T(Schema::AnyOf(several)) => {
            for schema in &several.items {
                resolve(components, schema, found);
            }
        }
        RefOr::T(Schema::AllOf(several)) => {
            for schema in &several.items {
                resolve(components, schema, found);
            }
        }
        RefOr::T(schema) => found.push(schema),
    }
}

/// Path of a value in a document.
#[derive(Clone, Copy)]
enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Element(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Path::Root, name) => f.write_str(name),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Element(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Visitor of a value, with the schemas that apply to the value.
struct SchemaWalker<'a> {
    components: &'a Components,
    schemas: Vec<&'a Schema>,
    path: Path<'a>,
    problem: &'a RefCell<Option<Problem>>,
}

impl<'a> SchemaWalker<'a> {
    fn objects(&self) -> impl Iterator<Item = &'a Object> + '_ {
        self.schemas.iter().filter_map(|schema| match schema {
            Schema::Object(schema) => Some(schema),
            _ => None,
        })
    }

    fn arrays(&self) -> impl Iterator<Item = &'a Array> + '_ {
        self.schemas.iter().filter_map(|schema| match schema {
            Schema::Array(schema) => Some(schema),
            _ => None,
        })
    }

    fn reject<E: serde::de::Error>(&self, problem: Problem) -> E {
        self.problem.replace(Some(problem));
        E::custom("document exceeds its schema")
    }

    /// Refuses a count above the limit.
    fn check_count<E: serde::de::Error>(
        &self,
        count: usize,
        what: &str,
        max: Option<usize>,
    ) -> Result<(), E> {
        match max {
            Some(max) if count > max => {
                let path = text::truncated(&self.path.to_string(), 200);
                let detail = format!("{path} has more {what} than allowed: use at most {max}");
                Err(self.reject(Problem::invalid(path, detail)))
            }
            _ => Ok(()),
        }
    }

    fn check_characters<E: serde::de::Error>(&self, text: &str) -> Result<(), E> {
        let named = || match self.path.to_string() {
            path if path.is_empty() => "body".to_owned(),
            path => path,
        };
        if text.chars().any(text::is_forbidden) {
            let checked = text::check(&named(), text, usize::MAX);
            return checked.map_err(|problem| self.reject(problem));
        }
        Ok(())
    }
}

/// Returns the largest of several limits, or none if one of them is none or there are none.
fn largest(limits: impl Iterator<Item = Option<usize>>) -> Option<usize> {
    limits.reduce(|one, other| Some(one?.max(other?))).flatten()
}

fn is_text(schema: &Object) -> bool {
    match &schema.schema_type {
        SchemaType::Type(given) => *given == Type::String,
        SchemaType::Array(given) => given.contains(&Type::String),
        SchemaType::AnyValue => true,
    }
}

fn is_map(schema: &Object) -> bool {
    match &schema.schema_type {
        SchemaType::Type(given) => *given == Type::Object,
        SchemaType::Array(given) => given.contains(&Type::Object),
        SchemaType::AnyValue => true,
    }
}

impl<'de> DeserializeSeed<'de> for SchemaWalker<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for SchemaWalker<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        let limits = self.objects().filter(|schema| is_text(schema));
        let max = largest(limits.map(|schema| schema.max_length));
        if max.is_some_and(|most| text.len() > most) {
            self.check_count(text.chars().count(), "characters", max)?;
        }
        self.check_characters(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let max = largest(self.arrays().map(|schema| schema.max_items));
        let mut schemas = Vec::new();
        for schema in self.arrays() {
            if let ArrayItems::RefOrSchema(items) = &schema.items {
                resolve(self.components, items, &mut schemas);
            }
        }
        let mut count = 0;
        loop {
            let element = SchemaWalker {
                components: self.components,
                schemas: schemas.clone(),
                path: Path::Element(&self.path, count),
                problem: self.problem,
            };
            // An item beyond the limit is not parsed.
            if max == Some(count) {
                let more = list.next_element::<serde::de::IgnoredAny>()?;
                return match more {
                    Some(_) => self.check_count(count + 1, "items", max),
                    None => Ok(()),
                };
            }
            if list.next_element_seed(element)?.is_none() {
                return Ok(());
            }
            count += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let maps: Vec<&Object> = self.objects().filter(|schema| is_map(schema)).collect();
        let max = largest(maps.iter().map(|schema| schema.max_properties));
        let mut count = 0;
        while let Some(key) = map.next_key::<String>()? {
            count += 1;
            self.check_count::<A::Error>(count, "entries", max)?;
            self.check_characters::<A::Error>(&key)?;
            let mut schemas = Vec::new();
            let mut is_field = false;
            for schema in &maps {
                if let Some(property) = schema.properties.get(&key) {
                    is_field = true;
                    resolve(self.components, property, &mut schemas);
                    continue;
                }
                if let Some(Schema::Object(names)) = schema.property_names.as_deref() {
                    let length = key.chars().count();
                    self.check_count::<A::Error>(length, "characters in a key", names.max_length)?;
                }
                if let Some(AdditionalProperties::RefOr(values)) =
                    schema.additional_properties.as_deref()
                {
                    resolve(self.components, values, &mut schemas);
                }
            }
            // A key that is not a field's name is the user's data, so the path of an error does not repeat it.
            let path = match (is_field, &&self.path) {
                (true, _) | (false, Path::Root) => Path::Field(&self.path, &key),
                (false, path) => **path,
            };
            map.next_value_seed(SchemaWalker {
                components: self.components,
                schemas,
                path,
                problem: self.problem,
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use utoipa::openapi::ComponentsBuilder;

    use super::*;

    fn found(document: Value) -> Option<String> {
        let components = ComponentsBuilder::new().build();
        check(&components, "None", document).err()?.field
    }

    #[test]
    fn every_leaf_of_a_document_is_checked() {
        assert_eq!(found(json!({"a": [{"b": "fine"}, 1, null]})), None);
        assert_eq!(
            found(json!({"a": {"b": "x\u{202e}"}})).as_deref(),
            Some("a")
        );
        assert_eq!(found(json!({"a": [1, "x\u{1b}"]})).as_deref(), Some("a[1]"));
        assert_eq!(
            found(json!({"labels": {"k\u{1b}": "v"}})).as_deref(),
            Some("labels")
        );
        assert_eq!(found(json!({"\u{1b}": 1})).as_deref(), Some("body"));
    }
}
