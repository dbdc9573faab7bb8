//! `headcount loadtest month`: a month of a docs host, from its views to its closed figures, against real brokers and a real
//! ClickHouse; and whether all of it was counted right.
//!
//! The order of the modules is the order of the measurement: [`facts`] (where shares come from) → [`plan`] (how large the
//! month and its projects are), with [`rhythm`] and [`permute`] → [`stream`] (its views in the order of time, without
//! remembering any) → [`view`] (what each is, and its record) → [`truth`] (what they add up to).

pub mod facts;
pub mod permute;
pub mod plan;
pub mod rhythm;
pub mod stream;
#[cfg(test)]
mod tests;
pub mod truth;
pub mod view;
