//! From what a person dropped to a task that can run, or to one sentence that says why it cannot.
//!
//! Not here: anything that needs the disk (whether a script file exists and who may write it: `spool`) or the
//! present state of the machine (whether a GPU is there: `policy`).

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::config::Config;
use crate::fault::{Code, Fault, did_you_mean};
use crate::id::{GpuUuid, TaskId};
use crate::json::{Read, read_object};
use crate::kind::{Priority, Status, TaskClass, TaskType};
use crate::task::{
    ComputeCapability, GpuRequirement, IdClaim, LlmWork, Needs, PastAttempt, Script, ScriptWork, Task,
    TaskRecord, Work,
};

/// Longest run time or time limit anybody can mean: ten years, in seconds.
const SECONDS_MAX: f64 = 315_360_000.0;

/// Top-level keys of a task file, for suggestions.
pub const TASK_KEYS: &[&str] = &[
    "schema_version",
    "task_id",
    "task_class",
    "task_type",
    "job_type",
    "prompt",
    "messages",
    "options",
    "script",
    "script_args",
    "model",
    "input",
    "output_dir",
    "priority",
    "gpu_requirement",
    "vram_mib",
    "min_compute_capability",
    "gpus",
    "estimated_duration_sec",
    "media_s",
    "timeout_s",
    "max_attempts",
    "not_before",
    "batch_id",
    "on_complete",
    "status",
    "assigned_gpu",
    "assigned_gpu_uuid",
    "attempt",
    "charged",
    "created_at",
    "started_at",
    "completed_at",
    "history",
    "result",
    "error",
    "warnings",
];

/// What the place of a file says about the task in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder<'a> {
    /// Class of the queue.
    pub class: TaskClass,
    /// Priority of the folder.
    pub priority: Priority,
    /// The file's name without `.json`, a wish for an id; `fresh` is taken where it is no legal one.
    pub stem: &'a str,
    /// A new id for a file whose name is none.
    pub fresh: &'a TaskId,
}

/// Reads and validates a task file.
///
/// # Errors
/// The first [`Fault`] found.
pub fn task_of(bytes: &[u8], folder: &Folder<'_>, config: &Config) -> Result<Task, Fault> {
    let Read { value, mut warnings } = read_object::<TaskRecord>(bytes, TASK_KEYS)?;
    if config.strict
        && let Some(warning) = warnings.iter().find(|text| text.starts_with("unknown field"))
    {
        return Err(
            Fault::new(Code::UnknownField, warning.clone()).next("remove it, or set `strict` to false")
        );
    }
    let mut task = validate(value, folder, config)?;
    warnings.append(&mut task.warnings);
    task.warnings = warnings;
    Ok(task)
}

/// Makes a task of a record that lies in `folder`.
///
/// # Errors
/// The first [`Fault`] found.
pub fn validate(record: TaskRecord, folder: &Folder<'_>, config: &Config) -> Result<Task, Fault> {
    let mut warnings = Vec::new();
    check_class(&record, folder)?;
    if record.env.is_some() {
        return Err(Fault::new(Code::EnvNotAllowed, "a task may not set environment variables")
            .in_field("env")
            .next("name the variable under `scripts.<name>.env` in config.json"));
    }
    let task_type = record.task_type.unwrap_or(TaskType::default_of(folder.class));
    if record.priority.is_some_and(|stated| stated != folder.priority) {
        warnings.push(format!("`priority` differs from the folder; the folder's {} holds", folder.priority));
    }
    let (task_id, id_is) = match &record.task_id {
        Some(id) => (id.clone(), IdClaim::Demand),
        None => (TaskId::new(folder.stem).unwrap_or_else(|_| folder.fresh.clone()), IdClaim::Wish),
    };
    let past = past_of(&record, &mut warnings);
    Ok(Task {
        task_id,
        id_is,
        task_type,
        job_type: record.job_type.clone().unwrap_or_else(|| task_type.default_job_type().to_owned()),
        priority: folder.priority,
        gpu: gpu_of(&record, config, folder.class)?,
        needs: needs_of(&record)?,
        estimated_duration_sec: seconds(record.estimated_duration_sec, "estimated_duration_sec", true)?,
        media_s: seconds(record.media_s, "media_s", true)?,
        timeout_s: seconds(record.timeout_s, "timeout_s", false)?,
        max_attempts: attempts_of(&record, config)?,
        not_before: if past.keeps_back_off || past.history.is_empty() { record.not_before } else { None },
        batch_id: record.batch_id.clone(),
        on_complete: on_complete_of(&record, config)?,
        attempt: past.attempt,
        charged: past.charged,
        created_at: record.created_at,
        checkpoint: past.checkpoint,
        history: past.history,
        work: match folder.class {
            TaskClass::Llm => Work::Llm(llm_of(record)?),
            TaskClass::Script => Work::Script(script_of(record, config)?),
        },
        warnings,
    })
}

