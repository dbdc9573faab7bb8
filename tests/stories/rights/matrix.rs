//! The matrix: routes × callers × projects. Requests come from the table of routes.

use super::bed::{Caller, May, PROJECTS, ask, in_force, service, signed_in};
use anyhow::{Context, Result, ensure};
use data_encoding::BASE64;
use harness::http::Answer;
use harness::routes::{self, RouteRequest};
use harness::service::{Service, eventually};
use query::route::{Audience, Route, Rule};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Served,
    /// 401 with a challenge.
    Challenged,
    /// 303 to /sign-in.
    Led,
    /// 404, with the text for an unknown project.
    NotThere,
}

/// The access rules, written a second time.
fn expected(route: &Route, caller: &Caller, project: &str) -> Expected {
    let exists = !matches!(project, "unknown" | "erased");
    let may = project == "public" || caller.may == May::All || caller.may == May::Project(name_of(project));
    let known = caller.may != May::Nothing;
    match route.rule {
        Rule::Open => Expected::Served,
        Rule::Badge if project == "public" => Expected::Served,
        Rule::Badge => Expected::NotThere,
        Rule::SignedIn if known => Expected::Served,
        Rule::OfProject if may && exists => Expected::Served,
        Rule::OfProject if known => Expected::NotThere,
        Rule::SignedIn | Rule::OfProject if route.audience == Audience::People && !caller.sent_a_token => Expected::Led,
        Rule::SignedIn | Rule::OfProject => Expected::Challenged,
    }
}

fn name_of(project: &str) -> &'static str {
    PROJECTS.into_iter().find(|name| *name == project).unwrap_or_default()
}

fn found(answer: &Answer) -> Result<Expected> {
    let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    Ok(match answer.status.as_u16() {
        200 => Expected::Served,
        303 if header("location").starts_with("/sign-in") => Expected::Led,
        // The project's own redirects.
        307 | 308 if header("location").starts_with("/projects/") => Expected::Served,
        401 if header("www-authenticate").starts_with("Bearer") => Expected::Challenged,
        404 => Expected::NotThere,
        status => anyhow::bail!("{status}: {}", String::from_utf8_lossy(&answer.body)),
    })
}

