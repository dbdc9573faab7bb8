//! The same figures everywhere: page, JSON, CSV, command line and a mail that a real mail server took (aiosmtpd, from Debian's
//! `python3-aiosmtpd`).

#[path = "mail/faults.rs"]
mod faults;
#[path = "mail/forms.rs"]
mod forms;

use anyhow::{Context, Result, ensure};
use harness::http::{self, Connection};
use harness::process::{Process, free_address};
use harness::service::{Service, eventually};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const MONTH: &str = "2026-01";
const VIEWS: u64 = 260;
/// Additional views that Plausible's script sends.
const OF_PLAUSIBLE: u64 = 24;
const BEFORE: &str = "2025-12";
const VIEWS_BEFORE: u64 = 140;
const BOTS: u64 = 14;
/// Refused beacons by host: one is below the threshold.
const FOREIGN: [(&str, u64); 3] = [("mirror.example", 12), ("copy.example", 11), ("once.example", 2)];

struct MailServer {
    directory: TempDir,
    address: std::net::SocketAddr,
    process: Process,
}

impl MailServer {
    async fn start() -> Result<Self> {
        let (directory, address) = (TempDir::with_prefix("headcount-story-")?, free_address()?);
        let mails = directory.path().join("mails").display().to_string();
        let arguments = ["-n", "-l", &address.to_string(), "-c", "refusing.Refusing", &mails].map(str::to_owned);
        let program = Path::new("/usr/bin/aiosmtpd");
        ensure!(program.exists(), "there is no aiosmtpd; scripts/test installs python3-aiosmtpd");
        let log = directory.path().join("log");
        let mut process = Process::new("the mail server", program, arguments.into(), log);
        let handler = Path::new(env!("CARGO_MANIFEST_DIR")).join("stories/mail");
        process.variable("PYTHONPATH", &handler.display().to_string()).variable("PYTHONDONTWRITEBYTECODE", "1");
        process.spawn(&[])?;
        eventually("the mail server to listen", async || Ok(tokio::net::TcpStream::connect(address).await?)).await?;
        Ok(MailServer { directory, address, process })
    }

    /// All accepted mails, as received.
    fn mails(&self) -> Result<Vec<Vec<u8>>> {
        let mut files: Vec<PathBuf> = Vec::new();
        for folder in ["new", "cur"] {
            let folder = self.directory.path().join("mails").join(folder);
            let Ok(entries) = std::fs::read_dir(folder) else { continue };
            files.extend(entries.flatten().map(|entry| entry.path()));
        }
        files.iter().map(|file| Ok(std::fs::read(file)?)).collect()
    }
}

async fn text(service: &Service, path: &str) -> Result<String> {
    let answer = http::get(service.address(), path).await?;
    ensure!(answer.status == 200, "{path}: {}", answer.status);
    Ok(String::from_utf8(answer.body.to_vec())?)
}

