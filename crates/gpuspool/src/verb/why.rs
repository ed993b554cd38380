//! `gpuspool why`: what a task waits for in one sentence, and what a GPU does in a few.

use clap::Args;
use model::reason::ReasonTold;
use model::request::{AboutTask, Verb};
use model::task::TaskRecord;
use model::{FailureClass, GpuReason, Status, TaskId};
use spool::find::{Located, Place};
use spool::settings::Settings;

use crate::ask;
use crate::brain::{Presence, presence};
use crate::console::Console;
use crate::failure::{Failure, exit};
use crate::locate::{self, Meant};
use crate::verb::status::picture;
use crate::words::{count, duration};

/// Options of `why`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Tasks; batches, for their first item that has not ended; GPUs, by their number or uuid.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

pub(crate) fn run(options: &Options, settings: &Settings, console: &mut Console<'_>) -> Result<u8, Failure> {
    let alive = matches!(presence(&settings.layout), Presence::Runs { .. });
    let mut about = Vec::new();
    let mut questions = Vec::new();
    let mut unknown = Vec::new();
    for name in &options.ids {
        let Some((id, located)) = one_task(settings, name)? else {
            match gpu(settings, name)? {
                Some(key) if alive => questions.push(key),
                Some(key) => about.push(gpu_without_a_brain(name, &key)),
                None => unknown.push(locate::unknown(settings, name)),
            }
            continue;
        };
        match located {
            Some(located) if alive && matches!(located.place, Place::Queue(_) | Place::Processing) => {
                questions.push(id.to_string());
            }
            Some(located) => about.push(by_its_folder(name, &id, &located)),
            None if alive => questions.push(id.to_string()),
            None => about.push(not_expanded(name, &id)),
        }
    }
    if !questions.is_empty() {
        about.extend(ask::answered(settings, &ask::request(Verb::Why, &questions))?.about);
    }
    tell(&about, &unknown, console, |one, console| match &one.gpu {
        Some(gpu) => tell_gpu(gpu, console),
        None => Ok(console.say(&sentence(one))?),
    })
}

/// Says what is known, each by `say`, and then which names are nothing; the exit code.
pub(super) fn tell(
    about: &[AboutTask],
    unknown: &[Failure],
    console: &mut Console<'_>,
    say: impl Fn(&AboutTask, &mut Console<'_>) -> Result<(), Failure>,
) -> Result<u8, Failure> {
    if console.json && (unknown.is_empty() || !about.is_empty()) {
        console.say_json(&about)?;
    } else if !console.json {
        for one in about {
            say(one, console)?;
        }
    }
    for failure in unknown {
        console.fail(failure);
    }
    let all_are_known = unknown.is_empty() && !about.iter().any(|one| one.outcome == "unknown");
    Ok(if all_are_known { exit::OK } else { exit::NOT_ALL })
}

/// A task, and where it is.
type Found = (TaskId, Option<Located>);

/// The task a name means; of a batch the first item that has not ended, else its last. None if nothing has this name.
pub(super) fn one_task(settings: &Settings, name: &str) -> Result<Option<Found>, Failure> {
    match locate::meant(settings, name)? {
        Some(Meant::Task(id, located)) => Ok(Some((id, Some(*located)))),
        Some(Meant::Batch(id, manifest)) => {
            let failed = |error: std::io::Error| Failure::io(format_args!("look at batch `{id}`"), &error);
            let states = locate::batches(settings).states(&manifest).map_err(failed)?;
            let open = |state: &Option<Status>| !matches!(state, Some(Status::Complete | Status::Failed));
            let index = states.iter().position(open).unwrap_or(manifest.items.len().saturating_sub(1));
            let Some(task) = manifest.task_id(index) else {
                return Err(Failure::new(exit::DATA, format!("batch `{id}` has no item {index}")));
            };
            let located = locate::task(settings, &task)?;
            Ok(Some((task, located)))
        }
        None => Ok(None),
    }
}

/// The key of the GPU a name means, by the last picture.
fn gpu(settings: &Settings, name: &str) -> Result<Option<String>, Failure> {
    let Some(picture) = picture(settings)? else { return Ok(None) };
    let mut gpus = picture.gpus.iter();
    let wanted = gpus.find(|(key, gpu)| key.as_str() == name || gpu.uuid.as_str() == name);
    Ok(wanted.map(|(key, _)| key.clone()))
}

fn gpu_without_a_brain(name: &str, key: &str) -> AboutTask {
    let text = format!(
        "no brain runs, so nothing new starts on GPU {key}; `gpuspool status` shows what it did when one last ran"
    );
    AboutTask {
        id: name.to_owned(),
        outcome: "gpu".into(),
        reason: Some(ReasonTold { code: "no_brain".into(), text }),
        ..AboutTask::default()
    }
}

fn tell_gpu(gpu: &GpuReason, console: &mut Console<'_>) -> Result<(), Failure> {
    console.say(&gpu.to_string())?;
    for line in &gpu.lately {
        console.say(&format!("    {line}"))?;
    }
    Ok(())
}

/// An item that the brain has not put into its queue yet.
pub(super) fn not_expanded(name: &str, id: &TaskId) -> AboutTask {
    told(name, id, "waiting", "not_expanded", "its batch has not been taken up yet, and no brain runs")
}

/// What the folder alone tells.
pub(super) fn by_its_folder(name: &str, id: &TaskId, located: &Located) -> AboutTask {
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
        ..AboutTask::default()
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
