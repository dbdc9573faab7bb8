//! The table of routes and who may use them. A route that is not in it is refused.

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// All callers.
    Open,
    /// Callers with an active token.
    SignedIn,
    /// Callers who may read the reports of the project in the path.
    OfProject,
    /// All callers, for public projects; the project in the path ends with `.svg`.
    Badge,
}

/// The clients of a route, which determine the form of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// People with a browser: without a session they are redirected to `/sign-in`.
    People,
    /// Programs: problem JSON.
    Programs,
}

/// A route's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The path as the router has it. Names of parameters do not matter, except `{project}`.
    pub path: &'static str,
    /// Who may use it.
    pub rule: Rule,
    /// Its clients.
    pub audience: Audience,
}

const fn open(path: &'static str) -> Route {
    Route { path, rule: Rule::Open, audience: Audience::People }
}

const fn people(path: &'static str, rule: Rule) -> Route {
    Route { path, rule, audience: Audience::People }
}

const fn programs(path: &'static str, rule: Rule) -> Route {
    Route { path, rule, audience: Audience::Programs }
}

/// All routes of this crate except `/privacy`, which is open. Each has a row in `tests/stories/rights.rs`, too.
pub const ROUTES: &[Route] = &[
    open("/assets/report.css"),
    open("/assets/report.js"),
    open("/v1/openapi.json"),
    open("/sign-in"),
    open("/sign-out"),
    programs("/badge/{project}", Rule::Badge),
    people("/", Rule::SignedIn),
    people("/projects/{project}", Rule::OfProject),
    people("/projects/{project}/", Rule::OfProject),
    people("/projects/{project}/{span}", Rule::OfProject),
    programs("/projects/{project}/live", Rule::OfProject),
    programs("/v1/projects", Rule::SignedIn),
    programs("/v1/projects.csv", Rule::SignedIn),
    programs("/v1/projects/{project}/reports/{span}", Rule::OfProject),
    programs("/v1/projects/{project}/reports/{span}/pages", Rule::OfProject),
    programs("/v1/projects/{project}/reports/{span}/pages.csv", Rule::OfProject),
    programs("/v1/projects/{project}/reports/{span}/not-found", Rule::OfProject),
    programs("/v1/projects/{project}/reports/{span}/not-found.csv", Rule::OfProject),
    programs("/v1/projects/{project}/reports/{span}/days", Rule::OfProject),
    programs("/v1/projects/{project}/reports/{span}/days.csv", Rule::OfProject),
    programs("/v1/projects/{project}/reports/{span}/hours", Rule::OfProject),
    programs("/v1/projects/{project}/reports/{span}/hours.csv", Rule::OfProject),
    programs("/v1/projects/{project}/reports/{span}/breakdowns/{dimension}", Rule::OfProject),
];

/// The row of a path in the form that the router matched.
pub(super) fn row_of(matched: &str) -> Option<&'static Route> {
    ROUTES.iter().find(|route| alike(route.path, matched))
}

fn alike(row: &str, matched: &str) -> bool {
    let same = |(row, matched): (&str, &str)| {
        let parameter = |segment: &str| segment.starts_with('{') && segment.ends_with('}') && segment != "{project}";
        row == matched || (parameter(row) && parameter(matched) && !matched.starts_with("{*"))
    };
    row.split('/').count() == matched.split('/').count() && row.split('/').zip(matched.split('/')).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parameters_do_not_matter_but_the_projects() {
        let rule = |path: &str| row_of(path).map(|route| route.rule);
        assert_eq!(rule("/v1/projects/{project}/reports/{month}"), Some(Rule::OfProject));
        assert_eq!(rule("/projects/{project}"), Some(Rule::OfProject));
        for unknown in [
            "",
            "/projects/{slug}",
            "/projects/{project}/{span}/secrets",
            "/projects/{project}/{*rest}",
            "/v1/projects/{project}/reports/2026-01",
            "/{project}/projects",
        ] {
            assert_eq!(row_of(unknown), None, "{unknown}");
        }
    }
}
