//! Attacks on a running service, each with the figures that bound it.

#[path = "abuse/settings.rs"]
mod settings;
