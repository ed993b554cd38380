//! Requests to an engine in the words of the OpenAI API, and what its refusals mean for a task.
//!
//! Not here: streaming to people (`door`).

use std::time::Duration;

use model::FailureClass;
use model::task::{LlmWork, TaskError};
use reqwest::{Response, StatusCode};
use serde_json::{Map, Value, json};
use tokio::time::sleep;

use crate::log::printable;

/// How long after a 503 or a refused connection the one retry comes.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How much of a refusal's text goes into an error.
const REFUSAL_CHARS_MAX: usize = 2_000;

/// What an LLM said.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Its text.
    pub text: String,
    /// Token counts as the engine gave them.
    pub usage: Option<Value>,
    /// `stop`, `length`, …
    pub finish_reason: Option<String>,
}

/// One engine on the loopback address.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    model: String,
    bytes_max: u64,
}

impl Client {
    /// The engine at `port` that knows its model as `model`; answers of more than `bytes_max` are not read.
    ///
    /// # Errors
    /// When no HTTP client can be made on this machine.
    pub fn new(port: u16, model: &str, bytes_max: u64) -> Result<Self, reqwest::Error> {
        let http =
            reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build()?;
        Ok(Self { http, base: format!("http://127.0.0.1:{port}"), model: model.to_owned(), bytes_max })
    }

