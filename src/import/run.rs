//! The import itself. All files of one run are one import, which counts as a whole or not at all.

use super::counting::ImportLog;
use super::file_lines::FileLines;
use super::{PROGRESS_LINES, Plan, summary};
use crate::backup::control;
use crate::config::commands::ImportCommand;
use crate::registry::Contents;
use crate::{complain, projects, say};
use aggregate::close::{Closed, Closer, is_due};
use aggregate::due::Decision;
use aggregate::imports::{Figures, ImportState, Imports, PublishError, RemoveError};
use anyhow::{Context, bail};
use clickhouse::Client;
use indicatif::ProgressBar;
use ingest::access_log::blocks::{KnownFile, KnownFiles, Recognised, RecognitionKey, recognise};
use ingest::access_log::files::{self, BytesRead};
use ingest::access_log::lines::read_lines;
use ingest::access_log::summary::{Place, Summary};
use ingest::access_log::view::{Outcome, Views};
use ingest::access_log::visitors::PastVisitors;
use ingest::projects::Projects;
use schemas::tables::{ImportMonthRow, ImportRow};
use schemas::{Day, Hour, Month, ProjectSlug, StreamId};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Work of a command.
pub type Work<'w> = Pin<Box<dyn Future<Output = anyhow::Result<ExitCode>> + 'w>>;

/// Months that are closed concurrently: each close waits for reports that may read the month.
const CLOSES_AT_ONCE: usize = 6;

/// What a failure after the reading means.
const NOT_PUBLISHED: &str = "the import is read and not published yet; the next `headcount import` publishes it";

/// An import's id as commands print it.
pub fn id_of(row: &ImportRow) -> String {
    StreamId(row.stream).to_string()
}

