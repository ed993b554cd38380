//! Laws of a change: what a fact may do to a world, whatever it says.

use model::{Millis, TaskId};

use super::Found;
use crate::event::Event;
use crate::world::World;

/// What is kept of a world while a fact is taken in.
#[derive(Clone, Debug)]
pub struct Marks {
    now: Millis,
    tasks: usize,
    leaving: Leaving,
}

/// Which tasks a fact may take out of the mind.
#[derive(Clone, Debug)]
enum Leaving {
    Nobody,
    One,
    /// This one, if its file was seen before its return was told.
    IfQueued(TaskId),
}

impl Marks {
    /// Of this world, to which this fact is about to be told.
    #[must_use]
    pub fn of(world: &World, event: &Event) -> Self {
        let leaving = match event {
            Event::Finished { .. } | Event::Unqueued(_) | Event::StartLost { .. } => Leaving::One,
            Event::Requeued { task_id } => Leaving::IfQueued(task_id.clone()),
            _ => Leaving::Nobody,
        };
        Self { now: world.now, tasks: tasks(world), leaving }
    }
}

/// All tasks that the mind knows of: they wait, are on their way, run, or are being put away.
fn tasks(world: &World) -> usize {
    let in_hand = world.claims.len() + world.failing.len() + world.units.len();
    world.queue.len() + in_hand + world.returning.len()
}

/// I1: a task leaves the mind when its record lies in a folder, or its file is gone without us.
pub(super) fn nothing_lost(before: &Marks, after: &World, found: &mut Found) {
    let left = before.tasks.saturating_sub(tasks(after));
    let may_leave = match &before.leaving {
        Leaving::Nobody => 0,
        Leaving::One => 1,
        Leaving::IfQueued(task_id) => usize::from(after.is_queued(task_id)),
    };
    if left > may_leave {
        found.push(format!("{left} of {} tasks are gone by a fact that ends {may_leave}", before.tasks));
    }
}

/// I19: a fact of an earlier time counts as one of now.
pub(super) fn time_goes_on(before: &Marks, after: &World, found: &mut Found) {
    if after.now < before.now {
        found.push(format!("{} came after {}", after.now, before.now));
    }
}
