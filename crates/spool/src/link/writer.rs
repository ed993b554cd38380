//! The one writer of a log: appends amendments, begins anew with a snapshot whenever it cannot know what lies there.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use model::Durability;
use model::link::{Head, LINK_SCHEMA, Line, Seen};

use super::rotation::{self, Ahead};
use super::stamp::last_stamp;
use crate::atomic::Folder;
use crate::crash;
use crate::sync::{Pending, SyncJob};

/// A log is rotated beyond this size, in bytes: a reader that starts anew parses at most this much.
pub const ROTATE_AT: u64 = 4 * 1024 * 1024;

/// A reader that still misses a line after so many snapshots in a row cannot be healed by one more; the next
/// amendment begins a new count.
const HEALS_MAX: u32 = 3;

/// The writing end of a log.
#[derive(Debug)]
pub struct Writer<L: Line> {
    folder: Folder,
    name: String,
    file: Arc<File>,
    ahead: Ahead,
    /// Bytes in the current file.
    len: u64,
    epoch: u64,
    /// Number of the last line.
    n: u64,
    state: L::State,
    /// The last write may have left anything: the next one begins with a newline and a `whole`.
    broken: bool,
    heals: u32,
    rotate_at: u64,
    /// Bytes of the snapshot that the current file began with.
    whole_len: u64,
    /// The first line that a reader of the rotated-away file finds only in the current one.
    old_until: Option<Seen>,
    durability: Durability,
    pending: Pending,
}

