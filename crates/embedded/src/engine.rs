//! The thread that computes: it loads the model, then answers one request after the other.
//!
//! ```text
//!  handlers ── Job{ask, replies} ──► [channel] ──► engine thread ── Reply… ──► the handler that asked
//!      └─ a place in the queue, held by the reply's reader and given back when it goes
//! ```
//!
//! There is one thread because candle's model has one cache, so one sequence at a time. A client that goes away
//! closes its replies; the engine sees that at the next token, or before it begins.

use crate::failure::Failure;
use crate::generate::{Ask, Ending, Outcome, generate};
use crate::model::{Lexicon, Opened, Weights, panic_text};
use candle_core::Device;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc as blocking};
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// What the engine says to the one who asked.
#[derive(Debug)]
pub(crate) enum Reply {
    /// The next piece of the answer; never empty.
    Text(String),
    /// The answer is complete. Nothing follows.
    Done {
        /// Why it ended.
        ending: Ending,
        /// How many tokens it has.
        answer_tokens: usize,
    },
    /// The program is stopping and did not begin with this one. Nothing follows.
    Stopping,
    /// The computation failed: a fault of the model file or of this program. Nothing follows.
    Failed(String),
}

struct Job {
    ask: Ask,
    replies: mpsc::UnboundedSender<Reply>,
}

/// The replies to one request, with its place in the queue.
pub(crate) struct Replies {
    receiver: mpsc::UnboundedReceiver<Reply>,
    _place: OwnedSemaphorePermit,
}

impl Replies {
    /// The next reply; none if the engine's thread has died.
    pub(crate) async fn next(&mut self) -> Option<Reply> {
        self.receiver.recv().await
    }

    /// As [`Self::next`], for streams.
    pub(crate) fn poll_next(&mut self, task: &mut std::task::Context<'_>) -> std::task::Poll<Option<Reply>> {
        self.receiver.poll_recv(task)
    }
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The queue is full.
    Full,
    /// The engine's thread has died.
    Dead,
}

/// Tells once how the loading went.
pub(crate) type WhenLoaded = oneshot::Receiver<Result<Arc<Lexicon>, Failure>>;

/// The way to the engine's thread.
pub(crate) struct Engine {
    jobs: blocking::Sender<Job>,
    places: Arc<Semaphore>,
}

impl Engine {
    /// Starts the thread. It loads `model`, says so through the returned channel, and then serves.
    /// At most `waiting_max` requests wait while one is answered. After `stopping` no new one is begun.
    pub(crate) fn start(
        model: Opened,
        device: Device,
        context_tokens: Option<NonZeroUsize>,
        waiting_max: usize,
        stopping: Arc<AtomicBool>,
    ) -> Result<(Self, WhenLoaded), Failure> {
        let (jobs, queue) = blocking::channel();
        let (loaded, when_loaded) = oneshot::channel();
        let work = move || match model.load(&device, context_tokens) {
            Ok((lexicon, weights)) => {
                let lexicon = Arc::new(lexicon);
                // Nobody listens any more when the program is stopping; then nobody asks either.
                let _ = loaded.send(Ok(Arc::clone(&lexicon)));
                serve(weights, &lexicon, &queue, &stopping);
            }
            Err(failure) => {
                let _ = loaded.send(Err(failure));
            }
        };
        std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(work)
            .map_err(|source| Failure::System { what: "start the engine's thread", source })?;
        let places = Arc::new(Semaphore::new(waiting_max.saturating_add(1).min(Semaphore::MAX_PERMITS)));
        Ok((Self { jobs, places }, when_loaded))
    }

    /// Puts a request into the queue. Its place is free again when the replies are dropped.
    pub(crate) fn ask(&self, ask: Ask) -> Result<Replies, Refusal> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Refusal::Full)?;
        // Unbounded, so that a slow reader never holds the engine up; the answer's limit bounds it.
        let (replies, receiver) = mpsc::unbounded_channel();
        let prompt_tokens = ask.prompt.len();
        self.jobs.send(Job { ask, replies }).map_err(|_| Refusal::Dead)?;
        tracing::debug!(prompt_tokens, "queued");
        Ok(Replies { receiver, _place: place })
    }
}

/// Answers until nobody can ask any more.
fn serve(mut weights: Weights, lexicon: &Lexicon, queue: &blocking::Receiver<Job>, stopping: &AtomicBool) {
    while let Ok(Job { ask, replies }) = queue.recv() {
        if replies.is_closed() {
            continue;
        }
        let last = if stopping.load(Ordering::Acquire) {
            Some(Reply::Stopping)
        } else {
            answer(&mut weights, lexicon, &ask, &replies)
        };
        if let Some(last) = last {
            // A client that left in this instant does not need it.
            let _ = replies.send(last);
        }
    }
}

/// Answers one request and returns its last reply; none if the client has gone.
fn answer(
    weights: &mut Weights,
    lexicon: &Lexicon,
    ask: &Ask,
    replies: &mpsc::UnboundedSender<Reply>,
) -> Option<Reply> {
    let begun = Instant::now();
    let say = |text: String| {
        if text.is_empty() { !replies.is_closed() } else { replies.send(Reply::Text(text)).is_ok() }
    };
    // A panic inside candle ends this answer and not the engine: the next one begins with a fresh cache.
    let result = catch_unwind(AssertUnwindSafe(|| generate(weights, lexicon, ask, say)));
    weights.rest();
    let prompt_tokens = ask.prompt.len();
    let took_ms = begun.elapsed().as_millis();
    match result {
        Ok(Ok(Outcome::Ended(ending, answer_tokens))) => {
            tracing::info!(prompt_tokens, answer_tokens, took_ms, ?ending, "answered");
            Some(Reply::Done { ending, answer_tokens })
        }
        Ok(Ok(Outcome::Abandoned)) => {
            tracing::info!(prompt_tokens, took_ms, "abandoned: the client has gone");
            None
        }
        Ok(Err(error)) => Some(failed(error.to_string())),
        Err(panic) => Some(failed(panic_text(panic.as_ref()))),
    }
}

fn failed(reason: String) -> Reply {
    tracing::error!(reason, "failed to generate an answer");
    Reply::Failed(reason)
}
