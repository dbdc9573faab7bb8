//! Paths of the script and of the beacon endpoint on the service's host: chosen by the operator, in addition to those that are always
//! served.

use std::fmt;
use std::str::FromStr;

/// The path of the script until version 0.1; always served, since pages and proxies use it. EasyPrivacy blocks it.
pub const OLD_SCRIPT: &str = "/beacon.js";

/// The path of beacons until version 0.1; always served.
pub const OLD_BEACON: &str = "/v1/pageview";

/// Suffix of a path that takes a beacon as an image.
pub const PIXEL_SUFFIX: &str = ".gif";

/// Most bytes of a path.
const LENGTH_MAX: usize = 128;

/// First segments of the service's other routes.
pub const RESERVED: &[&str] =
    &["assets", "badge", "healthz", "metrics", "privacy", "projects", "readyz", "sign-in", "sign-out"];

/// Segments below `/v1` of the service's other routes.
pub const RESERVED_V1: &[&str] = &["openapi.json", "projects", "projects.csv"];

/// A path that needs no escaping in a URL, in HTML, in JavaScript and in a router: segments of ASCII letters, digits, `.`, `_`, `~` and
/// `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedPath(String);

/// Why a text is not a [`ServedPath`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not start with a slash.
    #[error("a path that begins with /")]
    Relative,
    /// Other characters, an empty segment, `.` or `..`.
    #[error("segments of letters, digits, '.', '_', '~' and '-', such as /docs/page.js")]
    Segment,
    /// Too long.
    #[error("a path of at most {LENGTH_MAX} bytes")]
    Length,
    /// A route of the reports, of health or of the privacy page starts like this.
    #[error("a path that no other route of the service has")]
    Reserved,
}

impl FromStr for ServedPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let rest = text.strip_prefix('/').ok_or(PathError::Relative)?;
        if text.len() > LENGTH_MAX {
            return Err(PathError::Length);
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
        let good = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(plain);
        if !rest.split('/').all(good) {
            return Err(PathError::Segment);
        }
        let (first, below) = rest.split_once('/').unwrap_or((rest, ""));
        let second = below.split('/').next().unwrap_or_default();
        if RESERVED.contains(&first) || first == "v1" && (second.is_empty() || RESERVED_V1.contains(&second)) {
            return Err(PathError::Reserved);
        }
        Ok(ServedPath(text.to_owned()))
    }
}

impl fmt::Display for ServedPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The paths at which pages load the script and the script sends beacons.
///
/// ```
/// use headcount_schemas::paths::EndpointPaths;
///
/// let paths = EndpointPaths::new("/docs/page.js".parse()?, "/docs/v1/page".parse()?)?;
/// assert_eq!(paths.beacon_beside_script(), "v1/page");
/// assert_eq!(paths.pixel(), "/docs/v1/page.gif");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPaths {
    script: ServedPath,
    beacon: ServedPath,
}

/// Two paths of the service would be equal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the script and the beacons would share the path {0}")]
pub struct SharedPath(String);

impl EndpointPaths {
    /// The script at `script`, beacons at `beacon` and the pixel at `beacon` with `.gif`.
    ///
    /// # Errors
    /// A script and a beacon would have the same path; old paths count.
    pub fn new(script: ServedPath, beacon: ServedPath) -> Result<Self, SharedPath> {
        let paths = EndpointPaths { script, beacon };
        let old_pixel = format!("{OLD_BEACON}{PIXEL_SUFFIX}");
        let of_scripts = [paths.script(), OLD_SCRIPT];
        let of_beacons = [paths.beacon(), &paths.pixel(), OLD_BEACON, &old_pixel].map(str::to_owned);
        let shared = of_beacons.iter().find(|path| of_scripts.contains(&path.as_str()));
        // The path of beacons must not be the old path of the pixel: one takes POST, the other GET.
        let shared = shared.or_else(|| of_beacons.first().filter(|beacon| **beacon == old_pixel));
        match shared {
            Some(path) => Err(SharedPath(path.clone())),
            None => Ok(paths),
        }
    }

