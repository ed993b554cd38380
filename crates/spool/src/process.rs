//! Who a process is beyond its number, whether it still lives, and what a dead worker left running.
//!
//! A pid is used again sooner or later; pid, start time and boot together are not. A death is *noticed* through a
//! pidfd and *decided* by a lock (`recover::pronounce`). Not here: ending anything (`engine`).

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use model::WorkerId;
use model::link::ProcessIdentity;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::clock;

/// The environment variable that every process of a worker carries; its value is the worker's uuid.
pub const MARKER: &str = "GPUSPOOL_WORKER";

/// This process.
///
/// # Errors
/// Where `/proc` cannot be read.
pub fn me() -> io::Result<ProcessIdentity> {
    let pid = std::process::id();
    let stat = read_stat(pid)?;
    Ok(ProcessIdentity { pid, starttime: stat.starttime, boot_id: clock::boot_id()? })
}

/// The process that has this pid now; none if there is none, or only its corpse.
#[must_use]
pub fn identity_of(pid: u32) -> Option<ProcessIdentity> {
    let stat = read_stat(pid).ok().filter(Stat::lives)?;
    Some(ProcessIdentity { pid, starttime: stat.starttime, boot_id: clock::boot_id().ok()? })
}

/// Whether exactly this process lives.
#[must_use]
pub fn is_alive(process: &ProcessIdentity) -> bool {
    identity_of(process.pid).as_ref() == Some(process)
}

/// A descriptor that becomes readable at the death of exactly this process; none if it is dead.
///
/// The start time is compared after the descriptor is open: what is open cannot become another process.
#[must_use]
pub fn pidfd_of(process: &ProcessIdentity) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(process.pid).ok()?)?;
    let pidfd =
        pidfd_open(pid, PidfdFlags::NONBLOCK).or_else(|_| pidfd_open(pid, PidfdFlags::empty())).ok()?;
    is_alive(process).then_some(pidfd)
}

/// Waits for the death of the process behind a descriptor of [`pidfd_of`]. Needs a runtime with I/O.
///
/// # Errors
/// When the descriptor cannot be watched.
pub async fn ended(pidfd: OwnedFd) -> io::Result<()> {
    #[expect(
        deprecated,
        reason = "an `OwnedFd` keeps its descriptor for life, which is all that the new name's `unsafe` asks for"
    )]
    let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
    pidfd.readable().await.map(drop)
}

/// Every living process that carries the marker of this worker, itself included; processes of other users, whose
/// environment cannot be read, are not ours.
#[must_use]
pub fn marked_with(worker: &WorkerId) -> Vec<ProcessIdentity> {
    let wanted = format!("{MARKER}={worker}");
    let Ok(listing) = fs::read_dir("/proc") else { return Vec::new() };
    listing
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| {
            let before = identity_of(pid)?;
            let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
            let marked = environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes());
            (marked && identity_of(pid)? == before).then_some(before)
        })
        .collect()
}

struct Stat {
    state: u8,
    starttime: u64,
}

impl Stat {
    fn lives(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x')
    }
}

fn read_stat(pid: u32) -> io::Result<Stat> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read(&path)
        .map_err(|error| io::Error::new(error.kind(), format!("failed to read {path}: {error}")))?;
    parse_stat(&text)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{path} has no start time")))
}

/// Fields 3 and 22. The program's name before them is in parentheses and may itself hold parentheses and spaces.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let after_name = text.iter().rposition(|byte| *byte == b')')? + 1;
    let mut fields = std::str::from_utf8(&text[after_name..]).ok()?.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let starttime = fields.nth(18)?.parse().ok()?;
    Some(Stat { state, starttime })
}

/// A child that is being started shares every open file, and with it every lock, until it runs its own program: for
/// an instant, even after `spawn` has returned, it keeps what its parent has let go. Tests that start children
/// write-lock this, tests about locks read-lock it.
#[cfg(test)]
pub(crate) static STARTING: std::sync::RwLock<()> = std::sync::RwLock::new(());

/// Starts `cat`, which ends when its input does, and waits until it runs.
#[cfg(test)]
pub(crate) fn started_cat(command: &mut std::process::Command) -> std::process::Child {
    use std::io::{Read, Write};
    use std::process::Stdio;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"runs").unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 4]).unwrap();
    child
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_is_more_than_its_number() {
        let me = me().unwrap();
        assert!(is_alive(&me) && pidfd_of(&me).is_some());
        let later = ProcessIdentity { starttime: me.starttime + 1, ..me.clone() };
        assert!(!is_alive(&later) && pidfd_of(&later).is_none(), "its pid was used again");
        let other_boot = ProcessIdentity { boot_id: "another".into(), ..me };
        assert!(!is_alive(&other_boot) && pidfd_of(&other_boot).is_none());
    }

    #[test]
    fn a_name_may_look_like_fields() {
        let text = b"7 (a) R 1 (b ) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 9 9";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.state, stat.starttime), (b'S', 4242));
        assert!(parse_stat(b"7 (short) S 1").is_none());
    }

    #[test]
    fn a_death_is_told_and_a_corpse_is_not_alive() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let worker = WorkerId::new("w-marked").unwrap();
        let starting = STARTING.write();
        let mut child = started_cat(Command::new("cat").env(MARKER, worker.as_str()));
        drop(starting);
        let process = identity_of(child.id()).unwrap();
        assert_eq!(marked_with(&worker), vec![process.clone()]);
        let pidfd = pidfd_of(&process).unwrap();
        drop(child.stdin.take());
        runtime.block_on(ended(pidfd)).unwrap();
        assert!(!is_alive(&process), "it is a corpse: nobody has waited for it yet");
        assert!(marked_with(&worker).is_empty());
        child.wait().unwrap();
        assert!(identity_of(process.pid).is_none_or(|other| other != process));
    }
}
