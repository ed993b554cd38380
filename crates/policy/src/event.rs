//! Facts. Everything that can change the world is one of these, in one linear stream.

use std::collections::BTreeMap;

use model::gpu::{Inventory, Ram, Reading};
use model::link::{Orders, Reports};
use model::{AttemptKey, BatchId, GpuMode, GpuUuid, Millis, Priority, Task, TaskClass, TaskId, WorkerId};

use crate::action::Action;
pub use model::Entry;

/// A fact.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An action is about to be carried out. Applied before the hand moves, so that no plan issues it twice.
    Issued(Box<Action>),

    // ------------------------------------------------------------------------------------------ senses
    /// Which GPUs there are; replaces what was known. A GPU that is missing now is lost.
    Inventory(Inventory),
    /// A GPU was read.
    Read(Reading),
    /// The machine's memory was read.
    Ram(Ram),

    /// The local hour of the day by the wall clock, and how long it still lasts. Told at start, and when it changes.
    Hour {
        /// 0 to 23.
        hour: u8,
        /// What is left of it.
        left: Millis,
    },

    // ------------------------------------------------------------------------------------------ queues
    /// A file in a queue folder holds a valid task. `order` is the place in the one order of arrival;
    /// `not_before` is the task's own, on the machine's time line.
    Queued {
        /// Where it lies.
        entry: Entry,
        /// What it says.
        task: Box<Task>,
        /// Arrival, smaller is earlier.
        order: u64,
        /// Not to be started before.
        not_before: Option<Millis>,
    },
    /// A file is no longer in its queue folder, and it was not us.
    Unqueued(Entry),
    /// How many files lie in each queue folder, parsed or not.
    Counted(BTreeMap<(TaskClass, Priority), u64>),

    // ------------------------------------------------------------------------------------------ workers
    /// A launch was begun.
    Launched {
        /// Its id.
        launch: String,
        /// For which GPU; none is the CPU lane.
        gpu: Option<GpuUuid>,
    },
    /// A launched process is gone before it registered, or its launch failed.
    LaunchEnded {
        /// Its id.
        launch: String,
        /// Its exit status: 4 means that somebody holds the GPU's lock.
        status: Option<i32>,
        /// What is known of the reason.
        message: Option<String>,
    },
    /// A worker's folder has its name: it is alive. `orders` is what an earlier brain had written to it (adoption).
    WorkerBorn {
        /// Its name.
        worker: WorkerId,
        /// What it says.
        reports: Box<Reports>,
        /// The fold of its old orders; none for one born under this brain.
        orders: Option<Box<Orders>>,
    },
    /// A worker's reports have moved on; this is their whole fold.
    Reported {
        /// Its name.
        worker: WorkerId,
        /// What it says.
        reports: Box<Reports>,
    },
    /// A worker is dead: its lock is free and its process tree is gone. Whole records of its outbox were applied
    /// before (`Reported` with those attempts ended).
    WorkerDied {
        /// Its name.
        worker: WorkerId,
        /// Whether the machine died with it (another boot id): then only the first `parallel` unfinished orders are
        /// charged.
        with_machine: bool,
    },

    // ------------------------------------------------------------------------------------------ hands
    /// A claim succeeded and the orders line is written.
    Started {
        /// Where it lay.
        entry: Entry,
        /// The id it got.
        task_id: TaskId,
        /// The worker that has it.
        worker: WorkerId,
        /// The attempt's number.
        attempt: u32,
    },
    /// The claim of a `FailQueued` succeeded; `Finished` with this id follows.
    Claimed {
        /// Where it lay.
        entry: Entry,
        /// The id it got.
        task_id: TaskId,
    },
    /// A claim found nothing to claim, or a duplicate: the entry is no longer ours to start.
    StartLost {
        /// Where it lay.
        entry: Entry,
        /// Why, for the journal.
        why: String,
    },
    /// A record is in `complete/` or `failed/`, durable.
    Finished {
        /// The task.
        task_id: TaskId,
        /// Whether it is complete.
        complete: bool,
    },
    /// A task is back in a queue folder (a `Queued` follows when its body is read).
    Requeued {
        /// The task.
        task_id: TaskId,
    },
    /// An action could not be carried out now; what it was about is as before it was issued.
    Undone {
        /// The action.
        action: Box<Action>,
        /// Why.
        why: String,
    },

    // ------------------------------------------------------------------------------------------ batches, requests
    /// What is known of a batch. `remaining` 0 ends it.
    Batch(BatchFacts),
    /// Somebody wants a task to end.
    CancelAsked {
        /// The task; queued tasks by the id they wish for or demand.
        task_id: TaskId,
    },
    /// Somebody wants the machine freed.
    DownAsked {
        /// By when.
        deadline: Millis,
        /// Whether running units are stopped at once.
        now: bool,
    },
}

/// What the mind needs to know of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchFacts {
    /// Its name.
    pub batch_id: BatchId,
    /// Its script.
    pub script: String,
    /// As asked for; `auto` is decided by the mind.
    pub gpu_mode: GpuMode,
    /// All items.
    pub total: u64,
    /// Ended well.
    pub completed: u64,
    /// Failed.
    pub failed: u64,
    /// Whether its waiting items are kept from starting.
    pub paused: bool,
}

impl BatchFacts {
    /// How it has the GPUs: never `auto`.
    #[must_use]
    pub fn mode(&self, auto_exclusive_threshold: u32) -> GpuMode {
        match self.gpu_mode {
            GpuMode::Auto if self.total >= u64::from(auto_exclusive_threshold) => GpuMode::Exclusive,
            GpuMode::Auto => GpuMode::Shared,
            mode => mode,
        }
    }

    /// Items that have not ended.
    #[must_use]
    pub const fn remaining(&self) -> u64 {
        self.total.saturating_sub(self.completed).saturating_sub(self.failed)
    }
}

/// An attempt at a worker.
pub type At = (WorkerId, AttemptKey);
