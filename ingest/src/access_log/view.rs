//! From a line to what the beacon endpoint makes of a beacon: the same rules of projects, page names, referrers and classes.
//!
//! A page view of a log is a GET of a document that was answered 200, 304 (the browser had it) or 404. A redirect is none, since its
//! target follows.

use super::assets::Assets;
use super::line::{Line, NotRead};
use super::visitors::PastVisitors;
use crate::accept::{AcceptedPage, accept};
use crate::agents::{AUTOMATED_BROWSER, Classes, Classifier, OwnRules, RULES_VERSION};
use crate::client::{ClientAddress, TrustedProxies, UserAgent};
use crate::ignored::IgnoredNetworks;
use crate::projects::Projects;
use crate::visitor::VisitorCoordinates;
use schemas::beacon::{Arrivals, Beacon};
use schemas::classes::BotClass;
use schemas::proto::{self, Source};
use schemas::record::{RecordFormat, encode_page_view};
use schemas::{Host, Hour, RejectionReason};
use std::borrow::Cow;

/// What decides on lines, besides the registry.
#[derive(Clone, Debug)]
pub struct ViewRules {
    /// The host of lines that name none.
    pub host: Option<Host>,
    /// Proxies in front of the server that wrote the log.
    pub trusted_proxies: TrustedProxies,
    /// Networks whose views no project counts.
    pub ignore_networks: IgnoredNetworks,
    /// Paths that are no pages.
    pub assets: Assets,
    /// The operator's own rules of who is a robot.
    pub own_rules: OwnRules,
    /// The first hour that figures are kept of.
    pub first_hour: Hour,
    /// The running hour.
    pub now: Hour,
}

/// A page view of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogView {
    /// Hour of the request.
    pub hour: Hour,
    /// What a beacon of this view would be.
    pub page: AcceptedPage,
    /// Classes of the reader or robot. [`Classes::UNKNOWN`] if the format has no user agents.
    pub classes: Classes,
    /// Whether the format has user agents.
    pub has_agent: bool,
    /// The client; none if the log has no IP address of it. The view then has no visitor.
    pub client: Option<ClientAddress>,
    /// The visitor, of people's views in months that get visitors.
    pub visitor: Option<VisitorCoordinates>,
}

impl LogView {
    /// The view as a record of the import's log. `id` is not 0, and of this view alone.
    pub fn into_record(self, id: u64) -> Vec<u8> {
        let LogView { hour, page, classes, visitor, .. } = self;
        let view = proto::PageView {
            project: page.project.as_str().to_owned(),
            hour: hour.0,
            status: u32::from(page.status),
            device: classes.device as i32,
            browser: classes.browser as i32,
            system: classes.system as i32,
            bot_class: classes.bot_class as i32,
            arrival: page.arrival,
            site_coordinate: visitor.map_or(0, |visitor| visitor.site.packed()),
            page_coordinate: visitor.map_or(0, |visitor| visitor.page.packed()),
            event_id: id,
            bot: classes.bot.to_owned(),
            rules: RULES_VERSION,
            path: page.path,
            version: page.version,
            language: page.language,
            referrer_host: page.referrer_host,
            source: page.source as i32,
            ..proto::PageView::default()
        };
        encode_page_view(view, RecordFormat::V4)
    }
}

/// Why a line that was read is no view that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum NotCounted {
    /// HEAD, POST and others.
    #[error("other methods than GET")]
    Method,
    /// What a page loads, feeds, and files for programs.
    #[error("assets: images, styles, scripts, fonts, feeds, downloads")]
    Asset,
    /// 3xx but 304.
    #[error("redirects")]
    Redirect,
    /// Another status than 200, 304 and 404, or none.
    #[error("other statuses than 200, 304 and 404")]
    Status,
    /// No project has the host.
    #[error("other hosts")]
    OtherHost,
    /// A host pattern has the host, but the new projects of the line's hour are used up.
    #[error("hosts of more new projects than `new_projects_per_hour`: register these projects")]
    NewProjects,
    /// The client is in a network whose views are not counted.
    #[error("ignored networks")]
    IgnoredNetwork,
    /// `Sec-GPC: 1` or `DNT: 1`, where the log has headers.
    #[error("readers who opted out")]
    OptedOut,
    /// The browser fetched the page before anybody opened it.
    #[error("prefetches")]
    Prefetch,
    /// Older than figures are kept.
    #[error("older than retention_months")]
    TooOld,
    /// Of the running month, whose visitor key only the endpoint has.
    #[error("of the running month, which is not imported: import it once it is over")]
    RunningMonth,
    /// More than an hour ahead of the clock.
    #[error("in the future")]
    Future,
}

