//! Settings of the paths of the script and of the beacon endpoint.

use super::values::{InvalidValue, Items, Parsed, all, items};
use anyhow::Context;
use schemas::paths::{EndpointPaths, PathError, ServedPath};

/// Paths of the script and of beacons. The reports print the script's path, so all processes need the same.
#[derive(clap::Args)]
pub struct PathSettings {
    /// Path of the script; set it on every process
    #[arg(long, value_name = "PATH", default_value = "/page.js", value_parser = served_path)]
    script_path: ServedPath,
    /// Path of beacons; set it on every process
    #[arg(long, value_name = "PATH", default_value = "/v1/page", value_parser = served_path)]
    beacon_path: ServedPath,
}

fn served_path(text: &str) -> Parsed<ServedPath> {
    text.trim().parse().map_err(|error: PathError| InvalidValue::expected(error))
}

impl PathSettings {
    /// The paths of script and beacons.
    ///
    /// # Errors
    /// They are the same.
    pub fn endpoint(&self) -> anyhow::Result<EndpointPaths> {
        Ok(EndpointPaths::new(self.script_path.clone(), self.beacon_path.clone())?)
    }
}

/// Further paths of the script.
#[derive(clap::Args)]
pub struct MorePathSettings {
    /// Further path of the script, such as /js/script.js; repeatable
    #[arg(long, value_name = "PATH", value_parser = served_paths)]
    more_script_paths: Vec<Items<ServedPath>>,
}

fn served_paths(text: &str) -> Parsed<Items<ServedPath>> {
    items(text, |text| text.parse().ok(), "a path such as /js/script.js")
}

impl MorePathSettings {
    /// Each further path of the script, with the beacons' path.
    ///
    /// # Errors
    /// One is the beacons' path.
    pub fn endpoints(&self, paths: &EndpointPaths) -> anyhow::Result<Vec<EndpointPaths>> {
        let beacon = paths.beacon().parse::<ServedPath>()?;
        let at = |script| EndpointPaths::new(script, beacon.clone());
        let endpoints: Result<_, _> = all(&self.more_script_paths).into_iter().map(at).collect();
        endpoints.context("setting `more_script_paths`")
    }
}

#[cfg(test)]
mod tests {
    use schemas::paths::ServedPath;

    #[test]
    fn no_path_of_another_route_can_be_chosen() {
        let others = ["/healthz", "/readyz", "/privacy", "/metrics"];
        let routes = query::routes().flat_map(|route| route.paths()).map(|path| path.replace(['{', '}'], ""));
        for path in routes.chain(others.map(str::to_owned)) {
            assert!(path.parse::<ServedPath>().is_err(), "{path}");
        }
    }
}
