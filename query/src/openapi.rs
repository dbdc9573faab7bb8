//! `GET /v1/openapi.json`: the routes of `/v1` as OpenAPI 3.1. Schemas come from the response types, limits and names from the constants
//! with which requests are parsed.

use crate::api::format::{tagged, validator};
use crate::cache;
use crate::problem::Problem;
use crate::report::pages::{MAX_LIMIT, MAX_PREFIX};
use crate::report::{BreakdownItem, DayFigures, HourFigures, MonthlyReport, PageFigures, Sort, ValueSort};
use crate::reports::{Listing, ProjectListing};
use crate::route::{Documented, Route};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use schemas::classes::Dimension;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use utoipa::{OpenApi, ToSchema};

#[derive(OpenApi)]
#[openapi(components(schemas(
    MonthlyReport,
    Listing<PageFigures>,
    Listing<BreakdownItem>,
    Listing<DayFigures>,
    Listing<HourFigures>,
    ProjectListing,
    Problem
)))]
struct Schemas;

/// The name of a response's schema.
pub(crate) fn name<T: ToSchema>() -> String {
    T::name().into_owned()
}

/// The name that utoipa gives to the schema of a generic type.
pub(crate) fn listing(item: &str) -> String {
    format!("Listing_{item}")
}

fn parameter(name: &str) -> Value {
    let query = |name: &str, description: &str, schema: Value| json!({"name": name, "in": "query", "required": false, "description": description, "schema": schema});
    let limit = || json!({"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": 100});
    let status = || json!({"type": "integer", "minimum": 100, "maximum": 599});
    let cursor = || json!({"type": "string", "pattern": "^([0-9a-f]{2})+$"});
    let cursor_words = "The value of `next` from an earlier answer, in the same order";
    let sorts: Vec<&str> = Sort::ALL.into_iter().map(Sort::name).collect();
    let value_sorts: Vec<&str> = ValueSort::ALL.into_iter().map(ValueSort::name).collect();
    match name {
        "limit" => query(name, "At most so many items", limit()),
        "limit_pages" => query(
            "limit",
            "At most so many items. CSV has all, unless this or `after` is given, or the order is `visitors`",
            limit(),
        ),
        "pages_limit" => query(
            name,
            "At most so many pages in each of the two lists. CSV has all, unless this or `pages_after` is given",
            limit(),
        ),
        "after" => query(name, cursor_words, cursor()),
        "pages_after" => query(name, "The value of `pages.next` from an earlier answer", cursor()),
        "after_project" => query("after", "The value of `next` from an earlier answer", slug()),
        "prefix_project" => {
            query("prefix", "Only projects whose names begin with this; empty for all", json!({"type": "string"}))
        }
        "prefix_value" => query(
            "prefix",
            "Only values that begin with this, without what adds up others; empty for all",
            json!({"type": "string"}),
        ),
        "sort_value" => query("sort", "The order", json!({"type": "string", "enum": value_sorts, "default": "views"})),
        "bom" => query(
            name,
            "1 for a byte order mark at the beginning, by which spreadsheets know UTF-8",
            json!({"type": "string", "enum": ["1"]}),
        ),
        "status" | "pages_status" => query(name, "Only pages with this HTTP status", status()),
        "prefix" => query(
            name,
            "Only paths that begin with this; empty for all",
            json!({"type": "string", "maxLength": MAX_PREFIX, "pattern": "^(/[^\\u0000]*)?$"}),
        ),
        _ => query(
            "sort",
            "The order. `change` is for one finished month",
            json!({"type": "string", "enum": sorts, "default": Sort::default().name()}),
        ),
    }
}

fn slug() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 63, "pattern": "^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"})
}

