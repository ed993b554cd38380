//! `gpuspool explain`: what would happen to a task file now, without queueing it.

use std::path::Path;

use clap::Args;
use model::explained::{Explained, Fate};
use model::request::{ExpectedIn, Request, Verb};
use model::task::{TaskRecord, Work};
use model::{Task, TaskClass};
use spool::ledger::{Ledger, Submission, SubmitError};
use spool::settings::Settings;

use super::check::{summary, task_in};
use super::submit::not_queued;
use crate::ask;
use crate::brain::{Presence, presence};
use crate::console::Console;
use crate::document;
use crate::failure::{Failure, exit};
use crate::words::duration;

/// Options of `explain`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A task file, or the JSON itself; `-` is standard input.
    #[arg(value_name = "FILE|JSON")]
    task: String,
}

pub(crate) fn run(options: &Options, settings: &Settings, console: &mut Console<'_>) -> Result<u8, Failure> {
    let given = document::given(&options.task, "task", settings.config.limits.task_bytes_max)?;
    let (record, task) = task_in(given.file.unwrap_or_default(), &given.bytes, Some(settings))
        .map_err(|fault| document::failure(&given.name, &given.bytes, &fault))?;
    if let Some(taken) = taken_id(given.file, &record, &task, settings) {
        return Err(taken);
    }
    let runs = matches!(presence(&settings.layout), Presence::Runs { .. });
    let explained = if runs { Some(ask_brain(&record, &task, settings)?) } else { None };
    if console.json {
        console.say_json(&serde_json::json!({
            "file": given.name, "class": task.class(), "task_type": task.task_type, "job_type": task.job_type,
            "priority": task.priority, "warnings": task.warnings, "brain_running": runs, "explained": explained,
        }))?;
    } else {
        console.say(&format!("{}: {}", given.name, summary(&task)))?;
        for warning in &task.warnings {
            console.say(&format!("    warning: {warning}"))?;
        }
        let lines = explained.as_ref().map_or_else(|| without_a_brain(&task), lines);
        for line in lines {
            console.say(&format!("    {line}"))?;
        }
    }
    let runs_here = explained.is_none_or(|told| matches!(told.fate, Fate::Starts | Fate::Waits));
    Ok(if runs_here { exit::OK } else { exit::NOT_ALL })
}

/// The failure of a task that demands the id of another one, in the words of `submit`: it would be rejected.
fn taken_id(file: Option<&str>, record: &TaskRecord, task: &Task, settings: &Settings) -> Option<Failure> {
    let id = record.task_id.clone()?;
    let body = TaskRecord { priority: Some(task.priority), ..record.clone() };
    let (class, priority) = (task.class(), task.priority);
    let submission = Submission { class, priority, stem: id, demand: true, body: Box::new(body) };
    let error = Ledger::new(settings.layout.clone(), settings.config.durability).admits(&submission).err()?;
    if let SubmitError::Exists { place, .. } = &error
        && place.parent() == Some(&settings.layout.queue(class, priority))
        && file.is_some_and(|file| is_same_file(Path::new(file), place))
    {
        return None; // it is asked about where it waits
    }
    let code = match error {
        SubmitError::Exists { .. } => exit::DATA,
        _ => error.exit_code(),
    };
    Some(Failure { code, ..not_queued(&submission, &error) })
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

fn ask_brain(record: &TaskRecord, task: &Task, settings: &Settings) -> Result<Explained, Failure> {
    let asked = Some(Box::new(in_short(record, task)));
    let request = Request { task: asked, ..ask::request(Verb::Explain, &[]) };
    let answer = ask::answered(settings, &request)?;
    answer.explained.map(|explained| *explained).ok_or_else(|| {
        Failure::new(exit::DATA, format!("the brain would reject it: {}", answer.message))
            .next("it reads another configuration than this command: `--config` names one")
    })
}

/// The task without what may be long and does not matter to where and when it runs.
fn in_short(record: &TaskRecord, task: &Task) -> TaskRecord {
    let (prompt, script, model) = match &task.work {
        Work::Llm(work) => (Some("…".to_owned()), None, work.model.clone()),
        Work::Script(work) => (None, record.script.clone(), work.model.clone()),
    };
    TaskRecord {
        task_class: Some(task.class()),
        task_type: Some(task.task_type),
        job_type: Some(task.job_type.clone()),
        prompt,
        script,
        model,
        priority: Some(task.priority),
        gpu_requirement: record.gpu_requirement.clone(),
        vram_mib: record.vram_mib,
        min_compute_capability: record.min_compute_capability.clone(),
        gpus: record.gpus,
        estimated_duration_sec: record.estimated_duration_sec,
        media_s: record.media_s,
        not_before: record.not_before,
        batch_id: record.batch_id.clone(),
        ..TaskRecord::default()
    }
}

fn without_a_brain(task: &Task) -> Vec<String> {
    vec![format!(
        "no brain runs, so it would wait in {}_queue/priority_{}; `gpuspool up` starts the work, and then this says where and when",
        task.class(),
        task.priority
    )]
}

fn lines(told: &Explained) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(expected) = &told.expected {
        lines.push(times(expected, told.place()));
    }
    if let (Some(here), Some(place)) = (&told.here, told.place()) {
        lines.push(format!("{place}, because {here}"));
    }
    if let (TaskClass::Llm, Some(model)) = (told.class, &told.model) {
        lines.push(format!("answered by {model}"));
    }
    let reason = told.reason.as_ref().map_or("", |reason| reason.text.as_str());
    match told.fate {
        Fate::Starts => {}
        Fate::Waits => lines.push(format!("would wait: {reason}")),
        Fate::CannotRun => lines.push(format!("could not run here as things are, and would wait: {reason}")),
        Fate::Refused => lines.push(format!("would fail at once: {reason}")),
    }
    if let Some(ends_in_s) = told.held_by.as_ref().and_then(|held| held.ends_in_s) {
        lines.push(format!("that batch is expected to be over in {}", duration(ends_in_s)));
    }
    lines.extend(told.effects.iter().map(|effect| format!("makes room: {effect}")));
    lines
}

fn times(expected: &ExpectedIn, place: Option<String>) -> String {
    let place = match place {
        Some(gpus) => format!(" on {gpus}"),
        None if expected.place.as_deref() == Some("cpu") => " in the CPU lane".to_owned(),
        None => String::new(),
    };
    let start = match expected.starts_in_s {
        s if s < 1.0 => "at once".to_owned(),
        s => format!("in {}", duration(s)),
    };
    let late = match expected.ends_in_p90_s {
        s if s > expected.ends_in_s + 1.0 => format!(" (9 times of 10 within {})", duration(s)),
        _ => String::new(),
    };
    format!("would start {start}{place} and end in {}{late}", duration(expected.ends_in_s))
}
