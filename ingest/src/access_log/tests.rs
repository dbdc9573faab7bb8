//! One line for each thing that real logs do, with what becomes of it. The numbers are those of the list that the design gives.

use super::assets::Assets;
use super::view::{NotCounted, Outcome, ViewRules, Views};
use super::{Format, NotGuessed, NotRead, Parser, guess};
use crate::agents::OwnRules;
use crate::client::TrustedProxies;
use crate::ignored::IgnoredNetworks;
use crate::projects::{NewNames, ProjectSnapshot, Projects};
use schemas::classes::{BotClass, Browser};
use schemas::{Hour, Month};
use std::collections::BTreeMap;

mod properties;
mod sources;

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0";

fn projects() -> Projects {
    let projects = Projects::new(Vec::new(), NewNames { per_hour: 0, per_network: 0 });
    let docs = ("docs".parse().unwrap(), vec!["docs.example.org".parse().unwrap()]);
    projects.replace(ProjectSnapshot::new(&BTreeMap::from([docs])));
    projects
}

fn rules(host: Option<&str>) -> ViewRules {
    ViewRules {
        host: host.map(|host| host.parse().unwrap()),
        trusted_proxies: TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]),
        ignore_networks: IgnoredNetworks::new(["203.0.113.0/24".parse().unwrap()]),
        assets: Assets::default(),
        own_rules: OwnRules::default(),
        first_hour: Month::new(2024, 11).unwrap().first_hour(),
        now: Hour::of("2026-11-28T12:00:00Z".parse().unwrap()),
    }
}

fn outcomes(format: &str, host: Option<&str>, lines: &[&[u8]]) -> Vec<Outcome> {
    let projects = projects();
    let views = Views::new(rules(host), &projects);
    let mut parser = Parser::new(format.parse().unwrap(), None);
    let outcome = |line: &&[u8]| parser.parse(line).map_or_else(Outcome::NotRead, |line| views.outcome(&line));
    lines.iter().map(outcome).collect()
}

fn outcome(format: &str, line: &[u8]) -> Outcome {
    outcomes(format, Some("docs.example.org"), &[line]).remove(0)
}

/// `view PATH`, `PATH by NAME` for a robot, or the reason.
fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::View(view) if view.classes.bot_class == BotClass::Person => format!("view {}", view.page.path),
        Outcome::View(view) => format!("{} by {}", view.page.path, view.classes.bot),
        Outcome::NotCounted(reason) => format!("{reason:?}"),
        Outcome::NotRead(reason) => format!("{reason:?}"),
    }
}

