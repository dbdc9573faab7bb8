//! The roles as separate processes, over Kafka and a ClickHouse server: as many of each as the traffic needs.

#[cfg(feature = "kafka")]
pub mod aggregate;
pub mod engine_child;
#[cfg(feature = "kafka")]
pub mod ingest;
pub mod query;
