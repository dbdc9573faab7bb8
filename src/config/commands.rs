//! The settings of each command.

use super::aggregation::{AggregationSettings, JournalSettings, WindowSettings};
use super::beacons::{AdmissionSettings, BeaconSettings};
use super::kafka_settings::{KafkaSettings, SpillSettings, TopicSettings};
use super::listen::{ConnectionSettings, ListenSettings, OldListenSettings, OperatorSettings};
use super::mail_settings::{MailSettings, PublicSettings};
use super::paths::PathSettings;
use super::privacy_settings::{
    CloseSettings, KeySettings, LifetimeSettings, LogSettings, PrivacySettings, RuleSettings, VisitorSettings,
};
use super::report_settings::{AccessSettings, CacheSettings};
use super::store::{ClockSettings, DataSettings, LoggingSettings, StoreSettings};
use clap::Args;

/// Settings of `headcount serve`.
#[derive(Args)]
pub struct ServeCommand {
    #[command(flatten)]
    pub store: StoreSettings,
    #[command(flatten)]
    pub listen: ListenSettings,
    #[command(flatten)]
    pub operator: OperatorSettings,
    #[command(flatten)]
    pub connections: ConnectionSettings,
    #[command(flatten)]
    pub privacy: PrivacySettings,
    #[command(flatten)]
    pub keys: KeySettings,
    #[command(flatten)]
    pub admission: AdmissionSettings,
    #[command(flatten)]
    pub beacons: BeaconSettings,
    #[command(flatten)]
    pub journal: JournalSettings,
    #[command(flatten)]
    pub aggregation: AggregationSettings,
    #[command(flatten)]
    pub access: AccessSettings,
    #[command(flatten)]
    pub cache: CacheSettings,
    #[command(flatten)]
    pub mail: MailSettings,
    #[command(flatten)]
    pub logging: LoggingSettings,
    #[command(flatten)]
    pub clock: ClockSettings,
}

impl ServeCommand {
    /// Checks what several settings decide together.
    ///
    /// # Errors
    /// Script and beacons would share a path, or mail cannot be sent with these settings.
    pub fn check(&self) -> anyhow::Result<()> {
        self.beacons.ingest(&self.connections, &self.admission, &self.privacy)?;
        #[cfg(feature = "mail")]
        crate::mail::configured(&self.mail)?;
        Ok(())
    }
}

/// Settings of `headcount ingest`.
#[derive(Args)]
pub struct IngestCommand {
    #[command(flatten)]
    pub store: StoreSettings,
    #[command(flatten)]
    pub listen: ListenSettings,
    #[command(flatten)]
    pub operator: OperatorSettings,
    #[command(flatten)]
    pub connections: ConnectionSettings,
    #[command(flatten)]
    pub privacy: PrivacySettings,
    #[command(flatten)]
    pub keys: KeySettings,
    #[command(flatten)]
    pub admission: AdmissionSettings,
    #[command(flatten)]
    pub beacons: BeaconSettings,
    #[command(flatten)]
    pub windows: WindowSettings,
    #[command(flatten)]
    pub kafka: KafkaSettings,
    #[command(flatten)]
    pub topic: TopicSettings,
    #[command(flatten)]
    pub spill: SpillSettings,
    #[command(flatten)]
    pub logging: LoggingSettings,
    #[command(flatten)]
    pub clock: ClockSettings,
}

/// Settings of `headcount aggregate`.
#[derive(Args)]
pub struct AggregateCommand {
    #[command(flatten)]
    pub store: StoreSettings,
    #[command(flatten)]
    pub old_listen: OldListenSettings,
    #[command(flatten)]
    pub operator: OperatorSettings,
    #[command(flatten)]
    pub connections: ConnectionSettings,
    #[command(flatten)]
    pub rules: RuleSettings,
    #[command(flatten)]
    pub lifetimes: LifetimeSettings,
    #[command(flatten)]
    pub log: LogSettings,
    #[command(flatten)]
    pub aggregation: AggregationSettings,
    #[command(flatten)]
    pub kafka: KafkaSettings,
    #[command(flatten)]
    pub topic: TopicSettings,
    #[command(flatten)]
    pub mail: MailSettings,
    #[command(flatten)]
    pub logging: LoggingSettings,
    #[command(flatten)]
    pub clock: ClockSettings,
}

