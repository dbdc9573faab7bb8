//! The fault experiments: seeded operations and faults, and after each the invariants of delivery (ARCHITECTURE.md).
//!
//! Every test run includes a short form of most experiments. `scripts/test --faults` runs all at length and prints their table.
//! `HEADCOUNT_FAULTS_SEED` replays one.

#[path = "faults/alone.rs"]
mod alone;
#[path = "faults/audit.rs"]
mod audit;
#[path = "faults/bed.rs"]
mod bed;
#[path = "faults/endpoint.rs"]
mod endpoint;
#[path = "faults/group.rs"]
mod group;
#[path = "faults/links.rs"]
mod links;
#[path = "faults/load.rs"]
mod load;
#[path = "faults/older_store.rs"]
mod older_store;
#[path = "faults/records.rs"]
mod records;
#[path = "faults/serve_limits.rs"]
mod serve_limits;
#[path = "faults/serve_store.rs"]
mod serve_store;
#[path = "faults/store.rs"]
mod store;
#[path = "faults/topics.rs"]
mod topics;
