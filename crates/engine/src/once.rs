//! One process for one task: any executable that takes its arguments as a line of JSON and prints a JSON object last.
//!
//! It may speak the protocol of `protocol` too; where it says checkpoints, it can give way after one of them. Whatever
//! it leaves running is ended. Not here: warm hosts (`host`).

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use model::FailureClass;
use model::task::TaskError;
use serde_json::{Map, Value};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::group::{End, Group, Program, Stuck};
use crate::log::Log;
use crate::outcome::{Done, Outcome, ended_badly, no_result};
use crate::protocol::{Boundary, Brake, Job, Line, Lines, Progress, Said, Told, bad_result, read};

/// How long output is still read once nothing of the script is left: somebody else may hold its pipes.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How much is read at once.
const READ_BYTES: usize = 16 << 10;

/// Bounds of one run.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Longest line of output that is taken as a result, in bytes.
    pub result_bytes_max: u64,
    /// From SIGTERM to SIGKILL.
    pub grace: Duration,
}

/// A run that is over.
#[derive(Debug)]
pub struct Ran {
    /// How.
    pub outcome: Outcome,
    /// What SIGKILL did not end.
    pub stuck: Option<Stuck>,
}

/// Runs `program` for `job` until it ends or is to stop; nothing of it is left running afterwards.
pub async fn run(
    program: &Program,
    job: &Job,
    bounds: Bounds,
    log: &mut Log,
    tell: impl FnMut(Told) + Send,
    brake: Brake<impl Future<Output = ()> + Send, impl Future<Output = ()> + Send>,
) -> Ran {
    let mut group = match Group::spawn(program) {
        Ok(group) => group,
        Err(error) => {
            let error = TaskError::new(FailureClass::BadInput, "cannot_start", error.to_string());
            return Ran { outcome: Outcome::Failed(error), stuck: None };
        }
    };
    let reached = Notify::new();
    let listener = Mutex::new(Listener {
        log,
        tell,
        reached: &reached,
        progress: Progress::default(),
        boundary: Boundary::default(),
        heard: Heard::default(),
    });
    let mut stopped = false;
    let pipes = (group.take_stdin(), group.take_stdout(), group.take_stderr());
    let pump = async {
        let (Some(mut stdin), Some(stdout), Some(stderr)) = pipes else { return };
        let arguments = async {
            // A script that does not want its arguments closes the pipe: no reason to stop it.
            let _ = stdin.write_all(job.once_line().as_bytes()).await;
            drop(stdin);
        };
        let speech = listen(stdout, &listener, bounds.result_bytes_max);
        tokio::join!(arguments, speech, note(stderr, &listener));
    };
    let at_a_boundary = async {
        brake.give_way.await;
        // The next one: it may have been running for long since the last.
        reached.notified().await;
    };
    let life = async {
        tokio::select! {
            _ = group.ended() => {}
            () = brake.stop => stopped = true,
            () = at_a_boundary => stopped = true,
        }
        let swept = group.stop(bounds.grace).await;
        (group.ended().await, swept.err())
    };
    let (end, stuck) = both(pump, life).await;
    let heard = listener.into_inner().unwrap_or_else(PoisonError::into_inner).heard;
    let outcome = match heard.conclude(job, end) {
        Outcome::Failed(_) if stopped => Outcome::Stopped,
        outcome => outcome,
    };
    Ran { outcome, stuck }
}

/// Pumps until `life` is over and a little longer.
async fn both<T>(pump: impl Future<Output = ()>, life: impl Future<Output = T>) -> T {
    tokio::pin!(pump, life);
    let mut pumped = false;
    let over = loop {
        tokio::select! {
            () = &mut pump, if !pumped => pumped = true,
            over = &mut life => break over,
        }
    };
    if !pumped {
        let _ = timeout(LAST_WORDS, pump).await;
    }
    over
}

struct Listener<'a, T> {
    log: &'a mut Log,
    tell: T,
    /// Told of each boundary, and heeded only while it is to give way.
    reached: &'a Notify,
    progress: Progress,
    boundary: Boundary,
    heard: Heard,
}

impl<T: FnMut(Told)> Listener<'_, T> {
    fn line(&mut self, line: &Line) {
        let Line::Whole(bytes) = line else {
            self.heard.too_long = true;
            return;
        };
        self.heard.binary |= std::str::from_utf8(bytes).is_err() || bytes.contains(&0);
        match read(bytes).0 {
            Said::Progress(said) => {
                if self.progress.take(&said) {
                    (self.tell)(Told::Progress(self.progress));
                }
            }
            Said::Checkpoint(state) | Said::Yielded(state) => {
                if let Some(state) = self.boundary.take(state, self.log) {
                    (self.tell)(Told::Checkpoint(state));
                    self.reached.notify_waiters();
                }
            }
            Said::Result(result) => self.heard.result = Some(result),
            Said::Error(error) => self.heard.error = Some(error),
            Said::Object(object) => self.heard.object = Some(object),
            Said::Noise => self.heard.broken = bytes.trim_ascii_start().starts_with(b"{"),
            Said::Ready { .. } => {}
        }
    }
}

async fn listen<T: FnMut(Told)>(
    mut pipe: impl AsyncRead + Unpin,
    to: &Mutex<Listener<'_, T>>,
    result_bytes_max: u64,
) {
    let mut lines = Lines::new(result_bytes_max);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = pipe.read(&mut buffer).await.unwrap_or(0);
        let mut listener = to.lock().unwrap_or_else(PoisonError::into_inner);
        listener.log.write(&buffer[..count]);
        let ended = if count == 0 { lines.end().into_iter().collect() } else { lines.push(&buffer[..count]) };
        ended.iter().for_each(|line| listener.line(line));
        if count == 0 {
            return;
        }
    }
}

async fn note<T>(mut pipe: impl AsyncRead + Unpin, to: &Mutex<Listener<'_, T>>) {
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        to.lock().unwrap_or_else(PoisonError::into_inner).log.write(&buffer[..count]);
    }
}

/// What a script said, as far as it decides.
#[derive(Default)]
struct Heard {
    result: Option<Map<String, Value>>,
    object: Option<Map<String, Value>>,
    error: Option<TaskError>,
    too_long: bool,
    binary: bool,
    /// The last line that was no JSON looked as if it should have been.
    broken: bool,
}

impl Heard {
    fn conclude(self, job: &Job, end: End) -> Outcome {
        if let Some(error) = self.error {
            return Outcome::Failed(error);
        }
        if end != End::Exit(0) {
            return Outcome::Failed(ended_badly("the script", end));
        }
        match self.result.or(self.object) {
            Some(output) => Outcome::Done(Done { output }),
            None if self.too_long => Outcome::Failed(bad_result("a line of it is longer than allowed")),
            None if self.binary => Outcome::Failed(bad_result("it is not text")),
            None if self.broken => Outcome::Failed(bad_result("it is not a JSON object")),
            None => Outcome::Failed(no_result(&job.key.task_id)),
        }
    }
}
