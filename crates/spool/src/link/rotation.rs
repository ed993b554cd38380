//! A log's file: opened for appending, preallocated, and replaced by a smaller one without an instant of absence.
//!
//! ```text
//! G1 .<name>.new: newline + whole   G2 fdatasync   G3 link <name> → <stem>.old.jsonl   G4 rename .new → <name>
//! G5 the reader reads its old file to the end, then the new one   G6 unlink the old one
//! ```

use std::fs::File;
use std::io::{self, Write};

use model::Durability;
use rustix::fs::{AtFlags, FallocateFlags, IFlags, Mode, OFlags};
use rustix::io::Errno;

use super::writer::about;
use crate::atomic::{Folder, move_over};
use crate::crash;

/// What is kept allocated ahead of the end, in bytes: a full disk stops no orders and no reports.
const ALLOCATE: u64 = 1024 * 1024;
/// Less than this ahead, in bytes, and more is allocated.
const LOW_WATER: u64 = 256 * 1024;
/// `f_type` of btrfs, which allocates ahead in vain where it copies on write.
const BTRFS: i64 = 0x9123_683E;

/// How far a file is allocated.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    until: u64,
    /// The file system cannot.
    never: bool,
}

impl Ahead {
    /// Keeps room ahead of `len`. On a full disk the room that is left is used up, and the writes themselves fail.
    pub(super) fn keep(&mut self, file: &File, len: u64) {
        if self.never || self.until >= len.saturating_add(LOW_WATER) {
            return;
        }
        match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, len, ALLOCATE) {
            Ok(()) => self.until = len + ALLOCATE,
            Err(Errno::NOSPC | Errno::DQUOT | Errno::INTR) => {}
            Err(_) => self.never = true,
        }
    }
}

/// Opens a log for appending; whether it had to be made.
pub(super) fn open_log(folder: &Folder, name: &str) -> io::Result<(File, bool)> {
    let made = !folder.has(name)?;
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = open_at(folder, name, flags)?;
    if !file.metadata()?.is_file() {
        let kind = io::Error::from(io::ErrorKind::InvalidData);
        return Err(about(folder, name, "open", &kind));
    }
    Ok((file, made))
}

/// Makes an empty log with room ahead, for a writer that is yet to come.
pub(crate) fn make_empty(folder: &Folder, name: &str) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = open_at(folder, name, flags)?;
    no_copy_on_write(&file);
    Ahead::default().keep(&file, 0);
    Ok(())
}

fn open_at(folder: &Folder, name: &str, flags: OFlags) -> io::Result<File> {
    rustix::fs::openat(
        folder.fd(),
        name,
        flags | OFlags::NONBLOCK | OFlags::NOCTTY,
        Mode::from_raw_mode(0o640),
    )
    .map(File::from)
    .map_err(|error| about(folder, name, "open", &error.into()))
}

/// Preallocation on btrfs holds only for files that are not copied on write, which must be said while they are empty.
pub(super) fn no_copy_on_write(file: &File) {
    let btrfs = rustix::fs::fstatfs(file).is_ok_and(|fs| fs.f_type == BTRFS);
    if btrfs && let Ok(flags) = rustix::fs::ioctl_getflags(file) {
        // Without it the log works too, as long as the disk has room.
        let _ = rustix::fs::ioctl_setflags(file, flags | IFlags::NOCOW);
    }
}

/// G1–G4: the file that has the name from now on, how far it is allocated, and its length.
pub(super) fn rotate(
    folder: &Folder,
    name: &str,
    whole: &[u8],
    durability: Durability,
) -> io::Result<(File, Ahead, u64)> {
    let (new, old) = (new_name(name), old_name(name));
    folder.remove(&new)?;
    let flags =
        OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = open_at(folder, &new, flags)?;
    no_copy_on_write(&file);
    let mut ahead = Ahead::default();
    ahead.keep(&file, 0);
    let written = file.write_all(whole).and_then(|()| {
        crash::point("link.G1");
        if durability == Durability::Power { file.sync_data() } else { Ok(()) }
    });
    if let Err(error) = written {
        folder.remove(&new)?;
        return Err(about(folder, &new, "write", &error));
    }
    crash::point("link.G2");
    rustix::fs::linkat(folder.fd(), name, folder.fd(), &old, AtFlags::empty())
        .map_err(|error| about(folder, &old, "make", &error.into()))?;
    crash::point("link.G3");
    move_over(folder, &new, folder, name)?;
    crash::point("link.G4");
    let len = file.metadata()?.len();
    Ok((file, ahead, len))
}

/// Puts right what a dead writer left of a rotation; whether a rotated-away file is there for a reader behind.
pub(super) fn clear_up(folder: &Folder, name: &str) -> io::Result<bool> {
    folder.remove(&new_name(name))?;
    let Some(old) = folder.stat(&old_name(name))? else { return Ok(false) };
    let same = folder.stat(name)?.is_some_and(|current| current.st_ino == old.st_ino);
    if same {
        // Died between G3 and G4: one file under two names, and the rotation comes later.
        drop_old(folder, name)?;
    }
    Ok(!same)
}

/// G6.
pub(super) fn drop_old(folder: &Folder, name: &str) -> io::Result<()> {
    folder.remove(&old_name(name)).map(drop)
}

fn new_name(name: &str) -> String {
    format!(".{}.new", stem(name))
}

fn old_name(name: &str) -> String {
    format!("{}.old.jsonl", stem(name))
}

fn stem(name: &str) -> &str {
    name.strip_suffix(".jsonl").unwrap_or(name)
}
