//! The endpoint's state, for `/readyz` of the operator's listener.

use crate::Ingest;
use crate::sink::Sink;
use serde_json::{Map, Value, json};

impl<S: Sink> Ingest<S> {
    /// Why beacons are refused now; none if they are accepted. The log is not writable, or there is no visitor key.
    pub fn refusal(&self) -> Option<String> {
        let log = self.sink.ready().err().map(|error| error.to_string());
        log.or_else(|| self.key_in_use().err().map(|error| error.to_string()))
    }

    /// Log, number of projects, refused beacons, beacons of proxies that are not trusted, and the visitor key by its fingerprint, as members of a JSON object.
    pub fn details(&self) -> Map<String, Value> {
        let key = self.key_in_use().map_or_else(
            |error| json!({"error": error.to_string()}),
            |(period, number, fingerprint)| {
                json!({
                    "period": period.name(),
                    "number": number,
                    "fingerprint": fingerprint.to_string(),
                    "nodes_with_another": self.foreign_keys(),
                })
            },
        );
        let log = self.sink.ready().map_or_else(|error| error.to_string(), |()| self.sink.describe());
        let members = [
            ("log", log.into()),
            ("projects", self.projects.len().into()),
            ("refused_beacons", self.refused_beacons().into()),
            ("untrusted_forwarded_beacons", self.untrusted_forwarded_beacons().into()),
            ("key", key),
        ];
        members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
