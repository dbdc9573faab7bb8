//! Which beacons are posted. Beacon `k` of run `r` is a pure function of (seed, r, k): whichever connection happens to
//! send it, the set of beacons of a run is the same.
//!
//! The wire format is written out by hand here and not taken from `schemas`: a load test that shares the server's types
//! would share its mistakes.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::ensure;

use crate::agents::USER_AGENTS;
use crate::random::{SplitMix64, Zipf, mix};

/// Addresses in 198.18.0.0/15, which RFC 2544 sets aside for benchmarks: no reader can have one.
const BENCHMARK_IPV4: u32 = 1 << 17;

/// Half are direct visits, as on most documentation sites.
const REFERRERS: [&str; 8] = [
    "",
    "",
    "",
    "",
    "https://www.google.com/",
    "https://github.com/",
    "https://stackoverflow.com/questions/",
    "https://duckduckgo.com/",
];
const VERSIONS: [&str; 4] = ["stable", "stable", "latest", "v2.1"];
const LANGUAGES: [&str; 5] = ["en", "en", "en", "de", "ja"];

/// One beacon before it is bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beacon {
    /// `0..visitors`; decides address and user agent.
    pub visitor: u32,
    /// Rank of the path, 0 being the most viewed.
    pub path: usize,
    /// Status of the page view: 200, or 404 once in fifty.
    pub status: u16,
    referrer: &'static str,
    version: &'static str,
    language: &'static str,
    /// Unique within one seed.
    pub id: u64,
}

/// A load, ready to be turned into requests.
#[derive(Debug, Clone)]
pub struct Scenario {
    seed: u64,
    visitors: u32,
    paths: Zipf,
    /// The JSON up to and including the page host.
    body_head: String,
    page_host: String,
}

