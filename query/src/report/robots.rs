//! Views by robots: by kind, with the names of each kind, and the pages that AI fetches most. None of them is a view by a person.
//!
//! Names have the same threshold as values of a dimension; kinds and pages have none. Rows of schema versions before 10 have a kind and no
//! name; their names are values of the dimension `bot`, without a kind.

use super::BreakdownItem;
use super::breakdowns::{LISTED_VALUES, added_up, folded, shortened};
use super::facts::{ReportFacts, Rules, ValueSum};
use super::make::change;
use chrono::NaiveDate;
use schemas::Day;
use schemas::classes::{BotClass, ClassName, Dimension};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Most pages in the list of those that AI fetches most.
pub(crate) const AI_PAGES: usize = 10;

/// Facts about robots from ClickHouse.
#[derive(Clone, Debug, Default)]
pub struct RobotFacts {
    /// Views by month and name; [`ValueSum::name`] is the kind. An empty value that is not below the threshold stands for rows without a
    /// name.
    pub sums: Vec<ValueSum>,
    /// Views of each kind in the whole month before; none for a range.
    pub before: Option<BTreeMap<String, u64>>,
    /// The pages that AI fetches most: path and views.
    pub ai_pages: Vec<(String, u64)>,
    /// For each version of the rules for robots, the first day on which it classified a view, in days since the epoch.
    pub rules: Vec<(u32, u16)>,
}

/// Views by robots.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct RobotFigures {
    /// All of them; not part of the views of people.
    pub total: u64,
    /// By kind, most first.
    pub kinds: Vec<RobotKind>,
    /// The 10 pages that AI crawlers and AI assistants fetch most.
    pub ai_pages: Vec<AiPage>,
    /// Changes of the rules by which robots are found, oldest version first. Views keep the kind and name that they were counted with.
    pub rules_changes: Vec<RulesChange>,
}

/// A new version of the rules by which robots are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct RulesChange {
    /// The first day with a view that the new version classified, UTC.
    pub day: NaiveDate,
    /// The version before; 0 for records that name none.
    pub from: u32,
    /// The new version.
    pub to: u32,
}

/// One kind of robots.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct RobotKind {
    /// `search`, `ai_training`, `ai_assistant`, `preview`, `monitor`, `feed`, `seo`, `archiver`, `scanner`, `automation` or `other_bot`;
    /// `ai_crawler` on days before training and assistants were counted separately.
    pub kind: String,
    /// Page views.
    pub views: u64,
    /// Views of this kind in the whole month before; null for a range of months.
    pub views_before: Option<u64>,
    /// Difference to `views_before` as a fraction of it; null if that is null or 0, or the month is running.
    pub change: Option<f64>,
    /// By name, most first; an empty value if no name was recorded. The last item adds up names below the threshold.
    pub names: Vec<BreakdownItem>,
}

/// A page that AI fetches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AiPage {
    /// Cleaned path.
    pub path: String,
    /// Views by AI crawlers and AI assistants, of every HTTP status.
    pub views: u64,
}

/// Whether robots of this kind belong to AI: training, assistants, or the AI crawlers of days that counted both together.
pub(crate) fn is_ai(kind: &str) -> bool {
    [BotClass::AiTraining, BotClass::AiAssistant, BotClass::AiCrawler].iter().any(|class| class.class_name() == kind)
}

/// The changes between the versions that classified views.
fn rules_changes(first_days: &[(u32, u16)]) -> Vec<RulesChange> {
    let mut versions = first_days.to_vec();
    versions.sort_unstable();
    let change = |pair: &[(u32, u16)]| match *pair {
        [(from, _), (to, day)] => Some(RulesChange { day: Day(day).date(), from, to }),
        _ => None,
    };
    versions.windows(2).filter_map(change).collect()
}

/// Whether the row stands for rows without a name.
fn is_unnamed(sum: &ValueSum) -> bool {
    sum.beneath == 0 && sum.value.is_empty()
}

/// Names of each kind, except unknown ones.
fn names(sums: &[ValueSum], rules: Rules) -> BTreeMap<&str, Vec<BreakdownItem>> {
    folded(sums.iter().filter(|sum| !is_unnamed(sum)), rules.floor)
}

