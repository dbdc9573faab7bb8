//! The one registry of settings. Each is a flag `--name`, an environment variable `HEADCOUNT_NAME` and a TOML key
//! `name`, in that order of precedence, before its default.

mod access;
mod bounds;
mod clickhouse;
pub mod features;
#[cfg(feature = "kafka")]
pub mod kafka;
mod paths;
mod reports;

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use clap::{Arg, ArgAction, ArgMatches};
use ingest::IngestConfig;
use ingest::agents::OwnRules;
use ingest::client::TrustedProxies;
use ingest::country::Countries;
use ingest::ignored::IgnoredNetworks;
use ingest::keys::VisitorPeriod;
use ingest::limits::Rate;
use ingest::projects::HostPattern;
use schemas::record::RecordFormat;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

struct Setting {
    name: &'static str,
    value_name: &'static str,
    default: &'static str,
    help: &'static str,
    /// Given several times, or separated by commas.
    list: bool,
    secret: bool,
    hidden: bool,
}

const fn setting(name: &'static str, value_name: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { name, value_name, default, help, list: false, secret: false, hidden: false }
}

const SETTINGS: &[Setting] = &[
    setting("data", "DIR", "./data", "Directory of the journal, the visitor key and the embedded ClickHouse"),
    setting("listen", "ADDR", "127.0.0.1:8017", "Address that beacons and reports are served on"),
    setting(
        "metrics_listen",
        "ADDR",
        "127.0.0.1:9017",
        "Listen address of /metrics and of /readyz with details, for the operator; aggregate: 127.0.0.1:9018, query: 127.0.0.1:9019; empty: off",
    ),
    Setting {
        list: true,
        ..setting(
            "trusted_proxy",
            "CIDR",
            "",
            "Proxy whose X-Forwarded-For or Forwarded header is believed; repeatable",
        )
    },
    Setting {
        list: true,
        ..setting(
            "ignore_networks",
            "CIDR",
            "",
            "Network whose views are not counted, such as that of the docs' own team; repeatable",
        )
    },
    Setting {
        list: true,
        ..setting(
            "robots_extra",
            "LITERAL=NAME=KIND",
            "",
            "Robot by what its user agent contains, its name in reports and its kind, such as acmebot=Acme=seo; repeatable",
        )
    },
    Setting {
        list: true,
        ..setting(
            "never_robots",
            "LITERAL",
            "",
            "Part of a user agent whose senders are never counted as robots; decides before all other rules; repeatable",
        )
    },
    setting(
        "country_header",
        "NAME",
        "",
        "Header in which a trusted proxy names the reader's country, such as CF-IPCountry",
    ),
    setting(
        "country_database",
        "FILE",
        "",
        "Database of countries by IP address (MaxMind DB format), for beacons without country_header; read again when it changes",
    ),
    Setting {
        list: true,
        ..setting(
            "host_pattern",
            "PATTERN",
            "",
            "Hosts accepted without registration, such as {project}.docs.example.org; repeatable",
        )
    },
    setting(
        "script_path",
        "PATH",
        "/page.js",
        "Path of the script; /beacon.js is served too. The reports print it, so set it on every process",
    ),
    Setting {
        list: true,
        ..setting(
            "more_script_paths",
            "PATH",
            "",
            "Further path that the script is served at, such as another counter's /js/script.js, /script.js or /count.js; repeatable",
        )
    },
    setting(
        "beacon_path",
        "PATH",
        "/v1/page",
        "Path that beacons are posted to, with .gif the pixel's; /v1/pageview is served too. Set it on every process",
    ),
    setting("new_projects_per_hour", "N", "100", "New names that host patterns may admit in one hour"),
    setting(
        "new_projects_per_network",
        "N",
        "5",
        "New names that host patterns may admit in one hour from one client network (IPv4 address, IPv6 /56); 0: no limit",
    ),
    setting("key_file", "FILE", "", "The visitor key [default: keys/visitor.key in the data directory]"),
    setting("visitor_period", "PERIOD", "month", "How long a reader counts as the same visitor: month or day"),
    setting(
        "small_cell_floor",
        "N",
        "10",
        "Values with fewer views than this are added up as \"other\", a page's visitors below it are withheld; at least 3",
    ),
    setting(
        "close_after_hours",
        "HOURS",
        "72",
        "How long after its end a month is closed: numbers stay, sketches are removed",
    ),
    setting(
        "finished_every_minutes",
        "N",
        "10",
        "How often visitors of open days and months are estimated for those who ask with SQL (docs/sql.md)",
    ),
    setting("retention_months", "N", "25", "How many months after their month's end figures are deleted"),
    Setting {
        secret: true,
        ..setting(
            "smtp_url",
            "URL",
            "",
            "Mail server for monthly reports, such as smtp://user:password@mail.example.org:587?tls=required; set it on one process",
        )
    },
    setting("mail_from", "ADDRESS", "", "Address that reports are sent from"),
    setting("mail_after_hours", "HOURS", "6", "How long after a month's end its reports are sent"),
    setting("public_url", "URL", "", "Where readers of reports reach this service, for the link in mails"),
    setting(
        "stall_after_seconds",
        "SECONDS",
        "120",
        "Seconds without a written row, while records wait, until /readyz says degraded; at least two flush_ms",
    ),
    setting("flush_ms", "MS", "5000", "How long counted views may wait before they are written to ClickHouse"),
    setting(
        "record_format",
        "FORMAT",
        "4",
        "Format of the records that the endpoint writes: 4, or 3 until all aggregators are upgraded",
    ),
    setting("window_hours", "HOURS", "12", "Length of a window of the log; a restart folds at most one again"),
    setting("window_records", "N", "4194304", "Records after which a window ends before its time"),
    setting("log_retention_hours", "HOURS", "72", "How long records stay in the journal, or in a topic that is made"),
    setting(
        "journal_bytes",
        "BYTES",
        "4294967296",
        "Records that the journal of `serve` may hold; beyond it the oldest counted ones go before log_retention_hours",
    ),
    setting("kafka_bootstrap", "HOST:PORT", "", "Brokers to ask first, separated by commas. KAFKA_BOOTSTRAP works too"),
    setting("kafka_topic", "NAME", "headcount", "Topic of the page views"),
    setting("kafka_group", "NAME", "headcount", "Consumer group of the aggregators"),
    setting(
        "kafka_group_protocol",
        "PROTOCOL",
        "classic",
        "classic (cooperative-sticky), or consumer (KIP-848; brokers from 4.0 on have it)",
    ),
    setting(
        "kafka_times",
        "CLOCK",
        "append",
        "Whose clock cuts windows: append, the brokers'; create, the sender's, where one sender fills a log with what was before",
    ),
    Setting {
        list: true,
        ..setting(
            "kafka_property",
            "KEY=VALUE",
            "",
            "A setting of librdkafka, such as security.protocol=SASL_SSL; repeatable",
        )
    },
    setting("kafka_partitions", "N", "12", "Partitions of a topic that is made"),
    setting("kafka_replication", "N", "3", "Copies of each record in a topic that is made"),
    setting("kafka_queue_bytes", "BYTES", "67108864", "Records that may wait for Kafka's word before they are spilled"),
    setting(
        "spill_after_ms",
        "MS",
        "3000",
        "How long Kafka may take to acknowledge before a record is spilled to disk",
    ),
    setting(
        "spill_bytes",
        "BYTES",
        "4294967296",
        "Records that the spill may hold; with it full, beacons are answered 503",
    ),
    setting(
        "clickhouse_url",
        "URL",
        "",
        "An existing ClickHouse server, one and not a cluster; its query part may have ClickHouse settings [default: the embedded one]. CLICKHOUSE_URL works too",
    ),
    setting("clickhouse_database", "NAME", "headcount", "Database in ClickHouse"),
    setting("clickhouse_user", "NAME", "", "User in ClickHouse"),
    Setting {
        secret: true,
        ..setting("clickhouse_password", "PASSWORD", "", "Password in ClickHouse; better given by environment or file")
    },
    setting(
        "clickhouse_library",
        "FILE",
        "",
        "libchdb.so for the embedded ClickHouse, where it is not in its usual places",
    ),
    setting("clickhouse_timeout_ms", "MS", "30000", "How long one question or insert to ClickHouse may take"),
    setting("client_rate", "N", "100", "Beacons a second from one client (ten times as many at once); 0: no limit"),
    setting("project_rate", "N", "500", "Beacons a second for one project (ten times as many at once); 0: no limit"),
    setting(
        "paths_per_network",
        "N",
        "2000",
        "Paths of a project that one client network (IPv4 address, IPv6 /56) may name in a day; further views count as /:more; 0: no limit",
    ),
    setting(
        "values_per_network",
        "N",
        "200",
        "The same for values of each dimension (referrer hosts, versions, languages); further views count without; 0: no limit",
    ),
    setting(
        "agents_per_network",
        "N",
        "512",
        "User agents of a client network that count as visitors of a project in a day; all further ones are one visitor; 0: no limit",
    ),
    setting(
        "report_rate",
        "N",
        "20",
        "Requests a second for reports, by token, or by client without one (ten times as many at once); 0: no limit",
    ),
    setting("report_cache_bytes", "BYTES", "67108864", "Memory for cached reports; 0: no cache"),
    setting("report_fresh_seconds", "SECONDS", "10", "Age up to which a cached report is served as fresh"),
    setting(
        "report_max_stale_seconds",
        "SECONDS",
        "60",
        "How much longer a cached report is served stale, while it is refreshed in the background",
    ),
    setting(
        "stale_if_error_seconds",
        "SECONDS",
        "3600",
        "Age up to which a cached report is served if ClickHouse does not answer",
    ),
    Setting { hidden: true, ..setting("report_cache_mib", "N", "", "Replaced by report_cache_bytes") },
    Setting { hidden: true, ..setting("report_patience", "N", "", "Replaced by report_fresh_seconds") },
    setting("session_seconds", "SECONDS", "43200", "How long a browser stays signed in"),
    setting("connections", "N", "4096", "Open connections; more wait"),
    setting(
        "connections_per_network",
        "N",
        "256",
        "Open connections of one client network (IPv4 address or IPv6 /56; trusted proxies excepted); more are closed; 0: no limit",
    ),
    setting("in_flight", "N", "3072", "Beacons under way at once; more are answered 503"),
    setting("body_timeout_ms", "MS", "10000", "How long a beacon's body may take; then 408"),
    setting("header_timeout_ms", "MS", "10000", "How long a request's head may take; then 408"),
    setting("log", "FILTER", "info", "What is logged, as tracing filters are written: warn, info, debug, ingest=debug"),
    setting("log_format", "FORMAT", "text", "text or json"),
    Setting {
        hidden: true,
        ..setting(
            "abort_at",
            "STEP[:COUNT]",
            "",
            "For rehearsals and tests: the aggregator dies when it has passed this step so often",
        )
    },
    Setting {
        hidden: true,
        ..setting("panic_on_path", "PATH", "", "For rehearsals and tests: the endpoint panics at a beacon of this path")
    },
    Setting {
        hidden: true,
        ..setting(
            "clock_start",
            "TIME",
            "",
            "For rehearsals and tests: the service's clock starts at this time (RFC 3339)",
        )
    },
];

