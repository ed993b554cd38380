//! SUBMIT: a task of ours goes into a queue, durable before its id is told; many together as fast as the disk allows.

use std::io;
use std::path::PathBuf;

use model::{Priority, TaskClass, TaskId, TaskRecord};

use super::essence::Essence;
use super::{Ledger, bytes_of, has, record_of};
use crate::atomic::{Folder, Staged, move_new, stage_all};
use crate::crash;
use crate::layout::task_file;

/// How many tasks are written and synced together.
const GROUP: usize = 64;
/// How many names are tried for a wish before a fresh id is taken.
const WISHES_MAX: u32 = 1_000;
/// Below this much free space nothing new is taken in, so that what runs can end.
const FREE_BYTES_MIN: u64 = 1 << 30;
/// Likewise, inodes.
const FREE_INODES_MIN: u64 = 10_000;

/// A task to be put into a queue.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Class of the queue.
    pub class: TaskClass,
    /// Priority of the folder.
    pub priority: Priority,
    /// The id it demands or wishes for, and its file's name.
    pub stem: TaskId,
    /// Whether the id must be this one: the file then states it.
    pub demand: bool,
    /// What the file says; its `task_id` is set from `stem` and `demand`.
    pub body: Box<TaskRecord>,
}

/// Why a task was not taken into a queue.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// A task of the demanded id exists.
    #[error("a task `{id}` exists already: {}", place.display())]
    Exists {
        /// The id.
        id: TaskId,
        /// Its file.
        place: PathBuf,
        /// Whether it asks for the same.
        same: bool,
    },
    /// The disk is nearly full; commands exit with 75.
    #[error(
        "the disk that holds the spool is nearly full ({free_mib} MiB and {free_inodes} inodes free); make room and submit again"
    )]
    NoRoom {
        /// What is left, in MiB.
        free_mib: u64,
        /// What is left.
        free_inodes: u64,
    },
    /// The disk refused; nothing is queued.
    #[error("failed to submit: {0}")]
    Io(#[from] io::Error),
}

impl SubmitError {
    /// The exit status of a command that fails with it.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Exists { .. } => 1,
            Self::NoRoom { .. } => 75,
            Self::Io(_) => 74,
        }
    }
}

impl Ledger {
    /// Puts tasks into their queues and waits until they are durable; one answer for each, in order.
    ///
    /// A wish that is taken gets the next free name. A demand that lies in a queue with the same content is a
    /// success: that is what a repeated submission of the same thing finds.
    pub fn submit(&mut self, tasks: &[Submission]) -> Vec<Result<TaskId, SubmitError>> {
        let mut answers = Vec::with_capacity(tasks.len());
        for group in tasks.chunks(GROUP) {
            match self.room() {
                Ok(()) => answers.extend(self.submit_group(group)),
                Err(error) => answers.extend(group.iter().map(|_| Err(copy(&error)))),
            }
        }
        answers
    }

    /// Whether a task could be queued as far as its id goes: one that it demands must be free, or this task's own.
    ///
    /// # Errors
    /// [`SubmitError::Exists`], or a folder that cannot be looked into.
    pub fn admits(&self, task: &Submission) -> Result<(), SubmitError> {
        if !task.demand {
            return Ok(());
        }
        let Some(place) = self.whereabouts(&task.stem)? else { return Ok(()) };
        self.answer_demand(task, task.stem.clone(), place, &body(task)?).map(drop)
    }

    /// Whether the disk has room for something new.
    ///
    /// # Errors
    /// [`SubmitError::NoRoom`], or a folder that cannot be asked.
    pub fn room(&self) -> Result<(), SubmitError> {
        let disk = rustix::fs::statvfs(self.layout.root()).map_err(io::Error::from)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let enough = FREE_BYTES_MIN.min(disk.f_blocks.saturating_mul(disk.f_frsize) / 50);
        let inodes = FREE_INODES_MIN.min(disk.f_files / 50);
        if free < enough || disk.f_favail < inodes {
            return Err(SubmitError::NoRoom { free_mib: free >> 20, free_inodes: disk.f_favail });
        }
        Ok(())
    }

