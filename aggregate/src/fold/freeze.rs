//! Accumulators → rows.

use super::{FOLD_VERSION, ProjectDayKey, Rows, WindowState};
use schemas::Hour;
use schemas::tables::{BreakdownDailyRow, LedgerRow, NotFoundDailyRow, PageDailyRow, RejectionDailyRow, SiteHourlyRow};

impl WindowState {
    /// The rows of everything that has changed since the last freeze, each an absolute fact as of [`Self::next_offset`].
    pub fn freeze(&mut self) -> Rows {
        let (stream, window_start, next_offset) = (self.stream.0, self.start.offset, self.next_offset);
        let (texts, project_days) = (&self.texts, &self.project_days);
        let project_of = |position: u32| {
            let ProjectDayKey { project, day } = project_days.key(position);
            (texts.to_string(*project), day.0)
        };
        let mut rows = Rows {
            site: Vec::with_capacity(self.sites.dirty()),
            page: Vec::with_capacity(self.pages.dirty()),
            breakdown: Vec::with_capacity(self.dirty_counts),
            robot: Vec::with_capacity(self.robots.dirty()),
            robot_page: Vec::with_capacity(self.robot_pages.dirty()),
            not_found: Vec::with_capacity(self.not_found.dirty()),
            rejection: Vec::with_capacity(self.rejections.dirty()),
            ..Rows::default()
        };
        self.sites.freeze(|key, cell| {
            rows.site.push(SiteHourlyRow {
                project: project_of(key.project_day).0,
                hour: key.hour.unix_seconds(),
                views: cell.views,
                visits: cell.visits,
                sketch: cell.sketch.encode(),
                stream,
                window_start,
                next_offset,
                source: key.source,
            });
        });
        self.pages.freeze(|key, cell| {
            let (project, day) = project_of(key.project_day);
            rows.page.push(PageDailyRow {
                project,
                day,
                path: texts.to_string(key.path),
                status: key.status,
                views: cell.views,
                sketch: cell.sketch.encode(),
                stream,
                window_start,
                next_offset,
                source: key.source,
            });
        });
        self.not_found.freeze(|page, named| {
            let (project, day) = project_of(page.project_day);
            named.freeze(|referrer, views| {
                rows.not_found.push(NotFoundDailyRow {
                    project: project.clone(),
                    day,
                    path: texts.to_string(page.path),
                    referrer: texts.to_string(referrer.text),
                    views,
                    stream,
                    window_start,
                    next_offset,
                    source: referrer.source,
                });
            });
        });
        self.project_days.freeze(|key, cell| {
            for count in cell.counts.iter_mut().filter(|count| count.dirty) {
                count.dirty = false;
                rows.breakdown.push(BreakdownDailyRow {
                    project: texts.to_string(key.project),
                    day: key.day.0,
                    dimension: count.dimension.name().to_owned(),
                    value: texts.to_string(count.value),
                    views: count.views,
                    stream,
                    window_start,
                    next_offset,
                    source: count.source,
                });
            }
        });
        self.dirty_counts = 0;
        self.rejections.freeze(|key, named| {
            named.freeze(|host, beacons| {
                rows.rejection.push(RejectionDailyRow {
                    project: texts.to_string(key.project),
                    day: key.day.0,
                    reason: key.reason.name(),
                    host: texts.to_string(host.text),
                    beacons,
                    stream,
                    window_start,
                    next_offset,
                });
            });
        });
        self.dirty_capped = 0;
        self.freeze_robots(&mut rows);
        self.freeze_noted(&mut rows);
        rows.ledger = self.is_dirty().then(|| LedgerRow {
            stream,
            window_start,
            next_offset,
            appended: Hour(self.start.appended_hour).unix_seconds(),
            seen: self.outcomes.seen,
            accepted: self.outcomes.accepted,
            duplicate: self.outcomes.duplicate,
            tallies: self.outcomes.tallies,
            rejected_beacons: self.outcomes.rejected_beacons,
            undecodable: self.outcomes.undecodable,
            lost: self.outcomes.lost,
            fold_version: FOLD_VERSION,
        });
        self.frozen_at = next_offset;
        rows
    }
}
