//! The result as a page: charts drawn here, nothing loaded from anywhere.

use std::fmt::Write as _;

use super::result::{MonthResult, bytes};
use super::text;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 28.0;
const COLOURS: [&str; 5] = ["#1f6feb", "#d1742f", "#2a9d5c", "#8250df", "#b3364a"];

/// One line of a chart.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

/// The page.
#[must_use]
pub fn render(result: &MonthResult) -> String {
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>headcount: a month under load</title><style>body{font:15px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem \
         auto;padding:0 1rem;color:#1c1e21;background:#fff}pre{overflow-x:auto;font-size:12.5px;line-height:1.45}svg{width:100%;\
         height:auto}h2{font-size:1.05rem;margin:2rem 0 .25rem}.axis{stroke:#8a9099;stroke-width:1}text{font-size:11px;fill:#555b64}\
         @media(prefers-color-scheme:dark){body{color:#e6e8eb;background:#16181c}text{fill:#a4abb5}}</style>",
    );
    // Writing to a String cannot fail.
    let _ = write!(page, "<h1>A month under load</h1><p>{}</p>", escape(&result.machine.line()));
    let million = |views: u64| views as f64 / 1e6;
    let steps = || result.days.windows(2).map(|pair| (&pair[0], &pair[1]));
    let costs = |name: &str, of: &dyn Fn(&super::watch::Cpu) -> Option<f64>| Line {
        name: name.to_owned(),
        points: steps()
            .filter_map(|(before, day)| {
                let cost = of(&day.cpu.since(&before.cpu))?;
                Some((f64::from(day.day), cost / million(day.views.saturating_sub(before.views)).max(1e-9)))
            })
            .collect(),
    };
    let cost_lines = [
        costs("aggregate", &|cpu| Some(cpu.aggregate)),
        costs("ClickHouse", &|cpu| cpu.clickhouse),
        costs("Kafka", &|cpu| cpu.kafka),
        costs("query", &|cpu| cpu.query),
        costs("load test", &|cpu| Some(cpu.client)),
    ];
    chart(&mut page, "Processor seconds for a million page views, by day of the month", "day", &cost_lines);
    let mut names: Vec<&String> = result.days.iter().flat_map(|day| day.tables.keys()).collect();
    names.sort();
    names.dedup();
    let table_lines: Vec<Line> = names
        .into_iter()
        .map(|name| Line {
            name: name.clone(),
            points: result
                .days
                .iter()
                .map(|day| {
                    let held = day.tables.get(name).map_or(0, |held| held.bytes);
                    (f64::from(day.day), held as f64 / f64::from(1 << 20))
                })
                .collect(),
        })
        .filter(|line: &Line| line.points.iter().any(|(_, mib)| *mib > 0.01))
        .collect();
    chart(&mut page, "MiB in ClickHouse while the month is open, by table and day", "day", &table_lines);
    let each = Line {
        name: "bytes a page view".to_owned(),
        points: steps()
            .map(|(_, day)| (million(day.views), bytes(&day.tables) as f64 / day.views.max(1) as f64))
            .collect(),
    };
    chart(&mut page, "Bytes stored for each page view so far", "million page views", &[each]);
    let accuracy = [&result.closed, &result.open].into_iter().flatten().find(|checked| !checked.accuracy.is_empty());
    let accuracy = accuracy.map_or(&[][..], |checked| &checked.accuracy);
    let line = |name: &str, of: &dyn Fn(&super::accuracy::Accuracy) -> f64| Line {
        name: name.to_owned(),
        points: accuracy.iter().map(|a| ((a.from as f64).log10(), of(a) * 100.0)).collect(),
    };
    chart(
        &mut page,
        "Error of estimated visitors, %, by size of project (tenth power, where the class begins)",
        "log10 of visitors",
        &[line("rms", &|a| a.rms), line("theory", &|a| a.theory), line("p95", &|a| a.p95)],
    );
    let _ = write!(page, "<h2>All figures</h2><pre>{}</pre></html>", escape(&text::render(result)));
    page
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A chart of lines. Left out where no line has two points.
fn chart(page: &mut String, title: &str, axis: &str, lines: &[Line]) {
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    if !lines.iter().any(|line| line.points.len() > 1) {
        return;
    }
    let highest = nice(points().map(|(_, y)| y).fold(0.0, f64::max));
    let (first, last) = points().fold((f64::MAX, f64::MIN), |(first, last), (x, _)| (first.min(x), last.max(x)));
    let at = |(x, y): (f64, f64)| {
        let across = (x - first) / (last - first).max(1e-9);
        (LEFT + across * (WIDTH - LEFT - 8.0), (HEIGHT - BOTTOM) - y / highest * (HEIGHT - BOTTOM - 12.0))
    };
    let _ = write!(
        page,
        "<h2>{}</h2><svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{0}\">",
        escape(title),
        HEIGHT + 18.0
    );
    for step in 0..=4 {
        let value = highest * f64::from(step) / 4.0;
        let (_, y) = at((first, value));
        let _ = write!(
            page,
            "<line class=\"axis\" opacity=\".35\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text x=\"{}\" \
             y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            y + 4.0,
            short(value)
        );
    }
    for (value, anchor) in [(first, "start"), (f64::midpoint(first, last), "middle"), (last, "end")] {
        let (x, _) = at((value, 0.0));
        let _ =
            write!(page, "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>", HEIGHT - 12.0, short(value));
    }
    let _ = write!(page, "<text x=\"{WIDTH}\" y=\"{HEIGHT}\" text-anchor=\"end\">{}</text>", escape(axis));
    let mut legend = LEFT;
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let path: Vec<String> =
            line.points.iter().map(|&point| at(point)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = write!(
            page,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\" points=\"{}\"/><text x=\"{legend}\" y=\"{}\" \
             style=\"fill:{colour}\">{}</text>",
            path.join(" "),
            HEIGHT + 12.0,
            escape(&line.name)
        );
        legend += line.name.len() as f64 * 6.4 + 18.0;
    }
    page.push_str("</svg>");
}

/// The next number that is easy to divide by four.
fn nice(highest: f64) -> f64 {
    if highest <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(highest.log10().floor());
    [1.0, 2.0, 4.0, 8.0, 10.0].iter().map(|step| step * power).find(|value| *value >= highest).unwrap_or(highest)
}

fn short(value: f64) -> String {
    let text = if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_is_drawn_where_there_is_a_line() {
        let line = |points: &[(f64, f64)]| Line { name: "a<b".to_owned(), points: points.to_vec() };
        let mut page = String::new();
        chart(&mut page, "one", "day", &[line(&[(1.0, 2.0)])]);
        assert!(page.is_empty());
        chart(&mut page, "two", "day", &[line(&[(1.0, 0.0), (3.0, 7.0)])]);
        assert!(page.contains("points=\"64.0,192.0 712.0,34.5\"") && page.contains("a&lt;b"), "{page}");
        assert!(!page.contains("NaN") && !page.contains("http"), "{page}");
    }

    #[test]
    fn axes_end_at_round_numbers() {
        assert_eq!([0.0, 0.7, 1.0, 3.0, 55.0, 900.0].map(nice), [1.0, 0.8, 1.0, 4.0, 80.0, 1_000.0]);
        assert_eq!([0.0, 1.5, 120.4].map(short), ["0", "1.5", "120"]);
    }
}
