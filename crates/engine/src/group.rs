//! One started program with everything that descends from it: born in a session of its own, gone without remainder.
//!
//! ```text
//!  spawn: fork ─ setsid ─ death signal KILL ─ is the parent still ours? ─ exec
//!  stop:  TERM to the tree ─ grace ─ KILL to the tree, until nothing of it is left ─ reap
//! ```
//!
//! The death signal belongs to the *thread* that forks: all programs must be started from one thread that lives as
//! long as the process (the worker's only one). Not here: what the program says (`host`, `once`, `server`).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep};

pub use crate::end::End;
use crate::environment::{Environment, UNIT_VARIABLE, WORKER_VARIABLE};
use crate::tree::{Process, Table};

/// How long a tree may outlive SIGKILL before it is called stuck: processes in uninterruptible sleep do.
const KILL_WAIT: Duration = Duration::from_secs(10);
/// Pauses between looks at a tree that is being ended.
const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// How often a program file that is busy is tried again.
const BUSY_TRIES: u32 = 10;

/// What to start. Nothing passes through a shell.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// The program and its arguments.
    pub argv: Vec<OsString>,
    /// All it sees of the environment.
    pub env: Environment,
    /// The folder it starts in; the worker's own if absent.
    pub folder: Option<PathBuf>,
}

/// A program could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start `{program}`: {source}")]
pub struct SpawnError {
    /// Its name.
    pub program: String,
    /// Why.
    pub source: io::Error,
}

/// Processes that SIGKILL did not end.
#[derive(Debug, thiserror::Error)]
#[error("{} processes outlive SIGKILL: {}", processes.len(), names(processes))]
pub struct Stuck {
    /// Which.
    pub processes: Vec<Process>,
}

fn names(processes: &[Process]) -> String {
    processes.iter().map(|p| format!("{} ({})", p.pid, p.name())).collect::<Vec<_>>().join(", ")
}

/// A program that is alive, by its first process and by the mark that all its descendants carry.
#[derive(Clone, Debug)]
struct Unit {
    leader: Process,
    marker: String,
}

/// The units of this process that have not been ended: to tell whose an orphan is. Held while forking, so that no
/// child is ever seen before it is known.
static LIVE: Mutex<BTreeMap<u32, Unit>> = Mutex::new(BTreeMap::new());

fn live() -> MutexGuard<'static, BTreeMap<u32, Unit>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes this process the parent of its descendants' orphans, so that none gets out of sight.
///
/// # Errors
/// The kernel's refusal.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Keeps files that whoever started this process has left open from all programs that are started from now on. Call
/// it first: what must be inherited is opened later.
///
/// # Errors
/// When the open files cannot be listed.
pub fn keep_files_from_children() -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if number > 2 {
            // SAFETY: the number is borrowed for one call that closes nothing; if it is no longer open, that call fails.
            #[expect(unsafe_code, reason = "these files have no owner in this program")]
            let file = unsafe { BorrowedFd::borrow_raw(number) };
            // The descriptor of the listing itself is among them and is closed anyway.
            let _ = rustix::io::fcntl_setfd(file, rustix::io::FdFlags::CLOEXEC);
        }
    }
    Ok(())
}

/// A running program and its descendants. Dropped, it is killed at once.
#[derive(Debug)]
pub struct Group {
    child: Child,
    unit: Unit,
    end: Option<End>,
    over: bool,
}

impl Group {
    /// Starts `program` with pipes at its standard streams. See the module for the thread to call this from.
    ///
    /// # Errors
    /// [`SpawnError`] when there is no such program, or it cannot be executed.
    pub fn spawn(program: &Program) -> Result<Self, SpawnError> {
        let name = program.argv.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let fail = |source| SpawnError { program: name.clone(), source };
        let (first, arguments) =
            program.argv.split_first().ok_or_else(|| fail(io::ErrorKind::InvalidInput.into()))?;
        let unit_id = uuid::Uuid::new_v4().to_string();
        let mut command = Command::new(first);
        command.args(arguments).env_clear().envs(&program.env).env(UNIT_VARIABLE, &unit_id);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        if let Some(folder) = &program.folder {
            command.current_dir(folder);
        }
        die_with(&mut command);
        let mut live = live();
        let child = spawn(&mut command).map_err(fail)?;
        let leader = child
            .id()
            .and_then(Process::read)
            .ok_or_else(|| fail(io::Error::other("it was gone before it could be seen")))?;
        let unit = Unit { leader, marker: format!("{UNIT_VARIABLE}={unit_id}") };
        live.insert(unit.leader.pid, unit.clone());
        Ok(Self { child, unit, end: None, over: false })
    }

    /// Its first process.
    #[must_use]
    pub const fn leader(&self) -> &Process {
        &self.unit.leader
    }

    /// The pipe into it, once.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// The pipe of its standard output, once.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// The pipe of its standard error, once.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Waits for the end of its first process; may be dropped and called again. Descendants may outlive it: [`stop`].
    ///
    /// [`stop`]: Self::stop
    pub async fn ended(&mut self) -> End {
        if let Some(end) = self.end {
            return end;
        }
        // An error means that the child is no longer ours to wait for, and so gone.
        let end = self.child.wait().await.map_or(End::Exit(-1), End::of);
        self.end = Some(end);
        end
    }

