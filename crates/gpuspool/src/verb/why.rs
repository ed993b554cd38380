//! `gpuspool why`: what a task waits for, in one sentence.

use std::time::Duration;

use clap::Args;
use model::reason::ReasonTold;
use model::request::{AboutTask, Verb};
use model::task::TaskRecord;
use model::{FailureClass, Status, TaskId};
use spool::find::{Located, Place};
use spool::settings::Settings;

use crate::ask::{self, Asked};
use crate::brain::{Presence, presence};
use crate::console::Console;
use crate::failure::{Failure, exit};
use crate::locate::{self, Meant};
use crate::words::{count, duration};

/// The brain answers this at once, or it hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Options of `why`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Tasks, or batches: their first item that has not ended.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

pub(crate) fn run(options: &Options, settings: &Settings, console: &mut Console<'_>) -> Result<u8, Failure> {
    let alive = matches!(presence(&settings.layout), Presence::Runs { .. });
    let mut about = Vec::new();
    let mut questions = Vec::new();
    for name in &options.ids {
        let (id, located) = one_task(settings, name)?;
        match located {
            Some(located) if alive && matches!(located.place, Place::Queue(_) | Place::Processing) => {
                questions.push(id.to_string());
            }
            Some(located) => about.push(by_its_folder(name, &id, &located)),
            None if alive => questions.push(id.to_string()),
            None => about.push(told(
                name,
                &id,
                "waiting",
                "not_expanded",
                "its batch has not been taken up yet, and no brain runs",
            )),
        }
    }
    if !questions.is_empty() {
        match ask::ask(settings, &ask::request(Verb::Why, &questions), PATIENCE, true)? {
            Asked::Answered(answer) => about.extend(answer.about),
            Asked::Unanswered => {
                return Err(Failure::new(
                    exit::TRY_AGAIN,
                    format!("the brain did not answer within {} s", PATIENCE.as_secs()),
                )
                .next("`gpuspool status` shows when it last drew the picture"));
            }
            Asked::Orphaned => {
                return Err(
                    Failure::new(exit::TRY_AGAIN, "the brain left before it could answer").next("try again")
                );
            }
        }
    }
    if console.json {
        console.say_json(&about)?;
    } else {
        for one in &about {
            console.say(&sentence(one))?;
        }
    }
    Ok(if about.iter().any(|one| one.outcome == "unknown") { exit::NOT_ALL } else { exit::OK })
}

/// The task a name means; of a batch the first item that has not ended, else its last.
fn one_task(settings: &Settings, name: &str) -> Result<(TaskId, Option<Located>), Failure> {
    match locate::meant(settings, name)? {
        Some(Meant::Task(id, located)) => Ok((id, Some(*located))),
        Some(Meant::Batch(id, manifest)) => {
            let failed = |error: std::io::Error| Failure::io(format_args!("look at batch `{id}`"), &error);
            let states = locate::batches(settings).states(&manifest).map_err(failed)?;
            let open = |state: &Option<Status>| !matches!(state, Some(Status::Complete | Status::Failed));
            let index = states.iter().position(open).unwrap_or(manifest.items.len().saturating_sub(1));
            let Some(task) = manifest.task_id(index) else {
                return Err(Failure::new(exit::DATA, format!("batch `{id}` has no item {index}")));
            };
            let located = locate::task(settings, &task)?;
            Ok((task, located))
        }
        None => Err(locate::unknown(settings, name)),
    }
}

/// What the folder alone tells.
fn by_its_folder(name: &str, id: &TaskId, located: &Located) -> AboutTask {
    let record = located.record.as_ref();
    match &located.place {
        Place::Queue(entry) => {
            let text = format!(
                "it lies in {}_queue/priority_{}, and no brain runs; `gpuspool up` starts the work",
                entry.class, entry.priority
            );
            told(name, id, "waiting", "no_brain", &text)
        }
        Place::Processing => told(
            name,
            id,
            "running",
            "no_brain",
            "it was started, and no brain runs: a worker may still be at it; `gpuspool up` adopts or repeats it",
        ),
        Place::Complete => told(name, id, "already_ended", "complete", "it is complete"),
        Place::Failed => told(name, id, "already_ended", "failed", &failed(record.map(AsRef::as_ref))),
        Place::Rejected => {
            let text = format!("it was rejected; the reason lies beside {}", located.path.display());
            told(name, id, "already_ended", "rejected", &text)
        }
    }
}

/// How a failed task failed.
fn failed(record: Option<&TaskRecord>) -> String {
    let Some((record, error)) = record.and_then(|record| Some((record, record.error.as_ref()?))) else {
        return "it failed, and its record gives no reason".into();
    };
    match record.attempt {
        _ if error.class == FailureClass::Cancelled => format!("it was cancelled: {}", error.message),
        Some(attempts @ 1..) => {
            format!(
                "it failed after {}: {error}",
                count(usize::try_from(attempts).unwrap_or(usize::MAX), "attempt")
            )
        }
        _ => format!("it failed: {error}"),
    }
}

fn told(name: &str, id: &TaskId, outcome: &str, code: &str, text: &str) -> AboutTask {
    AboutTask {
        id: name.to_owned(),
        task_id: Some(id.clone()),
        outcome: outcome.to_owned(),
        reason: Some(ReasonTold { code: code.to_owned(), text: text.to_owned() }),
        starts_in_s: None,
    }
}

fn sentence(about: &AboutTask) -> String {
    let id = about.task_id.as_ref().map_or(about.id.as_str(), TaskId::as_str);
    let reason =
        about.reason.as_ref().map_or_else(|| about.outcome.replace('_', " "), |reason| reason.text.clone());
    match about.starts_in_s {
        Some(s) if s > 0.0 => format!("{id}: {reason} (expected to start in {})", duration(s)),
        _ => format!("{id}: {reason}"),
    }
}
