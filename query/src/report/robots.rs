//! Views by robots: by kind, with the names of each kind, and the pages that AI fetches most. None of them is a view by a person.
//!
//! Names have the threshold that values of a dimension have, kinds and pages have none. Rows of schema versions before 10 have a kind and no
//! name; their names are values of the dimension `bot`, without a kind.

use super::BreakdownItem;
use super::breakdowns::{LISTED_VALUES, added_up, folded, shortened};
use super::facts::{ReportFacts, Rules, ValueSum};
use super::make::change;
use schemas::classes::{BotClass, ClassName, Dimension};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Pages in the list of those that AI fetches most.
pub(crate) const AI_PAGES: usize = 10;

/// What ClickHouse says of robots.
#[derive(Clone, Debug, Default)]
pub struct RobotFacts {
    /// Views by month and name; [`ValueSum::name`] is the kind. An empty value that is not below the threshold is of rows without a name.
    pub sums: Vec<ValueSum>,
    /// Views of each kind in the whole month before; none for a range.
    pub before: Option<BTreeMap<String, u64>>,
    /// The pages that AI fetches most: path and views.
    pub ai_pages: Vec<(String, u64)>,
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
}

/// One kind of robots.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct RobotKind {
    /// `search`, `ai_training`, `ai_assistant`, `preview`, `monitor`, `feed`, `seo`, `archiver`, `scanner`, `automation` or `other_bot`;
    /// `ai_crawler` in days that were counted before training and assistants were kept apart.
    pub kind: String,
    /// Page views.
    pub views: u64,
    /// Views of this kind in the whole month before; null for a range of months.
    pub views_before: Option<u64>,
    /// Difference to `views_before` as a fraction of it; null where that is null or 0, or the month is running.
    pub change: Option<f64>,
    /// By name, most first; an empty value where no name was recorded. Names below the threshold are added up in the last item.
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

/// Whether robots of this kind are of AI: training, assistants, or the AI crawlers of days on which these were counted together.
pub(crate) fn is_ai(kind: &str) -> bool {
    [BotClass::AiTraining, BotClass::AiAssistant, BotClass::AiCrawler].iter().any(|class| class.class_name() == kind)
}

/// Whether rows had no name.
fn is_unnamed(sum: &ValueSum) -> bool {
    sum.beneath == 0 && sum.value.is_empty()
}

/// Names of each kind, without those that are not known.
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
    /// `running`: whether the period is a month that is not over.
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
        RobotFigures { total: kinds.iter().map(|kind| kind.views).sum(), kinds, ai_pages: pages.collect() }
    }

    /// [`super::Totals::bots`]: views by the six classes that all versions have.
    pub(super) fn by_class(&self) -> BTreeMap<&'static str, u64> {
        let mut classes: BTreeMap<_, _> = BotClass::COUNTED.into_iter().map(|class| (class.class_name(), 0)).collect();
        for RobotKind { kind, views, .. } in &self.kinds {
            // A kind that this version does not know was written by a later one.
            let class = BotClass::from_name(kind).map_or(BotClass::OtherBot, BotClass::counted_as);
            *classes.entry(class.class_name()).or_default() += views;
        }
        classes
    }
}
