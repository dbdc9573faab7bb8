//! The order of a run.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use schemas::Hour;

use super::ReportArgs;
use super::ask::{Side, rounds, saturation, selects};
use super::fill::{fill, stored};
use super::load::{Load, append_backlog};
use super::show::{Figures, render};
use crate::interrupt::bounded;
use crate::machine::Machine;
use crate::month::beacons::{Form, Readers};
use crate::month::plan::{Plan, Size};
use crate::month::probe;
use crate::service::{Directory, Service};

/// Hours that remain of the month when its reports are requested. A report ends with the running hour.
const HOURS_LEFT: u32 = 2;
/// The service's database.
const DATABASE: &str = "headcount";

pub(crate) async fn run(args: ReportArgs) -> anyhow::Result<()> {
    let binary = args.common.headcount()?;
    let figures = bounded(Duration::from_secs(args.seconds.into()), measure(&args, &binary)).await?;
    print!("{}", render(&figures));
    args.common.json.write(&figures)
}

/// Starts the service with its clock at `clock`.
async fn open(binary: &Path, directory: Directory, clock: Hour, projects: u32) -> anyhow::Result<Service> {
    // One client requests all reports, so the rate limit is off: it is not measured.
    let settings = ["--report-rate", "0", "--clock-start", &clock.start().to_rfc3339()];
    let mut service = Service::open(binary, directory, &settings).await?;
    if projects > 0 {
        service.knows(projects).await?;
    }
    Ok(service)
}

async fn measure(args: &ReportArgs, binary: &Path) -> anyhow::Result<Figures> {
    let plan = Arc::new(Plan::new(args.seed, args.month, Size { projects: args.projects, views: args.views }));
    let (begun, first, end) = (Instant::now(), plan.month().first_hour(), plan.month().end_hour());

    // In the month's first hours, so that the service does not close the previous month while it is filled.
    let service = open(binary, Directory::new()?, Hour(first.0 + 1), 0).await?;
    let database = service.database(DATABASE)?;
    probe::register(&plan, &database).await?;
    let projects = fill(database.client(), &plan, HOURS_LEFT).await?;
    let directory = service.stop().await?;
    let fill_seconds = begun.elapsed().as_secs_f64();
    eprintln!("filled within {fill_seconds:.0} s");

    // Beacons that arrive now belong to the requested month.
    let service = open(binary, directory, Hour(end.0 - HOURS_LEFT - 1), args.projects).await?;
    service.at_rest().await?;
    let database = service.database(DATABASE)?;
    let stored = stored(&database).await?;
    let (mut lines, mut selects_each, mut saturated) = (Vec::new(), None, None);
    if args.reports > 0 {
        for side in
            [Side::Computed(service.port()), Side::Cached(service.port()), Side::Raw(Box::new(database.clone()))]
        {
            lines.extend(rounds(args, &side, &projects).await.with_context(|| side.name())?);
        }
        saturated = Some(saturation(args, service.port(), &projects).await.context("two clients at rest")?);
        selects_each = Some(selects(&database, service.port(), &projects, args.month).await?);
    }
    // With an empty cache.
    let service = open(binary, service.stop().await?, Hour(end.0 - HOURS_LEFT - 1), args.projects).await?;

    let readers = Arc::new(Readers::new(Plan::clone(&plan), Form::Headcount));
    let load = Load { args, plan: &plan, readers: &readers };
    let steady = load.steady(&service).await.context("reports while beacons come")?;
    let directory = service.stop().await?;
    append_backlog(&directory.journal(), &readers, args.backlog, Hour(end.0 - HOURS_LEFT - 1)).await?;
    let service = open(binary, directory, Hour(end.0 - HOURS_LEFT), args.projects).await?;
    let catch_up = load.catch_up(&service, &steady).await.context("reports in a catch-up")?;
    service.stop().await?;
    Ok(Figures {
        machine: Machine::this(),
        projects: args.projects,
        views: projects.iter().map(|(_, views)| views).sum(),
        fill_seconds,
        stored,
        lines,
        selects_each,
        saturated,
        beacons: args.beacons,
        backlog: args.backlog,
        steady,
        catch_up,
    })
}
