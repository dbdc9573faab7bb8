//! `GET /v1/openapi.json`: the routes of `/v1` as OpenAPI 3.1. Schemas come from the response types, limits and names from the constants
//! with which requests are parsed.

use crate::api::answer::{tagged, validator};
use crate::cache::State;
use crate::problem::Problem;
use crate::report::pages::{MAX_LIMIT, MAX_PREFIX};
use crate::report::{BreakdownItem, DayFigures, HourFigures, MonthlyReport, PageFigures, Sort, ValueSort};
use crate::reports::{Listing, ProjectListing};
use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::routing::get;
use schemas::classes::Dimension;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;
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

/// One route: its path, its summary, its parameters, and the name of its response schema. Each is also available as CSV.
struct Route {
    path: &'static str,
    summary: &'static str,
    parameters: &'static [&'static str],
    schema: fn() -> String,
}

fn name<T: ToSchema>() -> String {
    T::name().into_owned()
}

const ROUTES: [Route; 7] = [
    Route {
        path: "/v1/projects",
        summary: "Projects, with their views of this month and the last",
        parameters: &["limit", "after_project", "prefix_project"],
        schema: name::<ProjectListing>,
    },
    Route {
        path: "/v1/projects/{project}/reports/{span}",
        summary: "The whole report of a month or a range of months",
        parameters: &["pages_limit", "pages_after", "pages_status"],
        schema: name::<MonthlyReport>,
    },
    Route {
        path: "/v1/projects/{project}/reports/{span}/pages",
        summary: "Pages",
        parameters: &["limit_pages", "after", "prefix", "status", "sort"],
        schema: || listing("PageFigures"),
    },
    Route {
        path: "/v1/projects/{project}/reports/{span}/not-found",
        summary: "Pages that were not found, with their referrers",
        parameters: &["limit_pages", "after", "prefix", "sort"],
        schema: || listing("PageFigures"),
    },
    Route {
        path: "/v1/projects/{project}/reports/{span}/breakdowns/{dimension}",
        summary: "Views by the values of one dimension; values with fewer views than the threshold are added up in the last item",
        parameters: &["limit", "after", "prefix_value", "sort_value"],
        schema: || listing("BreakdownItem"),
    },
    Route {
        path: "/v1/projects/{project}/reports/{span}/days",
        summary: "Every day (UTC)",
        parameters: &[],
        schema: || listing("DayFigures"),
    },
    Route {
        path: "/v1/projects/{project}/reports/{span}/hours",
        summary: "Every hour (UTC)",
        parameters: &[],
        schema: || listing("HourFigures"),
    },
];

/// The name that utoipa gives to the schema of a generic type.
fn listing(item: &str) -> String {
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
            "The order. `change` is for one month that is over",
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
    json!({"type": "string", "enum": State::ALL.map(State::header)})
}

fn operation(route: &Route, csv: bool) -> Value {
    let mut parameters = in_path(route.path);
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
    if route.path.contains("{project}") {
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
        let words = format!("In CSV: the value of `{after}` with which the list goes on; none at its end");
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
    let of_project = route.path.contains("{project}");
    let mut security = vec![json!({"bearer": []}), json!({"basic": []})];
    if of_project {
        responses["404"] = problem("No such project, or not the caller's to read, or the months have not started");
        security.push(json!({}));
    }
    let suffix = if csv { " (CSV)" } else { "" };
    json!({
        "summary": format!("{}{suffix}", route.summary),
        "operationId": operation_id(route.path, csv),
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

/// The serialised document and its validator. Both are constant while the process runs, and shared by all responses.
static TEXT: LazyLock<(Bytes, String)> = LazyLock::new(|| {
    let text = document().to_string();
    let tag = validator(text.as_bytes());
    (text.into(), tag)
});

/// The document.
fn document() -> Value {
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
    for route in &ROUTES {
        for csv in [false, true] {
            let path = if csv { format!("{}.csv", route.path) } else { route.path.to_owned() };
            paths.insert(path, json!({"get": operation(route, csv)}));
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

/// `GET /v1/openapi.json`, open to all.
pub(crate) fn route<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let sent = async |headers: HeaderMap| tagged("application/json", TEXT.0.clone(), &TEXT.1, None, &headers);
    Router::new().route("/v1/openapi.json", get(sent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let text = document.to_string();
        for reference in text.split("\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(
                document["components"]["schemas"][name].is_object(),
                "{name}: {:?}",
                document["components"]["schemas"].as_object().unwrap().keys()
            );
        }
        assert_eq!(document["paths"].as_object().unwrap().len(), 2 * ROUTES.len());
    }

    #[test]
    fn what_is_documented_is_what_is_sent() {
        let document = document();
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
        assert_eq!(projects["security"], json!([{"bearer": []}, {"basic": []}]), "nobody's list is no list");
        assert!(projects["responses"]["404"].is_null());
        for scheme in ["bearer", "basic"] {
            assert!(document["components"]["securitySchemes"][scheme].is_object());
        }
    }
}
