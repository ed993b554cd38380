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
use crate::document::{self, Given};
use crate::failure::{Failure, exit};
use crate::guess::{class_of, priority_of};

/// Options of `submit`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["tasks", "prompt"])))]
pub(crate) struct Options {
    /// Task files of one JSON object each, or the JSON itself; `-` is standard input. Nothing is queued unless all are
    /// valid.
    #[arg(value_name = "FILE|JSON")]
    tasks: Vec<String>,
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
    for (index, task) in options.tasks.iter().enumerate() {
        let name = if options.tasks.len() == 1 { "task".to_owned() } else { format!("task {}", index + 1) };
        let given = document::given(task, &name, settings.config.limits.task_bytes_max)?;
        submissions.push(submission(&given, options, &settings, console)?);
    }
    if let Some(prompt) = &options.prompt {
        let record = TaskRecord { prompt: Some(prompt.clone()), ..TaskRecord::default() };
        let bytes = serde_json::to_vec(&record).map_err(std::io::Error::from)?;
        let given = Given { name: "--prompt".to_owned(), file: None, bytes };
        submissions.push(submission(&given, options, &settings, console)?);
    }
    settings.prepare()?;
    let mut ledger = Ledger::new(settings.layout.clone(), settings.config.durability);
    // Everything is valid, or nothing has been queued.
    if let Some(taken) = taken_id(&submissions, &ledger) {
        return Err(taken);
    }
    let answers = ledger.submit(&submissions);
    let alive = presence(&settings.layout) != Presence::Absent;
    let mut told = Vec::new();
    let mut failures = Vec::new();
    for (submission, answer) in submissions.iter().zip(answers) {
        match answer {
            Ok(id) if console.json => told.push(serde_json::json!({
                "task_id": id, "task_class": submission.class, "priority": submission.priority,
            })),
            Ok(id) => console.say(id.as_str())?,
            Err(error) => failures.push(not_queued(submission, &error)),
        }
    }
    if console.json {
        console.say_json(&serde_json::json!({ "submitted": told, "brain_running": alive }))?;
    }
    let Some(last) = failures.pop() else {
        if !alive {
            console.note("queued, brain not running; `gpuspool up` starts the work");
        }
        return Ok(exit::OK);
    };
    for failure in &failures {
        console.fail(failure);
    }
    Err(last)
}

/// One document as a task that would be accepted.
fn submission(
    given: &Given<'_>,
    options: &Options,
    settings: &Settings,
    console: &mut Console<'_>,
) -> Result<Submission, Failure> {
    let bytes = given.bytes.as_slice();
    let wrong = |fault: Fault| document::failure(&given.name, bytes, &fault);
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
    let stem = given.file.and_then(|file| Path::new(file).file_stem()?.to_str());
    let wish = stem.and_then(|stem| TaskId::new(stem).ok()).unwrap_or_else(|| fresh.clone());
    // Checked as it was written first, so that what is said of it points into the file.
    let folder = Folder { class, priority: priority_of(&record), stem: wish.as_str(), fresh: &fresh };
    let task = task_of(bytes, &folder, &settings.config).map_err(wrong)?;
    for warning in &task.warnings {
        console.note(&format!("warning: {}: {warning}", given.name));
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

/// The failure of the first task that demands the id of another one. One that was submitted before does not: to submit
/// it again is harmless, and no reason to leave the others out.
fn taken_id(submissions: &[Submission], ledger: &Ledger) -> Option<Failure> {
    submissions.iter().enumerate().filter(|(_, task)| task.demand).find_map(|(index, task)| {
        let rival = |other: &&Submission| {
            let (mine, its) =
                ((task.class, task.priority, &task.body), (other.class, other.priority, &other.body));
            other.demand && other.stem == task.stem && mine != its
        };
        if submissions[..index].iter().any(|other| rival(&other)) {
            let message = format!("two of these tasks demand the id `{}`", task.stem);
            return Some(
                Failure::new(exit::DATA, message).next("leave `task_id` out, or choose another one"),
            );
        }
        match ledger.admits(task) {
            Err(error @ SubmitError::Exists { same: false, .. }) => Some(not_queued(task, &error)),
            _ => None,
        }
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

pub(super) fn not_queued(submission: &Submission, error: &SubmitError) -> Failure {
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
