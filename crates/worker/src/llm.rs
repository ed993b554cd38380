//! The worker's LLM engine: one at a time, by generation, and the requests it answers.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use engine::openai::{Client, messages};
use engine::server::{Boot, Server};
use model::link::{EngineOrder, EngineReport, EngineState};
use model::task::{LlmWork, TaskError};
use model::{AttemptKey, FailureClass, GpuUuid, Millis};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::happening::{EngineTurn, Happening};
use crate::memory::Gate;
use crate::record::Ending;
use crate::stop::Stop;

/// How long after a broken connection the end of its engine is known.
const DEATH_IS_TOLD: Duration = Duration::from_millis(300);

/// After so many refused questions in a row an engine is given up.
const REFUSALS_MAX: u32 = 3;

/// An engine as the loop knows it.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) order: EngineOrder,
    pub(crate) report: EngineReport,
    pub(crate) client: Option<Client>,
    /// Questions that it has refused to begin since it last answered one.
    refusals: u32,
    /// To end what is not of use any more.
    give_up: Option<oneshot::Sender<TaskError>>,
    stop: Option<oneshot::Sender<()>>,
}

impl Seat {
    /// Starts the boot.
    pub(crate) fn boot(boot: Boot, gate: Gate, now: Millis, tell: UnboundedSender<Happening>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (give_up, given_up) = oneshot::channel();
        let order = boot.order.clone();
        let report = EngineReport {
            generation: order.generation,
            state: EngineState::Booting,
            preset: order.preset.clone(),
            model: order.model.clone(),
            parallel: order.parallel,
            beside: order.beside.clone(),
            pid: None,
            port: None,
            since: now,
            boot_ms: None,
            error: None,
        };
        tokio::spawn(live(boot, gate, stopped, given_up, tell));
        Self { order, report, client: None, refusals: 0, give_up: Some(give_up), stop: Some(stop) }
    }

    /// A question is over: it was answered, or refused before it was begun.
    pub(crate) fn judged_by(&mut self, ending: &Ending) {
        match ending {
            Ending::Answered { .. } => self.refusals = 0,
            Ending::Failed(error) if error.is_refusal() => self.refusals += 1,
            _ => {}
        }
    }

    /// Whether it refuses everything: nothing more is asked.
    pub(crate) const fn refuses(&self) -> bool {
        self.refusals >= REFUSALS_MAX
    }

    /// Ends it as a broken one, once.
    pub(crate) fn give_up(&mut self) {
        if let Some(give_up) = self.give_up.take() {
            let why = format!("it refused {} requests in a row with status 503", self.refusals);
            tracing::warn!("{} ({}) is ended, to be loaded anew: {why}", self.order.model, self.order.preset);
            // A dead receiver means that it has ended already, and said so.
            let _ = give_up.send(TaskError::new(FailureClass::Crash, "engine_refuses", why));
        }
    }

    /// Takes what happened to it; false once it is gone.
    pub(crate) fn take(&mut self, turn: EngineTurn, now: Millis) -> bool {
        let report = &mut self.report;
        match turn {
            EngineTurn::Started { pid, port } => (report.pid, report.port) = (Some(pid), Some(port)),
            EngineTurn::Ready { pid, port, boot_ms, client } if report.state == EngineState::Booting => {
                (report.state, report.since, report.boot_ms) = (EngineState::Ready, now, Some(boot_ms));
                // Another port than at the start, if that was a stranger's.
                (report.pid, report.port) = (Some(pid), Some(port));
                self.client = Some(client);
            }
            EngineTurn::Ready { .. } => {}
            EngineTurn::Failed(error) => {
                if report.state != EngineState::Unloading {
                    (report.state, report.since) = (EngineState::Failed, now);
                }
                (report.pid, report.port, self.client) = (None, None, None);
                report.error = Some(sentence(&error));
            }
            EngineTurn::Stuck(why) => report.error = Some(why),
            EngineTurn::Gone => return false,
        }
        true
    }

    /// Tells it to end, once.
    pub(crate) fn unload(&mut self, now: Millis) {
        if let Some(stop) = self.stop.take() {
            (self.report.state, self.report.since) = (EngineState::Unloading, now);
            self.client = None;
            // A dead receiver means that it has ended already, and said so.
            let _ = stop.send(());
        }
    }

    /// How to ask it, if it can be asked.
    pub(crate) fn ready(&self) -> Option<&Client> {
        self.client.as_ref().filter(|_| self.report.state == EngineState::Ready)
    }
}

/// How much of an engine's last words goes into a report, in characters; its log has the rest.
const LAST_WORDS_MAX: usize = 2_000;

/// The error of an engine as one text: people see it without a log at hand.
fn sentence(error: &TaskError) -> String {
    let Some(tail) = &error.tail else { return error.to_string() };
    let skip = tail.chars().count().saturating_sub(LAST_WORDS_MAX);
    let last: String = tail.chars().skip(skip).collect();
    format!("{error}\n{last}")
}

