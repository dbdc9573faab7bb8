//! The steps between a record and its commit, each with a failpoint.

use std::sync::atomic::{AtomicU64, Ordering};

/// A step of flush and commit, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Rows were frozen, none is sent yet.
    Frozen,
    /// `page_daily` is acknowledged.
    Page,
    /// `breakdown_window` is acknowledged.
    Breakdown,
    /// `not_found_daily` is acknowledged.
    NotFound,
    /// `rejection_daily` is acknowledged.
    Rejection,
    /// `robot_page_daily` is acknowledged.
    RobotPage,
    /// `robot_daily` is acknowledged.
    Robot,
    /// `site_hourly` is acknowledged.
    Site,
    /// The ledger's row is acknowledged; nothing is committed.
    Ledger,
    /// The log has the commit.
    Committed,
    /// A window is closed and its last rows are acknowledged; nothing is committed.
    WindowEnd,
}

impl Step {
    /// All steps.
    pub const ALL: [Step; 11] = [
        Step::Frozen,
        Step::Page,
        Step::Breakdown,
        Step::NotFound,
        Step::Rejection,
        Step::RobotPage,
        Step::Robot,
        Step::Site,
        Step::Ledger,
        Step::Committed,
        Step::WindowEnd,
    ];

    /// The only spelling.
    pub const fn name(self) -> &'static str {
        match self {
            Step::Frozen => "frozen",
            Step::Page => "page",
            Step::Breakdown => "breakdown",
            Step::NotFound => "not_found",
            Step::Rejection => "rejection",
            Step::RobotPage => "robot_page",
            Step::Robot => "robot",
            Step::Site => "site",
            Step::Ledger => "ledger",
            Step::Committed => "committed",
            Step::WindowEnd => "window_end",
        }
    }
}

/// A failpoint: aborts the process (SIGABRT, without cleanup) when a step has been passed a number of times. Only fault tests use it, and
/// operators who want to verify that nothing is lost.
#[derive(Debug)]
pub struct Failpoint {
    step: Step,
    left: AtomicU64,
}

/// The text does not name a step.
#[derive(Debug, thiserror::Error)]
#[error("expected STEP or STEP:COUNT, with a step of {}", Step::ALL.map(Step::name).join(", "))]
pub struct UnknownStep;

impl std::str::FromStr for Failpoint {
    type Err = UnknownStep;

    fn from_str(text: &str) -> Result<Self, UnknownStep> {
        let (name, count) = text.split_once(':').unwrap_or((text, "1"));
        let step = Step::ALL.into_iter().find(|step| step.name() == name).ok_or(UnknownStep)?;
        let count = count.parse().ok().filter(|&count| count > 0).ok_or(UnknownStep)?;
        Ok(Failpoint { step, left: AtomicU64::new(count) })
    }
}

impl Failpoint {
    /// Records that `step` was passed.
    pub(crate) fn pass(&self, step: Step) {
        if self.step == step && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            tracing::error!(step = step.name(), "aborting at the configured failpoint");
            std::process::abort();
        }
    }
}

/// [`Failpoint::pass`], if there is a failpoint.
pub(crate) fn pass(failpoint: Option<&Failpoint>, step: Step) {
    if let Some(failpoint) = failpoint {
        failpoint.pass(step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_named() {
        for step in Step::ALL {
            let parsed: Failpoint = format!("{}:3", step.name()).parse().unwrap();
            assert_eq!((parsed.step, parsed.left.into_inner()), (step, 3));
        }
        assert!("page:0".parse::<Failpoint>().is_err() && "lunch".parse::<Failpoint>().is_err());
    }
}
