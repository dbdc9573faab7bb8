//! `GET /badge/{project}.svg?metric=visitors|views`: last month's figure of a public project, as a picture for its README.

use super::Access;
use super::refusals::Refusal;
use crate::cache::ReportCache;
use crate::problem::Problem;
use crate::report::PagesRequest;
use crate::reports::{ReportTurns, Reports};
use crate::route::Audience;
use crate::store::ReportStore;
use crate::turns::CallerKey;
use crate::{QueryConfig, Span, VisitorUnit};
use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use maud::html;
use quick_cache::sync::Cache;
use schemas::{Hour, Month, ProjectSlug};
use serde::Deserialize;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Suffix of a badge's path.
pub(super) const SUFFIX: &str = ".svg";

/// Most cached figures.
const FIGURES: usize = 10_000;

/// How long a badge waits for another request that reads the same figures.
const WAIT: Duration = Duration::from_secs(5);

/// A month's two figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Figures {
    visitors: u64,
    plus_minus: u64,
    views: u64,
}

/// Key of a cached figure: the project, the revision of its registration, and the hour in which the figure was read. In the next hour it is
/// read again, since late views still arrive and months are closed.
type FigureKey = (ProjectSlug, u64, Hour);

/// Cached figures.
struct FigureCache {
    wait: Duration,
    figures: Cache<FigureKey, Figures>,
}

impl FigureCache {
    /// A request waits for another one at most `wait`.
    fn new(wait: Duration) -> Self {
        FigureCache { wait, figures: Cache::new(FIGURES) }
    }

    /// The cached figures, else those that `read` returns. Concurrent requests for the same figures wait for one `read`.
    async fn figures(
        &self,
        of: &FigureKey,
        read: impl Future<Output = Result<Figures, Problem>>,
    ) -> Result<Figures, Problem> {
        let found = tokio::time::timeout(self.wait, self.figures.get_value_or_guard_async(of)).await;
        let place = match found.map_err(|_| Problem::too_many_reports())? {
            Ok(figures) => return Ok(figures),
            Err(place) => place,
        };
        let figures = read.await?;
        // If the cache has evicted the placeholder, the figures are not stored, and the next request reads them again.
        let _ = place.insert(figures);
        Ok(figures)
    }
}

/// The figures of badges, and how they are read.
pub(crate) struct Badges {
    reports: Reports,
    rules: crate::Rules,
    access: Arc<Access>,
    known: FigureCache,
}

#[derive(Deserialize)]
pub(crate) struct BadgeQuery {
    metric: Option<String>,
}

/// The guard has verified that the project is public.
pub(crate) async fn badge(
    State(badges): State<Arc<Badges>>,
    Extension(caller): Extension<CallerKey>,
    Path(file): Path<String>,
    asked: Result<Query<BadgeQuery>, QueryRejection>,
) -> Response {
    let Some(project) = file.strip_suffix(SUFFIX).and_then(|text| text.parse::<ProjectSlug>().ok()) else {
        return Refusal::NotYours.answer(Audience::Programs);
    };
    let metric = asked.ok().and_then(|Query(asked)| asked.metric);
    let views = match metric.as_deref() {
        None | Some("visitors") => false,
        Some("views") => true,
        Some(_) => return Problem::invalid_field("metric", "expected visitors or views").into_response(),
    };
    let figures = match badges.figures(&project, caller).await {
        Ok(figures) => figures,
        Err(problem) => return problem.into_response(),
    };
    let rules = badges.rules;
    let (label, figure, plus_minus) = match (views, rules.unit) {
        (true, _) => ("views last month", figures.views, 0),
        // For a single month, the sum over months equals its visitors.
        (false, VisitorUnit::Visitors | VisitorUnit::VisitorMonths) => {
            ("visitors last month", figures.visitors, figures.plus_minus)
        }
        (false, VisitorUnit::VisitorDays) => ("visitor-days last month", figures.visitors, figures.plus_minus),
    };
    let shown = match figure {
        0 => "none".to_owned(),
        few if rules.floor.withholds(few) => format!("under {}", rules.floor.get()),
        figure => short(figure, plus_minus),
    };
    let headers = [(header::CONTENT_TYPE, "image/svg+xml"), (header::CACHE_CONTROL, "public, max-age=3600")];
    (headers, svg(label, &shown)).into_response()
}