/// All callers. The tokens of removed and erased projects are created while these exist.
async fn callers(service: &Service) -> Result<Vec<Caller>> {
    let (admin, of_project) = (service.token(None).await?, service.token(Some("private")).await?);
    let (of_foreign, of_removed) = (service.token(Some("foreign")).await?, service.token(Some("removed")).await?);
    let (of_erased, revoked) = (service.token(Some("erased")).await?, service.token(Some("private")).await?);
    for token in [&admin, &of_project, &of_foreign, &of_removed, &of_erased, &revoked] {
        in_force(service, token, true).await?;
    }
    let cookie = async |token: &str| signed_in(service, token).await;
    let [admins, readers, foreigners, revoked_ones] =
        [cookie(&admin).await?, cookie(&of_project).await?, cookie(&of_foreign).await?, cookie(&revoked).await?];
    let signed_out = cookie(&of_project).await?;
    let ended = ask(service, "POST", "/sign-out", &[("cookie", signed_out.clone())]).await?;
    ensure!(ended.status == 303, "{}", ended.status);

    service.done(&["token", "revoke", revoked.split('_').nth(1).context("an id")?]).await?;
    service.done(&["project", "remove", "removed"]).await?;
    service.done(&["project", "erase", "erased", "--yes"]).await?;
    in_force(service, &revoked, false).await?;
    in_force(service, &of_erased, false).await?;

    let with = |name, headers, may, sent_a_token| Caller { name, headers, may, sent_a_token };
    let bearer = |token: &str| vec![("authorization", format!("Bearer {token}"))];
    let basic =
        |token: &str| vec![("authorization", format!("Basic {}", BASE64.encode(format!("x:{token}").as_bytes())))];
    let cookie = |value: &str| vec![("cookie", value.to_owned())];
    // The id of one, with the secret of another.
    let mixed = format!("{}{}", &of_project[..20], &admin[20..]);
    let other_digit = if of_project.ends_with('0') { "1" } else { "0" };
    let almost = format!("{}{other_digit}", &of_project[..of_project.len() - 1]);
    Ok(vec![
        with("anonymous", vec![], May::Nothing, false),
        with("wrong token", bearer(&almost), May::Nothing, true),
        with("mixed token", bearer(&mixed), May::Nothing, true),
        with("malformed token", bearer("hc_'; DROP TABLE token"), May::Nothing, true),
        with("revoked token", bearer(&revoked), May::Nothing, true),
        with("token of what was erased", bearer(&of_erased), May::Nothing, true),
        with("token of another project", bearer(&of_foreign), May::Project("foreign"), true),
        with("token of the project", bearer(&of_project), May::Project("private"), true),
        with("the same as password", basic(&of_project), May::Project("private"), true),
        with("token of what was removed", bearer(&of_removed), May::Project("removed"), true),
        with("admin", bearer(&admin), May::All, true),
        with("admin's session", cookie(&admins), May::All, false),
        with("session of the project", cookie(&readers), May::Project("private"), false),
        with("session of another project", cookie(&foreigners), May::Project("foreign"), false),
        with("session of a revoked token", cookie(&revoked_ones), May::Nothing, false),
        with("session that was signed out", cookie(&signed_out), May::Nothing, false),
        with("invented session", cookie(&format!("headcount_session={}", "0".repeat(32))), May::Nothing, false),
        // The cookie for TLS is not valid if no trusted proxy reports TLS.
        with(
            "cookie of another scheme",
            cookie(&admins.replace("headcount_session", "__Host-headcount")),
            May::Nothing,
            false,
        ),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn every_caller_gets_what_the_rules_say_and_learns_no_more() -> Result<()> {
    let mut service = service(&[]).await?;
    let callers = callers(&service).await?;
    let mut asked = 0;
    for request in routes::requests("PROJECT") {
        // It would end or replace the session that the next requests need; `tokens.rs` signs in and out.
        if !routes::changes_session(&request) {
            for caller in &callers {
                asked += compare(&service, &request, caller).await?;
            }
        }
    }
    ensure!(asked > 2_000, "only {asked} requests");

    // A restart ends every session, and no token.
    service.stop().await?;
    service.start(&[]).await?;
    for caller in callers.iter().filter(|caller| caller.may == May::All || caller.may == May::Project("private")) {
        let session = caller.name.contains("session");
        eventually("the rights to be read", async || {
            let answer = ask(&service, "GET", "/v1/projects/private/reports/2026-01", &caller.headers).await?;
            ensure!(answer.status == if session { 401 } else { 200 }, "{}: {}", caller.name, answer.status);
            Ok(())
        })
        .await?;
    }
    service.stop().await
}

/// Sends `request` as `caller` for each project, and returns the number of requests.
async fn compare(service: &Service, request: &RouteRequest, caller: &Caller) -> Result<usize> {
    let (method, route) = (request.method, &request.route);
    let mut refused = Vec::new();
    for project in PROJECTS {
        let described = format!("{method} {} of {project}, {}", request.path, caller.name);
        let answer = ask(service, method, &request.path.replace("PROJECT", project), &caller.headers).await?;
        if route.path == "/sign-in" && answer.status == 303 && caller.may != May::Nothing {
            continue;
        }
        let (expected, found) = (expected(route, caller, project), found(&answer).context(described.clone())?);
        // A caller with access to everything is redirected to the month of an unknown project, which returns 404 there.
        let redirect = route.path.trim_end_matches('/') == "/projects/{project}" && caller.may == May::All;
        ensure!(
            found == expected || (redirect && found == Expected::Served),
            "{described}: {found:?}, not {expected:?}"
        );
        if matches!(found, Expected::NotThere | Expected::Challenged) {
            refused.push((described, answer.status, answer.headers, answer.body));
        }
    }
    // Among refused projects the unknown one is indistinguishable: status, headers and body are the same.
    for pair in refused.windows(2) {
        let alike =
            pair[0].1 == pair[1].1 && without_date(&pair[0].2) == without_date(&pair[1].2) && pair[0].3 == pair[1].3;
        ensure!(alike, "{} and {} are distinguishable:\n{pair:?}", pair[0].0, pair[1].0);
    }
    Ok(PROJECTS.len())
}

fn without_date(headers: &http::HeaderMap) -> http::HeaderMap {
    let mut headers = headers.clone();
    headers.remove("date");
    headers
}
