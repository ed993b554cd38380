//! The program from outside: started as a worker starts it, asked over HTTP, stopped by signals.

mod support;

use embedded::demo::{DemoModel, Head, SENTENCE};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::net::{TcpListener, TcpStream};
use support::{Server, endless, events, read, run, said, write_model};

const CHAT: &str = "/v1/chat/completions";

fn hello() -> Value {
    json!({ "messages": [{ "role": "user", "content": "Hello, who are you?" }] })
}

fn with(mut body: Value, change: Value) -> Value {
    for (key, value) in change.as_object().expect("an object") {
        body[key] = value.clone();
    }
    body
}

async fn demo() -> Server {
    Server::start(&[OsStr::new("--demo")]).await
}

#[tokio::test]
async fn the_demonstration_model_says_what_it_is() {
    let server = demo().await;
    assert!(
        server.announcement.contains("model demo-model, threads 1, device cpu"),
        "{}",
        server.announcement
    );
    assert!(server.announcement.contains("DEMONSTRATION"), "{}", server.announcement);
    let health = json!({ "status": "ok", "model": "demo-model", "nonce": "n-1" });
    assert_eq!(server.get("/health").await, (200, health));
    assert_eq!(server.get("/v1/models").await.1["data"][0]["id"], "demo-model");

    let (status, answer) = server.post(CHAT, &with(hello(), json!({ "model": "demo-model" }))).await;
    assert_eq!(status, 200);
    assert_eq!(answer["choices"][0]["message"], json!({ "role": "assistant", "content": SENTENCE }));
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let counts =
        ["prompt_tokens", "completion_tokens", "total_tokens"].map(|key| answer["usage"][key].as_u64());
    let [Some(prompt), Some(completion), Some(total)] = counts else { panic!("{answer}") };
    assert!(prompt > 20 && completion > 20 && total == prompt + completion, "{answer}");
}

#[tokio::test]
async fn a_stream_carries_the_same_answer_in_pieces() {
    let server = demo().await;
    let asked = with(hello(), json!({ "stream": true, "stream_options": { "include_usage": true } }));
    let response = server.open(CHAT, &asked).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let events = events(response).await;
    assert_eq!(said(&events), SENTENCE);
    let [first, .., closing, counts, done] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(done, "[DONE]");
    let [first, closing, counts]: [Value; 3] =
        [first, closing, counts].map(|event| serde_json::from_str(event).expect("JSON"));
    assert_eq!(first["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(closing["choices"][0]["finish_reason"], "stop");
    assert_eq!(counts["usage"]["completion_tokens"], json!(events.len() - 4));
}

#[tokio::test]
async fn limits_and_stop_sequences_end_an_answer() {
    let server = demo().await;
    let cut = |change| with(hello(), change);
    let (_, answer) = server.post(CHAT, &cut(json!({ "max_tokens": 3 }))).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "This is the");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    let (_, answer) = server.post(CHAT, &cut(json!({ "stop": [" fixed", "stration mo"] }))).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "This is the demon");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let (_, answer) =
        server.post("/v1/completions", &json!({ "prompt": "Say something", "max_tokens": 2 })).await;
    assert_eq!(answer["choices"][0]["text"], "This is");
}

#[tokio::test]
async fn what_cannot_be_served_is_refused_with_a_code() {
    let server = demo().await;
    let long = "a".repeat(4000);
    let table = [
        (CHAT, with(hello(), json!({ "model": "qwen2.5:7b" })), 404, "model_not_found"),
        (CHAT, with(hello(), json!({ "n": 3 })), 400, "unsupported_parameter"),
        (CHAT, json!({ "messages": [] }), 400, "invalid_request"),
        (CHAT, json!({ "messages": [{ "role": "user", "content": long }] }), 400, "context_length_exceeded"),
        (
            CHAT,
            json!({ "messages": [{ "role": "user", "content": "a".repeat(2_000_000) }] }),
            413,
            "request_too_large",
        ),
        ("/v1/embeddings", json!({}), 404, "not_found"),
    ];
    for (path, body, status, code) in table {
        let (got, error) = server.post(path, &body).await;
        assert_eq!((got, &error["error"]["code"]), (status, &json!(code)), "{error}");
        assert!(error["error"]["message"].is_string() && error["error"]["type"].is_string(), "{error}");
    }
    assert_eq!(server.get(CHAT).await.0, 405);
    // None of them did it any harm.
    assert_eq!(server.post(CHAT, &hello()).await.1["choices"][0]["message"]["content"], SENTENCE);
}

#[tokio::test]
async fn a_file_is_served_under_its_name_whether_quantised_or_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let plain = folder.path().join("plain.gguf");
    let written = run(&[OsStr::new("write-demo"), plain.as_os_str()]);
    assert!(written.status.success(), "{written:?}");
    let quantised = folder.path().join("q8.gguf");
    write_model(&quantised, DemoModel { quantised: true, ..DemoModel::default() });

    for (path, name) in [(&plain, "plain"), (&quantised, "q8")] {
        let server = Server::start(&[OsStr::new("--model"), path.as_os_str()]).await;
        assert!(!server.announcement.contains("DEMONSTRATION"), "{}", server.announcement);
        let (_, answer) = server.post(CHAT, &hello()).await;
        assert_eq!(
            (&answer["model"], &answer["choices"][0]["message"]["content"]),
            (&json!(name), &json!(SENTENCE))
        );
    }
    let named =
        Server::start(&["--model".as_ref(), plain.as_os_str(), "--name".as_ref(), "mine".as_ref()]).await;
    assert_eq!(named.get("/v1/models").await.1["data"][0]["id"], "mine");
}

