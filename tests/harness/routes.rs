//! The routes of reports, as requests.

use query::route::{Method, Route, Rule};

/// A request for a route.
#[derive(Clone, Debug)]
pub struct RouteRequest {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// The path, with an example for each parameter.
    pub path: String,
    /// The route's rule.
    pub route: Route,
}

/// A request for each path of the table of routes, with `project` in it.
pub fn requests(project: &str) -> Vec<RouteRequest> {
    let of_route = |route: &'static Route| {
        let name = if route.rule == Rule::Badge { format!("{project}.svg") } else { project.to_owned() };
        let example = move |path: String| {
            path.replace("{project}", &name).replace("{span}", "2026-01").replace("{dimension}", "browser")
        };
        route.paths().map(example).map(|path| RouteRequest { method: route.method.name(), path, route: *route })
    };
    query::routes().flat_map(of_route).collect()
}

/// Whether a request is the form that signs in or out. It changes the sessions of later requests.
pub fn changes_session(request: &RouteRequest) -> bool {
    request.route.method == Method::Post
}
