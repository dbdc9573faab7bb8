//! Arbitrary bytes never panic, and a line that is built from parts comes back as its parts, in each format.

use super::*;
use crate::access_log::Line;
use crate::access_log::files::{self, BytesRead};
use crate::access_log::lines::read_lines;
use proptest::prelude::*;

/// Formats by name or template.
const FORMATS: [&str; 9] = [
    "common",
    "combined",
    "combined-forwarded",
    "host-first",
    "host-second",
    "w3c",
    "json",
    "alb",
    r#"$remote_addr - [$time_local] "$request" $status "$http_referer" "$http_user_agent""#,
];

/// A W3C parser that knows columns.
fn parser(format: &str) -> Parser {
    let mut parser = Parser::new(format.parse().unwrap(), Some(0));
    if format == "w3c" {
        let fields = b"#Fields: date time c-ip cs-method cs-uri-stem cs-uri-query sc-status cs(Referer) cs(User-Agent)";
        assert_eq!(parser.parse(fields), Err(NotRead::Directive));
    }
    parser
}

#[derive(Clone, Debug)]
struct Request {
    client: String,
    target: String,
    status: u16,
    referrer: String,
    agent: String,
}

fn request() -> impl Strategy<Value = Request> {
    let client = prop_oneof!["[1-9]{1,2}\\.[0-9]\\.[0-9]\\.[0-9]", "2001:db8::[1-9a-f]{1,4}"];
    let target = "/[a-zA-Z0-9._~!$&'()*,;=:@%-]{0,40}(\\?[a-z0-9=&]{1,10})?";
    let agent = "[A-Za-z]{1,10}/[0-9.]{1,5}( \\([A-Za-z0-9;:. ]{0,30}\\))?";
    (client, target, 100_u16..600, "https://[a-z]{1,10}\\.example/[a-z0-9]{0,10}", agent)
        .prop_map(|(client, target, status, referrer, agent)| Request { client, target, status, referrer, agent })
}

/// The line of a request, and whether the format has referrer and agent.
fn written(format: &str, request: &Request) -> (String, bool, bool) {
    let Request { client, target, status, referrer, agent } = request;
    let time = "[26/Nov/2026:10:00:00 +0000]";
    let head = format!(r#"{time} "GET {target} HTTP/1.1" {status}"#);
    match format {
        "common" => (format!("{client} - - {head} 12"), false, false),
        "combined" => (format!(r#"{client} - - {head} 12 "{referrer}" "{agent}" 0.1 "x""#), true, true),
        "combined-forwarded" => (format!(r#"{client} - - {head} 12 "{referrer}" "{agent}" "-""#), true, true),
        "host-first" => (format!(r#"docs.example.org {client} - - {head} 12 "{referrer}" "{agent}""#), true, true),
        "host-second" => (format!(r#"{client} docs.example.org - {head} 12 "{referrer}" "{agent}""#), true, true),
        "w3c" => {
            let (stem, query) = target.split_once('?').unwrap_or((target, "-"));
            let agent = agent.replace(' ', "+");
            (format!("2026-11-26 10:00:00 {client} GET {stem} {query} {status} {referrer} {agent}"), true, true)
        }
        "json" => (
            format!(
                r#"{{"ts":1795687200.25,"request":{{"client_ip":"{client}","method":"GET","host":"docs.example.org","uri":"{target}","headers":{{"User-Agent":["{agent}"],"Referer":["{referrer}"]}}}},"status":{status}}}"#
            ),
            true,
            true,
        ),
        "alb" => (
            format!(
                r#"https 2026-11-26T10:00:00.1Z app/lb/1 {client} 10.0.0.1:80 0.0 0.0 0.0 {status} 200 1 2 "GET {target} HTTP/1.1" "{agent}" - -"#
            ),
            false,
            true,
        ),
        _ => (format!(r#"{client} - {head} "{referrer}" "{agent}""#), true, true),
    }
}

fn text(text: &crate::access_log::Text<'_>) -> String {
    String::from_utf8(text.decoded().into_owned()).unwrap()
}

fn assert_parts(format: &str, line: &Line<'_>, request: &Request, has_referrer: bool, has_agent: bool) {
    let target = match format {
        "w3c" if line.query.is_absent() => text(&line.target),
        "w3c" => format!("{}?{}", text(&line.target), text(&line.query)),
        _ => text(&line.target),
    };
    // CloudFront encodes the percent sign itself, so the two cannot be told apart.
    if !(format == "w3c" && request.target.contains("%25")) {
        assert_eq!(target, request.target, "{format}");
    }
    assert_eq!(line.hour.start().to_rfc3339(), "2026-11-26T10:00:00+00:00", "{format}");
    assert_eq!((text(&line.client), text(&line.method)), (request.client.clone(), "GET".to_owned()), "{format}");
    assert_eq!(line.status, request.status, "{format}");
    assert_eq!(line.referrer.as_ref().map(text), has_referrer.then(|| request.referrer.clone()), "{format}");
    assert_eq!(line.agent.as_ref().map(text), has_agent.then(|| request.agent.clone()), "{format}");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let projects = projects();
        let views = Views::new(rules(Some("docs.example.org")), &projects);
        let _ = guess([bytes.as_slice()]);
        for format in FORMATS {
            if let Ok(line) = parser(format).parse(&bytes) {
                let _ = views.outcome(&line);
            }
        }
    }

    #[test]
    fn damaged_lines_never_panic(request in request(), at in any::<prop::sample::Index>(), len in 0_usize..20, with in prop::collection::vec(any::<u8>(), 0..8)) {
        let projects = projects();
        let views = Views::new(rules(Some("docs.example.org")), &projects);
        for format in FORMATS {
            let mut line = written(format, &request).0.into_bytes();
            let start = at.index(line.len());
            let end = (start + len).min(line.len());
            line.splice(start..end, with.iter().copied());
            let _ = guess([line.as_slice()]);
            if let Ok(line) = parser(format).parse(&line) {
                let _ = views.outcome(&line);
            }
        }
    }

    #[test]
    fn a_line_comes_back_as_its_parts(request in request()) {
        for format in FORMATS {
            let (line, has_referrer, has_agent) = written(format, &request);
            let mut parser = parser(format);
            let parsed = parser.parse(line.as_bytes());
            let Ok(parsed) = parsed else { panic!("{format}: {parsed:?}: {line}") };
            assert_parts(format, &parsed, &request, has_referrer, has_agent);
        }
    }

    #[test]
    fn any_source_of_bytes_is_read_to_its_end(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let projects = projects();
        let views = Views::new(rules(None), &projects);
        if let Ok(source) = files::decompressed(std::io::Cursor::new(bytes), &BytesRead::default()) {
            let _ = read_lines(source, Some(&Format::Combined), None, &views, |_, _| ());
        }
    }
}