/// A tied model has no sentence: from a fresh prompt it finds all bytes equally good, so that its first word
/// shows the dice.
#[tokio::test]
async fn a_model_with_a_tied_head_runs_and_a_seed_decides_its_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tied.gguf");
    write_model(&path, DemoModel { head: Head::Tied, ..DemoModel::default() });
    let server = Server::start(&[OsStr::new("--model"), path.as_os_str()]).await;
    let mut answers = Vec::new();
    for seed in [1, 1, 2] {
        let asked = with(hello(), json!({ "seed": seed, "temperature": 1, "max_tokens": 12 }));
        let (status, answer) = server.post(CHAT, &asked).await;
        assert_eq!((status, &answer["usage"]["completion_tokens"]), (200, &json!(12)), "{answer}");
        answers.push(answer["choices"][0]["message"]["content"].clone());
    }
    assert_eq!(answers[0], answers[1]);
    assert_ne!(answers[0], answers[2]);
}

#[tokio::test]
async fn a_full_queue_refuses_and_a_client_that_leaves_makes_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("endless.gguf");
    write_model(&path, endless());
    let mut server =
        Server::start(&["--model".as_ref(), path.as_os_str(), "--queue-max".as_ref(), "0".as_ref()]).await;

    let mut endless = server.open(CHAT, &with(hello(), json!({ "stream": true }))).await;
    endless.chunk().await.expect("the stream").expect("its first piece");
    let short = with(hello(), json!({ "max_tokens": 1 }));
    let refused = server.open(CHAT, &short).await;
    assert_eq!(refused.headers()["retry-after"], "1");
    let (status, error) = read(refused).await;
    assert_eq!((status, &error["error"]["code"]), (429, &json!("queue_full")));
    // The one that computes does not keep the others from an answer.
    assert_eq!(server.get("/health").await.0, 200);

    drop(endless);
    server.wait_for_log("abandoned").await;
    assert_eq!(server.post(CHAT, &short).await.0, 200);
}

#[tokio::test]
async fn after_sigterm_the_request_in_flight_is_answered_and_waiting_ones_are_sent_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("endless.gguf");
    write_model(&path, endless());
    let mut server = Server::start(&[OsStr::new("--model"), path.as_os_str()]).await;

    let asked = with(hello(), json!({ "stream": true, "max_tokens": 320 }));
    let in_flight = server.open(CHAT, &asked).await;
    let waiting = tokio::spawn({
        let request = reqwest::Client::new().post(format!("http://{}{CHAT}", server.address));
        request.body(hello().to_string()).send()
    });
    // The one in flight and the one that waits.
    server.wait_for_log("queued").await;
    server.wait_for_log("queued").await;
    server.signal("TERM");

    let events = events(in_flight).await;
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    assert_eq!(said(&events).matches(SENTENCE).count(), 10);
    let (status, error) = read(waiting.await.expect("no panic").expect("an answer")).await;
    assert_eq!((status, &error["error"]["code"]), (503, &json!("stopping")));
    assert_eq!(server.wait().await.code(), Some(0));
    assert!(TcpStream::connect(&server.address).is_err());
}

#[tokio::test]
async fn an_idle_server_ends_at_once_on_sigterm_and_on_ctrl_c() {
    for signal in ["TERM", "INT"] {
        let mut server = demo().await;
        server.signal(signal);
        assert_eq!(server.wait().await.code(), Some(0));
    }
}

#[test]
fn a_file_that_cannot_be_served_is_named_with_the_next_step() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("the file is written");
        path
    };
    let demo = DemoModel::default().to_gguf().expect("the model is made");
    let place = demo.windows(5).position(|window| window == b"qwen2").expect("its architecture");
    let mut llama = demo.clone();
    llama[place..place + 5].copy_from_slice(b"llama");
    let table = [
        (folder.path().join("missing.gguf"), 66, "`--demo`"),
        (folder.path().to_owned(), 66, "not a regular file"),
        (write("text.gguf", b"# not a model\n"), 65, "as a GGUF file"),
        (write("empty.gguf", b""), 65, "as a GGUF file"),
        (write("cut.gguf", &demo[..demo.len() / 2]), 65, "damaged"),
        (write("llama.gguf", &llama), 65, "`llama` model"),
    ];
    for (path, code, words) in table {
        let ended =
            run(&["serve".as_ref(), "--port".as_ref(), "0".as_ref(), "--model".as_ref(), path.as_os_str()]);
        let message = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(code), "{message}");
        assert!(message.contains(&path.display().to_string()) && message.contains(words), "{message}");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = holder.local_addr().expect("its address").port().to_string();
    let ended = run(&["serve".as_ref(), "--demo".as_ref(), "--port".as_ref(), port.as_ref()]);
    let message = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(98), "{message}");
    assert!(message.contains(&format!("port {port} is in use")), "{message}");
}
