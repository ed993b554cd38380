//! The one reader of a log that counts: folds what is new, stands still where a line is missing.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use model::link::{LINK_SCHEMA, Line, Seen};

use super::stamp::Stamp;
use crate::atomic::Folder;

/// Bytes asked for at once.
const CHUNK: usize = 64 * 1024;

/// What one look at a log brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fold {
    /// Whether any line was folded.
    pub changed: bool,
    /// Whether a line is missing: the state stands still until the writer's next `whole`. Say so to the writer.
    pub gap: bool,
}

/// Lines of a schema that this program does not know. What never changes is read all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Foreign {
    /// The schema of the last such line.
    pub schema: u32,
    /// The last `leave` among them.
    pub leave: Option<bool>,
}

/// The reading end of a log.
#[derive(Debug)]
pub struct Reader<L: Line> {
    folder: Folder,
    name: String,
    file: File,
    inode: u64,
    /// Where the first line begins that has not been read to its end.
    offset: u64,
    state: L::State,
    seen: Seen,
    gap: bool,
    snapshots: u64,
    foreign: Option<Foreign>,
}

impl<L: Line> Reader<L> {
    /// Opens a log; nothing is read yet.
    ///
    /// # Errors
    /// `NotFound` where there is none, else as the system says.
    pub fn open(folder: &Path, name: &str) -> io::Result<Self> {
        let folder = Folder::open(folder)?;
        let (file, inode) = open(&folder, name)?;
        Ok(Self {
            folder,
            name: name.to_owned(),
            file,
            inode,
            offset: 0,
            state: L::State::default(),
            seen: Seen::default(),
            gap: false,
            snapshots: 0,
            foreign: None,
        })
    }

    /// Folds every line that is whole by now, over a rotation if there was one (A3, G5).
    ///
    /// # Errors
    /// As the system says; what was folded before stays.
    pub fn read(&mut self) -> io::Result<Fold> {
        let mut changed = self.read_file()?;
        while self.was_replaced()? {
            // The writer wrote its last line here before it renamed the new file: this is the end of the old one.
            changed |= self.read_file()?;
            let (file, inode) = open(&self.folder, &self.name)?;
            (self.file, self.inode, self.offset) = (file, inode, 0);
            changed |= self.read_file()?;
        }
        Ok(Fold { changed, gap: self.gap })
    }

    /// The fold of what was read.
    #[must_use]
    pub const fn state(&self) -> &L::State {
        &self.state
    }

    /// The last line that was folded.
    #[must_use]
    pub const fn seen(&self) -> Seen {
        self.seen
    }

    /// Whether the state stands still for a missing line.
    #[must_use]
    pub const fn gap(&self) -> bool {
        self.gap
    }

    /// How many snapshots were folded. A brain that misses a report writes one more, which the worker answers in kind.
    #[must_use]
    pub const fn snapshots(&self) -> u64 {
        self.snapshots
    }

    /// Lines that this program cannot read, if the last one was such.
    #[must_use]
    pub const fn foreign(&self) -> Option<Foreign> {
        self.foreign
    }

    /// Another file has the name; also a missing one counts as none (the folder is being moved aside).
    fn was_replaced(&self) -> io::Result<bool> {
        Ok(self.folder.stat(&self.name)?.is_some_and(|there| there.st_ino != self.inode))
    }

    fn read_file(&mut self) -> io::Result<bool> {
        if self.file.metadata()?.len() < self.offset {
            // Somebody cut the file. From the start again: what was seen is ignored, what is missing is noticed.
            self.offset = 0;
        }
        let mut changed = false;
        let mut bytes = Vec::new();
        loop {
            let at = bytes.len();
            bytes.resize(at + CHUNK, 0);
            let count = match self.file.read_at(&mut bytes[at..], self.offset + at as u64) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    bytes.truncate(at);
                    continue;
                }
                Err(error) => return Err(error),
            };
            bytes.truncate(at + count);
            if count == 0 {
                return Ok(changed);
            }
            // An unfinished last line does not exist.
            if let Some(newline) = bytes[at..].iter().rposition(|byte| *byte == b'\n') {
                let end = at + newline + 1;
                for line in bytes[..end - 1].split(|byte| *byte == b'\n') {
                    changed |= self.fold(line);
                }
                self.offset += end as u64;
                bytes.drain(..end);
            }
        }
    }

    /// Takes one line in; whether the state moved.
    fn fold(&mut self, line: &[u8]) -> bool {
        if line.iter().all(u8::is_ascii_whitespace) {
            return false;
        }
        let parsed = serde_json::from_slice::<L>(line).ok();
        let Some(stamp) = parsed.as_ref().map(|line| Stamp::from(line.head())).or_else(|| Stamp::of(line))
        else {
            // Torn in the middle, or the zeros of a power cut: nobody knows which line this was.
            self.gap = true;
            return false;
        };
        if stamp.seen() <= self.seen {
            return false;
        }
        let next = self.seen.n > 0 && stamp.epoch == self.seen.epoch && stamp.n == self.seen.n + 1;
        let Some(parsed) = parsed.filter(|_| stamp.schema <= LINK_SCHEMA) else {
            self.note_foreign(line, stamp);
            return false;
        };
        if !parsed.head().whole && (self.gap || !next) {
            self.gap = true;
            return false;
        }
        parsed.fold_into(&mut self.state);
        self.seen = stamp.seen();
        self.gap = false;
        self.snapshots += u64::from(parsed.head().whole);
        self.foreign = None;
        true
    }

    /// A line that is one, but says what this program does not know.
    fn note_foreign(&mut self, line: &[u8], stamp: Stamp) {
        self.gap = true;
        if stamp.schema > LINK_SCHEMA {
            let said = Stamp::of(line).and_then(|stamp| stamp.leave);
            let leave = said.or_else(|| self.foreign.and_then(|before| before.leave));
            self.foreign = Some(Foreign { schema: stamp.schema, leave });
        }
    }
}

fn open(folder: &Folder, name: &str) -> io::Result<(File, u64)> {
    let file = folder.file(name).map_err(|error| super::writer::about(folder, name, "open", &error))?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(super::writer::about(folder, name, "read", &io::ErrorKind::InvalidData.into()));
    }
    Ok((file, meta.ino()))
}
