//! A stand-in for an LLM server, for tests only: it says `fake` in everything it answers.
//!
//! It speaks just enough of the OpenAI API to be booted, probed, asked and stopped, and misbehaves on demand:
//!
//! ```text
//! fake_engine --port P [--model NAME] [--boot-ms N] [--answer-ms N] [--parallel N] [--boots-log FILE]
//!             [--bind-ms N] [--die-after N] [--die-booting] [--hang] [--unready-after N]
//! ```

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::exit;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

#[derive(Default)]
struct Faults {
    /// Dies at the request after this many (the canary counts).
    die_after: Option<u64>,
    /// Never answers a request.
    hang: bool,
    /// Answers 503 to every request after this many.
    unready_after: Option<u64>,
}

struct Engine {
    model: String,
    ready_at: Instant,
    answer: Duration,
    faults: Faults,
    nonce: Option<String>,
    requests: AtomicU64,
    /// Free slots: more requests than `--parallel` wait, as with a real engine.
    slots: (Mutex<u64>, Condvar),
}

fn main() {
    let mut words = std::env::args().skip(1);
    let (mut port, mut parallel, mut boot_ms, mut bind_ms, mut answer_ms) = (0, 1, 0, 0, 0);
    let (mut model, mut faults, mut die_booting) = ("fake".to_owned(), Faults::default(), false);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| fail(&format!("{word} needs a value")));
        match word.as_str() {
            "--port" => port = number(&value()),
            "--model" => model = value(),
            "--boot-ms" => boot_ms = number(&value()),
            "--bind-ms" => bind_ms = number(&value()),
            "--answer-ms" => answer_ms = number(&value()),
            "--parallel" => parallel = number(&value()),
            "--boots-log" => append(&value()),
            "--die-after" => faults.die_after = Some(number(&value())),
            "--unready-after" => faults.unready_after = Some(number(&value())),
            "--hang" => faults.hang = true,
            "--die-booting" => die_booting = true,
            other => fail(&format!("unknown argument {other}")),
        }
    }
    let gpus = std::env::var("GPUSPOOL_GPUS").unwrap_or_default();
    println!("fake engine: loading {model} on {gpus}");
    if die_booting {
        fail("fake engine: cannot load the model");
    }
    std::thread::sleep(Duration::from_millis(bind_ms));
    let port = u16::try_from(port).unwrap_or_else(|_| fail("the port is too large"));
    let listener =
        TcpListener::bind(("127.0.0.1", port)).unwrap_or_else(|error| fail(&format!("port {port}: {error}")));
    let engine = Arc::new(Engine {
        model,
        ready_at: Instant::now() + Duration::from_millis(boot_ms),
        answer: Duration::from_millis(answer_ms),
        faults,
        nonce: std::env::var("GPUSPOOL_NONCE").ok(),
        requests: AtomicU64::new(0),
        slots: (Mutex::new(parallel.max(1)), Condvar::new()),
    });
    for stream in listener.incoming().flatten() {
        let engine = Arc::clone(&engine);
        std::thread::spawn(move || while engine.serve(&stream).is_some() {});
    }
}

fn fail(why: &str) -> ! {
    eprintln!("{why}");
    exit(3)
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| fail(&format!("{text} is not a number")))
}

/// One line for each boot, so that a test can count them.
fn append(path: &str) {
    let line = format!("{}\n", std::process::id());
    let file = OpenOptions::new().create(true).append(true).open(path);
    if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
        fail(&format!("{path}: {error}"));
    }
}

impl Engine {
    /// Serves one request of a connection; none when the connection is over.
    fn serve(&self, stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let mut first = String::new();
        reader.read_line(&mut first).ok().filter(|count| *count > 0)?;
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            let header = header.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let path = first.split(' ').nth(1).unwrap_or("/");
        let (status, answer) = self.answer(path, &body);
        let text = answer.to_string();
        // One write, or the two ends wait for each other's acknowledgements.
        let head =
            format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}", text.len());
        let mut stream = stream;
        stream.write_all(format!("{head}\r\n\r\n{text}").as_bytes()).ok()
    }

    fn answer(&self, path: &str, body: &[u8]) -> (&'static str, Value) {
        let loading = Instant::now() < self.ready_at;
        match path {
            "/health" => {
                let status = if loading { "503 Service Unavailable" } else { "200 OK" };
                (status, json!({"status": "fake", "nonce": self.nonce}))
            }
            "/v1/models" => {
                ("200 OK", json!({"object": "list", "data": [{"id": self.model, "owned_by": "fake"}]}))
            }
            "/v1/chat/completions" if loading => {
                error("503 Service Unavailable", "fake engine: loading", "loading")
            }
            "/v1/chat/completions" => self.chat(body),
            _ => error("404 Not Found", "fake engine: no such path", "not_found"),
        }
    }

    fn chat(&self, body: &[u8]) -> (&'static str, Value) {
        let count = self.requests.fetch_add(1, Ordering::SeqCst);
        if self.faults.die_after.is_some_and(|limit| count >= limit) {
            eprintln!("fake engine: dying as told");
            std::process::abort();
        }
        if self.faults.unready_after.is_some_and(|limit| count >= limit) {
            return error("503 Service Unavailable", "fake engine: not ready any more", "unready");
        }
        let Ok(request) = serde_json::from_slice::<Value>(body) else {
            return error("400 Bad Request", "fake engine: not JSON", "bad_request");
        };
        if request["model"] != self.model.as_str() {
            return error("404 Not Found", "fake engine: no such model", "model_not_found");
        }
        if self.faults.hang && count > 0 {
            std::thread::sleep(Duration::from_secs(3_600));
        }
        let _slot = Slot::take(&self.slots);
        std::thread::sleep(self.answer);
        let said =
            request["messages"].as_array().and_then(|all| all.last()).map(|last| last["content"].clone());
        let said = said.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
        let words = said.split_whitespace().count();
        (
            "200 OK",
            json!({
                "object": "chat.completion",
                "model": self.model,
                "choices": [{"index": 0, "finish_reason": "stop",
                    "message": {"role": "assistant", "content": format!("fake engine: {said}")}}],
                "usage": {"prompt_tokens": words, "completion_tokens": words + 2, "total_tokens": 2 * words + 2}
            }),
        )
    }
}

fn error(status: &'static str, message: &str, code: &str) -> (&'static str, Value) {
    (status, json!({"error": {"message": message, "type": "fake", "code": code}}))
}

struct Slot<'a>(&'a (Mutex<u64>, Condvar));

impl<'a> Slot<'a> {
    fn take(slots: &'a (Mutex<u64>, Condvar)) -> Self {
        let (free, freed) = slots;
        let mut free = freed
            .wait_while(free.lock().expect("no slot panics"), |free| *free == 0)
            .expect("no slot panics");
        *free -= 1;
        Self(slots)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.0.0.lock().expect("no slot panics") += 1;
        self.0.1.notify_one();
    }
}
