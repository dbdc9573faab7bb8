//! Views that were counted without one of their facts.
//!
//! The fold stores them in `rejection_daily` with the refused beacons, under separate reasons: `dropped_path` for a path that could not be
//! used, `limited_path` for a path beyond a limit. This module separates the two kinds.

use super::DroppedFact;
use super::facts::MonthFacts;
use schemas::rejection::{DROPPED, LIMITED};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Why a view was counted without a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DropCause {
    /// The value could not be used.
    Unusable,
    /// One client network exceeded a limit.
    Limit,
}

impl DropCause {
    /// Both.
    pub const ALL: [DropCause; 2] = [DropCause::Unusable, DropCause::Limit];

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            DropCause::Unusable => "unusable",
            DropCause::Limit => "limit",
        }
    }

    /// Prefix of the reasons in `rejection_daily`.
    pub(crate) const fn prefix(self) -> &'static str {
        match self {
            DropCause::Unusable => DROPPED,
            DropCause::Limit => LIMITED,
        }
    }

    /// The cause and the fact's name in a reason of `rejection_daily`; none for the reason of a refused beacon.
    pub(crate) fn of_reason(reason: &str) -> Option<(DropCause, &str)> {
        DropCause::ALL.into_iter().find_map(|cause| Some((cause, reason.strip_prefix(cause.prefix())?)))
    }
}

/// All dropped facts, added up over the months, most first.
pub(super) fn dropped_facts(months: &[MonthFacts]) -> Vec<DroppedFact> {
    let mut sums: BTreeMap<(String, DropCause), u64> = BTreeMap::new();
    for ((reason, _), &views) in months.iter().flat_map(|month| &month.rejections) {
        if let Some((cause, fact)) = DropCause::of_reason(reason).filter(|_| views > 0) {
            *sums.entry((fact.to_owned(), cause)).or_default() += views;
        }
    }
    let mut facts: Vec<_> = sums.into_iter().map(|((fact, cause), views)| DroppedFact { fact, cause, views }).collect();
    // A stable sort: equals stay in the order of their names.
    facts.sort_by_key(|dropped| std::cmp::Reverse(dropped.views));
    facts
}