/// What becomes of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A page view of a reader or a robot.
    View(Box<LogView>),
    /// The line was read, and is no view that counts.
    NotCounted(NotCounted),
    /// The line was not read.
    NotRead(NotRead),
}

impl From<NotCounted> for Outcome {
    fn from(reason: NotCounted) -> Self {
        Outcome::NotCounted(reason)
    }
}

impl From<NotRead> for Outcome {
    fn from(reason: NotRead) -> Self {
        Outcome::NotRead(reason)
    }
}

/// Decides on lines.
pub struct Views<'p> {
    rules: ViewRules,
    projects: &'p Projects,
    classifier: Classifier,
    visitors: Option<&'p PastVisitors<'p>>,
}

impl<'p> Views<'p> {
    /// Decides by these rules and this registry.
    pub fn new(rules: ViewRules, projects: &'p Projects) -> Self {
        Views { classifier: Classifier::new(rules.own_rules.clone()), rules, projects, visitors: None }
    }

    /// The same, with visitors.
    #[must_use]
    pub fn with_visitors(self, visitors: &'p PastVisitors<'p>) -> Self {
        Views { visitors: Some(visitors), ..self }
    }

    /// What becomes of a line.
    pub fn outcome(&self, line: &Line<'_>) -> Outcome {
        self.view(line).map_or_else(|outcome| outcome, |view| Outcome::View(Box::new(view)))
    }

    fn view(&self, line: &Line<'_>) -> Result<LogView, Outcome> {
        self.check(line)?;
        let target = line.target.decoded();
        if self.rules.assets.contains(path_of(&target)) || is_part_of_page(line) {
            return Err(NotCounted::Asset.into());
        }
        let client = self.client(line);
        let page = self.page(line, &target)?;
        let is_ignored = |client: &ClientAddress| {
            self.rules.ignore_networks.contains(client) || self.projects.ignores(&page.project, client)
        };
        if client.as_ref().is_some_and(is_ignored) {
            return Err(NotCounted::IgnoredNetwork.into());
        }
        let has_agent = line.agent.is_some();
        let agent = agent(line);
        let classes = self.classes(line, agent.as_deref());
        let visitor = match (self.visitors, &client) {
            (Some(visitors), Some(client)) if classes.bot_class == BotClass::Person => {
                let agent = agent.as_deref().map(UserAgent::of_log);
                visitors.coordinates((&page.project, &page.path), line.hour, client, agent)
            }
            _ => None,
        };
        Ok(LogView { hour: line.hour, page, classes, has_agent, client, visitor })
    }

    /// What is decided without the target.
    fn check(&self, line: &Line<'_>) -> Result<(), Outcome> {
        if &*line.method.decoded() != b"GET" {
            return Err(NotCounted::Method.into());
        }
        match line.status {
            200 | 304 | 404 => {}
            300..400 => return Err(NotCounted::Redirect.into()),
            _ => return Err(NotCounted::Status.into()),
        }
        if line.signals.opted_out {
            return Err(NotCounted::OptedOut.into());
        }
        if line.signals.is_prefetch {
            return Err(NotCounted::Prefetch.into());
        }
        if line.hour < self.rules.first_hour {
            return Err(NotCounted::TooOld.into());
        }
        // Clocks of servers differ by minutes.
        if line.hour.0 > self.rules.now.0.saturating_add(1) {
            return Err(NotCounted::Future.into());
        }
        Ok(())
    }

    fn client(&self, line: &Line<'_>) -> Option<ClientAddress> {
        let (peer, forwarded) = (line.client.decoded(), line.forwarded.decoded());
        // Another encoding is no IP address.
        let forwarded = std::str::from_utf8(&forwarded).unwrap_or("?");
        self.rules.trusted_proxies.client_of_log(std::str::from_utf8(&peer).ok()?, forwarded)
    }

    fn classes(&self, line: &Line<'_>, agent: Option<&[u8]>) -> Classes {
        let Some(agent) = agent else { return Classes::UNKNOWN };
        let classes = self.classifier.classify(UserAgent::of_log(agent));
        if line.signals.is_headless && classes.bot_class == BotClass::Person {
            return Classes::robot(AUTOMATED_BROWSER);
        }
        classes
    }

