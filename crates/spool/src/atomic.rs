//! The few calls everything on disk is made of: stage, write, sync, rename; nothing is ever truncated in place.
//!
//! ```text
//! stage ─► write ─► fsync ─► rename (NOREPLACE: a new name; plain: a new content) ─► fsync of the folder (`sync`)
//! ```
//! Not here: which file goes where and when (`ledger`).

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use model::Durability;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;
use uuid::Uuid;

use crate::crash;
use crate::layout::Layout;
use crate::sync::{sync_files, sync_folder};

/// An open folder: names are looked up in it and nowhere else, also if its path is changed meanwhile.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// Opens a folder; a symbolic link is not followed.
    ///
    /// # Errors
    /// `NotFound`, or `NotADirectory` for anything else that has this name.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&path, flags, Mode::empty()).map_err(|error| match error {
            Errno::LOOP => Errno::NOTDIR,
            other => other,
        });
        Ok(Self { fd: named(fd, "open", &path)?, path })
    }

    /// Opens a folder, making it first where it is missing.
    ///
    /// # Errors
    /// As [`Folder::open`], or when it cannot be made.
    pub fn open_or_make(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        match Self::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match rustix::fs::mkdir(&path, Mode::from_raw_mode(0o700)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    other => named(other, "make", &path)?,
                }
                if let Some(parent) = path.parent() {
                    sync_folder(parent)?;
                }
                Self::open(path)
            }
            other => other,
        }
    }

    /// Where it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a file for reading: never follows a link, never waits for the other end of a pipe.
    ///
    /// # Errors
    /// As the system says; `ELOOP` for a symbolic link, `ENXIO` for a socket.
    pub fn file(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        Ok(File::from(rustix::fs::openat(&self.fd, name, flags, Mode::empty())?))
    }

    /// The whole content of a regular file, at most `bytes_max` of it.
    ///
    /// # Errors
    /// As the system says, or `InvalidData` for what is no regular file or too large.
    pub fn read(&self, name: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
        let file = self.file(name)?;
        let too_much = |what| {
            let message = format!("{} is {what}", self.path.join(name).display());
            Err(io::Error::new(io::ErrorKind::InvalidData, message))
        };
        if !file.metadata()?.is_file() {
            return too_much("not a regular file");
        }
        let mut bytes = Vec::new();
        file.take(bytes_max + 1).read_to_end(&mut bytes)?;
        if u64::try_from(bytes.len()).is_ok_and(|len| len > bytes_max) {
            return too_much("too large");
        }
        Ok(bytes)
    }

    /// What lies under this name, links not followed; none if nothing does.
    ///
    /// # Errors
    /// As the system says.
    pub fn stat(&self, name: &str) -> io::Result<Option<Stat>> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether anything has this name.
    ///
    /// # Errors
    /// As the system says.
    pub fn has(&self, name: &str) -> io::Result<bool> {
        Ok(self.stat(name)?.is_some())
    }

    /// Removes a file; whether there was one.
    ///
    /// # Errors
    /// As the system says.
    pub fn remove(&self, name: &str) -> io::Result<bool> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(self.about(name, "remove", error)),
        }
    }

    /// The open folder's own state: its mtime moves with every entry that comes or goes.
    ///
    /// # Errors
    /// As the system says.
    pub fn own_stat(&self) -> io::Result<Stat> {
        Ok(rustix::fs::fstat(&self.fd)?)
    }

    /// The open folder.
    #[must_use]
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    fn about(&self, name: &str, verb: &str, error: Errno) -> io::Error {
        let error = io::Error::from(error);
        let path = self.path.join(name);
        io::Error::new(error.kind(), format!("failed to {verb} {}: {error}", path.display()))
    }
}

fn named<T>(done: rustix::io::Result<T>, verb: &str, path: &Path) -> io::Result<T> {
    done.map_err(|error| {
        let error = io::Error::from(error);
        io::Error::new(error.kind(), format!("failed to {verb} {}: {error}", path.display()))
    })
}

/// Moves a file to a name that must be free.
///
/// # Errors
/// `AlreadyExists` when it is not, `NotFound` when there is nothing to move.
pub fn move_new(from: &Folder, old: &str, to: &Folder, new: &str) -> io::Result<()> {
    match rustix::fs::renameat_with(&from.fd, old, &to.fd, new, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => link_and_unlink(from, old, to, new),
        done => done.map_err(|error| from.about(old, "move", error)),
    }
}

/// [`move_new`] where the file system cannot rename without replacing (NFS, some FUSE).
///
/// A crash between the two calls leaves one file under two names, which the link count tells apart from two files.
fn link_and_unlink(from: &Folder, old: &str, to: &Folder, new: &str) -> io::Result<()> {
    rustix::fs::linkat(&from.fd, old, &to.fd, new, AtFlags::empty())
        .map_err(|error| from.about(old, "move", error))?;
    from.remove(old).map(drop)
}