fn check_class(record: &TaskRecord, folder: &Folder<'_>) -> Result<(), Fault> {
    let right = |class: TaskClass| format!("put it into `{class}_queue/priority_{}/`", folder.priority);
    if let Some(stated) = record.task_class
        && stated != folder.class
    {
        return Err(Fault::new(
            Code::WrongQueue,
            format!("a task of class `{stated}` lies in `{}_queue`", folder.class),
        )
        .in_field("task_class")
        .next(right(stated)));
    }
    if record.task_class.is_none() {
        let other = match folder.class {
            TaskClass::Llm if record.script.is_some() && no_question(record) => Some(TaskClass::Script),
            TaskClass::Script if record.script.is_none() && !no_question(record) => Some(TaskClass::Llm),
            _ => None,
        };
        if let Some(other) = other {
            let message =
                format!("this looks like a task of class `{other}`, and lies in `{}_queue`", folder.class);
            return Err(Fault::new(Code::WrongQueue, message).next(right(other)));
        }
    }
    if let Some(kind) = record.task_type
        && kind.class() != folder.class
    {
        let names: Vec<&str> = TaskType::ALL
            .into_iter()
            .filter(|kind| kind.class() == folder.class)
            .map(TaskType::name)
            .collect();
        return Err(Fault::new(
            Code::BadEnum,
            format!("`{}` is not a type of class `{}`", kind.name(), folder.class),
        )
        .in_field("task_type")
        .next(format!("use one of {}", names.join(", "))));
    }
    Ok(())
}

fn no_question(record: &TaskRecord) -> bool {
    record.prompt.is_none() && record.messages.is_none()
}

fn llm_of(record: TaskRecord) -> Result<LlmWork, Fault> {
    let messages = record.messages.unwrap_or_default();
    let empty = record.prompt.as_deref().is_none_or(|text| text.trim().is_empty());
    if empty && messages.is_empty() && record.input.is_none() {
        return Err(Fault::new(Code::MissingField, "there is nothing to ask")
            .in_field("prompt")
            .next("give `prompt`, `messages` or `input`"));
    }
    let options = record.options.unwrap_or_default();
    for key in ["messages", "model", "stream"] {
        if options.contains_key(key) {
            return Err(Fault::new(
                Code::OutOfRange,
                format!("`{key}` is not the task's to set among its options"),
            )
            .in_field(format!("options.{key}"))
            .next("use the task's own fields"));
        }
    }
    Ok(LlmWork { prompt: record.prompt, messages, input: record.input, options, model: record.model })
}

fn script_of(record: TaskRecord, config: &Config) -> Result<ScriptWork, Fault> {
    let Some(name) = record.script else {
        return Err(Fault::new(Code::MissingField, "a script task names its script")
            .in_field("script")
            .next(format!("registered are: {}", config.script_names())));
    };
    let script = find_script(&name, config)?;
    let mut args = record.script_args.unwrap_or_default();
    for (key, value) in
        [("input", &record.input), ("output_dir", &record.output_dir), ("model", &record.model)]
    {
        if let Some(value) = value {
            args.entry(key).or_insert_with(|| Value::String(value.clone()));
        }
    }
    let text = |key: &str| args.get(key).and_then(Value::as_str).map(str::to_owned);
    Ok(ScriptWork {
        script,
        model: text("model"),
        input: text("input"),
        output_dir: text("output_dir"),
        args,
    })
}

/// A registered name, or a path that by its letters lies inside a directory of `script_dirs`; in which of them a relative
/// one lies is seen by whoever sees files.
fn find_script(name: &str, config: &Config) -> Result<Script, Fault> {
    if config.scripts.contains_key(name) {
        return Ok(Script::Registered(name.to_owned()));
    }
    let path = Path::new(name);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_) | Component::RootDir));
    let is_file = |dir: &PathBuf| match path.is_absolute() {
        true => path.starts_with(dir) && path != dir.as_path(),
        false => path.extension().is_some() || name.contains('/'),
    };
    if plain && config.script_dirs.iter().any(is_file) {
        return Ok(Script::File(path.to_owned()));
    }
    let meant = did_you_mean(name, config.scripts.keys().map(String::as_str))
        .map(|meant| format!("did you mean `{meant}`? "))
        .unwrap_or_default();
    let shown = name.escape_debug();
    Err(Fault::new(Code::UnknownScript, format!("no script is called `{shown}`")).in_field("script").next(format!(
        "{meant}registered are: {}; register it with `\"scripts\": {{\"NAME\": {{\"path\": \"{shown}\"}}}}` in config.json",
        config.script_names()
    )))
}

