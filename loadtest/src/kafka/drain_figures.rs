//! One run of one contender in numbers.

use serde::{Deserialize, Serialize};

use crate::table::Run;

/// The contender that reads the topic, or fills one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// A producer that does nothing else.
    Producer,
    /// A consumer that does nothing.
    #[default]
    Drain,
    /// This many processes of `headcount aggregate`.
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

/// One run of one contender in numbers; none if a figure is unknown, or does not apply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// The contender.
    pub who: Who,
    /// Number of the round, from 0.
    pub run: u32,
    /// Records read; of the producer, sent.
    pub records: u64,
    /// Their bytes without keys, of the drain.
    pub bytes: Option<u64>,
    /// From the process's start (of the table engine: from the last statement) to the first assignment; the drain assigns
    /// itself.
    pub startup_seconds: Option<f64>,
    /// From the first assignment until all was read, or counted in ClickHouse; of the producer, from the first record until all was
    /// acknowledged.
    pub seconds: f64,
    /// Processor seconds of the reading (or sending) processes, their start included; the table engine reads inside ClickHouse.
    pub client_cpu_seconds: Option<f64>,
    /// Peak resident memory of the reading processes, in bytes.
    pub client_peak_bytes: Option<u64>,
    /// Processor seconds of the broker, until all was counted.
    pub kafka_cpu_seconds: Option<f64>,
    /// Processor seconds of ClickHouse, until all was counted.
    pub clickhouse_cpu_seconds: Option<f64>,
    /// Processor seconds of ClickHouse, including those until its merges finished.
    pub clickhouse_cpu_seconds_at_rest: Option<f64>,
    /// Peak resident memory of ClickHouse, in bytes.
    pub clickhouse_peak_bytes: Option<u64>,
    /// Rows sent to ClickHouse, replaced ones included.
    pub rows_written: Option<u64>,
    /// Rows in ClickHouse as report users see them.
    pub rows: Option<u64>,
    /// Bytes of all tables on disk at the end.
    pub disk_bytes: Option<u64>,
    /// Views by people, as ClickHouse then has them.
    pub views: Option<u64>,
}

impl Figures {
    /// Of a contender, of which nothing else is known yet.
    #[must_use]
    pub fn new(who: Who, records: u64, seconds: f64) -> Self {
        Self { who, records, seconds, ..Self::default() }
    }

    /// Records a second, from the first assignment on.
    #[must_use]
    pub fn records_per_second(&self) -> f64 {
        self.records as f64 / self.seconds
    }

    /// `seconds` per million records.
    #[must_use]
    pub fn per_million(&self, seconds: Option<f64>) -> Option<f64> {
        Some(seconds? * 1e6 / self.records as f64)
    }
}

impl Run for Figures {
    fn column(&self) -> String {
        self.who.name()
    }

    fn round(&self) -> u32 {
        self.run
    }
}
