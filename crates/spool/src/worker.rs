//! A worker's own folder: how it is born, where it puts finished records, how it leaves.
//!
//! ```text
//! W2 workers/.new-<uuid>/outbox  W3 lock  W4 gpus/<gpu>.lock  W5 orders.jsonl, reports.jsonl  W6 rename to <uuid>
//! ```
//! A folder with a name has a held lock or a dead worker; nothing in between can be seen. Not here: what the worker
//! does with its orders (`worker`), whether it lives (`recover`).

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::link::{Can, GpuIdentity, OrdersLine, Phase, Reports, ReportsLine, WorkerIdentity};
use model::{AttemptKey, Durability, GpuUuid, TaskRecord, WorkerId};
use rustix::io::FdFlags;
use uuid::Uuid;

use crate::atomic::{Folder, create, move_new};
use crate::layout::{LOCK, Layout, ORDERS, OUTBOX, REPORTS, record_file};
use crate::ledger::bytes_of;
use crate::link::{Reader, Writer, make_empty};
use crate::lock::{Holder, holder_of, is_at, locker_of, open_lock, sign};
use crate::recover::outbox;
use crate::sync::{Pending, SyncJob, sync_folder};
use crate::{crash, process};

/// The epoch of all reports: a worker's uuid has one life.
pub const REPORTS_EPOCH: u64 = 1;

/// What a worker is born with.
#[derive(Clone, Debug)]
pub struct Birth {
    /// The launch it came from; none if a person started it.
    pub launch: Option<String>,
    /// Its program file.
    pub exe: String,
    /// Its GPU; none in the CPU lane, where no GPU lock is taken.
    pub gpu: Option<GpuIdentity>,
    /// What it can boot.
    pub can: Can,
    /// Whether records are synced.
    pub durability: Durability,
}

/// Why a worker was not born. Nothing of it is left then.
#[derive(Debug, thiserror::Error)]
pub enum BirthError {
    /// Another process holds the GPU's lock.
    #[error("GPU {gpu} is in use by {}; take another GPU, or end that process", shown(holder.as_ref(), *pid))]
    GpuHeld {
        /// The GPU.
        gpu: GpuUuid,
        /// Who took it, as the lock file says. It may be dead while an engine of its keeps the lock.
        holder: Option<Holder>,
        /// Who took it, as the kernel says.
        pid: Option<u32>,
    },
    /// The system refused.
    #[error("failed to {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl BirthError {
    /// 4 for a held GPU, 1 for the rest.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::GpuHeld { .. } => 4,
            Self::Io { .. } => 1,
        }
    }
}

fn shown(holder: Option<&Holder>, pid: Option<u32>) -> String {
    match (holder, pid) {
        (Some(holder), _) => holder.to_string(),
        (None, Some(pid)) => format!("pid {pid}"),
        (None, None) => "a process that could not be found out".to_owned(),
    }
}

/// Why a worker must not leave yet.
#[derive(Debug, thiserror::Error)]
pub enum LeaveError {
    /// The brain has not taken these yet, or there is no brain.
    #[error("{} finished records still lie in the outbox; a brain must take them first", .0.len())]
    Outbox(Vec<AttemptKey>),
    /// The system refused.
    #[error("failed to say that the worker leaves: {0}")]
    Io(#[from] io::Error),
}

/// A living worker's folder, and its two locks.
#[derive(Debug)]
pub struct WorkerHome {
    id: WorkerId,
    identity: WorkerIdentity,
    folder: PathBuf,
    outbox: Folder,
    durability: Durability,
    pending: Pending,
    /// What it says.
    pub reports: Writer<ReportsLine>,
    /// What it is told.
    pub orders: Reader<OrdersLine>,
    /// Held: its life.
    lock: File,
    /// Held: its GPU's.
    gpu_lock: Option<File>,
}

impl WorkerHome {
    /// W2–W6: a new uuid, a folder, both locks, the first report.
    ///
    /// From here on every child of this process inherits the GPU's lock, deliberately: while an engine lives, its
    /// GPU is not free. So spawn what only looks around before.
    ///
    /// # Errors
    /// [`BirthError::GpuHeld`] names who has the GPU.
    pub fn birth(layout: &Layout, birth: Birth) -> Result<Self, BirthError> {
        let id = WorkerId::new(Uuid::now_v7().to_string()).map_err(|bad| {
            io_error("name", &layout.workers(), io::Error::new(io::ErrorKind::InvalidInput, bad.to_string()))
        })?;
        let newborn = layout.newborn(&id);
        fs::create_dir_all(layout.workers()).map_err(|source| io_error("make", &layout.workers(), source))?;
        match Self::be_born(layout, id, &newborn, birth) {
            Ok(home) => Ok(home),
            Err(error) => {
                // A folder that stays is swept by a brain an hour later.
                drop(fs::remove_dir_all(&newborn));
                Err(error)
            }
        }
    }

