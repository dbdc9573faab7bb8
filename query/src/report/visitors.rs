//! Estimates of visitors, and their sums.

use crate::small_cells::Floor;
use schemas::VisitorSketch;
use serde::Serialize;
use utoipa::ToSchema;

/// What a visitor figure counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VisitorUnit {
    /// Distinct readers in the period: keys live for the month.
    #[default]
    Visitors,
    /// Readers counted again every day: keys live for the day.
    VisitorDays,
    /// Readers counted again every month: the sum over a range of months, whose keys are independent of one another.
    VisitorMonths,
}

impl VisitorUnit {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            VisitorUnit::Visitors => "visitors",
            VisitorUnit::VisitorDays => "visitor-days",
            VisitorUnit::VisitorMonths => "visitor-months",
        }
    }

    /// The unit of a sum over several months.
    #[must_use]
    pub const fn of_range(self) -> Self {
        match self {
            VisitorUnit::VisitorDays => VisitorUnit::VisitorDays,
            VisitorUnit::Visitors | VisitorUnit::VisitorMonths => VisitorUnit::VisitorMonths,
        }
    }
}

/// An estimate of visitors.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub struct Visitors {
    /// Visitors, rounded to a whole number.
    pub estimate: u64,
    /// One standard deviation as a fraction of the estimate, rounded to 4 decimals.
    pub error: f64,
    /// The unit of the estimate.
    pub unit: VisitorUnit,
}

/// Rounded to 4 decimals.
pub(crate) fn rounded(fraction: f64) -> f64 {
    (fraction * 1e4).round() / 1e4
}

impl Visitors {
    /// The estimate of a sketch.
    pub fn of(sketch: &VisitorSketch, unit: VisitorUnit) -> Self {
        let estimate = sketch.estimate();
        Visitors { estimate: estimate.value.round() as u64, error: rounded(estimate.error), unit }
    }

    /// The sum of figures with independent errors, such as those of different months: their variances add up.
    pub fn sum(figures: impl IntoIterator<Item = Visitors>, unit: VisitorUnit) -> Self {
        let (mut estimate, mut variance) = (0u64, 0.0);
        for figure in figures {
            estimate += figure.estimate;
            variance += (figure.estimate as f64 * figure.error).powi(2);
        }
        let error = if estimate == 0 { 0.0 } else { rounded(variance.sqrt() / estimate as f64) };
        Visitors { estimate, error, unit }
    }

    /// One standard deviation in visitors, rounded up, so that an estimate above 0 is never shown as exact.
    pub fn plus_minus(self) -> u64 {
        (self.estimate as f64 * self.error).ceil() as u64
    }
}

/// Visitors of a page.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum PageVisitors {
    /// Not below the threshold.
    Shown(Visitors),
    /// Withheld: below the threshold.
    Few {
        /// There are fewer than this.
        fewer_than: u64,
        /// The unit of the figure.
        unit: VisitorUnit,
    },
}

impl PageVisitors {
    /// The figure of one month.
    pub(crate) fn of(visitors: Visitors, floor: Floor) -> Self {
        if floor.withholds(visitors.estimate) {
            PageVisitors::Few { fewer_than: floor.get(), unit: visitors.unit }
        } else {
            PageVisitors::Shown(visitors)
        }
    }

    /// The figure of several months, to each of which the threshold was applied: the sum of those that are shown.
    pub(crate) fn sum(months: &[PageVisitors], unit: VisitorUnit, floor: Floor) -> Self {
        let shown = || months.iter().filter_map(|month| month.shown());
        match shown().next() {
            Some(_) => PageVisitors::Shown(Visitors::sum(shown(), unit)),
            None => PageVisitors::Few { fewer_than: floor.get(), unit },
        }
    }

    /// The figure, if it is shown.
    pub fn shown(self) -> Option<Visitors> {
        match self {
            PageVisitors::Shown(visitors) => Some(visitors),
            PageVisitors::Few { .. } => None,
        }
    }
}
