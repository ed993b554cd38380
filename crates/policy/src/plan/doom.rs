//! Queued tasks that end without ever starting: cancelled ones, and those that can never run here.

use model::{Entry, FailureClass, Saying, TaskError};

use super::draft::Draft;
use crate::action::Action;
use crate::model_choice::exists_somewhere;
use crate::queue::{Line, Queued};
use crate::shape::{Shape, What};
use crate::world::{World, cancelled};

/// How many of one shape are failed in one plan: the rest follows in the next.
const AT_ONCE: usize = 64;

pub(super) fn doom(draft: &mut Draft<'_>) {
    let world = draft.world;
    let doomed: Vec<&Entry> = world.queue.cancelled().collect();
    for entry in doomed {
        let waits = world.queue.get(entry).and_then(|item| item.not_before);
        if waits.is_none_or(|time| draft.is_time(time)) {
            fail(draft, entry, cancelled());
        }
    }
    for (shape, line) in draft.front.clone().iter() {
        let Some(error) = never_runs(world, shape) else {
            say_that_it_cannot_start(draft, shape, line);
            continue;
        };
        for entry in line.entries().take(AT_ONCE) {
            fail(draft, entry, error.clone());
        }
    }
}

fn fail<'w>(draft: &mut Draft<'w>, entry: &'w Entry, error: TaskError) {
    if let Some(Queued { task, .. }) = draft.world.queue.get(entry)
        && draft.spoken_for.insert(entry)
    {
        if error.class != FailureClass::Cancelled {
            draft
                .act(Action::Say(Saying::Refused { task: task.task_id.clone(), why: error.message.clone() }));
        }
        draft.act(Action::FailQueued { entry: entry.clone(), task: task.clone(), error });
    }
}

/// Says of the first of a shape that fits no GPU why it waits; once, and the others wait for the same reason.
fn say_that_it_cannot_start(draft: &mut Draft<'_>, shape: &Shape, line: &Line) {
    let world = draft.world;
    let Some(reason) = world.misfit(shape) else { return };
    let first = line.any().and_then(|entry| world.queue.get(entry));
    if let Some(item) = first.filter(|item| !item.told) {
        draft.act(Action::Say(Saying::CannotStart {
            task: item.task.task_id.clone(),
            why: reason.to_string(),
        }));
    }
}

/// Why tasks of this shape end at once; none where they may wait.
pub(super) fn never_runs(world: &World, shape: &Shape) -> Option<TaskError> {
    if world.config.strict
        && let Some(reason) = world.misfit(shape)
    {
        return Some(TaskError::new(FailureClass::BadInput, "unsatisfiable", reason.to_string()));
    }
    let What::Llm(Some(model)) = &shape.what else { return None };
    if exists_somewhere(world, model) != Some(false) {
        return None;
    }
    let known: Vec<&str> = world.config.models_in_order().map(|(name, _)| name).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    let message = format!(
        "no worker here can load model `{model}`; `models` in config.json names: {known}; leave `model` out to take any"
    );
    Some(TaskError::new(FailureClass::BadInput, "model_not_found", message))
}
