//! The interface of the admin listener as OpenAPI 3.1, and as a page for people; both made of the table of routes.

use std::sync::OnceLock;

use axum::Json;
use axum::response::{IntoResponse, Response};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::endpoint::{Content, Endpoint, Kind, Parameter};

/// Place of the answers' schemas in the document.
const SCHEMAS: &str = "/components/schemas";

pub(super) fn document(endpoints: &[Endpoint]) -> Response {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    Json(DOCUMENT.get_or_init(|| openapi(endpoints))).into_response()
}

fn openapi(endpoints: &[Endpoint]) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = SCHEMAS.into();
        settings.meta_schema = None;
    });
    let mut generator = settings.for_serialize().into_generator();
    let mut paths = Map::new();
    for endpoint in endpoints {
        let methods = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        methods[endpoint.method] = operation(endpoint, &mut generator);
    }
    let mut schemas = generator.take_definitions(true);
    schemas.insert("Error".to_owned(), error_schema());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Pointsman's admin interface",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "[admin] token; without one only loopback is answered" },
            },
        },
        "security": [{ "token": [] }],
    })
}

fn operation(endpoint: &Endpoint, generator: &mut SchemaGenerator) -> Value {
    let schema = match &endpoint.answer {
        Content::Json(schema) => schema(generator).to_value(),
        Content::Other(_) => json!({ "type": "string" }),
    };
    let content = json!({ endpoint.answer.media_type(): { "schema": schema } });
    let mut responses = json!({ "200": { "description": "done", "content": content } });
    for (status, what) in endpoint.errors {
        // What is not ready is told in the same words as what is.
        let is_same = endpoint.path == "/readyz";
        let content = if is_same { content.clone() } else { error_content() };
        responses[status.to_string()] = json!({ "description": what, "content": content });
    }
    if !endpoint.is_open {
        responses["default"] = json!({
            "description": "400: a parameter is unknown or cannot be read; 401 or 403: the token is missing or wrong, or the peer may \
                            not ask; 500: reading or writing failed",
            "content": error_content(),
        });
    }
    let mut operation = json!({
        "operationId": operation_id(endpoint),
        "summary": endpoint.summary,
        "parameters": endpoint.parameters.iter().map(parameter).collect::<Vec<_>>(),
        "responses": responses,
    });
    if !endpoint.details.is_empty() {
        operation["description"] = endpoint.details.into();
    }
    if let Some(what) = endpoint.body {
        let content = json!({ "application/wasm": { "schema": { "type": "string", "format": "binary" } } });
        operation["requestBody"] = json!({ "description": what, "required": true, "content": content });
    }
    if endpoint.is_open {
        operation["security"] = json!([]);
    }
    operation
}

/// Name of an operation: `get /api/exchanges/{id}` is `get_api_exchanges_id`.
fn operation_id(endpoint: &Endpoint) -> String {
    let words = endpoint.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    std::iter::once(endpoint.method).chain(words).collect::<Vec<_>>().join("_")
}

fn parameter(parameter: &Parameter) -> Value {
    let mut schema = match &parameter.kind {
        Kind::Text => json!({ "type": "string" }),
        Kind::Number { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::OneOf(words) => json!({ "type": "string", "enum": words }),
        Kind::Many => json!({ "type": "array", "items": { "type": "string" } }),
    };
    let default = parameter.default.and_then(|default| match &parameter.kind {
        Kind::Number { .. } => default.parse::<u32>().ok().map(Value::from),
        Kind::OneOf(words) => words.contains(&default).then(|| default.into()),
        Kind::Text if !default.contains(' ') => Some(default.into()),
        Kind::Text | Kind::Many => None,
    });
    if let Some(default) = default {
        schema["default"] = default;
    }
    let example = match &parameter.kind {
        Kind::Number { .. } => parameter.example.parse::<u32>().map_or(Value::Null, Value::from),
        Kind::Many => json!([parameter.example]),
        Kind::Text | Kind::OneOf(_) => parameter.example.into(),
    };
    json!({
        "name": parameter.name,
        "in": if parameter.is_in_path { "path" } else { "query" },
        "required": parameter.is_in_path,
        "description": parameter.what,
        "schema": schema,
        "example": example,
    })
}

fn error_content() -> Value {
    json!({ "application/json": { "schema": { "$ref": format!("#{SCHEMAS}/Error") } } })
}

fn error_schema() -> Value {
    json!({
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": { "type": "object", "required": ["message"], "properties": { "message": { "type": "string" } } },
        },
    })
}

