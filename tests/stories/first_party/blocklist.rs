//! EasyPrivacy and the other lists that uBlock Origin has by default, as Debian packages them, against the service's names.

use adblock::Engine;
use adblock::lists::{FilterSet, ParseOptions};
use adblock::request::Request;
use anyhow::{Context, Result, ensure};
use schemas::paths::{EndpointPaths, OLD_SCRIPT};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package with the lists; `scripts/test` installs it.
const PACKAGE: &str = "webext-ublock-origin-firefox";

/// The package's lists that a browser uses by default.
const LISTS: [&str; 4] = ["easyprivacy.txt", "easylist.txt", "privacy.min.txt", "filters.min.txt"];

/// The page whose views are counted.
const PAGE: &str = "https://docs.example.org/en/latest/";

/// Hosts of the service: another site, the same site, and the docs' host, behind a proxy.
const PLACES: [&str; 5] = [
    "https://stats.example.com",
    "https://stats.example.org",
    "https://headcount.example.org",
    "https://docs.example.org",
    "https://docs.example.org/_docs",
];

/// The files of the installed package with these names.
fn lists(names: &[&str]) -> Result<Vec<PathBuf>> {
    let output = Command::new("dpkg-query").args(["--listfiles", PACKAGE]).output()?;
    ensure!(output.status.success(), "{PACKAGE} is missing; scripts/test installs it");
    let files = String::from_utf8(output.stdout)?;
    names
        .iter()
        .map(|&name| {
            let mut paths = files.lines().map(Path::new).filter(|path| path.is_file());
            let found = paths.find(|path| path.file_name().is_some_and(|file| file == name));
            found.map(Path::to_owned).with_context(|| format!("{PACKAGE} has no {name}"))
        })
        .collect()
}

/// The lists as Brave's engine applies them, which reads their syntax as uBlock Origin does.
fn engine(names: &[&str]) -> Result<Engine> {
    // With debugging, so that the rule that blocks a request is known.
    let mut filters = FilterSet::new(true);
    for path in lists(names)? {
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        ensure!(text.lines().count() > 100, "{} is a list", path.display());
        filters.add_filter_list(text, ParseOptions::default());
    }
    Ok(Engine::new_with_filter_set(filters))
}

/// The rule that blocks this request of the page, if there is one.
fn blocked_by(engine: &Engine, url: &str, kind: &str) -> Result<Option<String>> {
    let method = if kind == "ping" || kind == "xmlhttprequest" { "POST" } else { "GET" };
    let request = Request::new(url, PAGE, kind, method).map_err(|error| anyhow::anyhow!("{url}: {error:?}"))?;
    let result = engine.check_network_request(&request);
    Ok(result.should_block().then(|| format!("{:?}", result.filter)))
}

#[test]
fn easyprivacy_blocks_the_old_name_of_the_script_everywhere() -> Result<()> {
    let engine = engine(&["easyprivacy.txt"])?;
    for place in PLACES {
        let url = format!("{place}{OLD_SCRIPT}");
        ensure!(blocked_by(&engine, &url, "script")?.is_some(), "{url} is not blocked: this test shows nothing");
    }
    Ok(())
}

#[test]
fn no_default_list_blocks_the_default_names() -> Result<()> {
    let (engine, paths) = (engine(&LISTS)?, EndpointPaths::default());
    let mut requests = 0;
    for place in PLACES {
        for (path, kind) in [
            (paths.script().to_owned(), "script"),
            (paths.beacon().to_owned(), "xmlhttprequest"),
            (paths.beacon().to_owned(), "ping"),
            (paths.beacon().to_owned(), "other"),
            (format!("{}?project=sphinx", paths.pixel()), "image"),
        ] {
            // One rule blocks each ping (`navigator.sendBeacon`) to another site, whatever its name; the script uses `fetch`.
            if kind == "ping" && place.ends_with(".com") {
                ensure!(blocked_by(&engine, "https://stats.example.com/a/name/of/nothing", kind)?.is_some());
                continue;
            }
            let url = format!("{place}{path}");
            let rule = blocked_by(&engine, &url, kind)?;
            ensure!(rule.is_none(), "{url} as {kind} is blocked by {rule:?}");
            requests += 1;
        }
    }
    println!("{requests} requests of the default names against {LISTS:?} of {PACKAGE}: none is blocked");
    Ok(())
}
