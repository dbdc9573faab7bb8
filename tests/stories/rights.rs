//! Who may read which report: every route, for everybody, of every kind of project; and what they learn who may not.

#[path = "rights/bed.rs"]
mod bed;
#[path = "rights/matrix.rs"]
mod matrix;
#[path = "rights/tokens.rs"]
mod tokens;
