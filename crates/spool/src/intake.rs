//! Reading what people drop: whole or not yet, a task or not, and never a byte of what must not be read.
//!
//! ```text
//! open (no link followed, no pipe waited for) ─► fstat ─► read ─► fstat again ─► one whole object? ─► a task?
//!                                                                     └─ not yet: settling ─► rejected after `settle_s`
//! ```
//! A file is rejected only if it is a finished object that fails validation, or if it has lain unchanged for
//! `settle_s` and nobody has it open for writing. Not here: names (`scan`), and moving what is rejected (`ledger`).

mod writers;

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;

use model::config::Config;
use model::fault::Code;
use model::task::{Script, ScriptWork, Work};
use model::validate::{Folder as Place, task_of};
use model::{Entry, Fault, Millis, Task};
use rustix::io::Errno;
use serde::de::IgnoredAny;

use crate::atomic::Folder;
use crate::layout::{JSON, Layout};
use crate::ledger::fresh_id;
use crate::{clock, rights};
use writers::Writers;

/// A whole object that is younger than this, and was not seen to be closed, is looked at once more.
const YOUNG_MS: i64 = 250;
/// Longest time between two looks at a file that is not whole.
const LOOK_AGAIN_MS_MAX: i64 = 5_000;

/// Reads queue files, and remembers which of them may still be growing.
#[derive(Debug)]
pub struct Intake {
    config: Config,
    config_owner: Option<u32>,
    /// Whose files are taken, in a spool that a group shares.
    owners: Option<BTreeSet<u32>>,
    settling: HashMap<Entry, Settling>,
    writers: Writers,
}

/// A file that was not taken at once.
#[derive(Clone, Copy, Debug)]
struct Settling {
    signature: Signature,
    unchanged_since: Millis,
}

/// Whatever of a file changes when somebody writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Signature {
    device: u64,
    inode: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

/// What a queue file is.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// A task.
    Ready(Box<Task>),
    /// Perhaps not whole yet.
    Settling {
        /// When to read it again, if no event comes before.
        look_again: Millis,
        /// Why, for people.
        detail: String,
    },
    /// Never a task: to be rejected.
    Rejected(Fault),
    /// Left in place, to be looked at again with the next scan.
    Held {
        /// `not_regular`, `not_a_folder`, `permission_denied` or `unreadable`.
        code: &'static str,
        /// One sentence, with the next step.
        detail: String,
    },
    /// No longer there.
    Gone,
}

