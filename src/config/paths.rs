//! Settings of where the script and the beacon endpoint are served.

use super::Config;
use anyhow::Context;
use anyhow::anyhow;
use schemas::paths::{EndpointPaths, ServedPath};

impl Config {
    /// Further paths of the script; none may be the beacons'.
    pub(super) fn more_script_paths(&self) -> anyhow::Result<Vec<EndpointPaths>> {
        let beacon = self.paths()?.beacon().parse::<ServedPath>()?;
        let scripts: Vec<ServedPath> = self.parse_list("more_script_paths", "a path such as /js/script.js")?;
        let at = |script| EndpointPaths::new(script, beacon.clone());
        scripts
            .into_iter()
            .map(at)
            .collect::<Result<_, _>>()
            .with_context(|| format!("setting `more_script_paths` ({})", self.origin("more_script_paths")))
    }

    /// The paths of script and beacons.
    ///
    /// # Errors
    /// When one is no plain path, or is the path of something else.
    pub fn paths(&self) -> anyhow::Result<EndpointPaths> {
        let path = |name| -> anyhow::Result<ServedPath> {
            let text = self.text(name).unwrap_or_default();
            text.parse()
                .map_err(|error| anyhow!("setting `{name}` is {text:?} ({}): expected {error}", self.origin(name)))
        };
        EndpointPaths::new(path("script_path")?, path("beacon_path")?).map_err(|error| {
            let (script, beacon) = (self.origin("script_path"), self.origin("beacon_path"));
            anyhow!("settings `script_path` ({script}) and `beacon_path` ({beacon}): {error}")
        })
    }
}

#[cfg(test)]
mod tests {
    use schemas::paths::ServedPath;

    #[test]
    fn no_path_of_another_route_can_be_chosen() {
        let others = ["/healthz", "/readyz", "/privacy", "/metrics"];
        let routes = query::access::table::ROUTES.iter().map(|route| route.path.replace(['{', '}'], ""));
        for path in routes.chain(others.map(str::to_owned)) {
            assert!(path.parse::<ServedPath>().is_err(), "{path}");
        }
    }
}
