//! `headcount report`: a report to a file or a pipe, the same figures as on the page.

use crate::config::commands::ReportCommand;
use crate::config::privacy_settings::RuleSettings;
use crate::config::store::ClockSettings;
use crate::shell::output::print_bytes;
use crate::{complain, projects};
use anyhow::{Context, anyhow};
use clap::ArgMatches;
use query::{PagesRequest, Problem, ReportStore, Reports, Span};
use schemas::ProjectSlug;

/// Names of a report's formats.
pub const FORMATS: [&str; 4] = ["md", "html", "csv", "json"];

/// Report queries with the configured rules and clock.
pub fn reports(client: clickhouse::Client, rules: &RuleSettings, clock: &ClockSettings) -> anyhow::Result<Reports> {
    Ok(Reports::new(ReportStore::new(client), rules.query()?, clock.clock()))
}

/// Why there is no report, as one line.
pub fn told(problem: &Problem) -> anyhow::Error {
    let field = problem.field.map_or_else(String::new, |field| format!(" ({field})"));
    anyhow!("{}{field}: {}", problem.title, problem.detail)
}

/// The report for people: as Markdown and as HTML. Long lists are truncated, and state their full length.
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
        if !print_bytes(&chunk.context("the report is not complete")?) {
            break;
        }
    }
    Ok(())
}

/// Runs `headcount report SLUG SPAN [--format md|html|csv|json]`.
pub async fn command(matches: &ArgMatches, settings: &ReportCommand) -> anyhow::Result<()> {
    let text = |name: &str| matches.get_one::<String>(name).map_or("", String::as_str);
    let project: ProjectSlug =
        text("slug").parse().with_context(|| format!("{:?} cannot be a project", text("slug")))?;
    let server = settings.store.server(&projects::clickhouse_url(&settings.store).await?);
    server.bind().await?;
    let reports = reports(server.client(), &settings.rules, &settings.clock)?;
    let span: Span = match matches.get_one::<String>("span") {
        Some(text) => text.parse().with_context(|| format!("{text:?} is no month and no range of months"))?,
        None => reports.running().previous().into(),
    };
    match text("format") {
        "csv" => export(&reports, &project, span).await?,
        format => drop(print_bytes(written(&reports, &project, span, format).await?.as_bytes())),
    }
    if let Some(hint) = hint(&reports, &project, span).await? {
        complain!("{hint}");
    }
    Ok(())
}

/// A hint to print beside a report without a page view. The report itself is complete.
async fn hint(reports: &Reports, project: &ProjectSlug, span: Span) -> anyhow::Result<Option<String>> {
    let one = PagesRequest::default();
    let report = reports.report(project, span, &one).await.map_err(|problem| told(&problem))?;
    if report.totals.views > 0 {
        return Ok(None);
    }
    let running = reports.running();
    let empty = format!("note: {project} has no page view in {span}");
    Ok(Some(match span.months().any(|month| month == running) {
        true => format!("{empty} so far; `headcount project list` shows the hosts whose pages are counted"),
        false => format!("{empty}; the running month is {running}: headcount report {project} {running}"),
    }))
}
