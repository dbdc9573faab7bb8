//! The table: what is sent, and the one answer that is right.

use serde_json::{Value, json};

/// Stands in whatever is wrong. Nobody may ever say it back.
pub const CANARY: &str = "canary7d1f";

/// One row.
pub struct Case {
    pub name: String,
    pub method: &'static str,
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    pub status: u16,
    pub reason: &'static str,
    pub field: Option<&'static str>,
    /// The project that is told of it, empty where none is known; `None` for what is no beacon at all.
    pub tallied: Option<&'static str>,
}

fn posted(
    name: &str,
    body: impl Into<Vec<u8>>,
    status: u16,
    reason: &'static str,
    field: Option<&'static str>,
) -> Case {
    Case {
        name: name.to_owned(),
        method: "POST",
        path: "/v1/pageview".to_owned(),
        headers: Vec::new(),
        body: body.into(),
        status,
        reason,
        field,
        tallied: Some(""),
    }
}

fn pixel(name: &str, query: &str, status: u16, reason: &'static str, field: Option<&'static str>) -> Case {
    Case {
        method: "GET",
        path: format!("/v1/pageview.gif?{query}"),
        ..posted(&format!("pixel: {name}"), "", status, reason, field)
    }
}

fn elsewhere(method: &'static str, path: &str, status: u16, reason: &'static str) -> Case {
    Case {
        method,
        path: path.to_owned(),
        tallied: None,
        ..posted(&format!("{method} {path}"), "", status, reason, None)
    }
}

/// A good beacon with one field replaced.
fn with(field: &str, value: Value) -> String {
    let mut beacon = json!({"project": "docs", "url": "https://docs.example/a"});
    beacon[field] = value;
    beacon.to_string()
}

