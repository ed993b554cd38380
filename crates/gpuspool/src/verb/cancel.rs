//! `gpuspool cancel`: the brain ends tasks; where none runs, queued tasks are ended here.

use std::time::Duration;

use clap::Args;
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

use crate::ask::{self, Asked};
use crate::brain::{Presence, presence};
use crate::console::Console;
use crate::failure::{Failure, exit};
use crate::locate::{self, Meant};

/// Running tasks may take their time to end; beyond this they end without us.
const PATIENCE: Duration = Duration::from_secs(60);

/// Options of `cancel`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Tasks or batches.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

/// What came of one id.
#[derive(Debug, Serialize)]
struct Told {
    id: String,
    outcome: String,
    message: String,
}

pub(crate) fn run(options: &Options, settings: &Settings, console: &mut Console<'_>) -> Result<u8, Failure> {
    let mut told = Vec::new();
    for name in &options.ids {
        if locate::meant(settings, name)?.is_none() {
            return Err(locate::unknown(settings, name));
        }
    }
    if let Presence::Runs { .. } = presence(&settings.layout) {
        let request = ask::request(Verb::Cancel, &options.ids);
        match ask::ask(settings, &request, PATIENCE, false)? {
            Asked::Answered(answer) => told.extend(answer.about.into_iter().map(by_the_brain)),
            Asked::Unanswered => {
                return Err(Failure::new(exit::TRY_AGAIN, "the brain has not ended all of them yet")
                    .next("it goes on by itself; `gpuspool wait ID` waits for the end"));
            }
            Asked::Orphaned => {
                return Err(Failure::new(exit::TRY_AGAIN, "the brain left before it could answer")
                    .next("the request waits for the next one: `gpuspool up`"));
            }
        }
    } else {
        told = without_a_brain(&options.ids, settings)?;
    }
    let all = told.iter().all(|one| matches!(one.outcome.as_str(), "cancelled" | "waits_as_request"));
    if console.json {
        console.say_json(&serde_json::json!({ "cancelled": all, "about": told }))?;
    } else {
        for one in &told {
            console.say(&format!("{}: {}", one.id, one.message))?;
        }
    }
    Ok(if all { exit::OK } else { exit::NOT_ALL })
}

fn by_the_brain(about: AboutTask) -> Told {
    let message = match about.outcome.as_str() {
        "cancelled" => "cancelled".to_owned(),
        "stopping" => "it is being stopped".to_owned(),
        "already_ended" => "it had ended already".to_owned(),
        "not_yet_read" => "the brain has not read it yet; try again".to_owned(),
        other => other.replace('_', " "),
    };
    Told { id: about.id, outcome: about.outcome, message }
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
