//! `headcount ingest`: the beacon endpoint over Kafka, with a journal on disk as its spill.
//!
//! Start order: data directory, port, key, spill, producer, registry; stop order: listener, tallies, producer, spill. Neither Kafka nor ClickHouse
//! has to be available: beacons go to the spill, and the registry's copy is on disk.

use crate::config::commands::IngestCommand;
use crate::database::Server;
use crate::health::{Finding, Health, Readiness};
use crate::metrics::scrape::Scrape;
use crate::metrics::{self, MetricsListener};
use crate::projects::{self, Snapshot};
use crate::registry::{RegistryCopy, refresh_registry};
use crate::serve::{Stopping, stop_endpoint};
use crate::shell::{harden, limits, open_data_directory, signal, until};
use crate::{health, http, keys, privacy, topic};
use anyhow::Context;
use ingest::Ingest;
use ingest::journal::{Journal, JournalConfig};
use ingest::kafka::{KafkaConfig, KafkaSink};
use ingest::keys::KeyRing;
use rdkafka::ClientConfig;
use schemas::{Hour, ProjectSlug};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// At a stop, how long the producer may take to deliver its queue.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// How long a start waits for Kafka. A longer wait would be time without beacons.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How long the first read of the registry waits for the check of ClickHouse.
const CLICKHOUSE_AT_START: Duration = Duration::from_secs(3);

/// Runs until SIGTERM or SIGINT. `recover`: restore the registry of ClickHouse from this endpoint's copy, if ClickHouse has none.
pub async fn run(settings: IngestCommand, recover: bool) -> anyhow::Result<()> {
    harden();
    settings.beacons.ingest(&settings.connections, &settings.admission, &settings.privacy)?;
    limits::check_open_files(settings.connections.http().connections)?;
    let client = settings.kafka.client()?;
    let data = settings.store.data();
    let _lock = open_data_directory(data)?;
    let listener = http::bind(settings.listen.listen).await?;
    let address = listener.local_addr().context("cannot read the listen address")?;
    let operator = MetricsListener::bind(&settings.connections, &settings.operator).await?;
    let clock = settings.clock.clock();
    let plan = settings.topic.plan(&settings.privacy.log, &settings.windows);
    // Checked before beacons are accepted; if Kafka does not answer, the check is repeated below.
    let fit = match tokio::time::timeout(ANSWER_WITHIN, topic::fit(&settings.kafka, plan)).await {
        Ok(fit) => fit?,
        Err(_) => false,
    };
    let sink = sink(&settings, client, &clock)?;
    let (ingest, registry, names) = endpoint(&settings, &clock, sink.clone())?;

    let server = settings.store.server(&projects::clickhouse_url(&settings.store).await?);
    let (stop, stopped) = watch::channel(false);
    let database = server.client();
    let mut beside = tokio::task::JoinSet::new();
    beside.spawn(watch_clickhouse(server.clone()));
    beside.spawn(keys::compare(Arc::clone(&ingest), database.clone()));
    // If ClickHouse lost the registry, beacons are accepted by the copy: this endpoint does not need ClickHouse.
    let check = registry.check(false, recover);
    let refresh = refresh_registry(Arc::clone(&ingest), database, registry, check, names, until(stopped.clone()));
    let refresh = tokio::spawn({
        let server = server.clone();
        async move {
            // The first read needs a checked server. An unavailable one may come up later.
            let _ = tokio::time::timeout(CLICKHOUSE_AT_START, server.bind()).await;
            refresh.await;
        }
    });
    let keep = tokio::spawn({
        let (ingest, stopped) = (Arc::clone(&ingest), stopped.clone());
        async move { ingest.keep(until(stopped)).await }
    });
    let spill_bytes = settings.spill.spill_bytes.0;
    let endpoint = IngestEndpoint { ingest: Arc::clone(&ingest), sink: sink.clone(), spill_bytes, server };
    let state = Health::new(endpoint.find().readiness);
    let router = routes(&settings, &ingest)?.merge(health::routes(state.clone()));
    let listener = tokio::spawn(http::serve(settings.connections.http(), listener, router, until(stopped.clone())));
    let metrics = operator.address();
    beside.spawn(operator_routes(operator, endpoint.clone(), stopped));
    beside.spawn(state.keep(move || endpoint.find().readiness));
    tracing::info!(%address, metrics, data = %data.display(), topic = settings.kafka.topic, "headcount takes beacons");

    let verdict = tokio::select! {
        signal = signal() => signal,
        error = unfit(&settings.kafka, plan, fit) => Err(error),
    };
    if verdict.is_ok() {
        tracing::info!("stopping: finishing open requests, then handing over what is queued");
    }
    // The listener first: no view may be acknowledged after the log has closed.
    let _ = stop.send(true);
    stop_endpoint(Stopping { listener, beside, refresh, keep }, &ingest).await?;
    sink.close(CLOSE_WITHIN).await;
    verdict
}

/// The producer, and the spill of records that Kafka does not acknowledge.
fn sink(settings: &IngestCommand, client: ClientConfig, clock: &ingest::Clock) -> anyhow::Result<KafkaSink> {
    let (spill, clock) = (&settings.spill, Arc::clone(clock));
    let bounds = JournalConfig { capacity_bytes: Some(spill.spill_bytes.0), ..JournalConfig::default() };
    let path = settings.store.data().join("spill.redb");
    let journal = Journal::open(&path, bounds, move || Hour::of(clock()))?;
    let kafka = KafkaConfig {
        client,
        topic: settings.kafka.topic.clone(),
        queue_bytes: spill.kafka_queue_bytes.0,
        spill_after: spill.spill_after_ms,
    };
    KafkaSink::start(kafka, journal).context("cannot make a Kafka producer of these settings")
}