    /// Asks `path` for its status and what it says, for probes.
    ///
    /// # Errors
    /// When nobody answers within `limit`.
    pub async fn probe(&self, path: &str, limit: Duration) -> Result<(StatusCode, Value), reqwest::Error> {
        let response = self.http.get(format!("{}{path}", self.base)).timeout(limit).send().await?;
        let status = response.status();
        let body = bounded(response, 64 << 10).await.unwrap_or_default();
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    /// Asks for one token, to see that the model really answers.
    ///
    /// # Errors
    /// As [`chat`](Self::chat).
    pub async fn canary(&self, limit: Duration) -> Result<(), TaskError> {
        let messages = json!([{"role": "user", "content": "hi"}]);
        let options = Map::from_iter([("max_tokens".to_owned(), json!(1))]);
        self.ask(&messages, &options, limit).await.map(|_| ())
    }

    /// Asks one question and waits for the whole answer. A 503 or a refused connection is tried once more.
    ///
    /// # Errors
    /// `model_not_found` and other refusals as bad input, `request_timeout`, `connection_lost`, `http_<status>`.
    pub async fn chat(
        &self,
        messages: &Value,
        options: &Map<String, Value>,
        limit: Duration,
    ) -> Result<Answer, TaskError> {
        match self.ask(messages, options, limit).await {
            Err(error) if matches!(error.code.as_str(), "http_503" | "http_429" | "connection_refused") => {
                sleep(RETRY_AFTER).await;
                self.ask(messages, options, limit).await
            }
            result => result,
        }
    }

    async fn ask(
        &self,
        messages: &Value,
        options: &Map<String, Value>,
        limit: Duration,
    ) -> Result<Answer, TaskError> {
        let mut body = options.clone();
        // The record holds one answer, and this client reads it whole.
        for name in ["stream", "stream_options", "n"] {
            body.remove(name);
        }
        body.insert("model".into(), json!(self.model));
        body.insert("messages".into(), messages.clone());
        let request = self.http.post(format!("{}/v1/chat/completions", self.base)).json(&body).timeout(limit);
        let response = request.send().await.map_err(|error| lost(&error, limit))?;
        let status = response.status();
        let bytes = bounded(response, self.bytes_max).await.map_err(|error| match error {
            Unread::Lost(error) => lost(&error, limit),
            Unread::TooLong => {
                crash("answer_too_long", format!("the answer has more than {} bytes", self.bytes_max))
            }
        })?;
        if !status.is_success() {
            return Err(refusal(status, &bytes));
        }
        answer(&bytes)
    }
}

/// The conversation of a task: its messages, then its prompt, then the text of its input file.
#[must_use]
pub fn messages(work: &LlmWork, input: Option<&str>) -> Value {
    let mut all: Vec<Value> = work
        .messages
        .iter()
        .map(|message| json!({"role": message.role, "content": message.content}))
        .collect();
    let parts: Vec<&str> = work.prompt.as_deref().into_iter().chain(input).collect();
    if !parts.is_empty() {
        all.push(json!({"role": "user", "content": parts.join("\n\n")}));
    }
    Value::Array(all)
}

enum Unread {
    Lost(reqwest::Error),
    TooLong,
}

async fn bounded(mut response: Response, bytes_max: u64) -> Result<Vec<u8>, Unread> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Unread::Lost)? {
        if (body.len() + chunk.len()) as u64 > bytes_max {
            return Err(Unread::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn answer(bytes: &[u8]) -> Result<Answer, TaskError> {
    let unreadable = |why: &str| crash("bad_answer", format!("the engine's answer cannot be read: {why}"));
    let body: Value = serde_json::from_slice(bytes).map_err(|error| unreadable(&error.to_string()))?;
    let choice = body.pointer("/choices/0").ok_or_else(|| unreadable("it has no `choices`"))?;
    let text = match choice.pointer("/message/content") {
        Some(Value::String(text)) => text.clone(),
        // A model that only calls tools says nothing.
        Some(Value::Null) => String::new(),
        _ => return Err(unreadable("its first choice has no text")),
    };
    Ok(Answer {
        text,
        usage: body.get("usage").filter(|usage| usage.is_object()).cloned(),
        finish_reason: choice.get("finish_reason").and_then(Value::as_str).map(str::to_owned),
    })
}

fn crash(code: &str, message: String) -> TaskError {
    TaskError::new(FailureClass::Crash, code, message)
}

fn lost(error: &reqwest::Error, limit: Duration) -> TaskError {
    if error.is_timeout() {
        let message = format!("the engine gave no whole answer within {:.0} s", limit.as_secs_f64());
        return TaskError::new(FailureClass::Timeout, "request_timeout", message);
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let code = if error.is_connect() { "connection_refused" } else { "connection_lost" };
    crash(code, format!("the connection to the engine broke: {cause}"))
}

/// What an engine's refusal means: its fault, the task's, or too little memory.
fn refusal(status: StatusCode, body: &[u8]) -> TaskError {
    let said: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let field = |path: &str| said.pointer(path).and_then(Value::as_str);
    let text = field("/error/message").or_else(|| field("/error")).or_else(|| field("/message"));
    let text = text.map_or_else(|| printable(body), |text| printable(text.as_bytes()));
    let text: String = text.trim().chars().take(REFUSAL_CHARS_MAX).collect();
    let code = field("/error/code").or_else(|| field("/error/type")).filter(|code| !code.is_empty());
    let message = format!("the engine refused with status {}: {text}", status.as_u16());
    let lowered = text.to_lowercase();
    if status.is_server_error() && (lowered.contains("out of memory") || lowered.contains("cudamalloc")) {
        return TaskError::new(FailureClass::Oom, "out_of_memory", message);
    }
    if status == StatusCode::NOT_FOUND && (code == Some("model_not_found") || lowered.contains("model")) {
        return TaskError::new(FailureClass::BadInput, "model_not_found", message);
    }
    let numbered = format!("http_{}", status.as_u16());
    if status.is_client_error()
        && status != StatusCode::TOO_MANY_REQUESTS
        && status != StatusCode::REQUEST_TIMEOUT
    {
        let code = code.map_or(numbered, |code| code.chars().take(64).collect());
        return TaskError::new(FailureClass::BadInput, code, message);
    }
    crash(&numbered, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::task::Message;

    #[test]
    fn the_prompt_follows_the_conversation_and_the_file_follows_the_prompt() {
        let work = LlmWork {
            prompt: Some("sum up".into()),
            messages: vec![Message { role: "system".into(), content: json!("be short") }],
            input: Some("a.txt".into()),
            options: Map::new(),
            model: None,
        };
        assert_eq!(
            messages(&work, Some("the text")),
            json!([{"role": "system", "content": "be short"}, {"role": "user", "content": "sum up\n\nthe text"}])
        );
    }

    #[test]
    fn a_refusal_is_the_tasks_fault_the_engines_or_memorys() {
        let of = |status: u16, body: &str| {
            let error = refusal(StatusCode::from_u16(status).unwrap(), body.as_bytes());
            (error.class, error.code)
        };
        let missing = r#"{"error":{"message":"no such model","code":"model_not_found"}}"#;
        assert_eq!(of(404, missing), (FailureClass::BadInput, "model_not_found".into()));
        let long = r#"{"error":{"message":"too many tokens","code":"context_length_exceeded"}}"#;
        assert_eq!(of(400, long), (FailureClass::BadInput, "context_length_exceeded".into()));
        assert_eq!(of(500, "CUDA error: out of memory"), (FailureClass::Oom, "out_of_memory".into()));
        assert_eq!(of(503, "{}"), (FailureClass::Crash, "http_503".into()));
        assert_eq!(of(429, "busy"), (FailureClass::Crash, "http_429".into()));
    }

    #[test]
    fn an_answer_without_text_is_no_answer() {
        assert_eq!(answer(b"<html>").unwrap_err().code, "bad_answer");
        assert_eq!(answer(br#"{"choices":[]}"#).unwrap_err().code, "bad_answer");
        let whole = br#"{"choices":[{"message":{"content":"yes"},"finish_reason":"stop"}],"usage":{"total_tokens":3}}"#;
        let read = answer(whole).unwrap();
        assert_eq!((read.text.as_str(), read.finish_reason.as_deref()), ("yes", Some("stop")));
        assert_eq!(read.usage.unwrap()["total_tokens"], 3);
    }
}
