//! Reports by mail: once a month, to the e-mail addresses that a project has (`headcount project set SLUG --mail ADDRESS`).
//!
//! A mail carries figures as text, and as HTML that loads nothing. It does not track recipients: it has no picture, and no link that differs between
//! recipients.
//!
//! A delivery is recorded after the mail server has accepted the mail. If the process is killed in between, the next one sends that mail again with
//! the same Message-ID; the other order would lose it. Set `smtp_url` on one process of a deployment: two might both send.

use crate::config::MailSettings;
use crate::report;
use anyhow::{Context, bail};
use clickhouse::{Client, Row};
use lettre::message::header::ContentType;
use lettre::message::{Mailbox, MultiPart, SinglePart};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use query::Reports;
use schemas::tables::DeliveryRow;
use schemas::{Month, ProjectSlug};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Interval between two checks for mails to send.
const EVERY: Duration = Duration::from_secs(60);

/// How long after a month's end its reports are still sent; recipients added later start with the next report.
const WITHIN: Duration = Duration::from_secs(14 * 24 * 3600);

/// Pause before the first retry of a mail that was not accepted; it doubles each time, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = EVERY;
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3600);

/// Pause after a permanent refusal, such as of an invalid e-mail address: after a fix the mail is sent within a day.
const REFUSED_PAUSE: Duration = Duration::from_secs(24 * 3600);

/// How long a mail server may take for one mail.
const SMTP_TIMEOUT: Duration = Duration::from_secs(60);

/// How mail is sent.
#[derive(Clone)]
pub struct MailConfig {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    /// Base URL of the reports, for the link; none if it is not configured.
    public_url: Option<String>,
    after: Duration,
    /// Outcomes of mails since the start.
    pub metrics: MailMetrics,
}

/// Attempts to send a mail, by outcome. A clone shares them.
#[derive(Clone, Debug)]
pub struct MailMetrics(Family<[(&'static str, &'static str); 1], Counter>);

impl Default for MailMetrics {
    fn default() -> Self {
        let attempts = Family::default();
        for outcome in ["sent", "refused", "failed"] {
            drop(attempts.get_or_create(&[("outcome", outcome)]));
        }
        MailMetrics(attempts)
    }
}

impl MailMetrics {
    /// Counts an attempt. A failed one is retried soon, a permanently refused one after a day.
    fn note(&self, outcome: &Result<(), Untaken>) {
        let outcome = match outcome {
            Ok(()) => "sent",
            Err(untaken) if untaken.is_final() => "refused",
            Err(_) => "failed",
        };
        self.0.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("mails", "Attempts to send a report by mail, by outcome", self.0.clone());
    }
}

impl MailConfig {
    /// `url` as `smtp://user:password@host:587?tls=required`, or `smtps://…`.
    pub fn new(url: &str, from: &str, public_url: Option<&str>, after: Duration) -> anyhow::Result<Self> {
        // Neither error repeats the URL, which contains a password.
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(url)
            .map_err(|_| {
                anyhow::anyhow!(
                    "setting `smtp_url`: expected smtp://host:25, smtp://user:password@host:587?tls=required or smtps://…"
                )
            })?
            .timeout(Some(SMTP_TIMEOUT))
            .build();
        let from =
            from.parse().context("setting `mail_from`: expected an e-mail address such as headcount@example.org")?;
        Ok(MailConfig {
            transport,
            from,
            public_url: public_url.map(|url| url.trim_end_matches('/').to_owned()),
            after,
            metrics: MailMetrics::default(),
        })
    }
}

#[derive(Row, Deserialize)]
struct Due {
    slug: String,
    recipients: Vec<String>,
}

