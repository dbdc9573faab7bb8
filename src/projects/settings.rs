//! A project's settings besides its hosts: who may read its reports, its time zone, and the recipients of its reports by mail.

use super::rules::Rule;
use anyhow::{Context, bail};
use clap::ArgMatches;
use ingest::ignored::{InvalidNetwork, Network};
use schemas::Host;
use schemas::tables::ProjectRow;

/// Longest e-mail address (RFC 5321, 4.5.3.1.3, without its brackets).
const MAX_ADDRESS_BYTES: usize = 254;

/// The changes of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingChange {
    public: Option<bool>,
    time_zone: Option<String>,
    mail: Vec<String>,
    no_mail: Vec<String>,
    ignore: Vec<String>,
    no_ignore: Vec<String>,
}

impl SettingChange {
    /// Reads and checks the flags; a command without them changes nothing.
    pub fn from_arguments(matches: &ArgMatches) -> anyhow::Result<Self> {
        let flag = |name: &str| matches.try_get_one::<bool>(name).ok().flatten().copied().unwrap_or(false);
        let texts = |name: &str| matches.try_get_many::<String>(name).ok().flatten().into_iter().flatten();
        let time_zone = match matches.try_get_one::<String>("time-zone").ok().flatten() {
            Some(text) if text.is_empty() => Some(String::new()),
            Some(text) => {
                let zone = text.parse::<chrono_tz::Tz>();
                let zone =
                    zone.map_err(|_| anyhow::anyhow!("{text:?} is no time zone; expected one such as Europe/Berlin"))?;
                Some(zone.name().to_owned())
            }
            None => None,
        };
        let networks = |name: &str| -> anyhow::Result<Vec<String>> {
            let network = |text: &String| {
                match text.parse::<Network>() {
                    Ok(network) => Ok(network.to_string()),
                    // A network that an earlier version accepted can be removed.
                    Err(InvalidNetwork::AllOfIpv4 | InvalidNetwork::AllOfIpv6) if name.starts_with("no-") => {
                        Ok(text.clone())
                    }
                    Err(error) => Err(error).with_context(|| format!("--{name} is {text:?}")),
                }
            };
            texts(name).map(network).collect()
        };
        Ok(SettingChange {
            public: if flag("public") { Some(true) } else { flag("private").then_some(false) },
            time_zone,
            mail: texts("mail").map(|text| address(text)).collect::<anyhow::Result<_>>()?,
            no_mail: texts("no-mail").map(|text| address(text)).collect::<anyhow::Result<_>>()?,
            ignore: networks("ignore-network")?,
            no_ignore: networks("no-ignore-network")?,
        })
    }

    /// Whether it changes nothing.
    pub fn is_nothing(&self) -> bool {
        *self == SettingChange::default()
    }

    /// Changes the row.
    pub fn apply(&self, row: &mut ProjectRow) {
        if let Some(public) = self.public {
            row.public = u8::from(public);
        }
        if let Some(time_zone) = &self.time_zone {
            row.time_zone.clone_from(time_zone);
        }
        row.recipients.extend(self.mail.iter().cloned());
        row.recipients.retain(|recipient| !self.no_mail.contains(recipient));
        row.recipients.sort_unstable();
        row.recipients.dedup();
        row.ignore_networks.extend(self.ignore.iter().cloned());
        row.ignore_networks.retain(|network| !self.no_ignore.contains(network));
        row.ignore_networks.sort_unstable();
        row.ignore_networks.dedup();
    }
}

/// The project's settings, one line for each kind.
pub fn described(row: &ProjectRow) -> Vec<Rule> {
    let zone = if row.time_zone.is_empty() { "UTC" } else { &row.time_zone };
    vec![
        Rule::of("reports", if row.public == 0 { "private" } else { "public" }, row.public != 0),
        Rule::of("time zone", zone, !row.time_zone.is_empty()),
        Rule::list("mail to", &row.recipients),
        Rule::list("ignored networks", &row.ignore_networks),
    ]
}

/// The project's settings in one line.
pub fn summary(row: &ProjectRow) -> String {
    let mut words = vec![if row.public == 0 { "private" } else { "public" }.to_owned()];
    words.push(format!("time zone {}", if row.time_zone.is_empty() { "UTC" } else { &row.time_zone }));
    if !row.recipients.is_empty() {
        words.push(format!("mail to {}", row.recipients.join(", ")));
    }
    if !row.ignore_networks.is_empty() {
        words.push(format!("ignores views from {}", row.ignore_networks.join(", ")));
    }
    if !row.aliases.is_empty() {
        words.push(format!("aliases {}", row.aliases.join(", ")));
    }
    words.join("; ")
}