/// The flags of every command that reads the configuration.
pub fn arguments() -> Vec<Arg> {
    let file = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help("TOML file of settings [default: headcount.toml in the data directory, where there is one]");
    let flags = SETTINGS.iter().map(|setting| {
        let shown = if setting.default.is_empty() { String::new() } else { format!(" [default: {}]", setting.default) };
        Arg::new(setting.name)
            .long(setting.name.replace('_', "-"))
            .value_name(setting.value_name)
            .action(if setting.list { ArgAction::Append } else { ArgAction::Set })
            .hide(setting.hidden)
            .help(format!("{}{shown} [env: {}]", setting.help, variable(setting.name)))
            .help_heading("Settings")
    });
    std::iter::once(file).chain(flags).collect()
}

fn variable(name: &str) -> String {
    format!("HEADCOUNT_{}", name.to_ascii_uppercase())
}

/// An empty variable counts as unset, but for the setting of which empty means off.
fn switched_off(name: &str) -> Option<String> {
    (name == "metrics_listen").then(|| std::env::var(variable(name)).ok()).flatten()
}

/// Names under which other programs know the same thing.
fn common_variable(name: &str) -> Option<&'static str> {
    match name {
        "clickhouse_url" => Some("CLICKHOUSE_URL"),
        "kafka_bootstrap" => Some("KAFKA_BOOTSTRAP"),
        _ => None,
    }
}