impl Intake {
    /// For this configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let mut config = config.clone();
        // A record names the real path of its script, and comes back with it when the task is tried again.
        let real = config.script_dirs.iter().filter_map(|dir| fs::canonicalize(dir).ok());
        let real: Vec<_> = real.filter(|dir| !config.script_dirs.contains(dir)).collect();
        config.script_dirs.extend(real);
        Self {
            owners: config.shared_group.as_deref().map(rights::who_may_drop),
            config,
            config_owner: None,
            settling: HashMap::new(),
            writers: Writers::default(),
        }
    }

    /// With the user who owns `config.json`, and so may own scripts.
    #[must_use]
    pub const fn config_owner(mut self, owner: Option<u32>) -> Self {
        self.config_owner = owner;
        self
    }

    /// Reads one file. `closed`: its writer was seen to close it, or to move it here.
    pub fn read(&mut self, layout: &Layout, entry: &Entry, now: Millis, closed: bool) -> Verdict {
        let verdict = self.judge(layout, entry, now, closed);
        if !matches!(verdict, Verdict::Settling { .. }) {
            self.settling.remove(entry);
        }
        verdict
    }

    /// The file is no longer in its queue.
    pub fn forget(&mut self, entry: &Entry) {
        self.settling.remove(entry);
    }

    /// How many files are waited for.
    #[must_use]
    pub fn settling(&self) -> usize {
        self.settling.len()
    }

    fn judge(&mut self, layout: &Layout, entry: &Entry, now: Millis, closed: bool) -> Verdict {
        let file = match open(layout, entry) {
            Ok(file) => file,
            Err(verdict) => return verdict,
        };
        let before = match file.metadata() {
            Ok(meta) => meta,
            Err(error) => return unreadable(&error),
        };
        if !before.is_file() {
            return not_regular();
        }
        if self.owners.as_ref().is_some_and(|owners| !owners.contains(&before.uid())) {
            let message = format!("user {} may not submit tasks here", before.uid());
            let fault = Fault::new(Code::OwnerNotAllowed, message);
            return Verdict::Rejected(fault.next("join the group named as `shared_group` in config.json"));
        }
        let bytes_max = self.config.limits.task_bytes_max;
        let mut bytes = Vec::new();
        if before.len() <= bytes_max
            && let Err(error) = (&file).take(bytes_max + 1).read_to_end(&mut bytes)
        {
            return unreadable(&error);
        }
        let signature = match file.metadata() {
            Ok(after) if Signature::of(&after) == Signature::of(&before) => Signature::of(&before),
            Ok(_) => return self.wait(entry, None, now, "it is being written".into()),
            Err(error) => return unreadable(&error),
        };
        if before.len() > bytes_max {
            let message = format!("it has {} bytes, at most {bytes_max} are allowed", before.len());
            let fault = Fault::new(Code::TooLarge, message)
                .next("put large data into a file, and name that in `input`");
            return self.unless_it_changes(entry, signature, now, fault);
        }
        let stem = entry.name.strip_suffix(JSON).unwrap_or(&entry.name);
        let place = Place { class: entry.class, priority: entry.priority, stem, fresh: &fresh_id() };
        match task_of(&bytes, &place, &self.config) {
            Err(fault) if !is_finished_object(&bytes) => self.unless_it_changes(entry, signature, now, fault),
            judged if !closed && is_young(&before) && !self.has_rested(entry, signature, now) => {
                drop(judged);
                self.wait(entry, Some(signature), now, "it was written moments ago".into())
            }
            Err(fault) => Verdict::Rejected(fault),
            Ok(task) => self.accept(task, &before),
        }
    }

    /// What would be made of these bytes as a file at this place.
    ///
    /// # Errors
    /// The [`Fault`] it would be rejected for.
    pub fn judged(&self, bytes: &[u8], place: &Place<'_>) -> Result<Task, Fault> {
        let mut task = task_of(bytes, place, &self.config)?;
        self.find_script(&mut task)?;
        Ok(task)
    }

    fn find_script(&self, task: &mut Task) -> Result<(), Fault> {
        let Work::Script(ScriptWork { script, .. }) = &mut task.work else { return Ok(()) };
        let path = rights::script_path(&self.config, self.config_owner, script)?;
        if let Script::File(written) = script {
            *written = path;
        }
        Ok(())
    }

    fn accept(&self, mut task: Task, meta: &Metadata) -> Verdict {
        if let Err(fault) = self.find_script(&mut task) {
            return Verdict::Rejected(fault);
        }
        if meta.nlink() > 1 {
            task.warnings
                .push("the file has several names (hard links); what runs is a copy of its own".into());
        }
        Verdict::Ready(Box::new(task))
    }

    /// Not a whole object: waits until it has been left alone for `settle_s`, however long it is being written.
    fn unless_it_changes(
        &mut self,
        entry: &Entry,
        signature: Signature,
        now: Millis,
        fault: Fault,
    ) -> Verdict {
        let settle = Millis::from_secs_f64(self.config.timing.settle_s);
        let rested = self.rest(entry, signature, now);
        if rested < settle {
            let left = (settle - rested).as_secs_f64();
            return self.wait(
                entry,
                Some(signature),
                now,
                format!("{fault}; rejected in {left:.0} s unless it changes"),
            );
        }
        if self.writers.has(signature.device, signature.inode, now) {
            return self.wait(
                entry,
                Some(signature),
                now,
                format!("{fault}; somebody still has it open for writing"),
            );
        }
        Verdict::Rejected(fault)
    }

    /// How long it has been unchanged.
    fn rest(&self, entry: &Entry, signature: Signature, now: Millis) -> Millis {
        match self.settling.get(entry) {
            Some(known) if known.signature == signature => now - known.unchanged_since,
            _ => Millis::ZERO,
        }
    }

    fn has_rested(&self, entry: &Entry, signature: Signature, now: Millis) -> bool {
        self.rest(entry, signature, now).0 >= YOUNG_MS
    }

    /// Not now. Without a signature it is known to be changing.
    fn wait(&mut self, entry: &Entry, signature: Option<Signature>, now: Millis, detail: String) -> Verdict {
        let rested = signature.map_or(Millis::ZERO, |signature| self.rest(entry, signature, now));
        match signature {
            Some(signature) => {
                self.settling.insert(entry.clone(), Settling { signature, unchanged_since: now - rested });
            }
            None => drop(self.settling.remove(entry)),
        }
        // Soon at first, then ever later, but not past the moment of the decision.
        let settle = Millis::from_secs_f64(self.config.timing.settle_s);
        let mut pause = Millis(rested.0.clamp(YOUNG_MS, LOOK_AGAIN_MS_MAX));
        if rested < settle {
            pause = pause.min(settle - rested);
        }
        Verdict::Settling { look_again: now + pause.max(Millis(1)), detail }
    }
}

impl Signature {
    fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.len(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

fn open(layout: &Layout, entry: &Entry) -> Result<File, Verdict> {
    let folder =
        Folder::open(layout.queue(entry.class, entry.priority)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Verdict::Gone,
            io::ErrorKind::NotADirectory => Verdict::Held {
                code: "not_a_folder",
                detail: "its queue is not a folder; move that away, and it is made again".into(),
            },
            _ => unreadable(&error),
        })?;
    folder.file(&entry.name).map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::NOENT) => Verdict::Gone,
        Some(Errno::LOOP | Errno::NXIO | Errno::NODEV) => not_regular(),
        Some(Errno::ACCESS | Errno::PERM) => {
            let detail = match folder.stat(&entry.name) {
                Ok(Some(stat)) => format!(
                    "it cannot be read: it belongs to user {} and has mode {:o}; `chmod` or `chown` it",
                    stat.st_uid,
                    stat.st_mode & 0o7777
                ),
                _ => "it cannot be read".into(),
            };
            Verdict::Held { code: "permission_denied", detail }
        }
        _ => unreadable(&error),
    })
}

fn not_regular() -> Verdict {
    let detail = "it is no regular file, and links are not followed; copy the file itself here".into();
    Verdict::Held { code: "not_regular", detail }
}

fn unreadable(error: &io::Error) -> Verdict {
    Verdict::Held { code: "unreadable", detail: format!("it cannot be read now: {error}") }
}

/// Whether this is one whole JSON object, whatever it says. Only such a file is judged without waiting.
fn is_finished_object(bytes: &[u8]) -> bool {
    let text = std::str::from_utf8(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes));
    text.is_ok_and(|text| {
        text.trim_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok()
    })
}

/// By the wall clock, as the file's time is; a time in the future is old.
fn is_young(meta: &Metadata) -> bool {
    let written_ms = meta.mtime().saturating_mul(1_000).saturating_add(meta.mtime_nsec() / 1_000_000);
    let age_ms = clock::wall().timestamp_millis().saturating_sub(written_ms);
    (-YOUNG_MS..YOUNG_MS).contains(&age_ms)
}

#[cfg(test)]
mod tests;