/// Imports of one data directory run one after the other. The lock is released when the file is dropped.
///
/// # Errors
/// Another import is running, or the directory cannot be written.
pub fn lock(settings: &ImportCommand) -> anyhow::Result<File> {
    let path = key_path(settings).with_file_name("imports.lock");
    let attempt = || {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        File::create(&path)
    };
    let file = attempt().with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => bail!("another import is running on this data directory"),
        Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// The key by which files are recognised, beside the visitor key.
fn key_path(settings: &ImportCommand) -> PathBuf {
    settings.keys.file(&settings.store).with_file_name("imports.key")
}

/// Runs the import. The code is 0 also if all files were imported before.
///
/// # Errors
/// A file cannot be read, overlaps with an earlier import, or ClickHouse failed. Nothing of the import counts.
pub async fn run(plan: Plan, settings: &ImportCommand, unrecognised: bool) -> anyhow::Result<ExitCode> {
    let _lock = lock(settings)?;
    let client = projects::connect(&settings.store).await?;
    let failpoint = settings.aggregation.aggregate().failpoint;
    let imports = Imports::new(client.clone(), settings.store.database(), failpoint);
    for row in imports.all().await? {
        let Err(error) = resume(&imports, &client, settings, row).await else { continue };
        // Other imports do not depend on a removal that cannot end.
        if !matches!(error.downcast_ref(), Some(RemoveError::Mixed(_))) {
            return Err(error);
        }
        complain!("{error:#}");
    }
    let earlier = imports.all().await?;
    let key = recognition_key(settings, &earlier, unrecognised)?;
    let figures = imports.figures().await?;
    let (stream, now) = (draw_stream()?, settings.clock.clock()());
    let started = u32::try_from(now.timestamp()).unwrap_or(0);
    let row = new_row(stream, started, key.fingerprint());
    let store = imports.start(row.clone()).await.context("cannot start the import in ClickHouse")?;
    let projects = settings.admission.projects_of_logs();
    let registry = Contents::read(&client).await?.projects;
    projects.replace(projects::indexed(&projects::registry_of(&registry)).without(projects::removed_of(&registry)));
    let names = projects::Snapshot::new(&settings.store.data().join(projects::ADMITTED));
    projects.admit_known(names.load::<Vec<ProjectSlug>>());
    let log = ImportLog::new(stream, settings.aggregation.windows.policy(), Hour::of(now), store);
    let reading = Reading { plan: &plan, settings, projects: &projects, key: &key, figures: &figures };
    let begun = Instant::now();
    let read = tokio::task::block_in_place(|| reading.read(log, &earlier, row));
    let Read { row, months, known, all, writing } = match read {
        Ok(read) => read,
        Err(error) => return Err(abandon(&imports, stream, error).await),
    };
    let took = begun.elapsed();
    summary::print(&all, &plan.files, took.saturating_sub(writing));
    say!("{:.1} s more to write the rows", writing.as_secs_f64());
    if months.is_empty() {
        imports.abandon(stream).await?;
        if row.file_names.is_empty() && known > 0 {
            say!("nothing was imported: all files are imported already, or have lines of the running month only");
            return Ok(ExitCode::SUCCESS);
        }
        bail!("no line is a view that counts (see above); nothing was imported");
    }
    warn_of_beacons(&figures, &months);
    let id = id_of(&row);
    let finished = u32::try_from(settings.clock.clock()().timestamp()).unwrap_or(started);
    publish(&imports, &client, settings, ImportRow { finished, ..row }, &months).await?;
    say!("import {id} is complete: {} files in {:.1} s", plan.files.len(), begun.elapsed().as_secs_f64());
    Ok(ExitCode::SUCCESS)
}

/// Removes an import that failed. Returns the error.
async fn abandon(imports: &Imports, stream: StreamId, error: anyhow::Error) -> anyhow::Error {
    if let Err(abandoned) = imports.abandon(stream).await {
        complain!("what the import wrote is removed by the next one: {abandoned}");
    }
    error.context("nothing was imported")
}

/// Stages and publishes an import whose rows are written.
async fn publish(
    imports: &Imports,
    client: &Client,
    settings: &ImportCommand,
    row: ImportRow,
    months: &[ImportMonthRow],
) -> anyhow::Result<()> {
    // The service writes no figures and closes no month from the check until the import is complete.
    let checked = async {
        let held = control::hold(settings.store.data()).await?;
        if let Some(of) = imports.figures().await?.changed(months) {
            bail!(
                "{} in {} was closed or got figures while the files were read, so that the import's visitors would not count: start the import \
                 again",
                of.project,
                Day(of.month).first_hour().month()
            );
        }
        Ok(held)
    };
    let _held = match checked.await {
        Ok(held) => held,
        Err(error) => return Err(abandon(imports, StreamId(row.stream), error).await),
    };
    let row = imports.stage(row, months).await.context(NOT_PUBLISHED)?;
    if finish(imports, client, settings, row).await?.is_none() {
        bail!("nothing was imported");
    }
    Ok(())
}

/// Brings an import to its end from the state that an earlier command left it in. Returns it if it still exists.
///
/// # Errors
/// ClickHouse failed; the next command continues.
pub async fn resume(
    imports: &Imports,
    client: &Client,
    settings: &ImportCommand,
    row: ImportRow,
) -> anyhow::Result<Option<ImportRow>> {
    let id = id_of(&row);
    let Some(state) = ImportState::of(&row) else {
        bail!("import {id} has the state {:?}, which this version does not know", row.state);
    };
    match state {
        ImportState::Complete => Ok(Some(row)),
        ImportState::Running => {
            imports.abandon(StreamId(row.stream)).await?;
            complain!("import {id} had not ended, and nothing of it was counted; its rows are removed");
            Ok(None)
        }
        ImportState::Removing => {
            let _held = control::hold(settings.store.data()).await?;
            imports.remove(row).await.with_context(|| format!("cannot remove import {id}"))?;
            Ok(None)
        }
        ImportState::Staged | ImportState::Published => {
            // The service closes no month and takes no backup while only a part is published.
            let _held = control::hold(settings.store.data()).await?;
            finish(imports, client, settings, row).await
        }
    }
}

/// Publishes a staged import, and closes the months of a published one. The caller has paused the service's writes. Returns the import unless
/// its rows are gone.
async fn finish(
    imports: &Imports,
    client: &Client,
    settings: &ImportCommand,
    row: ImportRow,
) -> anyhow::Result<Option<ImportRow>> {
    let (id, stream) = (id_of(&row), StreamId(row.stream));
    let row = if ImportState::of(&row) == Some(ImportState::Staged) {
        match imports.publish(row).await {
            Ok(row) => row,
            Err(error @ PublishError::NoRows) => {
                imports.discard(stream).await.with_context(|| format!("cannot remove import {id}"))?;
                complain!("import {id} is removed: {error}");
                return Ok(None);
            }
            Err(error) => return Err(error).with_context(|| format!("import {id}: {NOT_PUBLISHED}")),
        }
    } else {
        row
    };
    let months = imports.months(stream).await?;
    let closed = close(imports, client, settings, &months).await;
    closed.with_context(|| format!("import {id} is published; the next `headcount import` closes its months"))?;
    Ok(Some(imports.complete(row).await?))
}

/// Closes the months to which an import gave the first figures.
async fn close(
    imports: &Imports,
    client: &Client,
    settings: &ImportCommand,
    months: &[ImportMonthRow],
) -> anyhow::Result<()> {
    let closer = Closer::new(client.clone());
    let (now, after) = (settings.clock.clock()(), settings.privacy.lifetimes.close.close_after_hours);
    let with_visitors = months.iter().filter(|of| of.has_visitors == 1);
    let months: BTreeSet<Month> = with_visitors.map(|of| Day(of.month).first_hour().month()).collect();
    let mut due = Vec::new();
    for month in months {
        if closer.is_closed(month).await? {
            continue;
        }
        let is_counted = !imports.has_other_rows(month).await?
            || matches!(closer.decide_by_recorded_ends(month).await?, Some(Decision::Close { .. }));
        if is_due(month, now, after) && is_counted {
            due.push(month);
        } else {
            say!(
                "{month} will be closed by the service: it is not due yet, or has other views that are not counted yet"
            );
        }
    }
    let (mut closes, mut waiting) = (JoinSet::new(), due.into_iter());
    loop {
        for month in waiting.by_ref().take(CLOSES_AT_ONCE - closes.len()) {
            let closer = closer.clone();
            closes.spawn(async move { closer.close(month).await.with_context(|| format!("cannot close {month}")) });
        }
        let Some(closed) = closes.join_next().await else { return Ok(()) };
        let Closed { month, views, .. } = closed??;
        say!("{month} is closed: {views} views; its sketches are gone");
    }
}

/// Reports add views of a log to those of beacons.
fn warn_of_beacons(figures: &Figures, months: &[ImportMonthRow]) {
    for of in months.iter().filter(|of| of.has_visitors == 0) {
        let month = Day(of.month).first_hour().month();
        let why = match figures.projects.get(&month).is_some_and(|projects| projects.contains(&of.project)) {
            true => "it has figures already, to which these views are added",
            false => "the month is closed",
        };
        say!("{} in {month}: views without visitors, since {why}", of.project);
    }
}

/// The key by which files are recognised. A missing one is drawn, if no file would then be imported a second time unnoticed.
fn recognition_key(
    settings: &ImportCommand,
    earlier: &[ImportRow],
    unrecognised: bool,
) -> anyhow::Result<RecognitionKey> {
    let path = key_path(settings);
    let key = RecognitionKey::read(&path)?;
    let fingerprint = key.as_ref().map(RecognitionKey::fingerprint);
    let unknown = earlier.iter().filter(|row| Some(row.file_key) != fingerprint).count();
    if unknown > 0 && !unrecognised {
        bail!(
            "the files of {unknown} earlier imports cannot be recognised, since {} is not their key: put the key back, or import with              --unrecognised if none of these files is among them",
            path.display()
        );
    }
    Ok(match key {
        Some(key) => key,
        None => RecognitionKey::create(&path)?,
    })
}

fn draw_stream() -> anyhow::Result<StreamId> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).context("the operating system gave no random bytes")?;
    Ok(StreamId(u64::from_le_bytes(bytes)))
}

