//! One run of one contender in numbers.

use serde::Serialize;

use super::aggregators::Aggregated;
use super::database::Held;
use super::drain::Drained;
use super::producer::Sent;
use super::table_engine::Pulled;

/// Who read the topic, or filled one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case", tag = "name", content = "processes")]
pub enum Who {
    /// A producer that does nothing else.
    Producer,
    /// A consumer that does nothing.
    Drain,
    /// So many processes of `headcount aggregate`.
    Aggregators(u32),
    /// ClickHouse's Kafka table engine.
    TableEngine,
}

impl Who {
    /// As the table has it.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Producer => "bare produce".to_owned(),
            Self::Drain => "bare drain".to_owned(),
            Self::Aggregators(1) => "headcount aggregate".to_owned(),
            Self::Aggregators(n) => format!("headcount aggregate ×{n}"),
            Self::TableEngine => "ClickHouse's Kafka engine".to_owned(),
        }
    }
}

/// Processor seconds that servers spent in a run; `None` where the process is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Servers {
    /// Of the broker, until all was counted.
    pub kafka: Option<f64>,
    /// Of ClickHouse, until all was counted.
    pub clickhouse: Option<f64>,
    /// Of ClickHouse, until its merges had ended as well.
    pub clickhouse_at_rest: Option<f64>,
    /// Peak resident memory of ClickHouse, in bytes.
    pub clickhouse_peak_bytes: Option<u64>,
}

/// One run of one contender in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figures {
    /// Who.
    pub who: Who,
    /// Number of the round, from 0.
    pub run: u32,
    /// Records read; of the producer, sent.
    pub records: u64,
    /// From the process's start (of the table engine: from the last statement) to the first assignment; the drain assigns
    /// itself.
    pub startup_seconds: Option<f64>,
    /// From the first assignment until all was read, or counted in ClickHouse; of the producer, from the first record until all was
    /// acknowledged.
    pub seconds: f64,
    /// Processor seconds of the reading (or sending) processes, their start included; the table engine reads inside ClickHouse.
    pub reader_cpu_seconds: Option<f64>,
    /// Peak resident memory of the reading processes, in bytes.
    pub reader_peak_bytes: Option<u64>,
    /// What the servers spent.
    pub servers: Servers,
    /// Rows sent to ClickHouse, replaced ones included.
    pub rows_written: Option<u64>,
    /// Rows in ClickHouse as readers see them.
    pub rows: Option<u64>,
    /// Bytes of all tables on disk at the end.
    pub disk_bytes: Option<u64>,
    /// Views by people, as ClickHouse then tells.
    pub views: Option<u64>,
}

impl Figures {
    fn new(who: Who, run: u32, records: u64, seconds: f64, servers: Servers) -> Self {
        Self {
            who,
            run,
            records,
            startup_seconds: None,
            seconds,
            reader_cpu_seconds: None,
            reader_peak_bytes: None,
            servers,
            rows_written: None,
            rows: None,
            disk_bytes: None,
            views: None,
        }
    }

    /// Of who only sends.
    #[must_use]
    pub fn of_producer(run: u32, sent: &Sent, servers: Servers) -> Self {
        Self {
            reader_cpu_seconds: Some(sent.cpu_seconds),
            ..Self::new(Who::Producer, run, sent.records, sent.seconds, servers)
        }
    }

    /// Of the reference.
    #[must_use]
    pub fn of_drain(run: u32, drained: &Drained, servers: Servers) -> Self {
        Self {
            reader_cpu_seconds: Some(drained.cpu_seconds),
            reader_peak_bytes: Some(drained.peak_bytes),
            ..Self::new(Who::Drain, run, drained.records, drained.seconds, servers)
        }
    }

    /// Of the system under test.
    #[must_use]
    pub fn of_aggregators(
        (run, processes): (u32, u32),
        records: u64,
        seen: &Aggregated,
        servers: Servers,
        held: Held,
        views: u64,
    ) -> Self {
        Self {
            startup_seconds: Some(seen.startup_seconds),
            reader_cpu_seconds: Some(seen.cpu_seconds),
            reader_peak_bytes: Some(seen.peak_bytes),
            rows_written: Some(seen.rows_written),
            rows: Some(held.rows),
            disk_bytes: Some(held.disk_bytes),
            views: Some(views),
            ..Self::new(Who::Aggregators(processes), run, records, seen.seconds, servers)
        }
    }

    /// Of ClickHouse on its own.
    #[must_use]
    pub fn of_table_engine(run: u32, records: u64, seen: &Pulled, servers: Servers, held: Held) -> Self {
        Self {
            startup_seconds: Some(seen.startup_seconds),
            rows: Some(held.rows),
            disk_bytes: Some(held.disk_bytes),
            views: Some(seen.views),
            ..Self::new(Who::TableEngine, run, records, seen.seconds, servers)
        }
    }

    /// Records a second, from the first assignment on.
    #[must_use]
    pub fn records_per_second(&self) -> f64 {
        self.records as f64 / self.seconds
    }

    /// So many seconds, for each million records.
    #[must_use]
    pub fn per_million(&self, seconds: Option<f64>) -> Option<f64> {
        Some(seconds? * 1e6 / self.records as f64)
    }
}
