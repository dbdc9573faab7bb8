//! Beacon → accepted page, or a typed rejection. A pure function: registry and hour are arguments.

use crate::hygiene::{clean_label, clean_language, clean_page_host, clean_referrer_host};
use crate::projects::{Lookup, Projects};
use schemas::beacon::{Arrivals, Beacon, Kind};
use schemas::proto::{Fact, Source};
use schemas::record::MAX_LABEL_BYTES;
use schemas::{Host, Hour, InvalidSlug, ProjectSlug, Rejection, RejectionReason};
use url::Url;

/// An accepted page view, before its visitor is computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedPage {
    /// The page's project.
    pub project: ProjectSlug,
    /// Cleaned path.
    pub path: String,
    /// HTTP status of the page.
    pub status: u16,
    /// Empty if unknown.
    pub version: String,
    /// Empty if unknown.
    pub language: String,
    /// Cleaned host of another site; empty for internal and direct views.
    pub referrer_host: String,
    /// Whether the reader came from outside the project.
    pub arrival: bool,
    /// Id of the view as sent; 0 if none was sent. Stored as [`crate::visitor::stored_id`].
    pub event_id: u64,
    /// Which script sent it.
    pub source: Source,
    /// What the beacon reports. Only a view is counted as one.
    pub kind: Kind,
    /// Whether the script found that a program drives the browser.
    pub is_automated: bool,
    /// Facts that were sent and cannot be used; the view is counted without them.
    pub dropped: Vec<Fact>,
}

/// A refusal, and the project whose report shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The project concerned, if it is known.
    pub project: Option<ProjectSlug>,
    /// The reason.
    pub rejection: Rejection,
    /// The page's cleaned host if it is the reason; else empty.
    pub host: String,
    /// Whether a host pattern has the host, but may admit no more new projects now. The response does not reveal it.
    pub is_over_new_names: bool,
}

impl From<Rejection> for Refused {
    fn from(rejection: Rejection) -> Self {
        Refused { project: None, rejection, host: String::new(), is_over_new_names: false }
    }
}

const URL: &str = "an absolute http or https URL";

/// Longest host of a referrer in bytes.
const MAX_REFERRER_HOST_BYTES: usize = MAX_LABEL_BYTES;

/// Accepts or refuses one beacon in the current `hour`, sent from a client `network` (hashed under the process's secret).
///
/// All refusals that depend on the registry are one value (`not_counted_here`), so the response does not reveal whether a project exists. Only
/// project and page URL can cause a refusal: an unusable optional fact is dropped.
pub fn accept(mut beacon: Beacon, projects: &Projects, hour: Hour, network: u64) -> Result<AcceptedPage, Refused> {
    let (named, url, host) = project_and_page(&mut beacon)
        .map_err(|rejection| Refused { project: concerned(&beacon, projects), ..Refused::from(rejection) })?;
    let by_alias = projects.named_by_alias(beacon.source, &beacon.aliases, &host);
    let (project, new) = match projects.find_named(named.as_ref(), by_alias.as_ref(), &host) {
        Lookup::Found(project) => (project, false),
        Lookup::New(project) => (project, true),
        not_found => {
            // Both are computed in every case, so that refusals for existing and for unknown projects take the same time.
            let (concerned, page_host) = (concerned(&beacon, projects), clean_page_host(&url, &host));
            let project = concerned.or(named.or(by_alias).filter(|slug| projects.is_known(slug)));
            let (reason, host) = match not_found {
                Lookup::Foreign(_) => (RejectionReason::ForeignHost, page_host),
                Lookup::Ambiguous => (RejectionReason::AmbiguousProject, String::new()),
                _ => (RejectionReason::UnknownProject, String::new()),
            };
            return Err(Refused { project, host, ..not_counted_here(reason).into() });
        }
    };
    let (from_outside, referrer_host) = arrival(&mut beacon, projects, &project, &host);
    let arrival = match beacon.arrivals {
        Arrivals::Exact => from_outside,
        Arrivals::ForeignReferrer => !referrer_host.is_empty(),
        Arrivals::Unknown => false,
    };
    // Last, so that only an otherwise acceptable beacon uses up one of the hour's new names.
    if new && !projects.admit(&project, hour.0, network) {
        let rejection = not_counted_here(RejectionReason::UnknownProject);
        return Err(Refused { is_over_new_names: true, ..rejection.into() });
    }
    Ok(AcceptedPage {
        path: projects.rules(&project).clean(&url),
        project,
        status: beacon.status.unwrap_or(200),
        version: clean_label(beacon.version.as_deref().unwrap_or("")),
        language: clean_language(beacon.language.as_deref().unwrap_or("")),
        referrer_host,
        arrival,
        event_id: beacon.id.unwrap_or(0),
        source: beacon.source,
        kind: beacon.kind,
        is_automated: beacon.automated,
        dropped: beacon.dropped,
    })
}

