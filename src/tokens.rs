//! Tokens, which grant access to reports: the command that creates, lists and revokes them.

use crate::config::store::StoreSettings;
use crate::erased::{self, ErasedEntry};
use crate::projects;
use crate::{complain, say};
use anyhow::{Context, bail};
use chrono::DateTime;
use clap::ArgMatches;
use clickhouse::Client;
use query::access::token::{Token, TokenId};
use schemas::ProjectSlug;
use schemas::tables::{TokenRow, TokenUseRow};
use std::collections::BTreeMap;

const MAX_LABEL_CHARS: usize = 100;

/// Services read the tokens every two seconds.
const IN_FORCE: &str = "within 3 seconds";

/// Runs `headcount token create|list|revoke`.
pub async fn command(action: &str, matches: &ArgMatches, store: &StoreSettings) -> anyhow::Result<()> {
    let text = |name: &str| matches.try_get_one::<String>(name).ok().flatten();
    let project = match text("project") {
        Some(text) => Some(text.parse::<ProjectSlug>().with_context(|| format!("{text:?} cannot be a project"))?),
        None => None,
    };
    let id = match text("id") {
        // The argument may be a whole token by mistake, so it is not repeated.
        Some(text) => Some(text.parse::<TokenId>().context("this is no token's id")?),
        None => None,
    };
    let label = text("label").cloned().unwrap_or_default();
    if label.chars().count() > MAX_LABEL_CHARS || label.chars().any(char::is_control) {
        bail!("--label: expected at most {MAX_LABEL_CHARS} characters on one line");
    }
    if Token::parse(&label).is_some() {
        bail!("--label is a token; labels are shown in lists");
    }
    let client = projects::connect(store).await?;
    match (action, id) {
        ("create", _) => create(&client, project, label).await,
        ("revoke", Some(id)) => {
            let Some(row) = row(&client, id).await?.filter(|row| row.revoked == 0) else {
                bail!("no token {id} is active; `headcount token list` shows all tokens");
            };
            erased::note(store.data(), ErasedEntry::Token(id.to_string()))?;
            let opens =
                if row.admin == 0 { format!("the reports of {}", row.project) } else { "all reports".to_owned() };
            let label = if row.label.is_empty() { String::new() } else { format!(" ({})", row.label) };
            put(&client, &[TokenRow { revoked: 1, ..row }]).await?;
            say!("token {id}{label}: opens {opens} → opens nothing, {IN_FORCE}");
            Ok(())
        }
        _ => list(&client).await,
    }
}

async fn create(client: &Client, project: Option<ProjectSlug>, label: String) -> anyhow::Result<()> {
    if let Some(slug) = &project
        && !projects::is_known(client, slug).await?
    {
        bail!("there is no project {slug}; register it with `headcount project add {slug} --host HOST`");
    }
    let token = Token::draw().context("the operating system gives no random numbers")?;
    let row = TokenRow {
        id: token.id().to_string(),
        project: project.as_ref().map_or_else(String::new, |slug| slug.as_str().to_owned()),
        admin: u8::from(project.is_none()),
        hash: token.hash().to_hex(),
        label,
        created: u32::try_from(chrono::Utc::now().timestamp()).unwrap_or(0),
        revoked: 0,
        revision: 0,
    };
    put(client, &[row]).await?;
    // Only the token on standard output, so that a script can assign it to a variable.
    say!("{}", *token.text());
    let opens = project.map_or_else(|| "all reports".to_owned(), |slug| format!("the reports of {slug}"));
    complain!("opens {opens}, {IN_FORCE}; it is shown this once and kept nowhere. Its id is {}", token.id());
    Ok(())
}

async fn list(client: &Client) -> anyhow::Result<()> {
    let query = client.query("SELECT ?fields FROM token FINAL ORDER BY revoked, created, id");
    let rows = query.fetch_all::<TokenRow>().await.context("cannot read the tokens")?;
    let query = client.query("SELECT ?fields FROM token_use FINAL");
    let uses = query.fetch_all::<TokenUseRow>().await.context("cannot read when tokens were used")?;
    let uses: BTreeMap<String, u32> = uses.into_iter().map(|row| (row.id, row.used)).collect();
    if rows.is_empty() {
        say!("no tokens yet; make one with `headcount token create --admin`, or `--project SLUG`");
        return Ok(());
    }
    say!("{:<16}  {:<24}  {:<10}  {:<10}  {:<8}  label", "id", "opens", "created", "last used", "state");
    for row in rows {
        let opens = if row.admin == 0 { row.project.as_str() } else { "all reports" };
        let used = uses.get(&row.id).map_or_else(|| "never".to_owned(), |&used| day(used));
        let state = if row.revoked == 0 { "active" } else { "revoked" };
        say!("{:<16}  {opens:<24}  {:<10}  {used:<10}  {state:<8}  {}", row.id, day(row.created), row.label);
    }
    Ok(())
}

fn day(seconds: u32) -> String {
    DateTime::from_timestamp(i64::from(seconds), 0).map_or_else(String::new, |at| at.format("%Y-%m-%d").to_string())
}

/// Revokes a token, if it is known and valid.
///
/// # Errors
/// ClickHouse refused, or is unavailable.
pub async fn revoke(client: &Client, id: TokenId) -> anyhow::Result<bool> {
    let Some(row) = row(client, id).await?.filter(|row| row.revoked == 0) else { return Ok(false) };
    put(client, &[TokenRow { revoked: 1, ..row }]).await?;
    Ok(true)
}

async fn row(client: &Client, id: TokenId) -> anyhow::Result<Option<TokenRow>> {
    let query = client.query("SELECT ?fields FROM token FINAL WHERE id = {id:String}").param("id", id.to_string());
    query.fetch_optional().await.context("cannot read the tokens")
}

/// The tokens of a project that are not revoked.
pub async fn of_project(client: &Client, project: &ProjectSlug) -> anyhow::Result<Vec<TokenRow>> {
    let sql = "SELECT ?fields FROM token FINAL WHERE admin = 0 AND project = {project:String} AND revoked = 0";
    let rows = client.query(sql).param("project", project.as_str()).fetch_all::<TokenRow>().await;
    rows.context("cannot read the project's tokens")
}

/// Revokes all tokens of a project that is erased: they must not grant access to a later project of the same name.
pub async fn revoke_all_of(client: &Client, project: &ProjectSlug) -> anyhow::Result<usize> {
    let rows = of_project(client, project).await?;
    let revoked: Vec<TokenRow> = rows.into_iter().map(|row| TokenRow { revoked: 1, ..row }).collect();
    put(client, &revoked).await?;
    Ok(revoked.len())
}

async fn put(client: &Client, rows: &[TokenRow]) -> anyhow::Result<()> {
    let now = u64::try_from(chrono::Utc::now().timestamp_millis()).unwrap_or(0);
    // A clock that stepped back must not lose the change.
    let changed = |row: &TokenRow| TokenRow { revision: now.max(row.revision + 1), ..row.clone() };
    let rows: Vec<TokenRow> = rows.iter().map(changed).collect();
    storage::insert(client, "token", &rows).await.context("cannot store the token")
}