/// Why a mail did not go out.
#[derive(Debug, thiserror::Error)]
enum Untaken {
    /// The server's code alone: its text may name the recipient.
    #[error("the mail server refused it with {0}")]
    Refused(lettre::transport::smtp::response::Code),
    #[error("the mail server did not take it")]
    Smtp(#[source] lettre::transport::smtp::Error),
    #[error("the mail server did not answer within {} s", SMTP_TIMEOUT.as_secs())]
    Late,
    #[error("it cannot be made")]
    Unmade(#[source] anyhow::Error),
}

impl Untaken {
    fn of(error: lettre::transport::smtp::Error) -> Self {
        error.status().map_or_else(|| Untaken::Smtp(error), Untaken::Refused)
    }

    /// Whether a retry would fail in the same way.
    fn is_final(&self) -> bool {
        match self {
            Untaken::Refused(code) => {
                code.severity == lettre::transport::smtp::response::Severity::PermanentNegativeCompletion
            }
            Untaken::Unmade(_) => true,
            Untaken::Smtp(_) | Untaken::Late => false,
        }
    }

    /// Whether the mail server is unavailable to all recipients.
    fn is_away(&self) -> bool {
        match self {
            // 421: it is closing.
            Untaken::Refused(code) => u16::from(*code) == 421,
            Untaken::Smtp(error) => !error.is_client(),
            Untaken::Late => true,
            Untaken::Unmade(_) => false,
        }
    }
}

/// One mail: its month, project and recipient.
type Mail = (Month, String, String);

/// Mails that were not accepted, and when each is retried.
#[derive(Default)]
struct Waiting(BTreeMap<Mail, (Duration, Instant)>);

impl Waiting {
    /// Drops the entries of other months, which are not retried any more.
    fn only(&mut self, month: Month) {
        self.0.retain(|(of, ..), _| *of == month);
    }

    fn may_try(&self, mail: &Mail, now: Instant) -> bool {
        self.0.get(mail).is_none_or(|(_, again)| *again <= now)
    }

    fn untaken(&mut self, mail: &Mail, is_final: bool, now: Instant) {
        let (pause, again) = self.0.entry(mail.clone()).or_insert((Duration::ZERO, now));
        *pause = if is_final { REFUSED_PAUSE } else { (*pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE) };
        *again = now + *pause;
    }

    fn taken(&mut self, mail: &Mail) {
        self.0.remove(mail);
    }
}

/// Sends the due mails until dropped. Failures are retried with growing pauses.
pub async fn keep(client: Client, mail: MailConfig, reports: Reports) {
    let mut failing = false;
    let mut waiting = Waiting::default();
    loop {
        match deliver(&client, &mail, &reports, &mut waiting).await {
            Ok(sent) => {
                failing = false;
                if sent > 0 {
                    tracing::info!(sent, "reports went out by mail");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(
                        error = crate::shell::chain(&error),
                        "a report could not be sent by mail; trying again"
                    );
                }
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Recipients who have not got the month's report; `slug` limits them to one project.
async fn due(client: &Client, month: Month, slug: Option<&str>) -> anyhow::Result<Vec<Due>> {
    let sql = "SELECT slug, arrayFilter(address -> (slug, address) NOT IN \
               (SELECT project, recipient FROM delivery FINAL WHERE month = toDate({month:UInt16})), recipients) AS recipients \
               FROM project FINAL WHERE removed = 0 AND notEmpty(recipients) AND ({slug:String} = '' OR slug = {slug:String}) ORDER BY slug";
    let slug = slug.unwrap_or("");
    let due = client.query(sql).param("month", month.first_hour().day().0).param("slug", slug).fetch_all::<Due>();
    due.await.context("cannot read the recipients of reports")
}

/// Sends last month's reports to the recipients who have not got them, and returns how many mails were accepted. A failure of one project or
/// recipient delays no other. If the mail server is unavailable, the remaining mails are not attempted.
async fn deliver(client: &Client, mail: &MailConfig, reports: &Reports, waiting: &mut Waiting) -> anyhow::Result<u64> {
    let month = reports.running().previous();
    let ended = (reports.now() - month.end_hour().start()).to_std().unwrap_or_default();
    if ended < mail.after || ended > WITHIN {
        return Ok(0);
    }
    waiting.only(month);
    let (mut sent, mut failure) = (0, None);
    'pass: for Due { slug, mut recipients } in due(client, month, None).await? {
        let to = |recipient: &String| (month, slug.clone(), recipient.clone());
        recipients.retain(|recipient| waiting.may_try(&to(recipient), Instant::now()));
        if recipients.is_empty() {
            continue;
        }
        let Ok(project) = slug.parse::<ProjectSlug>() else { continue };
        let [text, html] = match report::for_people(reports, &project, month.into()).await {
            Ok(written) => written,
            // Nothing was ever counted for this project, so there is nothing to send.
            Err(problem) if problem.status == 404 => continue,
            Err(problem) => {
                failure = Some(report::told(&problem).context(format!("the report of {project}")));
                continue;
            }
        };
        for recipient in recipients {
            // Since the pass started, the project may have been erased, its e-mail addresses changed, or the report sent.
            match due(client, month, Some(&slug)).await {
                Ok(now) if now.iter().any(|of| of.recipients.contains(&recipient)) => {}
                Ok(_) => continue,
                Err(error) => {
                    failure = Some(error);
                    break 'pass;
                }
            }
            let outcome = match message(mail, &project, month, &recipient, &text, &html) {
                Ok(message) => send(mail, message).await,
                Err(error) => Err(Untaken::Unmade(error)),
            };
            mail.metrics.note(&outcome);
            let to = to(&recipient);
            match outcome {
                Ok(()) => {
                    sent += 1;
                    match note(client, &project, month, &recipient).await {
                        Ok(()) => waiting.taken(&to),
                        Err(error) => {
                            // The mail is sent, but only this process knows: without this entry it would be sent again a minute later.
                            waiting.untaken(&to, true, Instant::now());
                            failure = Some(error);
                        }
                    }
                }
                Err(error) => {
                    waiting.untaken(&to, error.is_final(), Instant::now());
                    let is_away = error.is_away();
                    failure = Some(anyhow::Error::new(error).context(format!("a report of {project}")));
                    if is_away {
                        break 'pass;
                    }
                }
            }
        }
    }
    match failure {
        Some(failure) => Err(failure),
        None => Ok(sent),
    }
}

async fn send(mail: &MailConfig, message: Message) -> Result<(), Untaken> {
    match tokio::time::timeout(SMTP_TIMEOUT, mail.transport.send(message)).await {
        Ok(Ok(taken)) if taken.is_positive() => Ok(()),
        Ok(Ok(refused)) => Err(Untaken::Refused(refused.code())),
        Ok(Err(error)) => Err(Untaken::of(error)),
        Err(_) => Err(Untaken::Late),
    }
}

fn message(
    mail: &MailConfig,
    project: &ProjectSlug,
    month: Month,
    recipient: &str,
    text: &str,
    html: &str,
) -> anyhow::Result<Message> {
    let link = mail.public_url.as_ref().map(|url| format!("{url}/projects/{project}/{month}"));
    let text = link.map_or_else(|| text.to_owned(), |link| format!("{text}\n{link}\n"));
    // The same mail has the same id, so that a mail client shows a repeated mail once.
    let id = blake3::hash(format!("{project} {month} {recipient}").as_bytes()).to_hex();
    let domain = mail.from.email.domain();
    Message::builder()
        .from(mail.from.clone())
        .to(recipient.parse().context("a recipient's e-mail address is invalid")?)
        .subject(format!("{project}: documentation traffic in {month}"))
        .message_id(Some(format!("<{}@{domain}>", &id[..32])))
        .multipart(
            MultiPart::alternative()
                .singlepart(SinglePart::builder().header(ContentType::TEXT_PLAIN).body(text))
                .singlepart(SinglePart::builder().header(ContentType::TEXT_HTML).body(html.to_owned())),
        )
        .context("cannot make a mail of it")
}

/// Inserted as a row, not as text of a query: ClickHouse's error about a refused query may repeat its text.
async fn note(client: &Client, project: &ProjectSlug, month: Month, recipient: &str) -> anyhow::Result<()> {
    let row = DeliveryRow {
        project: project.to_string(),
        month: month.first_hour().day().0,
        recipient: recipient.to_owned(),
        sent: u32::try_from(chrono::Utc::now().timestamp()).unwrap_or(u32::MAX),
    };
    storage::insert(client, "delivery", &[row])
        .await
        .context("cannot store that a report was sent; it is sent again after a day, or when this process restarts")
}

/// How mail is sent, if `smtp_url` is set.
///
/// # Errors
/// `mail_from` is missing, or one of the two is wrong.
pub fn configured(settings: &MailSettings) -> anyhow::Result<Option<MailConfig>> {
    let Some(url) = settings.smtp_url.text() else { return Ok(None) };
    let Some(from) = settings.mail_from.text() else {
        bail!("setting `mail_from` is missing: with `smtp_url` a sender is needed");
    };
    let public_url = settings.public.url();
    MailConfig::new(url, from, public_url, settings.mail_after_hours).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_taken_is_tried_less_and_less_often() {
        let (mut waiting, start) = (Waiting::default(), Instant::now());
        let month: Month = "2026-10".parse().unwrap();
        let to = |month: Month, recipient: &str| (month, "docs".to_owned(), recipient.to_owned());
        let [a, b] = ["a@example.org", "b@example.org"].map(|recipient| to(month, recipient));
        assert!(waiting.may_try(&a, start));
        let mut now = start;
        for minutes in [1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360] {
            waiting.untaken(&a, false, now);
            now += Duration::from_secs(minutes * 60);
            assert!(!waiting.may_try(&a, now - Duration::from_secs(1)), "{minutes}");
            assert!(waiting.may_try(&a, now), "{minutes}");
            assert!(waiting.may_try(&b, start));
        }
        waiting.taken(&a);
        waiting.untaken(&a, true, now);
        assert!(!waiting.may_try(&a, now + Duration::from_secs(23 * 3600)));
        assert!(waiting.may_try(&a, now + Duration::from_secs(24 * 3600)));
        // The next month's mail has nothing to wait for, and this one's is forgotten then.
        assert!(waiting.may_try(&to(month.next(), "a@example.org"), now));
        waiting.only(month);
        assert!(!waiting.may_try(&a, now));
        waiting.only(month.next());
        assert!(waiting.may_try(&a, now));
    }

    #[tokio::test]
    async fn an_unavailable_server_differs_from_one_that_refuses() {
        // Nothing listens on port 1.
        let mail = MailConfig::new("smtp://127.0.0.1:1", "a@example.org", None, Duration::ZERO).unwrap();
        let (project, month) = ("docs".parse().unwrap(), "2026-10".parse().unwrap());
        let message = message(&mail, &project, month, "b@example.org", "text", "html").unwrap();
        assert!(send(&mail, message).await.unwrap_err().is_away());
        let refused = |code: &str| {
            use lettre::transport::smtp::response::{Category, Code, Detail, Severity};
            Untaken::Refused(match code {
                "421" => Code::new(Severity::TransientNegativeCompletion, Category::Connections, Detail::One),
                _ => Code::new(Severity::PermanentNegativeCompletion, Category::MailSystem, Detail::Zero),
            })
        };
        assert!(refused("421").is_away() && !refused("421").is_final());
        assert!(!refused("550").is_away() && refused("550").is_final());
    }
}
