//! `gpuspool check`: what would be said of a file, without queueing anything.

use std::ffi::OsStr;
use std::path::Path;

use clap::{Args, ValueEnum};
use model::batch::{Manifest, ManifestLine};
use model::config::Config;
use model::json::read_object;
use model::schema::keys;
use model::task::TaskRecord;
use model::validate::{Folder, TASK_KEYS};
use model::{Code, Fault, Task, TaskClass, TaskId};
use serde::Serialize;
use serde_json::{Map, Value};
use spool::intake::Intake;
use spool::layout::{JSON, MANIFEST, priority_of_folder};
use spool::settings::Settings;

use crate::command::GpuSpool;
use crate::console::Console;
use crate::document;
use crate::failure::{Failure, exit};
use crate::guess::{class_of, priority_of};
use crate::words::count;

/// Configurations and manifests beyond this are none; in bytes.
const DOCUMENT_BYTES_MAX: u64 = 256 << 20;

/// Options of `check`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Files; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// What they are [default: told by name and content].
    #[arg(long, value_enum)]
    kind: Option<Kind>,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Task,
    Config,
    Manifest,
}

/// What is said of one file.
#[derive(Debug, Serialize)]
struct Told {
    file: String,
    kind: Kind,
    valid: bool,
    summary: String,
    fault: Option<Fault>,
    warnings: Vec<String>,
}

/// What a valid document is, in a few words, and what was odd about it.
type Valid = (String, Vec<String>);

pub(crate) fn run(options: &Options, asked: &GpuSpool, console: &mut Console<'_>) -> Result<u8, Failure> {
    // Tasks are checked against the configuration in force; one that is broken itself is no reason not to look.
    let settings = Settings::find(asked.spool.as_deref(), asked.config.as_deref());
    if let Err(error) = &settings {
        console.note(&format!("warning: tasks are checked against the built-in configuration: {error}"));
    }
    let settings = settings.ok();
    let mut all = Vec::new();
    for file in &options.files {
        let bytes = document::read(file, DOCUMENT_BYTES_MAX)?;
        let kind = options.kind.unwrap_or_else(|| kind_of(file, &bytes));
        let result = match kind {
            Kind::Task => check_task(file, &bytes, settings.as_ref()),
            Kind::Config => check_config(file, &bytes),
            Kind::Manifest => check_manifest(&bytes),
        };
        let told = match result {
            Ok((summary, warnings)) => {
                Told { file: file.clone(), kind, valid: true, summary, fault: None, warnings }
            }
            Err(fault) => {
                let summary = document::told(file, &bytes, &fault);
                Told {
                    file: file.clone(),
                    kind,
                    valid: false,
                    summary,
                    fault: Some(fault),
                    warnings: Vec::new(),
                }
            }
        };
        if !console.json {
            tell(&told, console)?;
        }
        all.push(told);
    }
    if console.json {
        console.say_json(&all)?;
    }
    Ok(if all.iter().all(|told| told.valid) { exit::OK } else { exit::DATA })
}

fn tell(told: &Told, console: &mut Console<'_>) -> Result<(), Failure> {
    if told.valid {
        console.say(&format!("{}: {}", told.file, told.summary))?;
    } else {
        console.say(&told.summary)?;
    }
    if let Some(step) = told.fault.as_ref().and_then(|fault| fault.next_step.as_ref()) {
        console.say(&format!("    next: {step}"))?;
    }
    for warning in &told.warnings {
        console.say(&format!("    warning: {warning}"))?;
    }
    Ok(())
}

fn kind_of(file: &str, bytes: &[u8]) -> Kind {
    if file.ends_with(MANIFEST) {
        return Kind::Manifest;
    }
    let named = Path::new(file).file_name() == Some(OsStr::new("config.json"));
    let said: Map<String, Value> = serde_json::from_slice(bytes).unwrap_or_default();
    if named || is_config(&said) { Kind::Config } else { Kind::Task }
}

/// Whether these are rather the keys of a configuration than those of a task.
fn is_config(said: &Map<String, Value>) -> bool {
    let schemas = model::schema::all();
    let keys_of = |document: &str| -> Vec<&str> {
        schemas.iter().filter(|(name, _)| *name == document).flat_map(|(_, schema)| keys(schema)).collect()
    };
    let (of_config, of_task) = (keys_of("config"), keys_of("task"));
    let only = |these: &[&str], those: &[&str]| {
        said.keys().filter(|key| these.contains(&key.as_str()) && !those.contains(&key.as_str())).count()
    };
    match (only(&of_config, &of_task), only(&of_task, &of_config)) {
        // Some keys are of both, and no task is made of those alone.
        (0, 0) => !said.is_empty() && said.keys().all(|key| of_config.contains(&key.as_str())),
        (config, task) => config > 0 && config >= task,
    }
}

