//! What the stories share: the service as a process, an independent rebuild of its figures, a documentation site and
//! a real browser.

pub mod browser;
pub mod clickhouse;
pub mod docs_site;
pub mod http;
pub mod kafka;
pub mod oracle;
pub mod process;
pub mod proxy;
pub mod roles;
pub mod service;