/// Moves a file to a name, replacing what has it.
///
/// # Errors
/// `NotFound` when there is nothing to move.
pub fn move_over(from: &Folder, old: &str, to: &Folder, new: &str) -> io::Result<()> {
    rustix::fs::renameat(&from.fd, old, &to.fd, new).map_err(|error| from.about(old, "move", error))
}

/// A file that is written but has no name yet.
#[derive(Debug)]
#[must_use = "a staged file is nothing before it is moved"]
pub struct Staged {
    /// Its name in the staging folder.
    pub name: String,
}

/// The crash points of a sequence that stages: after the write, and after the sync.
pub type StagePoints = [&'static str; 2];

/// Writes a file into the staging folder, and onto the disk if `durability` asks for that.
///
/// # Errors
/// As the system says; nothing is left behind then.
pub fn stage(
    layout: &Layout,
    bytes: &[u8],
    durability: Durability,
    points: StagePoints,
) -> io::Result<Staged> {
    let mut staged = stage_all(layout, &[bytes], durability, points);
    staged.pop().unwrap_or_else(|| Err(io::Error::other("nothing was staged")))
}

/// Stages many files, synced together; one answer for each.
///
/// A failed fsync has thrown the pages away and says so only once, so such a file is written anew, once.
pub fn stage_all(
    layout: &Layout,
    contents: &[&[u8]],
    durability: Durability,
    points: StagePoints,
) -> Vec<io::Result<Staged>> {
    let folder = match Folder::open_or_make(layout.stage()) {
        Ok(folder) => folder,
        Err(error) => return contents.iter().map(|_| Err(again(&error))).collect(),
    };
    let written: Vec<io::Result<(Staged, File)>> =
        contents.iter().map(|bytes| write_new(&folder, bytes)).collect();
    crash::point(points[0]);
    let (mut staged, mut files) = (Vec::new(), Vec::new());
    for one in written {
        staged.push(one.map(|(name, file)| {
            files.push(file);
            name
        }));
    }
    if durability == Durability::Process {
        crash::point(points[1]);
        return staged;
    }
    let mut synced = sync_files(&files).into_iter();
    drop(files);
    let done = staged.into_iter().zip(contents).map(|(one, bytes)| {
        let one = one?;
        match synced.next() {
            Some(Ok(())) => Ok(one),
            Some(Err(_)) => {
                folder.remove(&one.name)?;
                let (second, file) = write_new(&folder, bytes)?;
                file.sync_all().inspect_err(|_| drop(folder.remove(&second.name)))?;
                Ok(second)
            }
            None => Err(io::Error::other("the staged file was not synced")),
        }
    });
    let done = done.collect();
    crash::point(points[1]);
    done
}

fn again(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

fn write_new(folder: &Folder, bytes: &[u8]) -> io::Result<(Staged, File)> {
    let name = Uuid::new_v4().to_string();
    let mut file = create(folder, &name)?;
    match file.write_all(bytes) {
        Ok(()) => Ok((Staged { name }, file)),
        Err(error) => {
            folder.remove(&name)?;
            Err(error)
        }
    }
}

/// Makes a file that must not exist yet, readable by the spool's group.
///
/// # Errors
/// `AlreadyExists`, or as the system says.
pub fn create(folder: &Folder, name: &str) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(folder.fd.as_fd(), name, flags, Mode::from_raw_mode(0o640))
        .map(File::from)
        .map_err(|error| folder.about(name, "make", error))
}

/// Replaces a whole file: readers see the old content or the new one, and nothing else, ever.
///
/// With `sync` the new content is on the disk before this returns; a name's first content always is, as a replaced
/// file that never was synced can vanish in a power cut. One replace of a name at a time.
///
/// # Errors
/// As the system says; the old content stands then.
pub fn replace(path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} names no file", path.display())));
    };
    let sync = sync || !path.exists();
    let name = std::str::from_utf8(name.as_bytes()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let folder = Folder::open(parent)?;
    let temporary = format!(".{name}.{}.tmp", std::process::id());
    let write = |attempt: u32| -> io::Result<()> {
        folder.remove(&temporary)?;
        let mut file = create(&folder, &temporary)?;
        crash::point("replace.P1");
        file.write_all(bytes)?;
        crash::point("replace.P2");
        if sync {
            file.sync_all()
                .map_err(|error| io::Error::new(error.kind(), format!("fsync {attempt}: {error}")))?;
            crash::point("sync.file");
        }
        crash::point("replace.P3");
        Ok(())
    };
    if let Err(first) = write(1) {
        let full = matches!(first.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let second = if full { Err(first) } else { write(2) };
        if let Err(error) = second {
            drop(folder.remove(&temporary));
            return Err(io::Error::new(error.kind(), format!("failed to write {}: {error}", path.display())));
        }
    }
    move_over(&folder, &temporary, &folder, name)?;
    crash::point("replace.P4");
    if sync {
        sync_folder(parent)?;
    }
    crash::point("replace.P5");
    Ok(())
}

/// Moves a document that cannot be read out of the way, keeping its bytes; where it lies now.
///
/// # Errors
/// As the system says.
pub fn set_aside(path: &Path, wall: model::Timestamp) -> io::Result<PathBuf> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".corrupt-{}", wall.format("%Y%m%dT%H%M%SZ")));
    fs::rename(path, &aside)?;
    Ok(PathBuf::from(aside))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spool() -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        layout.create().unwrap();
        (dir, layout)
    }

    #[test]
    fn a_new_name_is_never_taken_from_somebody() {
        let (_dir, layout) = spool();
        let (from, to) = (Folder::open(layout.stage()).unwrap(), Folder::open(layout.complete()).unwrap());
        for moves in [move_new, link_and_unlink] {
            let first = stage(&layout, b"first", Durability::Power, ["a", "b"]).unwrap();
            moves(&from, &first.name, &to, "x.json").unwrap();
            let second = stage(&layout, b"second", Durability::Process, ["a", "b"]).unwrap();
            let refused = moves(&from, &second.name, &to, "x.json").unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(to.read("x.json", 100).unwrap(), b"first");
            assert!(from.has(&second.name).unwrap() && !from.has(&first.name).unwrap());
            to.remove("x.json").unwrap();
            let gone = moves(&from, "no-such-file", &to, "x.json").unwrap_err();
            assert_eq!(gone.kind(), io::ErrorKind::NotFound);
        }
    }

    #[test]
    fn a_reader_sees_the_old_document_or_the_new_one_wherever_the_writer_dies() {
        let (_dir, layout) = spool();
        let path = layout.gpu_state();
        replace(&path, b"old", true).unwrap();
        let points = crash::passed(|| replace(&path, b"old", true).unwrap());
        let [p1, p2, synced, p3, p4, names_synced, p5] = points[..] else { panic!("{points:?}") };
        assert_eq!([p1, p2, synced, p3], ["replace.P1", "replace.P2", "sync.file", "replace.P3"]);
        assert_eq!([p4, names_synced, p5], ["replace.P4", "sync.folder", "replace.P5"]);
        for point in points {
            replace(&path, b"old", true).unwrap();
            crash::at(point, 1, || replace(&path, b"new", true)).unwrap_err();
            let expected: &[u8] = if [p1, p2, synced, p3].contains(&point) { b"old" } else { b"new" };
            assert_eq!(fs::read(&path).unwrap(), expected, "{point}");
            replace(&path, b"newer", false).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"newer");
        }
        let left: Vec<_> = fs::read_dir(layout.root()).unwrap().filter_map(Result::ok).collect();
        assert!(left.iter().all(|entry| !entry.file_name().to_string_lossy().ends_with(".tmp")));
    }

    #[test]
    fn a_first_content_is_synced_also_where_later_ones_are_not() {
        let (_dir, layout) = spool();
        let synced = |points: Vec<&str>| points.iter().filter(|point| point.starts_with("sync.")).count();
        let write = || replace(&layout.gpu_state(), b"x", false).unwrap();
        assert_eq!([synced(crash::passed(write)), synced(crash::passed(write))], [2, 0]);
    }

    #[test]
    fn a_folder_is_never_reached_through_a_link() {
        let (dir, layout) = spool();
        std::os::unix::fs::symlink(layout.complete(), dir.path().join("link")).unwrap();
        let refused = Folder::open(dir.path().join("link")).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NotADirectory);
    }

    #[test]
    fn a_pipe_is_opened_without_waiting_and_read_as_no_file() {
        let (_dir, layout) = spool();
        let folder = Folder::open(layout.stage()).unwrap();
        rustix::fs::mknodat(folder.fd(), "pipe", rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0)
            .unwrap();
        assert_eq!(folder.read("pipe", 10).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn an_unreadable_document_is_kept() {
        let (_dir, layout) = spool();
        fs::write(layout.gpu_state(), b"{torn").unwrap();
        let aside = set_aside(&layout.gpu_state(), crate::clock::wall()).unwrap();
        assert_eq!(fs::read(aside).unwrap(), b"{torn");
        assert!(!layout.gpu_state().exists());
    }
}
