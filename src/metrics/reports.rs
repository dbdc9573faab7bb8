//! Metrics of reports: durations and statuses by format.

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::time::Instant;

/// Upper bounds of the latency's buckets, in seconds: from a cached report to the longest query (`timeout_ms`).
const BUCKETS_SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Formats of a report: the page, JSON, and CSV.
const FORMS: [&str; 3] = ["page", "json", "csv"];

type OneLabel<V> = [(&'static str, V); 1];

/// Counters of reports since the start. A clone shares them.
#[derive(Clone, Debug)]
pub struct ReportMetrics {
    seconds: Family<OneLabel<&'static str>, Histogram, fn() -> Histogram>,
    answers: Family<OneLabel<u16>, Counter>,
}

impl Default for ReportMetrics {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS_SECONDS);
        let metrics = ReportMetrics { seconds: Family::new_with_constructor(histogram), answers: Family::default() };
        for form in FORMS {
            drop(metrics.seconds.get_or_create(&[("form", form)]));
        }
        for status in [200, 503] {
            drop(metrics.answers.get_or_create(&[("status", status)]));
        }
        metrics
    }
}

impl ReportMetrics {
    /// `router` with its report requests measured. For a streamed report the duration ends with its head.
    pub fn layer(&self, router: Router) -> Router {
        router.layer(middleware::from_fn_with_state(self.clone(), measured))
    }

    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "report_seconds",
            "From a request for a report to the head of its answer, by form, in seconds",
            self.seconds.clone(),
        );
        registry.register("report_answers", "Answers to requests for reports, by HTTP status", self.answers.clone());
    }
}

async fn measured(
    State(metrics): State<ReportMetrics>,
    matched: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let Some(form) = matched.as_ref().and_then(|matched| form_of(matched.as_str())) else {
        return next.run(request).await;
    };
    let started = Instant::now();
    let response = next.run(request).await;
    metrics.seconds.get_or_create(&[("form", form)]).observe(started.elapsed().as_secs_f64());
    metrics.answers.get_or_create(&[("status", response.status().as_u16())]).inc();
    response
}

/// The format of the report at a route, or none if the route is not a report.
fn form_of(route: &str) -> Option<&'static str> {
    match () {
        () if route.starts_with("/v1/projects/{project}/reports/") => {
            Some(if route.ends_with(".csv") { "csv" } else { "json" })
        }
        () if route == "/projects/{project}/{span}" => Some("page"),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_have_a_form_and_other_routes_have_none() {
        assert_eq!(form_of("/v1/projects/{project}/reports/{span}/pages.csv"), Some("csv"));
        assert_eq!(form_of("/v1/projects/{project}/reports/{span}"), Some("json"));
        assert_eq!(form_of("/projects/{project}/{span}"), Some("page"));
        assert_eq!(form_of("/projects/{project}"), None);
        assert_eq!(form_of("/assets/report.css"), None);
    }
}
