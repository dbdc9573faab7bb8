//! Attacks on the running service, each with its figures printed. Short forms in the default run; `HEADCOUNT_ABUSE=long` runs them at
//! length.

#[path = "abuse/engine.rs"]
mod engine;
#[path = "abuse/files.rs"]
mod files;
#[path = "abuse/proxy.rs"]
mod proxy;
