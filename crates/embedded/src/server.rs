//! The HTTP server: routes, limits, streams, and how it stops.
//!
//! The port is bound before the model is loaded, and the server runs on its own thread beside the engine's, so
//! `/health` answers at any time: 503 while loading, 200 when requests are taken, 503 while stopping.

use crate::api::refusal::Refusal;
use crate::api::reply::{Kind, Letterhead, Usage};
use crate::api::request::{Prompt, Request};
use crate::engine::{self, Engine, Replies, Reply, WhenLoaded};
use crate::failure::Failure;
use crate::generate::{Ask, Ending};
use crate::model::Lexicon;
use crate::stream::AnswerStream;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::sse::Sse;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Longest request body. The longest context that a model here has fits in several times.
pub(crate) const BODY_BYTES_MAX: usize = 1024 * 1024;

/// What the handlers know.
pub(crate) struct Desk {
    /// The model's name.
    pub(crate) name: String,
    /// What whoever started this program gave it to be known by; `/health` repeats it.
    pub(crate) nonce: Option<String>,
    /// Longest answer in tokens, whatever a request asks for.
    pub(crate) answer_tokens_max: NonZeroUsize,
    /// The way to the engine.
    pub(crate) engine: Engine,
    /// There once the model is loaded.
    pub(crate) lexicon: OnceLock<Arc<Lexicon>>,
    /// Set when the program is to end.
    pub(crate) stopping: Arc<AtomicBool>,
}

/// Serves until a signal asks it to stop and the request in flight is answered. A second signal ends it at once.
pub(crate) async fn run(listener: TcpListener, desk: Desk, mut loaded: WhenLoaded) -> Result<(), Failure> {
    let no_signals = |source| Failure::System { what: "listen for signals", source };
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let desk = Arc::new(desk);
    let (stop, stopped) = watch::channel(false);
    let mut stop_accepting = stopped.clone();
    let server = axum::serve(listener, routes(Arc::clone(&desk))).with_graceful_shutdown(async move {
        // The sender lives as long as this function.
        let _ = stop_accepting.wait_for(|stop| *stop).await;
    });
    let mut server = std::pin::pin!(server.into_future());
    let mut is_loading = true;
    loop {
        tokio::select! {
            ended = &mut server => return ended.map_err(|source| Failure::System { what: "serve", source }),
            outcome = &mut loaded, if is_loading => {
                is_loading = false;
                let lexicon = outcome.unwrap_or(Err(Failure::EngineVanished))?;
                tracing::info!(model = desk.name, context_tokens = lexicon.context_tokens(), "ready");
                // Set here and nowhere else.
                let _ = desk.lexicon.set(lexicon);
            }
            () = either(&mut terminate, &mut interrupt) => {
                if *stopped.borrow() || is_loading {
                    return Ok(());
                }
                tracing::info!("stopping: the request in flight is answered, nothing new is taken");
                desk.stopping.store(true, Ordering::Release);
                let _ = stop.send(true);
            }
        }
    }
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn routes(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/v1/models", get(models))
        .route("/v1/chat/completions", post(chat_completions))
        .route("/v1/completions", post(text_completions))
        .fallback(async || Refusal::no_such_path())
        .method_not_allowed_fallback(async || Refusal::wrong_method())
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(desk)
}

async fn health(State(desk): State<Arc<Desk>>) -> Response {
    let (status, word) = if desk.stopping.load(Ordering::Acquire) {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping")
    } else if desk.lexicon.get().is_none() {
        (StatusCode::SERVICE_UNAVAILABLE, "loading")
    } else {
        (StatusCode::OK, "ok")
    };
    let mut body = json!({ "status": word, "model": desk.name });
    if let Some(nonce) = &desk.nonce {
        body["nonce"] = json!(nonce);
    }
    (status, axum::Json(body)).into_response()
}

async fn models(State(desk): State<Arc<Desk>>) -> Response {
    let mut model =
        json!({ "id": desk.name, "object": "model", "created": 0, "owned_by": "gpuspool-embedded" });
    if let Some(lexicon) = desk.lexicon.get() {
        model["context_length"] = json!(lexicon.context_tokens());
    }
    axum::Json(json!({ "object": "list", "data": [model] })).into_response()
}

async fn chat_completions(State(desk): State<Arc<Desk>>, body: Result<Bytes, BytesRejection>) -> Response {
    complete(desk, body, Kind::Chat).await.unwrap_or_else(Refusal::into_response)
}

async fn text_completions(State(desk): State<Arc<Desk>>, body: Result<Bytes, BytesRejection>) -> Response {
    complete(desk, body, Kind::Text).await.unwrap_or_else(Refusal::into_response)
}

async fn complete(
    desk: Arc<Desk>,
    body: Result<Bytes, BytesRejection>,
    kind: Kind,
) -> Result<Response, Refusal> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::too_long(BODY_BYTES_MAX),
        _ => Refusal::invalid(rejection.body_text()),
    })?;
    if desk.stopping.load(Ordering::Acquire) {
        return Err(Refusal::stopping());
    }
    let lexicon = Arc::clone(desk.lexicon.get().ok_or_else(Refusal::loading)?);
    let request = match kind {
        Kind::Chat => Request::chat(&body)?,
        Kind::Text => Request::text(&body)?,
    };
    if let Some(asked) = request.model.as_deref().filter(|asked| *asked != desk.name) {
        return Err(Refusal::model_not_found(asked, &desk.name));
    }
    let (stream, stream_usage) = (request.stream, request.stream_usage);
    let answer_tokens_max = desk.answer_tokens_max.get();
    // A megabyte takes the tokenizer long enough that `/health` would notice.
    let ask = tokio::task::spawn_blocking(move || ask_for(request, &lexicon, answer_tokens_max))
        .await
        .map_err(|error| Refusal::failed(&error.to_string()))??;
    let prompt_tokens = ask.prompt.len();
    let mut replies = desk.engine.ask(ask).map_err(|refusal| match refusal {
        engine::Refusal::Full => Refusal::queue_full(),
        engine::Refusal::Dead => Refusal::failed("the engine's thread has ended"),
    })?;
    let letterhead = Letterhead::new(kind, desk.name.clone());
    // A stream's status is sent with its first byte, so the first reply is awaited: it may be a refusal.
    let first = next(&mut replies).await?;
    if stream {
        let answer = AnswerStream::new(letterhead, replies, first, prompt_tokens, stream_usage);
        return Ok(Sse::new(answer).into_response());
    }
    let (text, ending, answer_tokens) = collect(first, replies).await?;
    let usage = Usage { prompt_tokens, answer_tokens };
    Ok(axum::Json(letterhead.whole(&text, ending, usage)).into_response())
}