/// A combined line with this request and status.
fn requested(request: &str, status: &str) -> String {
    format!(r#"192.0.2.1 - - [26/Nov/2026:10:00:00 +0100] "{request}" {status} 12 "-" "{FIREFOX}""#)
}

#[test]
fn formats() {
    let caddy = |extra: &str, status: &str| {
        format!(
            r#"{{"level":"info","ts":1764151200.5,"logger":"http.log.access.log0","request":{{{extra}"method":"GET","host":"docs.example.org","uri":"/a?x=1","headers":{{"User-Agent":["{FIREFOX}"]}}}},"status":{status}}}"#
        )
    };
    let caddy_line = caddy(r#""client_ip":"192.0.2.1","remote_ip":"10.0.0.1","#, "200");
    for (number, format, line, expected) in [
        // 1: no agent is unknown, not a robot without one.
        (1, "common", r#"192.0.2.1 - - [26/Nov/2026:10:00:00 +0100] "GET /a HTTP/1.1" 200 12"#.to_owned(), "view /a"),
        (2, "combined", requested("GET /a HTTP/1.1", "200"), "view /a"),
        (3, "host-first", format!("docs.example.org:443 {}", requested("GET /a HTTP/2.0", "200")), "view /a"),
        (3, "host-first", format!("docs.example.org:80 {}", requested("GET /a HTTP/2.0", "200")), "view /a"),
        (3, "host-first", format!("other.example.org {}", requested("GET /a HTTP/2.0", "200")), "OtherHost"),
        (3, "host-second", requested("GET /a HTTP/2.0", "200").replace("1 - -", "1 docs.example.org -"), "view /a"),
        (3, "host-first", format!("docs.example.org {}", requested("GET /a HTTP/1.1", "200").replace("] ", "] (0 s) ")), "view /a"),
        (4, "combined", format!(r#"{} "-" 0.012 "docs@docker""#, requested("GET /a HTTP/1.1", "200")), "view /a"),
        (4, "combined", format!(r#"{} 7 "docs@docker" "http://10.0.0.2:80" 0ms"#, requested("GET /a HTTP/1.1", "200")), "view /a"),
        (7, "json", caddy_line.clone(), "view /a"),
        (7, "json", format!("caddy  | {caddy_line}"), "view /a"),
        (7, "json", format!("2026-11-26T10:00:00.123456789Z stdout F {caddy_line}"), "view /a"),
        (7, "json", caddy(r#""remote_addr":"192.0.2.1:4000","#, "0"), "Status"),
        (7, "json", r#"{"level":"info","ts":1764151200.5,"logger":"admin","msg":"admin endpoint started"}"#.to_owned(), "OtherKind"),
        (7, "json", caddy_line.replace("http.log.access.log0", "admin.api"), "OtherKind"),
        (7, "json", "serving initial configuration".to_owned(), "OtherKind"),
        (7, "json", r#"{"ClientAddr":"192.0.2.1:4000","ClientHost":"192.0.2.1","DownstreamStatus":"200","OriginStatus":500,"RequestHost":"docs.example.org","RequestMethod":"GET","RequestPath":"/a","StartUTC":"2026-11-26T10:00:00.1Z","request_User-Agent":"curl/8.5.0","level":"info","time":"2026-11-26T11:00:00+01:00"}"#.to_owned(), "/a by curl"),
        (7, "json", r#"{"ClientHost":"192.0.2.1","DownstreamStatus":200,"RequestHost":"docs.example.org","RequestMethod":"GET","RequestPath":"/a","time":"2026-11-26T11:00:00+01:00"}"#.to_owned(), "view /a"),
        (7, "json", format!(r#"{{"time_local":"26/Nov/2026:10:00:00 +0100","remote_addr":"192.0.2.1","request":"GET /a HTTP/1.1","status":"200","http_user_agent":"{FIREFOX}"}}"#), "view /a"),
        (7, "json", format!(r#"{{":authority":"docs.example.org","method":"GET","path":"/a","response_code":200,"start_time":"2026-11-26T10:00:00.000Z","user_agent":"{FIREFOX}","downstream_remote_address":"192.0.2.1:4000","x_forwarded_for":null}}"#), "view /a"),
        (8, "alb", format!(r#"https 2026-11-26T10:00:00.1Z app/lb/1 192.0.2.1:4000 10.0.0.1:80 0.0 0.0 0.0 200 304 1 2 "GET https://docs.example.org:443/a HTTP/1.1" "{FIREFOX}" TLS TLSv1.2"#), "view /a"),
        (8, "alb", r#"tcp 2026-11-26T10:00:00.1Z app/lb/1 192.0.2.1:4000 10.0.0.1:80 0.0 0.0 0.0 - - 1 2 "- - - " "-" - -"#.to_owned(), "NoRequest"),
        (8, "alb", format!(r#"http 2026-11-26T10:00:00.1Z app/lb/1 192.0.2.1:4000 - -1 -1 -1 - - 1 2 "GET http://docs.example.org:80/a HTTP/1.1" "{FIREFOX}" - -"#), "Status"),
        (8, "alb", format!(r#"2026-11-26T10:00:00.1Z lb 192.0.2.1:4000 10.0.0.1:80 0.0 0.0 0.0 200 200 0 29 "GET https://docs.example.org:443/a HTTP/1.1" "{FIREFOX}" - -"#), "view /a"),
        (9, "combined", format!("Nov 26 10:00:00 web nginx: {}", requested("GET /a HTTP/1.1", "200")), "view /a"),
        (9, "combined", format!("<190>Nov 26 10:00:00 web nginx[7]: {}", requested("GET /a HTTP/1.1", "200")), "view /a"),
        (9, "combined", format!("<190>1 2026-11-26T10:00:00Z web nginx 7 - - {}", requested("GET /a HTTP/1.1", "200")), "view /a"),
    ] {
        assert_eq!(told(&outcome(format, line.as_bytes())), expected, "{number}: {format}: {line}");
    }
}

#[test]
fn w3c_columns_are_named_by_the_file() {
    let lines: [&[u8]; 12] = [
        b"2026-11-26 10:00:00 GET /early - 192.0.2.1 Mozilla/5.0+(X11) 200",
        b"#Software: Microsoft Internet Information Services 10.0",
        b"#Fields: date time cs-method cs-uri-stem cs-uri-query c-ip cs(User-Agent) sc-status",
        b"2026-11-26 10:00:00 GET /a - 192.0.2.1 Mozilla/5.0+(Windows+NT+10.0;+Win64;+x64;+rv:145.0)+Gecko/20100101+Firefox/145.0 200",
        b"2026-11-26 10:00:00 GET /a - 192.0.2.1 - 200",
        b"#Date: 2026-11-27 00:00:00",
        b"#Fields: time c-ip cs-method cs-uri-stem sc-status cs(Referer) cs(User-Agent)",
        b"10:00:00 192.0.2.1 GET /b 200 - \"Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0\"",
        b"#Fields: date\ttime\tc-ip\tcs-method\tcs(Host)\tcs-uri-stem\tsc-status\tcs(User-Agent)\tcs-uri-query\tx-host-header",
        b"2026-11-26\t10:00:00\t192.0.2.1\tGET\td1.cdn.example\t/a%2520b\t200\tMozilla/5.0%20(X11;%2520Linux%20x86_64;%20rv:145.0)%20Gecko/20100101%20Firefox/145.0\t-\tdocs.example.org",
        b"2026-11-26\t10:00:00\t192.0.2.1\tGET\td1.cdn.example\t/a\t200\tcurl/8.5.0\tx=1\telsewhere.example",
        b"2026-11-26\t10:00:00\t192.0.2.1",
    ];
    let outcomes = outcomes("w3c", Some("docs.example.org"), &lines);
    let found: Vec<_> = outcomes.iter().map(told).collect();
    let expected = [
        "NoFields",
        "Directive",
        "Directive",
        "view /a",
        "/a by No user agent",
        "Directive",
        "Directive",
        "view /b",
        "Directive",
        "view /a b",
        "OtherHost",
        "Malformed",
    ];
    assert_eq!(found, expected);
    let hour = |index: usize| match &outcomes[index] {
        Outcome::View(view) => view.hour.start().to_rfc3339(),
        other => panic!("{other:?}"),
    };
    assert_eq!((hour(3).as_str(), hour(7).as_str()), ("2026-11-26T10:00:00+00:00", "2026-11-27T10:00:00+00:00"));
}

#[test]
fn the_operators_own_format() {
    let exchanged = r#"$remote_addr - [$time_local] "$request" $status "$http_user_agent" "$http_referer""#;
    let behind = r#"$remote_addr [$time_iso8601] $host "$request_method $request_uri" $status "$http_user_agent" "$http_x_forwarded_for""#;
    let json = r#"{"wann":"$msec","wer":"$remote_addr","was":"$request","status":$status,"womit":"$http_user_agent"}"#;
    for (number, format, line, expected) in [
        (
            5,
            exchanged,
            format!(
                r#"192.0.2.1 - [26/Nov/2026:10:00:00 +0100] "GET /a HTTP/1.1" 200 "{FIREFOX}" "https://n.example/" 0.1"#
            ),
            "view /a",
        ),
        (
            5,
            behind,
            format!(r#"10.0.0.1 [2026-11-26T10:00:00+01:00] docs.example.org "GET /a" 200 "{FIREFOX}" "192.0.2.1""#),
            "view /a",
        ),
        (
            7,
            json,
            format!(
                r#"{{"wann":"1764151200.5","wer":"192.0.2.1","was":"GET /a\"b HTTP/1.1","status":200,"womit":"{FIREFOX}"}}"#
            ),
            "view /a\"b",
        ),
        (5, exchanged, "192.0.2.1 - torn".to_owned(), "Malformed"),
    ] {
        assert_eq!(told(&outcome(format, line.as_bytes())).replace("%22", "\""), expected, "{number}: {line}");
    }
    for (wrong, says) in [
        ("$remote_addr $request $status", "time"),
        ("[$time_local] $status", "request"),
        ("[$time_local] \"$request\"", "status"),
        ("$remote_addr$status [$time_local] \"$request\"", "text between"),
    ] {
        let error = wrong.parse::<Format>().unwrap_err().to_string();
        assert!(error.contains(says), "{wrong}: {error}");
    }
}

#[test]
fn requests_and_statuses() {
    for (number, request, status, expected) in [
        // 11: quotes and escapes.
        (11, r#"GET /a"b HTTP/1.1"#, "200", "view /a\"b"),
        (11, r#"GET /a\"b HTTP/1.1"#, "200", "view /a\"b"),
        (11, r"GET /caf\xc3\xa9 HTTP/1.1", "200", "view /café"),
        (11, "GET /café HTTP/1.1", "200", "view /café"),
        // 12: no HTTP at all.
        (12, r"\x16\x03\x01\x02", "400", "NoRequest"),
        (12, "-", "408", "NoRequest"),
        (12, "", "400", "NoRequest"),
        (12, "HELP", "400", "NoRequest"),
        (12, "GET /a", "400", "NoVersion"),
        // 13 and 14: targets.
        (13, "GET /a b c HTTP/1.1", "200", "view /a b c"),
        (14, "GET * HTTP/1.1", "200", "NoPath"),
        (14, "CONNECT host:443 HTTP/1.1", "200", "Method"),
        (14, "GET host:443 HTTP/1.1", "200", "NoPath"),
        (14, "GET http://other.example/ HTTP/1.1", "200", "OtherHost"),
        (14, "GET http://docs.example.org/a HTTP/1.1", "200", "view /a"),
        (14, "GET //a//b HTTP/1.1", "200", "view /a/b"),
        (14, "GET /a;v=1 HTTP/1.1", "200", "view /a;v=1"),
        (14, "GET /a|b HTTP/1.1", "200", "view /a|b"),
        (14, "GET /a%2Fb HTTP/1.1", "200", "view /a/b"),
        (14, "GET /%ff HTTP/1.1", "200", "view /%ff"),
        (14, r"GET /\xff HTTP/1.1", "200", "view /%FF"),
        (14, "GET /?q HTTP/1.1", "200", "view /"),
        (14, "GET /#x HTTP/1.1", "200", "view /"),
        (14, "GET /../a HTTP/1.1", "200", "view /a"),
        (14, "GET /jane@example.org HTTP/1.1", "200", "view /:email"),
        // 17: statuses.
        (17, "GET /a HTTP/1.1", "304", "view /a"),
        (17, "GET /a HTTP/1.1", "404", "view /a"),
        (17, "GET /a HTTP/1.1", "301", "Redirect"),
        (17, "GET /a HTTP/1.1", "206", "Status"),
        (17, "GET /a HTTP/1.1", "403", "Status"),
        (17, "GET /a HTTP/1.1", "499", "Status"),
        (17, "GET /a HTTP/1.1", "444", "Status"),
        (17, "GET /a HTTP/1.1", "500", "Status"),
        (17, "GET /a HTTP/1.1", "000", "Status"),
        (17, "GET /a HTTP/1.1", "0", "Status"),
        (17, "GET /a HTTP/1.1", "-", "Status"),
        // 18: methods and assets.
        (18, "HEAD /a HTTP/1.1", "200", "Method"),
        (18, "POST /a HTTP/1.1", "200", "Method"),
        (18, "OPTIONS * HTTP/1.1", "200", "Method"),
        (18, "PROPFIND /a HTTP/1.1", "404", "Method"),
        (18, "GET /favicon.ico HTTP/1.1", "200", "Asset"),
        (18, "GET /robots.txt HTTP/1.1", "404", "Asset"),
        (18, "GET /feed/ HTTP/1.1", "200", "Asset"),
        (18, "GET /blog/feed.xml HTTP/1.1", "200", "Asset"),
        (18, "GET /en/latest/_static/doctools HTTP/1.1", "200", "Asset"),
        (18, "GET /a.PNG?v=1 HTTP/1.1", "200", "Asset"),
        (18, "GET /a.css/ HTTP/1.1", "200", "view /a.css/"),
        (18, "GET /a.html?file=b.css HTTP/1.1", "200", "view /a.html"),
        (18, "GET /rfc/rfc2616.txt HTTP/1.1", "200", "view /rfc/rfc2616.txt"),
    ] {
        let line = requested(request, status);
        let found = told(&outcome("combined", line.as_bytes())).replace("%22", "\"");
        assert_eq!(found, expected, "{number}: {request} {status}");
    }
}

#[test]
fn long_quoted_and_encoded_lines() {
    let long = format!("GET /{} HTTP/1.1", "a/".repeat(2000));
    let Outcome::View(view) = outcome("combined", requested(&long, "200").as_bytes()) else { panic!("no view") };
    assert!(view.page.path.len() <= 1024);
    // 11: the whole line in quotes.
    let quoted = format!("\"{}\"", requested("GET /a HTTP/1.1", "200"));
    assert_eq!(told(&outcome("combined", quoted.as_bytes())), "view /a");
    // 24: bytes of other encodings.
    let big5 = [
        requested("GET /", "200").split("GET /").next().unwrap().as_bytes(),
        b"GET /\xa4\xa4\xa4\xe5 HTTP/1.1\" 200 12",
    ]
    .concat();
    assert_eq!(told(&outcome("common", &big5)), "view /%A4%A4%A4%E5");
}

#[test]
fn clients() {
    let address = |text: &str| crate::client::ClientAddress::new(text.parse().unwrap());
    for (number, head, expected) in [
        (15, "2001:db8::1 - -", Some("2001:db8::1")),
        (15, "::ffff:192.0.2.1 - -", Some("192.0.2.1")),
        (15, "[2001:db8::1]:4000 - -", Some("2001:db8::1")),
        (15, "192.0.2.1:4000 - -", Some("192.0.2.1")),
        (15, "reader.example.net - -", None),
        (15, "- - -", None),
        (15, "unix: - -", None),
        (15, "192.0.2.1, 10.0.0.1 - -", Some("192.0.2.1")),
        (15, "192.0.2.66, 198.51.100.1, 10.0.0.1 - -", Some("198.51.100.1")),
        (15, "10.0.0.1 - -", Some("10.0.0.1")),
        (15, "192.0.2.1 - Jane Doe", Some("192.0.2.1")),
        (15, "192.0.2.1 - jane@example.org", Some("192.0.2.1")),
        (15, "192.0.2.1", Some("192.0.2.1")),
    ] {
        let line = requested("GET /a HTTP/1.1", "200").replace("192.0.2.1 - -", head);
        let Outcome::View(view) = outcome("combined", line.as_bytes()) else { panic!("{number}: {head}: no view") };
        assert!(view.client == expected.map(address), "{number}: {head}");
    }
    let line = requested("GET /a HTTP/1.1", "200").replace("192.0.2.1", "203.0.113.9");
    assert_eq!(outcome("combined", line.as_bytes()), Outcome::NotCounted(NotCounted::IgnoredNetwork));
    // 5: nginx's `main` has the reader at its end; an untrusted peer's word does not count.
    for (peer, expected) in [("10.0.0.1", "192.0.2.7"), ("198.51.100.1", "198.51.100.1")] {
        let line = format!("{} \"192.0.2.7\"", requested("GET /a HTTP/1.1", "200").replace("192.0.2.1", peer));
        let Outcome::View(view) = outcome("combined-forwarded", line.as_bytes()) else { panic!("no view") };
        assert!(view.client == Some(address(expected)), "{peer}");
    }
}

#[test]
fn times() {
    for (number, time, expected) in [
        (16, "26/Nov/2026:10:00:00 +0330", "view /a"),
        (16, "26/Nov/2026:10:00:00", "NoZone"),
        (16, "26/Dez/2026:10:00:00 +0100", "InvalidTime"),
        (16, "31/Nov/2026:10:00:00 +0100", "InvalidTime"),
        (16, "31/Oct/2024:10:00:00 +0000", "TooOld"),
        (16, "31/Oct/2024:23:30:00 -0100", "view /a"),
        (16, "26/Nov/2027:10:00:00 +0000", "Future"),
    ] {
        let line = requested("GET /a HTTP/1.1", "200").replace("26/Nov/2026:10:00:00 +0100", time);
        assert_eq!(told(&outcome("combined", line.as_bytes())), expected, "{number}: {time}");
    }
}

#[test]
fn agents_of_logs() {
    let long = format!("{FIREFOX} {}", "x".repeat(5000));
    for (number, agent, expected) in [
        (19, "Xenu Link Sleuth/1.3.8", false),
        (19, "Mozilla/5.00 (Nikto/2.1.6) (Evasions:None) (Test:000001)", false),
        (19, "w3af.org", false),
        (19, "nutch-1.4/Nutch-1.4", false),
        (19, "Ruby", false),
        (19, "LWP::Simple/6.00 libwww-perl/6.03", false),
        (19, "HTTP_Request2/2.0.0 (http://pear.php.net/package/http_request2) PHP/5.3.16", false),
        (19, "gPXE/1.0.0", false),
        (19, "portscout/0.8.1", false),
        (19, "Microsoft Office Protocol Discovery", false),
        (19, "Tiny Tiny RSS/1.11", false),
        // 20: absence is no agent named "-".
        (20, "-", false),
        (20, "", false),
        (20, FIREFOX, true),
        (20, &format!("User-Agent: {FIREFOX}"), true),
        // A program's name after the browser's, and cut to 512 bytes.
        (20, &long, false),
        (20, r#"Mozilla/5.0 (X11; Linux x86_64; \"x\") Gecko/20100101 Firefox/145.0"#, true),
        (20, r#"Mozilla/5.0 (X11; Linux x86_64; "x" y) Gecko/20100101 Firefox/145.0"#, true),
    ] {
        let line = requested("GET /a HTTP/1.1", "200").replace(FIREFOX, agent);
        let Outcome::View(view) = outcome("combined", line.as_bytes()) else { panic!("{number}: {agent}: no view") };
        assert_eq!(view.classes.bot_class == BotClass::Person, expected, "{number}: {agent}: {:?}", view.classes);
        assert!(view.has_agent);
        if expected {
            assert_eq!(view.classes.browser, Browser::Firefox, "{number}: {agent}");
        }
    }
    let latin1 = [requested("GET /a HTTP/1.1", "200").trim_end_matches('"').as_bytes(), b"\xe9\""].concat();
    assert!(matches!(outcome("combined", &latin1), Outcome::View(view) if view.classes.browser == Browser::Firefox));
    // 1: without the column every view is of an unknown reader.
    let line = br#"192.0.2.1 - - [26/Nov/2026:10:00:00 +0100] "GET /a HTTP/1.1" 200 12"#;
    let Outcome::View(view) = outcome("common", line) else { panic!("no view") };
    assert_eq!((view.classes.bot_class, view.has_agent, view.page.arrival), (BotClass::Person, false, false));
}

#[test]
fn referrers() {
    for (number, referrer, arrival, host) in [
        (21, "-", true, ""),
        (21, "", true, ""),
        (21, "www.n.example", true, ""),
        (21, "null", true, ""),
        (21, "about:blank", true, ""),
        (21, "/a/path", true, ""),
        (21, "1' OR '1'='1", true, ""),
        (21, "http://", true, ""),
        (21, "http://%E4%E5.%F0/", true, ""),
        (21, r"http://caf\xe9.example/", true, ""),
        (21, "https://www.n.example/x?secret=1", true, "n.example"),
        (21, "https://docs.example.org/b", false, ""),
    ] {
        let line = requested("GET /a HTTP/1.1", "200").replace("\"-\"", &format!("\"{referrer}\""));
        let Outcome::View(view) = outcome("combined", line.as_bytes()) else { panic!("{number}: {referrer}: no view") };
        let found = (view.page.arrival, view.page.referrer_host.as_str());
        assert_eq!(found, (arrival, host), "{number}: {referrer}");
    }
}

#[test]
fn headers_that_a_log_has_are_honoured() {
    let with = |headers: &str| {
        format!(
            r#"{{"ts":1764151200.5,"request":{{"client_ip":"192.0.2.1","method":"GET","host":"docs.example.org","uri":"/a","headers":{{"User-Agent":["{FIREFOX}"]{headers}}}}},"status":200}}"#
        )
    };
    for (headers, expected) in [
        ("", "view /a"),
        (r#","Dnt":["1"]"#, "OptedOut"),
        (r#","Sec-Gpc":["1"]"#, "OptedOut"),
        (r#","Dnt":["0"]"#, "view /a"),
        (r#","Sec-Purpose":["prefetch;prerender"]"#, "Prefetch"),
        (r#","Sec-Fetch-Dest":["image"]"#, "Asset"),
        (r#","Sec-Fetch-Dest":["document"]"#, "view /a"),
        (r#","Sec-Ch-Ua":["\"HeadlessChrome\";v=\"142\""]"#, "/a by Automated browser"),
        // A client cannot write what the server does.
        (r#","Status":["500"],"Uri":["/b"],"Host":["x.example"],"Request":{"uri":"/c"}"#, "view /a"),
    ] {
        assert_eq!(told(&outcome("json", with(headers).as_bytes())), expected, "{headers}");
    }
}

#[test]
fn a_format_is_guessed_only_where_the_lines_agree() {
    let combined = requested("GET /a HTTP/1.1", "200");
    let common = r#"192.0.2.1 - - [26/Nov/2026:10:00:00 +0100] "GET /a HTTP/1.1" 200 12"#;
    let exchanged = combined.replace(&format!("\"-\" \"{FIREFOX}\""), &format!("\"{FIREFOX}\" \"-\""));
    let guessed = |lines: &[&str]| guess(lines.iter().map(|line| line.as_bytes())).map(|format| format.to_string());
    let forwarded = format!("{combined} \"192.0.2.7\"");
    let not_forwarded = format!("{combined} \"-\"");
    let traefik = combined.replace(FIREFOX, "-") + " 7 \"docs@docker\" \"http://10.0.0.2:80\" 0ms";
    assert_eq!(guessed(&[traefik.as_str(); 10]), Ok("common".to_owned()), "a server that logs no agents");
    for (lines, expected) in [
        (&[common, common][..], Ok("common")),
        (&[&combined, "", "\u{16}\u{3}", &combined], Ok("combined")),
        (&[&not_forwarded, &forwarded], Ok("combined-forwarded")),
        (&[&not_forwarded, &not_forwarded], Ok("combined")),
        (&[&format!("docs.example.org:443 {combined}"), &format!("docs.example.org:443 {common}")], Ok("host-first")),
        (&[&combined.replace("1 - -", "1 docs.example.org -")], Ok("host-second")),
        (&["#Version: 1.0", "#Fields: date time"], Ok("w3c")),
        (&[r#"{"ts":1}"#], Ok("json")),
        (&[r#"caddy-1  | {"ts":1}"#], Ok("json")),
        (
            &[
                r#"http 2026-11-26T10:00:00.1Z app/lb/1 192.0.2.1:4000 10.0.0.1:80 0.0 0.0 0.0 200 200 1 2 "GET http://a:80/ HTTP/1.1" "x" - -"#,
            ],
            Ok("alb"),
        ),
        (&[&combined, common], Err(NotGuessed::Disagree("combined", "common"))),
        (&[&combined, r#"{"ts":1}"#], Err(NotGuessed::Disagree("combined", "json"))),
        (&[&exchanged], Err(NotGuessed::Exchanged)),
        (&["", "hello"], Err(NotGuessed::Nothing)),
        (&[&combined.replace("192.0.2.1 - -", "192.0.2.1 198.51.100.1 -")], Err(NotGuessed::Nothing)),
        // 9: named, and not read.
        (
            &[
                "Nov 26 10:00:00 lb haproxy[12]: 192.0.2.1:33317 [26/Nov/2026:10:00:00.655] http-in docs/srv1 10/0/30/69/109 200 2750 - - ---- 1/1/1/1/0 0/0 {x} \"GET /a HTTP/1.1\"",
            ],
            Err(NotGuessed::Refused("HAProxy")),
        ),
        (
            &[
                "79a59df900b949e55d96a1e698fbacedfd6e09d98eacf8f8d5218e7cd47ef2be docs [26/Nov/2026:10:00:00 +0000] 192.0.2.1 - 3E57427F3EXAMPLE REST.GET.OBJECT a \"GET /a HTTP/1.1\" 200 - 113 - 7 - \"-\" \"x\" -",
            ],
            Err(NotGuessed::Refused("S3 server access log")),
        ),
        (
            &[
                "[26/Nov/2026:10:00:00 +0000] - 404 404 - GET http docs.example.org \"/a\" [Client 192.0.2.1] [Length 12] [Gzip -]",
            ],
            Err(NotGuessed::Refused("Nginx Proxy Manager")),
        ),
        (
            &[r#"{"log":"x\n","stream":"stdout","time":"2026-11-26T10:00:00Z"}"#],
            Err(NotGuessed::Refused("JSON of Docker's json-file driver")),
        ),
    ] {
        assert_eq!(guessed(lines), expected.map(str::to_owned), "{lines:?}");
    }
}

#[test]
fn host_patterns_admit_so_many_new_projects_in_an_hour_of_the_log() {
    let patterns = vec!["{project}.rtd.example".parse().unwrap()];
    let projects = Projects::new(patterns, NewNames { per_hour: 2, per_network: 0 });
    let views = Views::new(rules(None), &projects);
    let mut parser = Parser::new("host-first".parse().unwrap(), None);
    for (project, hour, expected) in [
        ("one", "10", "view /a"),
        ("two", "10", "view /a"),
        ("three", "10", "NewProjects"),
        ("one", "10", "view /a"),
        ("three", "11", "view /a"),
        ("other.example", "11", "OtherHost"),
    ] {
        let line = requested("GET /a HTTP/1.1", "200").replace("2026:10:", &format!("2026:{hour}:"));
        let line = format!("{project}.rtd.example:443 {line}");
        let outcome = views.outcome(&parser.parse(line.as_bytes()).unwrap());
        assert_eq!(told(&outcome), expected, "{line}");
    }
}

#[test]
fn nothing_of_a_line_is_in_its_reason_or_debug() {
    let line =
        br#"198.51.100.77 - secret-user [26/Nov/2026:10:00:00 +0100] "GET /secret HTTP/1.1" 200 12 "-" "secret-agent""#;
    let parsed = Parser::new(Format::Combined, None).parse(line).map(|line| format!("{line:?}")).unwrap();
    for text in [parsed, format!("{:?}", outcome("combined", line).clone().client())] {
        assert!(!text.contains("198.51.100.77") && !text.contains("secret"), "{text}");
    }
    let reasons = NotRead::ALL.iter().map(|reason| format!("{reason} {reason:?} {}", reason.name()));
    assert!(reasons.into_iter().all(|text| !text.is_empty() && text.is_ascii()));
}

impl Outcome {
    fn client(self) -> Option<crate::client::ClientAddress> {
        match self {
            Outcome::View(view) => view.client,
            _ => None,
        }
    }
}