/// One beacon, whose response must have `status`.
async fn send(
    connection: &mut Connection,
    number: u64,
    agent: &str,
    beacon: serde_json::Value,
    status: u16,
) -> Result<()> {
    let from = format!("198.51.100.{}", number % 120);
    let headers = [("user-agent", agent), ("x-forwarded-for", from.as_str())];
    let answer = connection.send("POST", "/v1/pageview", &headers, beacon.to_string()).await?;
    ensure!(answer.status == status, "{beacon}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
    Ok(())
}

/// Views of pages, some of them not found, by readers of several versions, who come from several sites.
async fn read(service: &Service, views: u64) -> Result<()> {
    let mut connection = Connection::open(service.address()).await?;
    for number in 0..views {
        let (status, page) = if number % 4 == 0 { (404, number % 3) } else { (200, number % 7) };
        let referrer = match status {
            404 => ["https://blog.example/a", "https://docs.example/"][(number / 12 % 2) as usize],
            _ => ["https://blog.example/a", "https://news.example/", ""][(number % 3) as usize],
        };
        let version = ["stable", "latest", "stable", "old"][(number % 4) as usize];
        let language = ["en", "de"][(number / 7 % 2) as usize];
        let beacon = json!({
            "project": "docs",
            "url": format!("https://docs.example/{page}.html"),
            "status": status,
            "version": version,
            "language": language,
            "referrer": referrer,
        });
        let agents = [
            "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0",
            "Mozilla/5.0 (Macintosh; Intel Mac OS X) Version/18.0 Safari/605",
        ];
        send(&mut connection, number, agents[(number % 2) as usize], beacon, 202).await?;
    }
    Ok(())
}

/// Writes the rows that the fold writes for views that were counted without a fact. They add no refused beacons.
async fn views_without_facts(service: &Service) -> Result<()> {
    let live = async || http::get(service.address(), "/projects/docs/live").await?.json();
    let before = live().await?;
    for (reason, views) in [("limited_path", 1204), ("limited_agent", 12), ("dropped_title", 1)] {
        let sql = "INSERT INTO rejection_daily (project, day, reason, host, beacons, stream, window_start, next_offset) \
                   VALUES ('docs', toDate('2026-01-15'), ?, '', ?, 7, 0, 9)";
        service.clickhouse()?.query(sql).bind(reason).bind(views).execute().await?;
    }
    let after = live().await?;
    ensure!(before["refused_today"] == after["refused_today"] && before["refused_today"] != 0, "{before} {after}");
    Ok(())
}

/// Views by another tracker and by a robot, and refused beacons.
async fn other_requests(service: &Service) -> Result<()> {
    let mut connection = Connection::open(service.address()).await?;
    for _ in 0..OF_PLAUSIBLE {
        let event = json!({"n": "pageview", "d": "docs.example", "u": "https://docs.example/1.html"});
        let headers =
            [("user-agent", "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"), ("x-forwarded-for", "198.51.100.9")];
        let answer = connection.send("POST", "/api/event", &headers, event.to_string()).await?;
        ensure!(answer.status.is_success(), "{event}: {}", answer.status);
    }
    let crawler = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
    for number in 0..BOTS {
        let beacon = json!({"project": "docs", "url": "https://docs.example/"});
        send(&mut connection, number, crawler, beacon, 202).await?;
    }
    for (host, beacons) in FOREIGN {
        for number in 0..beacons {
            let beacon = json!({"project": "docs", "url": format!("https://{host}/")});
            send(&mut connection, number, "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0", beacon, 404).await?;
        }
    }
    Ok(())
}

/// Every list of the report has items, so that nothing is compared with nothing.
fn has_all_lists(report: &serde_json::Value) -> Result<()> {
    ensure!(report["totals"]["views"] == VIEWS + OF_PLAUSIBLE, "{}", report["totals"]);
    let trackers = json!([
        {"source": "headcount", "views": VIEWS, "visits": "arrivals"},
        {"source": "plausible", "views": OF_PLAUSIBLE, "visits": "repeated_referrer"},
    ]);
    ensure!(report["counted_by"] == trackers, "{}", report["counted_by"]);
    let any = |list: &serde_json::Value, is: &dyn Fn(&serde_json::Value) -> bool| {
        list.as_array().is_some_and(|items| items.iter().any(is))
    };
    let pages = &report["pages"]["items"];
    ensure!(any(pages, &|page| page["change"].is_number() && page["visitors"]["estimate"].is_number()), "{pages}");
    let missing = &report["not_found"]["items"];
    ensure!(any(missing, &|page| any(&page["referrers"], &|item| item["value"] == "blog.example")), "{missing}");
    for dimension in ["version", "language", "referrer", "browser", "bot"] {
        let values = &report["breakdowns"][dimension];
        ensure!(any(values, &|item| item["rest"] != true), "{dimension}: {values}");
    }
    let hosts = &report["rejected_hosts"];
    ensure!(
        any(hosts, &|host| host["host"] == "mirror.example") && any(hosts, &|host| host["rest"] == true),
        "{hosts}"
    );
    let dropped = json!([
        {"fact": "path", "cause": "limit", "views": 1204},
        {"fact": "agent", "cause": "limit", "views": 12},
        {"fact": "title", "cause": "unusable", "views": 1},
    ]);
    ensure!(report["dropped_facts"] == dropped, "{}", report["dropped_facts"]);
    ensure!(report["totals"]["rejected"].as_object().is_some_and(|of| of.len() == 1), "{}", report["totals"]);
    ensure!(report["totals"]["visits_at_missing_pages"].is_u64(), "{}", report["totals"]);
    Ok(())
}

/// The mail has both forms of the report, and loads nothing. Returns its recipient.
fn is_the_report(mail: &[u8], markdown: &str, html: &str) -> Result<String> {
    let mail = mailparse::parse_mail(mail)?;
    let header =
        |name: &str| mailparse::MailHeaderMap::get_first_value(mail.headers.as_slice(), name).context(name.to_owned());
    ensure!(header("Subject")?.contains("docs") && header("Subject")?.contains(MONTH), "{}", header("Subject")?);
    let [as_text, as_html] = mail.subparts.as_slice() else { anyhow::bail!("{} parts", mail.subparts.len()) };
    let unix = |text: String| text.replace("\r\n", "\n").trim_end().to_owned();
    ensure!(
        unix(as_text.get_body()?) == unix(markdown.to_owned()),
        "the mail's text is another:\n{}\n{markdown}",
        as_text.get_body()?
    );
    let as_html = as_html.get_body()?;
    ensure!(unix(as_html.clone()) == unix(html.to_owned()), "the mail's HTML is another");
    for asks in ["<script", "<img", "<link", "src=", "url(", "http://", "@import"] {
        ensure!(!as_html.contains(asks), "the mail has {asks}");
    }
    header("To")
}

#[tokio::test(flavor = "multi_thread")]
async fn page_json_csv_command_and_mail_say_the_same() -> Result<()> {
    let mut server = MailServer::start().await?;
    let url = format!("smtp://{}", server.address);
    let mut service =
        Service::new(&["--trusted-proxy", "127.0.0.1", "--smtp-url", &url, "--mail-from", "counts@headcount.example"])?;
    service.start(&["--clock-start", "2025-12-20T10:00:00Z"]).await?;
    service.register(&[("docs", "docs.example"), ("quiet", "quiet.example")]).await?;
    let recipients = ["nobody@example.org", "one@example.org", "two@example.org"].map(|address| ["--mail", address]);
    service.done(&[&["project", "set", "docs"][..], recipients.as_flattened()].concat()).await?;
    read(&service, VIEWS_BEFORE).await?;
    service.counted("docs", BEFORE, VIEWS_BEFORE).await?;
    service.stop().await?;
    service.start(&["--clock-start", "2026-01-15T10:00:00Z"]).await?;
    service.opened("docs").await?;
    read(&service, VIEWS).await?;
    other_requests(&service).await?;
    service.counted("docs", MONTH, VIEWS + OF_PLAUSIBLE).await?;
    eventually("bots and refusals to be counted", async || {
        let totals = service.report("docs", MONTH).await?["totals"].take();
        let refused: u64 = FOREIGN.iter().map(|(_, beacons)| beacons).sum();
        ensure!(totals["bots"]["search"] == BOTS && totals["rejected"]["foreign_host"] == refused, "{totals}");
        Ok(())
    })
    .await?;
    views_without_facts(&service).await?;
    ensure!(server.mails()?.is_empty(), "the month is not over");
    service.stop().await?;

    // The next month: two mails, one for each recipient, and no more of them however long it runs.
    service.start(&["--clock-start", "2026-02-01T06:00:30Z"]).await?;
    let mails = eventually("two mails", async || {
        let mails = server.mails()?;
        ensure!(mails.len() == 2, "{} mails; {}", mails.len(), service.log());
        Ok(mails)
    })
    .await?;

    let csv = text(&service, &format!("/v1/projects/docs/reports/{MONTH}.csv")).await?;
    let page = text(&service, &format!("/projects/docs/{MONTH}")).await?;
    let run = async |format: &str| {
        service.done(&["report", "docs", MONTH, "--format", format, "--clock-start", "2026-02-01T06:10:00Z"]).await
    };
    let path = format!("/v1/projects/docs/reports/{MONTH}");
    let report: serde_json::Value = serde_json::from_str(&text(&service, &path).await?)?;
    let from_command: serde_json::Value = serde_json::from_str(&run("json").await?)?;
    ensure!(report == from_command, "JSON: {report}\n{from_command}");
    ensure!(csv == run("csv").await?, "CSV");
    let (markdown, html) = (run("md").await?, run("html").await?);

    has_all_lists(&report)?;
    forms::csv(&report, &csv)?;
    forms::markdown(&report, &markdown)?;
    forms::html(&report, &page).context("the page")?;
    forms::html(&report, &html).context("the file")?;
    let refusals = service.log();
    ensure!(refusals.contains("refused it with 550") && !refusals.contains("nobody@"), "{refusals}");

    let recipients: BTreeSet<String> =
        mails.iter().map(|mail| is_the_report(mail, &markdown, &html)).collect::<Result<_>>()?;
    ensure!(recipients.iter().eq(["one@example.org", "two@example.org"]), "{recipients:?}");

    // A restart checks immediately, and sends nothing twice.
    service.stop().await?;
    service.start(&["--clock-start", "2026-02-01T07:00:00Z"]).await?;
    text(&service, &format!("/v1/projects/docs/reports/{MONTH}")).await?;
    // The check runs at its start; a mail to a new recipient proves that it has run.
    service.done(&["project", "set", "docs", "--mail", "three@example.org"]).await?;
    service.stop().await?;
    service.start(&["--clock-start", "2026-02-01T08:00:00Z"]).await?;
    let all = eventually("a third mail", async || {
        let all = server.mails()?;
        ensure!(all.len() >= 3, "{} mails", all.len());
        Ok(all)
    })
    .await?;
    ensure!(all.len() == 3, "{} mails", all.len());
    service.stop().await?;
    tokio::time::timeout(Duration::from_secs(20), server.process.kill()).await??;
    Ok(())
}

#[tokio::test]
async fn settings_of_mail_are_checked_and_its_password_is_not_shown() -> Result<()> {
    let told = async |arguments: &[&str]| -> Result<String> {
        let output =
            tokio::process::Command::new(harness::service::binary()?).arg("config").args(arguments).output().await?;
        Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let wrong = told(&["--smtp-url", "smtp://u:Geheimnis@mail.example"]).await?;
    ensure!(wrong.contains("mail_from") && !wrong.contains("Geheimnis"), "{wrong}");
    let wrong = told(&["--smtp-url", "gopher://u:Geheimnis@mail.example", "--mail-from", "a@b.example"]).await?;
    ensure!(wrong.contains("smtp_url") && !wrong.contains("Geheimnis"), "{wrong}");
    let wrong = told(&["--smtp-url", "smtp://u:Geheimnis@mail.example", "--mail-from", "docs"]).await?;
    ensure!(wrong.contains("setting `mail_from`") && !wrong.contains("smtp_url"), "{wrong}");
    let right = told(&["--smtp-url", "smtp://u:Geheimnis@mail.example", "--mail-from", "a@b.example"]).await?;
    ensure!(right.contains("(not shown)") && !right.contains("Geheimnis"), "{right}");
    Ok(())
}
