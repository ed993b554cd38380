//! One attempt at this worker: waiting, running, being saved, ended.

use std::time::Instant;

use engine::protocol::Progress;
use model::link::{AttemptOrder, AttemptReport, AttemptState, Outcome, Seen, StopWhy};
use model::{Millis, TaskRecord, Timestamp};
use serde_json::Value;

use crate::happening::HostId;
use crate::stop::Halt;

/// An attempt, from the first order that names it to the first one that no longer does.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) order: AttemptOrder,
    pub(crate) stage: Stage,
    /// Whether orders still named it when it was over: only then is their silence a drop.
    pub(crate) ordered_at_end: bool,
}

/// Where an attempt is.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Ordered; what it needs is not there yet.
    Waiting,
    Running(Running),
    /// It is over; its record is on its way to the disk.
    Saving(Saving),
    /// Its record lies in the outbox. `told` is the report that says so.
    Ended {
        since: Millis,
        progress: Progress,
        outcome: Outcome,
        told: Option<Seen>,
    },
    /// Stopped before it began.
    NeverStarted {
        told: Option<Seen>,
    },
}

#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) since: Millis,
    pub(crate) started_at: Timestamp,
    pub(crate) begun: Instant,
    /// None if nothing runs that could be stopped.
    pub(crate) halt: Option<Halt>,
    pub(crate) progress: Progress,
    /// Whether it can give way: its host obeys `yield`, or it has said a checkpoint.
    pub(crate) yields: bool,
    /// The last state it said it could go on from.
    pub(crate) checkpoint: Option<Value>,
    /// Where its log lies, relative to the spool.
    pub(crate) log: Option<String>,
    pub(crate) on: On,
}

/// What runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    Llm,
    Host(HostId),
    Once,
    /// It failed before anything ran.
    Nothing,
}

#[derive(Debug)]
pub(crate) struct Saving {
    pub(crate) since: Millis,
    pub(crate) progress: Progress,
    pub(crate) record: Box<TaskRecord>,
    pub(crate) outcome: Outcome,
    /// Whether it is written and only waits to be synced.
    pub(crate) written: bool,
    /// Not to be tried again before.
    pub(crate) again: Option<tokio::time::Instant>,
    pub(crate) on: On,
}

impl Attempt {
    pub(crate) const fn new(order: AttemptOrder) -> Self {
        Self { order, stage: Stage::Waiting, ordered_at_end: false }
    }

    /// What it takes a slot of. One whose record cannot be written keeps its slot: taking more would only make more
    /// that cannot be written.
    pub(crate) const fn on(&self) -> Option<On> {
        match &self.stage {
            Stage::Running(running) => Some(running.on),
            Stage::Saving(saving) if !saving.written => Some(saving.on),
            _ => None,
        }
    }

    pub(crate) const fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Waiting)
    }

    /// Passes an order to stop on to what runs it; a harder one than before counts too.
    pub(crate) fn stop(&mut self, why: StopWhy) {
        match &mut self.stage {
            Stage::Waiting => self.stage = Stage::NeverStarted { told: None },
            Stage::Running(running) => {
                // It may be over already: its end is on the way.
                if let Some(halt) = &running.halt {
                    halt.say(why);
                }
            }
            _ => {}
        }
    }

    /// What is reported of it; nothing while it waits.
    pub(crate) fn report(&self) -> Option<AttemptReport> {
        let mut yields = false;
        let (state, since, progress, outcome) = match &self.stage {
            Stage::Waiting => return None,
            Stage::Running(running) => {
                yields = running.yields;
                (AttemptState::Running, Some(running.since), running.progress, None)
            }
            Stage::Saving(saving) => (AttemptState::Running, Some(saving.since), saving.progress, None),
            Stage::Ended { since, progress, outcome, .. } => {
                (AttemptState::Ended, Some(*since), *progress, Some(outcome.clone()))
            }
            Stage::NeverStarted { .. } => (AttemptState::NeverStarted, None, Progress::default(), None),
        };
        Some(AttemptReport {
            task_id: self.order.task_id.clone(),
            attempt: self.order.attempt,
            state,
            since,
            progress: progress.fraction,
            media_s: progress.media_s,
            yields,
            outcome,
        })
    }

    /// A report that says how it ended has been written.
    pub(crate) const fn told(&mut self, seen: Seen) {
        if let Stage::Ended { told: told @ None, .. } | Stage::NeverStarted { told: told @ None } =
            &mut self.stage
        {
            *told = Some(seen);
        }
    }

    /// Whether it can be forgotten, now that orders (of which the brain has read reports up to `brain_seen`) no
    /// longer name it.
    pub(crate) fn may_be_forgotten(&self, brain_seen: Seen) -> bool {
        match &self.stage {
            Stage::Ended { told: Some(told), .. } | Stage::NeverStarted { told: Some(told) } => {
                self.ordered_at_end || brain_seen >= *told
            }
            _ => false,
        }
    }
}
