//! The month's readers over HTTP: views of its projects, drawn by their traffic, in no order.

use std::io::Write as _;
use std::net::Ipv6Addr;

use anyhow::ensure;
use schemas::Hour;

use super::plan::{Plan, Size};
use super::stream::{Kind, Place};
use super::view::View;
use crate::drive::Beacons;
use crate::random::{SplitMix64, Zipf, mix};

/// An hour of the month of the readers of one project. Beacons carry no time, so any month does.
const HOUR: Hour = Hour(500_000);
/// Views of that month, which decide how many visitors there are: some four million.
const VIEWS: u64 = 20_000_000;

/// The server that the requests are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// headcount: a beacon as its script posts it.
    Headcount,
    /// GoatCounter, as its script requests it: a pixel of the site with this host.
    GoatCounter {
        /// The site's.
        host: String,
    },
}

/// Beacons of a month's projects.
pub struct Readers {
    plan: Plan,
    projects: Zipf,
    /// The host of each project's pages.
    hosts: Vec<String>,
    form: Form,
    /// How many IP addresses all readers share; without it each has its own.
    addresses: Option<u32>,
    seed: u64,
}

impl Readers {
    /// Readers of these projects.
    #[must_use]
    pub fn new(plan: Plan, form: Form) -> Self {
        let projects = Zipf::new(plan.projects.len(), 1.0);
        let hosts = plan.slugs.iter().map(|slug| page_host(slug)).collect();
        let seed = plan.seed;
        Self { plan, projects, hosts, form, addresses: None, seed }
    }

    /// Readers of one project.
    #[must_use]
    pub fn of_one(seed: u64, form: Form) -> Self {
        Self::new(Plan::new(seed, HOUR.month(), Size { projects: 1, views: VIEWS }), form)
    }

    /// The same views, of a project with another name and host.
    ///
    /// # Errors
    /// When a name has characters that would need escaping in JSON or HTTP.
    pub fn with_names(mut self, slug: &str, page_host: &str) -> anyhow::Result<Self> {
        let plain = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b));
        ensure!(plain(slug), "the project {slug:?} may have only letters, digits and -._");
        ensure!(plain(page_host), "the page host {page_host:?} may have only letters, digits and -._:");
        (self.plan.slugs, self.hosts) = (vec![slug.to_owned()], vec![page_host.to_owned()]);
        Ok(self)
    }

    /// The same views, from so few IP addresses.
    #[must_use]
    pub fn with_addresses(mut self, addresses: u32) -> Self {
        self.addresses = Some(addresses.max(1));
        self
    }

    /// The name of the largest project.
    #[must_use]
    pub fn slug(&self) -> &str {
        self.plan.slug(0)
    }

    /// The host of its pages.
    #[must_use]
    pub fn page_host(&self) -> &str {
        &self.hosts[0]
    }

    /// View `k` of run `run`. Its id is its own; a reader may view a page again.
    fn view(&self, run: u32, k: u32) -> View {
        let id = SplitMix64::nth(self.seed, u64::from(run) << 32 | u64::from(k)).max(1);
        // From a stream of its own, or the view could be read off its id.
        let mut rng = SplitMix64::new(mix(!id));
        let project = self.projects.sample(&mut rng) as u32;
        let ticket = rng.below(self.plan.projects[project as usize].visits.into()) as u32;
        let index = rng.below(self.plan.views.draw(rng.clone().next_u64() as u32).into()) as u8;
        let view = self.plan.view(&Place::new(project, ticket, index, Kind::Reader), 0);
        View { id, ..view }
    }

    /// Key and record of view `k` of run `run`, as an endpoint appends them to the log in `hour`.
    #[must_use]
    pub fn record(&self, run: u32, k: u32, hour: Hour) -> (u64, Vec<u8>) {
        let view = View { hour, ..self.view(run, k) };
        (view.key, view.record(&self.plan))
    }

    fn address(&self, view: &View, k: u32) -> Ipv6Addr {
        let reader = match self.addresses {
            Some(few) => (SplitMix64::nth(self.seed, u64::from(k)) as u32 % few) | (1 << 31),
            None => view.visitor.unwrap_or(0) ^ view.project << 22,
        };
        // 2001:db8::/32 is for documentation (RFC 3849): no reader has such an IP address. One /64 each.
        Ipv6Addr::new(0x2001, 0xdb8, (reader >> 16) as u16, reader as u16, 0, 0, 0, 1)
    }
}

/// The host of the pages of a month's project.
#[must_use]
pub fn page_host(slug: &str) -> String {
    format!("{slug}.docs.example.org")
}

