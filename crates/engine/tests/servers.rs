//! LLM servers that boot, answer, refuse and die, played by the fake engine.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use engine::Surroundings;
use engine::openai::messages;
use engine::server::{Boot, Server};
use model::config::Config;
use model::link::EngineOrder;
use model::task::{LlmWork, TaskError};
use model::{FailureClass, WorkerId};
use serde_json::{Map, json};

const LIMIT: Duration = Duration::from_secs(20);

fn fake_engine() -> PathBuf {
    let me = std::env::current_exe().unwrap();
    me.ancestors().nth(2).unwrap().join("examples/fake_engine")
}

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn server(&self, more: &[&str]) -> Server {
        self.try_server(more, 20.0).unwrap()
    }

    fn try_server(&self, more: &[&str], boot_timeout_s: f64) -> Result<Server, TaskError> {
        let mut command = vec!["fake_engine", "--port", "{port}", "--model", "{model}"];
        command.extend(more);
        let config = json!({"engines": {"fake": {"command": command, "boot_timeout_s": boot_timeout_s,
            "stop_grace_s": 1}}, "models": {"fake-7b": {"engine": "fake"}}});
        let config = Config::parse(config.to_string().as_bytes(), Path::new("/")).unwrap().value;
        Server::start(Boot {
            config: Arc::new(config),
            order: EngineOrder {
                generation: 1,
                preset: "fake".into(),
                model: "fake-7b".into(),
                parallel: 2,
                beside: Vec::new(),
            },
            surroundings: Surroundings {
                worker: WorkerId::new("test-of-servers").unwrap(),
                gpu: None,
                beside: Vec::new(),
                simulated: false,
            },
            log: self.folder.path().join("log"),
            find: Arc::new(|_| Some(fake_engine())),
        })
    }
}

async fn ask(server: &Server, prompt: &str) -> Result<String, TaskError> {
    let work = LlmWork {
        prompt: Some(prompt.into()),
        messages: vec![],
        input: None,
        options: Map::new(),
        model: None,
    };
    server.client().chat(&messages(&work, None), &work.options, LIMIT).await.map(|answer| answer.text)
}

#[tokio::test]
async fn a_server_boots_answers_and_leaves_nothing() {
    let bench = Bench::new();
    let mut server = bench.server(&["--boot-ms", "150"]);
    assert!(server.client().canary(LIMIT).await.is_err(), "not ready yet");
    server.ready().await.unwrap();
    assert_eq!(ask(&server, "good day").await.unwrap(), "fake engine: good day");
    let (pid, port) = (server.pid(), server.port());
    server.stop().await.unwrap();
    assert_eq!(engine::tree::Process::read(pid), None);
    assert!(TcpListener::bind(("127.0.0.1", port)).is_ok());
    assert!(std::fs::read_to_string(bench.folder.path().join("log")).unwrap().contains("loading fake-7b"));
}

#[tokio::test]
async fn a_death_while_booting_shows_the_last_lines() {
    let bench = Bench::new();
    let mut server = bench.server(&["--die-booting"]);
    let error = server.ready().await.unwrap_err();
    assert_eq!((error.class, error.code.as_str()), (FailureClass::Crash, "engine_died"));
    assert!(error.message.contains("exit status 3"), "{error}");
    assert!(error.tail.unwrap().contains("cannot load the model"));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_boot_that_takes_too_long_ends() {
    let bench = Bench::new();
    let mut server = bench.try_server(&["--boot-ms", "60000"], 0.1).unwrap();
    assert_eq!(server.ready().await.unwrap_err().code, "boot_timeout");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_dies_ends_its_requests_and_is_noticed() {
    let bench = Bench::new();
    let mut server = bench.server(&["--die-after", "1"]);
    server.ready().await.unwrap();
    let error = ask(&server, "x").await.unwrap_err();
    assert_eq!((error.class, error.code.as_str()), (FailureClass::Crash, "connection_lost"));
    let death = tokio::time::timeout(LIMIT, server.died()).await.unwrap();
    assert!(death.message.contains("SIGABRT") && death.tail.unwrap().contains("dying as told"));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_hangs_or_refuses_does_not_hold_a_task_for_ever() {
    let bench = Bench::new();
    let mut hanging = bench.server(&["--hang"]);
    hanging.ready().await.unwrap();
    let error = hanging.client().chat(&json!([]), &Map::new(), Duration::from_millis(100)).await.unwrap_err();
    assert_eq!((error.class, error.code.as_str()), (FailureClass::Timeout, "request_timeout"));
    hanging.stop().await.unwrap();
    let mut refusing = bench.server(&["--unready-after", "1"]);
    refusing.ready().await.unwrap();
    assert_eq!(ask(&refusing, "x").await.unwrap_err().code, "http_503");
    refusing.stop().await.unwrap();
}

/// A stranger that answers every probe with a health that is not ours.
fn stranger(port: u16) -> Option<TcpListener> {
    let listener = TcpListener::bind(("127.0.0.1", port)).ok()?;
    let door = listener.try_clone().ok()?;
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for mut stream in door.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}");
        }
    });
    Some(listener)
}

#[tokio::test]
async fn a_strangers_port_is_left_to_the_stranger() {
    let bench = Bench::new();
    let mut server = bench.server(&["--bind-ms", "200"]);
    let first = server.port();
    let _listener = stranger(first).expect("the engine binds its port later than the stranger");
    server.ready().await.unwrap();
    assert_ne!(server.port(), first);
    assert_eq!(ask(&server, "who").await.unwrap(), "fake engine: who");
    server.stop().await.unwrap();
}