#[derive(Clone)]
struct Value {
    text: Vec<String>,
    origin: String,
}

/// The settings in force, each with its origin.
pub struct Config {
    values: BTreeMap<&'static str, Value>,
}

impl Config {
    /// Reads flags, environment and file.
    pub fn load(matches: &ArgMatches) -> anyhow::Result<Self> {
        let flag = |name: &str| matches.try_get_many::<String>(name).ok().flatten().map(|v| v.cloned().collect());
        let environment = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let named = matches.get_one::<String>("config").cloned().or_else(|| environment("HEADCOUNT_CONFIG"));
        let data = flag("data")
            .and_then(|mut values: Vec<String>| values.pop())
            .or_else(|| environment("HEADCOUNT_DATA"))
            .unwrap_or_else(|| "./data".to_owned());
        let file = match named {
            Some(name) => Some(PathBuf::from(name)),
            None => Some(Path::new(&data).join("headcount.toml")).filter(|path| path.exists()),
        };
        let table = match &file {
            Some(path) => read_file(path)?,
            None => BTreeMap::new(),
        };
        let origin = |path: &Option<PathBuf>| path.as_ref().map_or_else(String::new, |p| p.display().to_string());
        let values = SETTINGS.iter().map(|setting| {
            let value = if let Some(text) = flag(setting.name) {
                Value { text, origin: format!("flag --{}", setting.name.replace('_', "-")) }
            } else if let Some(text) = environment(&variable(setting.name)).or_else(|| switched_off(setting.name)) {
                Value { text: vec![text], origin: format!("environment {}", variable(setting.name)) }
            } else if let Some(text) = table.get(setting.name) {
                Value { text: text.clone(), origin: format!("file {}", origin(&file)) }
            } else if let Some((variable, text)) =
                common_variable(setting.name).and_then(|variable| Some((variable, environment(variable)?)))
            {
                Value { text: vec![text], origin: format!("environment {variable}") }
            } else {
                let text = if setting.default.is_empty() { Vec::new() } else { vec![setting.default.to_owned()] };
                Value { text, origin: "default".to_owned() }
            };
            (setting.name, value)
        });
        let config = Config { values: values.collect() };
        // Every value is tried now, so that a mistake is told before anything starts.
        config.ingest()?;
        config.journal()?;
        config.aggregate()?;
        config.listen()?;
        config.metrics_listen()?;
        config.http()?;
        config.query()?;
        config.report_cache()?;
        config.access("")?;
        config.close_after()?;
        config.finished_every()?;
        config.stall_after()?;
        config.retention()?;
        config.require_features()?;
        #[cfg(feature = "mail")]
        config.mail()?;
        config.host_patterns()?;
        config.paths()?;
        config.clock()?;
        config.new_names()?;
        config.parse::<u32>("log_retention_hours", "a number of hours")?;
        config.clickhouse_timeout()?;
        config.clickhouse_settings()?;
        #[cfg(feature = "kafka")]
        config.kafka().and(config.topic_plan()).and(config.spill())?;
        if !matches!(config.text("log_format"), Some("text" | "json")) {
            bail!("setting `log_format` ({}): expected text or json", config.origin("log_format"));
        }
        Ok(config)
    }

