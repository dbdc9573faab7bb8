//! The figures of one project's month.

use super::close_error::CloseError;
use super::month_tables::first_day;
use super::sketches::{estimate, merge};
use schemas::classes::Source;
use schemas::tables::{MonthClosedRow, SiteHourlyRow};
use schemas::{Hour, Month, VisitorSketch};
use std::collections::BTreeMap;

/// Refused beacons of a project, by reason and host.
pub(super) type Refused = BTreeMap<(String, String), u64>;

/// The hours of one project's month while they are added up.
pub(super) struct SiteMonth {
    pub(super) project: String,
    first: Hour,
    figures: MonthClosedRow,
    of_days: Vec<VisitorSketch>,
    of_sources: BTreeMap<Source, u64>,
}

impl SiteMonth {
    pub(super) fn new(project: String, month: Month) -> Self {
        let hours = (month.end_hour().0 - month.first_hour().0) as usize;
        let figures = MonthClosedRow {
            hour_views: vec![0; hours],
            hour_visits: vec![0; hours],
            day_bots: vec![0; hours / 24],
            ..MonthClosedRow::default()
        };
        let of_days = vec![VisitorSketch::new(); hours / 24];
        SiteMonth { project, first: month.first_hour(), figures, of_days, of_sources: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, row: &SiteHourlyRow, is_closed: bool) -> Result<(), CloseError> {
        let hour = (Hour::from_unix_seconds(row.hour).0 - self.first.0) as usize;
        merge(&mut self.of_days[hour / 24], &row.sketch, &row.project)?;
        let figures = &mut self.figures;
        if !is_closed {
            figures.open_views += row.views;
            return Ok(());
        }
        figures.hour_views[hour] += row.views;
        *self.of_sources.entry(row.source).or_default() += row.views;
        figures.hour_visits[hour] += row.visits;
        Ok(())
    }

    pub(super) fn row(
        mut self,
        (month, run): (Month, u64),
        rejected: Refused,
        robots: &[(u16, u64)],
    ) -> MonthClosedRow {
        for &(day, views) in robots {
            self.figures.day_bots[usize::from(day - first_day(month))] = views;
        }
        let mut of_month = VisitorSketch::new();
        self.of_days.iter().for_each(|day| of_month.merge(day));
        (self.figures.visitors, self.figures.visitors_error) = estimate(&of_month);
        (self.figures.day_visitors, self.figures.day_errors) = self.of_days.iter().map(estimate).unzip();
        for (source, views) in self.of_sources.into_iter().filter(|(_, views)| *views > 0) {
            self.figures.source_names.push(source.name().to_owned());
            self.figures.source_views.push(views);
        }
        for ((reason, host), beacons) in rejected {
            self.figures.rejected_reasons.push(reason);
            self.figures.rejected_hosts.push(host);
            self.figures.rejected_beacons.push(beacons);
        }
        MonthClosedRow { project: self.project, month: first_day(month), run, ..self.figures }
    }
}
