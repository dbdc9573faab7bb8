//! Charts as inline SVG. Sizes are presentation attributes and colours come from classes, because the policy forbids inline styles. Charts
//! stretch to their box, so their labels are HTML, or a separate SVG beside them. Bars of one kind are one path, which keeps pages small.

use maud::{Markup, html};
use std::fmt::Write as _;

/// One column of a chart.
pub(super) struct Column {
    /// The tall bar.
    pub(super) value: u64,
    /// The bar in front of it.
    pub(super) inner: u64,
    /// Shown below the column if there is room.
    pub(super) label: Option<String>,
    /// The column's background is tinted.
    pub(super) weekend: bool,
}

/// Width of a column in the drawing's own units, its gap included.
const PITCH: usize = 20;
const GAP: usize = 4;
const HEIGHT: f64 = 100.0;

/// Side of a cell of a heat map, its gap included.
const CELL: usize = 10;

/// Steps of colour in a heat map, besides the colour for zero.
const LEVELS: u64 = 7;

/// The smallest round number that no value exceeds; below ten every number is round.
pub(super) fn scale(columns: &[Column]) -> u64 {
    let largest = columns.iter().map(|column| column.value.max(column.inner)).max().unwrap_or(0);
    let mut tenth = 1u64;
    loop {
        for step in [10, 15, 20, 25, 30, 40, 50, 60, 80] {
            match tenth.checked_mul(step) {
                _ if largest < 10 => return largest.max(1),
                Some(top) if top >= largest => return top,
                None => return u64::MAX,
                _ => {}
            }
        }
        tenth = tenth.saturating_mul(10);
    }
}

/// A column chart up to `top` with its labels. `label` describes the chart in a sentence, for screen readers. All `columns` are drawn;
/// future ones are empty. `table` is the id of the table with its figures, one row per column; the script shows them under the pointer.
pub(super) fn columns(label: &str, table: &str, columns: &[Column], top: u64) -> Markup {
    let width = columns.len().max(1) * PITCH;
    let path = |value: fn(&Column) -> u64| {
        columns.iter().enumerate().fold(String::new(), |mut path, (at, column)| {
            let value = value(column);
            if value > 0 {
                let height = (value as f64 / top as f64 * HEIGHT).max(1.0);
                let (x, bar) = (at * PITCH + GAP / 2, PITCH - GAP);
                let _ = write!(path, "M{x} {:.1}h{bar}V{HEIGHT}h-{bar}z", HEIGHT - height);
            }
            path
        })
    };
    let ground =
        columns.iter().enumerate().filter(|(_, column)| column.weekend).fold(String::new(), |mut path, (at, _)| {
            let _ = write!(path, "M{} 0h{PITCH}v{HEIGHT}h-{PITCH}z", at * PITCH);
            path
        });
    html! {
        svg.chart role="img" aria-label=(label) data-table=(table) data-columns=(columns.len()) viewBox=(format!("0 0 {width} {HEIGHT}")) preserveAspectRatio="none" {
            path.weekend d=(ground) {}
            @for line in [0, 50] {
                line.grid x1="0" x2=(width) y1=(line) y2=(line) vector-effect="non-scaling-stroke" {}
            }
            path.outer d=(path(|column| column.value)) {}
            path.inner d=(path(|column| column.inner)) {}
            line.base x1="0" x2=(width) y1=(HEIGHT) y2=(HEIGHT) vector-effect="non-scaling-stroke" {}
        }
        svg.ticks width="100%" height="1.3em" aria-hidden="true" {
            @for (at, column) in columns.iter().enumerate() {
                @if let Some(label) = &column.label {
                    text x=(format!("{:.2}%", (at as f64 + 0.5) / columns.len() as f64 * 100.0)) y="1em" text-anchor="middle" { (label) }
                }
            }
        }
    }
}

/// A heat map, darker for larger values; `table` has it transposed, hours down. Steps are equal in the square root, so that quiet hours
/// differ too.
pub(super) fn heat<const COLUMNS: usize>(label: &str, table: &str, rows: &[[u64; COLUMNS]]) -> Markup {
    let largest = rows.iter().flatten().copied().max().unwrap_or(0);
    let mut paths = vec![String::new(); LEVELS as usize + 1];
    for (y, row) in rows.iter().enumerate() {
        for (x, &value) in row.iter().enumerate() {
            let _ = write!(paths[level(value, largest)], "M{} {}h9v9h-9z", x * CELL, y * CELL);
        }
    }
    let (width, height) = (COLUMNS * CELL - 1, rows.len() * CELL - 1);
    html! {
        svg role="img" aria-label=(label) data-table=(table) data-columns=(COLUMNS) data-rows=(rows.len()) viewBox=(format!("0 0 {width} {height}")) preserveAspectRatio="none" {
            @for (level, path) in paths.iter().enumerate().filter(|(_, path)| !path.is_empty()) {
                path class=(format!("l{level}")) d=(path) {}
            }
        }
    }
}

fn level(value: u64, largest: u64) -> usize {
    if value == 0 {
        return 0;
    }
    let share = (value as f64 / largest.max(1) as f64).sqrt();
    ((share * LEVELS as f64).ceil() as usize).clamp(1, LEVELS as usize)
}

/// A line under a row of a list, as long as `value` is of `largest`, to a hundredth. Its width is a class, since inline styles are
/// forbidden. The element's name is short because a list may have a hundred rows.
pub(super) fn trace(value: u64, largest: u64) -> Markup {
    html! { @if value > 0 { i class=(format!("t w{}", hundredths(value, largest))) {} } }
}

/// Two lines under a row, to compare an earlier value with a later one.
pub(super) fn trace_of_two(earlier: u64, later: u64, largest: u64) -> Markup {
    html! {
        @if earlier > 0 { i class=(format!("t earlier w{}", hundredths(earlier, largest))) {} }
        (trace(later, largest))
    }
}

fn hundredths(value: u64, largest: u64) -> u64 {
    ((value as f64 / largest.max(1) as f64 * 100.0).round() as u64).clamp(1, 100)
}

/// The style of all lengths of a [`trace`].
pub(super) fn lengths() -> String {
    (1..=100).fold(String::new(), |mut style, length| {
        let _ = writeln!(style, ".w{length}{{width:{length}%}}");
        style
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_round_and_high_enough() {
        for (value, top) in
            [(0, 1), (1, 1), (3, 3), (10, 10), (11, 15), (81, 100), (49_001, 50_000), (u64::MAX, u64::MAX)]
        {
            assert_eq!(scale(&[Column { value, inner: 0, label: None, weekend: false }]), top);
        }
    }

    #[test]
    fn a_length_is_one_attribute_and_has_its_style() {
        assert_eq!(trace(1, 3).into_string(), "<i class=\"t w33\"></i>");
        assert_eq!(trace_of_two(3, 1, 3).into_string(), "<i class=\"t earlier w100\"></i><i class=\"t w33\"></i>");
        assert_eq!(trace(0, 3).into_string(), "", "nothing is no line");
        assert!(trace(1, u64::MAX).into_string().contains("w1\"") && lengths().contains(".w33{width:33%}"));
    }

    #[test]
    fn levels_begin_with_the_first_view_and_end_with_the_most() {
        assert_eq!([0, 1, 25, 100].map(|value| level(value, 100)), [0, 1, 4, 7]);
        assert_eq!(level(0, 0), 0);
        assert_eq!(level(u64::MAX, u64::MAX), 7);
    }
}
