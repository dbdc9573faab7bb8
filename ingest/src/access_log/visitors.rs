//! Visitors of past months: under keys that are drawn for one import, live in memory only, and are wiped at its end.

use crate::client::{ClientAddress, UserAgent};
use crate::keys::{PeriodKey, VisitorPeriod};
use crate::visitor::{VisitorCoordinates, coordinates};
use schemas::{Hour, Month, ProjectSlug};
use std::cell::RefCell;

/// Whether a project's month gets visitors.
type HasVisitors<'p> = Box<dyn Fn(&ProjectSlug, Month) -> bool + 'p>;

/// Makes the coordinates of an import's views.
pub struct PastVisitors<'p> {
    period: VisitorPeriod,
    has_visitors: HasVisitors<'p>,
    keys: RefCell<Keys>,
}

#[derive(Default)]
struct Keys {
    keys: Vec<PeriodKey>,
    /// Index of the key that was used last: most lines follow one another in time.
    last: usize,
}

impl<'p> PastVisitors<'p> {
    /// Visitors of the months for which `has_visitors` returns true.
    pub fn new(period: VisitorPeriod, has_visitors: impl Fn(&ProjectSlug, Month) -> bool + 'p) -> Self {
        PastVisitors { period, has_visitors: Box::new(has_visitors), keys: RefCell::default() }
    }

    /// The coordinates of a view; none if its month gets no visitors. Without an agent they are those of the client network alone.
    pub(super) fn coordinates(
        &self,
        (project, path): (&ProjectSlug, &str),
        hour: Hour,
        client: &ClientAddress,
        agent: Option<UserAgent<'_>>,
    ) -> Option<VisitorCoordinates> {
        if !(self.has_visitors)(project, hour.month()) {
            return None;
        }
        let mut keys = self.keys.borrow_mut();
        let is_of = |key: &PeriodKey| (key.begins()..key.ends()).contains(&hour);
        if !keys.keys.get(keys.last).is_some_and(is_of) {
            keys.last = keys.keys.iter().position(is_of).unwrap_or_else(|| {
                keys.keys.push(PeriodKey::random(self.period, hour));
                keys.keys.len() - 1
            });
        }
        Some(coordinates(&keys.keys[keys.last], project.as_str(), path, client, agent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_period_and_each_import_has_its_own_key() {
        let client = |last: u8| ClientAddress::new(std::net::IpAddr::from([192, 0, 2, last]));
        let docs: ProjectSlug = "docs".parse().unwrap();
        let (june, july) = (Month::new(2026, 6).unwrap(), Month::new(2026, 7).unwrap());
        let visitors = PastVisitors::new(VisitorPeriod::Month, |_, month| month != july);
        let again = PastVisitors::new(VisitorPeriod::Month, |_, _| true);
        let of = |visitors: &PastVisitors<'_>, hour, last| {
            visitors.coordinates((&docs, "/"), hour, &client(last), Some(UserAgent::of_log(b"Firefox")))
        };
        let first = june.first_hour();
        assert_eq!(of(&visitors, july.first_hour(), 1), None);
        let all = |visitors: &PastVisitors<'_>, hour: Hour| -> Vec<_> {
            (0..50).map(|last| of(visitors, hour, last).unwrap().site.packed()).collect()
        };
        let of_june = all(&visitors, first);
        assert_eq!(of_june, all(&visitors, Hour(june.end_hour().0 - 1)), "one visitor for the whole month");
        assert_ne!(of_june, all(&visitors, Hour(first.0 - 1)), "another one in the month before");
        assert_eq!(of_june, all(&visitors, first), "the key of a month stays");
        assert_ne!(of_june, all(&again, first), "the keys of two imports are unrelated");
    }
}
