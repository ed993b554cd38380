//! CLAIM: one rename takes a task out of its queue and gives it its id.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use model::fault::Code;
use model::task::IdClaim;
use model::{Entry, Fault, Task, TaskId};
use uuid::Uuid;

use super::essence::Essence;
use super::{ClaimError, Ledger, LedgerError, RECORD_BYTES_MAX, about, has, record_of};
use crate::atomic::{Folder, move_new};
use crate::crash;
use crate::layout::task_file;

/// Names tried one after the other before the search takes longer steps.
const STEPS_SINGLE: u32 = 8;
/// A name with a higher number than this gets a fresh id.
const TURN_MAX: u32 = 1 << 24;
/// So many stems are remembered; beyond that, all are forgotten and searched again.
const STEMS_MAX: usize = 4_096;

/// The number that was last given to each wished name, so that the thousandth `task.json` is as fast as the first.
#[derive(Debug, Default)]
pub(super) struct Wishes(BTreeMap<TaskId, u32>);

/// A new id: ordered by time, never seen before.
#[must_use]
pub fn fresh() -> TaskId {
    loop {
        if let Ok(id) = TaskId::new(Uuid::now_v7().to_string()) {
            return id;
        }
    }
}

/// Where a task of an id lies already.
enum Taken {
    Live(PathBuf),
    Ended(PathBuf),
}