/// All rows.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, body) in [
        ("no JSON", CANARY.to_owned()),
        ("empty", String::new()),
        ("cut off", format!(r#"{{"url":"{CANARY}"#)),
        ("followed by more", format!(r#"{{"url":"https://docs.example/"}} {CANARY}"#)),
        ("an array", format!(r#"["{CANARY}"]"#)),
        ("a beacon's values as an array", r#"["docs","https://docs.example/",null,200,null,null,null]"#.to_owned()),
        ("the same after blanks", " \r\n\t[null,\"https://docs.example/\",null,null,null,null,null]".to_owned()),
        ("a string", format!(r#""{CANARY}""#)),
        ("null", "null".to_owned()),
        ("a number", "7".to_owned()),
    ] {
        cases.push(posted(name, body, 400, "malformed_json", None));
    }
    let text = [("project", 64), ("url", 2048), ("referrer", 2048), ("version", 64), ("language", 64), ("id", 64)];
    for (field, limit) in text {
        for wrong in [json!(5), json!(true), json!([CANARY]), json!({"a": CANARY})] {
            let name = format!("{field} is {wrong}");
            cases.push(posted(&name, with(field, wrong), 400, "invalid_field", Some(field)));
        }
        let long = format!("https://docs.example/{CANARY}{}", "x".repeat(limit));
        let name = format!("{field} is too long");
        cases.push(posted(&name, with(field, json!(long)), 400, "field_too_long", Some(field)));
        for control in ["\0", "\n", "\u{7f}", "\u{85}"] {
            let value = json!(format!("{CANARY}{control}"));
            let name = format!("{field} has {control:?}");
            cases.push(posted(&name, with(field, value), 400, "control_characters", Some(field)));
        }
    }
    for status in [
        json!(99),
        json!(600),
        json!(-1),
        json!(200.5),
        json!(true),
        json!(""),
        json!(CANARY),
        json!("99"),
        json!([200]),
    ] {
        let name = format!("status is {status}");
        cases.push(posted(&name, with("status", status), 400, "invalid_field", Some("status")));
    }
    for id in [CANARY, "0123456789abcde", "0123456789abcdef0", "0123456789abcdeg", "+123456789abcdef"] {
        cases.push(posted(&format!("id is {id}"), with("id", json!(id)), 400, "invalid_field", Some("id")));
    }
    for url in [json!(null), json!("")] {
        cases.push(posted(&format!("url is {url}"), with("url", url), 400, "missing_field", Some("url")));
    }
    cases.push(posted("nothing in it", "{}", 400, "missing_field", Some("url")));
    for url in [
        "/canary7d1f",
        "canary7d1f",
        "//canary7d1f/",
        "ftp://docs.example/canary7d1f",
        "javascript:canary7d1f",
        "file:///canary7d1f",
        "https://",
        "http://[canary7d1f]/",
    ] {
        cases.push(posted(&format!("url is {url}"), with("url", json!(url)), 400, "invalid_field", Some("url")));
    }
    for slug in ["-canary7d1f", "Canary7d1f/canary7d1f", "canary7d1f canary7d1f", "é"] {
        cases.push(posted(
            &format!("slug is {slug}"),
            with("project", json!(slug)),
            400,
            "invalid_field",
            Some("project"),
        ));
    }
    let unknown_host = json!({"url": format!("https://{CANARY}.example/")}).to_string();
    let foreign = with("url", json!(format!("https://{CANARY}.example/")));
    let ambiguous = json!({"url": format!("https://shared.example/{CANARY}")}).to_string();
    cases.extend([
        posted("unknown project", with("project", json!(CANARY)), 404, "unknown_project", Some("url")),
        posted("unknown host", unknown_host, 404, "unknown_project", Some("url")),
        posted("ambiguous host", ambiguous, 404, "ambiguous_project", Some("url")),
        Case { tallied: Some("docs"), ..posted("foreign host", foreign, 404, "foreign_host", Some("url")) },
        Case {
            tallied: Some("docs"),
            ..posted("referrer is no URL", with("referrer", json!(CANARY)), 400, "invalid_field", Some("referrer"))
        },
        posted("not UTF-8", [b"{\"url\":\"canary7d1f\xff\"}".as_slice(), b""].concat(), 400, "not_utf8", None),
        posted("huge", vec![b' '; (16 << 10) + 1], 413, "body_too_large", None),
    ]);
    cases.extend([
        pixel("no url, no Referer", "project=docs", 400, "missing_field", Some("url")),
        pixel("not UTF-8", "project=docs&url=canary7d1f%ff", 400, "not_utf8", None),
        pixel("a name that is not UTF-8", "%ff=canary7d1f", 400, "not_utf8", None),
        pixel("control character", "url=https://docs.example/canary7d1f%00", 400, "control_characters", Some("url")),
        pixel("bad id", "url=https://docs.example/&id=canary7d1f", 400, "invalid_field", Some("id")),
        pixel("bad status", "url=https://docs.example/&status=canary7d1f", 400, "invalid_field", Some("status")),
        pixel("relative", "url=/canary7d1f", 400, "invalid_field", Some("url")),
        pixel("long", &format!("version={}", CANARY.repeat(7)), 400, "field_too_long", Some("version")),
        pixel("unknown project", "project=canary7d1f&url=https://docs.example/", 404, "unknown_project", Some("url")),
        Case {
            tallied: Some("docs"),
            headers: vec![("referer", format!("https://{CANARY}.example/"))],
            ..pixel("Referer on a foreign host", "project=docs", 404, "foreign_host", Some("url"))
        },
        pixel("ambiguous", "url=https://shared.example/", 404, "ambiguous_project", Some("url")),
    ]);
    for method in ["GET", "PUT", "DELETE", "PATCH"] {
        cases.push(elsewhere(method, "/v1/pageview", 405, "method_not_allowed"));
    }
    cases.push(elsewhere("POST", "/v1/pageview.gif", 405, "method_not_allowed"));
    cases.push(elsewhere("GET", "/canary7d1f?canary7d1f", 404, "not_found"));
    cases.push(elsewhere("POST", "/v2/pageview", 404, "not_found"));
    cases
}
