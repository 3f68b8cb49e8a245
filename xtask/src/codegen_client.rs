//! Code generator for the API client: one method for each operation of the OpenAPI document.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value};

/// Head of the generated file.
const FILE_HEADER: &str = "\
//! The API's operations, @generated from `docs/openapi.json` by `cargo xtask openapi`.
//!
//! Change the document, not this file.

use anyhow::Result;
use reqwest::Method;

use crate::client::{Body, Client, EMPTY_BODY, Query, types::*};

impl Client {
";

/// Generates the client's source code from the OpenAPI document.
///
/// # Errors
/// If the document contains a construct that the generator does not support.
pub(crate) fn generate(document: &str) -> Result<String> {
    let document: Value =
        serde_json::from_str(document).context("the OpenAPI document is not JSON")?;
    let paths = document["paths"]
        .as_object()
        .context("the OpenAPI document has no paths")?;
    let mut operations = Vec::new();
    for (path, item) in paths {
        let item = item.as_object().context("a path item is not an object")?;
        for (method, operation) in item {
            let name = operation["operationId"].as_str();
            let name = name.with_context(|| format!("{method} {path} has no operationId"))?;
            let code = method_of(name, path, method, operation)
                .with_context(|| format!("operation {name}"))?;
            operations.push((name.to_owned(), code));
        }
    }
    operations.sort();
    let codes: Vec<String> = operations.into_iter().map(|(_, code)| code).collect();
    Ok(format!("{FILE_HEADER}{}}}\n", codes.join("\n")))
}

fn method_of(name: &str, path: &str, method: &str, operation: &Value) -> Result<String> {
    let mut arguments = String::new();
    let mut query = String::new();
    let none = Vec::new();
    let parameters = operation["parameters"].as_array().unwrap_or(&none);
    for parameter in parameters {
        let field = parameter["name"]
            .as_str()
            .context("a parameter has no name")?;
        match parameter["in"].as_str() {
            Some("path") => write!(
                arguments,
                ", {field}: {}",
                argument_type(&parameter["schema"])?
            )?,
            Some("query") => {
                let kind = argument_type(&parameter["schema"])?;
                write!(arguments, ", {field}: Option<{kind}>")?;
                writeln!(query, "            .with(\"{field}\", {field})")?;
            }
            // Optional headers, such as idempotency keys, are not used by the client.
            Some("header") => {}
            other => bail!("a parameter has an unsupported location {other:?}"),
        }
    }
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    let bytes = &operation["requestBody"]["content"]["application/octet-stream"];
    let body = if !bytes.is_null() {
        write!(arguments, ", body: Vec<u8>")?;
        "Body::<()>::Bytes(body)"
    } else if body.is_null() {
        "EMPTY_BODY"
    } else {
        write!(arguments, ", body: &{}", referenced_type(body)?)?;
        "Body::Json(body)"
    };
    let responses = operation["responses"]
        .as_object()
        .context("the operation has no responses")?;
    let result = result_type(responses)?;
    let summary = operation["summary"].as_str().unwrap_or(name);
    let mut code = String::new();
    let method = method.to_uppercase();
    writeln!(code, "    /// Calls `{method} {path}`.")?;
    writeln!(code, "    ///")?;
    writeln!(code, "    /// {}", summary.trim())?;
    writeln!(code, "    ///")?;
    writeln!(code, "    /// # Errors")?;
    writeln!(
        code,
        "    /// If the agent refuses the request or can't be reached."
    )?;
    writeln!(
        code,
        "    pub async fn {name}(&self{arguments}) -> Result<{result}> {{"
    )?;
    if path.contains('{') {
        writeln!(code, "        let path = format!(\"{path}\");")?;
        writeln!(code, "        let path = path.as_str();")?;
    } else {
        writeln!(code, "        let path = \"{path}\";")?;
    }
    if query.is_empty() {
        writeln!(code, "        let query = Query::default();")?;
    } else {
        write!(
            code,
            "        let query = Query::default()\n{}",
            query.trim_end()
        )?;
        writeln!(code, ";")?;
    }
    let call = match result.as_str() {
        "()" => "call_without_answer",
        "String" => "call_for_text",
        "Vec<u8>" => "call_for_bytes",
        _ => "call",
    };
    writeln!(
        code,
        "        self.{call}(Method::{method}, path, &query, {body}).await"
    )?;
    writeln!(code, "    }}")?;
    Ok(code)
}

/// Returns the type of an operation's success response.
fn result_type(responses: &Map<String, Value>) -> Result<String> {
    let success = responses.iter().find(|(status, _)| status.starts_with('2'));
    let (_, success) = success.context("the operation has no success response")?;
    let content = &success["content"];
    if content.is_null() {
        return Ok("()".to_owned());
    }
    if content["application/octet-stream"].is_object() {
        return Ok("Vec<u8>".to_owned());
    }
    let json = &content["application/json"]["schema"];
    if json.is_null() {
        return Ok("String".to_owned());
    }
    referenced_type(json)
}

/// Returns the type of a schema in the document's components: `Page_X` is `Page<X>`.
fn referenced_type(schema: &Value) -> Result<String> {
    let reference = schema["$ref"]
        .as_str()
        .context("an inline schema is not supported: give the schema a name")?;
    let name = reference.rsplit('/').next().unwrap_or_default();
    Ok(match name.split_once('_') {
        Some((outer, inner)) => format!("{outer}<{inner}>"),
        None => name.to_owned(),
    })
}

/// Returns the type of a parameter.
fn argument_type(schema: &Value) -> Result<String> {
    if schema["$ref"].is_string() {
        return Ok(format!("&{}", referenced_type(schema)?));
    }
    // An optional schema is one of the schema and null.
    if let Some(either) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
        let thing = either.iter().find(|one| one["type"] != "null");
        return argument_type(thing.context("a parameter allows null only")?);
    }
    let kind = match &schema["type"] {
        Value::String(kind) => kind.as_str(),
        Value::Array(kinds) => kinds
            .iter()
            .filter_map(Value::as_str)
            .find(|kind| *kind != "null")
            .unwrap_or_default(),
        _ => "",
    };
    Ok(match (kind, schema["format"].as_str()) {
        ("integer", Some("int32")) => "u32",
        ("integer", _) => "u64",
        ("boolean", _) => "bool",
        ("string", _) => "&str",
        other => bail!("a parameter has an unsupported type {other:?}"),
    }
    .to_owned())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn generated_client_matches_the_openapi_document() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let read = |path: &str| fs::read_to_string(workspace.join(path)).unwrap();
        let generated = generate(&read("docs/openapi.json")).unwrap();
        let words = |text: &str| -> String { text.split_whitespace().collect() };
        // Compared without whitespace and trailing commas, which rustfmt changes.
        let clean = |text: &str| words(text).replace(",)", ")");
        assert!(
            clean(&generated) == clean(&read("gateway/src/client/operations.rs")),
            "gateway/src/client/operations.rs is not generated from docs/openapi.json: \
             run `cargo xtask openapi`"
        );
    }
}
