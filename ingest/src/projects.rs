//! Which projects exist, and which hosts belong to them: a snapshot for the endpoint's look-ups. It is replaced as a whole when the registry changes.

use crate::aliases::Alias;
use crate::client::ClientAddress;
use crate::ignored::IgnoredNetworks;
use crate::path_rules::PathRules;
use arc_swap::ArcSwap;
use schemas::proto::Source;
use schemas::{Host, ProjectSlug};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A pattern such as `{project}.docs.example.org`: admits any project under one suffix without registering it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    suffix: String,
}

/// Text that is no host pattern.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected a host pattern that begins with {{project}}, such as {{project}}.docs.example.org")]
pub struct InvalidPattern;

impl std::str::FromStr for HostPattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let suffix = text.strip_prefix("{project}.").ok_or(InvalidPattern)?;
        let host: Host = suffix.parse().map_err(|_| InvalidPattern)?;
        Ok(HostPattern { suffix: format!(".{}", host.as_str()) })
    }
}

impl HostPattern {
    fn project(&self, host: &str) -> Option<ProjectSlug> {
        host.strip_suffix(self.suffix.as_str()).filter(|label| !label.contains('.'))?.parse().ok()
    }
}

/// The registry at one moment.
#[derive(Clone, Debug, Default)]
pub struct ProjectSnapshot {
    hosts_of: HashMap<ProjectSlug, HashSet<Host>>,
    projects_of: HashMap<Host, Vec<ProjectSlug>>,
    /// Projects that must not be counted, whatever a host pattern admits.
    removed: HashSet<ProjectSlug>,
    /// Only projects that have some.
    rules: HashMap<ProjectSlug, Arc<PathRules>>,
    /// Only projects that have some.
    ignored_networks: HashMap<ProjectSlug, IgnoredNetworks>,
    /// Projects by their names in other counters.
    aliases: HashMap<Alias, ProjectSlug>,
    /// The first host of each project with aliases.
    first_host: HashMap<ProjectSlug, Host>,
}

impl ProjectSnapshot {
    /// Indexes a registry.
    pub fn new(projects: &BTreeMap<ProjectSlug, Vec<Host>>) -> Self {
        let mut snapshot = ProjectSnapshot::default();
        for (slug, hosts) in projects {
            for host in hosts {
                snapshot.projects_of.entry(host.clone()).or_default().push(slug.clone());
            }
            snapshot.hosts_of.insert(slug.clone(), hosts.iter().cloned().collect());
        }
        snapshot
    }

    /// The same, with the projects' path rules.
    #[must_use]
    pub fn with_rules(self, rules: impl IntoIterator<Item = (ProjectSlug, PathRules)>) -> Self {
        let some = rules.into_iter().filter(|(_, rules)| *rules != PathRules::default());
        ProjectSnapshot { rules: some.map(|(slug, rules)| (slug, Arc::new(rules))).collect(), ..self }
    }

    /// The same, with the networks whose views a project does not count.
    #[must_use]
    pub fn ignoring(self, networks: impl IntoIterator<Item = (ProjectSlug, IgnoredNetworks)>) -> Self {
        let some = networks.into_iter().filter(|(_, networks)| !networks.is_empty());
        ProjectSnapshot { ignored_networks: some.collect(), ..self }
    }

    /// The same, with the projects' names in other counters. A name that two projects claim belongs to neither.
    #[must_use]
    pub fn with_aliases(mut self, aliases: impl IntoIterator<Item = (ProjectSlug, Vec<Host>, Vec<Alias>)>) -> Self {
        let mut claimed: HashMap<Alias, Vec<ProjectSlug>> = HashMap::new();
        for (slug, hosts, names) in aliases.into_iter().filter(|(_, _, names)| !names.is_empty()) {
            self.first_host.extend(hosts.into_iter().next().map(|host| (slug.clone(), host)));
            names.into_iter().for_each(|name| claimed.entry(name).or_default().push(slug.clone()));
        }
        let by_one = |(name, slugs): (Alias, Vec<ProjectSlug>)| match <[ProjectSlug; 1]>::try_from(slugs) {
            Ok([slug]) => Some((name, slug)),
            Err(_) => None,
        };
        self.aliases = claimed.into_iter().filter_map(by_one).collect();
        self
    }

