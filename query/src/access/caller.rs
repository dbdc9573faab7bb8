//! The caller of a request.

use super::snapshot::Rights;
use crate::store::Visible;
use schemas::ProjectSlug;

/// The caller, as the guard identified it. Every request that passed the guard has one among its extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A caller without a token: may read public reports.
    Anonymous,
    /// The holder of one project's token.
    Reader(ProjectSlug),
    /// The holder of a token for all reports.
    Admin,
}

impl Caller {
    pub(super) fn of(rights: &Rights) -> Self {
        match rights {
            Rights::Admin => Caller::Admin,
            Rights::Project(project) => Caller::Reader(project.clone()),
        }
    }

    /// Whether an index lists the project for this caller. (Public projects can be read by all, but are listed only for holders of a token
    /// for them.)
    pub fn lists(&self, project: &ProjectSlug) -> bool {
        match self {
            Caller::Anonymous => false,
            Caller::Reader(own) => own == project,
            Caller::Admin => true,
        }
    }

    /// The projects that a list shows to this caller.
    pub fn visible(&self) -> Visible {
        match self {
            Caller::Anonymous => Visible::Only(Vec::new()),
            Caller::Reader(own) => Visible::Only(vec![own.clone()]),
            Caller::Admin => Visible::All,
        }
    }

    /// The only project listed for this caller, if there is exactly one.
    pub fn only(&self) -> Option<&ProjectSlug> {
        match self {
            Caller::Reader(own) => Some(own),
            Caller::Anonymous | Caller::Admin => None,
        }
    }

    /// Whether the caller has a session to sign out of, or a token.
    pub fn is_known(&self) -> bool {
        *self != Caller::Anonymous
    }
}
