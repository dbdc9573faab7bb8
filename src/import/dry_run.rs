//! `headcount import --dry-run`: what an import would count, and why it would not count the rest.

use super::file_lines::FileLines;
use super::{PROGRESS_LINES, Plan, summary};
use crate::config::commands::ImportCommand;
use crate::registry::RegistryCopy;
use crate::{complain, projects, say};
use anyhow::{Context, bail};
use indicatif::ProgressBar;
use ingest::access_log::files::{self, BytesRead};
use ingest::access_log::lines::read_lines;
use ingest::access_log::summary::{Place, Summary};
use ingest::access_log::view::Views;
use ingest::projects::{ProjectSnapshot, Projects};
use schemas::{Host, ProjectSlug};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// The project of `--host` where none is registered.
const WITHOUT_REGISTRY: &str = "dry-run";

/// Reads all files. The code is 1 if a file was not read, or not to its end, or an import would refuse it.
///
/// # Errors
/// No host is known.
pub fn run(plan: &Plan, settings: &ImportCommand) -> anyhow::Result<ExitCode> {
    let projects = registered(settings, plan.rules.host.as_ref())?;
    let views = Views::new(plan.rules.clone(), &projects);
    let mut run = Run { summary: Summary::default(), bytes: BytesRead::default(), failed: 0, bar: plan.progress_bar() };
    let started = Instant::now();
    for (index, path) in plan.files.iter().enumerate() {
        run.read(index, path, plan, &views);
    }
    run.bar.finish_and_clear();
    say!("dry run: nothing was counted");
    summary::print(&run.summary, &plan.files, started.elapsed());
    Ok(if run.failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// One run over all files.
struct Run {
    summary: Summary,
    bytes: BytesRead,
    /// Files that were not read, or not to their end, or that an import would refuse.
    failed: usize,
    bar: ProgressBar,
}

impl Run {
    fn read(&mut self, file: usize, path: &Path, plan: &Plan, views: &Views<'_>) {
        let name = path.display();
        let source = match files::open(path, &self.bytes) {
            Ok(source) => source,
            Err(error) => {
                self.bar.suspend(|| complain!("{name}: {error}"));
                self.failed += 1;
                return;
            }
        };
        let (summary, bar, bytes) = (&mut self.summary, &self.bar, &self.bytes);
        let mut lines = FileLines::default();
        let read = read_lines(source, plan.format.as_ref(), plan.utc_offset, views, |line, outcome| {
            let outcome = plan.outcome(outcome);
            summary.add(&outcome, Place { file, line });
            lines.add(&outcome);
            if summary.lines.is_multiple_of(PROGRESS_LINES) {
                bar.set_position(bytes.get());
            }
        });
        match read {
            Ok(format) => {
                self.bar.suspend(|| say!("{name}: {format}"));
                if let Err(error) = lines.is_too_early() {
                    self.bar.suspend(|| complain!("{name}: {error}"));
                    self.failed += 1;
                }
            }
            Err(error) => {
                self.bar.suspend(|| complain!("{name}: {error}"));
                self.failed += 1;
            }
        }
    }
}

/// The registry as the endpoint on this data directory has it. Without one, `--host` is a project.
fn registered(settings: &ImportCommand, host: Option<&Host>) -> anyhow::Result<Projects> {
    let (projects, data) = (settings.admission.projects_of_logs(), settings.store.data());
    let registry = RegistryCopy::open(data)?.index();
    if !registry.is_empty() || settings.admission.has_host_patterns() {
        projects.replace(registry);
        let names = projects::Snapshot::new(&data.join(projects::ADMITTED));
        projects.admit_known(names.load::<Vec<ProjectSlug>>());
        return Ok(projects);
    }
    let Some(host) = host else {
        bail!("{} has no project; name its data directory with --data, or a host with --host", data.display());
    };
    let project = WITHOUT_REGISTRY.parse().context("the name of the project")?;
    projects.replace(ProjectSnapshot::new(&BTreeMap::from([(project, vec![host.clone()])])));
    Ok(projects)
}
