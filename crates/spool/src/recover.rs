//! Who is alive, what the dead left, and putting every task back into one place. It joins before it moves:
//!
//! ```text
//! survey ── logs and outboxes of all workers, living and dead (X3–X6); reads only
//! settle ── task folders: unfinished moves finished, live attempts pinned, what nobody names back to its queue
//! the mind decides over attempts (finish, requeue, fail) and the ledger carries it out
//! bury   ── a dead worker's folder with an empty outbox is moved aside (X10)
//! ```
//! All of it can be killed at any step and done again. Only the one brain calls this, at its start or after a death
//! was noticed: nobody else ever tries a worker's lock. Not here: ending leftover processes (`worker --bury`).

mod join;
pub(crate) mod outbox;
mod settle;
mod sweep;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use model::link::{Orders, ProcessIdentity, Reports};
use model::{AttemptKey, Entry, GpuUuid, TaskId, WorkerId};

use crate::atomic::{Folder, move_new};
use crate::layout::{LOCK, Layout, ORDERS, OUTBOX, REPORTS};
use crate::lock::{Holder, holder_of, is_at, locker_of, open_lock};
use crate::sync::sync_folder;
use crate::{clock, crash, process, worker};

pub use settle::settle;

/// A dead worker's lock is tried this often and at this distance: the kernel needs a few milliseconds.
const LET_GO_TRIES: u32 = 20;
const LET_GO_EVERY: Duration = Duration::from_millis(5);

/// What the spool says about who lives and what was going on.
#[derive(Debug, Default)]
pub struct Survey {
    /// All workers that are not buried, by name.
    pub workers: Vec<FoundWorker>,
    /// GPUs whose lock is held though no living worker has them: do not touch.
    pub gpus_held: Vec<HeldGpu>,
    /// What was tidied up on the way.
    pub notes: Vec<Note>,
}

/// A worker, living or dead. Attempts that are settled already are in neither log any more.
#[derive(Debug)]
pub struct FoundWorker {
    /// Its name.
    pub id: WorkerId,
    /// Whether its lock is held.
    pub alive: bool,
    /// What it says, with every whole record of its outbox as an ended attempt.
    pub reports: Reports,
    /// What an earlier brain asked of it.
    pub orders: Orders,
    /// The epoch of that brain; 0 if there was none.
    pub orders_epoch: u64,
    /// The lock of a dead one, now ours: nobody takes the folder for a living worker's while this is held.
    pub lock: Option<File>,
    /// Its process; none where its first report is lost.
    pub process: Option<ProcessIdentity>,
    /// Whether the machine has been restarted since: it died with it.
    pub other_boot: bool,
    /// Files in its outbox that are no whole record.
    pub torn: Vec<String>,
}

/// A GPU that somebody holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldGpu {
    /// Which.
    pub gpu: GpuUuid,
    /// The process that took the lock; it may be dead while a child of it keeps it.
    pub pid: u32,
    /// Who it was, as the lock file says.
    pub holder: Option<Holder>,
}

/// Something that was put right, or could not be; its `Display` is a line for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A claim that nobody had acted upon was undone.
    BackInQueue(TaskId, Entry),
    /// An ended task reached its last folder.
    Finished(TaskId, PathBuf),
    /// A running task's file was brought back to `processing/`.
    Pinned(TaskId, Entry),
    /// A running task's file was gone, and was made again from the orders.
    Restored(TaskId),
    /// One file had two names; this one is gone.
    SecondName(TaskId, PathBuf),
    /// A second file of a task was set aside, here.
    Duplicate(TaskId, PathBuf),
    /// A second, different ending of a task was set aside, here. This must not happen.
    Conflict(TaskId, PathBuf),
    /// A record was applied before, and is gone from its outbox.
    Applied(AttemptKey),
    /// A file that is none of ours was left where it is.
    Foreign(PathBuf, String),
    /// Something could not be done now.
    Stuck(PathBuf, String),
    /// What a dead process left unfinished was removed.
    Swept(PathBuf),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BackInQueue(task, entry) => {
                write!(
                    f,
                    "task `{task}` is back in {}_queue/priority_{} as `{}`",
                    entry.class, entry.priority, entry.name
                )
            }
            Self::Finished(task, path) => {
                write!(f, "task `{task}` had ended and is now at {}", path.display())
            }
            Self::Pinned(task, entry) => {
                write!(
                    f,
                    "task `{task}` runs; its file was in {}_queue/priority_{}",
                    entry.class, entry.priority
                )
            }
            Self::Restored(task) => {
                write!(f, "task `{task}` runs; its file was gone and was made again from the orders")
            }
            Self::SecondName(task, path) => write!(f, "task `{task}` had a second name, {}", path.display()),
            Self::Duplicate(task, path) => {
                write!(f, "a second file of task `{task}` was set aside: {}", path.display())
            }
            Self::Conflict(task, path) => {
                write!(f, "task `{task}` ended twice; the second record was set aside: {}", path.display())
            }
            Self::Applied(key) => write!(f, "the record of attempt {key} had been applied"),
            Self::Foreign(path, why) => write!(f, "{} was left alone: {why}", path.display()),
            Self::Stuck(path, why) => write!(f, "{} could not be put right: {why}", path.display()),
            Self::Swept(path) => write!(f, "{} was left over and is removed", path.display()),
        }
    }
}