impl Badges {
    /// Reads with `store`; `turns` are those of reports.
    pub(crate) fn new(store: ReportStore, config: QueryConfig, access: &Arc<Access>, turns: ReportTurns) -> Self {
        let rules = config.rules;
        let reports = Reports::sharing(turns, store, config, Arc::clone(&access.clock), ReportCache::off());
        Badges { reports, rules, access: Arc::clone(access), known: FigureCache::new(WAIT) }
    }

    async fn figures(&self, project: &ProjectSlug, caller: CallerKey) -> Result<Figures, Problem> {
        let now = self.reports.now();
        // The guard has found a revision. It can be missing only if the project became private since then.
        let revision = self.access.snapshot.load().as_ref().and_then(|snapshot| snapshot.public_revision(project));
        let of = (project.clone(), revision.ok_or_else(Problem::unknown_project)?, Hour::of(now));
        let read = async {
            let month = last_whole(now);
            let span = Span::new(month, month).map_err(|error| Problem::invalid_field("span", error.to_string()))?;
            let report = self.reports.clone().for_caller(caller).report(project, span, &PagesRequest::first(1)).await?;
            let totals = &report.totals;
            let (visitors, plus_minus) = (totals.visitors.estimate, totals.visitors.plus_minus());
            Ok(Figures { visitors, plus_minus, views: totals.views })
        };
        self.known.figures(&of, read).await
    }
}

/// The last whole month.
fn last_whole(now: chrono::DateTime<chrono::Utc>) -> Month {
    Hour(Hour::of(now).month().first_hour().0 - 1).month()
}

/// `12.3k ± 0.1k`: about three digits, with the error in the same unit and never 0.
fn short(figure: u64, plus_minus: u64) -> String {
    let (unit, name) = match figure {
        0..=999 => (1.0, ""),
        1_000..=999_499 => (1e3, "k"),
        _ => (1e6, "M"),
    };
    let value = figure as f64 / unit;
    let decimals = usize::from(unit > 1.0 && value < 99.95);
    let text = format!("{value:.decimals$}{name}");
    if plus_minus == 0 {
        return text;
    }
    let step = if decimals == 1 { 0.1 } else { 1.0 };
    // Binary fractions make the quotient slightly too large; that must not round 0.1 up to 0.2.
    let error = ((plus_minus as f64 / unit / step - 1e-9).ceil() * step).max(step);
    format!("{text} ± {error:.decimals$}{name}")
}

/// Widths of ` ` to `~` in Verdana, thousandths of the size: the widest of the fonts that a badge names.
const WIDTHS: [u16; 95] = [
    352, 394, 459, 818, 636, 1076, 727, 269, 454, 454, 636, 818, 364, 454, 364, 454, 636, 636, 636, 636, 636, 636, 636,
    636, 636, 636, 454, 454, 818, 818, 818, 545, 1000, 684, 686, 698, 771, 632, 575, 775, 751, 421, 455, 693, 557, 843,
    748, 787, 603, 787, 695, 684, 616, 732, 684, 989, 685, 615, 685, 454, 454, 454, 818, 636, 636, 601, 623, 521, 623,
    596, 352, 623, 633, 274, 344, 592, 274, 973, 633, 607, 623, 623, 427, 521, 394, 633, 592, 818, 592, 592, 525, 635,
    454, 635, 818,
];

/// Width of a text at 11 pixels.
fn width(text: &str) -> u32 {
    let of = |c: char| match c {
        ' '..='~' => u32::from(WIDTHS[c as usize - ' ' as usize]),
        _ => 818,
    };
    (text.chars().map(of).sum::<u32>() * 11).div_ceil(1000)
}

