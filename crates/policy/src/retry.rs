//! What becomes of an attempt that is over, by how it ended.
//!
//! | it ended | then |
//! |---|---|
//! | complete | finish, whatever was asked meanwhile |
//! | `bad_input`, `timeout`, `cancelled`, `poison` | finish: another run would end the same way |
//! | `crash`, `oom` | requeue with back-off while charges are left, else finish |
//! | `gpu_fault` | requeue uncharged; on a second GPU, or too often, fail as `gpu_fault_suspect` |
//! | stopped to be taken back | requeue uncharged, at once |
//! | never started | requeue uncharged |
//! | lost with its worker | requeue, charged if it may have run; fail as `poison` when no charge is left |
//!
//! Not here: carrying it out, and the GPU's side of a fault.

use model::link::{Outcome, StopWhy};
use model::{FailureClass, Millis, Task, TaskError};

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
            refunded(unit, None, back_off)
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
        Some(StopWhy::TakenBack | StopWhy::Yield) if outcome.stopped => {
            return refunded(unit, None, Millis::ZERO);
        }
        Some(StopWhy::Timeout) if outcome.stopped && class != FailureClass::Timeout => {
            return Verdict::Fail(timed_out());
        }
        // The other attempt ended the task; the record of this one is put away beside it.
        Some(StopWhy::Superfluous) => return Verdict::Finish,
        _ => {}
    }
    let error = TaskError::new(
        class,
        outcome.code.clone().unwrap_or_else(|| class.name().to_owned()),
        outcome.message.clone().unwrap_or_else(|| format!("the attempt ended with `{}`", class.name())),
    );
    match class {
        FailureClass::BadInput | FailureClass::Timeout | FailureClass::Cancelled | FailureClass::Poison => {
            Verdict::Finish
        }
        FailureClass::Crash | FailureClass::Oom if unit.task.charged >= unit.task.max_attempts => {
            Verdict::Finish
        }
        FailureClass::Crash | FailureClass::Oom => Verdict::Requeue {
            task: unit.task.clone(),
            error: Some(error),
            charged: true,
            back_off: back_off(world, unit),
        },
        FailureClass::GpuFault => of_gpu_fault(world, unit, error),
    }
}

/// A GPU's fault is not the task's, until it has seen two GPUs fail.
fn of_gpu_fault(world: &World, unit: &Unit, error: TaskError) -> Verdict {
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
    refunded(unit, Some(error), back_off(world, unit))
}

fn of_death(world: &World, unit: &Unit, charge: bool) -> Verdict {
    if unit.cancelled || unit.stop == Some(StopWhy::Cancel) {
        return Verdict::Fail(cancelled());
    }
    if !charge {
        return refunded(unit, None, Millis::ZERO);
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
fn refunded(unit: &Unit, error: Option<TaskError>, back_off: Millis) -> Verdict {
    let mut task = unit.task.clone();
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