/// The parameters in a path's braces.
fn in_path(path: &str) -> Vec<Value> {
    let of = |name: &str, description: &str, schema: Value| json!({"name": name, "in": "path", "required": true, "description": description, "schema": schema});
    let dimensions: Vec<&str> = Dimension::ALL.into_iter().map(Dimension::name).collect();
    let month = "(19[7-9][0-9]|20[0-9]{2}|21[0-3][0-9]|214[0-8])-(0[1-9]|1[0-2])";
    let mut all = Vec::new();
    if path.contains("{project}") {
        all.push(of("project", "A project's slug", slug()));
    }
    if path.contains("{span}") {
        let words = "`YYYY-MM`, or `YYYY-MM..YYYY-MM` with both months included and at most 36 of them";
        all.push(of(
            "span",
            words,
            json!({"type": "string", "pattern": format!("^{month}(\\.\\.{month})?$"), "example": "2026-10"}),
        ));
    }
    if path.contains("{dimension}") {
        all.push(of("dimension", "What the views are counted by", json!({"type": "string", "enum": dimensions})));
    }
    all
}

fn cache_status() -> Value {
    json!({"type": "string", "enum": cache::State::ALL.map(cache::State::header)})
}

fn operation(path: &str, route: &Documented, csv: bool) -> Value {
    let mut parameters = in_path(path);
    parameters.extend(route.parameters.iter().map(|name| parameter(name)));
    if csv {
        parameters.push(parameter("bom"));
    }
    let problem = |description: &str| json!({"description": description, "content": {"application/problem+json": {"schema": reference(&name::<Problem>())}}});
    // Lists of pages as CSV are streamed as a whole, without a validator.
    let has_whole_lists = route.parameters.iter().any(|name| matches!(*name, "limit_pages" | "pages_limit"));
    let words = if has_whole_lists { "; none where CSV has all pages" } else { "" };
    let words = format!("A strong validator, for If-None-Match{words}");
    let mut headers = json!({
        "ETag": {"description": words, "required": !has_whole_lists, "schema": {"type": "string"}},
    });
    if path.contains("{project}") {
        let words = "Seconds since the report was computed; none if it was computed for this request";
        headers["Age"] = json!({"description": words, "schema": {"type": "integer", "minimum": 0}});
        let words = format!(
            "Where the report comes from (RFC 9211){words}. A request with `Cache-Control: no-cache` has it computed",
            words = if has_whole_lists { "; none where CSV has all pages" } else { "" },
        );
        headers["Cache-Status"] = json!({"description": words, "required": !has_whole_lists, "schema": cache_status()});
    }
    if let Some(after) = route.parameters.iter().find(|name| name.contains("after")) {
        let after = if *after == "pages_after" { "pages_after" } else { "after" };
        let words = format!("In CSV: the value of `{after}` with which the list continues; none at its end");
        headers["Headcount-Next"] = json!({"description": words, "schema": {"type": "string"}});
        let words = "In CSV that is sent in parts, of a running month: what the parts together may lack";
        headers["Headcount-Note"] = json!({"description": words, "schema": {"type": "string"}});
    }
    let csv_content = json!({"schema": {"type": "string"}});
    let content = if csv {
        json!({"text/csv": csv_content})
    } else {
        json!({"application/json": {"schema": reference(&(route.schema)())}, "text/csv": csv_content})
    };
    let mut responses = json!({
        "200": {"description": "The figures", "headers": headers, "content": content},
        "304": {"description": "The caller has them already"},
        "400": problem("A part of the request is not valid; `field` names it"),
        "401": problem("No token, or none that holds"),
        "405": problem("Only GET and HEAD"),
        "429": problem("Too many requests, or too many requests of this caller that wait; come back after Retry-After"),
        "500": problem("The stored figures cannot be read by this version"),
        "503": problem("The storage does not answer, or there was no turn within 5 s; come back after Retry-After"),
    });
    if !csv {
        responses["406"] = problem("Neither JSON nor CSV is accepted");
    }
    // The list of projects depends on the caller's rights, so it requires credentials.
    let of_project = path.contains("{project}");
    let mut security = vec![json!({"bearer": []}), json!({"basic": []})];
    if of_project {
        responses["404"] = problem("No such project, or not the caller's to read, or the months have not started");
        security.push(json!({}));
    }
    let suffix = if csv { " (CSV)" } else { "" };
    json!({
        "summary": format!("{}{suffix}", route.summary),
        "operationId": operation_id(path, csv),
        "parameters": parameters,
        "responses": responses,
        "security": security,
    })
}