/// Two flat fields. `textLength` makes the text fit them in any font.
fn svg(label: &str, figure: &str) -> String {
    const PAD: u32 = 6;
    let (left, right) = (width(label), width(figure));
    let (split, whole) = (left + 2 * PAD, left + right + 4 * PAD);
    let title = format!("{label}: {figure}");
    html! {
        svg xmlns="http://www.w3.org/2000/svg" width=(whole) height="20" viewBox=(format!("0 0 {whole} 20")) role="img" aria-label=(title) {
            title { (title) }
            rect width=(whole) height="20" rx="3" fill="#1f5f8b" {}
            path d=(format!("M3 0h{}v20H3a3 3 0 0 1-3-3V3a3 3 0 0 1 3-3z", split - 3)) fill="#3d3d3d" {}
            g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" {
                text x=(PAD) y="14" textLength=(left) { (label) }
                text x=(split + PAD) y="14" textLength=(right) { (figure) }
            }
        }
    }
    .into_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_estimates_never_exact() {
        for (figure, plus_minus, expected) in [
            (12, 1, "12 ± 1"),
            (999, 6, "999 ± 6"),
            (1_000, 6, "1.0k ± 0.1k"),
            (12_345, 99, "12.3k ± 0.1k"),
            (12_345, 101, "12.3k ± 0.2k"),
            (99_960, 600, "100k ± 1k"),
            (123_456, 700, "123k ± 1k"),
            (999_499, 1_400, "999k ± 2k"),
            (999_500, 1_400, "1.0M ± 0.1M"),
            (7_654_321, 0, "7.7M"),
            (15, 0, "15"),
        ] {
            assert_eq!(short(figure, plus_minus), expected);
        }
    }

    #[tokio::test]
    async fn a_project_that_is_slow_to_read_keeps_no_other_waiting() {
        let known = FigureCache::new(Duration::from_millis(20));
        let of = |slug: &str, revision, hour| (slug.parse::<ProjectSlug>().unwrap(), revision, Hour(hour));
        let figures = |views| Figures { visitors: 1, plus_minus: 1, views };
        let never = std::future::pending::<Result<Figures, Problem>>;
        let slow = of("slow", 1, 9);
        let fast = of("fast", 1, 9);
        let served = async {
            assert_eq!(known.figures(&fast, async { Ok(figures(7)) }).await, Ok(figures(7)));
            // Cached within the hour. Read again in the next hour, or after its registration has changed.
            assert_eq!(known.figures(&fast, never()).await, Ok(figures(7)));
            for other in [of("fast", 2, 9), of("fast", 1, 10)] {
                assert_eq!(known.figures(&other, async { Ok(figures(8)) }).await, Ok(figures(8)));
            }
            // A request for the slow figure waits for the earlier request, up to the bound.
            known.figures(&slow, async { Ok(figures(9)) }).await
        };
        tokio::select! {
            biased;
            _ = known.figures(&slow, never()) => panic!("it never ends"),
            served = served => assert_eq!(served, Err(Problem::too_many_reports())),
        }
        // The request that was reading was dropped: the next one reads.
        assert_eq!(known.figures(&slow, async { Ok(figures(9)) }).await, Ok(figures(9)));
        // Failures are not cached.
        let failed = async { Err(Problem::storage_unavailable()) };
        assert!(known.figures(&of("away", 1, 9), failed).await.is_err());
        assert_eq!(known.figures(&of("away", 1, 9), async { Ok(figures(3)) }).await, Ok(figures(3)));
    }

    #[test]
    fn the_last_whole_month_is_the_one_before() {
        let at = |text: &str| last_whole(text.parse().unwrap()).to_string();
        assert_eq!(
            (at("2026-11-24T10:00:00Z"), at("2026-01-01T00:00:00Z")),
            ("2026-10".to_owned(), "2025-12".to_owned())
        );
    }

    #[test]
    fn a_badge_is_as_wide_as_its_text_and_says_it_aloud() {
        // 9,344 thousandths of 11 pixels.
        assert_eq!(width("visitors last month"), 103);
        let badge = svg("visitors last month", "12.3k ± 0.1k");
        assert!(badge.contains("<title>visitors last month: 12.3k ± 0.1k</title>") && badge.contains("role=\"img\""));
        let whole = width("visitors last month") + width("12.3k ± 0.1k") + 24;
        assert!(badge.contains(&format!("width=\"{whole}\" height=\"20\"")), "{badge}");
        assert!(!badge.contains("script") && !badge.contains("href"));
    }
}
