//! Views that were counted without one of their facts.
//!
//! The fold stores them in `rejection_daily` beside the refused beacons, under reasons of their own: `dropped_path` for a path that could
//! not be used, `limited_path` for one beyond a limit. Here the two kinds are told apart.

use super::DroppedFact;
use super::facts::MonthFacts;
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Why a view was counted without a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DropCause {
    /// The value that was sent could not be used.
    Unusable,
    /// One client network exceeded a limit.
    Limit,
}

impl DropCause {
    /// Both.
    pub const ALL: [DropCause; 2] = [DropCause::Unusable, DropCause::Limit];

    /// As in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            DropCause::Unusable => "unusable",
            DropCause::Limit => "limit",
        }
    }

    /// How reasons in `rejection_daily` begin.
    pub(crate) const fn prefix(self) -> &'static str {
        match self {
            DropCause::Unusable => "dropped_",
            DropCause::Limit => "limited_",
        }
    }

    /// The cause and the fact's name that a reason of `rejection_daily` names; none for the reason of a refused beacon.
    pub(crate) fn of_reason(reason: &str) -> Option<(DropCause, &str)> {
        DropCause::ALL.into_iter().find_map(|cause| Some((cause, reason.strip_prefix(cause.prefix())?)))
    }
}

/// All of them, added up over the months, most first.
pub(super) fn dropped_facts(months: &[MonthFacts]) -> Vec<DroppedFact> {
    let mut sums: BTreeMap<(String, DropCause), u64> = BTreeMap::new();
    for ((reason, _), &views) in months.iter().flat_map(|month| &month.rejections) {
        if let Some((cause, fact)) = DropCause::of_reason(reason).filter(|_| views > 0) {
            *sums.entry((fact.to_owned(), cause)).or_default() += views;
        }
    }
    let mut facts: Vec<_> = sums.into_iter().map(|((fact, cause), views)| DroppedFact { fact, cause, views }).collect();
    // Stable: equals stay in the order of their names.
    facts.sort_by_key(|dropped| std::cmp::Reverse(dropped.views));
    facts
}