    /// The same, without these, though a host pattern may name them.
    #[must_use]
    pub fn without(self, removed: impl IntoIterator<Item = ProjectSlug>) -> Self {
        ProjectSnapshot { removed: removed.into_iter().collect(), ..self }
    }

    /// Registered projects.
    pub fn len(&self) -> usize {
        self.hosts_of.len()
    }

    /// Whether no project is registered.
    pub fn is_empty(&self) -> bool {
        self.hosts_of.is_empty()
    }
}

/// The result of a look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The page belongs to this project.
    Found(ProjectSlug),
    /// A host pattern would admit this name, which is new: call [`Projects::admit`] before anything is counted for it.
    New(ProjectSlug),
    /// There is no such project.
    Unknown,
    /// The project exists, the host is not one of its.
    Foreign(ProjectSlug),
    /// Several projects have the host and the beacon named none.
    Ambiguous,
}

/// The living registry: a snapshot, and the host's patterns.
pub struct Projects {
    snapshot: ArcSwap<ProjectSnapshot>,
    patterns: Vec<HostPattern>,
    new_names: NewNames,
    admitted: Mutex<Admitted>,
    no_rules: Arc<PathRules>,
}

/// How many new names host patterns may admit; stops a forger from filling the tables with names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewNames {
    /// New names in one hour.
    pub per_hour: usize,
    /// New names in one hour from one client network, so that one forger does not use up the hour's limit; 0: no limit.
    pub per_network: usize,
}

#[derive(Default)]
struct Admitted {
    hour: u32,
    this_hour: usize,
    /// New names of this hour by client network; at most as many as [`NewNames::per_hour`].
    networks: HashMap<u64, usize>,
    names: HashSet<ProjectSlug>,
}

impl Projects {
    /// An empty registry with the host's patterns.
    pub fn new(patterns: Vec<HostPattern>, new_names: NewNames) -> Self {
        Projects {
            snapshot: ArcSwap::default(),
            patterns,
            new_names,
            admitted: Mutex::default(),
            no_rules: Arc::default(),
        }
    }

    /// Replaces the snapshot.
    pub fn replace(&self, snapshot: ProjectSnapshot) {
        self.snapshot.store(Arc::new(snapshot));
    }

    /// Registered projects.
    pub fn len(&self) -> usize {
        self.snapshot.load().len()
    }

    /// Whether no project is registered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the project does not count views of this client.
    pub fn ignores(&self, project: &ProjectSlug, client: &ClientAddress) -> bool {
        self.snapshot.load().ignored_networks.get(project).is_some_and(|networks| networks.contains(client))
    }

    /// The project that one of a beacon's `aliases` names: one with the page's host if there is one, else the first.
    pub fn named_by_alias(&self, source: Source, aliases: &[String], host: &Host) -> Option<ProjectSlug> {
        if aliases.is_empty() {
            return None;
        }
        let snapshot = self.snapshot.load();
        let named = aliases.iter().filter_map(|alias| snapshot.aliases.get(&Alias::new(source, alias).ok()?));
        let mut named: Vec<_> = named.collect();
        let has_host = |slug: &&ProjectSlug| snapshot.hosts_of.get(*slug).is_some_and(|hosts| hosts.contains(host));
        named.sort_by_key(|slug| !has_host(slug));
        named.first().map(|slug| (*slug).clone())
    }

    /// The first host of the project with that alias, for a beacon that names no host at all.
    pub fn host_of_alias(&self, source: Source, alias: &str) -> Option<Host> {
        let snapshot = self.snapshot.load();
        let slug = snapshot.aliases.get(&Alias::new(source, alias).ok()?)?;
        snapshot.first_host.get(slug).cloned()
    }

    /// Finds the project of a page on `host`, which the beacon may have named by slug or by alias. An alias of a project without that host is treated
    /// like an unknown alias: the host decides, and the response does not reveal that the alias exists.
    pub fn find_named(&self, slug: Option<&ProjectSlug>, by_alias: Option<&ProjectSlug>, host: &Host) -> Lookup {
        if slug.is_some() {
            return self.find(slug, host);
        }
        let by_alias = by_alias.map(|slug| self.find(Some(slug), host));
        if let Some(Lookup::Found(project)) = by_alias {
            return Lookup::Found(project);
        }
        match self.find(None, host) {
            Lookup::Unknown => by_alias.unwrap_or(Lookup::Unknown),
            of_host => of_host,
        }
    }

