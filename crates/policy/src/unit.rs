//! A claimed attempt from the start order to the moment its record lies in a folder again.
//!
//! Not here: what becomes of it when it is over (`retry`), and any choice to stop it (`plan`).

use model::link::{Outcome, StopWhy};
use model::{AttemptKey, Millis, Task, TaskClass, WorkerId};

use crate::queue::{Queued, Shape};

/// A start that was issued and not yet answered: its id is settled by the claim.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    /// The task as it waited.
    pub queued: Queued,
    /// The task as it was ordered.
    pub task: Box<Task>,
    /// The worker.
    pub worker: WorkerId,
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
    /// Whether somebody wants it to end.
    pub cancelled: bool,
    /// Whether `processing/` shows that it runs.
    pub shown: bool,
    /// 0 to 1, only rising.
    pub progress: Option<f64>,
    /// Media seconds worked off.
    pub media_s: Option<f64>,
    /// What is being done with it now that it is over.
    pub closing: Option<Closing>,
    /// Not to be tried again before, after an action about it could not be carried out.
    pub again_at: Option<Millis>,
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
}
