//! The month's readers over HTTP: one project, every view another one of its month, in no order.

use std::io::Write as _;
use std::net::Ipv6Addr;

use schemas::Month;

use super::permute::Shuffle;
use super::plan::{Plan, Size};
use super::stream::{Kind, Place};
use super::view::{Shares, View, Views};
use crate::drive::Beacons;
use crate::random::{SplitMix64, mix};

/// Host of the hosts of all projects.
pub const HOST: &str = "docs.example.org";
/// Views that one run may have of its own.
const OF_A_RUN: u64 = 1 << 22;

/// Whom the requests are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// headcount: a beacon as its script posts it.
    Headcount,
    /// GoatCounter, as its script asks: a pixel of the site with this host.
    GoatCounter {
        /// The site's.
        host: String,
    },
}

/// Beacons of one project.
pub struct Readers {
    plan: Plan,
    shuffle: Shuffle,
    shares: Shares,
    form: Form,
    /// Address of every reader, if they are few and pretend to be many; their own otherwise.
    few: Option<u32>,
    seed: u64,
}

impl Readers {
    /// Readers of a project that `views` views are of.
    #[must_use]
    pub fn new(seed: u64, month: Month, views: u64, form: Form) -> Self {
        let plan = Plan::new(seed, month, Size { projects: 1, views });
        let shuffle = Shuffle::new(plan.projects[0].visits, seed);
        Self { plan, shuffle, shares: Shares::default(), form, few: None, seed }
    }

    /// The same views, from so few addresses.
    #[must_use]
    pub fn with_addresses(mut self, addresses: u32) -> Self {
        self.few = Some(addresses.max(1));
        self
    }

    /// The project's name.
    #[must_use]
    pub fn slug(&self) -> &str {
        self.plan.slug(0)
    }

    /// The host of its pages.
    #[must_use]
    pub fn page_host(&self) -> String {
        format!("{}.{HOST}", self.slug())
    }

    /// View `k` of run `run`: no two are the same, as long as there are not more than the month has visits, four dozen times over.
    fn view(&self, run: u32, k: u32) -> View {
        let (n, visits) = (u64::from(run) * OF_A_RUN + u64::from(k), u64::from(self.plan.projects[0].visits));
        let (ticket, index) = (self.shuffle.image((n % visits) as u32), (n / visits) as u8);
        Views::new(&self.plan, &self.shares).view(&Place::new(0, ticket, index, Kind::Reader), 0)
    }

    /// What a table of raw events would keep of beacon `k` of run `run`: path, status, and a hash for its reader.
    #[must_use]
    pub fn event(&self, run: u32, k: u32) -> (String, u16, u64) {
        let view = self.view(run, k);
        (view.page.path(), view.page.status(), mix(self.seed ^ u64::from(view.visitor.unwrap_or(0)) << 8))
    }

    fn address(&self, view: &View, k: u32) -> Ipv6Addr {
        let reader = match self.few {
            Some(few) => (SplitMix64::nth(self.seed, u64::from(k)) as u32 % few) | (1 << 31),
            None => view.visitor.unwrap_or(0),
        };
        // 2001:db8::/32 is for documentation (RFC 3849): no reader has such an address. One /64 each.
        Ipv6Addr::new(0x2001, 0xdb8, (reader >> 16) as u16, reader as u16, 0, 0, 0, 1)
    }
}

impl Beacons for Readers {
    fn request_head(&self, authority: &str) -> Vec<u8> {
        match &self.form {
            Form::Headcount => format!(
                "POST /v1/pageview HTTP/1.1\r\nhost: {authority}\r\ncontent-type: text/plain;charset=UTF-8\r\naccept: */*\r\n\
                 origin: https://{0}\r\nreferer: https://{0}/\r\n",
                self.page_host()
            ),
            Form::GoatCounter { host } => {
                format!(" HTTP/1.1\r\nhost: {host}\r\naccept: */*\r\nreferer: https://{}/\r\n", self.page_host())
            }
        }
        .into_bytes()
    }

    fn write_request(&self, run: u32, k: u32, head: &[u8], body: &mut Vec<u8>, request: &mut Vec<u8>) {
        let view = self.view(run, k);
        let (address, agent) = (self.address(&view, k), view.agent());
        let mut path = String::new();
        request.clear();
        // Writing to a vector cannot fail.
        if self.form == Form::Headcount {
            view.write_body(&self.plan, HOST, &mut path, body);
            request.extend_from_slice(head);
            let _ = write!(request, "content-length: {}\r\n", body.len());
        } else {
            body.clear();
            view.page.write_path(&mut path);
            let _ = write!(request, "GET /count?p={path}&s=1920%2C1080%2C1&b=0&rnd={:x}", view.id);
            if !view.referrer.is_empty() {
                let _ = write!(request, "&r=https%3A%2F%2F{}%2F", view.referrer);
            }
            request.extend_from_slice(head);
        }
        let _ = write!(request, "user-agent: {agent}\r\nx-forwarded-for: {address}\r\n\r\n");
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
        Readers::new(3, "2026-02".parse().unwrap(), 20_000_000, form)
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
            assert!(one.contains(&format!("{HOST}{path}\"")), "{one} {other}");
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
}
