//! `GET /openapi.json` and `GET /docs`: the reference, from the routes that there are and the tables that there are now.

mod components;
mod operations;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use caudal_core::schema::Table;
use http::{StatusCode, header};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::problem::json_response;
use crate::state::App;
use components::reference;
use operations::{COMMON, Errors, OPERATIONS, Operation};

const PAGE: &str = include_str!("docs.html");

pub(crate) async fn document(State(app): State<Arc<App>>) -> Response {
    let tables: Vec<Arc<Table>> =
        app.engine.topics.iter().map(|topic| topic.table()).chain([app.engine.dead_letters.clone()]).collect();
    let topics: Vec<String> = app.engine.topics.names().map(str::to_owned).collect();
    json_response(StatusCode::OK, &describe(&topics, &tables, app.engine.store.database()))
}

/// A page that renders the document. It asks nobody but this server, and its policy allows no script but its own.
pub(crate) async fn page() -> Response {
    let policy = format!(
        "default-src 'self'; script-src '{}'; style-src '{}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash_of("script"),
        hash_of("style")
    );
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(PAGE)).into_response()
}

/// The hash that the policy names, of what stands in the page's one element of this name.
fn hash_of(element: &str) -> String {
    let inside =
        PAGE.split_once(&format!("<{element}>")).and_then(|(_, rest)| rest.split_once(&format!("</{element}>")));
    let digest = Sha256::digest(inside.map_or("", |(inside, _)| inside));
    format!("sha256-{}", STANDARD.encode(digest))
}

const GENERIC: &str = "/rest/v1/{table}";