    /// Finds the project of a page on `host`, which the beacon may have named. Admits no new name.
    pub fn find(&self, named: Option<&ProjectSlug>, host: &Host) -> Lookup {
        let snapshot = self.snapshot.load();
        if let Some(slug) = named {
            if let Some(hosts) = snapshot.hosts_of.get(slug) {
                return if hosts.contains(host) { Lookup::Found(slug.clone()) } else { Lookup::Foreign(slug.clone()) };
            }
            return match self.by_pattern(host) {
                Some(found) if found == *slug => self.known_or_new(found),
                _ => Lookup::Unknown,
            };
        }
        match snapshot.projects_of.get(host).map(Vec::as_slice) {
            Some([one]) => Lookup::Found(one.clone()),
            Some([_, _, ..]) => Lookup::Ambiguous,
            _ => self.by_pattern(host).map_or(Lookup::Unknown, |slug| self.known_or_new(slug)),
        }
    }

    /// Whether the project is registered, or a host pattern has admitted it.
    pub fn is_known(&self, slug: &ProjectSlug) -> bool {
        let snapshot = self.snapshot.load();
        snapshot.hosts_of.contains_key(slug) || (!snapshot.removed.contains(slug) && self.names().names.contains(slug))
    }

    /// The project's path rules.
    pub fn rules(&self, slug: &ProjectSlug) -> Arc<PathRules> {
        self.snapshot.load().rules.get(slug).map_or_else(|| Arc::clone(&self.no_rules), Arc::clone)
    }

    /// Whether `host` belongs to the project, so that a referrer there is not an arrival.
    pub fn is_own_host(&self, slug: &ProjectSlug, host: &Host) -> bool {
        self.snapshot.load().hosts_of.get(slug).is_some_and(|hosts| hosts.contains(host))
    }

    /// Admits a name that a pattern found, at the end of a beacon that is welcome otherwise. `hour` is the present one,
    /// `network` the client network that sent the beacon, hashed under the process's secret. False if the new names of the
    /// hour, or those of this network, are used up.
    pub fn admit(&self, slug: &ProjectSlug, hour: u32, network: u64) -> bool {
        let mut admitted = self.names();
        if admitted.hour != hour {
            (admitted.hour, admitted.this_hour) = (hour, 0);
            admitted.networks.clear();
        }
        if admitted.names.contains(slug) {
            return true;
        }
        let of_network = admitted.networks.get(&network).copied().unwrap_or(0);
        let network_is_over = self.new_names.per_network > 0 && of_network >= self.new_names.per_network;
        if admitted.this_hour >= self.new_names.per_hour || network_is_over {
            return false;
        }
        admitted.this_hour += 1;
        admitted.networks.insert(network, of_network + 1);
        admitted.names.insert(slug.clone());
        true
    }

    /// Adds names that were admitted before a restart. They do not count as new.
    pub fn admit_known(&self, slugs: impl IntoIterator<Item = ProjectSlug>) {
        self.names().names.extend(slugs);
    }

    /// The names that patterns admitted, in order; to be stored for [`Projects::admit_known`].
    pub fn admitted(&self) -> Vec<ProjectSlug> {
        let mut slugs: Vec<_> = self.names().names.iter().cloned().collect();
        slugs.sort();
        slugs
    }

    fn by_pattern(&self, host: &Host) -> Option<ProjectSlug> {
        let found = self.patterns.iter().find_map(|pattern| pattern.project(host.as_str()));
        found.filter(|slug| !self.snapshot.load().removed.contains(slug))
    }

    fn known_or_new(&self, slug: ProjectSlug) -> Lookup {
        if self.names().names.contains(&slug) { Lookup::Found(slug) } else { Lookup::New(slug) }
    }

    fn names(&self) -> MutexGuard<'_, Admitted> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW_NAMES: NewNames = NewNames { per_hour: 2, per_network: 0 };

    fn slug(text: &str) -> ProjectSlug {
        text.parse().unwrap()
    }

