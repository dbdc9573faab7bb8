//! Parts of queries, as SQL.

use schemas::close::Frontier;

/// The values in the rows of `breakdown_window`, for `FROM`. A row of the query is one value: `dimension`, `value` and `views` take the place of the
/// arrays, and the other columns are those of the table.
pub const BREAKDOWNS: &str =
    "breakdown_window FINAL ARRAY JOIN dimensions AS dimension, values AS value, views AS views";

/// Rows whose window is in the figures of a closed month: [`Frontier::contains`] as a condition on the columns `stream` and `window_start`.
/// It contains numbers only.
#[must_use]
pub fn contained(frontier: &Frontier) -> String {
    if frontier.0.is_empty() {
        return "0".to_owned();
    }
    let list =
        |numbers: Vec<&u64>| numbers.iter().map(|number| format!("toUInt64({number})")).collect::<Vec<_>>().join(",");
    let (streams, windows) = (list(frontier.0.keys().collect()), list(frontier.0.values().collect()));
    format!("(window_start < transform(stream, [{streams}], [{windows}], toUInt64(0)))")
}