impl Scenario {
    /// A load on `project`, whose pages are on `page_host`: `paths` pages with Zipf's frequencies (exponent 1), viewed by
    /// `visitors` visitors equally often.
    ///
    /// # Errors
    /// When a name has characters that would need escaping in JSON or HTTP, or a number is zero.
    pub fn new(seed: u64, project: &str, page_host: &str, visitors: u32, paths: u32) -> anyhow::Result<Self> {
        let plain = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b));
        ensure!(plain(project), "the project {project:?} may have only letters, digits and -._");
        ensure!(plain(page_host), "the page host {page_host:?} may have only letters, digits and -._:");
        ensure!(visitors > 0 && paths > 0, "visitors and paths must be at least one");
        Ok(Self {
            seed,
            visitors,
            paths: Zipf::new(paths as usize, 1.0),
            body_head: format!(r#"{{"project":"{project}","url":"https://{page_host}"#),
            page_host: page_host.to_owned(),
        })
    }

    /// Beacon `k` of run `run`.
    #[must_use]
    pub fn beacon(&self, run: u32, k: u32) -> Beacon {
        let id = SplitMix64::nth(self.seed, (u64::from(run) << 32) | u64::from(k));
        // The fields come from a stream of their own, or they would be readable off the id.
        let mut rng = SplitMix64::new(mix(!id));
        let pick = |rng: &mut SplitMix64, from: &[&'static str]| from[rng.below(from.len() as u64) as usize];
        Beacon {
            visitor: rng.below(u64::from(self.visitors)) as u32,
            path: self.paths.sample(&mut rng),
            status: if rng.below(50) == 0 { 404 } else { 200 },
            referrer: pick(&mut rng, &REFERRERS),
            version: pick(&mut rng, &VERSIONS),
            language: pick(&mut rng, &LANGUAGES),
            id,
        }
    }

    /// The parts of a request that are the same for every beacon to the server called `authority`.
    #[must_use]
    pub fn request_head(&self, authority: &str) -> Vec<u8> {
        let host = &self.page_host;
        format!(
            "POST /v1/pageview HTTP/1.1\r\nhost: {authority}\r\ncontent-type: text/plain;charset=UTF-8\r\naccept: */*\r\n\
             origin: https://{host}\r\nreferer: https://{host}/\r\n"
        )
        .into_bytes()
    }

    /// Replaces `request` by the whole request for `beacon`. `body` is scratch space. Allocates nothing once the two
    /// have grown: the client shares the machine with what it measures.
    pub fn write_request(&self, beacon: &Beacon, head: &[u8], body: &mut Vec<u8>, request: &mut Vec<u8>) {
        let Beacon { visitor, path, status, referrer, version, language, id } = *beacon;
        body.clear();
        body.extend_from_slice(self.body_head.as_bytes());
        // Writing to a Vec cannot fail.
        let _ = write!(body, r#"/en/stable/path-{path}.html","referrer":"{referrer}","status":{status},"#);
        let _ = write!(body, r#""version":"{version}","language":"{language}","id":"{id:016x}"}}"#);
        request.clear();
        request.extend_from_slice(head);
        let (address, agent) = (address_of(visitor), agent_of(visitor));
        let length = body.len();
        let _ =
            write!(request, "user-agent: {agent}\r\nx-forwarded-for: {address}\r\ncontent-length: {length}\r\n\r\n");
        request.extend_from_slice(body);
    }
}

/// The address of a visitor: different visitors have different addresses, and different /64 networks where it is IPv6.
/// Three in four are IPv4 until the benchmark network is used up.
#[must_use]
pub fn address_of(visitor: u32) -> IpAddr {
    if visitor < BENCHMARK_IPV4 && visitor % 4 != 3 {
        Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + visitor).into()
    } else {
        let (high, low) = ((visitor >> 16) as u16, visitor as u16);
        // 2001:db8::/32 is for documentation (RFC 3849).
        Ipv6Addr::new(0x2001, 0xdb8, high, low, 0, 0, 0, 1).into()
    }
}

/// The user agent of a visitor, who keeps it.
#[must_use]
pub fn agent_of(visitor: u32) -> &'static str {
    USER_AGENTS[(mix(u64::from(visitor) + 1) % USER_AGENTS.len() as u64) as usize]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn scenario(seed: u64) -> Scenario {
        Scenario::new(seed, "widgets", "docs.example.org", 1_000, 500).unwrap()
    }

    fn request(scenario: &Scenario, run: u32, k: u32) -> String {
        let (mut body, mut request) = (Vec::new(), Vec::new());
        let head = scenario.request_head("127.0.0.1:8080");
        scenario.write_request(&scenario.beacon(run, k), &head, &mut body, &mut request);
        String::from_utf8(request).unwrap()
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
        for k in 0..100 {
            assert_eq!(request(&scenario(5), 1, k), request(&scenario(5), 1, k));
            assert_ne!(request(&scenario(5), 1, k), request(&scenario(6), 1, k));
        }
    }

    #[test]
    fn ids_never_repeat_within_a_seed() {
        let s = scenario(5);
        let ids: HashSet<u64> =
            (0..4).flat_map(|r| (0..5_000).map(move |k| (r, k))).map(|(r, k)| s.beacon(r, k).id).collect();
        assert_eq!(ids.len(), 20_000);
    }

    #[test]
    fn a_request_is_one_well_formed_beacon() {
        let text = request(&scenario(5), 0, 17);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /v1/pageview HTTP/1.1\r\nhost: 127.0.0.1:8080\r\n"), "{head}");
        assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())), "{head}");
        let json: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(json["project"], "widgets");
        assert!(json["url"].as_str().unwrap().starts_with("https://docs.example.org/en/stable/path-"), "{body}");
        assert_eq!(json["id"].as_str().unwrap().len(), 16);
        assert!(json["status"] == 200 || json["status"] == 404);
    }

    #[test]
    fn visitors_have_addresses_of_their_own() {
        let addresses: HashSet<IpAddr> = (0..300_000).map(address_of).collect();
        assert_eq!(addresses.len(), 300_000);
        assert_eq!(address_of(0).to_string(), "198.18.0.0");
        assert_eq!(address_of(131_071).to_string(), "2001:db8:1:ffff::1");
    }

    #[test]
    fn every_user_agent_is_used_and_none_twice_in_the_list() {
        assert_eq!(USER_AGENTS.iter().collect::<HashSet<_>>().len(), USER_AGENTS.len());
        assert_eq!((0..2_000).map(agent_of).collect::<HashSet<_>>().len(), USER_AGENTS.len());
    }

    #[test]
    fn names_that_need_escaping_are_refused() {
        assert!(Scenario::new(1, "a\"b", "h", 1, 1).is_err());
        assert!(Scenario::new(1, "a", "h\r\nx: y", 1, 1).is_err());
        assert!(Scenario::new(1, "a", "h", 0, 1).is_err());
    }
}
