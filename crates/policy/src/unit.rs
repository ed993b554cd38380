//! A claimed attempt from the start order to the moment its record lies in a folder again.
//!
//! Not here: what becomes of it when it is over (`retry`), and any choice to stop it (`plan`).

use model::link::{Outcome, StopWhy};
use model::{AttemptKey, FailureClass, GpuUuid, Millis, Task, TaskClass, WorkerId};

use crate::queue::Queued;
use crate::shape::Shape;

/// A start that was issued and not yet answered: its id is settled by the claim.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    /// The task as it waited.
    pub queued: Queued,
    /// The task as it was ordered.
    pub task: Box<Task>,
    /// The worker.
    pub worker: WorkerId,
    /// GPUs that it has besides that of its worker.
    pub beside: Vec<GpuUuid>,
    /// When.
    pub at: Millis,
    /// Whether a loaded host waits for it.
    pub warm: bool,
    /// Whether somebody wants it to end.
    pub cancelled: bool,
}

/// An attempt in a worker's orders.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    /// Its key.
    pub key: AttemptKey,
    /// The worker.
    pub worker: WorkerId,
    /// GPUs that it has besides that of its worker.
    pub beside: Vec<GpuUuid>,
    /// The task as it was ordered.
    pub task: Box<Task>,
    /// Its shape.
    pub shape: Shape,
    /// Where it is.
    pub phase: Phase,
    /// When it was ordered; what is charged first after a death.
    pub ordered_at: Millis,
    /// Since when it waited: its age, should it wait again.
    pub since: Millis,
    /// Whether an earlier brain ordered it.
    pub adopted: bool,
    /// Whether a loaded host waited for it.
    pub warm: bool,
    /// The stop that was ordered.
    pub stop: Option<StopWhy>,
    /// When it was asked to give way, if it was.
    pub yield_asked_at: Option<Millis>,
    /// Whether somebody wants it to end.
    pub cancelled: bool,
    /// Whether `processing/` shows that it runs.
    pub shown: bool,
    /// What was said of its slot.
    pub told: Told,
    /// 0 to 1, only rising.
    pub progress: Option<f64>,
    /// Where it began and when its progress last rose: what its pace is told by.
    pub pace: Pace,
    /// Media seconds worked off.
    pub media_s: Option<f64>,
    /// What is being done with it now that it is over.
    pub closing: Option<Closing>,
    /// Not to be tried again before, after an action about it could not be carried out.
    pub again_at: Option<Millis>,
}

/// What the pace of a unit is told by.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Pace {
    /// The progress it began with: that of an earlier attempt, where it goes on from a checkpoint.
    pub from: Option<f64>,
    /// When its progress last rose.
    pub at: Millis,
}

/// What was said of the slot of a script.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Told {
    /// Nothing yet.
    #[default]
    Nothing,
    /// That it has one.
    Assigned,
    /// That it gave it back.
    Released,
}

/// Where a unit is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Phase {
    /// In the orders; nothing was heard.
    Ordered,
    /// It runs.
    Running {
        /// Since when.
        since: Millis,
    },
    /// Its record lies in the outbox.
    Over {
        /// When it began, if that was seen.
        since: Option<Millis>,
        /// How it ended.
        outcome: Outcome,
    },
    /// It was stopped before it began.
    NeverStarted,
    /// Its worker is dead and left no record.
    Lost {
        /// Whether the attempt counts.
        charge: bool,
    },
}

/// What is being done with a unit that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    /// Its record goes to `complete/` or `failed/`.
    Finish,
    /// It goes back into its queue.
    Requeue {
        /// How long it then waits.
        back_off: Millis,
        /// Whether the attempt counts.
        charged: bool,
    },
    /// It ends as failed.
    Fail,
}

impl Unit {
    /// Its class.
    pub(crate) const fn class(&self) -> TaskClass {
        self.task.class()
    }

    /// Whether it occupies a slot.
    pub(crate) const fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Ordered | Phase::Running { .. })
    }

    /// Since when it runs, if it does.
    pub(crate) const fn running_since(&self) -> Option<Millis> {
        match self.phase {
            Phase::Running { since } => Some(since),
            _ => None,
        }
    }

    /// Whether it has left at a boundary, as it was asked to.
    pub(crate) fn gave_way(&self) -> bool {
        match &self.phase {
            Phase::Over { outcome, .. } => {
                let left = outcome.stopped && outcome.failure == Some(FailureClass::Cancelled);
                left && self.stop == Some(StopWhy::Yield)
            }
            Phase::NeverStarted => self.stop == Some(StopWhy::Yield),
            _ => false,
        }
    }

    /// When it is expected to end by its own progress, once that says something. It stands between two reports.
    pub(crate) fn ends_at_its_pace(&self) -> Option<Millis> {
        let since = self.running_since()?;
        let (from, now) = (self.pace.from?, self.progress?);
        let (done, spent) = (now - from, self.pace.at - since);
        let says_something = done > 0.05 && spent > Millis::ZERO;
        says_something.then(|| self.pace.at + Millis::from_secs_f64(spent.as_secs_f64() * (1.0 - now) / done))
    }

    /// Takes what its worker says of its progress.
    pub(crate) fn proceed(&mut self, progress: f64, at: Millis) {
        if self.progress.is_some_and(|before| before >= progress) {
            return;
        }
        if self.pace.from.is_none() {
            self.pace.from = Some(if self.task.checkpoint.is_some() { progress } else { 0.0 });
        }
        (self.progress, self.pace.at) = (Some(progress), at);
    }
}
