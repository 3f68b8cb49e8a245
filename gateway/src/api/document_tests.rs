//! Tests of the OpenAPI document: docs/openapi.json is current, and every request is bounded.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Map, Value, json};

use crate::model::bounds;

#[test]
fn committed_openapi_document_matches_the_routes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let written = fs::read_to_string(path).unwrap();
    let made = super::document().to_pretty_json().unwrap();
    assert!(
        written.trim_end() == made,
        "docs/openapi.json is out of date: run `cargo xtask openapi`"
    );
}

fn document() -> Value {
    serde_json::to_value(super::document()).unwrap()
}

fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => {
            &document["components"]["schemas"][reference.rsplit('/').next().unwrap()]
        }
        None => schema,
    }
}

/// Returns the names of the schemas of all request bodies.
fn bodies(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().unwrap().values();
    let operations = paths.flat_map(|path| path.as_object().unwrap().values());
    let schemas = operations.filter_map(|operation| {
        operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str()
    });
    schemas
        .map(|reference| reference.rsplit('/').next().unwrap().to_owned())
        .collect()
}

fn is(schema: &Value, kind: &str) -> bool {
    match &schema["type"] {
        Value::String(given) => given == kind,
        Value::Array(given) => given.iter().any(|given| given == kind),
        _ => false,
    }
}

/// A visitor of schemas: it gets a schema's path, the schema, and a function that wraps a value there in a whole body.
type Each<'a> = dyn FnMut(&str, &Value, &dyn Fn(Value) -> Value) + 'a;

/// Visits a schema and all schemas in it, each with its path. `wrap` makes a whole body of a value at that path.
fn visit(
    document: &Value,
    path: &str,
    schema: &Value,
    wrap: &dyn Fn(Value) -> Value,
    each: &mut Each<'_>,
) {
    let schema = resolve(document, schema);
    each(path, schema, wrap);
    for several in ["oneOf", "anyOf", "allOf"] {
        for one in schema[several].as_array().into_iter().flatten() {
            visit(document, path, one, wrap, each);
        }
    }
    if schema["items"].is_object() {
        let wrap = |value: Value| wrap(json!([value]));
        visit(
            document,
            &format!("{path}[0]"),
            &schema["items"],
            &wrap,
            each,
        );
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let wrap = |value: Value| {
            let mut map = Map::new();
            map.insert(name.clone(), value);
            wrap(Value::Object(map))
        };
        let inner = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        visit(document, &inner, property, &wrap, each);
    }
    if schema["additionalProperties"].is_object() {
        let wrap = |value: Value| wrap(json!({ "key": value }));
        visit(document, path, &schema["additionalProperties"], &wrap, each);
    }
}

fn unbounded(path: &str, schema: &Value) -> Option<String> {
    let has = |key: &str| !schema[key].is_null();
    let text = is(schema, "string");
    if text
        && !["maxLength", "enum", "format", "pattern", "const"]
            .into_iter()
            .any(has)
    {
        return Some(format!("{path}: a string without maxLength"));
    }
    if is(schema, "array") && !has("maxItems") {
        return Some(format!("{path}: an array without maxItems"));
    }
    let free = schema["additionalProperties"].is_object() || schema["additionalProperties"] == true;
    let bounded = has("maxProperties") && schema["propertyNames"]["maxLength"].is_u64();
    if is(schema, "object") && free && !bounded {
        return Some(format!(
            "{path}: a map without maxProperties, or with keys of any length"
        ));
    }
    None
}

#[test]
fn every_string_list_and_map_of_a_request_is_bounded() {
    let document = document();
    let mut found = Vec::new();
    let names = bodies(&document);
    assert!(
        names.contains("Manifest") && names.contains("ServiceRequest"),
        "{names:?}"
    );
    for name in &names {
        let schema = &document["components"]["schemas"][name];
        visit(
            &document,
            "",
            schema,
            &|value| value,
            &mut |path, schema, _| {
                found.extend(unbounded(path, schema).map(|what| format!("{name} {what}")));
            },
        );
    }
    let paths = document["paths"].as_object().unwrap();
    for (path, operations) in paths {
        for operation in operations.as_object().unwrap().values() {
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let name = format!("{path} {}", parameter["name"]);
                let schema = &parameter["schema"];
                visit(
                    &document,
                    &name,
                    schema,
                    &|value| value,
                    &mut |path, schema, _| {
                        found.extend(unbounded(path, schema));
                    },
                );
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn limits_are_accepted_and_one_more_is_refused() {
    let components = super::document().components.unwrap();
    let document = document();
    let mut tried = 0;
    for name in bodies(&document) {
        let schema = &document["components"]["schemas"][&name];
        visit(
            &document,
            "",
            schema,
            &|value| value,
            &mut |path, schema, wrap| {
                let limit = |key: &str| {
                    schema[key]
                        .as_u64()
                        .map(|limit| usize::try_from(limit).unwrap())
                };
                let make = |key: &str, count: usize| match key {
                    "maxLength" => json!("x".repeat(count)),
                    "maxItems" => Value::Array(vec![Value::Null; count]),
                    _ => {
                        let entries = (0..count).map(|number| (number.to_string(), Value::Null));
                        Value::Object(entries.collect())
                    }
                };
                for key in ["maxLength", "maxItems", "maxProperties"] {
                    let Some(limit) = limit(key) else { continue };
                    tried += 1;
                    let fits = wrap(make(key, limit));
                    assert_eq!(
                        bounds::check(&components, &name, fits),
                        Ok(()),
                        "{name} {path}"
                    );
                    let larger = wrap(make(key, limit + 1));
                    let problem = bounds::check(&components, &name, larger).unwrap_err();
                    assert_eq!(problem.code, crate::model::ProblemCode::Invalid);
                    assert!(
                        problem.detail.contains(&format!("at most {limit}")),
                        "{problem}"
                    );
                }
            },
        );
    }
    assert!(tried > 50, "{tried}");
}