    fn be_born(layout: &Layout, id: WorkerId, newborn: &Path, birth: Birth) -> Result<Self, BirthError> {
        let at = Folder::open_or_make(newborn).map_err(|source| io_error("make", newborn, source))?;
        let outbox = newborn.join(OUTBOX);
        fs::create_dir(&outbox).map_err(|source| io_error("make", &outbox, source))?;
        crash::point("birth.W2");
        let lock = take_own_lock(newborn)?;
        crash::point("birth.W3");
        let gpu_lock = match &birth.gpu {
            Some(gpu) => Some(take_gpu_lock(layout, &gpu.uuid, &id)?),
            None => None,
        };
        crash::point("birth.W4");
        let identity =
            identity(&id, &birth).map_err(|source| io_error("identify", Path::new("/proc/self"), source))?;
        let said =
            Reports { worker: Some(identity.clone()), gpu: birth.gpu, can: birth.can, ..Reports::default() };
        make_empty(&at, ORDERS).map_err(|source| io_error("make", &newborn.join(ORDERS), source))?;
        // Reports are never synced: their durable part is the outbox.
        let mut reports = Writer::create(newborn, REPORTS, REPORTS_EPOCH, said)
            .map_err(|source| io_error("make", &newborn.join(REPORTS), source))?
            .at(Durability::Process);
        crash::point("birth.W5");
        let folder = layout.worker(&id);
        let take_name = || -> io::Result<()> {
            let workers = Folder::open(layout.workers())?;
            let name =
                |path: &Path| path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            move_new(&workers, &name(newborn), &workers, &name(&folder))
        };
        take_name().map_err(|source| io_error("name", newborn, source))?;
        crash::point("birth.W6");
        let moved = |source| io_error("open", &folder, source);
        reports.moved_to(&folder).map_err(moved)?;
        let orders = Reader::open(&folder, ORDERS).map_err(moved)?;
        let outbox = Folder::open(folder.join(OUTBOX)).map_err(moved)?;
        Ok(Self {
            id,
            identity,
            folder,
            outbox,
            durability: birth.durability,
            pending: Pending::new(birth.durability),
            reports,
            orders,
            lock,
            gpu_lock,
        })
    }

    /// Its name.
    #[must_use]
    pub const fn id(&self) -> &WorkerId {
        &self.id
    }

    /// As it says itself in its reports.
    #[must_use]
    pub const fn identity(&self) -> &WorkerIdentity {
        &self.identity
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether the lock file still is the one that is locked. If not, a brain can take this worker for dead.
    #[must_use]
    pub fn still_ours(&self) -> bool {
        is_at(&self.lock, &self.folder.join(LOCK))
    }

    /// Whether somebody has taken its folder away: nobody can reach it any more, nor find what it writes.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        let looked = fs::symlink_metadata(self.folder.join(LOCK));
        looked.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// The GPU's lock, which engines inherit: the one descriptor not to close in a child.
    #[must_use]
    pub fn gpu_lock(&self) -> Option<BorrowedFd<'_>> {
        self.gpu_lock.as_ref().map(File::as_fd)
    }

    /// F1–F3: puts a finished record into the outbox, durable when this returns; only then may it be reported.
    /// Blocks. Said again for the same record, it does nothing.
    ///
    /// # Errors
    /// As the system says (a full disk, say): nothing torn stays. Hold the result and its slot, and try again.
    pub fn put_record(&mut self, key: &AttemptKey, record: &TaskRecord) -> io::Result<()> {
        let Some(file) = self.begin_record(key, record)? else { return Ok(()) };
        if self.durability == Durability::Power {
            if file.sync_all().is_err() {
                // A failed fsync has thrown the pages away and says so only once: a new file, once.
                self.forget_record(key)?;
                let Some(again) = self.begin_record(key, record)? else { return Ok(()) };
                again.sync_all().inspect_err(|_| drop(self.forget_record(key)))?;
            }
            crash::point("finish.F2");
            sync_folder(self.outbox.path())?;
        }
        crash::point("finish.F3");
        Ok(())
    }

    /// F1 alone, for many records that are then made durable together by one [`WorkerHome::sync_job`]. Report them
    /// when that has run; if it fails, [`WorkerHome::forget_record`] each and begin again.
    ///
    /// # Errors
    /// As [`WorkerHome::put_record`].
    pub fn write_record(&mut self, key: &AttemptKey, record: &TaskRecord) -> io::Result<()> {
        if let Some(file) = self.begin_record(key, record)? {
            self.pending.file(&Arc::new(file));
            self.pending.folder(self.outbox.path());
        }
        Ok(())
    }

    /// F2–F3 of everything written since the last call; empty at `process`.
    pub fn sync_job(&mut self) -> SyncJob {
        self.pending.take()
    }