    /// The page, by the rules of beacons.
    fn page(&self, line: &Line<'_>, target: &[u8]) -> Result<AcceptedPage, Outcome> {
        let mut url = String::with_capacity(target.len() + 64);
        if target.starts_with(b"/") {
            self.push_origin(&mut url, line)?;
        } else if !is_web_url(target) {
            return Err(NotRead::NoPath.into());
        }
        push_encoded(&mut url, target);
        let query = line.query.decoded();
        if !line.query.is_absent() && memchr::memchr(b'?', target).is_none() {
            url.push('?');
            push_encoded(&mut url, query.strip_prefix(b"?").unwrap_or(&query));
        }
        let beacon = Beacon {
            url: Some(url),
            referrer: referrer(line),
            // From the browser's own copy: the page is the one that was answered 200.
            status: Some(if line.status == 304 { 200 } else { line.status }),
            source: Source::Log,
            // Without a column of referrers nothing shows an arrival.
            arrivals: if line.referrer.is_some() { Arrivals::Exact } else { Arrivals::Unknown },
            ..Beacon::default()
        };
        // One network for the whole log: new projects are limited for each hour of the log, and not by client.
        accept(beacon, self.projects, line.hour, 0).map_err(|refused| match refused.rejection.reason {
            _ if refused.is_over_new_names => NotCounted::NewProjects.into(),
            RejectionReason::UnknownProject | RejectionReason::ForeignHost | RejectionReason::AmbiguousProject => {
                NotCounted::OtherHost.into()
            }
            _ => NotRead::NoPath.into(),
        })
    }

    /// Scheme and host of the page. Port 80 is http's own; all else is https, whose own port a host does not have.
    fn push_origin(&self, url: &mut String, line: &Line<'_>) -> Result<(), Outcome> {
        let host = line.host.decoded();
        let host = host.trim_ascii();
        let is_named = !line.host.is_absent() && host != b"_" && host.iter().all(|&byte| is_of_host(byte));
        match (std::str::from_utf8(host), &self.rules.host) {
            (Ok(host), _) if is_named => {
                url.push_str(if host.ends_with(":80") { "http://" } else { "https://" });
                url.push_str(host);
            }
            (_, Some(host)) => {
                url.push_str("https://");
                url.push_str(host.as_str());
            }
            _ => return Err(NotRead::NoHost.into()),
        }
        Ok(())
    }
}

/// The user agent; none if the format has none.
fn agent<'l>(line: &'l Line<'_>) -> Option<Cow<'l, [u8]>> {
    let agent = line.agent.as_ref()?;
    // `-` is absence, as a beacon without the header.
    let agent = if agent.is_absent() { Cow::Borrowed(&b""[..]) } else { agent.decoded() };
    // Some clients write the header's name into its value.
    Some(match agent {
        Cow::Borrowed(agent) => Cow::Borrowed(agent.strip_prefix(b"User-Agent: ").unwrap_or(agent)),
        Cow::Owned(agent) if agent.starts_with(b"User-Agent: ") => Cow::Owned(agent[12..].to_vec()),
        owned => owned,
    })
}

/// Bytes of a host's name, port and brackets. Others would make a path or a user name of it.
fn is_of_host(byte: u8) -> bool {
    byte >= 0x80 || byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']')
}

fn is_web_url(target: &[u8]) -> bool {
    let starts_with = |scheme: &[u8]| target.get(..scheme.len()).is_some_and(|text| text.eq_ignore_ascii_case(scheme));
    starts_with(b"http://") || starts_with(b"https://")
}

/// The path of a target, without its query.
fn path_of(target: &[u8]) -> &[u8] {
    let end = memchr::memchr2(b'?', b'#', target).unwrap_or(target.len());
    &target[..end]
}

/// Whether the browser says that it loads this for a page. Frames are documents, and send beacons.
fn is_part_of_page(line: &Line<'_>) -> bool {
    let destination = line.destination.decoded();
    !line.destination.is_absent() && !matches!(&*destination, b"document" | b"iframe" | b"frame")
}

/// The referrer's text; none where none was logged.
fn referrer(line: &Line<'_>) -> Option<String> {
    let referrer = line.referrer.as_ref().filter(|referrer| !referrer.is_absent())?;
    let text = String::from_utf8_lossy(&referrer.decoded()).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// Appends a target with what no browser sends as it is percent-encoded, or a URL would lose it: control characters, blanks, backslashes and
/// bytes above ASCII, which may be of any encoding.
fn push_encoded(url: &mut String, target: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |nibble: u8| char::from(HEX[usize::from(nibble)]);
    for &byte in target {
        if byte.is_ascii_graphic() && byte != b'\\' {
            url.push(char::from(byte));
        } else {
            url.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}
