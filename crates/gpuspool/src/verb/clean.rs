//! `gpuspool clean`: finished records and logs that nobody needs any more.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};
use model::BatchId;
use model::batch::BatchStatus;
use serde::Serialize;
use spool::atomic::Folder;
use spool::layout::{JSON, task_file, task_of_file};
use spool::settings::Settings;

use crate::console::Console;
use crate::failure::{Failure, exit};
use crate::locate;
use crate::words::{bytes, count, duration, parse_duration};

/// Options of `clean`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only what has not changed for this long, such as 12h, 7d or 0s.
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = parse_duration)]
    older_than: Duration,
    /// What to remove.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "complete,failed,rejected,logs")]
    what: Vec<What>,
    /// Only say what would be removed.
    #[arg(long)]
    dry_run: bool,
}

/// What can be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum What {
    /// Records of tasks that completed.
    Complete,
    /// Records of tasks that failed.
    Failed,
    /// Drops that never were tasks, with their reasons.
    Rejected,
    /// Logs of attempts and engines.
    Logs,
}

impl What {
    const fn noun(self) -> &'static str {
        match self {
            Self::Complete => "complete record",
            Self::Failed => "failed record",
            Self::Rejected => "rejected file",
            Self::Logs => "log",
        }
    }
}

/// What was removed, or would be.
#[derive(Debug, Serialize)]
struct Removed {
    what: What,
    files: usize,
    bytes: u64,
}

pub(crate) fn run(options: &Options, settings: &Settings, console: &mut Console<'_>) -> Result<u8, Failure> {
    let live = live_batches(settings)?;
    let mut all = Vec::new();
    for what in &options.what {
        all.push(clean(*what, options, settings, &live)?);
    }
    if console.json {
        console.say_json(&serde_json::json!({ "dry_run": options.dry_run, "removed": all }))?;
        return Ok(exit::OK);
    }
    let verb = if options.dry_run { "would remove" } else { "removed" };
    let age = duration(options.older_than.as_secs_f64());
    for one in &all {
        console.say(&format!(
            "{verb} {} older than {age} ({})",
            count(one.files, one.what.noun()),
            bytes(one.bytes)
        ))?;
    }
    Ok(exit::OK)
}

/// Batches whose items are still counted: an item whose record vanishes would be run again.
fn live_batches(settings: &Settings) -> Result<Vec<BatchId>, Failure> {
    let root = settings.layout.root();
    if !root.is_dir() {
        return Err(Failure::new(exit::NO_INPUT, format!("there is no spool at {}", root.display()))
            .next("name it with `--spool DIR` or in GPUSPOOL_SPOOL"));
    }
    let failed =
        |error: std::io::Error| Failure::io(format_args!("read the batches of {}", root.display()), &error);
    let batches = locate::batches(settings);
    let mut live = Vec::new();
    for id in batches.list().map_err(failed)? {
        let ended = batches.record(&id).map_err(failed)?.is_some_and(|record| {
            matches!(record.status, BatchStatus::Complete | BatchStatus::CompleteWithFailures)
        });
        if !ended {
            live.push(id);
        }
    }
    Ok(live)
}

fn clean(what: What, options: &Options, settings: &Settings, live: &[BatchId]) -> Result<Removed, Failure> {
    let layout = &settings.layout;
    let folder = match what {
        What::Complete => layout.complete(),
        What::Failed | What::Rejected => layout.failed(),
        What::Logs => layout.logs(),
    };
    let mut removed = Removed { what, files: 0, bytes: 0 };
    let found = match files(&folder) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(removed),
        Err(error) => return Err(Failure::io(format_args!("read {}", folder.display()), &error)),
    };
    let now = SystemTime::now();
    let failed =
        |error: std::io::Error| Failure::io(format_args!("remove from {}", folder.display()), &error);
    let opened = Folder::open(&folder).map_err(failed)?;
    for file in found {
        let old = now.duration_since(file.changed).unwrap_or_default() >= options.older_than;
        if !old || !is_meant(what, &file.name) || is_needed(what, &file.name, live, &layout.processing()) {
            continue;
        }
        if !options.dry_run && !opened.remove(&file.name).map_err(failed)? {
            continue;
        }
        removed.files += 1;
        removed.bytes += file.bytes;
    }
    Ok(removed)
}

struct Found {
    name: String,
    changed: SystemTime,
    bytes: u64,
}

/// Regular files of a folder; those that vanish meanwhile or have unprintable names are nobody's business here.
fn files(folder: &Path) -> std::io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (Ok(name), Ok(meta)) = (entry.file_name().into_string(), entry.metadata()) else { continue };
        if meta.is_file() && !name.starts_with('.') {
            found.push(Found { name, changed: meta.modified()?, bytes: meta.len() });
        }
    }
    Ok(found)
}

/// Whether a name of the folder is of this sort.
fn is_meant(what: What, name: &str) -> bool {
    let rejected = name.ends_with(".rejected") || name.ends_with(".rejected.reason.json");
    match what {
        What::Complete => name.ends_with(JSON),
        What::Failed => name.ends_with(JSON) && !rejected,
        What::Rejected => rejected,
        What::Logs => name.ends_with(".log"),
    }
}

/// Items of live batches are counted by their files, and a running task's log is being written.
fn is_needed(what: What, name: &str, live: &[BatchId], processing: &Path) -> bool {
    match what {
        What::Complete | What::Failed => {
            let of: BTreeSet<&str> = live.iter().map(BatchId::as_str).collect();
            task_of_file(name).is_some_and(|task| {
                task.as_str().rsplit_once('.').is_some_and(|(batch, _)| of.contains(batch))
            })
        }
        What::Rejected => false,
        What::Logs => running_log(name, processing).is_some_and(|path| path.exists()),
    }
}

/// The processing entry of the task that writes the log `<task>.<attempt>.log`.
fn running_log(name: &str, processing: &Path) -> Option<PathBuf> {
    let (task, _attempt) = name.strip_suffix(".log")?.rsplit_once('.')?;
    let task = model::TaskId::new(task).ok()?;
    Some(processing.join(task_file(&task)))
}
