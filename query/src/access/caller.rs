//! Who asks.

use super::snapshot::Rights;
use crate::store::Visible;
use schemas::ProjectSlug;

/// Who asks, as the guard found out. Every request that passed it has one among its extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Somebody without a token: may read what is public.
    Anonymous,
    /// Who has the token of one project.
    Reader(ProjectSlug),
    /// Who may read all reports.
    Admin,
}

impl Caller {
    pub(super) fn of(rights: &Rights) -> Self {
        match rights {
            Rights::Admin => Caller::Admin,
            Rights::Project(project) => Caller::Reader(project.clone()),
        }
    }

    /// Whether an index lists the project for this caller. (A public one is read by everybody, and listed for its own.)
    pub fn lists(&self, project: &ProjectSlug) -> bool {
        match self {
            Caller::Anonymous => false,
            Caller::Reader(own) => own == project,
            Caller::Admin => true,
        }
    }

    /// What a list of projects has for this caller.
    pub fn visible(&self) -> Visible {
        match self {
            Caller::Anonymous => Visible::Only(Vec::new()),
            Caller::Reader(own) => Visible::Only(vec![own.clone()]),
            Caller::Admin => Visible::All,
        }
    }

    /// The only project that is listed for this caller, where it is one.
    pub fn only(&self) -> Option<&ProjectSlug> {
        match self {
            Caller::Reader(own) => Some(own),
            Caller::Anonymous | Caller::Admin => None,
        }
    }

    /// Whether there is something to sign out of, or a token at least.
    pub fn is_known(&self) -> bool {
        *self != Caller::Anonymous
    }
}
