//! Shared parts of the stories: the service and its roles as processes, brokers, ClickHouse, faults, a documentation site and a real browser.

pub mod browser;
pub mod clickhouse;
pub mod docs_site;
pub mod http;
pub mod kafka;
pub mod process;
pub mod proxy;
pub mod random;
pub mod roles;
pub mod routes;
pub mod service;
pub mod static_site;
pub mod traffic;
