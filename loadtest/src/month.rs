//! `headcount-loadtest month`: runs a month of a docs host, from its views to its closed figures, through real brokers and a real ClickHouse, and
//! checks whether all of it was counted correctly.
//!
//! The order of the modules is the order of the measurement:
//!
//! - [`facts`] (sources of the shares) → [`plan`] (the size of the month and of its projects), with [`rhythm`] and [`permute`]
//! - [`stream`] (its views in the order of time, without remembering any) → [`view`] (the content of each, and its record) and [`tally`]
//! - [`truth`] (their sums) → [`produce`] (into the topic) → [`watch`] (the cost, day by day) and [`probe`] (report users at the same time)
//! - [`check`] (rows against the truth), with [`expected`] and [`accuracy`] → [`result`] (all figures) → [`project`] (other sizes) → [`text`]
//!
//! The same readers over HTTP: [`beacons`].

pub mod accuracy;
pub mod beacons;
pub mod check;
pub mod expected;
pub mod facts;
mod month_command;
pub mod permute;
pub mod plan;
pub mod probe;
pub mod produce;
pub mod project;
pub mod result;
pub mod rhythm;
mod run;
pub mod state;
pub mod stream;
pub mod tally;
#[cfg(test)]
mod tests;
pub mod text;
pub mod truth;
pub mod view;
pub mod watch;

pub use month_command::MonthArgs;
pub(crate) use month_command::run;