/// X3–X6: reads the logs and outboxes of all workers, living and dead. Moves no task.
///
/// # Errors
/// When the workers cannot be listed or one's folder not be read. Nothing was decided then; try again.
pub fn survey(layout: &Layout) -> io::Result<Survey> {
    let notes = sweep::sweep(layout)?;
    crash::point("recovery.X3");
    let boot = clock::boot_id()?;
    let mut workers = Vec::new();
    for id in worker::named(layout)? {
        let lock = pronounce(layout, &id)?;
        let Some(mut found) = join::read_logs(layout, &id)? else {
            // Its folder was taken away while we looked.
            continue;
        };
        found.alive = lock.is_none();
        found.lock = lock;
        found.other_boot = !found.alive && join::died_with_machine(&found, &boot);
        workers.push(found);
    }
    crash::point("recovery.X4");
    let places = join::Places::open(layout)?;
    for found in &mut workers {
        join::drop_settled(&places, found)?;
    }
    crash::point("recovery.X5");
    let gpus_held = held_gpus(layout, &workers)?;
    Ok(Survey { workers, gpus_held, notes })
}

/// Decides over life and death: the worker's lock, now ours, if it is dead; none while it lives.
///
/// A free lock alone is not believed while the worker's own process lives: its lock file was replaced.
///
/// # Errors
/// As the system says.
pub fn pronounce(layout: &Layout, worker: &WorkerId) -> io::Result<Option<File>> {
    let path = layout.worker(worker).join(LOCK);
    let lock = open_lock(&path)?;
    let free = try_lock(&lock)?;
    let process = join::read_logs(layout, worker)?.and_then(|found| found.process);
    let lives = process.as_ref().map(process::is_alive);
    match (free, lives) {
        (false, None | Some(true)) => return Ok(None),
        (false, Some(false)) if !is_let_go(&lock)? => return Ok(None),
        (true, Some(true)) => {}
        (true | false, _) if is_at(&lock, &path) => return Ok(Some(lock)),
        (true | false, _) => {}
    }
    tracing::warn!(%worker, "its lock file was replaced while it lives");
    Ok(None)
}

fn try_lock(lock: &File) -> io::Result<bool> {
    match lock.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// A process is told to be dead before the last of its files is closed, and a child that it was just starting keeps
/// them a moment longer.
fn is_let_go(lock: &File) -> io::Result<bool> {
    for _ in 0..LET_GO_TRIES {
        std::thread::sleep(LET_GO_EVERY);
        if try_lock(lock)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What a dead worker said last, with every whole record of its outbox as an ended attempt.
///
/// # Errors
/// As the system says.
pub fn last_words(layout: &Layout, worker: &WorkerId) -> io::Result<Reports> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, format!("worker {worker} has no folder"));
    let mut found = join::read_logs(layout, worker)?.ok_or_else(missing)?;
    join::drop_settled(&join::Places::open(layout)?, &mut found)?;
    Ok(found.reports)
}

/// X10: moves a dead worker's folder aside. Does nothing if that has been done.
///
/// # Errors
/// `DirectoryNotEmpty` while a whole record lies in its outbox: no result is ever moved out of reach.
pub fn bury(layout: &Layout, worker: &WorkerId) -> io::Result<()> {
    let folder = layout.worker(worker);
    let waiting = match Folder::open(folder.join(OUTBOX)) {
        Ok(outbox) => outbox::read(&outbox)?.whole,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Default::default(),
        Err(error) => return Err(error),
    };
    if let Some(key) = waiting.keys().next() {
        let message = format!("the record of attempt {key} still lies in the outbox of worker {worker}");
        return Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, message));
    }
    for log in [ORDERS, REPORTS] {
        give_back_room(&folder.join(log));
    }
    let workers = Folder::open(layout.workers())?;
    let name = |path: PathBuf| path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    match move_new(&workers, worker.as_str(), &workers, &name(layout.buried(worker))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            crash::point("recovery.X10");
            sync_folder(&layout.workers())
        }
    }
}

/// Frees what was allocated ahead of a log that nobody will write any more.
fn give_back_room(log: &std::path::Path) {
    let cut = || -> io::Result<()> {
        let file = fs::OpenOptions::new().write(true).open(log)?;
        file.set_len(file.metadata()?.len())
    };
    // A megabyte that stays until the folder is removed does no harm.
    drop(cut());
}

/// X6. The locks are not tried: that could turn away a worker that is just being born.
fn held_gpus(layout: &Layout, workers: &[FoundWorker]) -> io::Result<Vec<HeldGpu>> {
    let listing = match fs::read_dir(layout.gpus()) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut held = Vec::new();
    for entry in listing {
        let name = entry?.file_name();
        let Some(gpu) = name.to_str().and_then(|name| GpuUuid::new(name.strip_suffix(".lock")?).ok()) else {
            continue;
        };
        let has = |found: &FoundWorker| {
            found.alive && found.reports.gpu.as_ref().is_some_and(|its| its.uuid == gpu)
        };
        if workers.iter().any(has) {
            continue;
        }
        let Ok(file) = File::open(layout.gpu_lock(&gpu)) else { continue };
        if let Some(pid) = locker_of(&file) {
            held.push(HeldGpu { gpu, pid, holder: holder_of(&file) });
        }
    }
    held.sort_by(|a, b| a.gpu.cmp(&b.gpu));
    Ok(held)
}
