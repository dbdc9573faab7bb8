//! The script under names that browsers do not block: the default ones, those that the operator chooses, and paths of the
//! docs' own host behind the proxies of `docs/first-party.md`.

#[path = "first_party/blocklist.rs"]
mod blocklist;
#[path = "first_party/chosen.rs"]
mod chosen;
#[path = "first_party/country.rs"]
mod country;
#[path = "first_party/document.rs"]
mod document;
#[path = "first_party/moving.rs"]
mod moving;
#[path = "first_party/policy.rs"]
mod policy;
#[path = "first_party/proxies.rs"]
mod proxies;
#[path = "first_party/released.rs"]
mod released;
#[path = "first_party/reported.rs"]
mod reported;
#[path = "first_party/worker.rs"]
mod worker;