    fn host(text: &str) -> Host {
        text.parse().unwrap()
    }

    #[test]
    fn pages_find_their_project() {
        let projects = Projects::new(vec!["{project}.rtd.example".parse().unwrap()], NEW_NAMES);
        projects.replace(ProjectSnapshot::new(&BTreeMap::from([
            (slug("sphinx"), vec![host("sphinx.example"), host("shared.example")]),
            (slug("django"), vec![host("shared.example")]),
        ])));
        let find = |named: Option<&str>, at: &str| projects.find(named.map(slug).as_ref(), &host(at));
        assert_eq!(find(None, "sphinx.example"), Lookup::Found(slug("sphinx")));
        assert_eq!(find(None, "shared.example"), Lookup::Ambiguous);
        assert_eq!(find(Some("django"), "shared.example"), Lookup::Found(slug("django")));
        assert_eq!(find(Some("django"), "sphinx.example"), Lookup::Foreign(slug("django")));
        assert_eq!(find(Some("nobody"), "sphinx.example"), Lookup::Unknown);
        assert_eq!(find(None, "elsewhere.example"), Lookup::Unknown);
        assert_eq!(find(None, "a.b.rtd.example"), Lookup::Unknown);
        assert_eq!(find(None, "one.rtd.example"), Lookup::New(slug("one")));
        assert_eq!(find(Some("two"), "two.rtd.example"), Lookup::New(slug("two")));
        assert_eq!(find(Some("one"), "two.rtd.example"), Lookup::Unknown);
        assert_eq!(projects.admitted(), [], "looking up admits nobody");
    }

    #[test]
    fn a_removed_project_is_not_admitted_again() {
        let projects = Projects::new(vec!["{project}.rtd.example".parse().unwrap()], NEW_NAMES);
        assert!(projects.admit(&slug("one"), 1, 7));
        projects.replace(ProjectSnapshot::default().without([slug("one")]));
        assert_eq!(projects.find(None, &host("one.rtd.example")), Lookup::Unknown);
        assert_eq!(projects.find(Some(&slug("one")), &host("one.rtd.example")), Lookup::Unknown);
        assert!(!projects.is_known(&slug("one")));
        assert_eq!(projects.find(None, &host("two.rtd.example")), Lookup::New(slug("two")));
    }

    #[test]
    fn an_hour_admits_so_many_new_names() {
        let projects = Projects::new(vec!["{project}.rtd.example".parse().unwrap()], NEW_NAMES);
        let found = |at: &str| projects.find(None, &host(at));
        assert!(
            projects.admit(&slug("one"), 1, 7)
                && projects.admit(&slug("two"), 1, 7)
                && projects.admit(&slug("one"), 1, 7)
        );
        assert_eq!(found("one.rtd.example"), Lookup::Found(slug("one")));
        // The third is one too many, however often it is looked up; names known before a restart are not new.
        assert!(!projects.admit(&slug("three"), 1, 7));
        assert_eq!(found("three.rtd.example"), Lookup::New(slug("three")));
        projects.admit_known([slug("four"), slug("five"), slug("six")]);
        assert!(projects.admit(&slug("six"), 1, 7));
        assert_eq!(found("four.rtd.example"), Lookup::Found(slug("four")));
        assert!(projects.admit(&slug("three"), 2, 7));
        assert_eq!(projects.admitted(), ["five", "four", "one", "six", "three", "two"].map(slug));
    }

    #[test]
    fn one_network_does_not_use_up_the_new_names_of_an_hour() {
        let new_names = NewNames { per_hour: 100, per_network: 5 };
        let projects = Projects::new(vec!["{project}.rtd.example".parse().unwrap()], new_names);
        let admitted = |name: String, network: u64| projects.admit(&slug(&name), 1, network);
        let forged = (0..100).filter(|i| admitted(format!("forged{i}"), i % 10)).count();
        assert_eq!(forged, 50, "five of each of ten networks");
        assert!((0..20).all(|i| admitted(format!("real{i}"), 100 + i)));
        assert!(admitted("forged0".to_owned(), 0), "a known name is not new");
        assert!(projects.admit(&slug("later"), 2, 0), "the next hour");
    }
}
