//! A warm script host: one process that loads its model once and then serves one task after another.
//!
//! ```text
//!  start `--host` ─► ready ─► run ─► run ─► … ─► stop (EOF, SIGTERM, SIGKILL)
//!                     │        ├ cancel: asked first, ended if it does not listen within the grace
//!                     │        └ yield: asked, and left alone until its next boundary
//!                     └ error, death, silence: no host
//! ```
//!
//! Not here: which tasks it gets (`worker`).

use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

use model::task::TaskError;
use model::{AttemptKey, FailureClass};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::time::{Instant, sleep_until, timeout};

use crate::group::{End, Group, Program, Stuck};
use crate::log::Log;
use crate::outcome::{Done, Outcome, ended_badly};
use crate::protocol::{Boundary, Brake, Job, Line, Lines, Progress, Said, Told, bad_result, is_event, read};

/// The argument that makes a script serve tasks.
pub const HOST_ARGUMENT: &str = "--host";
/// How long the pipe of a dead host is still read.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// How long a host may take to end by itself when its input does.
const EOF_WAIT: Duration = Duration::from_millis(500);
const READ_BYTES: usize = 16 << 10;

/// A loaded script.
#[derive(Debug)]
pub struct Host {
    group: Group,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    out: VecDeque<u8>,
    lines: Lines,
    heard: VecDeque<Line>,
    buffers: [Vec<u8>; 2],
    log: Log,
    yields: bool,
}

/// How a task of a host ended.
#[derive(Debug, PartialEq)]
pub struct Served {
    /// How.
    pub outcome: Outcome,
    /// Whether the host can serve another; else it must be stopped.
    pub alive: bool,
}

/// What came next from a host.
enum Next {
    Line(Line),
    Ended(End),
}

impl Host {
    /// Starts `program`, which must already have [`HOST_ARGUMENT`]; its model is not loaded yet: [`ready`](Self::ready).
    ///
    /// # Errors
    /// `cannot_start`.
    pub fn start(program: &Program, result_bytes_max: u64, tail_bytes_max: u64) -> Result<Self, TaskError> {
        let mut group = Group::spawn(program)
            .map_err(|error| TaskError::new(FailureClass::BadInput, "cannot_start", error.to_string()))?;
        Ok(Self {
            stdin: group.take_stdin(),
            stdout: group.take_stdout(),
            stderr: group.take_stderr(),
            group,
            out: VecDeque::new(),
            lines: Lines::new(result_bytes_max),
            heard: VecDeque::new(),
            buffers: [vec![0; READ_BYTES], vec![0; READ_BYTES]],
            log: Log::tail_only(tail_bytes_max),
            yields: false,
        })
    }

    /// Whether it said that it obeys `yield`; known once it is ready.
    #[must_use]
    pub const fn yields(&self) -> bool {
        self.yields
    }