fn operation_id(path: &str, csv: bool) -> String {
    let words: Vec<&str> =
        path.split('/').filter(|part| !part.is_empty() && !part.starts_with('{') && *part != "v1").collect();
    format!("{}{}", words.join("_").replace('-', "_"), if csv { "_csv" } else { "" })
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

/// The serialised document and its validator, shared by all responses.
pub(crate) struct Document {
    text: Bytes,
    tag: String,
}

impl Document {
    /// The document of `routes`; it contains those of `/v1` that are documented.
    pub(crate) fn of(routes: impl Iterator<Item = &'static Route>) -> Self {
        let text = value(routes).to_string();
        Document { tag: validator(text.as_bytes()), text: text.into() }
    }
}

fn value(routes: impl Iterator<Item = &'static Route>) -> Value {
    let components = serde_json::to_value(Schemas::openapi()).unwrap_or_default();
    let mut components = components["components"].clone();
    components["securitySchemes"] = json!({
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "A token of `headcount token create`. Reports of public projects need none",
        },
        "basic": {"type": "http", "scheme": "basic", "description": "The token as the password of any name"},
    });
    let mut paths = Map::new();
    for (path, documented) in routes.filter_map(|route| Some((route.path, route.documented?))) {
        for csv in [false, true] {
            let suffix = if csv { ".csv" } else { "" };
            paths.insert(format!("{path}{suffix}"), json!({"get": operation(path, &documented, csv)}));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "headcount",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Page views and visitors of documentation sites. Times are UTC, except `week`. Visitors are estimates \
                            with one standard deviation. Values with fewer views than `threshold` are suppressed. New fields may come, \
                            none change their meaning.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": components,
    })
}

/// `GET /v1/openapi.json`.
pub(crate) async fn document(State(document): State<Arc<Document>>, headers: HeaderMap) -> Response {
    tagged("application/json", document.text.clone(), &document.tag, None, &headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::routes;

    #[test]
    fn every_reference_leads_somewhere() {
        let document = value(routes());
        let text = document.to_string();
        for reference in text.split("\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(
                document["components"]["schemas"][name].is_object(),
                "{name}: {:?}",
                document["components"]["schemas"].as_object().unwrap().keys()
            );
        }
        assert_eq!(
            document["paths"].as_object().unwrap().len(),
            2 * routes().filter(|route| route.documented.is_some()).count()
        );
    }

    #[test]
    fn what_is_documented_is_what_is_sent() {
        let document = value(routes());
        let reports = "/v1/projects/{project}/reports/{span}";
        for (path, goes_on) in [
            ("", true),
            ("/pages.csv", true),
            ("/breakdowns/{dimension}", true),
            ("/days", false),
            ("/hours.csv", false),
        ] {
            let get = &document["paths"][format!("{reports}{path}")]["get"];
            let headers = &get["responses"]["200"]["headers"];
            assert_eq!(headers["Headcount-Next"].is_object(), goes_on, "{path}");
            for name in ["Age", "Cache-Status"] {
                assert!(headers[name].is_object(), "{path}: {name}");
            }
            assert!(get["responses"]["403"].is_null() && get["responses"]["404"].is_object(), "{path}");
            assert_eq!(get["security"], json!([{"bearer": []}, {"basic": []}, {}]), "{path}");
        }
        let projects = &document["paths"]["/v1/projects"]["get"];
        assert_eq!(
            projects["security"],
            json!([{"bearer": []}, {"basic": []}]),
            "a caller without a token has no list"
        );
        assert!(projects["responses"]["404"].is_null());
        for scheme in ["bearer", "basic"] {
            assert!(document["components"]["securitySchemes"][scheme].is_object());
        }
    }
}