async fn live(
    boot: Boot,
    gate: Gate,
    mut stop: oneshot::Receiver<()>,
    given_up: oneshot::Receiver<TaskError>,
    tell: UnboundedSender<Happening>,
) {
    let generation = boot.order.generation;
    let beside = boot.order.beside.clone();
    // The loop that listens ends after its engines: nobody is left to tell otherwise.
    let say = |turn| drop(tell.send(Happening::Engine(generation, turn)));
    let begin = Instant::now();
    let mut server = match Server::start(boot) {
        Ok(server) => server,
        Err(error) => {
            say(EngineTurn::Failed(error));
            let _ = stop.await;
            return say(EngineTurn::Gone);
        }
    };
    say(EngineTurn::Started { pid: server.pid(), port: server.port() });
    let mut pids: BTreeSet<u32> = BTreeSet::new();
    let failure = tokio::select! {
        booted = server.ready() => booted.err(),
        _ = &mut stop => return end(&mut server, pids, (&gate, &beside), &say).await,
    };
    let failure = if let Some(error) = failure {
        error
    } else {
        let boot_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (pid, port, client) = (server.pid(), server.port(), server.client().clone());
        say(EngineTurn::Ready { pid, port, boot_ms, client });
        tokio::select! {
            error = server.died() => error,
            Ok(error) = given_up => error,
            _ = &mut stop => return end(&mut server, pids, (&gate, &beside), &say).await,
        }
    };
    pids.extend(server.pids());
    say(EngineTurn::Failed(failure));
    if let Err(stuck) = server.stop().await {
        say(EngineTurn::Stuck(stuck.to_string()));
    }
    let _ = stop.await;
    end(&mut server, pids, (&gate, &beside), &say).await;
}

async fn end(
    server: &mut Server,
    mut pids: BTreeSet<u32>,
    (gate, beside): (&Gate, &[GpuUuid]),
    say: &impl Fn(EngineTurn),
) {
    pids.extend(server.pids());
    while let Err(stuck) = server.stop().await {
        say(EngineTurn::Stuck(stuck.to_string()));
    }
    gate.passed(&pids, beside).await;
    say(EngineTurn::Gone);
}

/// One question to the engine.
pub(crate) struct Question {
    pub(crate) key: AttemptKey,
    pub(crate) work: LlmWork,
    pub(crate) client: Client,
    pub(crate) limit: Duration,
    pub(crate) model: String,
    pub(crate) preset: String,
    /// Largest input file, in bytes.
    pub(crate) input_bytes_max: u64,
}

/// Asks it; the answer, the error or the stop becomes a happening. A request can be left at any time, and is then asked
/// anew from its beginning: whatever stops it stops it now.
pub(crate) fn ask(question: Question, stop: Stop, tell: UnboundedSender<Happening>) {
    tokio::spawn(async move {
        let key = question.key.clone();
        let ending = tokio::select! {
            biased;
            why = stop.any() => Ending::Stopped { why, by_orders: true },
            answer = answer(question) => answer.unwrap_or_else(Ending::Failed),
        };
        let _ = tell.send(Happening::Over(key, Box::new(ending)));
    });
}

async fn answer(question: Question) -> Result<Ending, TaskError> {
    let Question { work, client, limit, model, preset, input_bytes_max, .. } = question;
    let input = match &work.input {
        Some(path) => Some(read_input(Path::new(path), input_bytes_max).await?),
        None => None,
    };
    let answer = match client.chat(&messages(&work, input.as_deref()), &work.options, limit).await {
        Ok(answer) => answer,
        Err(error) => {
            if error.code.starts_with("connection_") {
                // The engine's death explains it, and is noticed in a moment.
                sleep(DEATH_IS_TOLD).await;
            }
            return Err(error);
        }
    };
    Ok(Ending::Answered { answer, model, preset })
}

async fn read_input(path: &Path, bytes_max: u64) -> Result<String, TaskError> {
    let shown = path.display();
    let bad = |code: &str, why: String| TaskError::new(FailureClass::BadInput, code, why);
    let facts = tokio::fs::metadata(path)
        .await
        .map_err(|error| bad("input_not_found", format!("cannot read the input `{shown}`: {error}")))?;
    if !facts.is_file() || facts.len() > bytes_max {
        let why = format!("the input `{shown}` is not a file of at most {bytes_max} bytes");
        return Err(bad("bad_input_file", why));
    }
    let bytes = tokio::fs::read(path)
        .await
        .map_err(|error| bad("input_not_found", format!("cannot read the input `{shown}`: {error}")))?;
    String::from_utf8(bytes).map_err(|_| bad("not_utf8", format!("the input `{shown}` is not UTF-8 text")))
}
