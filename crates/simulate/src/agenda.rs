//! What will happen, in the order of time; among the same time, in the order it was noted.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;

use model::{AttemptKey, Entry, Millis, TaskId};

use crate::arm::Timer;
use crate::faults::Fault;

/// A worker's number.
pub(crate) type ArmNumber = u32;

/// Something that happens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Happening {
    /// People do what they do.
    Arrives(usize),
    /// The brain puts a batch's items into the queue.
    Expands(usize),
    /// The brain reads a file in a queue folder.
    Seen(Entry),
    /// The brain notices that a file is gone.
    Unseen(Entry),
    /// A worker reads its orders.
    WorkerReads(ArmNumber),
    /// The brain reads a worker's reports.
    BrainReads(ArmNumber),
    /// A worker's timer rings.
    Rings(ArmNumber, Timer),
    /// A launched process has its folder, or gives up.
    Born { launch: String, gpu: Option<usize> },
    /// What a dead worker left behind is ended.
    Buried(ArmNumber),
    /// An ended task's record is durable.
    Flushed { task_id: TaskId, complete: bool, at: Option<(ArmNumber, AttemptKey)> },
    /// The senses read a GPU.
    Reads(usize),
    /// The senses read all GPUs and the memory, as they do all the time.
    ReadsAll,
    /// The clock on the wall shows another hour.
    HourIsOver,
    /// The senses look which GPUs there are.
    Looks,
    /// A file is read from the disk; the number tells a late one.
    DiskReady(u64),
    /// Something goes wrong.
    Goes(Fault),
    /// It is over.
    Over(Fault, usize),
    /// A brain starts.
    BrainBack,
    /// The brain can think again.
    Wakes,
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seen(entry) => write!(f, "seen: {}", entry.name),
            Self::Unseen(entry) => write!(f, "gone: {}", entry.name),
            Self::WorkerReads(arm) => write!(f, "worker-{arm} reads its orders"),
            Self::BrainReads(arm) => write!(f, "the brain reads what worker-{arm} says"),
            Self::Rings(arm, Timer::Ends(key)) => write!(f, "worker-{arm}: {key} ends"),
            Self::Rings(arm, timer) => write!(f, "worker-{arm}: {timer:?}"),
            Self::Flushed { task_id, complete, .. } => write!(f, "durable: {task_id}, complete {complete}"),
            other => write!(f, "{other:?}"),
        }
    }
}

/// The agenda.
#[derive(Clone, Debug, Default)]
pub(crate) struct Agenda {
    heap: BinaryHeap<Reverse<(Millis, u64, Happening)>>,
    count: u64,
}

impl Agenda {
    pub(crate) fn note(&mut self, at: Millis, happening: Happening) {
        self.count += 1;
        self.heap.push(Reverse((at, self.count, happening)));
    }

    pub(crate) fn next_at(&self) -> Option<Millis> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// What happens next, if its time has come.
    pub(crate) fn pop(&mut self, now: Millis) -> Option<Happening> {
        if self.next_at()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, _, happening))| happening)
    }
}
