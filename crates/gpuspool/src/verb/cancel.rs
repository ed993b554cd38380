//! `gpuspool cancel`: the brain ends tasks; where none runs, queued tasks are ended here.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use model::batch::Manifest;
use model::request::{AboutTask, Verb};
use model::task::{TaskError, TaskRecord};
use model::{Entry, FailureClass, Status, Task, TaskId};
use serde::Serialize;
use spool::clock;
use spool::find::Place;
use spool::intake::{Intake, Verdict};
use spool::ledger::Ledger;
use spool::lock::BrainLock;
use spool::settings::Settings;

use super::pause::IS_OVER;
use crate::ask::{self, Asked};
use crate::brain::{Presence, presence};
use crate::console::Console;
use crate::failure::{Failure, exit};
use crate::locate::{self, Meant};
use crate::words::count;

/// Running tasks may take their time to end; beyond this they end without us.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is said of what is in a folder, and not in the brain's mind.
const NOT_YET_READ: &str = "the brain has not read it yet; try again";

/// Options of `cancel`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Tasks or batches.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

/// What came of a task.
#[derive(Debug, Serialize)]
struct Told {
    id: String,
    outcome: String,
    message: String,
}

/// What came of the items of a batch.
#[derive(Debug, Serialize)]
struct OfBatch {
    id: String,
    /// `cancelled`, `already_ended` or `not_yet_read`.
    outcome: &'static str,
    /// Items that waited and will not start.
    not_started: usize,
    /// Items that ran and were stopped.
    stopped: usize,
    /// Items that had ended, or ended by themselves meanwhile.
    ended: usize,
    message: String,
}

/// The brain's answer by id: an item that is also named itself is spoken of twice, and the last word counts.
type ById<'a> = BTreeMap<&'a str, &'a AboutTask>;

pub(crate) fn run(options: &Options, settings: &Settings, console: &mut Console<'_>) -> Result<u8, Failure> {
    let mut named = Vec::new();
    for name in &options.ids {
        let meant = locate::meant(settings, name)?.ok_or_else(|| locate::unknown(settings, name))?;
        named.push((name.as_str(), meant));
    }
    if !matches!(presence(&settings.layout), Presence::Runs { .. }) {
        let told = without_a_brain(&options.ids, settings)?;
        let lines = told.iter().map(|one| format!("{}: {}", one.id, one.message)).collect();
        return say(told.iter().all(|one| is_done(&one.outcome)), lines, &told, &[], console);
    }
    let about = by_the_brain(options, settings)?;
    let by_id: ById<'_> = about.iter().map(|one| (one.id.as_str(), one)).collect();
    let (mut all, mut lines, mut tasks, mut batches) = (true, Vec::new(), Vec::new(), Vec::new());
    for (name, meant) in &named {
        match meant {
            Meant::Task(..) => {
                let told = told(name, by_id.get(name).map_or("unknown", |one| one.outcome.as_str()));
                all &= is_done(&told.outcome);
                lines.push(format!("{name}: {}", told.message));
                tasks.push(told);
            }
            Meant::Batch(_, manifest) => {
                let batch = of_batch(name, manifest, &by_id, settings)?;
                tasks.extend(items_of(manifest, &by_id).map(|item| told(&item.id, &item.outcome)));
                all &= is_done(batch.outcome);
                lines.push(format!("{name}: {}", batch.message));
                batches.push(batch);
            }
        }
    }
    say(all, lines, &tasks, &batches, console)
}

/// One line for each name; as JSON every task, and the counts of the batches.
fn say(
    all: bool,
    lines: Vec<String>,
    tasks: &[Told],
    batches: &[OfBatch],
    console: &mut Console<'_>,
) -> Result<u8, Failure> {
    if console.json {
        console.say_json(&serde_json::json!({ "cancelled": all, "about": tasks, "batches": batches }))?;
    } else {
        for line in lines {
            console.say(&line)?;
        }
    }
    Ok(if all { exit::OK } else { exit::NOT_ALL })
}

/// Whether nothing is left to do.
fn is_done(outcome: &str) -> bool {
    matches!(outcome, "cancelled" | "waits_as_request")
}

fn by_the_brain(options: &Options, settings: &Settings) -> Result<Vec<AboutTask>, Failure> {
    let request = ask::request(Verb::Cancel, &options.ids);
    match ask::ask(settings, &request, PATIENCE, false)? {
        Asked::Answered(answer) => Ok(answer.about),
        Asked::Unanswered => Err(Failure::new(exit::TRY_AGAIN, "the brain has not ended all of them yet")
            .next("it goes on by itself; `gpuspool wait ID` waits for the end")),
        Asked::Orphaned => Err(Failure::new(exit::TRY_AGAIN, "the brain left before it could answer")
            .next("the request waits for the next one: `gpuspool up`")),
    }
}

fn told(id: &str, outcome: &str) -> Told {
    let message = match outcome {
        "cancelled" => "cancelled".to_owned(),
        "stopping" => "it is being stopped".to_owned(),
        "already_ended" => "it had ended already".to_owned(),
        "not_yet_read" => NOT_YET_READ.to_owned(),
        other => other.replace('_', " "),
    };
    Told { id: id.to_owned(), outcome: outcome.to_owned(), message }
}

/// The items of a batch of which the brain speaks: those that had not ended when it was asked.
fn items_of<'a>(manifest: &Manifest, by_id: &ById<'a>) -> impl Iterator<Item = &'a AboutTask> {
    let ids = (0..manifest.items.len()).filter_map(|index| manifest.task_id(index));
    ids.filter_map(|id| by_id.get(id.as_str()).copied())
}

