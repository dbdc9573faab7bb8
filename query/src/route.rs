//! A row of the table of routes: its path, its method, who may call it, and its documentation.

use axum::http;
use axum::routing::MethodFilter;
use std::collections::HashMap;

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

/// The method of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `GET`, and `HEAD`.
    Get,
    /// `POST`
    Post,
}

impl Method {
    /// The name as in a request.
    pub const fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
        }
    }

    pub(crate) const fn filter(self) -> MethodFilter {
        match self {
            Method::Get => MethodFilter::GET,
            Method::Post => MethodFilter::POST,
        }
    }

    fn accepts(self, method: &http::Method) -> bool {
        match self {
            Method::Get => matches!(*method, http::Method::GET | http::Method::HEAD),
            Method::Post => *method == http::Method::POST,
        }
    }
}

/// What the OpenAPI document states about a route of `/v1`. Such a route also has a CSV form, whose path ends with `.csv`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Documented {
    pub(crate) summary: &'static str,
    /// Names of parameters, as `openapi` has them.
    pub(crate) parameters: &'static [&'static str],
    /// The name of the response's schema.
    pub(crate) schema: fn() -> String,
}

/// A route, without its handler.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The path as the router has it.
    pub path: &'static str,
    /// The method.
    pub method: Method,
    /// Who may use it.
    pub rule: Rule,
    /// Its clients.
    pub audience: Audience,
    pub(crate) documented: Option<Documented>,
}

impl Route {
    /// The paths of the route: its own, and that of its CSV form if the last segment is no parameter. (A parameter contains the `.csv`.)
    pub fn paths(&self) -> impl Iterator<Item = String> + use<> {
        let csv = (self.documented.is_some() && !self.path.ends_with('}')).then(|| format!("{}.csv", self.path));
        [self.path.to_owned()].into_iter().chain(csv)
    }
}

/// The routes that the guard knows, by path.
pub(crate) struct RouteTable(HashMap<String, Vec<&'static Route>>);

impl RouteTable {
    pub(crate) fn of(routes: impl Iterator<Item = &'static Route>) -> Self {
        let mut by_path: HashMap<String, Vec<&'static Route>> = HashMap::new();
        for route in routes {
            for path in route.paths() {
                by_path.entry(path).or_default().push(route);
            }
        }
        RouteTable(by_path)
    }

    /// The route of a path that the router matched. For a method that no route has, the path's first route: callers without access to it do
    /// not learn its methods.
    pub(crate) fn find(&self, matched: &str, method: &http::Method) -> Option<&'static Route> {
        let routes = self.0.get(matched)?;
        routes.iter().find(|route| route.method.accepts(method)).or(routes.first()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::routes;

    #[test]
    fn a_path_without_a_row_has_no_rule() {
        let table = RouteTable::of(routes());
        let rule = |path: &str| table.find(path, &http::Method::GET).map(|route| route.rule);
        for (path, expected) in [
            ("/v1/projects/{project}/reports/{span}", Rule::OfProject),
            ("/v1/projects/{project}/reports/{span}/days.csv", Rule::OfProject),
            ("/v1/projects.csv", Rule::SignedIn),
            ("/projects/{project}", Rule::OfProject),
            ("/sign-in", Rule::Open),
        ] {
            assert_eq!(rule(path), Some(expected), "{path}");
        }
        for unknown in [
            "",
            "/projects/{slug}",
            "/projects/{project}/{span}/secrets",
            "/projects/{project}/{*rest}",
            "/sign-in.csv",
        ] {
            assert_eq!(rule(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_row_is_found_by_its_method() {
        let table = RouteTable::of(routes());
        let method = |method: http::Method| table.find("/sign-in", &method).map(|route| route.method);
        assert_eq!(method(http::Method::HEAD), Some(Method::Get));
        assert_eq!(method(http::Method::POST), Some(Method::Post));
        assert_eq!(method(http::Method::DELETE), Some(Method::Get), "the rule applies, then the router returns 405");
    }
}
