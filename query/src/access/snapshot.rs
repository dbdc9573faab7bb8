//! The active tokens and the public projects: a copy at one moment, replaced as a whole.

use super::token::{Token, TokenHash, TokenId};
use crate::cache::Fingerprint;
use clickhouse::Client;
use clickhouse::error::Error as ClickHouseError;
use schemas::ProjectSlug;
use schemas::tables::TokenRow;
use std::collections::HashMap;

/// What a token gives access to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rights {
    /// The reports of every project.
    Admin,
    /// The reports of one project.
    Project(ProjectSlug),
}

/// The rights at one moment.
#[derive(Default)]
pub(super) struct Snapshot {
    tokens: HashMap<TokenId, (TokenHash, Rights)>,
    /// With the revision of their registration, which changes with every change to it.
    public: HashMap<ProjectSlug, u64>,
}

impl Snapshot {
    /// Indexes the rows of the tables. Rows that are not valid tokens (written by hand) give no access.
    pub(super) fn of(tokens: Vec<TokenRow>, public: &[(String, u64)]) -> Self {
        let tokens = tokens.into_iter().filter(|row| row.revoked == 0).filter_map(|row| {
            let rights = match row.admin {
                0 => Rights::Project(row.project.parse().ok()?),
                _ => Rights::Admin,
            };
            Some((row.id.parse().ok()?, (TokenHash::from_hex(&row.hash)?, rights)))
        });
        let public = public.iter().filter_map(|(slug, revision)| Some((slug.parse().ok()?, *revision)));
        Snapshot { tokens: tokens.collect(), public: public.collect() }
    }

    /// Reads both tables, and the fingerprint of what cached reports depend on.
    pub(super) async fn read(client: &Client) -> Result<(Self, Fingerprint), ClickHouseError> {
        let tokens = client.query("SELECT ?fields FROM token FINAL WHERE revoked = 0");
        // A removed project keeps its figures and its readers; an erased one has no figures.
        let public = client.query("SELECT slug, revision FROM project FINAL WHERE public = 1 AND removed < 2");
        let fingerprint = client.query(Fingerprint::SQL).fetch_one::<Fingerprint>().await?;
        let tokens = tokens.fetch_all::<TokenRow>().await?;
        Ok((Snapshot::of(tokens, &public.fetch_all::<(String, u64)>().await?), fingerprint))
    }

    /// The rights of a token with the right secret.
    pub(super) fn rights_of(&self, token: &Token) -> Option<&Rights> {
        // Hashed before the lookup, so that an unknown id takes as long as a known one.
        let hash = token.hash();
        self.tokens.get(&token.id()).filter(|(stored, _)| *stored == hash).map(|(_, rights)| rights)
    }

    /// The rights of a token that was verified before, if it is still active.
    pub(super) fn still(&self, token: TokenId) -> Option<&Rights> {
        self.tokens.get(&token).map(|(_, rights)| rights)
    }

    /// Whether all callers may read the project's reports.
    pub(super) fn is_public(&self, project: &ProjectSlug) -> bool {
        self.public_revision(project).is_some()
    }

    /// The revision of a public project's registration.
    pub(super) fn public_revision(&self, project: &ProjectSlug) -> Option<u64> {
        self.public.get(project).copied()
    }

    /// Whether no token is active.
    pub(super) fn has_no_tokens(&self) -> bool {
        self.tokens.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(token: &Token, project: &str, admin: u8, revoked: u8) -> TokenRow {
        let (id, hash) = (token.id().to_string(), token.hash().to_hex());
        let (project, label) = (project.to_owned(), String::new());
        TokenRow { id, project, admin, hash, label, created: 0, revoked, revision: 1 }
    }

    #[test]
    fn only_the_right_secret_of_an_active_token_has_rights() {
        let [reader, admin, revoked, nobody] = [(); 4].map(|()| Token::draw().unwrap());
        let mut broken = row(&nobody, "Not a slug", 0, 0);
        let rows = vec![row(&reader, "docs", 0, 0), row(&admin, "", 1, 0), row(&revoked, "docs", 0, 1), broken.clone()];
        broken.hash = "xyz".to_owned();
        let snapshot = Snapshot::of(rows, &[("open".to_owned(), 1), ("Not a slug".to_owned(), 1)]);
        assert_eq!(snapshot.rights_of(&reader), Some(&Rights::Project("docs".parse().unwrap())));
        assert_eq!(snapshot.rights_of(&admin), Some(&Rights::Admin));
        assert_eq!((snapshot.rights_of(&revoked), snapshot.rights_of(&nobody)), (None, None));
        // The id of one token with the secret of another.
        let (head, tail) = (reader.text(), admin.text());
        let mixed = Token::parse(&format!("{}{}", &head[..20], &tail[20..])).unwrap();
        assert!(mixed.id() == reader.id() && snapshot.rights_of(&mixed).is_none());
        assert!(snapshot.still(reader.id()).is_some() && snapshot.still(revoked.id()).is_none());
        assert!(snapshot.is_public(&"open".parse().unwrap()) && !snapshot.is_public(&"docs".parse().unwrap()));
        assert!(!snapshot.has_no_tokens() && Snapshot::of(vec![broken], &[]).has_no_tokens());
    }
}