    fn submit_group(&mut self, group: &[Submission]) -> Vec<Result<TaskId, SubmitError>> {
        let bodies: Vec<io::Result<Vec<u8>>> = group.iter().map(body).collect();
        let contents: Vec<&[u8]> = bodies.iter().map(|body| body.as_deref().unwrap_or_default()).collect();
        let staged = stage_all(&self.layout, &contents, self.durability, ["submit.S3", "submit.S4"]);
        let mut answers = Vec::with_capacity(group.len());
        for (task, (staged, body)) in group.iter().zip(staged.into_iter().zip(bodies)) {
            answers.push(self.place(task, staged, body));
        }
        crash::point("submit.S5");
        // The ids are told when this returns, so here the caller does wait.
        let mut queues = crate::sync::Pending::new(self.durability);
        for (task, _) in group.iter().zip(&answers).filter(|(_, answer)| answer.is_ok()) {
            queues.folder(&self.layout.queue(task.class, task.priority));
        }
        if let Err(error) = queues.take().run() {
            let failed = SubmitError::Io(error);
            answers
                .iter_mut()
                .filter(|answer| answer.is_ok())
                .for_each(|answer| *answer = Err(copy(&failed)));
        }
        crash::point("submit.S6");
        answers
    }

    fn place(
        &mut self,
        task: &Submission,
        staged: io::Result<Staged>,
        body: io::Result<Vec<u8>>,
    ) -> Result<TaskId, SubmitError> {
        let (staged, body) = (staged?, body?);
        let stage = self.open(self.layout.stage())?;
        let placed = self.name_it(task, &stage, &staged, &body);
        if placed.is_err() || stage.has(&staged.name)? {
            stage.remove(&staged.name)?;
        }
        placed
    }

    fn name_it(
        &self,
        task: &Submission,
        stage: &Folder,
        staged: &Staged,
        body: &[u8],
    ) -> Result<TaskId, SubmitError> {
        let queue = self.open(self.layout.queue(task.class, task.priority))?;
        let turns = if task.demand { 1 } else { WISHES_MAX };
        for id in (1..=turns).map_while(|turn| task.stem.candidate(turn).ok()) {
            let taken = match self.whereabouts(&id)? {
                Some(place) => Some(place),
                None => match move_new(stage, &staged.name, &queue, &task_file(&id)) {
                    Ok(()) => return Ok(id),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        Some(queue.path().join(task_file(&id)))
                    }
                    Err(error) => return Err(error.into()),
                },
            };
            if let (Some(place), true) = (taken, task.demand) {
                return self.answer_demand(task, id, place, body);
            }
        }
        let id = super::claim::fresh();
        move_new(stage, &staged.name, &queue, &task_file(&id))?;
        Ok(id)
    }

    fn answer_demand(
        &self,
        task: &Submission,
        id: TaskId,
        place: PathBuf,
        body: &[u8],
    ) -> Result<TaskId, SubmitError> {
        let there = std::fs::read(&place).unwrap_or_default();
        let queued =
            place.parent().is_some_and(|folder| *folder == self.layout.queue(task.class, task.priority));
        if queued && there == body {
            return Ok(id);
        }
        let same = record_of(&there)
            .is_some_and(|other| Essence::of(&other, task.class) == Essence::of(&task.body, task.class));
        Err(SubmitError::Exists { id, place, same })
    }

    /// The file of this name in any folder of tasks.
    fn whereabouts(&self, id: &TaskId) -> io::Result<Option<PathBuf>> {
        let name = task_file(id);
        for (class, priority) in self.layout.queues() {
            let folder = self.layout.queue(class, priority);
            if has(&folder, &name)? {
                return Ok(Some(folder.join(name)));
            }
        }
        let processing = self.layout.processing();
        if has(&processing, &name)? {
            return Ok(Some(processing.join(name)));
        }
        self.ended(id)
    }
}

fn body(task: &Submission) -> io::Result<Vec<u8>> {
    let mut record = task.body.clone();
    record.task_id = task.demand.then(|| task.stem.clone());
    bytes_of(&record)
}

fn copy(error: &SubmitError) -> SubmitError {
    match error {
        SubmitError::NoRoom { free_mib, free_inodes } => {
            SubmitError::NoRoom { free_mib: *free_mib, free_inodes: *free_inodes }
        }
        other => SubmitError::Io(io::Error::other(other.to_string())),
    }
}