/// `name@host`, with the host in lower case. Stricter than mail is: no quotes, no comments, nothing that could end a line of a
/// message's head or of a talk with a mail server.
fn address(text: &str) -> anyhow::Result<String> {
    let expected = || format!("{text:?} is no e-mail address; expected one such as docs@example.org");
    let Some((name, host)) = text.rsplit_once('@') else { bail!(expected()) };
    let fits = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    let dotted = !name.starts_with('.') && !name.ends_with('.') && !name.contains("..");
    if name.is_empty() || name.len() > 64 || !dotted || !name.chars().all(fits) || text.len() > MAX_ADDRESS_BYTES {
        bail!(expected());
    }
    let host: Host = host.parse().with_context(expected)?;
    if host.as_str().contains([':', '[']) {
        bail!(expected());
    }
    Ok(format!("{name}@{}", host.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Arg, ArgAction, Command};

    fn change(arguments: &[&str]) -> anyhow::Result<SettingChange> {
        let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
        let texts = |name: &'static str| Arg::new(name).long(name).action(ArgAction::Append);
        let command = Command::new("set").args([flag("public"), flag("private"), texts("mail"), texts("no-mail")]);
        let command = command.args([texts("ignore-network"), texts("no-ignore-network")]);
        let command = command.arg(Arg::new("time-zone").long("time-zone"));
        SettingChange::from_arguments(&command.try_get_matches_from(std::iter::once(&"set").chain(arguments))?)
    }

    fn row() -> ProjectRow {
        ProjectRow {
            slug: "docs".to_owned(),
            hosts: Vec::new(),
            removed: 0,
            mask: Vec::new(),
            keep: Vec::new(),
            query: Vec::new(),
            time_zone: String::new(),
            public: 0,
            recipients: vec!["b@example.org".to_owned()],
            revision: 0,
            strip_trailing_slash: 0,
            strip_html: 0,
            ignore_networks: Vec::new(),
            aliases: Vec::new(),
        }
    }

    #[test]
    fn what_is_not_named_stays() {
        let mut row = row();
        change(&[]).unwrap().apply(&mut row);
        assert_eq!(summary(&row), "private; time zone UTC; mail to b@example.org");
        assert!(change(&[]).unwrap().is_nothing());
        let set = ["--public", "--time-zone", "Europe/Berlin", "--mail", "a@Example.ORG", "--no-mail", "b@example.org"];
        change(&set).unwrap().apply(&mut row);
        assert_eq!(summary(&row), "public; time zone Europe/Berlin; mail to a@example.org");
        let ignored = ["--ignore-network", "192.0.2.7/24", "--ignore-network", "::ffff:192.0.2.0/120"];
        change(&ignored).unwrap().apply(&mut row);
        assert!(summary(&row).ends_with("; ignores views from 192.0.2.0/24"), "{}", summary(&row));
        change(&["--no-ignore-network", "192.0.2.0/24"]).unwrap().apply(&mut row);
        assert!(!summary(&row).contains("ignores"), "{}", summary(&row));
        change(&["--private", "--time-zone", ""]).unwrap().apply(&mut row);
        assert_eq!(summary(&row), "private; time zone UTC; mail to a@example.org");
    }

    #[test]
    fn mistakes_are_named() {
        for (arguments, expected) in [
            (["--time-zone", "Mars/Olympus"], "\"Mars/Olympus\" is no time zone"),
            (["--mail", "docs"], "is no e-mail address"),
            (["--mail", "a b@example.org"], "is no e-mail address"),
            (["--mail", "a@example.org\r\nBcc: x@example.org"], "is no e-mail address"),
            (["--mail", "a..b@example.org"], "is no e-mail address"),
            (["--mail", "a@example.org:25"], "is no e-mail address"),
            (["--mail", "a@[127.0.0.1]"], "is no e-mail address"),
            (["--no-mail", "@example.org"], "is no e-mail address"),
            (["--ignore-network", "192.0.2.0/33"], "--ignore-network is \"192.0.2.0/33\""),
            (["--no-ignore-network", "office"], "--no-ignore-network is \"office\""),
        ] {
            let error = change(&arguments).expect_err("refused").to_string();
            assert!(error.contains(expected), "{arguments:?}: {error}");
        }
    }
}
