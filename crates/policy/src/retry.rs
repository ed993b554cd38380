//! What becomes of an attempt that is over, by how it ended.
//!
//! | it ended | then |
//! |---|---|
//! | complete | finish, whatever was asked meanwhile |
//! | `bad_input`, `timeout`, `cancelled`, `poison` | finish: another run would end the same way |
//! | `crash`, `oom` | requeue with back-off while charges are left, else finish |
//! | `crash` because the engine refused to begin (503) | requeue uncharged with back-off, a few times; then as above |
//! | `gpu_fault` | requeue uncharged; on a second GPU, or too often, fail as `gpu_fault_suspect` |
//! | stopped to be taken back, or gave way | requeue uncharged, at once, to go on from its checkpoint |
//! | `bad_input` where it began from a checkpoint and got no further | start over once, uncharged |
//! | never started | requeue uncharged |
//! | lost with its worker | requeue, charged if it may have run; fail as `poison` when no charge is left |
//!
//! The next attempt goes on from the last state its script said it could go on from; not from one from which an attempt
//! broke without getting any further. Not here: carrying it out, and the GPU's side of a fault.

use model::link::{Outcome, StopWhy};
use model::task::PastAttempt;
use model::{FailureClass, Millis, Task, TaskClass, TaskError};

use crate::unit::{Phase, Unit};
use crate::world::{World, cancelled};

/// What becomes of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Its record says all.
    Finish,
    /// Another attempt.
    Requeue {
        /// The body that goes back.
        task: Box<Task>,
        /// What is remembered of the attempt.
        error: Option<TaskError>,
        /// Whether it counts.
        charged: bool,
        /// How long to wait.
        back_off: Millis,
    },
    /// It ends as failed.
    Fail(TaskError),
}

/// A worker that gives a task back unbegun without having been asked should not get it again in the same instant.
const NEVER_STARTED_BACK_OFF: Millis = Millis::from_secs(1);

/// What becomes of this attempt; none while it lives.
pub(crate) fn verdict(world: &World, unit: &Unit) -> Option<Verdict> {
    match &unit.phase {
        Phase::Ordered | Phase::Running { .. } => None,
        Phase::Over { outcome, .. } => Some(of_outcome(world, unit, outcome)),
        Phase::NeverStarted => Some(if unit.cancelled {
            Verdict::Fail(cancelled())
        } else {
            let back_off = if unit.stop.is_some() { Millis::ZERO } else { NEVER_STARTED_BACK_OFF };
            refunded(unit.task.clone(), None, back_off)
        }),
        Phase::Lost { charge } => Some(of_death(world, unit, *charge)),
    }
}

fn of_outcome(world: &World, unit: &Unit, outcome: &Outcome) -> Verdict {
    let Some(class) = outcome.failure else { return Verdict::Finish };
    if unit.cancelled || unit.stop == Some(StopWhy::Cancel) {
        return if class == FailureClass::Cancelled { Verdict::Finish } else { Verdict::Fail(cancelled()) };
    }
    match unit.stop {
        // Giving way takes its time: what breaks meanwhile has broken.
        Some(StopWhy::Yield) if unit.gave_way() => {
            return refunded(going_on(unit, outcome), Some(error_of(class, outcome)), Millis::ZERO);
        }
        Some(StopWhy::TakenBack) if outcome.stopped => {
            return refunded(going_on(unit, outcome), None, Millis::ZERO);
        }
        Some(StopWhy::Timeout) if outcome.stopped && class != FailureClass::Timeout => {
            return Verdict::Fail(timed_out());
        }
        // The other attempt ended the task; the record of this one is put away beside it.
        Some(StopWhy::Superfluous) => return Verdict::Finish,
        _ => {}
    }
    let error = error_of(class, outcome);
    match class {
        FailureClass::BadInput if cannot_go_on(unit, outcome) => {
            let message =
                format!("it could not go on from its checkpoint and starts over: {}", error.message);
            let error = TaskError::new(class, CHECKPOINT_REFUSED, message);
            refunded(Box::new(Task { checkpoint: None, ..*unit.task.clone() }), Some(error), Millis::ZERO)
        }
        FailureClass::BadInput | FailureClass::Timeout | FailureClass::Cancelled | FailureClass::Poison => {
            Verdict::Finish
        }
        FailureClass::Crash if was_refused(unit, &error) && refused_before(unit) < REFUSALS_MAX => {
            refunded(unit.task.clone(), Some(error), back_off(world, unit))
        }
        FailureClass::Crash | FailureClass::Oom if unit.task.charged >= unit.task.max_attempts => {
            Verdict::Finish
        }
        FailureClass::Crash | FailureClass::Oom => Verdict::Requeue {
            task: after_breaking(unit, outcome),
            error: Some(error),
            charged: true,
            back_off: back_off(world, unit),
        },
        FailureClass::GpuFault => of_gpu_fault(world, unit, outcome, error),
    }
}

