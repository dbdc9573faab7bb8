//! Bars as inline SVG. Sizes are presentation attributes and colours come from classes, because the policy forbids
//! inline styles. Charts stretch to their box, so their labels are HTML beside them.

use maud::{Markup, html};

/// One column of a chart.
pub(super) struct Column {
    /// What the tooltip says.
    pub(super) tip: String,
    /// The tall bar.
    pub(super) value: u64,
    /// The bar in front of it.
    pub(super) inner: Option<u64>,
}

/// Width of a column in the drawing's own units, its gap included.
const PITCH: usize = 20;
const GAP: usize = 4;
const HEIGHT: f64 = 100.0;

/// The smallest round number that no value exceeds; below ten every number is round.
pub(super) fn scale(columns: &[Column]) -> u64 {
    let largest = columns.iter().map(|column| column.value.max(column.inner.unwrap_or(0))).max().unwrap_or(0);
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

/// A column chart up to `top`. `label` says in a sentence what it shows, for those who do not see it. `slots` columns
/// have room, so that a running month leaves its coming days empty.
pub(super) fn columns(label: &str, columns: &[Column], top: u64, slots: usize) -> Markup {
    let width = slots.max(columns.len()).max(1) * PITCH;
    let height = |value: u64| if value == 0 { 0.0 } else { (value as f64 / top as f64 * HEIGHT).max(1.0) };
    let bar = |class: &str, at: usize, value: u64| {
        let height = height(value);
        html! {
            @if value > 0 {
                rect class=(class) x=(at * PITCH + GAP / 2) y=(decimal(HEIGHT - height)) width=(PITCH - GAP) height=(decimal(height)) {}
            }
        }
    };
    html! {
        svg.chart role="img" aria-label=(label) viewBox=(format!("0 0 {width} {HEIGHT}")) preserveAspectRatio="none" {
            @for line in [0, 25, 50, 75] {
                line.grid x1="0" x2=(width) y1=(line) y2=(line) vector-effect="non-scaling-stroke" {}
            }
            @for (at, column) in columns.iter().enumerate() {
                g {
                    title { (column.tip) }
                    // The whole height answers to the pointer, also where the bar is low.
                    rect.reach x=(at * PITCH) y="0" width=(PITCH) height=(HEIGHT) {}
                    (bar("outer", at, column.value))
                    @if let Some(inner) = column.inner { (bar("inner", at, inner)) }
                }
            }
            line.base x1="0" x2=(width) y1=(HEIGHT) y2=(HEIGHT) vector-effect="non-scaling-stroke" {}
        }
    }
}

/// A bar behind a row of a list, `value` of `largest`.
pub(super) fn behind(value: u64, largest: u64) -> Markup {
    let width = if largest == 0 { 0.0 } else { value as f64 / largest as f64 * 100.0 };
    html! {
        svg.behind aria-hidden="true" { rect width=(format!("{width:.1}%")) height="100%" {} }
    }
}

fn decimal(value: f64) -> String {
    format!("{value:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_round_and_high_enough() {
        for (value, top) in
            [(0, 1), (1, 1), (3, 3), (10, 10), (11, 15), (81, 100), (49_001, 50_000), (u64::MAX, u64::MAX)]
        {
            assert_eq!(scale(&[Column { tip: String::new(), value, inner: None }]), top);
        }
    }
}
