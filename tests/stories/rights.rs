//! Read access to reports: every route, every caller, every kind of project; and what a caller without access learns.

#[path = "rights/bed.rs"]
mod bed;
#[path = "rights/matrix.rs"]
mod matrix;
#[path = "rights/tokens.rs"]
mod tokens;
