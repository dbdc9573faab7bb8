//! Accumulators → rows.

use super::{Count, FOLD_VERSION, Rows, WindowState};
use schemas::Hour;
use schemas::tables::{
    BreakdownWindowRow, LedgerRow, NotFoundDailyRow, PageDailyRow, RejectionDailyRow, SiteHourlyRow,
};

impl WindowState {
    /// The rows of everything that has changed since the last freeze, each an absolute fact as of [`Self::next_offset`].
    pub fn freeze(&mut self) -> Rows {
        let mut rows = Rows {
            site: Vec::with_capacity(self.sites.dirty()),
            page: Vec::with_capacity(self.pages.dirty()),
            breakdown: Vec::with_capacity(self.dirty_breakdowns),
            robot: Vec::with_capacity(self.robots.dirty()),
            robot_page: Vec::with_capacity(self.robot_pages.dirty()),
            not_found: Vec::with_capacity(self.not_found.dirty()),
            rejection: Vec::with_capacity(self.rejections.dirty()),
            ..Rows::default()
        };
        self.freeze_sites(&mut rows);
        self.freeze_pages(&mut rows);
        self.freeze_breakdowns(&mut rows);
        self.freeze_capped(&mut rows);
        self.freeze_robots(&mut rows);
        self.freeze_noted(&mut rows);
        rows.ledger = self.is_dirty().then(|| self.ledger_row());
        self.frozen_at = self.next_offset;
        rows
    }

    fn freeze_sites(&mut self, rows: &mut Rows) {
        let (texts, project_days) = (&self.texts, &self.project_days);
        self.sites.freeze(|key, cell| {
            rows.site.push(SiteHourlyRow {
                project: texts.to_string(project_days.key(key.project_day).project),
                hour: key.hour.unix_seconds(),
                views: cell.views,
                visits: cell.visits,
                sketch: cell.sketch.encode(),
                stream: self.stream.0,
                window_start: self.start.offset,
                next_offset: self.next_offset,
                source: key.source,
            });
        });
    }

    fn freeze_pages(&mut self, rows: &mut Rows) {
        let (texts, project_days) = (&self.texts, &self.project_days);
        self.pages.freeze(|key, cell| {
            let of = project_days.key(key.project_day);
            rows.page.push(PageDailyRow {
                project: texts.to_string(of.project),
                day: of.day.0,
                path: texts.to_string(key.path),
                status: key.status,
                views: cell.views,
                sketch: cell.sketch.encode(),
                stream: self.stream.0,
                window_start: self.start.offset,
                next_offset: self.next_offset,
                source: key.source,
            });
        });
    }

    /// A row has all values of its project, day and source, also those that have not changed.
    fn freeze_breakdowns(&mut self, rows: &mut Rows) {
        let texts = &self.texts;
        self.project_days.freeze(|key, of_day| {
            // A referrer that was seen at missing pages only has a count of 0 here.
            let is_of_row = |count: &&Count| of_day.dirty[count.source as usize] && count.views > 0;
            let mut counts: Vec<&Count> = of_day.counts.iter().filter(is_of_row).collect();
            // By name: the order of arrival would reveal which values came with the same view. Similar values side by side need fewer bytes, too.
            counts.sort_unstable_by_key(|count| (count.source, count.dimension, texts.get(count.value)));
            for of_source in counts.chunk_by(|one, other| one.source == other.source) {
                rows.breakdown.push(BreakdownWindowRow {
                    project: texts.to_string(key.project),
                    day: key.day.0,
                    dimensions: of_source.iter().map(|count| count.dimension).collect(),
                    values: of_source.iter().map(|count| texts.to_string(count.value)).collect(),
                    views: of_source.iter().map(|count| count.views).collect(),
                    stream: self.stream.0,
                    window_start: self.start.offset,
                    next_offset: self.next_offset,
                    source: of_source[0].source,
                });
            }
            of_day.dirty = Default::default();
        });
        self.dirty_breakdowns = 0;
    }

    /// Referrers of missing pages, and hosts of refused beacons.
    fn freeze_capped(&mut self, rows: &mut Rows) {
        let (texts, project_days) = (&self.texts, &self.project_days);
        self.not_found.freeze(|page, named| {
            let of = project_days.key(page.project_day);
            named.freeze(|referrer, views| {
                rows.not_found.push(NotFoundDailyRow {
                    project: texts.to_string(of.project),
                    day: of.day.0,
                    path: texts.to_string(page.path),
                    referrer: texts.to_string(referrer.text),
                    views,
                    stream: self.stream.0,
                    window_start: self.start.offset,
                    next_offset: self.next_offset,
                    source: referrer.source,
                });
            });
        });
        self.rejections.freeze(|key, named| {
            named.freeze(|host, beacons| {
                rows.rejection.push(RejectionDailyRow {
                    project: texts.to_string(key.project),
                    day: key.day.0,
                    reason: key.reason.name(),
                    host: texts.to_string(host.text),
                    beacons,
                    stream: self.stream.0,
                    window_start: self.start.offset,
                    next_offset: self.next_offset,
                });
            });
        });
        self.dirty_capped = 0;
    }

    fn ledger_row(&self) -> LedgerRow {
        LedgerRow {
            stream: self.stream.0,
            window_start: self.start.offset,
            next_offset: self.next_offset,
            appended: Hour(self.start.appended_hour).unix_seconds(),
            seen: self.outcomes.seen,
            accepted: self.outcomes.accepted,
            duplicate: self.outcomes.duplicate,
            tallies: self.outcomes.tallies,
            rejected_beacons: self.outcomes.rejected_beacons,
            undecodable: self.outcomes.undecodable,
            lost: self.outcomes.lost,
            fold_version: FOLD_VERSION,
        }
    }
}
