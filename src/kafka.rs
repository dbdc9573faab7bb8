//! A Kafka client for short requests: it logs nothing, and remembers why no broker answers.

use anyhow::Context;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::metadata::Metadata;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Stores the client's last log message. librdkafka fails an undelivered request with "transport failure". Only its log says whether the password,
/// the certificate or the broker's host name was the cause.
#[derive(Default)]
pub struct Quiet {
    complaint: Mutex<Option<String>>,
}

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "headcount::kafka", ?level, facility, "{message}");
        if level as i32 <= RDKafkaLogLevel::Info as i32 {
            // The prefix "[thrd:sasl_ssl://kafka1:9093/bootstrap]: " is of no use to the operator.
            let told =
                message.strip_prefix('[').and_then(|rest| rest.split_once("]: ")).map_or(message, |(_, told)| told);
            *self.complaint.lock().unwrap_or_else(PoisonError::into_inner) = Some(told.to_owned());
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "the Kafka client keeps retrying");
    }
}

impl ConsumerContext for Quiet {}

/// A client for requests with these settings.
///
/// # Errors
/// librdkafka's message about a setting that it rejects.
pub fn consumer(client: &ClientConfig) -> anyhow::Result<BaseConsumer<Quiet>> {
    // Without an explicit level the client follows the program's `log` level, which logs nothing.
    let client = client.clone().set_log_level(RDKafkaLogLevel::Info).to_owned();
    client.create_with_context(Quiet::default()).context("cannot make a Kafka client of these settings")
}

/// A topic's metadata from the brokers.
///
/// # Errors
/// No broker answered within `patience`, and why.
pub fn metadata(consumer: &BaseConsumer<Quiet>, topic: &str, patience: Duration) -> anyhow::Result<Metadata> {
    consumer.fetch_metadata(Some(topic), patience).with_context(|| {
        // Log messages wait in the queue that is polled for records.
        for _ in 0..100 {
            let _ = consumer.poll(Duration::ZERO);
        }
        let complaint = consumer.context().complaint.lock().unwrap_or_else(PoisonError::into_inner).take();
        match complaint {
            Some(complaint) if complaint.contains("APIVERSION_QUERY") => format!(
                "the brokers do not answer: {complaint}. Perhaps the listener wants TLS or a password: see the property \
                 security.protocol"
            ),
            Some(complaint) => format!("the brokers do not answer: {complaint}"),
            None => "the brokers do not answer".to_owned(),
        }
    })
}
