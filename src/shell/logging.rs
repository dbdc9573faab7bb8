//! The log on standard error. A condition that repeats is logged once, and again with a count when it has ended: a full disk would otherwise write
//! several lines a second to the same disk.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Context, Filter, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// A condition has ended if it did not occur for this long. The time is longer than the longest pause between two attempts, which is the minute
/// between two checks for months to close.
const QUIET: Duration = Duration::from_secs(150);

/// How often ended conditions are searched for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Maximum number of remembered conditions; further ones are logged each time.
const MAX_CONDITIONS: usize = 1_000;

/// Targets whose lines are single events that are each logged: ClickHouse's output, and each of its restarts.
const EVENTS: [&str; 2] = ["headcount::engine", "headcount::embedded::supervisor"];

/// Starts logging: `filter` as of `RUST_LOG`, as JSON or as text. Colours only on a terminal.
pub fn start(filter: EnvFilter, json: bool) {
    let repeats = Repeats::default();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = if json {
        lines.json().with_filter(repeats.clone()).boxed()
    } else {
        lines.with_ansi(std::io::stderr().is_terminal()).with_filter(repeats.clone()).boxed()
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
    // A thread, not a task: logging starts before there is a runtime, and outlives it.
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(SWEEP_INTERVAL);
            for (message, repeated) in repeats.ended(Instant::now()) {
                tracing::info!(repeated, "no longer repeated: {message}");
            }
        }
    });
}

/// Recent warnings and errors, identified by place in the code, numeric fields, and texts without their digits.
#[derive(Clone, Default)]
struct Repeats(Arc<Mutex<HashMap<u64, Condition>>>);

struct Condition {
    message: String,
    /// Occurrences that were not logged.
    repeated: u64,
    latest: Instant,
}

impl Repeats {
    /// Whether to log the event: true the first time, then false until the condition has ended.
    fn admit(&self, event: Text, now: Instant) -> bool {
        let mut conditions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = conditions.len() >= MAX_CONDITIONS;
        match conditions.get_mut(&event.condition) {
            // Ended, but not swept yet: the line after this one reports the count.
            Some(known) if now.duration_since(known.latest) >= QUIET => {
                known.latest = now;
                true
            }
            Some(known) => {
                known.repeated += 1;
                known.latest = now;
                false
            }
            None => {
                if !full {
                    let condition = Condition { message: event.message, repeated: 0, latest: now };
                    conditions.insert(event.condition, condition);
                }
                true
            }
        }
    }

    /// Removes the conditions that have ended, and returns those that repeated with their counts.
    fn ended(&self, now: Instant) -> Vec<(String, u64)> {
        let mut conditions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = conditions.extract_if(|_, condition| now.duration_since(condition.latest) >= QUIET);
        ended
            .filter(|(_, condition)| condition.repeated > 0)
            .map(|(_, condition)| (condition.message, condition.repeated))
            .collect()
    }
}

impl<S: Subscriber> Filter<S> for Repeats {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN || EVENTS.contains(&metadata.target()) {
            return true;
        }
        self.admit(Text::of(event), Instant::now())
    }
}

/// The condition that an event belongs to, and its text.
struct Text {
    condition: u64,
    message: String,
}

impl Text {
    fn of(event: &Event<'_>) -> Self {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut hasher = DefaultHasher::new();
        event.metadata().callsite().hash(&mut hasher);
        // A numeric field, such as a partition, is part of the condition's identity.
        fields.numbers.hash(&mut hasher);
        // Names of files, offsets and times within an error's text differ from one attempt to the next.
        fields.texts.chars().filter(|letter| !letter.is_ascii_digit()).for_each(|letter| letter.hash(&mut hasher));
        Text { condition: hasher.finish(), message: fields.message }
    }
}

#[derive(Default)]
struct Fields {
    texts: String,
    numbers: Vec<u64>,
    message: String,
}

impl Visit for Fields {
    fn record_u64(&mut self, _: &Field, value: u64) {
        self.numbers.push(value);
    }

    fn record_i64(&mut self, _: &Field, value: i64) {
        self.numbers.push(value.cast_unsigned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self.texts, "{}={value:?} ", field.name());
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(condition: u64) -> Text {
        Text { condition, message: format!("condition {condition}") }
    }

    #[test]
    fn a_condition_is_logged_once_and_counted_when_it_has_ended() {
        let (repeats, start) = (Repeats::default(), Instant::now());
        let second = Duration::from_secs(1);
        assert!(repeats.admit(text(1), start));
        assert!((1..100).all(|after| !repeats.admit(text(1), start + second * after)));
        assert!(repeats.admit(text(2), start + second * 99), "another condition is another line");
        assert!(repeats.ended(start + second * 100).is_empty(), "it goes on");
        let ended = repeats.ended(start + second * 99 + QUIET);
        assert_eq!(ended, [("condition 1".to_owned(), 99)], "a single line needs no count");
        assert!(repeats.admit(text(1), start + second * 300), "it is a new one after its end");
    }

    #[test]
    fn conditions_are_bounded_and_the_rest_is_logged_each_time() {
        let (repeats, now) = (Repeats::default(), Instant::now());
        assert!((0..=MAX_CONDITIONS as u64).all(|condition| repeats.admit(text(condition), now)));
        assert!(repeats.admit(text(MAX_CONDITIONS as u64), now));
        assert!(!repeats.admit(text(0), now));
    }

    #[test]
    fn digits_in_a_text_make_no_new_condition_but_words_and_number_fields_do() {
        let lines = Lines::default();
        let written = lines.clone();
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || written.clone());
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(Repeats::default()));
        tracing::subscriber::with_default(subscriber, || {
            for attempt in 0..50 {
                tracing::warn!(error = format!("no space for part {attempt}"), "rows are not stored yet");
            }
            for partition in [0, 1, 1] {
                tracing::warn!(partition, "counted again");
            }
            for project in ["one", "two"] {
                for _ in 0..2 {
                    tracing::warn!(project, "not counted");
                }
            }
            (0..3).for_each(|_| tracing::info!("started"));
            (0..3).for_each(|_| tracing::warn!(target: "headcount::engine", "a line of ClickHouse"));
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        for (words, times) in
            [("not stored", 1), ("counted again", 2), ("not counted", 2), ("started", 3), ("a line of", 3)]
        {
            assert_eq!(text.matches(words).count(), times, "{words} in\n{text}");
        }
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}