/// The names of all robots: values of the dimension `bot`.
pub(super) fn all_names(facts: &ReportFacts, rules: Rules) -> Vec<BreakdownItem> {
    let of_kinds = names(&facts.robots.sums, rules).into_values();
    let is_bot = |sum: &&ValueSum| sum.name == Dimension::Bot.name();
    let without_kind = folded(facts.values.iter().filter(is_bot), rules.floor).into_values();
    added_up(of_kinds.chain(without_kind))
}

impl RobotFigures {
    /// `running`: whether the period is a month that has not ended.
    pub(super) fn of(facts: &RobotFacts, running: bool, rules: Rules) -> Self {
        let mut views: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for sum in &facts.sums {
            let (all, unnamed) = views.entry(&sum.name).or_default();
            *all += sum.total;
            *unnamed += if is_unnamed(sum) { sum.total } else { 0 };
        }
        let mut names = names(&facts.sums, rules);
        let kind = |(kind, (views, unnamed)): (&str, (u64, u64))| {
            let mut names = shortened(names.remove(kind).unwrap_or_default(), LISTED_VALUES);
            if unnamed > 0 {
                names.push(BreakdownItem { value: String::new(), views: unnamed, rest: false });
                names = added_up([names].into_iter());
            }
            let views_before = facts.before.as_ref().map(|before| before.get(kind).copied().unwrap_or(0));
            let change = views_before.filter(|_| !running).and_then(|before| change(views, before));
            RobotKind { kind: kind.to_owned(), views, views_before, change, names }
        };
        let mut kinds: Vec<RobotKind> = views.into_iter().map(kind).collect();
        kinds.sort_by(|a, b| b.views.cmp(&a.views).then_with(|| a.kind.cmp(&b.kind)));
        let pages = facts.ai_pages.iter().map(|(path, views)| AiPage { path: path.clone(), views: *views });
        RobotFigures {
            total: kinds.iter().map(|kind| kind.views).sum(),
            kinds,
            ai_pages: pages.collect(),
            rules_changes: rules_changes(&facts.rules),
        }
    }

    /// [`super::Totals::bots`]: views by the six classes that all versions have.
    pub(super) fn by_class(&self) -> BTreeMap<&'static str, u64> {
        let mut classes: BTreeMap<_, _> = BotClass::COUNTED.into_iter().map(|class| (class.class_name(), 0)).collect();
        for RobotKind { kind, views, .. } in &self.kinds {
            // A later version may have stored a kind that this version does not know.
            let class = BotClass::from_name(kind).map_or(BotClass::OtherBot, BotClass::counted_as);
            *classes.entry(class.class_name()).or_default() += views;
        }
        classes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_the_rules_has_its_day_and_both_versions() {
        let day = |text: &str| text.parse::<NaiveDate>().unwrap();
        assert_eq!(rules_changes(&[]), []);
        assert_eq!(rules_changes(&[(3, 20_000)]), []);
        // An endpoint of the old version still counts on the day after the change, and a late view is of the day before it.
        let changes = rules_changes(&[(4, 20_010), (0, 19_990), (3, 20_001)]);
        let expected = [
            RulesChange { day: day("2024-10-05"), from: 0, to: 3 },
            RulesChange { day: day("2024-10-14"), from: 3, to: 4 },
        ];
        assert_eq!(changes, expected);
    }

    /// Rows of both versions of the rules: each keeps its name, and no name comes twice.
    #[test]
    fn a_month_with_old_and_new_rules_has_no_row_under_two_names() {
        let floor = crate::small_cells::Floor::new(3).expect("a threshold");
        let sum = |kind: &str, name: &str, total: u64| ValueSum {
            month: 20_000,
            name: kind.to_owned(),
            value: name.to_owned(),
            total,
            beneath: 0,
            largest: total,
        };
        let sums = vec![
            sum("ai_training", "GPTBot", 40),
            sum("ai_training", "Old name", 30),
            sum("ai_assistant", "New name", 20),
            sum("ai_crawler", "", 50),
        ];
        let facts = RobotFacts { sums, rules: vec![(1, 20_000), (2, 20_010)], ..RobotFacts::default() };
        let figures = RobotFigures::of(&facts, false, Rules { floor, unit: crate::report::VisitorUnit::Visitors });
        let names: Vec<_> = figures
            .kinds
            .iter()
            .flat_map(|kind| kind.names.iter().map(|item| (item.value.as_str(), item.views)))
            .collect();
        assert_eq!(names, [("GPTBot", 40), ("Old name", 30), ("", 50), ("New name", 20)]);
        assert_eq!((figures.total, figures.rules_changes.len()), (140, 1));
    }
}
