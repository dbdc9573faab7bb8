//! `headcount-loadtest log`: an invented month of access logs in four formats, with what an import must count of it.
//!
//! Each line is a function of its number and the seed. The same readers are in all four files.

use crate::random::mix;
use anyhow::Context as _;
use chrono::{DateTime, Datelike as _, NaiveDate, TimeDelta, Utc};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;

/// The files: name and format.
const FILES: [(&str, LogFormat); 4] = [
    ("access.log.1", LogFormat::Combined),
    ("vhost.log", LogFormat::HostFirst),
    ("caddy.log", LogFormat::Json),
    ("u_ex.log", LogFormat::W3c),
];
/// Readers' user agents: each reader has one.
const AGENTS: [&str; 3] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
];
/// Robots: the kind that they are counted as, and the user agent. One in fifty readers is each of them.
const ROBOTS: [(&str, &str); 2] = [
    ("ai_training", "Mozilla/5.0 (compatible; GPTBot/1.2; +https://openai.com/gptbot)"),
    ("search", "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"),
];
/// Statuses of the lines. 301 is not counted; 304 counts as 200.
const STATUSES: [u16; 6] = [200, 200, 200, 304, 404, 301];
const HOST: &str = "docs.example.org";
const FIELDS: &str = "#Fields: date time cs-method cs-uri-stem cs-uri-query c-ip cs(User-Agent) sc-status";

/// Arguments of `headcount-loadtest log`.
#[derive(Debug, Clone, clap::Args)]
pub struct LogArgs {
    /// Lines of all four files together
    #[arg(long, value_name = "N", default_value = "1000000")]
    lines: u64,
    /// The month of the lines
    #[arg(long, value_name = "YYYY-MM")]
    month: String,
    /// Other lines of the same kind
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,
    /// Where the files and truth.json are written
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LogFormat {
    Combined,
    HostFirst,
    Json,
    W3c,
}

/// What an import must count.
#[derive(Default, Serialize)]
struct Truth {
    lines: u64,
    /// Page views of people.
    views: u64,
    /// The same by hour of the month.
    hours: Vec<u64>,
    /// The same by path and status.
    pages: BTreeMap<String, BTreeMap<u16, u64>>,
    /// Different people.
    visitors: u64,
    /// Page views of robots by kind.
    robots: BTreeMap<&'static str, u64>,
    /// Page views of AI crawlers by path.
    ai_pages: BTreeMap<String, u64>,
}

/// One request.
struct Request {
    time: DateTime<Utc>,
    client: String,
    agent: &'static str,
    path: String,
    status: u16,
}

/// Writes the files.
///
/// # Errors
/// The month is none, or a file cannot be written.
pub fn run(args: &LogArgs) -> anyhow::Result<()> {
    let first: NaiveDate = format!("{}-01", args.month).parse().context("--month is YYYY-MM")?;
    let next = if first.month() == 12 {
        NaiveDate::from_ymd_opt(first.year() + 1, 1, 1)
    } else {
        NaiveDate::from_ymd_opt(first.year(), first.month() + 1, 1)
    };
    let hours = (next.context("a month that ends")? - first).num_hours() as u64;
    let start = first.and_time(chrono::NaiveTime::MIN).and_utc();
    std::fs::create_dir_all(&args.directory).context("the directory cannot be made")?;
    let readers = (args.lines / 5).clamp(50, 1 << 20);
    let mut truth = Truth { hours: vec![0; hours as usize], ..Truth::default() };
    let (mut people, mut number) = (BTreeSet::new(), 0);
    for (index, (name, format)) in FILES.into_iter().enumerate() {
        let file = File::create(args.directory.join(name)).with_context(|| format!("{name} cannot be written"))?;
        let mut file = BufWriter::new(file);
        if format == LogFormat::W3c {
            writeln!(file, "{FIELDS}")?;
        }
        // The last file has what is left over.
        let end = if index + 1 == FILES.len() { args.lines } else { args.lines / 4 * (index as u64 + 1) };
        while number < end {
            let random = mix(args.seed << 40 ^ number);
            let (hour, reader) = ((random >> 8) % hours, (random >> 40) % readers);
            let request = request(random, start + TimeDelta::seconds((hour * 3600 + random % 3600) as i64), reader);
            truth.count(&request, hour as usize, reader, &mut people);
            write_line(&mut file, format, &request)?;
            number += 1;
        }
        file.flush()?;
    }
    (truth.lines, truth.visitors) = (number, people.len() as u64);
    let path = args.directory.join("truth.json");
    std::fs::write(&path, serde_json::to_vec(&truth)?).with_context(|| format!("{} cannot be written", path.display()))
}

fn request(random: u64, time: DateTime<Utc>, reader: u64) -> Request {
    let path = format!("/guide/page-{}", (random >> 20) % 40);
    let status = STATUSES[(random >> 32) as usize % STATUSES.len()];
    let (client, agent) = match ROBOTS.get(reader as usize % 50) {
        Some((_, agent)) => ("198.51.100.7".to_owned(), *agent),
        None => {
            let address = format!("10.{}.{}.{}", reader >> 16, reader >> 8 & 255, reader & 255);
            (address, AGENTS[reader as usize % AGENTS.len()])
        }
    };
    Request { time, client, agent, path, status }
}

impl Truth {
    fn count(&mut self, request: &Request, hour: usize, reader: u64, people: &mut BTreeSet<u64>) {
        let status = match request.status {
            301 => return,
            304 => 200,
            status => status,
        };
        if let Some((kind, _)) = ROBOTS.get(reader as usize % 50) {
            *self.robots.entry(kind).or_default() += 1;
            if *kind == "ai_training" {
                *self.ai_pages.entry(request.path.clone()).or_default() += 1;
            }
            return;
        }
        self.views += 1;
        self.hours[hour] += 1;
        *self.pages.entry(request.path.clone()).or_default().entry(status).or_default() += 1;
        people.insert(reader);
    }
}

fn write_line(file: &mut impl std::io::Write, format: LogFormat, request: &Request) -> std::io::Result<()> {
    let Request { time, client, agent, path, status } = request;
    match format {
        LogFormat::Combined | LogFormat::HostFirst => {
            if format == LogFormat::HostFirst {
                write!(file, "{HOST}:443 ")?;
            }
            // The server is an hour to the west; the view belongs to the hour in UTC.
            let local = (*time - TimeDelta::hours(1)).format("%d/%b/%Y:%H:%M:%S -0100");
            writeln!(file, "{client} - - [{local}] \"GET {path} HTTP/1.1\" {status} 1234 \"-\" \"{agent}\"")
        }
        LogFormat::Json => writeln!(
            file,
            r#"{{"level":"info","ts":{}.5,"request":{{"client_ip":"{client}","method":"GET","host":"{HOST}","uri":"{path}","headers":{{"User-Agent":["{agent}"]}}}},"status":{status}}}"#,
            time.timestamp()
        ),
        LogFormat::W3c => {
            let (time, agent) = (time.format("%Y-%m-%d %H:%M:%S"), agent.replace(' ', "+"));
            writeln!(file, "{time} GET {path} - {client} {agent} {status}")
        }
    }
}
