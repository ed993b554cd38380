//! `gpuspool submit`: tasks into their queues, durably, whether or not anything runs.

use std::path::Path;

use clap::builder::PossibleValuesParser;
use clap::{Args, builder::TypedValueParser};
use model::json::read_object;
use model::task::TaskRecord;
use model::validate::{Folder, TASK_KEYS, task_of};
use model::{Code, Fault, Priority, TaskClass, TaskId};
use spool::clock;
use spool::ledger::{Ledger, Submission, SubmitError};
use spool::settings::Settings;
use uuid::Uuid;

use crate::brain::{Presence, presence};
use crate::console::Console;
use crate::document;
use crate::failure::{Failure, exit};
use crate::guess::{class_of, priority_of};

/// Options of `submit`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["files", "prompt"])))]
pub(crate) struct Options {
    /// Task files, one JSON object each; `-` is standard input.
    #[arg(value_name = "FILE")]
    files: Vec<String>,
    /// Ask an LLM this, without a file.
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// The queue [default: what the task says, else what its fields belong to].
    #[arg(long, value_parser = PossibleValuesParser::new(["llm", "script"]).map(|name| class_named(&name)))]
    class: Option<TaskClass>,
    /// 1 (low) to 5 (urgent) [default: what the task says, else 3].
    #[arg(long, value_parser = parse_priority)]
    priority: Option<Priority>,
    /// The model to use.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
}

fn class_named(name: &str) -> TaskClass {
    if name == "llm" { TaskClass::Llm } else { TaskClass::Script }
}

fn parse_priority(text: &str) -> Result<Priority, String> {
    text.parse().ok().and_then(Priority::new).ok_or_else(|| "use 1 (low) to 5 (urgent)".to_owned())
}

pub(crate) fn run(
    options: &Options,
    mut settings: Settings,
    console: &mut Console<'_>,
) -> Result<u8, Failure> {
    let mut submissions = Vec::new();
    for file in &options.files {
        let bytes = document::read(file, settings.config.limits.task_bytes_max)?;
        submissions.push(submission(file, &bytes, options, &settings, console)?);
    }
    if let Some(prompt) = &options.prompt {
        let record = TaskRecord { prompt: Some(prompt.clone()), ..TaskRecord::default() };
        let bytes = serde_json::to_vec(&record).map_err(std::io::Error::from)?;
        submissions.push(submission("--prompt", &bytes, options, &settings, console)?);
    }
    // Everything is valid, or nothing has been queued.
    settings.prepare()?;
    let mut ledger = Ledger::new(settings.layout.clone(), settings.config.durability);
    let answers = ledger.submit(&submissions);
    let alive = presence(&settings.layout) != Presence::Absent;
    let mut told = Vec::new();
    let mut failure = None;
    for (submission, answer) in submissions.iter().zip(answers) {
        match answer {
            Ok(id) if console.json => told.push(serde_json::json!({
                "task_id": id, "task_class": submission.class, "priority": submission.priority,
            })),
            Ok(id) => console.say(id.as_str())?,
            Err(error) => failure = Some(not_queued(submission, &error)),
        }
    }
    if console.json {
        console.say_json(&serde_json::json!({ "submitted": told, "brain_running": alive }))?;
    }
    match failure {
        Some(failure) => Err(failure),
        None => {
            if !alive {
                console.note("queued, brain not running; `gpuspool up` starts the work");
            }
            Ok(exit::OK)
        }
    }
}

/// One file as a task that would be accepted.
fn submission(
    file: &str,
    bytes: &[u8],
    options: &Options,
    settings: &Settings,
    console: &mut Console<'_>,
) -> Result<Submission, Failure> {
    let wrong = |fault: Fault| document::failure(file, bytes, &fault);
    let limit = settings.config.limits.task_bytes_max;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        return Err(wrong(
            Fault::new(Code::TooLarge, format!("larger than {limit} bytes"))
                .next("put long input into a file and name it under `input`"),
        ));
    }
    let mut record = read_object::<TaskRecord>(bytes, TASK_KEYS).map_err(wrong)?.value;
    let Some(class) = options.class.or_else(|| class_of(&record)) else {
        let fault =
            Fault::new(Code::MissingField, "nothing in it tells whether it is for an LLM or a script");
        return Err(wrong(fault.next("give `prompt`, `messages` or `script`, or say `--class`")));
    };
    let priority = options.priority.unwrap_or_else(|| priority_of(&record));
    let fresh = fresh_id();
    let stem = Path::new(file).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let wish = if file == document::STDIN || file == "--prompt" { None } else { TaskId::new(stem).ok() };
    let wish = wish.unwrap_or_else(|| fresh.clone());
    // Checked as it was written first, so that what is said of it points into the file.
    let folder = Folder { class, priority: priority_of(&record), stem: wish.as_str(), fresh: &fresh };
    let task = task_of(bytes, &folder, &settings.config).map_err(wrong)?;
    for warning in &task.warnings {
        let named = if file == document::STDIN { "standard input" } else { file };
        console.note(&format!("warning: {named}: {warning}"));
    }
    record.priority = Some(priority);
    if record.task_id.is_none() {
        // A demanded id may be submitted again and again, and is one task only while its content is the same.
        record.created_at = record.created_at.or_else(|| Some(clock::wall()));
    }
    if options.model.is_some() {
        record.model.clone_from(&options.model);
    }
    let demand = record.task_id.is_some();
    Ok(Submission {
        class,
        priority,
        stem: record.task_id.clone().unwrap_or(wish),
        demand,
        body: Box::new(record),
    })
}

fn fresh_id() -> TaskId {
    loop {
        // A UUID is letters, digits and dashes; the loop is there for the type alone.
        if let Ok(id) = TaskId::new(Uuid::now_v7().to_string()) {
            return id;
        }
    }
}

fn not_queued(submission: &Submission, error: &SubmitError) -> Failure {
    let id = &submission.stem;
    match error {
        SubmitError::Exists { same: true, .. } => {
            Failure::new(exit::NOT_ALL, format!("not queued again: {error}, with the same content"))
                .next(format!("`gpuspool result {id}` shows what came of it"))
        }
        SubmitError::Exists { .. } => Failure::new(exit::NOT_ALL, format!("not queued: {error}"))
            .next("leave `task_id` out, or choose another one"),
        SubmitError::NoRoom { .. } => {
            Failure::new(exit::TRY_AGAIN, format!("`{id}` was not queued: {error}"))
                .next("free some space, or run `gpuspool clean`")
        }
        SubmitError::Io(error) => Failure::io(format_args!("queue `{id}`"), error),
    }
}
