//! The roles as processes of their own, over Kafka and a ClickHouse server: as many of each as the traffic needs.

#[cfg(feature = "kafka")]
pub mod aggregate;
pub mod engine;
#[cfg(feature = "kafka")]
pub mod ingest;
pub mod query;
