//! Settings of the beacon endpoint: who is counted, and what forged beacons may cost.

use super::listen::ConnectionSettings;
use super::paths::MorePathSettings;
use super::privacy_settings::PrivacySettings;
use super::values::{InvalidValue, Items, Optional, Parsed, all, count, item, items, millis, rate, text};
use ingest::IngestConfig;
use ingest::agents::{OwnRules, RobotRule};
use ingest::ignored::{IgnoredNetworks, Network};
use ingest::per_network::Limits;
use ingest::projects::{HostPattern, NewNames, Projects};
use schemas::rate_limit::Rate;
use schemas::record::RecordFormat;
use std::str::FromStr;
use std::time::Duration;

/// Projects that host patterns admit, and what one client network may add.
#[derive(clap::Args)]
pub struct AdmissionSettings {
    /// Hosts accepted without registration; repeatable
    #[arg(long, value_name = "PATTERN", value_parser = host_patterns)]
    host_pattern: Vec<Items<HostPattern>>,
    /// New projects that host patterns may admit in an hour
    #[arg(long, value_name = "N", default_value = "100", value_parser = count::<usize, 0, { u64::MAX }>)]
    new_projects_per_hour: usize,
    /// The same for one client network; 0: no limit
    #[arg(long, value_name = "N", default_value = "5", value_parser = limit::<usize>)]
    new_projects_per_network: usize,
    /// Paths of a project that one client network may add in a day; 0: no limit
    #[arg(long, value_name = "N", default_value = "2000", value_parser = limit::<u32>)]
    paths_per_network: u32,
    /// The same for values of each dimension; 0: no limit
    #[arg(long, value_name = "N", default_value = "200", value_parser = limit::<u32>)]
    values_per_network: u32,
    /// User agents of a client network that count as visitors; 0: no limit
    #[arg(long, value_name = "N", default_value = "512", value_parser = limit::<u32>)]
    agents_per_network: u32,
}

fn host_patterns(text: &str) -> Parsed<Items<HostPattern>> {
    items(text, |text| text.parse().ok(), "a pattern such as {project}.docs.example.org")
}

fn limit<T: FromStr>(text: &str) -> Parsed<T> {
    text.trim().parse().map_err(|_| InvalidValue::expected("a number, or 0 for no limit"))
}

impl AdmissionSettings {
    /// The registry of an endpoint, with nothing registered yet.
    pub fn projects(&self) -> Projects {
        let new_names = NewNames { per_hour: self.new_projects_per_hour, per_network: self.new_projects_per_network };
        Projects::new(all(&self.host_pattern), new_names)
    }

    /// The registry for access logs, which has no limit for each client network: all lines of a log have the same.
    pub fn projects_of_logs(&self) -> Projects {
        Projects::new(all(&self.host_pattern), NewNames { per_hour: self.new_projects_per_hour, per_network: 0 })
    }

    /// Whether hosts may be accepted without registration.
    pub fn has_host_patterns(&self) -> bool {
        !all(&self.host_pattern).is_empty()
    }

    fn per_network(&self) -> Limits {
        Limits {
            paths: self.paths_per_network,
            values: self.values_per_network,
            agents: self.agents_per_network,
            ..Limits::default()
        }
    }
}

/// Which beacons are counted, and how many are taken.
#[derive(clap::Args)]
pub struct BeaconSettings {
    /// Network whose views are not counted; repeatable
    #[arg(long, value_name = "CIDR", value_parser = networks)]
    ignore_networks: Vec<Items<Network>>,
    /// Robot, as LITERAL=NAME=KIND; repeatable
    #[arg(long, value_name = "RULE", value_parser = robots)]
    robots_extra: Vec<Items<RobotRule>>,
    /// Part of a user agent that is never a robot's; repeatable
    #[arg(long, value_name = "LITERAL", value_parser = literals)]
    never_robots: Vec<Items<String>>,
    /// Beacons a second from one client; 0: no limit
    #[arg(long, value_name = "N", default_value = "100", value_parser = rate)]
    client_rate: Rate,
    /// Beacons a second for one project; 0: no limit
    #[arg(long, value_name = "N", default_value = "500", value_parser = rate)]
    project_rate: Rate,
    /// Beacons in progress; more are answered 503
    #[arg(long, value_name = "N", default_value = "3072", value_parser = count::<usize, 0, { u64::MAX }>)]
    in_flight: usize,
    /// Bound of a beacon's body, in ms; then 408
    #[arg(long, value_name = "MS", default_value = "10000", value_parser = millis::<0, { u64::MAX }>)]
    body_timeout_ms: Duration,
    /// Format of records: 4, or 3 until all aggregators are upgraded
    #[arg(long, value_name = "FORMAT", default_value = "4", value_parser = record_format)]
    record_format: RecordFormat,
    /// For tests: the endpoint panics at a beacon of this path
    #[arg(long, value_name = "PATH", default_value = "", hide = true, value_parser = text)]
    panic_on_path: Optional<String>,
    #[command(flatten)]
    paths: MorePathSettings,
}

fn networks(text: &str) -> Parsed<Items<Network>> {
    items(text, |text| text.parse().ok(), "a network such as 192.0.2.0/24 or 2001:db8::/32, or an IP address")
}

fn robots(text: &str) -> Parsed<Items<RobotRule>> {
    let expected = "literal=name=kind, the kind one of search, ai_training, ai_assistant, preview, monitor, automation, feed, seo, \
                    archiver, scanner, other_bot";
    item(text, |text| text.parse().ok(), expected)
}

fn literals(text: &str) -> Parsed<Items<String>> {
    item(text, |text| Some(text.to_owned()), "a part of a user agent")
}

fn record_format(text: &str) -> Parsed<RecordFormat> {
    let number = text.trim().parse().ok();
    number.and_then(RecordFormat::from_number).ok_or_else(|| InvalidValue::expected("3 or 4"))
}

impl BeaconSettings {
    /// The endpoint's bounds.
    ///
    /// # Errors
    /// Script and beacons would share a path, or the database of countries cannot be used.
    pub fn ingest(
        &self,
        connections: &ConnectionSettings,
        admission: &AdmissionSettings,
        privacy: &PrivacySettings,
    ) -> anyhow::Result<IngestConfig> {
        let paths = privacy.rules.paths()?;
        Ok(IngestConfig {
            trusted_proxies: connections.trusted_proxies(),
            ignore_networks: IgnoredNetworks::new(all(&self.ignore_networks)),
            country_header: privacy.country_header(),
            countries: privacy.countries()?,
            body_timeout_ms: u64::try_from(self.body_timeout_ms.as_millis()).unwrap_or(u64::MAX),
            in_flight: self.in_flight,
            client_rate: self.client_rate,
            project_rate: self.project_rate,
            per_network: admission.per_network(),
            own_rules: OwnRules::new(all(&self.never_robots), all(&self.robots_extra)),
            record_format: self.record_format,
            more_script_paths: self.paths.endpoints(&paths)?,
            paths,
            panic_on_path: self.panic_on_path.0.clone(),
            ..IngestConfig::default()
        })
    }
}