impl<L: Line> Writer<L> {
    /// Begins a life of writing `name` in `folder`: makes the log or goes on at its end, with a newline and a
    /// `whole` of `state` (A1). What an earlier writer left half done of a rotation is put right.
    ///
    /// # Errors
    /// `InvalidData` when a writer of a later epoch has been here, else as the system says.
    pub fn create(folder: &Path, name: &str, epoch: u64, state: L::State) -> io::Result<Self> {
        let at = Folder::open(folder)?;
        let last = last_stamp(&folder.join(name))?;
        if last.epoch > epoch {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "failed to write {} in epoch {epoch}: epoch {} has begun; another program has taken over",
                    folder.join(name).display(),
                    last.epoch
                ),
            ));
        }
        let (file, made) = rotation::open_log(&at, name)?;
        let len = file.metadata()?.len();
        let old = rotation::clear_up(&at, name)?;
        let mut writer = Self {
            folder: at,
            name: name.to_owned(),
            file: Arc::new(file),
            ahead: Ahead::default(),
            len,
            epoch,
            n: if last.epoch == epoch { last.n } else { 0 },
            state,
            broken: true,
            heals: 0,
            rotate_at: ROTATE_AT,
            whole_len: 0,
            old_until: None,
            durability: Durability::Power,
            pending: Pending::new(Durability::Power),
        };
        // The names of a worker's folder and of its log were made by somebody who does not sync (W7).
        writer.note_folder();
        if let Some(parent) = folder.parent() {
            writer.pending.folder(parent);
        }
        if made {
            rotation::no_copy_on_write(&writer.file);
        }
        let seen = writer.append_whole()?;
        if old {
            writer.old_until = Some(seen);
        }
        Ok(writer)
    }

    /// The same writer at another level of durability: at `process` nothing is ever synced.
    #[must_use]
    pub fn at(mut self, durability: Durability) -> Self {
        let durable = Pending::new(durability);
        let noted = std::mem::replace(&mut self.pending, durable);
        if durability == Durability::Power {
            self.pending = noted;
        }
        self.durability = durability;
        self
    }

    /// The same writer with another size at which it rotates, in bytes.
    #[must_use]
    pub const fn rotating_at(mut self, bytes: u64) -> Self {
        self.rotate_at = bytes;
        self
    }

    /// What the log says, all lines folded.
    #[must_use]
    pub const fn state(&self) -> &L::State {
        &self.state
    }

    /// The epoch and number of the last line.
    #[must_use]
    pub const fn written(&self) -> Seen {
        Seen { epoch: self.epoch, n: self.n }
    }

    /// Appends an amendment; its head is set here. A reader that has `seen` this far has folded it.
    ///
    /// # Errors
    /// As the system says; the state is as before then, and the next line will be a `whole` that says so.
    pub fn amend(&mut self, mut line: L) -> io::Result<Seen> {
        if self.len >= self.rotate_at.max(self.whole_len.saturating_mul(2)) {
            self.rotate();
        }
        self.heals = 0;
        let mut after = self.state.clone();
        line.set_head(Head { epoch: self.epoch, n: self.n + 1, schema: LINK_SCHEMA, whole: false });
        line.fold_into(&mut after);
        if self.broken {
            let before = std::mem::replace(&mut self.state, after);
            return self.append_whole().inspect_err(|_| self.state = before);
        }
        self.append(&line, false)?;
        self.state = after;
        Ok(self.written())
    }

    /// Answers a reader that misses a line with a newline and a `whole`.
    ///
    /// # Errors
    /// As the system says.
    pub fn heal(&mut self) -> io::Result<Seen> {
        if self.heals >= HEALS_MAX {
            return Ok(self.written());
        }
        self.heals += 1;
        self.append_whole()
    }

    /// The reader has folded the log up to here: a rotated-away file that it is past is removed (G6).
    pub fn seen_by_reader(&mut self, seen: Seen) {
        if self.old_until.is_some_and(|first| seen >= first) {
            match rotation::drop_old(&self.folder, &self.name) {
                Ok(()) => self.old_until = None,
                Err(error) => tracing::debug!(%error, log = self.name, "the rotated log stays for now"),
            }
            crash::point("link.G6");
        }
    }

    /// What must be synced of all that was written since the last call (A2); empty at `process`.
    pub fn sync_job(&mut self) -> SyncJob {
        self.pending.take()
    }

    /// The folder has another path now; the open log is the same.
    pub(crate) fn moved_to(&mut self, folder: &Path) -> io::Result<()> {
        self.folder = Folder::open(folder)?;
        Ok(())
    }

    /// Lets everything from now on be written elsewhere; what was written to until now.
    #[cfg(test)]
    pub(super) fn divert(&mut self, file: File) -> File {
        let before = std::mem::replace(&mut self.file, Arc::new(file));
        self.pending = Pending::new(self.durability);
        Arc::into_inner(before).expect("nobody else syncs it")
    }

    fn note_folder(&mut self) {
        self.pending.folder(self.folder.path());
    }

    fn append_whole(&mut self) -> io::Result<Seen> {
        let line = L::whole_of(&self.state);
        self.append(&line, true)?;
        Ok(self.written())
    }

    /// A1: one `write` of one whole line.
    fn append(&mut self, line: &L, whole: bool) -> io::Result<()> {
        let bytes = encode(line, Head { epoch: self.epoch, n: self.n + 1, schema: LINK_SCHEMA, whole })?;
        // Before the write, so that the line fits also when the disk is full by now.
        self.ahead.keep(&self.file, self.len);
        match write_once(&self.file, &bytes) {
            Ok(()) => {
                self.len += bytes.len() as u64;
                self.n += 1;
                self.broken = false;
                self.pending.file(&self.file);
                crash::point("link.A1");
                Ok(())
            }
            Err((written, error)) => {
                self.broken = true;
                if written + 1 == bytes.len() {
                    // Only the newline is missing: the next one would complete a line that counts as not written.
                    drop(self.file.set_len(self.len));
                    self.ahead = Ahead::default();
                }
                self.len = self.file.metadata().map_or(self.len, |meta| meta.len());
                Err(about(&self.folder, &self.name, "append to", &error))
            }
        }
    }

    /// G1–G4. What does not work now is tried again at the next amendment; the file grows on until then.
    fn rotate(&mut self) {
        // The reader has not yet left the file before this one: a second one would have no name.
        if self.old_until.is_some() {
            return;
        }
        let head = Head { epoch: self.epoch, n: self.n + 1, schema: LINK_SCHEMA, whole: true };
        let rotated = encode(&L::whole_of(&self.state), head)
            .and_then(|bytes| rotation::rotate(&self.folder, &self.name, &bytes, self.durability));
        match rotated {
            Ok((file, ahead, len)) => {
                self.file = Arc::new(file);
                self.ahead = ahead;
                (self.len, self.whole_len) = (len, len);
                self.n += 1;
                self.broken = false;
                self.old_until = Some(self.written());
                self.note_folder();
                self.pending.file(&self.file);
            }
            Err(error) => tracing::debug!(%error, log = self.name, "the log is not rotated now and grows on"),
        }
    }
}

/// A line as it is written: a snapshot begins with a newline, as it may follow anything.
fn encode<L: Line>(line: &L, head: Head) -> io::Result<Vec<u8>> {
    let mut line = line.clone();
    line.set_head(head);
    let mut bytes = if head.whole { vec![b'\n'] } else { Vec::new() };
    serde_json::to_writer(&mut bytes, &line)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Writes all of it in one call; on failure, how much of it lies there.
fn write_once(mut file: &File, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    loop {
        match file.write(&bytes[written..]) {
            Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((written, error)),
        }
        // A short write is tried once more, for the reason of its shortness if for nothing else.
        if written == bytes.len() {
            return Ok(());
        }
    }
}

pub(super) fn about(folder: &Folder, name: &str, doing: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("failed to {doing} {}: {error}", folder.path().join(name).display()))
}
