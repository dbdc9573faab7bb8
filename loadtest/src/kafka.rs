//! `headcount-loadtest kafka`: how fast a topic of page views becomes rows in ClickHouse, and what that costs.
//!
//! The order of the modules is the order of a measurement: [`records`] (the log, a pure function of the seed, with the
//! truth about it) → [`topic`] (a fresh topic is filled) → the contenders, one after another: [`producer`] (who only sends), [`drain`] (a consumer that
//! does nothing, in a process of its own), [`aggregators`] (`headcount aggregate` as processes), [`table_engine`]
//! (ClickHouse's own Kafka engine) → [`figures`] (one run in numbers) → [`report`] (the table, and what it does not say).

pub mod aggregators;
pub(crate) mod command;
pub mod database;
pub mod drain;
pub mod figures;
pub mod producer;
pub mod records;
pub mod report;
pub mod table_engine;
pub mod topic;

pub use command::KafkaArgs;
pub(crate) use command::run;