/// The endpoint, the copy of the registry, and the copy of the names that host patterns admitted.
fn endpoint(
    settings: &IngestCommand,
    clock: &ingest::Clock,
    sink: KafkaSink,
) -> anyhow::Result<(Arc<Ingest<KafkaSink>>, RegistryCopy, Snapshot)> {
    let data = settings.store.data();
    let period = settings.privacy.rules.visitors.visitor_period;
    let ring = KeyRing::open(&settings.keys.file(&settings.store), period, clock())?;
    let registry = RegistryCopy::open(data)?;
    let projects = settings.admission.projects();
    projects.replace(registry.index());
    let names = Snapshot::new(&data.join(projects::ADMITTED));
    projects.admit_known(names.load::<Vec<ProjectSlug>>());
    let config = settings.beacons.ingest(&settings.connections, &settings.admission, &settings.privacy)?;
    let ingest = Arc::new(Ingest::new(config, Arc::clone(clock), ring, projects, sink));
    Ok((ingest, registry, names))
}

/// The routes of beacons and of the privacy page.
fn routes(settings: &IngestCommand, ingest: &Arc<Ingest<KafkaSink>>) -> anyhow::Result<axum::Router> {
    let facts = privacy::of_endpoint(&settings.privacy, Arc::clone(ingest))?;
    let privacy = query::privacy::routes(facts).merge(query::style_route());
    Ok(ingest::routes(Arc::clone(ingest)).merge(ingest::rate_limited(privacy, ingest)))
}

/// Beacons need no ClickHouse. So if its URL leads to several servers, only the registry is no longer read: another server's registry could refuse
/// the beacons of all projects.
async fn watch_clickhouse(server: Server) {
    let error = server.watch().await;
    tracing::error!(
        %error,
        "the registry is not read any more; the last one stays active, and beacons go on. Start again after the cause is removed"
    );
}

/// Resolves if the topic turns out not to be fit, once Kafka answers.
async fn unfit(
    settings: &crate::config::kafka_settings::KafkaSettings,
    plan: crate::config::kafka_settings::TopicPlan,
    mut known: bool,
) -> anyhow::Error {
    if !known {
        tracing::warn!("Kafka does not answer; beacons go to the spill until it does");
    }
    while !known {
        tokio::time::sleep(Duration::from_secs(2)).await;
        match topic::fit(settings, plan).await {
            Ok(answered) => known = answered,
            Err(error) => return error,
        }
    }
    std::future::pending().await
}

/// The view of the operator's listener and of the health check.
#[derive(Clone)]
struct IngestEndpoint {
    ingest: Arc<Ingest<KafkaSink>>,
    sink: KafkaSink,
    /// Size of the spill, in bytes.
    spill_bytes: u64,
    server: Server,
}

impl IngestEndpoint {
    fn find(&self) -> Finding {
        let kafka = self.sink.figures();
        let mut refusing: Vec<String> = self.ingest.refusal().into_iter().collect();
        if kafka.away && kafka.spill_bytes >= self.spill_bytes {
            refusing.push("Kafka does not acknowledge, and the spill is full (`spill_bytes`)".to_owned());
        }
        let mut degrading = Vec::new();
        if kafka.away {
            degrading.push("Kafka does not acknowledge".to_owned());
        }
        if let nodes @ 1.. = self.ingest.foreign_keys() {
            degrading.push(format!("{nodes} endpoints have another visitor key"));
        }
        if self.server.is_wrong() {
            degrading.push("ClickHouse is another server than before, see the log".to_owned());
        }
        Finding::new(Readiness::Refusing, refusing, degrading)
    }

    fn scrape(&self, scrape: &mut Scrape<'_>) -> std::fmt::Result {
        let kafka = self.sink.figures();
        scrape.readiness(self.find().readiness)?;
        scrape.counter("delivered", "Records that Kafka acknowledged.", kafka.delivered)?;
        scrape.counter("spilled", "Records that went to the spill instead of Kafka.", kafka.spilled)?;
        scrape.counter("drained", "Spilled records that have arrived in Kafka.", kafka.drained)?;
        scrape.gauge("spill_records", "Records in the spill that are not known to be in Kafka.", kafka.in_spill)?;
        scrape.gauge("spill_bytes", "Bytes of records in the spill.", kafka.spill_bytes)?;
        scrape.gauge("spill_capacity_bytes", "Bytes of records that the spill may hold.", self.spill_bytes)?;
        scrape.gauge("queue_records", "Records that wait for Kafka's acknowledgement.", kafka.in_queue)?;
        scrape.gauge("kafka_away", "1 while Kafka does not acknowledge.", kafka.away)?;
        scrape.endpoint(&self.ingest)
    }
}

async fn operator_routes(operator: MetricsListener, endpoint: IngestEndpoint, stopped: watch::Receiver<bool>) {
    let mut registry = metrics::registry();
    endpoint.ingest.metrics.register(&mut registry);
    let scraped = endpoint.clone();
    metrics::scraped(&mut registry, move |scrape| scraped.scrape(scrape));
    let routes = metrics::routes(registry, move || (endpoint.find(), endpoint.ingest.details()));
    if let Err(error) = operator.serve(routes, until(stopped)).await {
        tracing::error!(error = crate::shell::chain(&error), "the listener of `metrics_listen` failed");
    }
}