/// Writes the reference page of all endpoints, as Markdown.
#[cfg(test)]
fn page(endpoints: &[Endpoint]) -> String {
    use std::fmt::Write as _;
    let mut page = String::from(
        "# The admin interface\n\n\
         Served on `[admin] listen` (default `127.0.0.1:9901`). With `[admin] token`, send `Authorization: Bearer TOKEN`; without one only\n\
         this machine is answered. Errors are `{\"error\":{\"message\":\"...\"}}`. A query parameter that a path under `/api` does not have is a\n\
         400 that names it. The same as OpenAPI 3.1, with the fields of every answer: `GET /api/openapi.json`.\n\n\
         This page is made of the table in `routes.rs`; a test holds it to that (`POINTSMAN_WRITE_API_PAGE=1 cargo test -p pointsman --lib \
         the_reference_page` writes it).\n",
    );
    for endpoint in endpoints {
        let _ = write!(
            page,
            "\n## `{} {}`\n\n{}.",
            endpoint.method.to_uppercase(),
            endpoint.path,
            endpoint.summary.trim_end_matches('?')
        );
        if !endpoint.details.is_empty() {
            let _ = write!(page, " {}", endpoint.details);
        }
        let _ = write!(
            page,
            "\n\nAnswers `{}`{}.",
            endpoint.answer.media_type(),
            if endpoint.is_open { ", without a token too" } else { "" }
        );
        for (status, what) in endpoint.errors {
            let _ = write!(page, " {status}: {what}.");
        }
        page.push('\n');
        if let Some(what) = endpoint.body {
            let _ = write!(page, "\nBody: {what}\n");
        }
        if !endpoint.parameters.is_empty() {
            page.push_str("\n| parameter | in | what | default | example |\n|---|---|---|---|---|\n");
        }
        for p in endpoint.parameters {
            let values = match &p.kind {
                Kind::Text | Kind::Many => String::new(),
                Kind::Number { min, max } => format!(" {min} to {max}."),
                Kind::OneOf(words) => format!(" One of `{}`.", words.join("`, `")),
            };
            let place = if p.is_in_path { "path" } else { "query" };
            let _ = writeln!(
                page,
                "| `{}` | {place} | {}{values} | {} | `{}` |",
                p.name,
                p.what,
                p.default.unwrap_or("–"),
                p.example
            );
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::super::routes::ENDPOINTS;
    use super::*;

    #[test]
    fn the_document_has_every_route_once_and_its_references_resolve() {
        let document = openapi(ENDPOINTS);
        let paths = document["paths"].as_object().unwrap();
        let methods: usize = paths.values().map(|methods| methods.as_object().unwrap().len()).sum();
        assert_eq!(methods, ENDPOINTS.len(), "two entries of one method and path");
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!(document.pointer(reference).is_some(), "{reference}");
        }
        let mut ids: Vec<String> = ENDPOINTS.iter().map(operation_id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), ENDPOINTS.len());
    }

    #[test]
    fn every_variable_of_a_path_is_a_parameter() {
        for endpoint in ENDPOINTS {
            let of_path: Vec<&str> = endpoint.path.split(['{', '}']).skip(1).step_by(2).collect();
            let told: Vec<&str> = endpoint.parameters.iter().filter(|p| p.is_in_path).map(|p| p.name).collect();
            assert_eq!(of_path, told, "{}", endpoint.path);
        }
    }

    #[test]
    fn answers_have_the_fields_that_are_described() {
        let document = openapi(ENDPOINTS);
        let backend = document.pointer("/components/schemas/BackendView/properties").unwrap();
        let told = serde_json::to_value(crate::admin::view::BackendView::default()).unwrap();
        let names =
            |value: &Value| value.as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>();
        assert_eq!(names(backend), names(&told));
    }

    #[test]
    fn the_reference_page_is_what_the_table_says() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/admin/API.md");
        if std::env::var_os("POINTSMAN_WRITE_API_PAGE").is_some() {
            std::fs::write(file, page(ENDPOINTS)).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(file).unwrap_or_default(),
            page(ENDPOINTS),
            "write it again, as its head says"
        );
    }
}
