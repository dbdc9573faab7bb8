//! What the stories share: the service as a process, an independent rebuild of its figures, a documentation site and
//! a real browser.

pub mod browser;
pub mod docs_site;
pub mod http;
pub mod oracle;
pub mod service;
