//! `gpuspool retry`: failed tasks back into their queues, each by one rename.

use std::io::ErrorKind;

use clap::Args;
use model::TaskId;
use serde::Serialize;
use spool::atomic::{Folder, move_new};
use spool::find::{Located, Place};
use spool::layout::task_file;
use spool::settings::Settings;
use spool::sync::sync_folder;

use crate::brain::{Presence, presence};
use crate::console::Console;
use crate::failure::{Failure, exit};
use crate::guess::{class_of, priority_of};
use crate::locate::{self, Meant};

/// Options of `retry`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Failed tasks, or batches: all their failed items.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

/// A task that is queued again.
#[derive(Debug, Serialize)]
struct Again {
    task_id: TaskId,
    queue: String,
}

pub(crate) fn run(options: &Options, settings: &Settings, console: &mut Console<'_>) -> Result<u8, Failure> {
    let mut again = Vec::new();
    for name in &options.ids {
        match locate::meant(settings, name)? {
            Some(Meant::Task(id, located)) => again.push(retry(&id, *located, settings)?),
            Some(Meant::Batch(_, manifest)) => {
                for id in (0..manifest.items.len()).filter_map(|index| manifest.task_id(index)) {
                    if let Some(located) = locate::task(settings, &id)?
                        && located.place == Place::Failed
                    {
                        again.push(retry(&id, located, settings)?);
                    }
                }
            }
            None => return Err(locate::unknown(settings, name)),
        }
    }
    if console.json {
        console.say_json(&serde_json::json!({ "queued_again": again }))?;
    } else {
        for one in &again {
            console.say(&format!("{}: queued again in {}", one.task_id, one.queue))?;
        }
    }
    if again.is_empty() {
        console.note("no item of it has failed");
    } else if presence(&settings.layout) == Presence::Absent {
        console.note("queued, brain not running; `gpuspool up` starts the work");
    }
    Ok(exit::OK)
}

fn retry(id: &TaskId, located: Located, settings: &Settings) -> Result<Again, Failure> {
    let why_not = |message: &str| Failure::new(exit::NOT_ALL, format!("`{id}` {message}"));
    match located.place {
        Place::Failed => {}
        Place::Queue(_) => {
            return Err(
                why_not("is queued already").next(format!("`gpuspool why {id}` says what it waits for"))
            );
        }
        Place::Processing => {
            return Err(why_not("still runs").next(format!("`gpuspool wait {id}` waits for its end")));
        }
        Place::Complete => {
            return Err(why_not("is complete")
                .next("move its record from `complete/` into a queue folder to run it once more"));
        }
        Place::Rejected => {
            return Err(why_not("never was a task: it was rejected")
                .next(format!("correct {} and submit it again", located.path.display())));
        }
    }
    let record = located.record.unwrap_or_default();
    let Some(class) = class_of(&record) else {
        return Err(Failure::new(exit::DATA, format!("{} does not say what it was", located.path.display()))
            .next("correct the record, or submit the task anew"));
    };
    let queue = settings.layout.queue(class, priority_of(&record));
    let moved = (|| {
        let from = Folder::open(settings.layout.failed())?;
        let to = Folder::open_or_make(&queue)?;
        let name = task_file(id);
        move_new(&from, &name, &to, &name)?;
        // The new place first: a task in two folders is found again, one in none is lost.
        sync_folder(&queue)?;
        sync_folder(&settings.layout.failed())
    })();
    match moved {
        Ok(()) => Ok(Again { task_id: id.clone(), queue: queue.display().to_string() }),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(why_not("is queued already").next(format!("`gpuspool why {id}` says what it waits for")))
        }
        Err(error) => Err(Failure::io(format_args!("queue `{id}` again"), &error)),
    }
}
