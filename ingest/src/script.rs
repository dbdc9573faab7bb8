//! The script that documentation pages load, and the headers it is served with.

use bytes::Bytes;
use schemas::paths::EndpointPaths;

/// The served script: `beacon/beacon.js`, minified by `scripts/beacon`.
pub const BEACON_JS: &str = include_str!("../beacon/beacon.min.js");

/// Content type of the script.
pub const CONTENT_TYPE: &str = "text/javascript; charset=utf-8";

/// How long a browser may cache the script.
///
/// A day, and without a validator. An `ETag` or `Last-Modified` is a value that the browser stores and sends back. A service could choose a different
/// one for each reader and recognise them by it (privacy statement 1). After a day the browser fetches the script again; it is about a kilobyte.
pub const CACHE_CONTROL: &str = "public, max-age=86400";

/// The path of beacons as the built script has it, relative to the script.
const BEACON_IN_SCRIPT: &str = "v1/pageview";

/// The script as it is served at `paths`: it posts to the beacons' path, found from its own.
pub fn for_paths(paths: &EndpointPaths) -> Bytes {
    Bytes::from(BEACON_JS.replace(BEACON_IN_SCRIPT, &paths.beacon_beside_script()))
}

#[cfg(test)]
mod tests {
    use super::{BEACON_IN_SCRIPT, BEACON_JS, for_paths};
    use schemas::paths::EndpointPaths;
    use std::process::Command;

    /// Maximum bytes on the wire that counting costs a page.
    const BUDGET_BYTES: usize = 1400;

    const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/beacon");

    #[test]
    fn the_script_fits_its_budget() {
        let gzip = Command::new("gzip").args(["-9", "-n", "-c", "beacon.min.js"]).current_dir(FOLDER).output().unwrap();
        let bytes = gzip.stdout.len();
        assert!(gzip.status.success() && bytes <= BUDGET_BYTES, "{bytes} bytes gzipped, {BUDGET_BYTES} allowed");
    }

    #[test]
    fn the_minified_script_is_current() {
        let check = Command::new("sha256sum").args(["--check", "beacon.sha256"]).current_dir(FOLDER).output().unwrap();
        let said = String::from_utf8_lossy(&check.stdout);
        assert!(check.status.success(), "run scripts/beacon after a change of beacon.js:\n{said}");
    }

    #[test]
    fn the_script_names_the_beacons_path_once_and_as_a_whole() {
        assert_eq!(BEACON_JS.matches(BEACON_IN_SCRIPT).count(), 1, "{BEACON_JS}");
        let quoted = |path: &str| ['\'', '"', '`'].map(|quote| format!("{quote}{path}{quote}"));
        assert!(quoted(BEACON_IN_SCRIPT).iter().any(|literal| BEACON_JS.contains(literal)), "{BEACON_JS}");
        let paths = EndpointPaths::new("/a/b/c.js".parse().unwrap(), "/a/d".parse().unwrap()).unwrap();
        let script = String::from_utf8(for_paths(&paths).to_vec()).unwrap();
        assert!(quoted("../d").iter().any(|literal| script.contains(literal)), "{script}");
        assert!(!script.contains(BEACON_IN_SCRIPT));
        let old = EndpointPaths::new("/beacon.js".parse().unwrap(), "/v1/pageview".parse().unwrap()).unwrap();
        assert_eq!(for_paths(&old), BEACON_JS);
    }

    /// The part of statement 1 that reading the script can show; the browser stories show the rest.
    #[test]
    fn the_script_names_no_way_to_know_a_browser_again() {
        for name in [
            "cookie",
            "setItem",
            "sessionStorage",
            "indexedDB",
            "caches",
            "userAgent",
            "plugins",
            "screen",
            "canvas",
            "Intl",
            "getTimezoneOffset",
            "hardwareConcurrency",
            "deviceMemory",
            "languages",
            "getBattery",
            "fonts",
            "WebGL",
            "AudioContext",
            "devicePixelRatio",
            "innerWidth",
            "eval",
            "http:",
            "https:",
        ] {
            assert!(!BEACON_JS.contains(name), "the script names {name}");
        }
        // One bit that is the same in the browsers of all readers: whether a program drives the browser.
        assert_eq!(BEACON_JS.matches("webdriver").count(), 2);
        assert!(BEACON_JS.contains("webdriver:+navigator.webdriver"));
    }
}
