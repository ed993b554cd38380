//! The lock of the one brain, and what every lock file says about its holder.
//!
//! A life is a lock held, never a number in a file: the kernel frees the lock with its last holder, whatever killed
//! it. The words in a lock file only name the holder to people. Locks of workers: `worker`, `recover`.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use model::WorkerId;
use serde::{Deserialize, Serialize};

use crate::layout::Layout;
use crate::{atomic, crash, process};

/// A lock file that was replaced while we locked it is tried this often; more means that somebody does it on purpose.
const TRIES_MAX: u32 = 3;

/// Who holds a lock, as the lock file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// Its start, in clock ticks since boot.
    pub starttime: u64,
    /// A brain's epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// A worker's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerId>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pid {}", self.pid)?;
        if let Some(epoch) = self.epoch {
            write!(f, ", epoch {epoch}")?;
        }
        if let Some(worker) = &self.worker {
            write!(f, ", worker {worker}")?;
        }
        Ok(())
    }
}

/// Why the brain's lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another brain has it (exit code 3).
    #[error("a brain is running on this spool already ({}); stop it with `gpuspool down`, or use its spool", named(*pid, *epoch))]
    Held {
        /// Its process id, where it could be found.
        pid: Option<u32>,
        /// Its start, in clock ticks since boot.
        starttime: Option<u64>,
        /// Its epoch.
        epoch: Option<u64>,
    },
    /// Somebody keeps replacing the lock file (exit code 4).
    #[error("{} is being replaced by another program; find out which, and start again", path.display())]
    Replaced {
        /// The lock file.
        path: PathBuf,
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

fn named(pid: Option<u32>, epoch: Option<u64>) -> String {
    match (pid, epoch) {
        (Some(pid), Some(epoch)) => format!("pid {pid}, epoch {epoch}"),
        (Some(pid), None) => format!("pid {pid}"),
        _ => "its pid could not be found out".to_owned(),
    }
}

/// The right to act on this spool. Given back when it is dropped, or by the kernel.
#[derive(Debug)]
pub struct BrainLock {
    file: File,
    path: PathBuf,
    epoch: u64,
}

impl BrainLock {
    /// Takes the lock and begins a new epoch, which is on the disk before this returns.
    ///
    /// # Errors
    /// [`LockError::Held`] names the other brain.
    pub fn take(layout: &Layout) -> Result<Self, LockError> {
        let path = layout.brain_lock();
        for _ in 0..TRIES_MAX {
            let file = open_lock(&path).map_err(|source| io_error("open", &path, source))?;
            crash::point("lock.L1");
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(held(&path, &file)),
                Err(TryLockError::Error(source)) => return Err(io_error("lock", &path, source)),
            }
            crash::point("lock.L2");
            if !is_at(&file, &path) {
                continue;
            }
            crash::point("lock.L3");
            let epoch =
                1 + last_epoch(layout).map_err(|source| io_error("read", &layout.brain_epoch(), source))?;
            atomic::replace(&layout.brain_epoch(), format!("{epoch}\n").as_bytes(), true)
                .map_err(|source| io_error("write", &layout.brain_epoch(), source))?;
            crash::point("lock.L4");
            sign(&file, Some(epoch), None).map_err(|source| io_error("write", &path, source))?;
            return Ok(Self { file, path, epoch });
        }
        Err(LockError::Replaced { path })
    }

    /// The number of this brain's life; higher than that of every brain before it.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether the lock file still is the one that is locked. If not, another brain can start: stop acting.
    #[must_use]
    pub fn still_ours(&self) -> bool {
        is_at(&self.file, &self.path)
    }
}

/// The epoch of the latest brain; 0 before the first. Where the file is lost, the workers' orders remember it.
///
/// # Errors
/// As the system says.
pub fn last_epoch(layout: &Layout) -> io::Result<u64> {
    let stated = match fs::read_to_string(layout.brain_epoch()) {
        Ok(text) => text.trim().parse::<u64>().ok(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => None,
        Err(error) => return Err(error),
    };
    if let Some(epoch) = stated {
        return Ok(epoch);
    }
    let signed = File::open(layout.brain_lock())
        .ok()
        .and_then(|file| holder_of(&file))
        .and_then(|holder| holder.epoch);
    let ordered = crate::worker::named(layout)?.into_iter().filter_map(|worker| {
        crate::link::last_stamp(&layout.worker(&worker).join(crate::layout::ORDERS))
            .ok()
            .map(|seen| seen.epoch)
    });
    Ok(ordered.chain(signed).max().unwrap_or_default())
}

/// Opens a lock file, making it where it is missing. It is never removed or renamed: that would give two holders.
pub(crate) fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o640)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
}

