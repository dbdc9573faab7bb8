//! The same figures everywhere: page, JSON, CSV, command line and a mail that a real mail server took (aiosmtpd, from Debian's
//! `python3-aiosmtpd`).

use anyhow::{Context, Result, ensure};
use harness::http::{self, Connection};
use harness::process::{Process, free_address};
use harness::service::{Service, eventually};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const MONTH: &str = "2026-01";
const VIEWS: u64 = 260;

struct MailServer {
    directory: TempDir,
    address: std::net::SocketAddr,
    process: Process,
}

impl MailServer {
    async fn start() -> Result<Self> {
        let (directory, address) = (TempDir::with_prefix("headcount-story-")?, free_address()?);
        let mails = directory.path().join("mails").display().to_string();
        let arguments =
            ["-n", "-l", &address.to_string(), "-c", "aiosmtpd.handlers.Mailbox", &mails].map(str::to_owned);
        let program = Path::new("/usr/bin/aiosmtpd");
        ensure!(program.exists(), "there is no aiosmtpd; scripts/test installs python3-aiosmtpd");
        let log = directory.path().join("log");
        let mut process = Process::new("the mail server", program, arguments.into(), log);
        process.spawn(&[])?;
        eventually("the mail server to listen", async || Ok(tokio::net::TcpStream::connect(address).await?)).await?;
        Ok(MailServer { directory, address, process })
    }

    /// Everything that it has taken, as it came.
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

fn grouped(number: u64) -> String {
    if number < 1000 { number.to_string() } else { format!("{},{:03}", number / 1000, number % 1000) }
}

#[tokio::test(flavor = "multi_thread")]
async fn page_json_csv_command_and_mail_say_the_same() -> Result<()> {
    let mut server = MailServer::start().await?;
    let url = format!("smtp://{}", server.address);
    let mut service =
        Service::new(&["--trusted-proxy", "127.0.0.1", "--smtp-url", &url, "--mail-from", "counts@headcount.example"])?;
    service.start(&["--clock-start", "2026-01-15T10:00:00Z"]).await?;
    service.register(&[("docs", "docs.example"), ("quiet", "quiet.example")]).await?;
    service.done(&["project", "set", "docs", "--mail", "one@example.org", "--mail", "two@example.org"]).await?;
    let mut connection = Connection::open(service.address()).await?;
    for number in 0..VIEWS {
        let from = format!("198.51.100.{}", number % 120);
        let headers =
            [("user-agent", "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"), ("x-forwarded-for", from.as_str())];
        let status = if number % 13 == 0 { 404 } else { 200 };
        let body =
            format!(r#"{{"project":"docs","url":"https://docs.example/{}.html","status":{status}}}"#, number % 7);
        ensure!(connection.send("POST", "/v1/pageview", &headers, body).await?.status == 202, "accepted");
    }
    service.counted("docs", MONTH, VIEWS).await?;
    ensure!(server.mails()?.is_empty(), "the month is not over");
    service.stop().await?;

    // The month after: two mails, one a recipient, and no more of them however long it runs.
    service.start(&["--clock-start", "2026-02-01T06:00:30Z"]).await?;
    let mails = eventually("two mails", async || {
        let mails = server.mails()?;
        ensure!(mails.len() == 2, "{} mails; {}", mails.len(), service.log());
        Ok(mails)
    })
    .await?;

    let json = text(&service, &format!("/v1/projects/docs/reports/{MONTH}")).await?;
    let csv = text(&service, &format!("/v1/projects/docs/reports/{MONTH}.csv")).await?;
    let page = text(&service, &format!("/projects/docs/{MONTH}")).await?;
    let run = async |format: &str| {
        service.done(&["report", "docs", MONTH, "--format", format, "--clock-start", "2026-02-01T06:10:00Z"]).await
    };
    let report: serde_json::Value = serde_json::from_str(&json)?;
    let from_command: serde_json::Value = serde_json::from_str(&run("json").await?)?;
    ensure!(report == from_command, "JSON: {report}\n{from_command}");
    ensure!(csv == run("csv").await?, "CSV");
    let (markdown, html) = (run("md").await?, run("html").await?);

    let totals = &report["totals"];
    let figure = |name: &str| totals[name].as_u64().context(name.to_owned());
    let (views, visits) = (figure("views")?, figure("visits")?);
    let visitors = totals["visitors"]["estimate"].as_u64().context("visitors")?;
    ensure!(views == VIEWS, "{views} views");
    for output in [&markdown, &html, &page] {
        for number in [views, visits, visitors] {
            ensure!(output.contains(&grouped(number)), "{number} is not in {output}");
        }
        for listed in report["pages"]["items"].as_array().context("pages")?.iter().filter(|page| page["status"] == 200)
        {
            let path = listed["path"].as_str().context("a path")?;
            ensure!(output.contains(path), "{path} is not in {output}");
        }
    }
    for (measure, number) in [("views", views), ("visits", visits), ("visitors", visitors)] {
        ensure!(csv.contains(&format!("totals,,,{measure},{number}")), "{measure} {number}: {csv}");
    }

    let mut recipients = Vec::new();
    for mail in &mails {
        let mail = mailparse::parse_mail(mail)?;
        let header = |name: &str| {
            mailparse::MailHeaderMap::get_first_value(mail.headers.as_slice(), name).context(name.to_owned())
        };
        recipients.push(header("To")?);
        ensure!(header("Subject")?.contains("docs") && header("Subject")?.contains(MONTH), "{}", header("Subject")?);
        let [as_text, as_html] = mail.subparts.as_slice() else { anyhow::bail!("{} parts", mail.subparts.len()) };
        let unix = |text: String| text.replace("\r\n", "\n").trim_end().to_owned();
        ensure!(
            unix(as_text.get_body()?) == unix(markdown.clone()),
            "the mail's text is another:\n{}\n{markdown}",
            as_text.get_body()?
        );
        let as_html = as_html.get_body()?;
        ensure!(unix(as_html.clone()) == unix(html.clone()), "the mail's HTML is another");
        for asks in ["<script", "<img", "<link", "src=", "url(", "http://", "@import"] {
            ensure!(!as_html.contains(asks), "the mail has {asks}");
        }
    }
    recipients.sort();
    ensure!(recipients == ["one@example.org", "two@example.org"], "{recipients:?}");

    // A restart looks again at once, and sends nothing twice.
    service.stop().await?;
    service.start(&["--clock-start", "2026-02-01T07:00:00Z"]).await?;
    text(&service, &format!("/v1/projects/docs/reports/{MONTH}")).await?;
    // What it would do it does at its start; a new recipient shows that it has looked.
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
    let right = told(&["--smtp-url", "smtp://u:Geheimnis@mail.example", "--mail-from", "a@b.example"]).await?;
    ensure!(right.contains("(not shown)") && !right.contains("Geheimnis"), "{right}");
    Ok(())
}