fn describe(topics: &[String], tables: &[Arc<Table>], database: &str) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] =
            operation_object(operation, &operation.params.iter().map(|name| parameter(name)).collect::<Vec<_>>());
    }
    let mut schemas = components::schemas();
    for table in tables {
        schemas.insert(format!("row.{}", table.name), components::row(table));
        let mut path = json!({ "get": table_operation(table) });
        if table.insertable {
            path["post"] = insert_operation(table);
        }
        paths.insert(format!("/rest/v1/{}", table.name), path);
    }
    let names: Vec<String> = tables.iter().map(|table| table.name.clone()).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Caudal",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Data in over HTTP or a broker, stored once in SQL, served back over HTTP.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{}, { "key": [] }],
        "paths": paths,
        "components": {
            "parameters": components::parameters(topics, &names, database),
            "schemas": schemas,
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn parameter(name: &str) -> Value {
    json!({ "$ref": format!("#/components/parameters/{name}") })
}

/// Inserting into a topic's table under its own name.
fn insert_operation(table: &Table) -> Value {
    let generic = OPERATIONS.iter().find(|operation| (operation.method, operation.path) == ("post", GENERIC));
    let Some(generic) = generic else { return Value::Null };
    let params: Vec<Value> =
        generic.params.iter().filter(|name| **name != "table").map(|name| parameter(name)).collect();
    let mut described = operation_object(generic, &params);
    described["operationId"] = format!("post /rest/v1/{}", table.name).into();
    described["summary"] = format!("Insert into {}", table.name).into();
    described
}

/// A table under its own name: the generic route with the columns as parameters, and its row as the answer.
fn table_operation(table: &Table) -> Value {
    let Some(generic) = OPERATIONS.iter().find(|operation| (operation.method, operation.path) == ("get", GENERIC))
    else {
        return Value::Null;
    };
    let shared = generic.params.iter().filter(|name| **name != "table").map(|name| parameter(name));
    // A column that is called like a parameter cannot be filtered by.
    let columns = table.columns.iter().filter(|column| !generic.params.contains(&column.name.as_str()));
    let params: Vec<Value> = shared.chain(columns.map(components::filter)).collect();
    let mut described = operation_object(generic, &params);
    described["operationId"] = format!("get /rest/v1/{}", table.name).into();
    described["summary"] = format!("Rows of {}", table.name).into();
    let row = reference(&format!("row.{}", table.name));
    let rows = json!({ "type": "array", "items": row });
    for status in ["200", "206"] {
        described["responses"][status]["content"]["application/json"]["schema"] = rows.clone();
        described["responses"][status]["content"]["application/vnd.pgrst.object+json"]["schema"] = row.clone();
    }
    described
}

fn operation_object(operation: &Operation, params: &[Value]) -> Value {
    let mut described = json!({
        "operationId": format!("{} {}", operation.method, operation.path),
        "tags": [operation.tag],
        "summary": operation.summary,
        "responses": responses(operation),
    });
    if !params.is_empty() {
        described["parameters"] = params.into();
    }
    if !operation.body.is_empty() {
        let content: Map<String, Value> =
            operation.body.iter().map(|media| ((*media).to_owned(), body(media))).collect();
        described["requestBody"] = json!({ "required": true, "content": content });
    }
    described
}

fn body(media: &str) -> Value {
    if media == "application/x-www-form-urlencoded" {
        return json!({ "schema": { "type": "object", "additionalProperties": { "type": "string" } } });
    }
    match media.contains("json") {
        true => json!({ "schema": {} }),
        false => json!({ "schema": { "type": "string" } }),
    }
}

fn responses(operation: &Operation) -> Value {
    let mut responses: Map<String, Value> = Map::new();
    for status in COMMON.iter().chain(operation.problems) {
        responses.insert(status.to_string(), problem(*status, operation.errors));
    }
    for (status, media, schema) in operation.answers {
        let schema = if schema.is_empty() { json!({}) } else { reference(schema) };
        let described =
            responses.entry(status.to_string()).or_insert_with(|| json!({ "description": reason(*status) }));
        for media in *media {
            let text = media.starts_with("text/") || media.contains("ndjson");
            described["content"][media]["schema"] = if text { reference("Text") } else { schema.clone() };
        }
    }
    Value::Object(responses)
}

/// What is refused before a route is found is a problem whatever the route speaks.
fn problem(status: u16, errors: Errors) -> Value {
    let mut content = json!({ "application/problem+json": { "schema": reference("Problem") } });
    match errors {
        Errors::Problem => {}
        Errors::Postgrest => content["application/json"] = json!({ "schema": reference("PostgrestProblem") }),
        Errors::Aws => {
            content["text/xml"] = json!({ "schema": reference("Text") });
            content["application/x-amz-json-1.0"] = json!({ "schema": { "type": "object" } });
        }
    }
    json!({ "description": reason(status), "content": content })
}

fn reason(status: u16) -> &'static str {
    StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Answer")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Method and path of each route, from the source of the router: it has no list of its own to ask.
    fn routed() -> BTreeSet<(String, String)> {
        let source: String = include_str!("../routes.rs").split_whitespace().collect();
        let source = source.replace("&format!(\"/{}/{{queue}}\",aws::ACCOUNT)", "\"/000000000000/{queue}\"");
        let mut routed = BTreeSet::new();
        for route in source.split(".route(").skip(1) {
            let (path, methods) =
                route.strip_prefix('"').and_then(|rest| rest.split_once("\",")).expect("a route with a literal path");
            let methods = methods.split(".method_not_allowed_fallback").next().unwrap_or_default();
            for method in ["get", "post", "put", "patch", "delete"] {
                let (first, later) = (format!("{method}("), format!(").{method}("));
                if methods.starts_with(&first) || methods.contains(&later) {
                    routed.insert((method.to_owned(), path.to_owned()));
                }
            }
        }
        // The one route that no pattern of the router can name.
        assert!(source.contains("sql::in_path("), "routes.rs has lost /{{db}}/q=");
        routed.insert(("get".into(), "/{db}/q={statement}".into()));
        routed
    }

    #[test]
    fn every_route_is_described_and_every_description_has_its_route() {
        let described: BTreeSet<_> = OPERATIONS.iter().map(|o| (o.method.to_owned(), o.path.to_owned())).collect();
        assert_eq!(described.len(), OPERATIONS.len(), "an operation is described twice");
        let routed = routed();
        let missing: Vec<_> = routed.difference(&described).collect();
        let gone: Vec<_> = described.difference(&routed).collect();
        assert!(missing.is_empty() && gone.is_empty(), "not described: {missing:?}; without a route: {gone:?}");
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let table = Arc::new(Table::dead_letters());
        let document = describe(&["t".into()], &[table], "d");
        let text = document.to_string();
        for (_, rest) in text.match_indices("\"#/").map(|(at, _)| text.split_at(at + 2)) {
            let pointer = rest.split('"').next().unwrap_or_default();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
        // Each placeholder of a path is a parameter, and the other way round.
        for operation in OPERATIONS {
            let named = |name: &&&str| document["components"]["parameters"][**name]["in"] == "path";
            let given = operation.params.iter().filter(named).count();
            assert_eq!(given, operation.path.matches('{').count(), "{}", operation.path);
        }
    }
}