    /// All of it that is alive at this moment.
    #[must_use]
    pub fn members(&self) -> Vec<Process> {
        let live = live();
        let table = Table::read();
        let own_session = Process::read(std::process::id()).map(|me| me.session);
        table
            .iter()
            .filter(|process| !process.zombie && process.pid != std::process::id())
            .filter(|process| self.unit.has(process, &table, &live, own_session))
            .cloned()
            .collect()
    }

    /// Ends all of it: SIGTERM, up to `grace` to obey, then SIGKILL until nothing is left. Its end is known afterwards.
    ///
    /// # Errors
    /// [`Stuck`] when something outlives SIGKILL for ten seconds.
    pub async fn stop(&mut self, grace: Duration) -> Result<(), Stuck> {
        self.signal(Signal::TERM);
        if self.gone_within(grace, None).await.is_empty() {
            return Ok(());
        }
        let processes = self.gone_within(KILL_WAIT, Some(Signal::KILL)).await;
        if processes.is_empty() { Ok(()) } else { Err(Stuck { processes }) }
    }

    fn signal(&self, signal: Signal) {
        for process in self.members() {
            process.signal(signal);
        }
    }

    /// Waits until nothing is left, signalling what is there at every look; returns what is left at the end.
    async fn gone_within(&mut self, limit: Duration, signal: Option<Signal>) -> Vec<Process> {
        let deadline = Instant::now() + limit;
        let mut pause = PAUSE_MIN;
        loop {
            if let (None, Ok(Some(status))) = (self.end, self.child.try_wait()) {
                self.end = Some(End::of(status));
            }
            let members = self.members();
            // A leader that has died since is a zombie now: the next look reaps it.
            let reaped = self.end.is_some() || Process::read(self.unit.leader.pid).is_none();
            if members.is_empty() && reaped {
                self.over();
                return members;
            }
            if Instant::now() >= deadline {
                return members;
            }
            if let Some(signal) = signal {
                members.iter().for_each(|process| {
                    process.signal(signal);
                });
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn over(&mut self) {
        if !self.over {
            self.over = true;
            let mut live = live();
            live.remove(&self.unit.leader.pid);
            reap_orphans(&live, self.unit.leader.pid);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.over {
            self.signal(Signal::KILL);
            live().remove(&self.unit.leader.pid);
        }
    }
}

impl Unit {
    /// Whether `process` belongs to this unit: a descendant, one with its mark or of its session; or an orphan that
    /// this worker adopted and that no other living unit can have borne.
    fn has(
        &self,
        process: &Process,
        table: &Table,
        live: &BTreeMap<u32, Self>,
        own_session: Option<u32>,
    ) -> bool {
        if process.starttime < self.leader.starttime {
            return false;
        }
        if table.descends(process, self.leader.pid) || process.carries(&self.marker) {
            return true;
        }
        // Beyond the mark, only what descends from this worker can be ours: a stranger may have got the number of a
        // session that is over.
        let me = std::process::id();
        if !table.descends(process, me) {
            return false;
        }
        if process.session == self.leader.pid {
            return true;
        }
        let orphan =
            process.parent == me && Some(process.session) != own_session && !live.contains_key(&process.pid);
        orphan
            && live.values().all(|other| {
                other.leader.pid == self.leader.pid || other.leader.starttime > process.starttime
            })
    }
}

/// Reaps adopted children that are dead; a leader's own end is for its [`Group`] to take.
fn reap_orphans(live: &BTreeMap<u32, Unit>, just_ended: u32) {
    let me = std::process::id();
    let own_session = Process::read(me).map(|me| me.session);
    for process in Table::read().iter() {
        let orphan = process.zombie
            && process.parent == me
            && Some(process.session) != own_session
            && process.pid != just_ended
            && !live.contains_key(&process.pid);
        let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
        if let (true, Some(pid)) = (orphan, pid) {
            // It may be reaped already, which is what was wanted.
            let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
}

/// A program file that was just written may still be open in a child that another fork has not yet replaced.
fn spawn(command: &mut Command) -> io::Result<Child> {
    for _ in 0..BUSY_TRIES {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => std::thread::sleep(PAUSE_MIN),
            result => return result,
        }
    }
    command.spawn()
}

/// Lets the child lead a session of its own and die with the thread that forks it.
fn die_with(command: &mut Command) {
    let parent = rustix::process::getpid();
    let prepare = move || {
        rustix::process::setsid()?;
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the signal was set: then it never comes.
        if rustix::process::getppid() == Some(parent) {
            Ok(())
        } else {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    };
    // SAFETY: between fork and exec the closure makes three system calls and builds errors that do not allocate.
    #[expect(unsafe_code, reason = "the death signal can only be set in the child")]
    unsafe {
        command.pre_exec(prepare);
    }
}

/// Processes that carry the mark of the worker called `worker`, whoever their parent is now.
#[must_use]
pub fn leftovers(worker: &str) -> Vec<Process> {
    let marker = format!("{WORKER_VARIABLE}={worker}");
    let me = std::process::id();
    Table::read().iter().filter(|p| !p.zombie && p.pid != me && p.carries(&marker)).cloned().collect()
}

/// Ends all that a dead worker left: SIGTERM, `grace`, SIGKILL.
///
/// # Errors
/// [`Stuck`] when something outlives SIGKILL.
pub async fn bury(worker: &str, grace: Duration) -> Result<usize, Stuck> {
    let mut left = leftovers(worker);
    let found = left.len();
    let begin = Instant::now();
    for process in &left {
        process.signal(Signal::TERM);
    }
    let mut pause = PAUSE_MIN;
    while !left.is_empty() && begin.elapsed() < grace + KILL_WAIT {
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
        left = leftovers(worker);
        if begin.elapsed() >= grace {
            left.iter().for_each(|process| {
                process.signal(Signal::KILL);
            });
        }
    }
    if left.is_empty() { Ok(found) } else { Err(Stuck { processes: left }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;

    fn shell(script: &str) -> Program {
        let env = [("PATH", "/usr/bin:/bin")].map(|(name, value)| (name.into(), value.into()));
        Program { argv: ["sh", "-c", script].map(OsString::from).to_vec(), env: env.into(), folder: None }
    }

    async fn first_line(group: &mut Group) -> String {
        let mut stdout = group.take_stdout().unwrap();
        let mut text = Vec::new();
        while !text.contains(&b'\n') {
            let mut byte = [0];
            assert_eq!(stdout.read(&mut byte).await.unwrap(), 1, "the program ended early");
            text.push(byte[0]);
        }
        String::from_utf8(text).unwrap().trim().to_owned()
    }

    #[tokio::test]
    async fn a_program_that_obeys_sigterm_is_not_killed() {
        let mut group =
            Group::spawn(&shell("trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done")).unwrap();
        first_line(&mut group).await;
        group.stop(Duration::from_secs(5)).await.unwrap();
        assert_eq!(group.ended().await, End::Exit(7));
    }

    #[tokio::test]
    async fn a_program_that_ignores_sigterm_is_killed_after_its_grace() {
        let mut group = Group::spawn(&shell("trap '' TERM; echo up; while :; do sleep 0.01; done")).unwrap();
        first_line(&mut group).await;
        let begin = Instant::now();
        group.stop(Duration::from_millis(100)).await.unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(100));
        assert_eq!(group.ended().await.code(), "killed_by:SIGKILL");
    }

    #[tokio::test]
    async fn a_grandchild_in_a_session_of_its_own_does_not_outlive_its_group() {
        adopt_orphans().unwrap();
        let mut group =
            Group::spawn(&shell("setsid sh -c 'trap \"\" TERM; echo $$; sleep 600' & wait")).unwrap();
        let grandchild = Process::read(first_line(&mut group).await.parse().unwrap()).unwrap();
        assert_ne!(grandchild.session, group.leader().session);
        group.stop(Duration::from_millis(50)).await.unwrap();
        assert!(!grandchild.is_alive());
    }

    #[tokio::test]
    async fn an_orphan_of_a_program_that_has_ended_is_ended_too() {
        adopt_orphans().unwrap();
        let mut group = Group::spawn(&shell("setsid sleep 600 >/dev/null 2>&1 & echo $!")).unwrap();
        let orphan = Process::read(first_line(&mut group).await.parse().unwrap()).unwrap();
        assert_eq!(group.ended().await, End::Exit(0));
        assert!(orphan.is_alive());
        group.stop(Duration::from_secs(5)).await.unwrap();
        assert!(!orphan.is_alive());
    }

    #[tokio::test]
    async fn a_dropped_group_is_killed() {
        let mut group = Group::spawn(&shell("echo up; exec sleep 600")).unwrap();
        first_line(&mut group).await;
        let leader = group.leader().clone();
        drop(group);
        let begin = Instant::now();
        while leader.is_alive() {
            assert!(begin.elapsed() < Duration::from_secs(5));
            sleep(PAUSE_MIN).await;
        }
    }

    #[tokio::test]
    async fn what_a_dead_worker_left_is_found_by_its_mark_and_ended() {
        let mut program = shell("trap '' TERM; echo up; while :; do sleep 0.01; done");
        program.env.insert(WORKER_VARIABLE.into(), "test-of-bury".into());
        let mut group = Group::spawn(&program).unwrap();
        first_line(&mut group).await;
        assert!(bury("test-of-bury", Duration::from_millis(20)).await.unwrap() >= 1);
        assert_eq!(group.ended().await.code(), "killed_by:SIGKILL");
        assert!(leftovers("test-of-bury").is_empty());
        assert_eq!(bury("test-of-bury", Duration::ZERO).await.unwrap(), 0);
    }

    #[test]
    fn a_missing_program_is_named() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _guard = runtime.enter();
        let program = Program { argv: vec!["/no/such/program".into()], ..Program::default() };
        let error = Group::spawn(&program).unwrap_err().to_string();
        assert!(error.starts_with("cannot start `/no/such/program`: "), "{error}");
    }
}
