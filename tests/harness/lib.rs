//! What the stories stand on: a real browser and a real documentation site.

pub mod browser;
pub mod docs_site;
