//! The privacy contract, each statement tested from the outside: one module per statement, with its number in the name. The statements are in
//! `docs/privacy.md`.

mod access_logs;
mod readers;
mod records;
mod s01_nothing_on_the_readers_machine;
mod s02_address_and_agent_die_in_ingest;
mod s03_closed_schema;
mod s04_at_most_a_coordinate;
mod s05_domain_separation;
mod s06_keys_are_random_and_die;
mod s07_after_the_keys_death_nobody_can_ask;
mod s08_a_closed_month_keeps_numbers_only;
mod s09_opt_out_is_honoured;
mod s10_coarse_by_construction;
mod s11_no_small_cells;
mod s11_words;
mod s13_retention_is_enforced;
mod s14_crashes_leak_nothing;
mod s15_nobody_can_forge_a_crowd;
mod s16_every_estimate_says_so;
mod s18_honest_words;
mod scan;
mod traffic;