    /// The script's path.
    pub fn script(&self) -> &str {
        &self.script.0
    }

    /// The path that beacons are posted to.
    pub fn beacon(&self) -> &str {
        &self.beacon.0
    }

    /// The path of the pixel.
    pub fn pixel(&self) -> String {
        format!("{}{PIXEL_SUFFIX}", self.beacon.0)
    }

    /// The path of beacons as a relative reference (RFC 3986, 4.2) with the script as its base: a proxy may serve both below a prefix.
    pub fn beacon_beside_script(&self) -> String {
        let script: Vec<&str> = self.script.0[1..].split('/').collect();
        let beacon: Vec<&str> = self.beacon.0[1..].split('/').collect();
        let folders = &script[..script.len() - 1];
        let most = folders.len().min(beacon.len() - 1);
        let common = (0..most).take_while(|&at| folders[at] == beacon[at]).count();
        let up = "../".repeat(folders.len() - common);
        format!("{up}{}", beacon[common..].join("/"))
    }
}

impl Default for EndpointPaths {
    fn default() -> Self {
        EndpointPaths { script: ServedPath("/page.js".to_owned()), beacon: ServedPath("/v1/page".to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(script: &str, beacon: &str) -> Result<EndpointPaths, SharedPath> {
        EndpointPaths::new(script.parse().unwrap(), beacon.parse().unwrap())
    }

    #[test]
    fn a_path_is_plain_and_collides_with_no_route() {
        for good in ["/page.js", "/a/b-c_d~e.js", "/v1/page", "/v1/pageview", "/beacon.js", "/x", "/v10"] {
            assert!(good.parse::<ServedPath>().is_ok(), "{good}");
        }
        for (bad, expected) in [
            ("", PathError::Relative),
            ("page.js", PathError::Relative),
            ("https://a/b", PathError::Relative),
            ("/", PathError::Segment),
            ("/a//b", PathError::Segment),
            ("/a/", PathError::Segment),
            ("/a/../b", PathError::Segment),
            ("/a?b", PathError::Segment),
            ("/{a}", PathError::Segment),
            ("/a'b", PathError::Segment),
            ("/ä", PathError::Segment),
            ("/projects", PathError::Reserved),
            ("/projects/x", PathError::Reserved),
            ("/assets/report.js", PathError::Reserved),
            ("/v1", PathError::Reserved),
            ("/v1/projects/x/reports/2026-01", PathError::Reserved),
            ("/v1/openapi.json", PathError::Reserved),
        ] {
            assert_eq!(bad.parse::<ServedPath>(), Err(expected), "{bad}");
        }
        assert_eq!(format!("/{}", "a".repeat(128)).parse::<ServedPath>(), Err(PathError::Length));
    }

    #[test]
    fn script_and_beacons_do_not_share_a_path() {
        for (script, beacon) in [
            ("/a", "/a"),
            ("/a.gif", "/a"),
            ("/v1/pageview", "/a"),
            ("/v1/pageview.gif", "/a"),
            ("/a", "/beacon.js"),
            ("/a", "/v1/pageview.gif"),
        ] {
            assert!(paths(script, beacon).is_err(), "{script} {beacon}");
        }
        assert!(paths(OLD_SCRIPT, OLD_BEACON).is_ok());
    }

    #[test]
    fn the_beacons_are_found_from_the_script_by_a_relative_reference() {
        for (script, beacon, expected) in [
            ("/page.js", "/v1/page", "v1/page"),
            ("/beacon.js", "/v1/pageview", "v1/pageview"),
            ("/a/b/x.js", "/a/c/d", "../c/d"),
            ("/a/b/x.js", "/a/b/y", "y"),
            ("/a/b/x.js", "/y", "../../y"),
            ("/a/x.js", "/a", "../a"),
            ("/x.js", "/y", "y"),
        ] {
            assert_eq!(paths(script, beacon).unwrap().beacon_beside_script(), expected, "{script} {beacon}");
        }
    }
}