impl Beacons for Readers {
    fn request_head(&self, authority: &str) -> Vec<u8> {
        match &self.form {
            Form::Headcount => format!(
                "POST /v1/pageview HTTP/1.1\r\nhost: {authority}\r\ncontent-type: text/plain;charset=UTF-8\r\naccept: */*\r\n"
            ),
            Form::GoatCounter { host } => format!(" HTTP/1.1\r\nhost: {host}\r\naccept: */*\r\n"),
        }
        .into_bytes()
    }

    fn write_request(&self, run: u32, k: u32, head: &[u8], body: &mut Vec<u8>, request: &mut Vec<u8>) {
        let view = self.view(run, k);
        let (address, agent, host) = (self.address(&view, k), view.agent(), &self.hosts[view.project as usize]);
        let mut path = String::new();
        request.clear();
        // Writing to a vector cannot fail.
        if self.form == Form::Headcount {
            view.write_body(self.plan.slug(view.project), host, &mut path, body);
            request.extend_from_slice(head);
            let _ = write!(request, "origin: https://{host}\r\ncontent-length: {}\r\n", body.len());
        } else {
            body.clear();
            view.page.write_path(&mut path);
            let _ = write!(request, "GET /count?p={path}&s=1920%2C1080%2C1&b=0&rnd={:x}", view.id);
            if !view.referrer.is_empty() {
                let _ = write!(request, "&r=https%3A%2F%2F{}%2F", view.referrer);
            }
            request.extend_from_slice(head);
        }
        let _ =
            write!(request, "referer: https://{host}/\r\nuser-agent: {agent}\r\nx-forwarded-for: {address}\r\n\r\n");
        request.extend_from_slice(body);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn requests(readers: &Readers, run: u32) -> Vec<String> {
        let (head, mut body) = (readers.request_head("127.0.0.1:1"), Vec::new());
        let one = |k| {
            let mut request = Vec::new();
            readers.write_request(run, k, &head, &mut body, &mut request);
            String::from_utf8(request).unwrap()
        };
        (0..2_000).map(one).collect()
    }

    fn readers(form: Form) -> Readers {
        Readers::of_one(3, form)
    }

    #[test]
    fn every_beacon_is_well_formed_and_has_an_id_of_its_own() {
        let readers = readers(Form::Headcount);
        let mut ids = HashSet::new();
        for request in (0..3).flat_map(|run| requests(&readers, run)) {
            let (head, body) = request.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
            let json: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(json["project"], readers.slug());
            assert!(json["url"].as_str().unwrap().starts_with(&format!("https://{}/", readers.page_host())), "{body}");
            ids.insert(json["id"].as_str().unwrap().to_owned());
        }
        assert_eq!(ids.len(), 6_000);
    }

    #[test]
    fn the_same_views_go_to_goatcounter_in_its_own_form() {
        let (ours, theirs) =
            (readers(Form::Headcount), readers(Form::GoatCounter { host: "stats.example.org".to_owned() }));
        for (one, other) in requests(&ours, 1).iter().zip(requests(&theirs, 1)) {
            assert!(other.starts_with("GET /count?p=/") && other.ends_with("\r\n\r\n"), "{other}");
            assert!(other.contains("\r\nhost: stats.example.org\r\n"), "{other}");
            let path = other.split(['=', '&']).nth(1).unwrap();
            assert!(one.contains(&format!("docs.example.org{path}\"")), "{one} {other}");
        }
    }

    #[test]
    fn few_have_few_addresses() {
        let addresses = |readers: &Readers| -> HashSet<String> {
            let line =
                |request: &String| request.lines().find(|l| l.starts_with("x-forwarded-for")).unwrap().to_owned();
            requests(readers, 0).iter().map(line).collect()
        };
        assert_eq!(addresses(&readers(Form::Headcount).with_addresses(20)).len(), 20);
        assert!(addresses(&readers(Form::Headcount)).len() > 1_000);
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
        let of = |seed| requests(&Readers::of_one(seed, Form::Headcount), 1);
        assert_eq!(of(5), of(5));
        assert!(of(5).iter().zip(of(6)).all(|(one, other)| *one != other));
    }

    #[test]
    fn names_may_be_given_unless_they_need_escaping() {
        let named = |slug, host| Readers::of_one(1, Form::Headcount).with_names(slug, host);
        let request = &requests(&named("widgets", "docs.example.net").unwrap(), 0)[7];
        assert!(request.contains(r#"{"project":"widgets","url":"https://docs.example.net/"#), "{request}");
        assert!(request.contains("\r\norigin: https://docs.example.net\r\n"), "{request}");
        assert!(named("a\"b", "h").is_err() && named("a", "h\r\nx: y").is_err());
    }
}