/// The project that the beacon names, and its page's URL and host.
fn project_and_page(beacon: &mut Beacon) -> Result<(Option<ProjectSlug>, Url, Host), Rejection> {
    if let Some(rejection) = beacon.refusal.take() {
        return Err(rejection);
    }
    let slug = |text: &String| {
        let parsed = text.parse::<ProjectSlug>();
        parsed.map_err(|_| Rejection::field(RejectionReason::InvalidField, "project", InvalidSlug::EXPECTED))
    };
    let named = beacon.project.as_ref().map(slug).transpose()?;
    let url = beacon.url.as_deref().ok_or_else(|| Rejection::field(RejectionReason::MissingField, "url", URL))?;
    let (url, host) = page_address(url).ok_or_else(|| Rejection::field(RejectionReason::InvalidField, "url", URL))?;
    Ok((named, url, host))
}

/// The project whose report shows that a beacon was refused: the one that the beacon names, else the one that its page's host belongs to. Only
/// registered or admitted projects qualify; otherwise a forger could fill the tally.
pub(crate) fn concerned(beacon: &Beacon, projects: &Projects) -> Option<ProjectSlug> {
    let named = beacon.project.as_deref().and_then(|text| text.parse::<ProjectSlug>().ok());
    let named = named.filter(|slug| projects.is_known(slug));
    let host = beacon.url.as_deref().and_then(page_address).map(|(_, host)| host);
    let of_host = host.and_then(|host| match projects.find(None, &host) {
        Lookup::Found(project) => Some(project),
        Lookup::New(_) | Lookup::Unknown | Lookup::Foreign(_) | Lookup::Ambiguous => None,
    });
    named.or(of_host)
}

/// Whether the reader came from outside the project, and the cleaned host of the other site. An unusable referrer counts as none.
fn arrival(beacon: &mut Beacon, projects: &Projects, project: &ProjectSlug, page_host: &Host) -> (bool, String) {
    let Some(referrer) = beacon.referrer.take() else { return (true, String::new()) };
    let Ok(url) = Url::parse(&referrer) else {
        beacon.drop_fact(Fact::Referrer);
        return (true, String::new());
    };
    // Apps and browsers' internal pages (`android-app:`, `about:`) count as direct arrivals.
    if !is_web(&url) {
        return (true, String::new());
    }
    match Host::of(&url) {
        Some(from) if from == *page_host || projects.is_own_host(project, &from) => (false, String::new()),
        Some(from) if from.as_str().len() <= MAX_REFERRER_HOST_BYTES => (true, clean_referrer_host(from.as_str())),
        _ => {
            beacon.drop_fact(Fact::Referrer);
            (true, String::new())
        }
    }
}

/// The one refusal of beacons that belong to no registered project. `reason` is for the report; the sender sees the rest,
/// which is the same for all reasons.
fn not_counted_here(reason: RejectionReason) -> Rejection {
    let expected = "a page on a host that is registered for its project here, and the project's slug in `project` where \
                    several projects share the host";
    Rejection::field(reason, "url", expected)
}

/// The absolute http or https URL of a page, and its host.
fn page_address(text: &str) -> Option<(Url, Host)> {
    let url = Url::parse(text).ok().filter(is_web)?;
    let host = Host::of(&url)?;
    Some((url, host))
}

