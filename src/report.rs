//! `headcount report`: a report to a file or a pipe, the same figures as on the page.

use crate::config::Config;
use crate::projects;
use anyhow::{Context, anyhow};
use clap::ArgMatches;
use query::{PagesRequest, Problem, ReportStore, Reports, Span};
use schemas::ProjectSlug;
use std::io::Write as _;

/// Forms of a report: name, and how it is written.
pub const FORMATS: [&str; 4] = ["md", "html", "csv", "json"];

/// The maker of reports, as the configuration says.
pub fn reports(client: clickhouse::Client, config: &Config) -> anyhow::Result<Reports> {
    Ok(Reports::new(ReportStore::new(client), config.query()?, config.clock()?))
}

/// Why there is no report, as one line.
pub fn told(problem: &Problem) -> anyhow::Error {
    let field = problem.field.map_or_else(String::new, |field| format!(" ({field})"));
    anyhow!("{}{field}: {}", problem.title, problem.detail)
}

/// The report for people: as Markdown and as HTML. Long lists are cut there, and say of how many they are the first.
pub async fn for_people(reports: &Reports, project: &ProjectSlug, span: Span) -> Result<[String; 2], Problem> {
    let report = reports.report(project, span, &PagesRequest::default()).await?;
    let counts = reports.page_counts(project, span, &report).await?;
    Ok([query::markdown::report(&report, counts), query::html(&report, reports.running(), counts)])
}

/// The report in one of [`FORMATS`] but CSV; JSON has every page and every value.
async fn written(reports: &Reports, project: &ProjectSlug, span: Span, format: &str) -> anyhow::Result<String> {
    if let "md" | "html" = format {
        let [markdown, html] = for_people(reports, project, span).await.map_err(|problem| told(&problem))?;
        return Ok(if format == "md" { markdown } else { html });
    }
    let report = reports.whole(project, span).await.map_err(|problem| told(&problem))?;
    Ok(format!("{}\n", serde_json::to_string_pretty(&report)?))
}

/// The whole report as CSV to standard output, as it is read.
async fn export(reports: &Reports, project: &ProjectSlug, span: Span) -> anyhow::Result<()> {
    let mut export = reports.export(project, span, None).await.map_err(|problem| told(&problem))?;
    while let Some(chunk) = export.next().await {
        if !print(&chunk.context("the report is not complete")?)? {
            break;
        }
    }
    Ok(())
}

/// Writes to standard output; false where nobody reads it any more (`| head`), which is no failure.
fn print(bytes: &[u8]) -> anyhow::Result<bool> {
    match std::io::stdout().write_all(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write the report"),
    }
}

/// Runs `headcount report SLUG SPAN [--format md|html|csv|json]`.
pub async fn command(matches: &ArgMatches, config: &Config) -> anyhow::Result<()> {
    let text = |name: &str| matches.get_one::<String>(name).map_or("", String::as_str);
    let project: ProjectSlug =
        text("slug").parse().with_context(|| format!("{:?} cannot be a project", text("slug")))?;
    let url = projects::clickhouse_url(config).await?;
    let reports = reports(config.clickhouse(&url).with_database(config.database()), config)?;
    let span: Span = match matches.get_one::<String>("span") {
        Some(text) => text.parse().with_context(|| format!("{text:?} is no month and no range of months"))?,
        None => reports.running().previous().into(),
    };
    match text("format") {
        "csv" => export(&reports, &project, span).await,
        format => print(written(&reports, &project, span, format).await?.as_bytes()).map(|_| ()),
    }
}
