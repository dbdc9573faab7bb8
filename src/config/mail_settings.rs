//! Settings of mail, and the public URL that mails and `headcount project add` print.

use super::values::{Optional, hours, public_url, text};
use std::time::Duration;

/// Where readers of reports reach this service.
#[derive(clap::Args)]
pub struct PublicSettings {
    /// Public URL of this service, for links
    #[arg(long, value_name = "URL", default_value = "", value_parser = public_url)]
    public_url: Optional<String>,
}

impl PublicSettings {
    /// The URL without a slash at its end.
    pub fn url(&self) -> Option<&str> {
        self.public_url.text()
    }
}

/// How reports are sent by mail.
#[derive(clap::Args)]
pub struct MailSettings {
    /// Mail server, such as smtp://user:password@host:587?tls=required
    #[arg(long, value_name = "URL", default_value = "", value_parser = text, hide_env_values = true)]
    pub smtp_url: Optional<String>,
    /// Sender of mails
    #[arg(long, value_name = "E-MAIL", default_value = "", value_parser = text)]
    pub mail_from: Optional<String>,
    /// Hours from a month's end until its reports are sent
    #[arg(long, value_name = "HOURS", default_value = "6", value_parser = hours::<0, { u64::MAX }>)]
    pub mail_after_hours: Duration,
    #[command(flatten)]
    pub public: PublicSettings,
}