fn is_web(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::projects::{NewNames, ProjectSnapshot};
    use serde_json::json;
    use std::collections::BTreeMap;

    fn projects() -> Projects {
        let projects = Projects::new(Vec::new(), NewNames { per_hour: 0, per_network: 0 });
        let hosts = |hosts: &[&str]| hosts.iter().map(|host| host.parse().unwrap()).collect();
        projects.replace(ProjectSnapshot::new(&BTreeMap::from([
            ("sphinx".parse().unwrap(), hosts(&["docs.example", "www.example"])),
            ("one".parse().unwrap(), hosts(&["shared.example"])),
            ("two".parse().unwrap(), hosts(&["shared.example"])),
        ])));
        projects
    }

    fn beacon(url: &str, referrer: &str) -> Beacon {
        Beacon {
            url: Some(url.to_owned()),
            referrer: (!referrer.is_empty()).then(|| referrer.to_owned()),
            ..Beacon::default()
        }
    }

    #[test]
    fn an_arrival_comes_from_outside_the_project() {
        let projects = projects();
        let page =
            |referrer: &str| accept(beacon("https://docs.example/a?q=1#x", referrer), &projects, Hour(1), 7).unwrap();
        assert_eq!(page("").path, "/a");
        for (referrer, arrival, host) in [
            ("", true, ""),
            ("https://docs.example/b", false, ""),
            ("https://www.example/b", false, ""),
            ("https://www.search.example/?q=secret", true, "search.example"),
            ("android-app://com.example/", true, ""),
        ] {
            let page = page(referrer);
            assert_eq!((page.arrival, page.referrer_host.as_str()), (arrival, host), "{referrer}");
            assert_eq!(page.dropped, [], "{referrer}");
        }
    }

    #[test]
    fn an_unusable_referrer_is_none_and_a_long_path_of_it_does_not_matter() {
        let projects = projects();
        let page = |referrer: &str| accept(beacon("https://docs.example/a", referrer), &projects, Hour(1), 7).unwrap();
        let label = "a".repeat(60);
        let long_host = format!("https://{}example/", format!("{label}.").repeat(5));
        let long_user = format!("https://{}@search.example/", "u".repeat(5000));
        for (referrer, host) in [
            ("newsletter", None),
            ("-", None),
            ("null", None),
            ("https://a b/", None),
            ("/relative", None),
            ("https://", None),
            ("https://.../", None),
            (&long_host, None),
            (&format!("https://search.example/{}", "x".repeat(9000)), Some("search.example")),
            (&long_user, Some("search.example")),
        ] {
            let page = page(referrer);
            let dropped = if host.is_none() { vec![Fact::Referrer] } else { vec![] };
            let found = (page.arrival, page.referrer_host.as_str(), page.dropped);
            assert_eq!(found, (true, host.unwrap_or(""), dropped), "{referrer}");
        }
    }

    #[test]
    fn a_page_of_250_thai_letters_is_taken_whole() {
        let name = "ก".repeat(250);
        let encoded = "%E0%B8%81".repeat(250);
        for url in [format!("https://docs.example/{name}"), format!("https://docs.example/{encoded}")] {
            let page = accept(beacon(&url, ""), &projects(), Hour(1), 7).unwrap();
            assert_eq!(page.path, format!("/{name}"));
        }
    }

    #[test]
    fn a_refusal_is_in_the_report_of_the_project_that_it_names_or_implies() {
        let projects = projects();
        let docs = "https://docs.example/a";
        for (body, reason, project) in [
            (json!({"project": "sphinx"}), RejectionReason::MissingField, Some("sphinx")),
            (json!({"project": "sphinx", "url": "/a"}), RejectionReason::InvalidField, Some("sphinx")),
            (json!({"project": "sphinx", "url": 5}), RejectionReason::InvalidField, Some("sphinx")),
            (json!({"project": "sphinx", "url": "https://a/\tb"}), RejectionReason::ControlCharacters, Some("sphinx")),
            (json!({"project": "No Slug", "url": docs}), RejectionReason::InvalidField, Some("sphinx")),
            (json!({"project": 5, "url": docs}), RejectionReason::InvalidField, Some("sphinx")),
            (json!({"project": "nobody", "url": docs}), RejectionReason::UnknownProject, Some("sphinx")),
            (json!({"project": "nobody", "url": "/a"}), RejectionReason::InvalidField, None),
            (json!({"project": "nobody", "url": "https://shared.example/"}), RejectionReason::UnknownProject, None),
            (json!({"url": "https://shared.example/"}), RejectionReason::AmbiguousProject, None),
            (json!({"url": "https://elsewhere.example/"}), RejectionReason::UnknownProject, None),
        ] {
            let beacon = Beacon::from_json(body.to_string().as_bytes()).unwrap();
            let refused = accept(beacon, &projects, Hour(1), 7).unwrap_err();
            let shown = refused.project.as_ref().map(ProjectSlug::as_str);
            assert_eq!((refused.rejection.reason, shown, refused.host.as_str()), (reason, project, ""), "{body}");
        }
    }

    #[test]
    fn refusals_name_field_and_project() {
        let projects = projects();
        let refused = |beacon: Beacon| accept(beacon, &projects, Hour(1), 7).unwrap_err();
        let missing = refused(Beacon::default());
        assert_eq!((missing.rejection.reason, missing.rejection.field), (RejectionReason::MissingField, Some("url")));
        for url in ["/relative", "ftp://docs.example/", "javascript:alert(1)", "https://"] {
            assert_eq!(refused(beacon(url, "")).rejection.reason, RejectionReason::InvalidField, "{url}");
        }
        let mut foreign = beacon("https://elsewhere.example/", "");
        assert_eq!(refused(foreign.clone()).rejection.reason, RejectionReason::UnknownProject);
        foreign.project = Some("sphinx".to_owned());
        let refusal = refused(foreign);
        assert_eq!(refusal.rejection.reason, RejectionReason::ForeignHost);
        assert_eq!(refusal.project.unwrap().as_str(), "sphinx");
        assert_eq!(refusal.host, "elsewhere.example");
        for (url, host) in [
            ("https://www.elsewhere.example:8443/a?q=1", "www.elsewhere.example:8443"),
            ("https://BÜCHER.example/", "xn--bcher-kva.example"),
            ("https://jane@elsewhere.example/", ""),
            ("https://:secret@elsewhere.example/", ""),
            ("https://192.0.2.7/", ""),
            ("https://192.0.2.7:8000/", ""),
            ("https://0xc0000207/", ""),
            ("https://[2001:db8::7]/", ""),
            ("https://[2001:db8::7]:8000/", ""),
            ("https://550e8400e29b41d4a716.example/", ""),
            (&format!("https://{}/", "a.".repeat(130)), ""),
        ] {
            let named = Beacon { project: Some("sphinx".to_owned()), ..beacon(url, "") };
            let refusal = refused(named);
            assert_eq!(
                (refusal.rejection.reason, refusal.host.as_str()),
                (RejectionReason::ForeignHost, host),
                "{url}"
            );
        }
        let unknown =
            refused(Beacon { project: Some("nobody".to_owned()), ..beacon("https://elsewhere.example/", "") });
        assert_eq!((unknown.project, unknown.host.as_str()), (None, ""), "nobody is told of it");
        let shared = refused(beacon("https://shared.example/", ""));
        assert_eq!((shared.project, shared.rejection.reason), (None, RejectionReason::AmbiguousProject));
    }

    #[test]
    fn no_refusal_reveals_the_registry() {
        let projects = projects();
        let answer = |project: Option<&str>, url: &str, referrer: &str| {
            let beacon = Beacon { project: project.map(str::to_owned), ..beacon(url, referrer) };
            let rejection = accept(beacon, &projects, Hour(1), 7).unwrap_err().rejection;
            assert!(rejection.reason.is_about_registry(), "{project:?} {url}: {rejection}");
            (rejection.reason.status(), rejection.field, rejection.expected)
        };
        let unknown = answer(Some("nobody"), "https://elsewhere.example/", "");
        for referrer in ["", "not a url"] {
            for (project, url) in [
                (Some("sphinx"), "https://elsewhere.example/"),
                (Some("sphinx"), "https://shared.example/"),
                (Some("nobody"), "https://docs.example/"),
                (None, "https://elsewhere.example/"),
                (None, "https://shared.example/"),
            ] {
                assert_eq!(answer(project, url, referrer), unknown, "{project:?} {url} {referrer}");
            }
        }
    }

    #[test]
    fn only_welcome_beacons_use_up_new_names() {
        let projects =
            Projects::new(vec!["{project}.rtd.example".parse().unwrap()], NewNames { per_hour: 1, per_network: 0 });
        let try_one = |url: &str| accept(beacon(url, ""), &projects, Hour(1), 7);
        for forged in 0..100 {
            let beacon = Beacon {
                project: Some("No Slug".to_owned()),
                ..beacon(&format!("https://forged{forged}.rtd.example/"), "")
            };
            let refused = accept(beacon, &projects, Hour(1), 7).unwrap_err();
            assert_eq!((refused.project, refused.rejection.field), (None, Some("project")));
        }
        assert_eq!(try_one("https://real.rtd.example/").unwrap().project.as_str(), "real");
        let over = try_one("https://second.rtd.example/").unwrap_err();
        assert_eq!((over.project, over.rejection.reason), (None, RejectionReason::UnknownProject));
        assert!(over.is_over_new_names);
        assert_eq!(try_one("https://real.rtd.example/").unwrap().project.as_str(), "real");
        let named = Beacon { project: Some("real".to_owned()), ..Beacon::default() };
        let refused = accept(named, &projects, Hour(1), 7).unwrap_err();
        assert_eq!(refused.project.unwrap().as_str(), "real");
    }
}
