//! What the command line asks of the brain, and the answers: one file each, under the same name.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use model::request::{Answer, Request};
use model::{Durability, Timestamp};
use uuid::Uuid;

use crate::atomic::{Folder, move_new, stage};
use crate::layout::{JSON, Layout};
use crate::lock::living_brain;
use crate::sync::sync_folder;

/// What nobody has come for in this many seconds is removed.
const KEPT_S: i64 = 3_600;
/// Largest request or answer.
const BYTES_MAX: u64 = 16 << 20;

/// Between two looks for the answer: below what a person notices.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Between two looks whether the brain still lives.
const BRAIN_CHECK_EVERY: Duration = Duration::from_secs(1);

/// How asking went.
#[derive(Debug)]
pub enum Asked {
    /// The brain answered.
    Answered(Answer),
    /// Not in time; the request still lies there, unless it was to be forgotten.
    Unanswered,
    /// The brain has gone; the same.
    Orphaned,
}

/// Requests and answers.
#[derive(Debug)]
pub struct Requests {
    layout: Layout,
    durability: Durability,
    given_out: BTreeSet<Uuid>,
}

impl Requests {
    /// Of this spool.
    #[must_use]
    pub const fn new(layout: Layout, durability: Durability) -> Self {
        Self { layout, durability, given_out: BTreeSet::new() }
    }

    /// Asks; the answer will have this name.
    ///
    /// # Errors
    /// As the system says; then nothing was asked.
    pub fn ask(&self, request: &Request) -> io::Result<Uuid> {
        let id = Uuid::now_v7();
        self.put(&self.layout.requests(), &id, &serde_json::to_vec(request)?)?;
        Ok(id)
    }

    /// Asks, and waits at most `patience` for the answer. An unanswered question is taken back if `forget` says so.
    ///
    /// # Errors
    /// As the system says, or `InvalidData` for an answer that cannot be understood.
    pub fn ask_and_wait(&self, request: &Request, patience: Duration, forget: bool) -> io::Result<Asked> {
        let id = self.ask(request)?;
        let begun = Instant::now();
        let mut brain_checked = begun;
        let outcome = loop {
            if let Some(answer) = self.answer_of(&id)? {
                return Ok(Asked::Answered(answer));
            }
            if begun.elapsed() >= patience {
                break Asked::Unanswered;
            }
            if brain_checked.elapsed() >= BRAIN_CHECK_EVERY {
                brain_checked = Instant::now();
                if living_brain(&self.layout).is_none() {
                    // It may have answered with its last breath.
                    match self.answer_of(&id)? {
                        Some(answer) => return Ok(Asked::Answered(answer)),
                        None => break Asked::Orphaned,
                    }
                }
            }
            std::thread::sleep(LOOK_EVERY);
        };
        if forget {
            self.withdraw(&id)?;
        }
        Ok(outcome)
    }