/// Turns a request into tokens and bounds its answer by what fits.
fn ask_for(request: Request, lexicon: &Lexicon, answer_tokens_max: usize) -> Result<Ask, Refusal> {
    let prompt = match &request.prompt {
        Prompt::Chat(messages) => lexicon.chat_prompt(messages),
        Prompt::Text(text) => lexicon.text_prompt(text),
    };
    let prompt = prompt.map_err(|reason| Refusal::invalid(format!("the prompt cannot be used: {reason}")))?;
    if prompt.is_empty() {
        return Err(Refusal::invalid("the prompt cannot be used: it has no tokens"));
    }
    let context_tokens = lexicon.context_tokens();
    let room = context_tokens.saturating_sub(prompt.len());
    if room == 0 {
        return Err(Refusal::context_exceeded(prompt.len(), context_tokens));
    }
    let wanted = request.answer_tokens_max.unwrap_or(answer_tokens_max);
    Ok(Ask {
        prompt,
        answer_tokens_max: wanted.min(answer_tokens_max).min(room),
        sampling: request.sampling,
        seed: request.seed,
        stops: request.stops,
    })
}

async fn collect(first: Reply, mut replies: Replies) -> Result<(String, Ending, usize), Refusal> {
    let mut text = String::new();
    let mut reply = first;
    loop {
        match reply {
            Reply::Text(piece) => text.push_str(&piece),
            Reply::Done { ending, answer_tokens } => return Ok((text, ending, answer_tokens)),
            Reply::Stopping => return Err(Refusal::stopping()),
            Reply::Failed(reason) => return Err(Refusal::failed(&reason)),
        }
        reply = next(&mut replies).await?;
    }
}

