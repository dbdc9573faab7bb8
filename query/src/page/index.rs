//! The projects that a caller may see.

use super::{Frame, chart, document, words};
use crate::store::ProjectViews;
use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use schemas::Month;

/// Parameters of the list of projects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IndexAsked<'a> {
    /// Prefix of the slugs; empty for all.
    pub(crate) prefix: &'a str,
    /// Whether this is not the start of the list.
    pub(crate) continued: bool,
    /// Cursor of the next page of the list, if there is one.
    pub(crate) next: Option<&'a str>,
}

/// `GET /`.
pub(crate) fn index(projects: &[ProjectViews], asked: &IndexAsked<'_>, running: Month) -> Markup {
    let largest =
        projects.iter().map(|project| project.views_this_month.max(project.views_last_month)).max().unwrap_or(0);
    let prefix = || utf8_percent_encode(asked.prefix, NON_ALPHANUMERIC);
    document(
        &Frame::plain("Projects"),
        html! {
            header.top { div { p.kind { "Documentation reports" } h1 { "Projects" } } }
            main #content {
                section.projects {
                    @if !projects.is_empty() || !asked.prefix.is_empty() || asked.continued {
                        form.find method="get" action="/" role="search" {
                            label.grow { "Names that begin with" input type="text" name="prefix" value=(asked.prefix) autocapitalize="off" spellcheck="false"; }
                            button type="submit" { "Show" }
                        }
                    }
                    @if projects.is_empty() {
                        @if asked.prefix.is_empty() && !asked.continued {
                            p { "There is no project yet that you may see. The operator adds one with " code { "headcount project add SLUG --host HOST" } "." }
                        } @else {
                            p.note { "No project that you may see begins like that. " a href="/" { "All projects" } }
                        }
                    } @else {
                        div.list.projects role="table" aria-label="Projects" {
                            div.row.heads role="row" {
                                span role="columnheader" { "Project" }
                                span role="columnheader" { (words::month_name(running.previous())) }
                                span role="columnheader" { (words::month_name(running)) ", so far" }
                            }
                            @for project in projects {
                                div.row role="row" {
                                    (chart::trace_of_two(project.views_last_month, project.views_this_month, largest))
                                    span.name role="cell" { a href=(format!("/projects/{}", project.project)) { (project.project) } }
                                    span role="cell" {
                                        @if project.views_last_month > 0 {
                                            a href=(format!("/projects/{}/{}", project.project, running.previous())) aria-label=(format!("{}: {} in {}", project.project, words::counted(project.views_last_month, "view", "views"), words::month(running.previous()))) {
                                                (words::number(project.views_last_month))
                                            }
                                        } @else { "0" }
                                    }
                                    span role="cell" { (words::number(project.views_this_month)) }
                                }
                            }
                        }
                        p.note { "Views by people. The upper line is of all of " (words::month_name(running.previous())) ", the lower one of " (words::month_name(running)) " so far." }
                    }
                    p.turn {
                        @if asked.continued { a href=(if asked.prefix.is_empty() { "/".to_owned() } else { format!("/?prefix={}", prefix()) }) { "← From the beginning" } }
                        @if let Some(next) = asked.next {
                            a rel="next" href=(if asked.prefix.is_empty() { format!("/?after={next}") } else { format!("/?prefix={}&after={next}", prefix()) }) { "More projects →" }
                        }
                    }
                }
            }
            footer {
                p { "Visitors are estimates, made without cookies; readers' addresses and user agents are never stored. " a href="/privacy" { "Privacy" } }
                form.screen method="post" action="/sign-out" { button.quiet type="submit" { "Sign out" } }
            }
        },
    )
}