impl Ledger {
    /// Takes a task out of its queue; the id it got. No fsync: a power cut may at worst put it back.
    ///
    /// # Errors
    /// See [`ClaimError`]; a duplicate has been dropped or rejected by then.
    pub fn claim(&mut self, entry: &Entry, task: &Task) -> Result<TaskId, ClaimError> {
        let queue = match Folder::open(self.layout.queue(entry.class, entry.priority)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ClaimError::Gone),
            other => other?,
        };
        let processing = self.open(self.layout.processing())?;
        crash::point("claim.C1");
        let id = match task.id_is {
            IdClaim::Demand => self.claim_demand(entry, task, &queue, &processing)?,
            IdClaim::Wish => self.claim_wish(entry, &task.task_id, &queue, &processing)?,
        };
        crash::point("claim.C2");
        Ok(id)
    }

    fn claim_demand(
        &mut self,
        entry: &Entry,
        task: &Task,
        queue: &Folder,
        processing: &Folder,
    ) -> Result<TaskId, ClaimError> {
        let id = &task.task_id;
        if let Some(taken) = self.taken(id, entry, IdClaim::Demand)? {
            return Err(self.answer_duplicate(entry, task, queue, &taken)?);
        }
        match move_new(queue, &entry.name, processing, &task_file(id)) {
            Ok(()) => Ok(id.clone()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ClaimError::Gone),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let taken = Taken::Live(processing.path().join(task_file(id)));
                Err(self.answer_duplicate(entry, task, queue, &taken)?)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn claim_wish(
        &mut self,
        entry: &Entry,
        wish: &TaskId,
        queue: &Folder,
        processing: &Folder,
    ) -> Result<TaskId, ClaimError> {
        // The file may be gone long since; then no name needs to be searched.
        let mut turn = self.wishes.0.get(wish).map_or(1, |last| last.saturating_add(1));
        loop {
            let found = self.free_turn(wish, turn, entry)?;
            let (id, given) = match found.and_then(|turn| Some((wish.candidate(turn).ok()?, turn))) {
                Some(named) => named,
                None => (fresh(), 0),
            };
            match move_new(queue, &entry.name, processing, &task_file(&id)) {
                Ok(()) => {
                    self.remember_wish(wish, given);
                    return Ok(id);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ClaimError::Gone),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => turn = given.saturating_add(1),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn remember_wish(&mut self, wish: &TaskId, turn: u32) {
        if self.wishes.0.len() >= STEMS_MAX {
            self.wishes.0.clear();
        }
        if turn > 1 {
            self.wishes.0.insert(wish.clone(), turn);
        }
    }

    /// The first free number from `from` on, or one behind which all lower ones probed are taken.
    fn free_turn(&self, wish: &TaskId, from: u32, entry: &Entry) -> io::Result<Option<u32>> {
        let free = |turn: u32| -> io::Result<Option<bool>> {
            match wish.candidate(turn) {
                Ok(id) => Ok(Some(self.taken(&id, entry, IdClaim::Wish)?.is_none())),
                Err(_) => Ok(None),
            }
        };
        for turn in from..from.saturating_add(STEPS_SINGLE) {
            match free(turn)? {
                Some(true) => return Ok(Some(turn)),
                Some(false) => {}
                None => return Ok(None),
            }
        }
        // Thousands of the same name: double the step, then close in on the border.
        let (mut low, mut step) = (from.saturating_add(STEPS_SINGLE - 1), 1_u32);
        let mut high = loop {
            let probe = low.saturating_add(step);
            match if probe > TURN_MAX { None } else { free(probe)? } {
                Some(true) => break probe,
                Some(false) => (low, step) = (probe, step.saturating_mul(2)),
                None => return Ok(None),
            }
        };
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if free(middle)? == Some(true) {
                high = middle;
            } else {
                low = middle;
            }
        }
        Ok(Some(high))
    }

    /// Where a task of this id lies, other than at `own`.
    ///
    /// A file in a queue has the id only if it states it: ours that was put back does, a person's `task.json` in
    /// another folder is just another wish.
    fn taken(&self, id: &TaskId, own: &Entry, claim: IdClaim) -> io::Result<Option<Taken>> {
        let name = task_file(id);
        let processing = self.layout.processing();
        if has(&processing, &name)? {
            return Ok(Some(Taken::Live(processing.join(name))));
        }
        if let Some(place) = self.ended(id)? {
            return Ok(Some(Taken::Ended(place)));
        }
        for (class, priority) in self.layout.queues() {
            let itself = (class, priority) == (own.class, own.priority) && name == own.name;
            let folder = self.layout.queue(class, priority);
            if itself || !has(&folder, &name)? {
                continue;
            }
            let other = Folder::open(folder)?.read(&name, RECORD_BYTES_MAX).ok().and_then(|b| record_of(&b));
            let ours = other.is_some_and(|other| {
                other.task_id.as_ref() == Some(id) && (claim == IdClaim::Wish || !other.history.is_empty())
            });
            if ours {
                return Ok(Some(Taken::Live(self.layout.queue(class, priority).join(name))));
            }
        }
        Ok(None)
    }

    /// Rows 22 to 24 of the bad inputs: the same again is dropped, something else of this name is rejected.
    fn answer_duplicate(
        &mut self,
        entry: &Entry,
        task: &Task,
        queue: &Folder,
        taken: &Taken,
    ) -> Result<ClaimError, ClaimError> {
        let of = task.task_id.clone();
        let (fault, place) = match taken {
            Taken::Live(place) => {
                let message = format!("another task `{of}` is waiting or running");
                (Fault::new(Code::DuplicateId, message), place)
            }
            Taken::Ended(place) => {
                (Fault::new(Code::AlreadyFinished, format!("a task `{of}` has ended before")), place)
            }
        };
        let fault = fault
            .in_field("task_id")
            .next(format!("take another id, or leave it out; the first one is {}", place.display()));
        let first = std::fs::read(place).ok().and_then(|bytes| record_of(&bytes));
        let same = first.is_some_and(|first| {
            Essence::of(&first, entry.class) == Essence::of(&task.record(), entry.class)
        });
        let dropped = same && matches!(taken, Taken::Live(_));
        if dropped {
            queue.remove(&entry.name)?;
            self.pending.folder(queue.path());
        } else {
            self.reject(entry, &fault)
                .map_err(|error| ClaimError::Io(io::Error::other(error.to_string())))?;
        }
        Ok(ClaimError::Duplicate { of, dropped, fault: Box::new(fault) })
    }

    /// Puts a claimed task that was never started back into its queue, as it was; under which name.
    ///
    /// # Errors
    /// [`LedgerError::Io`]: it is still in `processing`.
    pub fn unclaim(&mut self, task: &TaskId, entry: &Entry) -> Result<Entry, LedgerError> {
        let name = task_file(task);
        let processing = self.open(self.layout.processing()).map_err(about(task))?;
        let queue = self.open(self.layout.queue(entry.class, entry.priority)).map_err(about(task))?;
        for back in [entry.name.clone(), name.clone(), task_file(&fresh())] {
            match move_new(&processing, &name, &queue, &back) {
                Ok(()) => return Ok(Entry { name: back, ..entry.clone() }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(about(task)(error)),
            }
        }
        Err(about(task)(io::Error::from(io::ErrorKind::AlreadyExists)))
    }
}
