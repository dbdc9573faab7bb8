//! What a maintainer pastes into the docs, and a check of whether it works.

use super::words;
use axum::http::{HeaderMap, header};
use maud::{Markup, html};
use schemas::Host;
use schemas::paths::EndpointPaths;

/// The URL of this service, for the line that a maintainer pastes into the docs.
pub(crate) struct Snippet {
    pub(super) origin: String,
    paths: EndpointPaths,
}

impl Snippet {
    /// The origin as the requesting browser knows it. It is used only if it parses as a host. The scheme is that of `X-Forwarded-Proto`,
    /// else http for `localhost` and for a host with a port (the service itself speaks http on a port), else https.
    pub(crate) fn from_headers(headers: &HeaderMap, paths: &EndpointPaths) -> Self {
        Snippet { origin: Snippet::origin_of(headers), paths: paths.clone() }
    }

    /// The origin in its lines.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    fn origin_of(headers: &HeaderMap) -> String {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let host = text(header::HOST.as_str()).and_then(|host| host.parse::<Host>().ok());
        let Some(host) = host else { return "https://headcount.example.org".to_owned() };
        let scheme = match text("x-forwarded-proto") {
            Some("http") => "http",
            Some("https") => "https",
            _ if host.as_str().contains(':') || host.as_str() == "localhost" => "http",
            _ => "https",
        };
        format!("{scheme}://{}", host.as_str())
    }

    /// The script's URL.
    fn script(&self) -> String {
        format!("{}{}", self.origin, self.paths.script())
    }

    /// The policy of a site that allows itself and the beacon, and nothing else of these kinds.
    fn policy(&self) -> String {
        let Snippet { origin, paths } = self;
        format!(
            "Content-Security-Policy: script-src 'self' {}; connect-src 'self' {origin}{}; img-src 'self' {origin}{}",
            self.script(),
            paths.beacon(),
            paths.pixel()
        )
    }

    fn html(&self, project: &str) -> String {
        html_line(&self.script(), project)
    }

    fn sphinx(&self, project: &str) -> String {
        format!(
            "html_js_files = [\n    (\"{}\", {{\"defer\": \"defer\", \"data-project\": \"{project}\", \"data-version\": version}}),\n]",
            self.script()
        )
    }

    fn mkdocs(&self) -> String {
        format!("extra_javascript:\n  - path: {}\n    defer: true", self.script())
    }
}

/// The line for the head of every page.
pub(crate) fn html_line(script: &str, project: &str) -> String {
    format!("<script defer src=\"{script}\" data-project=\"{project}\"></script>")
}

/// The page of a project without views: what to paste, and a check of whether it works. `refused` describes refused beacons in sentences.
pub(super) fn begin(project: &str, refused: Option<Markup>, snippet: &Snippet, again: &str) -> Markup {
    html! {
        section.begin {
            h2 { "No view has been counted yet" }
            p { "Put one line into the pages of the documentation. Views show here within seconds of a visit to a page that carries it." }
            div.waiting data-live=(format!("/projects/{project}/live")) {
                p #live role="status" { "No view so far." }
                @if let Some(refused) = refused {
                    p { "But beacons came, and were refused:" }
                    (refused)
                }
                p { a href=(again) { "Check again" } }
            }
            div.snippets {
                h3 { "Any site" }
                p.note { "In " code { "<head>" } " of every page, the page for addresses that are not found included:" }
                pre tabindex="0" aria-label="The line for any site" { code { (snippet.html(project)) } }
                h3 { "Sphinx" }
                p.note { "In " code { "conf.py" } ", on Read the Docs as elsewhere:" }
                pre tabindex="0" aria-label="The lines for Sphinx" { code { (snippet.sphinx(project)) } }
                h3 { "MkDocs" }
                p.note { "In " code { "mkdocs.yml" } ". The project is found by the host of the page, which has to be registered:" }
                pre tabindex="0" aria-label="The lines for MkDocs" { code { (snippet.mkdocs()) } }
                h3 { "Content-Security-Policy" }
                p.note { "A site that sends this header adds the three sources to its own (" code { "img-src" } " is for the pixel only):" }
                pre tabindex="0" aria-label="The policy of a site" { code { (snippet.policy()) } }
            }
            p.note {
                "Nothing arrives? The host of the docs has to belong to the project (" code { "headcount project add " (project) " --host docs.example.org" }
                "), a Content-Security-Policy has to allow script and beacon, and a browser that sends " code { "Sec-GPC" } " or "
                code { "DNT" } " or that blocks the script is not counted: try another."
            }
        }
    }
}

/// The page of a month without views, for a project that may have views in others.
pub(super) fn silent_month(title: &str, running: &str) -> Markup {
    html! {
        section {
            h2 { "No views in " (title) }
            p.note { "Nothing was counted, or the figures are older than this service keeps them. " a href=(running) { "The running month" } }
        }
    }
}

/// The first day of a project: the figures are small. Says what to check.
pub(super) fn first_day(since: chrono::NaiveDate, threshold: u64) -> Markup {
    html! {
        div.waiting.screen {
            p { b { "Counting since " (words::day(since)) "." } " Worth a look on the first day:" }
            ul.plain {
                li { "Does the list of pages have pages of every part of the docs? What is missing there lacks the line." }
                li { "Open an address that does not exist: it should appear under “Pages not found”. If it does not, the 404 page lacks the line." }
                li { "Values with fewer than " (threshold) " views are added up as “All others”." }
            }
        }
    }
}
