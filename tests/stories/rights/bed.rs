//! One service with a project of each kind and a caller of each kind.

use anyhow::{Context, Result, ensure};
use harness::http::{Answer, Connection};
use harness::service::{Service, eventually};

/// The month of the stories; the service's clock is in it.
pub const MONTH: &str = "2026-01";

/// Kinds of projects. The names describe their state.
pub const PROJECTS: [&str; 6] = ["private", "foreign", "public", "unknown", "removed", "erased"];

const AGENT: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0";

/// A caller's credentials.
#[derive(Clone, Debug)]
pub struct Caller {
    pub name: &'static str,
    /// Headers of every request.
    pub headers: Vec<(&'static str, String)>,
    /// Readable projects besides public ones.
    pub may: May,
    /// Whether the request has a token, right or wrong; without one a browser is redirected to the form.
    pub sent_a_token: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum May {
    Nothing,
    Project(&'static str),
    All,
}

pub async fn ask(service: &Service, method: &str, path: &str, headers: &[(&'static str, String)]) -> Result<Answer> {
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Connection::open(service.address()).await?.send(method, path, &headers, "").await
}

/// Signs in and returns the cookie as a browser sends it.
pub async fn signed_in(service: &Service, token: &str) -> Result<String> {
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let mut connection = Connection::open(service.address()).await?;
    let answer = connection.send("POST", "/sign-in", &form, format!("token={token}")).await?;
    ensure!(answer.status == 303, "{} {}", answer.status, String::from_utf8_lossy(&answer.body));
    let cookie = answer.headers.get("set-cookie").context("a cookie")?.to_str()?;
    for part in ["; Path=/", "; HttpOnly", "; SameSite=Strict", "; Max-Age="] {
        ensure!(cookie.contains(part), "{part}: {cookie}");
    }
    Ok(cookie.split(';').next().unwrap_or_default().to_owned())
}

/// Waits until a token opens something, or nothing any more.
pub async fn in_force(service: &Service, token: &str, expected: bool) -> Result<()> {
    eventually("the token's state to be known", async || {
        let headers = [("authorization", format!("Bearer {token}"))];
        // For an invalid month, so that ClickHouse need not answer.
        let answer = ask(service, "GET", "/v1/projects/private/reports/none", &headers).await?;
        ensure!((answer.status != 401) == expected, "{}", answer.status);
        Ok(())
    })
    .await
}

/// A service with all projects and figures of each.
pub async fn service(arguments: &[&str]) -> Result<Service> {
    let own = ["--clock-start", "2026-01-15T10:00:00Z"];
    let mut service = Service::new(&[&own[..], arguments].concat())?;
    service.start(&[]).await?;
    let counted: Vec<&str> = PROJECTS.into_iter().filter(|project| *project != "unknown").collect();
    for project in &counted {
        let host = format!("{project}.example");
        let public = if *project == "public" { &["--public"][..] } else { &[] };
        service.done(&[&["project", "add", project, "--host", &host], public].concat()).await?;
    }
    service.read_as_admin().await?;
    eventually("the projects to be known", async || {
        let ready = service.state().await?;
        ensure!(ready["projects"].as_u64() == Some(counted.len() as u64), "{ready}");
        Ok(())
    })
    .await?;
    let mut connection = Connection::open(service.address()).await?;
    for project in &counted {
        let body = format!(r#"{{"project":"{project}","url":"https://{project}.example/a.html"}}"#);
        let answer = connection.send("POST", "/v1/pageview", &[("user-agent", AGENT)], body).await?;
        ensure!(answer.status == 202, "{project}: {}", String::from_utf8_lossy(&answer.body));
    }
    for project in &counted {
        service.counted(project, MONTH, 1).await?;
    }
    Ok(service)
}