    /// One line a setting: `name = value  # origin`. Secrets and credentials within URLs are not shown.
    pub fn describe(&self) -> String {
        let mut out = String::new();
        for setting in SETTINGS {
            let value = &self.values[setting.name];
            if setting.hidden && value.origin == "default" {
                continue;
            }
            let redact = |text: &String| match () {
                () if setting.secret => "(not shown)".to_owned(),
                #[cfg(feature = "kafka")]
                () if setting.name == "kafka_property" => kafka::redacted(text),
                () if text.contains("://") && text.contains('?') => {
                    format!("{}?(not shown)", text.split('?').next().unwrap_or(""))
                }
                () if text.contains("://") && text.contains('@') => {
                    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
                    format!("{scheme}://(not shown)@{}", rest.rsplit('@').next().unwrap_or(""))
                }
                () => text.clone(),
            };
            let shown: Vec<String> = value.text.iter().map(|text| format!("{:?}", redact(text))).collect();
            let shown = match (setting.list, shown.as_slice()) {
                (true, values) => format!("[{}]", values.join(", ")),
                (false, [one]) => one.clone(),
                (false, _) => "\"\"".to_owned(),
            };
            let _ = writeln!(out, "{:<24} = {shown:<24} # {}", setting.name, value.origin);
        }
        out
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.values[name].text.last().map(String::as_str).filter(|text| !text.is_empty())
    }

    fn origin(&self, name: &str) -> &str {
        &self.values[name].origin
    }

    pub(crate) fn parse<T: FromStr>(&self, name: &str, expected: &str) -> anyhow::Result<T> {
        let text = self.text(name).unwrap_or("");
        text.trim()
            .parse()
            .map_err(|_| anyhow::anyhow!("setting `{name}` is {text:?} ({}): expected {expected}", self.origin(name)))
    }

    fn parse_list<T: FromStr>(&self, name: &str, expected: &str) -> anyhow::Result<Vec<T>> {
        self.parse_each(name, self.values[name].text.iter().flat_map(|text| text.split(',')), expected)
    }