/// What an engine refuses costs a task nothing, so often.
const REFUSALS_MAX: usize = 4;

fn was_refused(unit: &Unit, error: &TaskError) -> bool {
    unit.task.class() == TaskClass::Llm && error.is_refusal()
}

fn refused_before(unit: &Unit) -> usize {
    let refused = |past: &&PastAttempt| past.error.as_ref().is_some_and(TaskError::is_refusal);
    unit.task.history.iter().filter(refused).count()
}

/// What the history says of an attempt that could not go on from its checkpoint.
const CHECKPOINT_REFUSED: &str = "checkpoint_refused";

fn error_of(class: FailureClass, outcome: &Outcome) -> TaskError {
    TaskError::new(
        class,
        outcome.code.clone().unwrap_or_else(|| class.name().to_owned()),
        outcome.message.clone().unwrap_or_else(|| format!("the attempt ended with `{}`", class.name())),
    )
}

/// The task as it goes on from where this attempt got to.
fn going_on(unit: &Unit, outcome: &Outcome) -> Box<Task> {
    let mut task = unit.task.clone();
    if outcome.checkpoint.is_some() {
        task.checkpoint.clone_from(&outcome.checkpoint);
    }
    task
}

/// Whether the attempt began from a checkpoint and got to no other.
fn got_no_further(unit: &Unit, outcome: &Outcome) -> bool {
    let from = unit.task.checkpoint.as_ref();
    from.is_some() && outcome.checkpoint.as_ref().is_none_or(|to| Some(to) == from)
}

/// A checkpoint from which an attempt broke without getting any further may be why: the next starts from the beginning.
fn after_breaking(unit: &Unit, outcome: &Outcome) -> Box<Task> {
    let mut task = going_on(unit, outcome);
    if got_no_further(unit, outcome) {
        task.checkpoint = None;
    }
    task
}

/// Whether it refused its checkpoint, and has not been started over for that before.
fn cannot_go_on(unit: &Unit, outcome: &Outcome) -> bool {
    let refused =
        |past: &PastAttempt| past.error.as_ref().is_some_and(|error| error.code == CHECKPOINT_REFUSED);
    got_no_further(unit, outcome) && !unit.task.history.iter().any(refused)
}

/// A GPU's fault is not the task's, until it has seen two GPUs fail.
fn of_gpu_fault(world: &World, unit: &Unit, outcome: &Outcome, error: TaskError) -> Verdict {
    let here = world.gpu_of(&unit.worker).map(crate::gpu::Gpu::key);
    let faults = unit
        .task
        .history
        .iter()
        .filter(|past| past.error.as_ref().is_some_and(|error| error.class == FailureClass::GpuFault));
    let elsewhere = faults.clone().any(|past| past.gpu.is_some() && past.gpu != here);
    if elsewhere || faults.count() + 1 >= unit.task.max_attempts as usize {
        let message = format!("GPUs failed under it more than once; the last time: {}", error.message);
        return Verdict::Fail(TaskError::new(FailureClass::GpuFault, "gpu_fault_suspect", message));
    }
    refunded(going_on(unit, outcome), Some(error), back_off(world, unit))
}

fn of_death(world: &World, unit: &Unit, charge: bool) -> Verdict {
    if unit.cancelled || unit.stop == Some(StopWhy::Cancel) {
        return Verdict::Fail(cancelled());
    }
    if !charge {
        return refunded(unit.task.clone(), None, Millis::ZERO);
    }
    let message = format!("worker {} died while it ran", unit.worker);
    if unit.task.charged >= unit.task.max_attempts {
        let message = format!("{message}, the last of {} attempts", unit.task.charged);
        return Verdict::Fail(TaskError::new(FailureClass::Poison, "worker_died", message));
    }
    let error = TaskError::new(FailureClass::Crash, "worker_died", message);
    Verdict::Requeue {
        task: unit.task.clone(),
        error: Some(error),
        charged: true,
        back_off: back_off(world, unit),
    }
}

/// The charge goes back; the attempt's number is used up all the same.
fn refunded(mut task: Box<Task>, error: Option<TaskError>, back_off: Millis) -> Verdict {
    task.charged = task.charged.saturating_sub(1);
    Verdict::Requeue { task, error, charged: false, back_off }
}

/// The wait before the second, third, … attempt.
fn back_off(world: &World, unit: &Unit) -> Millis {
    let waits = &world.config.retry.backoff_s;
    let place = (unit.task.charged.max(1) - 1) as usize;
    waits.get(place).or(waits.last()).map_or(Millis::ZERO, |s| Millis::from_secs_f64(*s))
}

fn timed_out() -> TaskError {
    TaskError::new(
        FailureClass::Timeout,
        "timeout",
        "it ran past its time limit; raise `timeout_s` if it needs longer",
    )
}