fn of_batch(
    name: &str,
    manifest: &Manifest,
    by_id: &ById<'_>,
    settings: &Settings,
) -> Result<OfBatch, Failure> {
    let cancelled = || items_of(manifest, by_id).filter(|item| item.outcome == "cancelled");
    let stopped = cancelled().filter(|item| item.ran).count();
    let not_started = cancelled().count() - stopped;
    // It does not know a batch before it has read its manifest.
    let is_known = by_id.get(name).is_none_or(|one| one.outcome == "already_ended");
    let is_unread = !is_known && !is_over(manifest, settings)?;
    let (outcome, ended) = match (not_started + stopped, manifest.items.len()) {
        _ if is_unread => ("not_yet_read", 0),
        (0, items) => ("already_ended", items),
        (cancelled, items) => ("cancelled", items.saturating_sub(cancelled)),
    };
    let message = match outcome {
        "not_yet_read" => NOT_YET_READ.to_owned(),
        "already_ended" => IS_OVER.to_owned(),
        _ => format!("cancelled: {}", counts(not_started, stopped, ended)),
    };
    Ok(OfBatch { id: name.to_owned(), outcome, not_started, stopped, ended, message })
}

/// Whether every item has ended.
fn is_over(manifest: &Manifest, settings: &Settings) -> Result<bool, Failure> {
    let failed = |error: std::io::Error| {
        Failure::io(format_args!("look at batch `{}`", manifest.header.batch_id), &error)
    };
    let states = locate::batches(settings).states(manifest).map_err(failed)?;
    Ok(states.iter().all(|state| matches!(state, Some(Status::Complete | Status::Failed))))
}

/// `41 items waited and will not start, 3 ran and were stopped, 6 had ended`.
fn counts(not_started: usize, stopped: usize, ended: usize) -> String {
    let was = if stopped == 1 { "was" } else { "were" };
    let parts = [
        (not_started, "waited and will not start".to_owned()),
        (stopped, format!("ran and {was} stopped")),
        (ended, "had ended".to_owned()),
    ];
    let mut said: Vec<String> = Vec::new();
    for (n, what) in parts.into_iter().filter(|(n, _)| *n > 0) {
        let who = if said.is_empty() { count(n, "item") } else { n.to_string() };
        said.push(format!("{who} {what}"));
    }
    said.join(", ")
}

/// Takes the brain's place for a moment: nobody else may move tasks meanwhile.
fn without_a_brain(names: &[String], settings: &Settings) -> Result<Vec<Told>, Failure> {
    let _lock = BrainLock::take(&settings.layout).map_err(|error| {
        Failure::new(exit::TRY_AGAIN, format!("failed to take the brain's place: {error}"))
            .next("a brain is probably starting; try again")
    })?;
    let mut ledger = Ledger::new(settings.layout.clone(), settings.config.durability);
    let mut told = Vec::new();
    let mut for_later = Vec::new();
    for name in names {
        let (outcome, message) = match locate::meant(settings, name)? {
            Some(Meant::Task(id, located)) => match located.place {
                Place::Queue(entry) => end_queued(&id, &entry, settings, &mut ledger)?,
                Place::Processing => {
                    for_later.push(name.clone());
                    ("waits_as_request", "it was started; the next brain ends it".to_owned())
                }
                Place::Complete | Place::Failed | Place::Rejected => {
                    ("already_ended", "it had ended already".to_owned())
                }
            },
            Some(Meant::Batch(_, manifest)) if is_over(&manifest, settings)? => {
                ("already_ended", IS_OVER.to_owned())
            }
            Some(Meant::Batch(..)) => {
                for_later.push(name.clone());
                ("waits_as_request", "the next brain ends its items".to_owned())
            }
            None => ("unknown", "it is gone".to_owned()),
        };
        told.push(Told { id: name.clone(), outcome: outcome.to_owned(), message });
    }
    let synced = ledger.pending().take().run();
    synced.map_err(|error| Failure::io("make the cancelling durable", &error))?;
    if !for_later.is_empty() {
        ask::leave(settings, &ask::request(Verb::Cancel, &for_later))?;
    }
    Ok(told)
}

/// Claims a queued task and fails it at once, as the brain would.
fn end_queued(
    id: &TaskId,
    entry: &Entry,
    settings: &Settings,
    ledger: &mut Ledger,
) -> Result<(&'static str, String), Failure> {
    let task = match Intake::new(&settings.config).read(&settings.layout, entry, clock::now(), true) {
        Verdict::Ready(task) => task,
        Verdict::Settling { detail, .. } | Verdict::Held { detail, .. } => {
            return Ok(("not_a_task_yet", format!("left where it is: {detail}")));
        }
        Verdict::Rejected(fault) => return Ok(("not_a_task", format!("it is no valid task: {fault}"))),
        Verdict::Gone => return Ok(("unknown", "it is gone".into())),
    };
    let failed =
        |error: &dyn std::fmt::Display| Failure::new(exit::IO, format!("failed to cancel `{id}`: {error}"));
    let claimed = ledger.claim(entry, &task).map_err(|error| failed(&error))?;
    ledger.fail(&claimed, &cancelled(&claimed, &task)).map_err(|error| failed(&error))?;
    Ok(("cancelled", "cancelled".into()))
}

fn cancelled(id: &TaskId, task: &Task) -> TaskRecord {
    TaskRecord {
        task_id: Some(id.clone()),
        status: Some(Status::Failed),
        completed_at: Some(clock::wall()),
        error: Some(TaskError::new(
            FailureClass::Cancelled,
            "cancelled",
            "it was cancelled before it was started",
        )),
        ..task.record()
    }
}
