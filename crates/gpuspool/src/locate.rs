//! From an id on the command line to the task or batch it means.

use model::batch::Manifest;
use model::{BatchId, TaskId};
use spool::batch::Batches;
use spool::find::{self, Located};
use spool::settings::Settings;

use crate::failure::{Failure, exit};
use crate::sanitize::one_line;

/// What an id means.
#[derive(Debug)]
pub(crate) enum Meant {
    /// A task.
    Task(TaskId, Box<Located>),
    /// A batch.
    Batch(BatchId, Box<Manifest>),
}

/// Finds what `name` means; none if nothing has this name.
pub(crate) fn meant(settings: &Settings, name: &str) -> Result<Option<Meant>, Failure> {
    if let Ok(id) = TaskId::new(name)
        && let Some(located) = task(settings, &id)?
    {
        return Ok(Some(Meant::Task(id, Box::new(located))));
    }
    let Ok(id) = BatchId::new(name) else { return Ok(None) };
    let manifest = batches(settings)
        .manifest(&id)
        .map_err(|error| Failure::io(format_args!("read the manifest of batch `{id}`"), &error))?;
    Ok(manifest.map(|manifest| Meant::Batch(id, Box::new(manifest))))
}

/// Where a task is. A task that moves from one folder to the next while they are searched is looked for again.
pub(crate) fn task(settings: &Settings, id: &TaskId) -> Result<Option<Located>, Failure> {
    for _ in 0..3 {
        let found = find::locate(&settings.layout, id)
            .map_err(|error| Failure::io(format_args!("look for task `{id}`"), &error))?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The batches of the spool.
pub(crate) fn batches(settings: &Settings) -> Batches {
    Batches::new(settings.layout.clone(), settings.config.durability)
}

/// The failure for a name that nothing has, with those it may have been meant to be.
pub(crate) fn unknown(settings: &Settings, name: &str) -> Failure {
    let failure = Failure::new(exit::NOT_ALL, format!("no task or batch is called `{}`", one_line(name, 80)));
    let nearest = find::nearest(&settings.layout, name).unwrap_or_default();
    if nearest.is_empty() {
        return failure.next(format!(
            "`gpuspool status` shows what is in the spool {}; finished records may have been cleaned away",
            settings.layout.root().display()
        ));
    }
    let names: Vec<String> = nearest.iter().map(|id| format!("`{id}`")).collect();
    failure.next(format!("did you mean {}?", names.join(" or ")))
}
