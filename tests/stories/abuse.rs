//! Attacks from outside on a real process, each with honest readers beside it. Figures are printed. `HEADCOUNT_ABUSE=long` runs
//! the long forms.

#[path = "abuse/existence.rs"]
mod existence;
#[path = "abuse/forged.rs"]
mod forged;
#[path = "abuse/journal.rs"]
mod journal;
#[path = "abuse/names.rs"]
mod names;

/// `short`, or `long` where the long forms were asked for.
fn form<T>(short: T, long: T) -> T {
    if std::env::var("HEADCOUNT_ABUSE").is_ok_and(|form| form == "long") { long } else { short }
}