/// Whether the open file is the one that has this name now.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Writes into a lock file that is held who holds it.
pub(crate) fn sign(mut file: &File, epoch: Option<u64>, worker: Option<WorkerId>) -> io::Result<()> {
    let me = process::me()?;
    let mut text = serde_json::to_string(&Holder { pid: me.pid, starttime: me.starttime, epoch, worker })?;
    text.push('\n');
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())
}

/// The brain that works on this spool, if one does; where that cannot be seen, none.
///
/// The words in the lock file outlive the brain, so the process they name must live, and the lock must be held. The
/// lock is only tried where the kernel's list does not show it: trying it could turn a starting brain away.
#[must_use]
pub fn living_brain(layout: &Layout) -> Option<Holder> {
    let file = File::open(layout.brain_lock()).ok()?;
    let holder = holder_of(&file)?;
    let lives = process::identity_of(holder.pid).is_some_and(|found| found.starttime == holder.starttime);
    let held =
        || locker_of(&file).is_some() || matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
    (lives && held()).then_some(holder)
}

/// Who holds a lock file, as it says itself; none where it says nothing (the holder has only just taken it).
#[must_use]
pub fn holder_of(mut file: &File) -> Option<Holder> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(4_096).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// The process that locked this file, from `/proc/locks`. It may be dead while a child of it keeps the lock.
#[must_use]
pub fn locker_of(file: &File) -> Option<u32> {
    let inode = file.metadata().ok()?.ino();
    let dev = file.metadata().ok()?.dev();
    let device = format!("{:02x}:{:02x}:{inode}", rustix::fs::major(dev), rustix::fs::minor(dev));
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let held = fields.get(1) == Some(&"FLOCK") && fields.get(5) == Some(&device.as_str());
        held.then(|| fields.get(4)?.parse().ok()).flatten()
    })
}

fn held(path: &Path, file: &File) -> LockError {
    let holder = holder_of(file);
    let pid = holder.as_ref().map(|holder| holder.pid).or_else(|| locker_of(file));
    tracing::debug!(path = %path.display(), ?pid, "the lock is held");
    LockError::Held {
        pid,
        starttime: holder.as_ref().map(|holder| holder.starttime),
        epoch: holder.and_then(|holder| holder.epoch),
    }
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> LockError {
    LockError::Io { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Quiet = std::sync::RwLockReadGuard<'static, ()>;

    fn spool() -> (Quiet, tempfile::TempDir, Layout) {
        let quiet = process::STARTING.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        layout.create().unwrap();
        (quiet, dir, layout)
    }

    #[test]
    fn the_second_brain_is_told_who_the_first_is() {
        let (_quiet, _dir, layout) = spool();
        let first = BrainLock::take(&layout).unwrap();
        let refused = BrainLock::take(&layout).unwrap_err();
        let LockError::Held { pid, epoch, .. } = &refused else { panic!("{refused}") };
        assert_eq!((*pid, *epoch), (Some(std::process::id()), Some(1)));
        assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
        assert_eq!(locker_of(&first.file), Some(std::process::id()), "also the kernel knows it");
    }

    #[test]
    fn epochs_only_rise_also_when_their_file_is_lost() {
        let (_quiet, _dir, layout) = spool();
        assert_eq!(BrainLock::take(&layout).unwrap().epoch(), 1);
        assert_eq!(BrainLock::take(&layout).unwrap().epoch(), 2);
        fs::remove_file(layout.brain_epoch()).unwrap();
        assert_eq!(BrainLock::take(&layout).unwrap().epoch(), 3);
        fs::write(layout.brain_epoch(), "torn\0").unwrap();
        assert_eq!(BrainLock::take(&layout).unwrap().epoch(), 4);
    }

    #[test]
    fn a_replaced_lock_file_is_noticed() {
        let (_quiet, dir, layout) = spool();
        let lock = BrainLock::take(&layout).unwrap();
        assert!(lock.still_ours());
        fs::write(dir.path().join("other"), "").unwrap();
        fs::rename(dir.path().join("other"), layout.brain_lock()).unwrap();
        assert!(!lock.still_ours());
        fs::remove_file(layout.brain_lock()).unwrap();
        assert!(!lock.still_ours());
    }

    #[test]
    fn a_brain_that_dies_while_it_starts_wastes_a_number_at_most() {
        let (_quiet, _dir, layout) = spool();
        let points = crash::passed(|| drop(BrainLock::take(&layout).unwrap()));
        let own: Vec<_> = points.into_iter().filter(|point| point.starts_with("lock.")).collect();
        assert_eq!(own, ["lock.L1", "lock.L2", "lock.L3", "lock.L4"]);
        let mut last = 1;
        for point in own {
            crash::at(point, 1, || BrainLock::take(&layout).map(drop)).unwrap_err();
            let next = BrainLock::take(&layout).unwrap().epoch();
            assert!(next > last && next <= last + 2, "{point}: {last} then {next}");
            last = next;
        }
    }
}