    /// Its first process's id.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.group.leader().pid
    }

    /// All its processes that are alive now.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.group.members().iter().map(|process| process.pid).collect()
    }

    /// Waits until it has loaded its model. After an error the host is of no use and must be stopped.
    ///
    /// # Errors
    /// Its own error, its death, or `host_boot_timeout`, with the tail of what it printed.
    pub async fn ready(&mut self, limit: Duration) -> Result<(), TaskError> {
        let loaded = async {
            loop {
                match self.next(None).await {
                    Next::Ended(end) => return Err(ended_badly("the script host", end)),
                    Next::Line(Line::TooLong) => {}
                    Next::Line(Line::Whole(line)) => match read(&line).0 {
                        Said::Ready { yields } => {
                            self.yields = yields;
                            return Ok(());
                        }
                        Said::Error(error) => return Err(error),
                        _ => {}
                    },
                }
            }
        };
        let late = || {
            let message = format!(
                "the script host was not ready within {:.0} s; `timing.host_boot_timeout_s` sets the limit",
                limit.as_secs_f64()
            );
            Err(TaskError::new(FailureClass::Timeout, "host_boot_timeout", message))
        };
        let result = timeout(limit, loaded).await.unwrap_or_else(|_| late());
        result.map_err(|mut error| {
            error.tail = self.log.tail();
            error
        })
    }

    /// Runs one task.
    pub async fn run(
        &mut self,
        job: &Job,
        log: &mut Log,
        mut tell: impl FnMut(Told) + Send,
        brake: Brake<impl Future<Output = ()> + Send, impl Future<Output = ()> + Send>,
        grace: Duration,
    ) -> Served {
        let Brake { give_way, stop } = brake;
        tokio::pin!(give_way, stop);
        self.out.extend(job.line().into_bytes());
        let mut ear = Ear { key: &job.key, progress: Progress::default(), boundary: Boundary::default() };
        let mut asked: Option<Instant> = None;
        let mut gives_way = false;
        let over = |outcome, alive| Served { outcome, alive };
        loop {
            let next = tokio::select! {
                next = self.next(Some(log)) => next,
                () = &mut stop, if asked.is_none() => {
                    self.out.extend(Job::cancel_line(&job.key).into_bytes());
                    asked = Some(Instant::now() + grace);
                    continue;
                }
                () = &mut give_way, if !gives_way && asked.is_none() => {
                    gives_way = true;
                    if self.yields {
                        self.out.extend(Job::yield_line(&job.key).into_bytes());
                    }
                    continue;
                }
                () = sleep_until(asked.unwrap_or_else(Instant::now)), if asked.is_some() => {
                    return over(Outcome::Stopped, false);
                }
            };
            let line = match next {
                Next::Ended(_) if asked.is_some() => return over(Outcome::Stopped, false),
                Next::Ended(end) => return over(Outcome::Failed(ended_badly("the script host", end)), false),
                Next::Line(line) => line,
            };
            match ear.hear(&line, log) {
                Answer::Nothing => {}
                Answer::Progress => tell(Told::Progress(ear.progress)),
                Answer::Boundary(state) => {
                    tell(Told::Checkpoint(state));
                    if gives_way && !self.yields {
                        return over(Outcome::Stopped, false);
                    }
                }
                Answer::Yielded(state) => {
                    if let Some(state) = state {
                        tell(Told::Checkpoint(state));
                    }
                    if gives_way || asked.is_some() {
                        return over(Outcome::Stopped, true);
                    }
                    let why = "it says that it gave way, and nobody had asked it to";
                    return over(Outcome::Failed(bad_result(why)), true);
                }
                Answer::Over(Outcome::Failed(_)) if asked.is_some() => return over(Outcome::Stopped, true),
                Answer::Over(outcome) => return over(outcome, true),
            }
        }
    }

    /// Waits, without a task, for its end.
    pub async fn idle(&mut self) -> End {
        loop {
            if let Next::Ended(end) = self.next(None).await {
                return end;
            }
        }
    }

    /// Ends it: its standard input is closed; if that does not end it soon, the tree is told to stop.
    ///
    /// # Errors
    /// [`Stuck`] when something outlives SIGKILL.
    pub async fn stop(&mut self, grace: Duration) -> Result<(), Stuck> {
        self.stdin = None;
        let _ = timeout(grace.min(EOF_WAIT), self.idle()).await;
        self.group.stop(grace).await
    }

    /// The next line or the end; what it prints goes into `log`, or into its own without a task. May be dropped.
    async fn next(&mut self, mut log: Option<&mut Log>) -> Next {
        let [spoken, noted] = &mut self.buffers;
        loop {
            if let Some(line) = self.heard.pop_front() {
                if let Line::Whole(bytes) = &line
                    && !is_event(bytes)
                {
                    note(&mut self.log, log.as_deref_mut(), &[bytes, &b"\n"[..]].concat());
                }
                return Next::Line(line);
            }
            let mut ended = None;
            tokio::select! {
                biased;
                // First, so that what a task noted before its result is in the task's log.
                count = some(self.stderr.as_mut(), |pipe| pipe.read(noted)) => {
                    note(&mut self.log, log.as_deref_mut(), &noted[..count]);
                    if count == 0 {
                        self.stderr = None;
                    }
                }
                count = some(self.stdout.as_mut(), |pipe| pipe.read(spoken)) => {
                    if count == 0 {
                        self.stdout = None;
                    }
                    self.heard.extend(self.lines.push(&spoken[..count]));
                }
                count = some(self.stdin.as_mut().filter(|_| !self.out.is_empty()), |pipe| pipe.write(self.out.as_slices().0)) => {
                    self.out.drain(..count);
                    if count == 0 {
                        self.stdin = None;
                    }
                }
                end = self.group.ended() => ended = Some(end),
            }
            if let Some(end) = ended {
                // What a dead process wrote is in the pipes already; a grandchild may keep them open for ever.
                if let Some(mut stderr) = self.stderr.take() {
                    while let Ok(Ok(count @ 1..)) = timeout(LAST_WORDS, stderr.read(noted)).await {
                        note(&mut self.log, log.as_deref_mut(), &noted[..count]);
                    }
                }
                let Some(mut stdout) = self.stdout.take() else { return Next::Ended(end) };
                while let Ok(Ok(count @ 1..)) = timeout(LAST_WORDS, stdout.read(spoken)).await {
                    self.heard.extend(self.lines.push(&spoken[..count]));
                }
            }
        }
    }
}

/// Hears the lines of one task.
struct Ear<'a> {
    key: &'a AttemptKey,
    progress: Progress,
    boundary: Boundary,
}

enum Answer {
    Nothing,
    Progress,
    Boundary(Value),
    Yielded(Option<Value>),
    Over(Outcome),
}

impl Ear<'_> {
    fn hear(&mut self, line: &Line, log: &mut Log) -> Answer {
        let Line::Whole(bytes) = line else {
            return Answer::Over(Outcome::Failed(bad_result("a line of it is longer than allowed")));
        };
        let (said, names) = read(bytes);
        // The end of a task that was given up earlier is not this one's.
        let mine = names.is_none_or(|(task_id, attempt)| {
            task_id == self.key.task_id.as_str() && attempt == u64::from(self.key.attempt)
        });
        match said {
            _ if !mine => Answer::Nothing,
            Said::Progress(said) if self.progress.take(&said) => Answer::Progress,
            Said::Checkpoint(state) => {
                self.boundary.take(state, log).map_or(Answer::Nothing, Answer::Boundary)
            }
            Said::Yielded(state) => Answer::Yielded(self.boundary.take(state, log)),
            Said::Result(output) => Answer::Over(Outcome::Done(Done { output })),
            Said::Error(error) => Answer::Over(Outcome::Failed(error)),
            _ => Answer::Nothing,
        }
    }
}

/// What `work` does with a pipe that is open; without one it never ends. An error counts as the end of the pipe.
async fn some<P, F: Future<Output = std::io::Result<usize>>>(
    pipe: Option<P>,
    work: impl FnOnce(P) -> F,
) -> usize {
    match pipe {
        Some(pipe) => work(pipe).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

fn note(own: &mut Log, task: Option<&mut Log>, bytes: &[u8]) {
    if let Some(log) = task {
        log.write(bytes);
    } else {
        own.write(bytes);
    }
}
