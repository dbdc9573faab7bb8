//! Figures in the text format of Prometheus (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use aggregate::progress::Progress;
use ingest::Ingest;
use ingest::sink::Sink;
use std::fmt::{Display, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A page of figures.
#[derive(Default)]
pub struct Figures {
    text: String,
}

impl Figures {
    /// One figure with its kind (`counter` or `gauge`) and its values by label.
    pub fn family<V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        values: impl IntoIterator<Item = (String, V)>,
    ) -> &mut Self {
        let _ = writeln!(self.text, "# HELP headcount_{name} {help}\n# TYPE headcount_{name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(self.text, "headcount_{name}{labels} {value}");
        }
        self
    }

    /// One figure without labels.
    pub fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) -> &mut Self {
        self.family(name, kind, help, [(String::new(), value)])
    }

    /// What every endpoint has.
    pub fn endpoint<S: Sink>(&mut self, ingest: &Ingest<S>) -> &mut Self {
        self.one("refused_beacons_total", "counter", "Beacons refused, for any reason.", ingest.refused_beacons())
            .one(
                "untrusted_forwarded_beacons_total",
                "counter",
                "Beacons with X-Forwarded-For from a peer that is not in trusted_proxy.",
                ingest.untrusted_forwarded_beacons(),
            )
            .one(
                "nodes_with_another_key",
                "gauge",
                "Endpoints that have another visitor key: visitors who meet both count twice.",
                ingest.foreign_keys(),
            )
            .one("projects", "gauge", "Active registered projects.", ingest.projects.len())
    }

    /// What the cache of reports has done.
    pub fn reports(&mut self, cache: &query::ReportCache) -> &mut Self {
        let found = cache.figures();
        let answers = [
            ("hit", found.hits),
            ("miss", found.misses),
            ("stale", found.stale - found.stale_if_error),
            ("stale_if_error", found.stale_if_error),
        ];
        let answers = answers.map(|(state, count)| (format!("{{state=\"{state}\"}}"), count));
        self.family("report_answers_total", "counter", "Reports served, by where they come from.", answers)
            .one("report_refreshes_total", "counter", "Refreshes of cached reports in the background.", found.refreshes)
            .one("report_computations_total", "counter", "Reports computed, failed ones included.", found.computations)
            .one(
                "report_computing_seconds_total",
                "counter",
                "Time of these computations, their wait for a turn included.",
                found.computing_us as f64 / 1e6,
            )
            .one("report_cache_bytes", "gauge", "Bytes of cached reports.", found.bytes)
    }

    /// What the loop of each partition has, with the labels of that partition.
    pub fn partitions(&mut self, partitions: &[(String, Arc<Progress>)]) -> &mut Self {
        let of = |figure: fn(&Progress) -> u64| -> Vec<(String, u64)> {
            partitions.iter().map(|(labels, progress)| (labels.clone(), figure(progress))).collect()
        };
        type Figure = fn(&Progress) -> u64;
        let families: [(&str, &str, &str, Figure); 9] = [
            ("folded_offset", "gauge", "Offset after the last record folded.", |p| p.folded.load(Ordering::Relaxed)),
            ("committed_offset", "gauge", "Offset below which all is in ClickHouse.", |p| {
                p.committed.load(Ordering::Relaxed)
            }),
            ("window_start", "gauge", "First offset of the open window.", |p| p.window.load(Ordering::Relaxed)),
            ("window_bytes", "gauge", "Bytes of records in the open window.", |p| {
                p.window_bytes.load(Ordering::Relaxed)
            }),
            ("window_cells", "gauge", "Accumulators of the open window.", |p| p.cells.load(Ordering::Relaxed)),
            ("window_undecodable", "gauge", "Records of the open window that do not decode.", |p| {
                p.undecodable.load(Ordering::Relaxed)
            }),
            ("rows_total", "counter", "Rows written.", |p| p.rows.load(Ordering::Relaxed)),
            ("failed_commits_total", "counter", "Commits that the log did not take.", |p| {
                p.failed_commits.load(Ordering::Relaxed)
            }),
            ("store_failing", "gauge", "1 while ClickHouse does not take rows.", |p| {
                u64::from(p.store_fails.load(Ordering::Relaxed))
            }),
        ];
        for (name, kind, help, figure) in families {
            self.family(name, kind, help, of(figure));
        }
        self
    }

    /// The page.
    pub fn text(&self) -> String {
        self.text.clone()
    }
}

/// The content type of such a page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
