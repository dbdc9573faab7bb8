//! Beacon → accepted page, or a named rejection. A function of values: registry and hour are arguments.

use crate::hygiene::{clean_label, clean_language, clean_page_host, clean_referrer_host};
use crate::projects::{Lookup, Projects};
use schemas::beacon::Beacon;
use schemas::{Host, Hour, ProjectSlug, Rejection, RejectionReason};
use url::Url;

/// A page view that is welcome, before it has a visitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedPage {
    /// Whose page.
    pub project: ProjectSlug,
    /// Cleaned path.
    pub path: String,
    /// HTTP status of the page.
    pub status: u16,
    /// Empty where unknown.
    pub version: String,
    /// Empty where unknown.
    pub language: String,
    /// Cleaned host of another site; empty for internal and direct views.
    pub referrer_host: String,
    /// Whether the reader came from outside the project.
    pub arrival: bool,
    /// Id of the view as it was sent; 0 where none was sent. Stored as [`crate::visitor::stored_id`].
    pub event_id: u64,
}

/// A refusal, and the project to tell of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The project concerned, where it is known.
    pub project: Option<ProjectSlug>,
    /// Why.
    pub rejection: Rejection,
    /// The page's host, cleaned, where it is why; else empty.
    pub host: String,
}

impl From<Rejection> for Refused {
    fn from(rejection: Rejection) -> Self {
        Refused { project: None, rejection, host: String::new() }
    }
}

const URL: &str = "an absolute http or https URL";

/// Decides on one beacon in the present `hour`, sent from a client `network` (hashed under the process's secret).
///
/// Whether the page belongs to a registered project is decided before optional facts are checked, and all refusals that
/// depend on the registry are one value ([`not_counted_here`]): neither the answer nor the order of checks reveals whether a
/// project exists.
pub fn accept(beacon: Beacon, projects: &Projects, hour: Hour, network: u64) -> Result<AcceptedPage, Refused> {
    let named = match &beacon.project {
        None => None,
        Some(text) => Some(
            text.parse::<ProjectSlug>()
                .map_err(|error| Rejection::field(RejectionReason::InvalidField, "project", error.to_string()))?,
        ),
    };
    let url = beacon.url.as_deref().ok_or_else(|| Rejection::field(RejectionReason::MissingField, "url", URL))?;
    let (url, host) = page_address("url", url)?;
    // Cleaned in every case, so that a refusal that has a use for it does not take longer than one that has none.
    let page_host = clean_page_host(&url, &host);
    let refused = |project, reason, host| Err(Refused { project, rejection: not_counted_here(reason), host });
    let (project, new) = match projects.find(named.as_ref(), &host) {
        Lookup::Found(project) => (project, false),
        Lookup::New(project) => (project, true),
        Lookup::Unknown => return refused(None, RejectionReason::UnknownProject, String::new()),
        Lookup::Foreign(project) => return refused(Some(project), RejectionReason::ForeignHost, page_host),
        Lookup::Ambiguous => return refused(None, RejectionReason::AmbiguousProject, String::new()),
    };
    let (arrival, referrer_host) = match beacon.referrer.as_deref() {
        None => (true, String::new()),
        Some(referrer) => match referrer_host(referrer) {
            Ok(None) => (true, String::new()),
            Ok(Some(from)) if from == host || projects.is_own_host(&project, &from) => (false, String::new()),
            Ok(Some(from)) => (true, clean_referrer_host(from.as_str())),
            // Refusals are tallied under names that are admitted, or a forger fills the tally.
            Err(rejection) => {
                return Err(Refused { project: (!new).then_some(project), rejection, host: String::new() });
            }
        },
    };
    // Last, so that only a beacon that is welcome otherwise uses up one of the hour's new names.
    if new && !projects.admit(&project, hour.0, network) {
        return refused(None, RejectionReason::UnknownProject, String::new());
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
    })
}

/// The one refusal of beacons that belong to no registered project. `reason` is for the report; the sender sees the rest,
/// which is the same for all reasons.
fn not_counted_here(reason: RejectionReason) -> Rejection {
    let expected = "a page on a host that is registered for its project here, and the project's slug in `project` where \
                    several projects share the host";
    Rejection::field(reason, "url", expected)
}

fn page_address(field: &'static str, text: &str) -> Result<(Url, Host), Rejection> {
    let refusal = || Rejection::field(RejectionReason::InvalidField, field, URL);
    let url = Url::parse(text).map_err(|_| refusal())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refusal());
    }
    let host = Host::of(&url).ok_or_else(refusal)?;
    Ok((url, host))
}

/// The host that a referrer names. Apps and browsers' own pages (`android-app:`, `about:`) count as direct arrivals.
fn referrer_host(text: &str) -> Result<Option<Host>, Rejection> {
    let url = Url::parse(text)
        .map_err(|_| Rejection::field(RejectionReason::InvalidField, "referrer", "an absolute URL, or nothing"))?;
    Ok(if matches!(url.scheme(), "http" | "https") { Host::of(&url) } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::projects::{NewNames, ProjectSnapshot};
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
        let told = refused(beacon("https://docs.example/", "not a url"));
        assert_eq!(told.rejection.field, Some("referrer"));
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
        let try_one = |url: &str, referrer: &str| accept(beacon(url, referrer), &projects, Hour(1), 7);
        for forged in 0..100 {
            let refused = try_one(&format!("https://forged{forged}.rtd.example/"), "not a url").unwrap_err();
            assert_eq!((refused.project, refused.rejection.field), (None, Some("referrer")));
        }
        assert_eq!(try_one("https://real.rtd.example/", "").unwrap().project.as_str(), "real");
        let over = try_one("https://second.rtd.example/", "").unwrap_err();
        assert_eq!((over.project, over.rejection.reason), (None, RejectionReason::UnknownProject));
        assert_eq!(try_one("https://real.rtd.example/", "").unwrap().project.as_str(), "real");
        let told = try_one("https://real.rtd.example/", "not a url").unwrap_err();
        assert_eq!(told.project.unwrap().as_str(), "real");
    }
}