/// The next reply, where a refusal is an error.
async fn next(replies: &mut Replies) -> Result<Reply, Refusal> {
    match replies.next().await {
        Some(Reply::Stopping) => Err(Refusal::stopping()),
        Some(Reply::Failed(reason)) => Err(Refusal::failed(&reason)),
        Some(reply) => Ok(reply),
        None => Err(Refusal::failed("the engine's thread has ended")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::{DemoModel, SENTENCE};
    use crate::model::Opened;
    use candle_core::Device;
    use serde_json::Value;
    use std::io::{Cursor, Read, Result as IoResult, Seek, SeekFrom};
    use std::sync::mpsc;

    /// A file whose bytes come only once the gate is opened, as from a very slow disk.
    struct Gated {
        gate: Option<mpsc::Receiver<()>>,
        file: Cursor<Vec<u8>>,
    }

    impl Read for Gated {
        fn read(&mut self, buffer: &mut [u8]) -> IoResult<usize> {
            if let Some(gate) = self.gate.take() {
                gate.recv().map_err(std::io::Error::other)?;
            }
            self.file.read(buffer)
        }
    }

    impl Seek for Gated {
        fn seek(&mut self, position: SeekFrom) -> IoResult<u64> {
            self.file.seek(position)
        }
    }

    async fn served(
        gate: mpsc::Receiver<()>,
        bytes: Vec<u8>,
    ) -> (String, tokio::task::JoinHandle<Result<(), Failure>>) {
        let model =
            Opened::new("slow".to_owned(), Box::new(Gated { gate: Some(gate), file: Cursor::new(bytes) }));
        let stopping = Arc::new(AtomicBool::new(false));
        let (engine, loaded) =
            Engine::start(model, Device::Cpu, None, 1, Arc::clone(&stopping)).expect("the engine starts");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let desk = Desk {
            name: "slow".to_owned(),
            nonce: Some("7".to_owned()),
            answer_tokens_max: NonZeroUsize::MAX,
            engine,
            lexicon: OnceLock::new(),
            stopping,
        };
        (base, tokio::spawn(run(listener, desk, loaded)))
    }

    async fn get(url: String) -> (u16, Value) {
        let response = reqwest::get(url).await.expect("an answer");
        (response.status().as_u16(), response.json().await.expect("JSON"))
    }

    #[tokio::test]
    async fn while_the_model_loads_health_and_requests_get_503_and_then_200() {
        let (open_gate, gate) = mpsc::channel();
        let (base, _server) =
            served(gate, DemoModel::default().to_gguf().expect("the model is written")).await;

        let (status, health) = get(format!("{base}/health")).await;
        assert_eq!((status, &health["status"], &health["nonce"]), (503, &json!("loading"), &json!("7")));
        let ask = || {
            reqwest::Client::new().post(format!("{base}/v1/completions")).body(r#"{"prompt":"Hi"}"#).send()
        };
        let refused = ask().await.expect("an answer");
        assert_eq!(refused.status(), 503);
        let refused: Value = refused.json().await.expect("JSON");
        assert_eq!(refused["error"]["code"], "model_loading");

        open_gate.send(()).expect("the engine waits at the gate");
        while get(format!("{base}/health")).await.0 == 503 {
            tokio::task::yield_now().await;
        }
        let (status, health) = get(format!("{base}/health")).await;
        assert_eq!((status, &health["status"], &health["model"]), (200, &json!("ok"), &json!("slow")));
        let answer: Value = ask().await.expect("an answer").json().await.expect("JSON");
        assert_eq!(answer["choices"][0]["text"], SENTENCE);
    }

    #[tokio::test]
    async fn a_model_that_cannot_be_loaded_ends_the_server() {
        let (open_gate, gate) = mpsc::channel();
        let (_, server) = served(gate, b"GGUF and then nothing".to_vec()).await;
        open_gate.send(()).expect("the engine waits at the gate");
        let failure = server.await.expect("the server ends").expect_err("it fails");
        assert!(matches!(failure, Failure::NotGguf { .. }), "{failure}");
    }
}