    /// The answer, once there is one; it is removed.
    ///
    /// # Errors
    /// As the system says, or `InvalidData` for an answer that cannot be understood.
    pub fn answer_of(&self, id: &Uuid) -> io::Result<Option<Answer>> {
        let folder = Folder::open_or_make(self.layout.answers())?;
        match folder.read(&file(id), BYTES_MAX) {
            Ok(bytes) => {
                folder.remove(&file(id))?;
                Ok(Some(serde_json::from_slice(&bytes)?))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes a question back; whether it was still unanswered.
    ///
    /// # Errors
    /// As the system says.
    pub fn withdraw(&self, id: &Uuid) -> io::Result<bool> {
        Folder::open_or_make(self.layout.requests())?.remove(&file(id))
    }

    /// Requests that this value has not given out before, the oldest first. They stay until they are answered, so
    /// that the next brain finds what this one did not come to.
    ///
    /// # Errors
    /// As the system says. A file that is no request is removed with a warning.
    pub fn take(&mut self) -> io::Result<Vec<(Uuid, Request)>> {
        let folder = Folder::open_or_make(self.layout.requests())?;
        let ids: BTreeSet<Uuid> = ids_in(folder.path())?;
        self.given_out.retain(|id| ids.contains(id));
        let mut new = Vec::new();
        for id in ids.difference(&self.given_out.clone()) {
            match folder.read(&file(id), BYTES_MAX) {
                Ok(bytes) => match serde_json::from_slice(&bytes) {
                    Ok(request) => new.push((*id, request)),
                    Err(error) => {
                        tracing::warn!(%id, %error, "a request cannot be understood and is removed");
                        folder.remove(&file(id))?;
                        continue;
                    }
                },
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            }
            self.given_out.insert(*id);
        }
        Ok(new)
    }

    /// Answers, and removes the request.
    ///
    /// # Errors
    /// As the system says; then it may be repeated.
    pub fn answer(&mut self, id: &Uuid, answer: &Answer) -> io::Result<()> {
        match self.put(&self.layout.answers(), id, &serde_json::to_vec(answer)?) {
            // A brain that died here has answered already.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            done => done?,
        }
        self.withdraw(id).map(drop)
    }

    /// Removes requests and answers that are older than an hour by the wall clock; how many.
    ///
    /// # Errors
    /// As the system says.
    pub fn sweep(&mut self, wall: Timestamp) -> io::Result<usize> {
        let mut removed = 0;
        for path in [self.layout.requests(), self.layout.answers()] {
            let folder = Folder::open_or_make(path)?;
            for id in ids_in(folder.path())? {
                let written = fs::metadata(folder.path().join(file(&id))).and_then(|meta| meta.modified());
                let old = written.is_ok_and(|at| age_s(at, wall) > KEPT_S);
                removed += usize::from(old && folder.remove(&file(&id))?);
            }
        }
        Ok(removed)
    }

    fn put(&self, folder: &Path, id: &Uuid, bytes: &[u8]) -> io::Result<()> {
        let staged = stage(&self.layout, bytes, self.durability, ["request.S3", "request.S4"])?;
        let staging = Folder::open(self.layout.stage())?;
        let to = Folder::open_or_make(folder)?;
        move_new(&staging, &staged.name, &to, &file(id))
            .inspect_err(|_| drop(staging.remove(&staged.name)))?;
        match self.durability {
            Durability::Power => sync_folder(folder),
            Durability::Process => Ok(()),
        }
    }
}

fn file(id: &Uuid) -> String {
    format!("{id}{JSON}")
}

fn ids_in(folder: &Path) -> io::Result<BTreeSet<Uuid>> {
    let names = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name()));
    let mut ids = BTreeSet::new();
    for name in names {
        if let Some(id) = name?.to_str().and_then(|name| name.strip_suffix(JSON)?.parse().ok()) {
            ids.insert(id);
        }
    }
    Ok(ids)
}

fn age_s(at: SystemTime, wall: Timestamp) -> i64 {
    (wall - Timestamp::from(at)).num_seconds()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use model::request::Verb;

    fn house() -> (tempfile::TempDir, Layout) {
        let dir = crate::rig::folder();
        let layout = Layout::new(dir.path());
        layout.create().unwrap();
        (dir, layout)
    }

    fn request(id: &str) -> Request {
        Request::new(Verb::Cancel, &[id.into()], "test".into())
    }

    fn answer() -> Answer {
        Answer { ok: true, message: "done".into(), ..Answer::default() }
    }

    #[test]
    fn a_question_is_answered_once_and_the_asker_takes_the_answer_with_him() {
        let (_dir, layout) = house();
        let asker = Requests::new(layout.clone(), Durability::Power);
        let mut brain = Requests::new(layout.clone(), Durability::Process);
        let (first, second) = (asker.ask(&request("a")).unwrap(), asker.ask(&request("b")).unwrap());
        assert_eq!(brain.take().unwrap(), [(first, request("a")), (second, request("b"))]);
        assert_eq!(brain.take().unwrap(), []);
        assert_eq!(asker.answer_of(&first).unwrap(), None);
        brain.answer(&first, &answer()).unwrap();
        assert_eq!(asker.answer_of(&first).unwrap(), Some(answer()));
        assert_eq!(asker.answer_of(&first).unwrap(), None);
        let mut next_brain = Requests::new(layout, Durability::Process);
        assert_eq!(next_brain.take().unwrap(), [(second, request("b"))], "what is unanswered is found again");
        assert!(asker.withdraw(&second).unwrap() && !asker.withdraw(&second).unwrap());
    }

    #[test]
    fn what_is_no_request_is_removed_and_stops_nobody() {
        let (_dir, layout) = house();
        let mut brain = Requests::new(layout.clone(), Durability::Process);
        fs::write(layout.requests().join(file(&Uuid::now_v7())), "{torn").unwrap();
        fs::write(layout.requests().join("note.txt"), "").unwrap();
        let id = brain.ask(&request("a")).unwrap();
        assert_eq!(brain.take().unwrap(), [(id, request("a"))]);
        assert_eq!(ids_in(&layout.requests()).unwrap().len(), 1);
    }

    #[test]
    fn after_an_hour_nobody_comes_any_more() {
        let (_dir, layout) = house();
        let mut brain = Requests::new(layout, Durability::Process);
        let id = brain.ask(&request("a")).unwrap();
        brain.answer(&id, &answer()).unwrap();
        brain.ask(&request("b")).unwrap();
        assert_eq!(brain.sweep(clock::wall()).unwrap(), 0);
        assert_eq!(brain.sweep(clock::wall() + chrono::Duration::seconds(KEPT_S + 60)).unwrap(), 2);
    }
}
