//! The script that documentation pages load, and the headers it is served with.

use bytes::Bytes;
use schemas::paths::EndpointPaths;

/// The served script: `beacon/beacon.js` without comments and blanks.
pub const BEACON_JS: &str = include_str!(concat!(env!("OUT_DIR"), "/beacon.js"));

/// Content type of the script.
pub const CONTENT_TYPE: &str = "text/javascript; charset=utf-8";

/// How long a browser may keep the script.
///
/// A day, and nothing to revalidate it with: an `ETag` or `Last-Modified` is a value that the browser stores and sends
/// back, which a service could choose anew for each reader and so know them again (privacy statement 1). After a day
/// the script is simply fetched again; it is about a kilobyte.
pub const CACHE_CONTROL: &str = "public, max-age=86400";

/// The path of beacons as the built script has it, relative to the script.
const BEACON_IN_SCRIPT: &str = "v1/pageview";

/// The script as it is served at `paths`: it posts to the beacons' path, found from its own.
pub fn for_paths(paths: &EndpointPaths) -> Bytes {
    Bytes::from(BEACON_JS.replace(BEACON_IN_SCRIPT, &paths.beacon_beside_script()))
}

#[cfg(test)]
#[path = "../beacon/strip.rs"]
mod strip;

#[cfg(test)]
mod tests {
    use super::{BEACON_IN_SCRIPT, BEACON_JS, for_paths, strip::strip};
    use schemas::paths::EndpointPaths;
    use std::io::Write as _;

    /// What a page pays for being counted, in bytes on the wire.
    const BUDGET_BYTES: usize = 1024;

    #[test]
    fn the_script_fits_its_budget() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(BEACON_JS.as_bytes()).unwrap();
        let bytes = gzip.finish().unwrap().len();
        assert!(bytes <= BUDGET_BYTES, "{bytes} bytes gzipped, {BUDGET_BYTES} allowed:\n{BEACON_JS}");
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
            "webdriver",
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
    }

    #[test]
    fn stripping_keeps_the_meaning() {
        for (source, stripped) in [
            ("a  +  b; // sum\nc", "a+b;c"),
            ("a + +b - -c", "a+ +b- -c"),
            ("let one = 1\nlet two = 2", "let a=1\nlet b=2"),
            ("return /* no\nvalue */ (a)", "return\n(a)"),
            ("f(a,\n  b)\n  .then(c)", "f(a,b).then(c)"),
            ("x = 'it\\'s // no  comment'", "x='it\\'s // no  comment'"),
            ("x = /[/] \" *\\//g; y = a / b / c", "x=/[/] \" *\\//g;y=a/b/c"),
            ("`a  ${ b + `c  ${ {} }` }  // d`  ;", "`a  ${ b + `c  ${ {} }` }  // d`;"),
            ("a++\nb", "a++\nb"),
            ("1 .toString()", "1 .toString()"),
            ("const f = () => {\n  g();\n}\nh()", "const a=()=>{g();}\nh()"),
            ("let page = a; f(page)", "let b=a;f(b)"),
            ("let page = {page: 1}; let item = b.item", "let page={page:1};let item=b.item"),
            ("let page = 1; f({page}); `${page}`", "let page=1;f({page});`${page}`"),
            ("let name = 1; f(`${name}`)", "let name=1;f(`${name}`)"),
            ("let page = 'page'; ({ page() {} })", "let page='page';({page(){}})"),
        ] {
            assert_eq!(strip(source).as_deref(), Ok(stripped), "of {source}");
        }
    }

    #[test]
    fn stripping_refuses_to_guess() {
        for source in ["if (a) /b/.test(c)", "'open", "`open", "/* open", "x = /open", "x = .5", "`${ a / b }`"] {
            assert!(strip(source).is_err(), "of {source}: {:?}", strip(source));
        }
    }
}
