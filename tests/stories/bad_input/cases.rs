//! The table: requests, and the one correct response to each.

use serde_json::{Value, json};

/// Part of every faulty input. No response may repeat it.
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
    /// The project whose report shows the refusal, empty if none is known; `None` for a request that is not a beacon.
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

/// The same, in the report of `docs`: the beacon names it, or its page is there.
fn of_docs(case: Case) -> Case {
    Case { tallied: Some("docs"), ..case }
}

fn elsewhere(method: &'static str, path: &str, status: u16, reason: &'static str) -> Case {
    Case {
        method,
        path: path.to_owned(),
        tallied: None,
        ..posted(&format!("{method} {path}"), "", status, reason, None)
    }
}

/// A valid beacon with one field replaced.
fn with(field: &str, value: Value) -> String {
    let mut beacon = json!({"project": "docs", "url": "https://docs.example/a"});
    beacon[field] = value;
    beacon.to_string()
}

/// All rows.
pub fn all() -> Vec<Case> {
    [malformed(), invalid_fields(), unknown_sites(), pixels(), other_methods()].into_iter().flatten().collect()
}

fn malformed() -> Vec<Case> {
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
    cases
}

fn invalid_fields() -> Vec<Case> {
    let mut cases = Vec::new();
    for field in ["project", "url"] {
        for wrong in [json!(5), json!(true), json!([CANARY]), json!({"a": CANARY})] {
            let name = format!("{field} is {wrong}");
            cases.push(of_docs(posted(&name, with(field, wrong), 400, "invalid_field", Some(field))));
        }
    }
    for control in ["\0", "\n", "\u{7f}", "\u{85}"] {
        let body = with("url", json!(format!("https://docs.example/{CANARY}{control}a")));
        let name = format!("url has {control:?}");
        cases.push(of_docs(posted(&name, body, 400, "control_characters", Some("url"))));
    }
    for url in [json!(null), json!("")] {
        cases.push(of_docs(posted(&format!("url is {url}"), with("url", url), 400, "missing_field", Some("url"))));
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
        let case = posted(&format!("url is {url}"), with("url", json!(url)), 400, "invalid_field", Some("url"));
        cases.push(of_docs(case));
    }
    let long_slug = CANARY.repeat(7);
    for slug in ["-canary7d1f", "Canary7d1f/canary7d1f", "canary7d1f canary7d1f", "canary7d1f\n1", "é", &long_slug] {
        // Its page identifies the project.
        let name = format!("slug is {slug:?}");
        cases.push(of_docs(posted(&name, with("project", json!(slug)), 400, "invalid_field", Some("project"))));
    }
    cases
}

fn unknown_sites() -> Vec<Case> {
    let unknown_host = json!({"url": format!("https://{CANARY}.example/")}).to_string();
    let foreign = with("url", json!(format!("https://{CANARY}.example/")));
    let ambiguous = json!({"url": format!("https://shared.example/{CANARY}")}).to_string();
    vec![
        of_docs(posted("unknown project", with("project", json!(CANARY)), 404, "unknown_project", Some("url"))),
        posted("unknown host", unknown_host, 404, "unknown_project", Some("url")),
        posted("ambiguous host", ambiguous, 404, "ambiguous_project", Some("url")),
        of_docs(posted("foreign host", foreign, 404, "foreign_host", Some("url"))),
        posted("a url that is not UTF-8", b"{\"url\":\"canary7d1f\xff\"}", 400, "not_utf8", Some("url")),
        posted("not UTF-8", b"canary7d1f\xff", 400, "not_utf8", None),
        posted("huge", vec![b' '; (16 << 10) + 1], 413, "body_too_large", None),
    ]
}

fn pixels() -> Vec<Case> {
    vec![
        of_docs(pixel("no url, no Referer", "project=docs", 200, "missing_field", Some("url"))),
        of_docs(pixel("not UTF-8", "project=docs&url=canary7d1f%ff", 400, "not_utf8", Some("url"))),
        pixel("a name that is not UTF-8", "%ff=canary7d1f", 200, "missing_field", Some("url")),
        pixel("control character", "url=https://docs.example/canary7d1f%00a", 400, "control_characters", Some("url")),
        pixel("relative", "url=/canary7d1f", 400, "invalid_field", Some("url")),
        of_docs(pixel(
            "unknown project",
            "project=canary7d1f&url=https://docs.example/",
            404,
            "unknown_project",
            Some("url"),
        )),
        Case {
            headers: vec![("referer", format!("https://{CANARY}.example/"))],
            ..of_docs(pixel("Referer on a foreign host", "project=docs", 404, "foreign_host", Some("url")))
        },
        pixel("ambiguous", "url=https://shared.example/", 404, "ambiguous_project", Some("url")),
    ]
}

fn other_methods() -> Vec<Case> {
    let mut cases = Vec::new();
    for method in ["GET", "PUT", "DELETE", "PATCH"] {
        cases.push(elsewhere(method, "/v1/pageview", 405, "method_not_allowed"));
    }
    cases.push(elsewhere("POST", "/v1/pageview.gif", 405, "method_not_allowed"));
    cases.push(elsewhere("GET", "/canary7d1f?canary7d1f", 404, "not_found"));
    cases.push(elsewhere("POST", "/v2/pageview", 404, "not_found"));
    cases
}

/// A view with one unusable optional fact: the field, its value, and the name of the dropped fact.
pub fn odd_facts() -> Vec<(&'static str, Value, &'static str)> {
    let long = CANARY.repeat(26);
    let texts = |field, fact| {
        let values =
            [json!(long), json!(format!("{CANARY}\n{CANARY}")), json!(5), json!([CANARY]), json!({"a": CANARY})];
        values.map(|value| (field, value, fact))
    };
    let mut facts = Vec::new();
    facts.extend(texts("version", "version"));
    facts.extend(texts("language", "language"));
    facts.extend(texts("id", "id"));
    facts.extend(texts("referrer", "referrer"));
    let referrers = ["newsletter", "-", "null", "https://a b/", "/canary7d1f"];
    facts.extend(referrers.map(|text| ("referrer", json!(text), "referrer")));
    let long_host = format!("https://{}example/canary7d1f", "canary7d1f.".repeat(24));
    facts.push(("referrer", json!(long_host), "referrer"));
    for status in [json!(99), json!(600), json!(-1), json!(200.5), json!(true), json!(CANARY), json!([200])] {
        facts.push(("status", status, "status"));
    }
    for id in [CANARY, "0123456789abcde", "0123456789abcdef0", "0123456789abcdeg", "+123456789abcdef"] {
        facts.push(("id", json!(id), "id"));
    }
    facts
}
