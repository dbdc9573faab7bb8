//! `headcount-loadtest kafka`: how fast a topic of page views becomes rows in ClickHouse, and what that costs.
//!
//! The order of the modules is the order of a measurement. [`records`] is the log, a pure function of the seed, with its truth. [`topic`] fills a
//! fresh topic. The contenders follow one after another: [`producer`] (only sends), [`drain`] (a consumer that does nothing, in a separate process),
//! [`aggregators`] (`headcount aggregate` as processes), [`table_engine`] (ClickHouse's Kafka engine). [`drain_figures`] has one run in numbers; [`drain_report`]
//! has the table and its limitations.

pub mod aggregators;
pub mod database;
pub mod drain;
pub mod drain_figures;
pub mod drain_report;
pub(crate) mod kafka_command;
pub mod producer;
pub mod records;
pub mod table_engine;
pub mod topic;

pub use kafka_command::KafkaArgs;
pub(crate) use kafka_command::run;
