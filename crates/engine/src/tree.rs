//! Who is whose child: `/proc` read at one moment, and signals that cannot hit a stranger.
//!
//! Not here: when to signal whom (`group`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// One process, as `/proc/<pid>/stat` shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Its parent, or who adopted it.
    pub parent: u32,
    /// Its session.
    pub session: u32,
    /// When it began, in clock ticks since boot; with the pid it names a process for good.
    pub starttime: u64,
    /// Whether it is dead and only waits to be reaped.
    pub zombie: bool,
}

impl Process {
    /// Reads one process; none if there is no such process.
    #[must_use]
    pub fn read(pid: u32) -> Option<Self> {
        parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Whether this very process, not another one with its number, is still there and not a zombie.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        Self::read(self.pid).is_some_and(|now| now.starttime == self.starttime && !now.zombie)
    }

    /// Whether its environment has the entry `marker` (`NAME=value`). What it cannot read carries nothing.
    #[must_use]
    pub fn carries(&self, marker: &str) -> bool {
        fs::read(format!("/proc/{}/environ", self.pid))
            .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|entry| entry == marker.as_bytes()))
    }

    /// Sends `signal` to this very process; false if it is gone.
    ///
    /// The descriptor is opened first and the start time compared after, so that a reused pid is never hit.
    pub fn signal(&self, signal: Signal) -> bool {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return false };
        let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
        self.is_alive() && pidfd_send_signal(&descriptor, signal).is_ok()
    }

    /// Its program's name, for messages.
    #[must_use]
    pub fn name(&self) -> String {
        fs::read_to_string(format!("/proc/{}/comm", self.pid))
            .map_or_else(|_| format!("pid {}", self.pid), |name| name.trim().to_owned())
    }
}

/// `pid (any name, even with brackets) S ppid pgrp session …`: the name ends at the *last* bracket.
fn parse(pid: u32, stat: &str) -> Option<Process> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(Process {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        starttime: fields.get(19)?.parse().ok()?,
        zombie: matches!(*fields.first()?, "Z" | "X"),
    })
}

/// All processes at one moment.
#[derive(Clone, Debug, Default)]
pub struct Table {
    processes: BTreeMap<u32, Process>,
}

impl Table {
    /// Reads `/proc`.
    #[must_use]
    pub fn read() -> Self {
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        let processes = pids
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(|pid| Some((pid, Process::read(pid)?)))
            .collect();
        Self { processes }
    }

    /// Every process.
    pub fn iter(&self) -> impl Iterator<Item = &Process> {
        self.processes.values()
    }

    /// Whether `process` descends from `ancestor`, or is it.
    #[must_use]
    pub fn descends(&self, process: &Process, ancestor: u32) -> bool {
        let mut pid = process.pid;
        let mut passed = BTreeSet::new();
        // A table is not read at one instant: a loop in it is possible, if absurd.
        while passed.insert(pid) {
            if pid == ancestor {
                return true;
            }
            match self.processes.get(&pid) {
                Some(process) if process.parent != 0 => pid = process.parent,
                _ => return false,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_full_of_brackets_does_not_confuse_the_reader() {
        let mut stat = "42 (a) R (b)) S 7 42 40 0 -1".to_owned();
        for field in 9..=22 {
            stat.push_str(&format!(" {field}"));
        }
        let process = parse(42, &stat).unwrap();
        assert_eq!((process.parent, process.session, process.starttime, process.zombie), (7, 40, 22, false));
    }

    #[test]
    fn this_process_is_its_own_and_its_parents_descendant() {
        let table = Table::read();
        let me = Process::read(std::process::id()).unwrap();
        assert!(me.is_alive());
        assert!(table.descends(&me, me.pid) && table.descends(&me, me.parent));
        assert!(!table.descends(&Process::read(me.parent).unwrap(), me.pid));
    }

    #[test]
    fn another_process_with_the_same_number_is_not_signalled() {
        let mut stranger = Process::read(std::process::id()).unwrap();
        stranger.starttime += 1;
        assert!(!stranger.signal(Signal::KILL), "this test would not be here to say so");
    }
}
