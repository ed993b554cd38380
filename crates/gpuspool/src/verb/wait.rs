//! `gpuspool wait`: until tasks or batches have ended.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use model::batch::BatchStatus;
use model::{BatchId, Status, TaskId};
use serde::Serialize;
use spool::find::Place;
use spool::settings::Settings;

use crate::brain::{Presence, presence};
use crate::console::Console;
use crate::failure::{Failure, exit};
use crate::locate::{self, Meant};
use crate::words::{count, parse_duration};

/// Between two looks: a person does not notice it, and a thousand waiting commands do not hurt.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a task may be nowhere before it is said to be gone: it may be between two folders.
const GONE_AFTER: Duration = Duration::from_secs(5);

/// Options of `wait`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Tasks or batches.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// Give up after this long, such as 90s, 15m or 2h, with exit code 75.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

/// How one of them ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Ended {
    id: String,
    complete: bool,
    message: String,
}

/// What is waited for.
#[derive(Debug)]
enum Awaited {
    Task { id: TaskId, missing_since: Option<Instant> },
    Batch(BatchId),
}

pub(crate) fn run(options: &Options, settings: &Settings, console: &mut Console<'_>) -> Result<u8, Failure> {
    let mut open: BTreeMap<&str, Awaited> = BTreeMap::new();
    for name in &options.ids {
        let awaited = match locate::meant(settings, name)? {
            Some(Meant::Task(id, _)) => Awaited::Task { id, missing_since: None },
            Some(Meant::Batch(id, _)) => Awaited::Batch(id),
            None => return Err(locate::unknown(settings, name)),
        };
        open.insert(name, awaited);
    }
    let begun = Instant::now();
    let mut told_of_no_brain = false;
    let mut all: Vec<Ended> = Vec::new();
    loop {
        let mut still = BTreeMap::new();
        for (name, mut awaited) in std::mem::take(&mut open) {
            match look(settings, &mut awaited)? {
                Some(ended) => {
                    if !console.json {
                        console.say(&format!("{}: {}", ended.id, ended.message))?;
                    }
                    all.push(ended);
                }
                None => drop(still.insert(name, awaited)),
            }
        }
        open = still;
        if open.is_empty() {
            break;
        }
        if options.timeout.is_some_and(|limit| begun.elapsed() >= limit) {
            tell(console, &all, &open)?;
            let left: Vec<&str> = open.keys().copied().take(5).collect();
            let message = format!("{} not ended in time: {}", count(open.len(), "id"), left.join(", "));
            return Err(
                Failure::new(exit::TRY_AGAIN, message).next("`gpuspool why ID` says what they wait for")
            );
        }
        if !told_of_no_brain && presence(&settings.layout) == Presence::Absent {
            told_of_no_brain = true;
            console.note("no brain runs, so nothing new is started; `gpuspool up` starts the work");
        }
        std::thread::sleep(LOOK_EVERY);
    }
    tell(console, &all, &open)?;
    Ok(if all.iter().all(|ended| ended.complete) { exit::OK } else { exit::NOT_ALL })
}

fn tell(console: &mut Console<'_>, all: &[Ended], open: &BTreeMap<&str, Awaited>) -> Result<(), Failure> {
    if console.json {
        let complete = open.is_empty() && all.iter().all(|ended| ended.complete);
        let waiting: Vec<&&str> = open.keys().collect();
        console
            .say_json(&serde_json::json!({ "all_complete": complete, "ended": all, "not_ended": waiting }))?;
    }
    Ok(())
}

fn look(settings: &Settings, awaited: &mut Awaited) -> Result<Option<Ended>, Failure> {
    match awaited {
        Awaited::Task { id, missing_since } => look_at_task(settings, id, missing_since),
        Awaited::Batch(id) => look_at_batch(settings, id),
    }
}

fn look_at_task(
    settings: &Settings,
    id: &TaskId,
    missing_since: &mut Option<Instant>,
) -> Result<Option<Ended>, Failure> {
    let ended = |complete, message: String| Some(Ended { id: id.to_string(), complete, message });
    let Some(located) = locate::task(settings, id)? else {
        let since = *missing_since.get_or_insert_with(Instant::now);
        return Ok(if since.elapsed() >= GONE_AFTER {
            ended(false, "gone: its file is in no folder any more".into())
        } else {
            None
        });
    };
    *missing_since = None;
    let error = || located.record.as_ref().and_then(|record| record.error.as_ref()).map(ToString::to_string);
    Ok(match located.place {
        Place::Queue(_) | Place::Processing => None,
        Place::Complete => ended(true, "complete".into()),
        Place::Failed => {
            ended(false, format!("failed: {}", error().unwrap_or_else(|| "no reason is recorded".into())))
        }
        Place::Rejected => {
            ended(false, format!("rejected; the reason lies beside {}", located.path.display()))
        }
    })
}

/// The record tells most; where it lags behind (it is written at most once a second, and only by a brain), the files
/// of the items do.
fn look_at_batch(settings: &Settings, id: &BatchId) -> Result<Option<Ended>, Failure> {
    let failed = |error: std::io::Error| Failure::io(format_args!("look at batch `{id}`"), &error);
    let batches = locate::batches(settings);
    let summary = |complete: usize, failed: usize| {
        let message = if failed == 0 {
            format!("complete: {}", count(complete, "item"))
        } else {
            format!("{failed} of {} failed", count(complete + failed, "item"))
        };
        Some(Ended { id: id.to_string(), complete: failed == 0, message })
    };
    if let Some(record) = batches.record(id).map_err(failed)? {
        return Ok(match record.status {
            BatchStatus::Complete | BatchStatus::CompleteWithFailures => {
                summary(record.completed, record.failed)
            }
            BatchStatus::Accepted | BatchStatus::Running => None,
        });
    }
    let Some(manifest) = batches.manifest(id).map_err(failed)? else {
        return Ok(Some(Ended {
            id: id.to_string(),
            complete: false,
            message: "gone: its manifest is no longer there".into(),
        }));
    };
    let states = batches.states(&manifest).map_err(failed)?;
    let of = |wanted: Status| states.iter().filter(|state| **state == Some(wanted)).count();
    let (complete, failures) = (of(Status::Complete), of(Status::Failed));
    Ok(if complete + failures == states.len() { summary(complete, failures) } else { None })
}