fn new_row(stream: StreamId, started: u32, file_key: u64) -> ImportRow {
    ImportRow {
        stream: stream.0,
        revision: 0,
        state: String::new(),
        started,
        finished: started,
        file_key,
        lines: 0,
        not_counted: 0,
        not_read: 0,
        file_names: Vec::new(),
        file_bytes: Vec::new(),
        file_blocks: Vec::new(),
    }
}

/// What the reading of the files needs.
struct Reading<'r> {
    plan: &'r Plan,
    settings: &'r ImportCommand,
    projects: &'r Projects,
    key: &'r RecognitionKey,
    figures: &'r Figures,
}

/// All files were read.
struct Read {
    /// The import with its files.
    row: ImportRow,
    /// What it has of each month.
    months: Vec<ImportMonthRow>,
    /// Files that were imported before.
    known: usize,
    all: Summary,
    /// Time spent on writing rows.
    writing: Duration,
}

/// What became of a file.
enum FileRead {
    /// Its views are in the log.
    New(KnownFile),
    /// It was imported before.
    Known,
    /// It has lines of the running month, and no view that counts.
    TooEarly,
}

impl Reading<'_> {
    /// Whether the import gives a project's month its first figures.
    fn has_visitors(&self, project: &ProjectSlug, month: Month) -> bool {
        self.figures.are_first(project.as_str(), month)
    }

    /// Reads all files into `log`.
    fn read(&self, mut log: ImportLog, earlier: &[ImportRow], mut row: ImportRow) -> anyhow::Result<Read> {
        let period = self.settings.privacy.rules.visitors.visitor_period;
        let visitors = PastVisitors::new(period, |project, month| self.has_visitors(project, month));
        let views = Views::new(self.plan.rules.clone(), self.projects).with_visitors(&visitors);
        let mut known = KnownFiles::default();
        for import in earlier.iter().filter(|import| import.file_key == row.file_key) {
            for ((name, bytes), blocks) in import.file_names.iter().zip(&import.file_bytes).zip(&import.file_blocks) {
                let name = format!("{name} of import {}", id_of(import));
                known.add(KnownFile { name, bytes: *bytes, blocks: blocks.clone() });
            }
        }
        let (bar, bytes, mut all) = (self.plan.progress_bar(), BytesRead::default(), Summary::default());
        let mut known_files = 0;
        for (index, path) in self.plan.files.iter().enumerate() {
            let progress = Progress { bar: &bar, bytes: &bytes };
            let file = self.read_file((index, path), &views, &known, &mut log, &mut all, &progress);
            let file = file.with_context(|| path.display().to_string())?;
            match file {
                FileRead::New(file) => {
                    row.file_names.push(file.name.clone());
                    row.file_bytes.push(file.bytes);
                    row.file_blocks.push(file.blocks.clone());
                    known.add(file);
                }
                FileRead::Known => known_files += 1,
                FileRead::TooEarly => {}
            }
        }
        bar.finish_and_clear();
        let (months, writing) = log.end(|project, month| self.has_visitors(project, month))?;
        row.lines = all.lines;
        row.not_counted = all.not_counted.values().sum();
        row.not_read = all.not_read.values().map(|lines| lines.count).sum();
        Ok(Read { row, months, known: known_files, all, writing })
    }

    /// Reads one file into `log`.
    fn read_file(
        &self,
        (index, path): (usize, &Path),
        views: &Views<'_>,
        known: &KnownFiles,
        log: &mut ImportLog,
        all: &mut Summary,
        progress: &Progress<'_>,
    ) -> anyhow::Result<FileRead> {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let mut file = match recognise(files::open(path, progress.bytes)?, self.key, known)? {
            Recognised::New(file) => file,
            Recognised::Known(same) => {
                progress.bar.suspend(|| say!("{}: skipped, the same as {same}", path.display()));
                return Ok(FileRead::Known);
            }
        };
        let (format, utc_offset, mut failed) = (self.plan.format.as_ref(), self.plan.utc_offset, None);
        let mut lines = FileLines::default();
        let format = read_lines(&mut file, format, utc_offset, views, |line, outcome| {
            let outcome = self.plan.outcome(outcome);
            all.add(&outcome, Place { file: index, line });
            lines.add(&outcome);
            if all.lines.is_multiple_of(PROGRESS_LINES) {
                progress.bar.set_position(progress.bytes.get());
            }
            if let Outcome::View(view) = outcome
                && failed.is_none()
            {
                failed = log.append(*view, index, line).err();
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        progress.bar.suspend(|| say!("{}: {format}", path.display()));
        if lines.is_too_early()? {
            progress.bar.suspend(|| {
                say!(
                    "{}: skipped, since its lines are of the running month: import it once that month is over",
                    path.display()
                );
            });
            return Ok(FileRead::TooEarly);
        }
        let (bytes, blocks) = file.end();
        Ok(FileRead::New(KnownFile { name, bytes, blocks }))
    }
}

/// How far the files are read.
struct Progress<'p> {
    bar: &'p ProgressBar,
    bytes: &'p BytesRead,
}
