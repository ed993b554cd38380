//! `gpuspool down`: frees the machine.

use std::time::{Duration, Instant};

use clap::Args;
use model::WorkerId;
use model::link::Phase;
use model::request::Verb;
use spool::settings::Settings;
use spool::{process, recover};

use crate::ask::{self, Asked};
use crate::brain::{self, Presence, presence};
use crate::console::Console;
use crate::failure::{Failure, exit};
use crate::words::{duration, parse_duration};

/// The brain ends what does not end by itself within its time; so much later it is beyond help.
const GRACE: Duration = Duration::from_secs(30);
/// From the brain's answer to the end of its process and of its workers'.
const LAST_BREATH: Duration = Duration::from_secs(10);

/// Options of `down`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long it may take, such as 30s or 5m [default: `shutdown.timeout_s` of the configuration].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Stop running tasks at once; they are queued again and not charged.
    #[arg(long)]
    now: bool,
}

pub(crate) fn run(options: &Options, settings: &Settings, console: &mut Console<'_>) -> Result<u8, Failure> {
    let limit = options.timeout.unwrap_or_else(|| {
        Duration::try_from_secs_f64(settings.config.shutdown.timeout_s).unwrap_or(Duration::from_secs(60))
    });
    match presence(&settings.layout) {
        Presence::Runs { .. } => by_the_brain(options, limit, settings, console)?,
        Presence::Absent if nobody_works(settings) => console.note("nothing runs"),
        Presence::Starts | Presence::Absent => by_a_brain_of_our_own(options, limit, settings, console)?,
    }
    if console.json {
        console.say_json(&serde_json::json!({ "free": true }))?;
    } else {
        console.say("the machine is free")?;
    }
    Ok(exit::OK)
}

fn by_the_brain(
    options: &Options,
    limit: Duration,
    settings: &Settings,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let request = model::request::Request {
        timeout_s: Some(limit.as_secs_f64()),
        now: options.now,
        ..ask::request(Verb::Down, &[])
    };
    console.note(&format!("freeing the machine, within {}", duration(limit.as_secs_f64())));
    match ask::ask(settings, &request, limit + GRACE, false)? {
        // A brain that has left after it was asked to free the machine has done so.
        Asked::Answered(_) | Asked::Orphaned => {}
        Asked::Unanswered => {
            return Err(Failure::new(exit::TRY_AGAIN, "the brain has not freed the machine in time")
                .next("`gpuspool status` shows what still runs; `gpuspool down --now` stops it"));
        }
    }
    let answered = Instant::now();
    while answered.elapsed() < LAST_BREATH {
        if presence(&settings.layout) == Presence::Absent && nobody_works(settings) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(Failure::new(
        exit::TRY_AGAIN,
        "the brain says that the machine is free, and something is left of its workers",
    )
    .next("run `gpuspool down` again: it ends what was left behind"))
}

/// Whether nobody is left to be ended: every worker has said that it leaves, and its process is gone.
fn nobody_works(settings: &Settings) -> bool {
    let folders = std::fs::read_dir(settings.layout.workers()).into_iter().flatten().flatten();
    let names = folders.filter_map(|folder| folder.file_name().into_string().ok());
    // A folder whose name begins with a dot is being born or was buried.
    names
        .filter(|name| !name.starts_with('.'))
        .all(|name| WorkerId::new(name).is_ok_and(|id| has_left(settings, &id)))
}

fn has_left(settings: &Settings, worker: &WorkerId) -> bool {
    recover::last_words(&settings.layout, worker).is_ok_and(|reports| {
        let lives = reports.worker.is_some_and(|worker| process::is_alive(&worker.process()));
        reports.phase == Phase::Left && !lives
    })
}

/// Workers that outlived their brain are adopted by one that only ends them.
fn by_a_brain_of_our_own(
    options: &Options,
    limit: Duration,
    settings: &Settings,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    console.note("no brain runs, but workers do: starting one that ends them");
    let within = if options.now { 0.0 } else { limit.as_secs_f64() };
    let status = brain::command(settings, None)?
        .arg("--down-within")
        .arg(within.to_string())
        .status()
        .map_err(|error| Failure::io("start a brain", &error))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(exit::TRY_AGAIN, format!("the brain that was to free the machine ended with {status}"))
        .next("its messages stand above; run `gpuspool down` again"))
}
