//! Everything that can wake the loop, in one place.

use model::gpu::{Inventory, Ram, Reading};
use model::{AttemptKey, TaskId, WorkerId};
use spool::atomic::Staged;
use spool::watch::Hint;
use tokio::sync::mpsc;

use crate::flush::Flushed;

/// Something happened outside the loop.
#[derive(Debug)]
pub(crate) enum Note {
    /// The senses found these GPUs.
    Inventory(Inventory),
    /// The senses read the GPUs.
    Readings(Vec<Reading>),
    /// The machine's memory has changed.
    Ram(Ram),
    /// The senses could not read; what was known stands.
    Blind(String),
    /// A worker's process is gone.
    ProcessGone(WorkerId),
    /// A launched process ended.
    LaunchExited {
        /// Its launch id.
        launch: String,
        /// Its exit status, if it was not a signal.
        status: Option<i32>,
    },
    /// Nothing of a dead worker runs any more; or it could not be ended, and this is why.
    Buried(WorkerId, Result<(), String>),
    /// A group of changes is durable.
    Flushed(Flushed),
    /// The body that shows that an attempt runs is written, and can be put in its place.
    Staged(AttemptKey, Staged),
    /// The call at a task's end was made, or given up.
    Told(TaskId),
    /// Somebody told the process to end.
    Signal(Signal),
}

/// The two ways of being told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGINT: free the machine, then end.
    Down,
    /// SIGTERM: end, and leave the workers to the next brain.
    Leave,
}

/// The loop's end of all channels.
#[derive(Debug)]
pub(crate) struct Inbox {
    notes: mpsc::UnboundedReceiver<Note>,
    hints: mpsc::UnboundedReceiver<Hint>,
    held_notes: Vec<Note>,
    held_hints: Vec<Hint>,
}

/// The senders that feed an [`Inbox`].
#[derive(Clone, Debug)]
pub(crate) struct Letterbox {
    /// For this crate's own threads and tasks.
    pub(crate) notes: mpsc::UnboundedSender<Note>,
    /// For the watch on the spool.
    pub(crate) hints: mpsc::UnboundedSender<Hint>,
}

impl Inbox {
    /// An inbox and its letterbox. The channels have no bound: their senders are few, and hints are coalesced at
    /// every turn.
    pub(crate) fn new() -> (Self, Letterbox) {
        let (notes_in, notes) = mpsc::unbounded_channel();
        let (hints_in, hints) = mpsc::unbounded_channel();
        let inbox = Self { notes, hints, held_notes: Vec::new(), held_hints: Vec::new() };
        (inbox, Letterbox { notes: notes_in, hints: hints_in })
    }

    /// Waits until there is something to take.
    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            Some(note) = self.notes.recv() => self.held_notes.push(note),
            Some(hint) = self.hints.recv() => self.held_hints.push(hint),
        }
    }

    /// Takes everything that has arrived, without waiting.
    pub(crate) fn take(&mut self) -> (Vec<Note>, Vec<Hint>) {
        let mut notes = std::mem::take(&mut self.held_notes);
        let mut hints = std::mem::take(&mut self.held_hints);
        while let Ok(note) = self.notes.try_recv() {
            notes.push(note);
        }
        while let Ok(hint) = self.hints.try_recv() {
            hints.push(hint);
        }
        (notes, hints)
    }
}
