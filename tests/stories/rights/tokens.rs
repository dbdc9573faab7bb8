//! A token's life, the page's way in and out, badges, limits; and that a token is in no log.

use super::bed::{MONTH, ask, in_force, service, signed_in};
use anyhow::{Context, Result, ensure};
use harness::http::Connection;
use harness::service::{Service, binary, eventually};
use std::time::Duration;

const REPORT: &str = "/v1/projects/private/reports/2026-01";

fn bearer(token: &str) -> [(&'static str, String); 1] {
    [("authorization", format!("Bearer {token}"))]
}

fn id(token: &str) -> Result<&str> {
    token.split('_').nth(1).context("a token has an id")
}

/// The content of all files under a directory, as text.
fn everything(directory: &std::path::Path, into: &mut Vec<u8>) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            everything(&path, into)?;
        } else if path.is_file() {
            // Files of the engine appear and disappear.
            into.extend(std::fs::read(&path).unwrap_or_default());
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_shown_once_listed_by_its_id_and_revoked() -> Result<()> {
    let mut service = service(&["--log", "debug"]).await?;
    let said = service.log();
    ensure!(said.contains("there is no token yet; create one with `headcount token create --admin --data"), "{said}");

    let token = service.done(&["token", "create", "--project", "private", "--label", "Maria's sheet"]).await?;
    let token = token.trim().to_owned();
    ensure!(token.starts_with("hc_") && token.len() == 60, "one line with the token alone: {token}");
    let (id, secret) = (id(&token)?.to_owned(), token.rsplit('_').next().context("a secret")?.to_owned());
    in_force(&service, &token, true).await?;
    let cookie = signed_in(&service, &token).await?;
    ensure!(!cookie.contains(&secret), "the cookie is not the token");
    let signed = [("cookie", cookie.clone())];
    ensure!(ask(&service, "GET", REPORT, &signed).await?.status == 200, "the session reads");

    let listed = eventually("the day of its use", async || {
        let listed = service.done(&["token", "list"]).await?;
        let line = listed.lines().find(|line| line.contains(&id)).context("the token is listed")?.to_owned();
        ensure!(line.contains("2026-01-15"), "{line}");
        Ok((listed, line))
    })
    .await?;
    ensure!(
        listed.1.contains("private") && listed.1.contains("Maria's sheet") && listed.1.contains("active"),
        "{}",
        listed.1
    );
    ensure!(!listed.0.contains(&secret), "the list shows no token");

    // A wrong token, which must not be found in a log either.
    let wrong = format!("{}{}", &token[..20], "c0ffee00".repeat(5));
    ask(&service, "GET", REPORT, &bearer(&wrong)).await?;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let mut connection = Connection::open(service.address()).await?;
    let refused = connection.send("POST", "/sign-in", &form, format!("token={wrong}&next=/x")).await?;
    ensure!(refused.status == 403 && refused.headers.get("set-cookie").is_none(), "{}", refused.status);
    ensure!(!String::from_utf8_lossy(&refused.body).contains("c0ffee"), "what was sent does not come back");

    // Revoked: the token and its session, within three seconds of the command's end, and a little for a busy machine.
    service.done(&["token", "revoke", &id]).await?;
    let revoked = tokio::time::Instant::now();
    in_force(&service, &token, false).await?;
    ensure!(revoked.elapsed() < Duration::from_secs(20), "{:?}", revoked.elapsed());
    ensure!(ask(&service, "GET", REPORT, &signed).await?.status == 401, "its session ended with it");
    let again = service.done(&["token", "revoke", &id]).await;
    ensure!(again.is_err_and(|error| format!("{error:#}").contains("no token")), "nothing is revoked twice");

    service.stop().await?;
    let mut kept = service.log().into_bytes();
    everything(&service.data(), &mut kept)?;
    let session = cookie.split('=').nth(1).context("a session")?;
    for canary in [secret.as_str(), "c0ffee00c0ffee00", session] {
        let found = kept.windows(canary.len()).any(|bytes| bytes.eq_ignore_ascii_case(canary.as_bytes()));
        ensure!(!found, "{canary} is in the log or on disk");
    }
    ensure!(kept.windows(id.len()).any(|bytes| bytes == id.as_bytes()), "the scan finds what is there: the id");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_say_what_is_wrong() -> Result<()> {
    let mut service = Service::started(&[], &[("docs", "docs.example")]).await?;
    for (command, expected) in [
        (&["token", "create"][..], "--project"),
        (&["token", "create", "--admin", "--project", "docs"], "cannot be used with"),
        (&["token", "create", "--project", "nowhere"], "there is no project nowhere"),
        (&["token", "create", "--admin", "--label", "two\nlines"], "on one line"),
        (&["token", "revoke", "hc_0"], "no token's id"),
        (&["token", "revoke", "0123456789abcdef"], "no token 0123456789abcdef is active"),
        (&["project", "set", "nowhere", "--public"], "there is no project nowhere"),
        (&["project", "set", "docs"], "nothing to set"),
        (&["project", "set", "docs", "--public", "--private"], "cannot be used with"),
        (&["project", "set", "docs", "--time-zone", "Mars/Olympus"], "is no time zone"),
        (&["project", "set", "docs", "--mail", "nobody"], "is no e-mail address"),
    ] {
        let mut process = tokio::process::Command::new(binary()?);
        let output = process.args(command).arg("--data").arg(service.data()).kill_on_drop(true).output().await?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && said.contains(expected), "{command:?}: {said}");
    }
    let set = [
        "project",
        "set",
        "docs",
        "--private",
        "--time-zone",
        "Europe/Berlin",
        "--mail",
        "b@example.org",
        "--mail",
        "a@example.org",
    ];
    service.done(&set).await?;
    service.done(&["project", "set", "docs", "--no-mail", "b@example.org"]).await?;
    let listed = service.done(&["project", "list"]).await?;
    ensure!(listed.contains("private; time zone Europe/Berlin; mail to a@example.org"), "{listed}");
    eventually("the report to be private", async || {
        let answer = ask(&service, "GET", "/v1/projects/docs/reports/none", &[]).await?;
        ensure!(answer.status == 401, "{}", answer.status);
        Ok(())
    })
    .await?;
    service.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_has_a_way_in_and_out_that_no_other_site_can_use() -> Result<()> {
    let mut service = service(&["--session-seconds", "3", "--trusted-proxy", "127.0.0.1"]).await?;
    let token = service.token(Some("private")).await?;
    in_force(&service, &token, true).await?;
    let page = format!("/projects/private/{MONTH}");
    let led = ask(&service, "GET", &page, &[]).await?;
    let there = led.headers.get("location").context("a way to sign in")?.to_str()?.to_owned();
    ensure!(led.status == 303 && there == format!("/sign-in?next={page}"), "{there}");
    let form = ask(&service, "GET", &there, &[]).await?;
    let text = String::from_utf8_lossy(&form.body).into_owned();
    ensure!(
        form.status == 200 && text.contains(&format!("value=\"{page}\"")) && text.contains("type=\"password\""),
        "{text}"
    );
    ensure!(form.headers.get("set-cookie").is_none(), "nobody who only looks gets a cookie");

    let own = ("content-type", "application/x-www-form-urlencoded");
    let send = async |headers: &[(&str, &str)], body: String| {
        let headers = [&[own], headers].concat();
        Connection::open(service.address()).await?.send("POST", "/sign-in", &headers, body).await
    };
    for foreign in [
        &[("sec-fetch-site", "cross-site")][..],
        &[("sec-fetch-site", "same-site"), ("origin", "https://headcount.test")],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
    ] {
        let answer = send(foreign, format!("token={token}")).await?;
        ensure!(answer.status == 403 && answer.headers.get("set-cookie").is_none(), "{foreign:?}: {}", answer.status);
    }
    for (next, expected) in [
        (page.as_str(), page.as_str()),
        ("//evil.example/x", "/"),
        ("/%5Cevil.example", "/"),
        ("https://evil.example", "/"),
        ("/%09/evil.example", "/"),
        ("/a%0d%0aset-cookie:x=y", "/"),
        ("/sign-in", "/"),
    ] {
        let answer = send(&[("origin", "http://headcount.test")], format!("token={token}&next={next}")).await?;
        let location = answer.headers.get("location").context("a location")?.to_str()?;
        ensure!(answer.status == 303 && location == expected, "{next}: {location}");
    }
    // The proxy's header reports TLS.
    let tls = send(&[("x-forwarded-proto", "https")], format!("token={token}")).await?;
    let cookie = tls.headers.get("set-cookie").context("a cookie")?.to_str()?.to_owned();
    ensure!(cookie.starts_with("__Host-headcount=") && cookie.ends_with("; Secure"), "{cookie}");
    ensure!(tls.headers.contains_key("strict-transport-security"), "{:?}", tls.headers);

    // A session ends by itself, and by signing out; another site can cause neither.
    let cookie = signed_in(&service, &token).await?;
    let signed = [("cookie", cookie.clone())];
    ensure!(ask(&service, "GET", &page, &signed).await?.status == 200, "the page opens");
    eventually("the session to end", async || {
        let answer = ask(&service, "GET", &page, &signed).await?;
        ensure!(answer.status == 303, "{}", answer.status);
        Ok(())
    })
    .await?;
    let cookie = signed_in(&service, &token).await?;
    let by_another = [("cookie", cookie.clone()), ("sec-fetch-site", "same-site".to_owned())];
    ensure!(ask(&service, "POST", "/sign-out", &by_another).await?.status == 403, "another site signs nobody out");
    ensure!(
        ask(&service, "GET", "/sign-out", &[("cookie", cookie.clone())]).await?.status == 405,
        "a link signs nobody out"
    );
    let out = ask(&service, "POST", "/sign-out", &[("cookie", cookie.clone())]).await?;
    let gone = out.headers.get("set-cookie").context("the cookie is taken back")?.to_str()?;
    ensure!(out.status == 303 && gone.contains("Max-Age=0"), "{gone}");
    ensure!(ask(&service, "GET", REPORT, &[("cookie", cookie)]).await?.status == 401, "signed out");
    service.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn frequent_callers_wait_and_callers_that_guess_wait_longer() -> Result<()> {
    let mut service = Service::started(&[], &[("docs", "docs.example")]).await?;
    let token = service.token(None).await?;
    service.stop().await?;
    // A burst of five, and one every two seconds.
    service.start(&["--report-rate", "0.5", "--trusted-proxy", "127.0.0.1"]).await?;
    let get = async |headers: &[(&'static str, String)]| {
        ask(&service, "GET", "/v1/projects/docs/reports/none", headers).await
    };
    let client = |name: &str| ("x-forwarded-for", format!("203.0.113.{name}"));
    let mut statuses = Vec::new();
    for _ in 0..20 {
        let answer = get(&[client("1")]).await?;
        if answer.status == 429 {
            let seconds: u64 = answer.headers.get("retry-after").context("Retry-After")?.to_str()?.parse()?;
            ensure!((1..=2).contains(&seconds), "{seconds}");
            ensure!(answer.headers["content-type"] == "application/problem+json", "{:?}", answer.headers);
        }
        statuses.push(answer.status.as_u16());
    }
    // A busy machine may let one or two more through by its slowness.
    ensure!(statuses[..5].iter().all(|status| *status == 400), "{statuses:?}");
    ensure!(statuses.iter().filter(|status| **status == 429).count() >= 10, "{statuses:?}");
    ensure!(get(&[client("2")]).await?.status == 400, "another client has room");
    let [authorization] = bearer(&token);
    ensure!(get(&[client("1"), authorization.clone()]).await?.status == 400, "who has a token has room of their own");

    let form = ("content-type", "application/x-www-form-urlencoded".to_owned());
    let mut guessed = Vec::new();
    for _ in 0..20 {
        let headers = [form.clone(), client("3")];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut connection = Connection::open(service.address()).await?;
        guessed.push(connection.send("POST", "/sign-in", &headers, "token=hc_guess").await?.status.as_u16());
    }
    ensure!(guessed[..10].iter().all(|status| *status == 403), "{guessed:?}");
    ensure!(guessed.iter().filter(|status| **status == 429).count() >= 5, "{guessed:?}");
    ensure!(get(&[client("3"), authorization]).await?.status == 400, "a guesser locks nobody out");
    service.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_badge_shows_last_months_figure_of_public_projects() -> Result<()> {
    let mut service = Service::new(&["--trusted-proxy", "127.0.0.1"])?;
    service.start(&["--clock-start", "2026-01-31T12:00:00Z"]).await?;
    service.register(&[("public", "public.example")]).await?;
    service.done(&["project", "add", "private", "--host", "private.example"]).await?;
    let mut connection = Connection::open(service.address()).await?;
    for reader in 1..=40 {
        let from = format!("203.0.113.{reader}");
        let headers = [
            ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"),
            ("x-forwarded-for", &from),
        ];
        let body = r#"{"project":"public","url":"https://public.example/a.html"}"#;
        let answer = connection.send("POST", "/v1/pageview", &headers, body).await?;
        ensure!(answer.status == 202, "{}", String::from_utf8_lossy(&answer.body));
    }
    let report = service.counted("public", MONTH, 40).await?;
    let visitors = report["totals"]["visitors"]["estimate"].as_u64().context("visitors")?;
    let badge = async |path: &str| {
        let answer = ask(&service, "GET", path, &[]).await?;
        anyhow::Ok((answer.status.as_u16(), answer.headers, String::from_utf8(answer.body.to_vec())?))
    };
    let (status, _, text) = badge("/badge/public.svg").await?;
    ensure!(
        status == 200 && text.contains("<title>visitors last month: none</title>"),
        "nobody came in December: {text}"
    );
    drop(connection);
    service.stop().await?;

    // A day on, January is the last whole month.
    service.start(&["--clock-start", "2026-02-01T12:00:00Z"]).await?;
    let badge = async |path: &str| {
        let answer = ask(&service, "GET", path, &[]).await?;
        anyhow::Ok((answer.status.as_u16(), answer.headers, String::from_utf8(answer.body.to_vec())?))
    };
    let (status, headers, text) = badge("/badge/public.svg").await?;
    ensure!(status == 200 && headers["content-type"] == "image/svg+xml", "{text}");
    ensure!(headers["cache-control"] == "public, max-age=3600", "{headers:?}");
    ensure!(headers["cross-origin-resource-policy"] == "cross-origin", "{headers:?}");
    ensure!(text.contains(&format!("<title>visitors last month: {visitors} ± 1</title>")), "{text}");
    let (_, _, text) = badge("/badge/public.svg?metric=views").await?;
    ensure!(text.contains("<title>views last month: 40</title>"), "{text}");
    ensure!(badge("/badge/public.svg?metric=pages").await?.0 == 400, "an unknown metric");
    // Other projects have no badge, and the response does not reveal which of them exist.
    let private = badge("/badge/private.svg").await?;
    ensure!(private.0 == 404 && private.2.contains("/problems/unknown-project"), "{private:?}");
    for path in ["/badge/unknown.svg", "/badge/private.svg?metric=views", "/badge/public", "/badge/%FF.svg"] {
        let (status, mut headers, text) = badge(path).await?;
        let mut of_private = private.1.clone();
        headers.remove("date");
        of_private.remove("date");
        ensure!(
            (status, &headers, &text) == (private.0, &of_private, &private.2),
            "{path}: {status} {headers:?} {text}"
        );
    }
    service.stop().await
}
