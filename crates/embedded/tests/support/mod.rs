//! A running `gpuspool-embedded` for tests: started on a free port, spoken to over HTTP, ended with the test.

use embedded::demo::{DemoModel, Ending};
use reqwest::Response;
use serde_json::Value;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr};
use tokio::time::timeout;

/// No wait of these tests is longer; on a busy machine none comes near it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program, with an environment that the tests' own surroundings do not reach into.
pub(crate) fn program(arguments: &[&OsStr]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpuspool-embedded"));
    command.args(arguments).env_remove("GPUSPOOL_NONCE").env("GPUSPOOL_LOG", "info,embedded=debug");
    command
}

/// Runs the program to its end.
pub(crate) fn run(arguments: &[&OsStr]) -> Output {
    program(arguments).output().expect("the program runs")
}

/// Writes a variety of the demonstration model.
pub(crate) fn write_model(path: &Path, model: DemoModel) {
    std::fs::write(path, model.to_gguf().expect("the model is made")).expect("the model is written");
}

/// A model that speaks until it is stopped, and slowly: some milliseconds a token.
pub(crate) fn endless() -> DemoModel {
    DemoModel { ending: Ending::Repeat, layers: 8, feed_forward: 4096, ..DemoModel::default() }
}

/// A server process; dropping it kills it.
pub(crate) struct Server {
    child: Child,
    /// The first line that it wrote.
    pub(crate) announcement: String,
    /// `host:port`
    pub(crate) address: String,
    log: Lines<BufReader<ChildStderr>>,
}

impl Server {
    /// Starts a server with these arguments on a free port and waits until it is ready.
    pub(crate) async fn start(arguments: &[&OsStr]) -> Self {
        let mut all: Vec<&OsStr> = ["serve", "--port", "0", "--threads", "1"].map(OsStr::new).to_vec();
        all.extend_from_slice(arguments);
        let mut command = tokio::process::Command::from(program(&all));
        command.env("GPUSPOOL_NONCE", "n-1").stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("the program starts");
        let mut log = BufReader::new(child.stderr.take().expect("its messages")).lines();
        let announcement = timeout(PATIENCE, log.next_line()).await.expect("in time").expect("its messages");
        let announcement = announcement.expect("it announces itself");
        let address = announcement.split_once("http://").expect("its address").1;
        let address = address.split(';').next().expect("its address").to_owned();
        let mut server = Self { child, announcement, address, log };
        server.wait_for_log(" ready ").await;
        server
    }

    /// Waits until it logs a line that contains `text`.
    pub(crate) async fn wait_for_log(&mut self, text: &str) {
        let search = async {
            while let Some(line) = self.log.next_line().await.expect("its messages") {
                if line.contains(text) {
                    return;
                }
            }
            panic!("it never said {text:?}");
        };
        timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("it did not say {text:?} in time"));
    }

    /// `GET path`
    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        read(reqwest::get(format!("http://{}{path}", self.address)).await.expect("an answer")).await
    }

    /// `POST path`, read to the end.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        read(self.open(path, body).await).await
    }

    /// `POST path`, and only the beginning of the answer.
    pub(crate) async fn open(&self, path: &str, body: &Value) -> Response {
        // A client of its own: a connection of its own.
        let request = reqwest::Client::new().post(format!("http://{}{path}", self.address));
        request.body(body.to_string()).send().await.expect("an answer")
    }

    /// Sends a signal: `TERM`, `INT`.
    pub(crate) fn signal(&self, signal: &str) {
        let command = format!("kill -{signal} {}", self.child.id().expect("it lives"));
        let sent = Command::new("sh").args(["-c", &command]).status().expect("a shell");
        assert!(sent.success(), "{command}");
    }

    /// Waits for its end.
    pub(crate) async fn wait(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.child.wait()).await.expect("in time").expect("it ends")
    }
}

/// Status and JSON of an answer.
pub(crate) async fn read(response: Response) -> (u16, Value) {
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

/// The events of a stream, read to its end.
pub(crate) async fn events(response: Response) -> Vec<String> {
    let text = response.text().await.expect("the stream");
    text.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).map(str::to_owned).collect()
}

/// The text in the pieces of a chat's stream.
pub(crate) fn said(events: &[String]) -> String {
    let piece = |event: &String| {
        let event: Value = serde_json::from_str(event).ok()?;
        event["choices"][0]["delta"]["content"].as_str().map(str::to_owned)
    };
    events.iter().filter_map(piece).collect()
}
