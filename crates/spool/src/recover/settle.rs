//! X5, X7, X8: every task into exactly one place.
//!
//! What is settled here needs no judgement: a move that was begun is finished, a running task's file is where it
//! must be, a claim that nobody acted upon is undone. Whether an attempt counts, and what becomes of its task, is
//! the mind's to say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::PathBuf;

use model::{AttemptKey, Durability, Entry, Priority, Status, Task, TaskClass, TaskId, TaskRecord};

use super::join::{Fate, Places, has_ended, is_past, record};
use super::{Note, outbox};
use crate::atomic::{Folder, move_new, stage};
use crate::layout::{Layout, task_file, task_of_file};
use crate::ledger::essence::Essence;
use crate::ledger::{Ledger, bytes_of};
use crate::lock::last_epoch;
use crate::{crash, worker};

/// A set-aside file's name is tried with `.2`, `.3`, … so often.
const ASIDE_MAX: u32 = 100;

/// Puts the task folders right. `live` are the attempts that the workers' orders name, as `survey` gave them.
///
/// # Errors
/// When a folder cannot be listed. What could not be done with one task is a [`Note::Stuck`], and does not keep the
/// others from being settled.
pub fn settle(
    layout: &Layout,
    ledger: &mut Ledger,
    live: &BTreeMap<TaskId, (AttemptKey, Task)>,
) -> io::Result<Vec<Note>> {
    let places = Places::open(layout)?;
    let mut settler =
        Settler { layout, places, epoch: last_epoch(layout)?, notes: Vec::new(), touched: BTreeSet::new() };
    let recorded = settler.outboxes()?;
    let claimed = settler.claimed()?;
    let ids: BTreeSet<&TaskId> = claimed.iter().chain(live.keys()).chain(&recorded).collect();
    for task in ids {
        let attempt = live.get(task);
        let done = settler.task(task, attempt, recorded.contains(task));
        if let Err(error) = done {
            let path = settler.places.processing.path().join(task_file(task));
            settler.notes.push(Note::Stuck(path, error.to_string()));
        }
    }
    for folder in &settler.touched {
        ledger.pending().folder(folder);
    }
    Ok(settler.notes)
}

struct Settler<'a> {
    layout: &'a Layout,
    places: Places,
    epoch: u64,
    notes: Vec<Note>,
    touched: BTreeSet<PathBuf>,
}

