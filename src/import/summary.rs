//! The summary of an import.

use crate::say;
use ingest::access_log::NotRead;
use ingest::access_log::summary::Summary;
use schemas::Hour;
use schemas::classes::{BotClass, ClassName as _};
use std::path::PathBuf;
use std::time::Duration;

/// Prints what became of the lines, by reason. It contains nothing of a line.
pub fn print(summary: &Summary, files: &[PathBuf], took: Duration) {
    let row = |count: u64, text: &str| say!("{count:>12}  {text}");
    row(summary.lines, "lines");
    if let Some((first, last)) = summary.hours {
        let hour = |hour: Hour| hour.start().format("%Y-%m-%dT%H:00Z").to_string();
        say!("views from the hour {} to the hour {}", hour(first), hour(last));
    }
    row(summary.views, "views of people");
    if summary.views_without_agent > 0 {
        row(
            summary.views_without_agent,
            "  of them without a user agent in the format: robots cannot be told from people",
        );
    }
    if summary.views_without_client > 0 {
        row(summary.views_without_client, "  of them without an IP address in the log: views without visitors");
    }
    row(summary.robot_views(), "views of robots");
    for (kind, count) in &summary.robots {
        let kind = BotClass::try_from(*kind).unwrap_or(BotClass::OtherBot);
        row(*count, &format!("  {}", kind.class_name()));
    }
    row(summary.not_counted.values().sum(), "not counted");
    for (reason, count) in &summary.not_counted {
        row(*count, &format!("  {reason}"));
    }
    row(summary.not_read.values().map(|lines| lines.count).sum(), "not read");
    for (reason, lines) in &summary.not_read {
        let (file, line) = (files[lines.first.file].display(), lines.first.line);
        let first =
            if *reason == NotRead::Directive { String::new() } else { format!(" (first: line {line} of {file})") };
        row(lines.count, &format!("  {reason}{first}"));
    }
    let seconds = took.as_secs_f64().max(0.001);
    say!("{:.1} s, {:.0} lines a second", took.as_secs_f64(), summary.lines as f64 / seconds);
}