    /// As `parse_list`, of items that may contain commas, as parts of user agents do.
    fn parse_items<T: FromStr>(&self, name: &str, expected: &str) -> anyhow::Result<Vec<T>> {
        self.parse_each(name, self.values[name].text.iter().map(String::as_str), expected)
    }

    fn parse_each<'a, T: FromStr>(
        &self,
        name: &str,
        items: impl Iterator<Item = &'a str>,
        expected: &str,
    ) -> anyhow::Result<Vec<T>> {
        items
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(|item| {
                item.parse().map_err(|_| {
                    anyhow::anyhow!("setting `{name}` is {item:?} ({}): expected {expected}", self.origin(name))
                })
            })
            .collect()
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        PathBuf::from(self.text("data").unwrap_or("./data"))
    }

    /// Where to listen.
    pub fn listen(&self) -> anyhow::Result<SocketAddr> {
        self.parse("listen", "an address such as 127.0.0.1:8017 or [::]:80")
    }

    /// Where to listen, with a default of the role's own: several roles on one machine shall not collide.
    pub fn listen_or(&self, default: SocketAddr) -> anyhow::Result<SocketAddr> {
        if self.origin("listen") == "default" { Ok(default) } else { self.listen() }
    }

    /// Whether the operator named a listen address.
    pub fn has_listen(&self) -> bool {
        self.origin("listen") != "default"
    }

    /// Where to listen for the operator; none where that is switched off.
    pub fn metrics_listen(&self) -> anyhow::Result<Option<SocketAddr>> {
        let expected = "a listen address such as 127.0.0.1:9017, or nothing to switch it off";
        self.text("metrics_listen").map(|_| self.parse("metrics_listen", expected)).transpose()
    }

    /// The same, with a default of the role's own.
    pub fn metrics_listen_or(&self, default: SocketAddr) -> anyhow::Result<Option<SocketAddr>> {
        if self.origin("metrics_listen") == "default" { Ok(Some(default)) } else { self.metrics_listen() }
    }

    /// How long a visitor's key lives.
    pub fn visitor_period(&self) -> anyhow::Result<VisitorPeriod> {
        match self.text("visitor_period") {
            Some("month") => Ok(VisitorPeriod::Month),
            Some("day") => Ok(VisitorPeriod::Day),
            other => bail!(
                "setting `visitor_period` is {other:?} ({}): expected month or day",
                self.origin("visitor_period")
            ),
        }
    }

    /// Where the visitor key is.
    pub fn key_file(&self) -> PathBuf {
        self.text("key_file").map_or_else(|| self.data().join("keys").join("visitor.key"), PathBuf::from)
    }

    /// How reports are made.
    pub fn query(&self) -> anyhow::Result<query::QueryConfig> {
        let unit = match self.visitor_period()? {
            VisitorPeriod::Month => query::VisitorUnit::Visitors,
            VisitorPeriod::Day => query::VisitorUnit::VisitorDays,
        };
        let floor: u64 = self.parse("small_cell_floor", "a number of at least 3")?;
        let Some(floor) = query::small_cells::Floor::new(floor) else {
            bail!(
                "setting `small_cell_floor` is {floor} ({}): expected at least {}",
                self.origin("small_cell_floor"),
                query::small_cells::LEAST_FLOOR
            );
        };
        let (rules, paths) = (query::Rules { unit, floor }, self.paths()?);
        Ok(query::QueryConfig { rules, paths, ..query::QueryConfig::default() })
    }

    /// How often visitors are estimated for those who ask with SQL.
    pub fn finished_every(&self) -> anyhow::Result<Duration> {
        let minutes: u32 = self.parse("finished_every_minutes", "a number of minutes from 1 to 1440")?;
        if !(1..=1440).contains(&minutes) {
            bail!("setting `finished_every_minutes` ({}): expected 1 to 1440", self.origin("finished_every_minutes"));
        }
        Ok(Duration::from_secs(u64::from(minutes) * 60))
    }

    /// How long after its end a month is closed.
    pub fn close_after(&self) -> anyhow::Result<Duration> {
        let hours: u32 = self.parse("close_after_hours", "a number of hours from 1 to 720")?;
        if !(1..=720).contains(&hours) {
            bail!("setting `close_after_hours` ({}): expected 1 to 720", self.origin("close_after_hours"));
        }
        Ok(Duration::from_secs(u64::from(hours) * 3600))
    }

    /// How long figures stay.
    pub fn retention(&self) -> anyhow::Result<crate::retention::Retention> {
        let months: u32 = self.parse("retention_months", "a number of months from 1 to 600")?;
        if !(1..=600).contains(&months) {
            bail!("setting `retention_months` ({}): expected 1 to 600", self.origin("retention_months"));
        }
        Ok(crate::retention::Retention { months })
    }

    /// Hosts accepted without registration.
    pub fn host_patterns(&self) -> anyhow::Result<Vec<HostPattern>> {
        self.parse_list("host_pattern", "a pattern such as {project}.docs.example.org")
    }

    /// Hours that records stay in the journal.
    pub fn log_retention_hours(&self) -> anyhow::Result<u32> {
        self.parse("log_retention_hours", "a number of hours")
    }

    /// The endpoint's bounds.
    pub fn ingest(&self) -> anyhow::Result<IngestConfig> {
        let rate = |name| -> anyhow::Result<Rate> {
            let per_second: f64 = self.parse(name, "beacons a second")?;
            if !(0.0..=1e9).contains(&per_second) {
                bail!("setting `{name}` ({}): expected beacons a second, or 0 for no limit", self.origin(name));
            }
            Ok(Rate { per_second, burst: per_second * 10.0 })
        };
        Ok(IngestConfig {
            trusted_proxies: TrustedProxies::new(self.proxies()?),
            ignore_networks: IgnoredNetworks::new(
                self.parse_list(
                    "ignore_networks",
                    "a network such as 192.0.2.0/24 or 2001:db8::/32, or an IP address",
                )?,
            ),
            country_header: self.text("country_header").map(str::to_ascii_lowercase),
            countries: self.countries()?,
            body_timeout_ms: self.parse("body_timeout_ms", "milliseconds")?,
            in_flight: self.parse("in_flight", "a number of beacons")?,
            client_rate: rate("client_rate")?,
            project_rate: rate("project_rate")?,
            per_network: self.per_network()?,
            own_rules: OwnRules::new(
                self.parse_items("never_robots", "a part of a user agent")?,
                self.parse_items(
                    "robots_extra",
                    "literal=name=kind, the kind one of search, ai_training, ai_assistant, preview, monitor, automation, feed, seo, archiver, \
                     scanner, other_bot",
                )?,
            ),
            record_format: self.record_format()?,
            paths: self.paths()?,
            more_script_paths: self.more_script_paths()?,
            panic_on_path: self.text("panic_on_path").map(str::to_owned),
            ..IngestConfig::default()
        })
    }

    fn countries(&self) -> anyhow::Result<Option<Countries>> {
        let Some(path) = self.text("country_database") else { return Ok(None) };
        Countries::open(Path::new(path)).map(Some).map_err(|error| {
            anyhow::anyhow!(
                "setting `country_database` is {path:?} ({}): {error}; expected a file in the MaxMind DB format with countries",
                self.origin("country_database")
            )
        })
    }

    fn record_format(&self) -> anyhow::Result<RecordFormat> {
        let number = self.parse("record_format", "a number")?;
        RecordFormat::from_number(number).with_context(|| {
            format!("setting `record_format` is {number} ({}): expected 3 or 4", self.origin("record_format"))
        })
    }

    fn proxies(&self) -> anyhow::Result<Vec<ipnet::IpNet>> {
        let texts: Vec<String> = self.parse_list("trusted_proxy", "a network")?;
        texts
            .iter()
            .map(|text| {
                let single = || text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from);
                text.parse::<ipnet::IpNet>().or_else(|_| single()).map_err(|_| {
                    anyhow::anyhow!(
                        "setting `trusted_proxy` is {text:?} ({}): expected a network such as 10.0.0.0/8 or an address",
                        self.origin("trusted_proxy")
                    )
                })
            })
            .collect()
    }

    /// The aggregator's settings.
    pub fn aggregate(&self) -> anyhow::Result<aggregate::AggregateConfig> {
        let mut config = aggregate::AggregateConfig::default();
        config.cut.window_hours = self.parse("window_hours", "a number of hours from 1 to 24")?;
        if !(1..=24).contains(&config.cut.window_hours) {
            bail!("setting `window_hours` ({}): expected 1 to 24", self.origin("window_hours"));
        }
        config.cut.max_records = self.parse("window_records", "a number of records")?;
        if config.cut.max_records == 0 {
            bail!("setting `window_records` ({}): expected at least 1", self.origin("window_records"));
        }
        let flush_ms: u64 = self.parse("flush_ms", "milliseconds, at least 100")?;
        if flush_ms < 100 {
            bail!("setting `flush_ms` ({}): expected at least 100", self.origin("flush_ms"));
        }
        config.flush_every = Duration::from_millis(flush_ms);
        if let Some(text) = self.text("abort_at") {
            let abort_at = text.parse::<aggregate::steps::AbortAt>();
            let abort_at =
                abort_at.with_context(|| format!("setting `abort_at` is {text:?} ({})", self.origin("abort_at")))?;
            config.abort_at = Some(std::sync::Arc::new(abort_at));
        }
        Ok(config)
    }

    /// The listener's bounds.
    pub fn http(&self) -> anyhow::Result<crate::http::HttpConfig> {
        let connections: usize = self.parse("connections", "a number of connections")?;
        if connections == 0 {
            bail!("setting `connections` ({}): expected at least 1", self.origin("connections"));
        }
        Ok(crate::http::HttpConfig {
            connections,
            connections_per_network: self
                .parse("connections_per_network", "a number of connections, or 0 for no limit")?,
            trusted_proxies: TrustedProxies::new(self.proxies()?),
            header_timeout: Duration::from_millis(self.parse("header_timeout_ms", "milliseconds")?),
        })
    }

    /// How the engine is found.
    pub fn engine(&self) -> crate::embedded::engine::EngineConfig {
        let mut config = crate::embedded::engine::EngineConfig::new(self.data().join("clickhouse"));
        config.clickhouse_url = self.text("clickhouse_url").map(str::to_owned);
        config.library = self.text("clickhouse_library").map(PathBuf::from);
        config
    }

    /// Our database.
    pub fn database(&self) -> &str {
        self.text("clickhouse_database").unwrap_or("headcount")
    }

    /// Bound of one call to ClickHouse.
    pub fn clickhouse_timeout(&self) -> anyhow::Result<Duration> {
        Ok(Duration::from_millis(self.parse("clickhouse_timeout_ms", "milliseconds")?))
    }

    /// The service's clock: the machine's, unless a rehearsal starts it elsewhere.
    pub fn clock(&self) -> anyhow::Result<ingest::Clock> {
        let Some(text) = self.text("clock_start") else { return Ok(std::sync::Arc::new(Utc::now)) };
        let start = DateTime::parse_from_rfc3339(text)
            .map_err(|_| {
                anyhow::anyhow!(
                    "setting `clock_start` ({}): expected a time such as 2026-01-31T23:00:00Z",
                    self.origin("clock_start")
                )
            })?
            .to_utc();
        let began = std::time::Instant::now();
        Ok(std::sync::Arc::new(move || start + began.elapsed()))
    }

    /// Logs to standard error.
    pub fn start_logging(&self) -> anyhow::Result<()> {
        let filter = tracing_subscriber::EnvFilter::try_new(self.text("log").unwrap_or("info"))
            .with_context(|| format!("setting `log` ({}): expected a filter such as info", self.origin("log")))?;
        crate::shell::logging::start(filter, self.text("log_format") == Some("json"));
        self.warn_of_removed();
        Ok(())
    }
}