    /// Removes a record whose key the orders have dropped, if the brain has left it here.
    ///
    /// # Errors
    /// As the system says.
    pub fn forget_record(&self, key: &AttemptKey) -> io::Result<()> {
        self.outbox.remove(&record_file(key)).map(drop)
    }

    /// The whole records that the brain has not taken yet.
    ///
    /// # Errors
    /// As the system says.
    pub fn waiting_records(&self) -> io::Result<Vec<AttemptKey>> {
        Ok(outbox::read(&self.outbox)?.whole.into_keys().collect())
    }

    /// Whether the brain has taken every whole record.
    ///
    /// # Errors
    /// As the system says.
    pub fn outbox_is_empty(&self) -> io::Result<bool> {
        Ok(self.waiting_records()?.is_empty())
    }

    /// W8: says that the worker is gone. End the process afterwards: the locks go with it and with its children.
    ///
    /// # Errors
    /// [`LeaveError::Outbox`] while records wait: a worker leaves with an empty outbox or not at all.
    pub fn leave(&mut self) -> Result<(), LeaveError> {
        let waiting = self.waiting_records()?;
        if !waiting.is_empty() {
            return Err(LeaveError::Outbox(waiting));
        }
        self.reports.amend(ReportsLine { phase: Some(Phase::Left), ..ReportsLine::default() })?;
        crash::point("birth.W8");
        Ok(())
    }

    /// F1. None if the same record lies there already.
    fn begin_record(&self, key: &AttemptKey, record: &TaskRecord) -> io::Result<Option<File>> {
        if !outbox::is_record_of(record, key) {
            let message = format!(
                "the record for attempt {key} must say that it is complete or failed, and name that attempt"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let name = record_file(key);
        let bytes = bytes_of(record)?;
        let mut file = match create(&self.outbox, &name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if fs::read(self.outbox.path().join(&name))? == bytes {
                    return Ok(None);
                }
                // Ours, torn by an earlier try: nobody else writes here, and it was not reported.
                self.outbox.remove(&name)?;
                create(&self.outbox, &name)?
            }
            other => other?,
        };
        match file.write_all(&bytes) {
            Ok(()) => {
                crash::point("finish.F1");
                Ok(Some(file))
            }
            Err(error) => {
                self.outbox.remove(&name)?;
                Err(io::Error::new(
                    error.kind(),
                    format!("failed to write {}: {error}", self.outbox.path().join(&name).display()),
                ))
            }
        }
    }
}

/// The workers that have a name: living ones, and dead ones that are not buried.
///
/// # Errors
/// When the folder cannot be listed.
pub fn named(layout: &Layout) -> io::Result<Vec<WorkerId>> {
    let listing = match fs::read_dir(layout.workers()) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut workers = Vec::new();
    for entry in listing {
        let entry = entry?;
        if entry.file_type()?.is_dir()
            && let Some(Ok(worker)) = entry.file_name().to_str().map(WorkerId::new)
        {
            workers.push(worker);
        }
    }
    workers.sort();
    Ok(workers)
}

/// W3. It must die with the worker: no child inherits it.
fn take_own_lock(newborn: &Path) -> Result<File, BirthError> {
    let path = newborn.join(LOCK);
    let lock = open_lock(&path).map_err(|source| io_error("open", &path, source))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(io_error("lock", &path, io::ErrorKind::WouldBlock.into())),
        Err(TryLockError::Error(source)) => Err(io_error("lock", &path, source)),
    }
}

/// W4. Deliberately inherited by engines: busy means do not touch.
fn take_gpu_lock(layout: &Layout, gpu: &GpuUuid, worker: &WorkerId) -> Result<File, BirthError> {
    let path = layout.gpu_lock(gpu);
    fs::create_dir_all(layout.gpus()).map_err(|source| io_error("make", &layout.gpus(), source))?;
    let lock = open_lock(&path).map_err(|source| io_error("open", &path, source))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(BirthError::GpuHeld {
                gpu: gpu.clone(),
                holder: holder_of(&lock),
                pid: locker_of(&lock),
            });
        }
        Err(TryLockError::Error(source)) => return Err(io_error("lock", &path, source)),
    }
    sign(&lock, None, Some(worker.clone())).map_err(|source| io_error("write", &path, source))?;
    rustix::io::fcntl_setfd(&lock, FdFlags::empty())
        .map_err(|error| io_error("make inheritable", &path, error.into()))?;
    Ok(lock)
}

fn identity(id: &WorkerId, birth: &Birth) -> io::Result<WorkerIdentity> {
    let me = process::me()?;
    Ok(WorkerIdentity {
        uuid: id.clone(),
        launch: birth.launch.clone(),
        pid: me.pid,
        starttime: me.starttime,
        boot_id: me.boot_id,
        exe: birth.exe.clone(),
    })
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> BirthError {
    BirthError::Io { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