fn gpu_of(record: &TaskRecord, config: &Config, class: TaskClass) -> Result<GpuRequirement, Fault> {
    let registered = record.script.as_ref().and_then(|name| config.scripts.get(name));
    let stated = match record.gpu_requirement.as_deref() {
        None => match registered {
            Some(entry) if class == TaskClass::Script && !entry.gpu.needs_gpu() => {
                return Ok(GpuRequirement::None);
            }
            _ => return Ok(GpuRequirement::Any),
        },
        Some(text) => text.trim(),
    };
    match stated {
        "any" | "" => Ok(GpuRequirement::Any),
        "none" if class == TaskClass::Llm => {
            Err(Fault::new(Code::BadEnum, "an LLM task runs on the GPU its engine is on")
                .in_field("gpu_requirement")
                .next("use `any`, a key of `gpus` in gpu_state.json, or a GPU uuid"))
        }
        "none" => Ok(GpuRequirement::None),
        key if key.bytes().all(|b| b.is_ascii_digit()) => Ok(GpuRequirement::Key(key.to_owned())),
        uuid => GpuUuid::new(uuid).map(GpuRequirement::Uuid).map_err(|error| {
            Fault::new(Code::BadEnum, error.to_string())
                .in_field("gpu_requirement")
                .next("use `any`, `none`, a key of `gpus` in gpu_state.json, or a GPU uuid")
        }),
    }
}

fn needs_of(record: &TaskRecord) -> Result<Needs, Fault> {
    let min_compute_capability = match record.min_compute_capability.as_deref() {
        None => None,
        Some(text) => Some(ComputeCapability::parse(text).ok_or_else(|| {
            Fault::new(Code::BadNumber, format!("`{}` is not a compute capability", text.escape_debug()))
                .in_field("min_compute_capability")
                .next("write it like `8.6`")
        })?),
    };
    let gpus = record.gpus.unwrap_or(1);
    if !(1..=64).contains(&gpus) {
        return Err(Fault::new(Code::OutOfRange, format!("{gpus} is not within 1 to 64")).in_field("gpus"));
    }
    Ok(Needs { vram_mib: record.vram_mib, min_compute_capability, gpus })
}

fn seconds(value: Option<f64>, field: &str, zero: bool) -> Result<Option<f64>, Fault> {
    match value {
        Some(s) if !(0.0..=SECONDS_MAX).contains(&s) || (!zero && s == 0.0) => {
            Err(Fault::new(Code::BadNumber, format!("{s} seconds is not a usable time"))
                .in_field(field)
                .next("give seconds, more than 0 and less than ten years"))
        }
        other => Ok(other),
    }
}

fn attempts_of(record: &TaskRecord, config: &Config) -> Result<u32, Fault> {
    let wanted = record.max_attempts.unwrap_or(config.retry.max_attempts);
    if (1..=100).contains(&wanted) {
        Ok(wanted)
    } else {
        Err(Fault::new(Code::OutOfRange, format!("{wanted} is not within 1 to 100")).in_field("max_attempts"))
    }
}

fn on_complete_of(record: &TaskRecord, config: &Config) -> Result<Option<String>, Fault> {
    let Some(target) = &record.on_complete else { return Ok(None) };
    if target.starts_with("http://") || config.on_complete.contains_key(target) {
        return Ok(Some(target.clone()));
    }
    let known: Vec<&str> = config.on_complete.keys().map(String::as_str).collect();
    Err(Fault::new(Code::BadEnum, "it is neither a registered command nor an `http://` address")
        .in_field("on_complete")
        .next(format!("registered under `on_complete` in config.json are: {}", known.join(", "))))
}

struct Past {
    attempt: u32,
    charged: u32,
    history: Vec<PastAttempt>,
    checkpoint: Option<serde_json::Value>,
    keeps_back_off: bool,
}

/// An ended record that lies in a queue is a retry; a queued one with a history is ours; anything else has no past.
fn past_of(record: &TaskRecord, warnings: &mut Vec<String>) -> Past {
    let attempt = record.attempt.unwrap_or(0);
    let mut history = record.history.clone();
    match record.status {
        Some(was @ (Status::Complete | Status::Failed)) => {
            history.push(PastAttempt {
                attempt,
                worker: None,
                gpu: record.assigned_gpu.clone(),
                started_at: record.started_at,
                ended_at: record.completed_at,
                charged: false,
                error: record.error.clone(),
                was: Some(was),
            });
            // What is complete starts over; what failed goes on from where it was.
            let checkpoint = record.checkpoint.clone().filter(|_| was == Status::Failed);
            Past { attempt, charged: 0, history, checkpoint, keeps_back_off: false }
        }
        Some(Status::Queued) if !history.is_empty() => {
            let charged = record.charged.unwrap_or(attempt);
            Past { attempt, charged, history, checkpoint: record.checkpoint.clone(), keeps_back_off: true }
        }
        _ => {
            for (field, there) in [
                ("attempt", record.attempt.is_some_and(|n| n > 0)),
                ("charged", record.charged.is_some_and(|n| n > 0)),
                ("history", !record.history.is_empty()),
                ("checkpoint", record.checkpoint.is_some()),
                ("result", record.result.is_some()),
                ("error", record.error.is_some()),
            ] {
                if there {
                    warnings.push(format!("`{field}` is not a new task's to say, and is ignored"));
                }
            }
            Past { attempt: 0, charged: 0, history: Vec::new(), checkpoint: None, keeps_back_off: true }
        }
    }
}