fn read_file(path: &Path) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read the settings in {}", path.display()))?;
    let table: toml::Table = text.parse().with_context(|| format!("{} is not valid TOML", path.display()))?;
    table
        .into_iter()
        .map(|(name, value)| {
            if !SETTINGS.iter().any(|setting| setting.name == name) {
                bail!("{}: there is no setting `{name}`; `headcount config` lists them", path.display());
            }
            let text = |value: &toml::Value| match value {
                toml::Value::String(text) => Ok(text.clone()),
                toml::Value::Integer(number) => Ok(number.to_string()),
                toml::Value::Float(number) => Ok(number.to_string()),
                toml::Value::Boolean(flag) => Ok(flag.to_string()),
                _ => bail!("{}: setting `{name}`: expected text or a number", path.display()),
            };
            let values = match &value {
                toml::Value::Array(items) => items.iter().map(text).collect::<anyhow::Result<Vec<_>>>()?,
                other => vec![text(other)?],
            };
            Ok((name, values))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn load(arguments: &[&str]) -> anyhow::Result<Config> {
        let command = clap::Command::new("t").args(super::arguments());
        Config::load(&command.try_get_matches_from(std::iter::once(&"t").chain(arguments))?)
    }

    #[test]
    fn a_flag_wins_over_the_file_and_both_tell_their_origin() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("headcount.toml"),
            "flush_ms = 700\nlisten = \"127.0.0.1:1\"\ntrusted_proxy = [\"10.0.0.0/8\", \"::1\"]\nclickhouse_password = \"hunter2\"\nclickhouse_url = \"http://ch:8123/?max_threads=hunter2\"\n",
        )
        .unwrap();
        let config = load(&["--data", dir.path().to_str().unwrap(), "--listen", "127.0.0.1:2"]).unwrap();
        assert_eq!(config.listen().unwrap().port(), 2);
        assert_eq!(config.aggregate().unwrap().flush_every, Duration::from_millis(700));
        let shown = config.describe();
        assert!(shown.contains("# flag --listen") && shown.contains("headcount.toml"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn the_operators_listener_can_be_switched_off_and_has_a_default_for_each_role() {
        let default = "127.0.0.1:9018".parse().unwrap();
        assert_eq!(load(&[]).unwrap().metrics_listen_or(default).unwrap(), Some(default));
        assert_eq!(load(&["--metrics-listen", ""]).unwrap().metrics_listen_or(default).unwrap(), None);
        let named = load(&["--metrics-listen", "127.0.0.1:0"]).unwrap().metrics_listen_or(default).unwrap();
        assert_eq!(named.map(|address| address.port()), Some(0));
    }

    #[test]
    fn mistakes_name_the_setting_and_its_origin() {
        for (arguments, expected) in [
            (&["--listen", "nowhere"][..], "setting `listen` is \"nowhere\" (flag --listen)"),
            (&["--metrics-listen", "9017"], "setting `metrics_listen` is \"9017\" (flag --metrics-listen)"),
            (&["--trusted-proxy", "10.0.0.0/99"], "setting `trusted_proxy`"),
            (
                &["--ignore-networks", "10.0.0.0/99"],
                "setting `ignore_networks` is \"10.0.0.0/99\" (flag --ignore-networks): expected a network such as 192.0.2.0/24",
            ),
            (&["--flush-ms", "soon"], "setting `flush_ms`"),
            (&["--stall-after-seconds", "0"], "setting `stall_after_seconds` (flag --stall-after-seconds): expected"),
            (&["--visitor-period", "year"], "setting `visitor_period`"),
            (&["--connections-per-network", "few"], "setting `connections_per_network` is \"few\""),
            (&["--report-rate", "often"], "setting `report_rate` is \"often\" (flag --report-rate)"),
            (&["--session-seconds", "0"], "setting `session_seconds`"),
            (&["--report-cache-bytes", "lots"], "setting `report_cache_bytes` is \"lots\" (flag --report-cache-bytes)"),
            (&["--report-cache-mib", "lots"], "setting `report_cache_mib` is \"lots\" (flag --report-cache-mib)"),
            (&["--report-fresh-seconds", "86401"], "setting `report_fresh_seconds` (flag --report-fresh-seconds)"),
            (&["--record-format", "2"], "setting `record_format` is 2 (flag --record-format): expected 3 or 4"),
            (&["--record-format", "new"], "setting `record_format`"),
            (
                &["--script-path", "a.js"],
                "setting `script_path` is \"a.js\" (flag --script-path): expected a path that begins with /",
            ),
            (
                &["--script-path", "/a b"],
                "setting `script_path` is \"/a b\" (flag --script-path): expected segments of",
            ),
            (
                &["--beacon-path", "/projects/x"],
                "setting `beacon_path` is \"/projects/x\" (flag --beacon-path): expected a path that no other",
            ),
            (
                &["--beacon-path", "/page.js"],
                "settings `script_path` (default) and `beacon_path` (flag --beacon-path): the script and the beacons would share the path /page.js",
            ),
            (&["--host-pattern", "docs.example.org"], "setting `host_pattern`"),
            (&["--kafka-property", "ssl"], "setting `kafka_property` is \"ssl\""),
            (&["--kafka-property", "acks=1"], "headcount sets `acks` itself"),
            (&["--kafka-group-protocol", "eager"], "setting `kafka_group_protocol`"),
            (&["--kafka-times", "now"], "setting `kafka_times`"),
            (&["--kafka-topic", "page views"], "setting `kafka_topic`"),
            (&["--kafka-partitions", "0"], "setting `kafka_partitions`"),
            (&["--spill-bytes", "lots"], "setting `spill_bytes`"),
            (&["--journal-bytes", "1000"], "setting `journal_bytes` (flag --journal-bytes): expected at least 1048576"),
            (&["--new-projects-per-network", "few"], "setting `new_projects_per_network` is \"few\""),
            (&["--paths-per-network", "some"], "setting `paths_per_network` is \"some\""),
            (&["--agents-per-network", "many"], "setting `agents_per_network` is \"many\""),
            (&["--config", "/nonexistent/headcount.toml"], "cannot read the settings"),
        ] {
            let error = load(arguments).err().expect("refused").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