impl Settler<'_> {
    /// Removes or sets aside records that were applied before; the tasks of the others, which nobody moves.
    fn outboxes(&mut self) -> io::Result<BTreeSet<TaskId>> {
        let mut recorded = BTreeSet::new();
        for id in worker::named(self.layout)? {
            let folder = match Folder::open(self.layout.outbox(&id)) {
                Ok(folder) => folder,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            for key in outbox::read(&folder)?.whole.into_keys() {
                match self.places.fate(&key)? {
                    Fate::Open => drop(recorded.insert(key.task_id)),
                    Fate::Applied => {
                        folder.remove(&crate::layout::record_file(&key))?;
                        self.touched.insert(folder.path().to_owned());
                        self.notes.push(Note::Applied(key));
                    }
                    Fate::Ended => self.second_ending(&folder, &key)?,
                }
            }
        }
        Ok(recorded)
    }

    /// A record of a task that has ended: the same ending told twice, or a breach.
    fn second_ending(&mut self, folder: &Folder, key: &AttemptKey) -> io::Result<()> {
        let name = crate::layout::record_file(key);
        let terminal = task_file(&key.task_id);
        let record = fs::read(folder.path().join(&name))?;
        let same = [&self.places.complete, &self.places.failed]
            .iter()
            .any(|place| fs::read(place.path().join(&terminal)).is_ok_and(|bytes| bytes == record));
        if same {
            folder.remove(&name)?;
            self.notes.push(Note::Applied(key.clone()));
        } else {
            let aside = self.set_aside(folder, &name, &key.task_id, "conflict")?;
            self.notes.push(Note::Conflict(key.task_id.clone(), aside));
        }
        self.touched.insert(folder.path().to_owned());
        Ok(())
    }

    /// The tasks that have a file in `processing/`.
    fn claimed(&mut self) -> io::Result<BTreeSet<TaskId>> {
        let mut claimed = BTreeSet::new();
        for entry in fs::read_dir(self.places.processing.path())? {
            let entry = entry?;
            let name = entry.file_name();
            match name.to_str().and_then(task_of_file) {
                Some(task) if entry.file_type()?.is_file() => drop(claimed.insert(task)),
                _ => {
                    let why = "only the brain puts task files here; move it to a queue folder".to_owned();
                    self.notes.push(Note::Foreign(entry.path(), why));
                }
            }
        }
        Ok(claimed)
    }

    fn task(&mut self, task: &TaskId, live: Option<&(AttemptKey, Task)>, recorded: bool) -> io::Result<()> {
        self.one_place(task)?;
        crash::point("recovery.X8");
        let name = task_file(task);
        if self.places.complete.has(&name)? || self.places.failed.has(&name)? {
            return Ok(());
        }
        if !self.places.processing.has(&name)? {
            if let Some((key, body)) = live {
                self.pin(key, body)?;
                crash::point("recovery.X7");
            }
            return Ok(());
        }
        let Some(body) = record(&self.places.processing, &name)? else {
            if live.is_none() && !recorded {
                let path = self.places.processing.path().join(&name);
                self.notes.push(Note::Foreign(path, "it cannot be read as a task".to_owned()));
            }
            return Ok(());
        };
        let undecided = live.is_some_and(|(key, _)| !is_past(&body, key.attempt)) || recorded;
        if undecided {
            return Ok(());
        }
        if has_ended(&body) {
            self.end(task, &body)?
        } else {
            self.back_in_queue(task, &body)?
        }
        crash::point("recovery.X7");
        Ok(())
    }

    /// X8: complete before failed before processing before queue; what loses is kept under another name.
    fn one_place(&mut self, task: &TaskId) -> io::Result<()> {
        let name = task_file(task);
        let (complete, failed) = (self.places.complete.stat(&name)?, self.places.failed.stat(&name)?);
        if complete.is_some() && failed.is_some() {
            let aside = self.aside_from(|places| &places.failed, &name, task, "dup")?;
            self.notes.push(Note::Duplicate(task.clone(), aside));
        }
        let processing = self.places.processing.stat(&name)?;
        if let (Some(kept), Some(_)) = (complete.or(failed), &processing) {
            let winner = if complete.is_some() { &self.places.complete } else { &self.places.failed };
            let same = kept.st_ino == processing.as_ref().map_or(0, |stat| stat.st_ino)
                || fs::read(winner.path().join(&name))?
                    == fs::read(self.places.processing.path().join(&name))?;
            self.lose_processing(task, &name, same)?;
        }
        // Files in a queue that are not this very file are drops of their own: the claim judges them.
        let winner = complete.or(failed).or(processing);
        let Some(winner) = winner else { return Ok(()) };
        let mut second = Vec::new();
        for (entry, folder) in self.places.queued(&name)? {
            if folder.stat(&entry.name)?.is_some_and(|stat| stat.st_ino == winner.st_ino) {
                folder.remove(&entry.name)?;
                second.push(folder.path().to_owned());
            }
        }
        for folder in second {
            self.notes.push(Note::SecondName(task.clone(), folder.join(&name)));
            self.touched.insert(folder);
        }
        Ok(())
    }

    fn lose_processing(&mut self, task: &TaskId, name: &str, same: bool) -> io::Result<()> {
        self.touched.insert(self.places.processing.path().to_owned());
        if same {
            self.places.processing.remove(name)?;
            let path = self.places.processing.path().join(name);
            self.notes.push(Note::SecondName(task.clone(), path));
            return Ok(());
        }
        let ended = record(&self.places.processing, name)?.is_some_and(|body| has_ended(&body));
        let kind = if ended { "conflict" } else { "dup" };
        let aside = self.aside_from(|places| &places.processing, name, task, kind)?;
        self.notes.push(if ended {
            Note::Conflict(task.clone(), aside)
        } else {
            Note::Duplicate(task.clone(), aside)
        });
        Ok(())
    }

    /// A live attempt's file is in `processing/`: brought back from a queue, or made again from the orders.
    fn pin(&mut self, key: &AttemptKey, body: &Task) -> io::Result<()> {
        let name = task_file(&key.task_id);
        if self.places.fate(key)? != Fate::Open {
            // The attempt is over, and the task waits in a queue for another one.
            return Ok(());
        }
        let wanted = Essence::of(&body.record(), body.class());
        for (entry, folder) in self.places.queued(&name)? {
            let same = |queued: TaskRecord| Essence::of(&queued, entry.class) == wanted;
            if record(folder, &name)?.is_some_and(same) {
                // A power cut has forgotten the claim.
                move_new(folder, &name, &self.places.processing, &name)?;
                self.touched.insert(folder.path().to_owned());
                self.touched.insert(self.places.processing.path().to_owned());
                self.notes.push(Note::Pinned(key.task_id.clone(), entry));
                return Ok(());
            }
        }
        let restored = TaskRecord { status: Some(Status::Assigned), ..body.record() };
        let points = ["recovery.X7.staged", "recovery.X7.synced"];
        let staged = stage(self.layout, &bytes_of(&restored)?, Durability::Power, points)?;
        move_new(&Folder::open(self.layout.stage())?, &staged.name, &self.places.processing, &name)?;
        self.touched.insert(self.places.processing.path().to_owned());
        self.notes.push(Note::Restored(key.task_id.clone()));
        Ok(())
    }

    /// F6 for a record that was already moved over its entry.
    fn end(&mut self, task: &TaskId, body: &TaskRecord) -> io::Result<()> {
        let complete = body.status == Some(Status::Complete);
        let last = if complete { &self.places.complete } else { &self.places.failed };
        let name = task_file(task);
        move_new(&self.places.processing, &name, last, &name)?;
        self.touched.insert(self.places.processing.path().to_owned());
        self.touched.insert(last.path().to_owned());
        self.notes.push(Note::Finished(task.clone(), last.path().join(name)));
        Ok(())
    }

    /// Undoes a claim (C2), or finishes a requeue (R4): uncharged, as no orders ever named the attempt.
    fn back_in_queue(&mut self, task: &TaskId, body: &TaskRecord) -> io::Result<()> {
        let class = class_of(body);
        let priority = body.priority.unwrap_or(Priority::NORMAL);
        let queue = Folder::open_or_make(self.layout.queue(class, priority))?;
        // A name that a new drop has taken meanwhile is only a wish, as ours is unless the body states it.
        for turn in 1..=ASIDE_MAX {
            let Ok(candidate) = task.candidate(turn) else { break };
            let name = task_file(&candidate);
            match move_new(&self.places.processing, &task_file(task), &queue, &name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    self.touched.insert(self.places.processing.path().to_owned());
                    self.touched.insert(queue.path().to_owned());
                    self.notes.push(Note::BackInQueue(task.clone(), Entry { class, priority, name }));
                    return Ok(());
                }
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("no name is free in {}", queue.path().display()),
        ))
    }

    fn aside_from(
        &mut self,
        from: impl Fn(&Places) -> &Folder,
        name: &str,
        task: &TaskId,
        kind: &str,
    ) -> io::Result<PathBuf> {
        let path = from(&self.places).path().to_owned();
        self.set_aside(&Folder::open(path)?, name, task, kind)
    }

    /// Keeps a file as `failed/<id>.<kind>.<epoch>`.
    fn set_aside(&mut self, from: &Folder, name: &str, task: &TaskId, kind: &str) -> io::Result<PathBuf> {
        for turn in 1..=ASIDE_MAX {
            let suffix = if turn == 1 { String::new() } else { format!(".{turn}") };
            let aside = format!("{task}.{kind}.{}{suffix}", self.epoch);
            match move_new(from, name, &self.places.failed, &aside) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    self.touched.insert(from.path().to_owned());
                    self.touched.insert(self.places.failed.path().to_owned());
                    return Ok(self.places.failed.path().join(aside));
                }
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("too many files of `{task}` were set aside"),
        ))
    }
}

/// The class of a task whose folder is not known any more.
fn class_of(body: &TaskRecord) -> TaskClass {
    let by_content = if body.script.is_some() { TaskClass::Script } else { TaskClass::Llm };
    body.task_class.or(body.task_type.map(model::TaskType::class)).unwrap_or(by_content)
}