/// Settings of `headcount query`.
#[derive(Args)]
pub struct QueryCommand {
    #[command(flatten)]
    pub store: StoreSettings,
    #[command(flatten)]
    pub listen: ListenSettings,
    #[command(flatten)]
    pub operator: OperatorSettings,
    #[command(flatten)]
    pub connections: ConnectionSettings,
    #[command(flatten)]
    pub privacy: PrivacySettings,
    #[command(flatten)]
    pub access: AccessSettings,
    #[command(flatten)]
    pub cache: CacheSettings,
    #[command(flatten)]
    pub logging: LoggingSettings,
    #[command(flatten)]
    pub clock: ClockSettings,
}

/// Settings of commands that need the figures only: `headcount engine`, `backup`, `token`.
#[derive(Args)]
pub struct StoreCommand {
    #[command(flatten)]
    pub store: StoreSettings,
    #[command(flatten)]
    pub logging: LoggingSettings,
}

/// Settings of `headcount topic ensure` and `topic check`.
#[derive(Args)]
pub struct TopicCommand {
    #[command(flatten)]
    data: DataSettings,
    #[command(flatten)]
    pub kafka: KafkaSettings,
    #[command(flatten)]
    pub topic: TopicSettings,
    #[command(flatten)]
    pub log: LogSettings,
    #[command(flatten)]
    pub windows: WindowSettings,
}

/// Settings of `headcount topic reset`.
#[derive(Args)]
pub struct TopicResetCommand {
    #[command(flatten)]
    pub store: StoreSettings,
    #[command(flatten)]
    pub kafka: KafkaSettings,
    #[command(flatten)]
    pub windows: WindowSettings,
}

/// Settings of `headcount restore`.
#[derive(Args)]
pub struct RestoreCommand {
    #[command(flatten)]
    pub store: StoreSettings,
    #[command(flatten)]
    pub keys: KeySettings,
    #[command(flatten)]
    pub lifetimes: LifetimeSettings,
    #[command(flatten)]
    pub journal: JournalSettings,
    #[command(flatten)]
    pub logging: LoggingSettings,
    #[command(flatten)]
    pub clock: ClockSettings,
}

/// Settings of `headcount audit` and `headcount rebuild`.
#[derive(Args)]
pub struct AuditCommand {
    #[command(flatten)]
    pub store: StoreSettings,
    #[command(flatten)]
    pub journal: JournalSettings,
    #[command(flatten)]
    pub windows: WindowSettings,
    #[command(flatten)]
    pub kafka: KafkaSettings,
    #[command(flatten)]
    pub logging: LoggingSettings,
}

/// Settings of `headcount keys`.
#[derive(Args)]
pub struct KeysCommand {
    #[command(flatten)]
    pub store: StoreSettings,
    #[command(flatten)]
    pub keys: KeySettings,
    #[command(flatten)]
    pub visitors: VisitorSettings,
    #[command(flatten)]
    pub clock: ClockSettings,
}

/// Settings of `headcount report`.
#[derive(Args)]
pub struct ReportCommand {
    #[command(flatten)]
    pub store: StoreSettings,
    #[command(flatten)]
    pub rules: RuleSettings,
    #[command(flatten)]
    pub clock: ClockSettings,
}

/// Settings of `headcount close`.
#[derive(Args)]
pub struct CloseCommand {
    #[command(flatten)]
    pub store: StoreSettings,
    #[command(flatten)]
    pub close: CloseSettings,
    #[command(flatten)]
    pub logging: LoggingSettings,
    #[command(flatten)]
    pub clock: ClockSettings,
}

/// Settings of `headcount import`.
#[derive(Args)]
pub struct ImportCommand {
    #[command(flatten)]
    pub store: StoreSettings,
    #[command(flatten)]
    pub keys: KeySettings,
    #[command(flatten)]
    pub connections: ConnectionSettings,
    #[command(flatten)]
    pub privacy: PrivacySettings,
    #[command(flatten)]
    pub admission: AdmissionSettings,
    #[command(flatten)]
    pub beacons: BeaconSettings,
    #[command(flatten)]
    pub aggregation: AggregationSettings,
    #[command(flatten)]
    pub clock: ClockSettings,
}

/// Settings of `headcount project`.
#[derive(Args)]
pub struct ProjectCommand {
    #[command(flatten)]
    pub store: StoreSettings,
    #[command(flatten)]
    pub log: LogSettings,
    #[command(flatten)]
    pub paths: PathSettings,
    #[command(flatten)]
    pub public: PublicSettings,
    #[command(flatten)]
    pub clock: ClockSettings,
}

/// All settings, as `headcount config` prints them.
#[derive(Args)]
pub struct AllSettings {
    #[command(flatten)]
    pub serve: ServeCommand,
    #[command(flatten)]
    pub kafka: KafkaSettings,
    #[command(flatten)]
    pub topic: TopicSettings,
    #[command(flatten)]
    pub spill: SpillSettings,
}