fn check_task(file: &str, bytes: &[u8], settings: Option<&Settings>) -> Result<Valid, Fault> {
    let (_, task) = task_in(file, bytes, settings)?;
    Ok((summary(&task), task.warnings))
}

/// A valid task in a few words.
pub(super) fn summary(task: &Task) -> String {
    format!(
        "a valid {} task (type `{}`, job type `{}`, priority {})",
        task.class(),
        task.task_type.name(),
        task.job_type,
        task.priority
    )
}

/// A task file as it was written and as it would be accepted.
pub(super) fn task_in(
    file: &str,
    bytes: &[u8],
    settings: Option<&Settings>,
) -> Result<(TaskRecord, Task), Fault> {
    let built_in = Config::default();
    let config = settings.map_or(&built_in, |settings| &settings.config);
    let limit = config.limits.task_bytes_max;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        return Err(Fault::new(Code::TooLarge, format!("larger than {limit} bytes"))
            .next("put long input into a file and name it under `input`"));
    }
    let record = read_object::<TaskRecord>(bytes, TASK_KEYS)?.value;
    let (folder_class, folder_priority) = folders_of(Path::new(file));
    let Some(class) = folder_class.or_else(|| class_of(&record)) else {
        return Err(Fault::new(
            Code::MissingField,
            "nothing in it tells whether it is for an LLM or a script",
        )
        .next("give `prompt`, `messages` or `script`"));
    };
    let stem = Path::new(file).file_name().and_then(OsStr::to_str).unwrap_or_default();
    let fresh = TaskId::new("fresh").map_err(|error| Fault::new(Code::BadTaskId, error.to_string()))?;
    let priority = folder_priority.unwrap_or_else(|| priority_of(&record));
    let folder = Folder { class, priority, stem: stem.strip_suffix(JSON).unwrap_or(stem), fresh: &fresh };
    let owner = settings.and_then(Settings::config_owner);
    let task = Intake::new(config).config_owner(owner).judged(bytes, &folder)?;
    Ok((record, task))
}

/// What the folders a file lies in say of it, where they are those of a queue.
fn folders_of(file: &Path) -> (Option<TaskClass>, Option<model::Priority>) {
    let name =
        |path: Option<&Path>| path.and_then(Path::file_name).and_then(OsStr::to_str).map(str::to_owned);
    let parent = file.parent();
    let priority = name(parent).and_then(|name| priority_of_folder(&name));
    let queue = name(parent.and_then(Path::parent));
    let class = TaskClass::ALL.into_iter().find(|class| queue == Some(format!("{class}_queue")));
    (class, priority)
}

fn check_config(file: &str, bytes: &[u8]) -> Result<Valid, Fault> {
    let folder = Path::new(file).parent().unwrap_or(Path::new("."));
    let read = Config::parse(bytes, folder)?;
    let config = &read.value;
    let summary = format!(
        "a valid configuration ({}, {}, {})",
        count(config.models.len(), "model"),
        count(config.scripts.len(), "script"),
        count(config.engines.len(), "engine"),
    );
    Ok((summary, read.warnings))
}

fn check_manifest(bytes: &[u8]) -> Result<Valid, Fault> {
    let text =
        std::str::from_utf8(bytes).map_err(|_| Fault::new(Code::NotUtf8, "the bytes are not UTF-8"))?;
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        serde_json::from_str::<ManifestLine>(line).map_err(|error| {
            let message = error.to_string();
            let message = message.rfind(" at line ").map_or(message.as_str(), |end| &message[..end]);
            Fault::new(Code::InvalidJson, message).at(index + 1, error.column())
        })?;
    }
    let Some(manifest) = Manifest::parse(text) else {
        return Err(Fault::new(
            Code::IncompleteJson,
            "its lines are not one batch, its items, and their end",
        )
        .next("a manifest without its `end` line was never accepted: submit the batch again"));
    };
    if manifest.items.is_empty() {
        return Err(Fault::new(Code::EmptyBatch, "a batch needs at least one item"));
    }
    let summary = format!(
        "a valid manifest of batch `{}` ({})",
        manifest.header.batch_id,
        count(manifest.items.len(), "item")
    );
    Ok((summary, Vec::new()))
}
