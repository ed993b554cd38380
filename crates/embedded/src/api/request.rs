//! What clients ask: the bodies of chat and text completions, checked.
//!
//! Fields that this engine does not know are ignored, as OpenAI's servers do; fields that it knows and cannot
//! honour (`tools`, `n` above 1, …) are refused rather than ignored.

use crate::api::refusal::Refusal;
use crate::template::Message;
use candle_transformers::generation::Sampling;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::hash::{BuildHasher, RandomState};

/// Longest conversation. The context ends it before, but for messages of a word or two.
const MESSAGES_MAX: usize = 1024;
/// Each stop sequence is searched for at every token.
const STOPS_MAX: usize = 16;
const STOP_BYTES_MAX: usize = 256;
/// OpenAI's upper bound.
const TEMPERATURE_MAX: f64 = 2.0;
/// What Qwen's own `generation_config.json` says, where a request names none.
const TEMPERATURE_DEFAULT: f64 = 0.7;

/// What the model shall continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Prompt {
    /// A conversation, through the chat template.
    Chat(Vec<Message>),
    /// A text as it is.
    Text(String),
}

/// A checked request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The model's name; none means whichever is served.
    pub(crate) model: Option<String>,
    /// What is to be continued.
    pub(crate) prompt: Prompt,
    /// The longest answer that the client wants, in tokens.
    pub(crate) answer_tokens_max: Option<usize>,
    /// How the next token is chosen.
    pub(crate) sampling: Sampling,
    /// Where the dice begin.
    pub(crate) seed: u64,
    /// Texts that end the answer.
    pub(crate) stops: Vec<String>,
    /// Whether the answer is to come piece by piece.
    pub(crate) stream: bool,
    /// Whether the stream is to end with the counts.
    pub(crate) stream_usage: bool,
}

#[derive(Deserialize)]
struct ChatBody {
    model: Option<String>,
    messages: Vec<MessageBody>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    seed: Option<i64>,
    stop: Option<Value>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    n: Option<u64>,
    logprobs: Option<bool>,
    tools: Option<Vec<Value>>,
    functions: Option<Vec<Value>>,
    response_format: Option<ResponseFormat>,
}

#[derive(Deserialize)]
struct MessageBody {
    role: String,
    content: Option<Value>,
}

#[derive(Deserialize)]
struct TextBody {
    model: Option<String>,
    prompt: String,
    max_tokens: Option<usize>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    seed: Option<i64>,
    stop: Option<Value>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    n: Option<u64>,
    best_of: Option<u64>,
    logprobs: Option<u64>,
    echo: Option<bool>,
    suffix: Option<String>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
struct ResponseFormat {
    #[serde(rename = "type")]
    kind: String,
}

impl Request {
    /// Reads the body of `/v1/chat/completions`.
    pub(crate) fn chat(body: &[u8]) -> Result<Self, Refusal> {
        let body: ChatBody = parse(body)?;
        refuse_if(body.n.is_some_and(|n| n != 1), "n")?;
        refuse_if(body.logprobs == Some(true), "logprobs")?;
        refuse_if(body.tools.is_some_and(|tools| !tools.is_empty()), "tools")?;
        refuse_if(body.functions.is_some_and(|functions| !functions.is_empty()), "functions")?;
        refuse_if(body.response_format.is_some_and(|format| format.kind != "text"), "response_format")?;
        Ok(Self {
            model: body.model,
            prompt: Prompt::Chat(messages(body.messages)?),
            answer_tokens_max: answer_tokens_max(body.max_completion_tokens.or(body.max_tokens))?,
            sampling: sampling(body.temperature, body.top_p)?,
            seed: seed(body.seed),
            stops: stops(body.stop)?,
            stream: body.stream.unwrap_or(false),
            stream_usage: wants_usage(body.stream_options),
        })
    }

    /// Reads the body of `/v1/completions`.
    pub(crate) fn text(body: &[u8]) -> Result<Self, Refusal> {
        let body: TextBody = parse(body)?;
        refuse_if(body.n.is_some_and(|n| n != 1), "n")?;
        refuse_if(body.best_of.is_some_and(|n| n != 1), "best_of")?;
        refuse_if(body.logprobs.is_some(), "logprobs")?;
        refuse_if(body.echo == Some(true), "echo")?;
        refuse_if(body.suffix.is_some_and(|suffix| !suffix.is_empty()), "suffix")?;
        if body.prompt.is_empty() {
            return Err(Refusal::invalid("`prompt` is empty"));
        }
        Ok(Self {
            model: body.model,
            prompt: Prompt::Text(body.prompt),
            answer_tokens_max: answer_tokens_max(body.max_tokens)?,
            sampling: sampling(body.temperature, body.top_p)?,
            seed: seed(body.seed),
            stops: stops(body.stop)?,
            stream: body.stream.unwrap_or(false),
            stream_usage: wants_usage(body.stream_options),
        })
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." { String::new() } else { format!(" at `{path}`") };
        Refusal::invalid(format!("the body is no valid request{place}: {}", error.inner()))
    })?;
    reader.end().map_err(|error| Refusal::invalid(format!("the body is no valid request: {error}")))?;
    Ok(parsed)
}

fn refuse_if(asked: bool, field: &str) -> Result<(), Refusal> {
    if asked { Err(Refusal::unsupported(field)) } else { Ok(()) }
}

fn messages(bodies: Vec<MessageBody>) -> Result<Vec<Message>, Refusal> {
    if bodies.is_empty() {
        return Err(Refusal::invalid("`messages` is empty"));
    }
    if bodies.len() > MESSAGES_MAX {
        let count = bodies.len();
        return Err(Refusal::invalid(format!("`messages` has {count} entries; there may be {MESSAGES_MAX}")));
    }
    bodies.into_iter().enumerate().map(|(place, body)| message(place, body)).collect()
}

fn message(place: usize, body: MessageBody) -> Result<Message, Refusal> {
    let role = match body.role.as_str() {
        // OpenAI's newer word for the same; templates know only the older one.
        "developer" => "system",
        role @ ("system" | "user" | "assistant" | "tool") => role,
        other => {
            let what =
                format!("`messages[{place}].role` is `{other}`; it is system, user, assistant or tool");
            return Err(Refusal::invalid(what));
        }
    };
    let wrong =
        || Refusal::invalid(format!("`messages[{place}].content` is no text and no list of text parts"));
    let content = match body.content {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => {
            parts.iter().map(|part| text_part(part).ok_or_else(wrong)).collect::<Result<String, _>>()?
        }
        // An assistant's message that only called tools has none.
        None | Some(Value::Null) if role == "assistant" => String::new(),
        _ => return Err(wrong()),
    };
    Ok(Message { role: role.to_owned(), content })
}

/// `{"type": "text", "text": "…"}`
fn text_part(part: &Value) -> Option<&str> {
    if part.get("type")?.as_str()? != "text" {
        return None;
    }
    part.get("text")?.as_str()
}

fn answer_tokens_max(asked: Option<usize>) -> Result<Option<usize>, Refusal> {
    match asked {
        Some(0) => Err(Refusal::invalid("`max_tokens` is 0; it is at least 1")),
        asked => Ok(asked),
    }
}

fn sampling(temperature: Option<f64>, top_p: Option<f64>) -> Result<Sampling, Refusal> {
    let temperature = temperature.unwrap_or(TEMPERATURE_DEFAULT);
    if !(0.0..=TEMPERATURE_MAX).contains(&temperature) {
        return Err(Refusal::invalid(format!(
            "`temperature` is {temperature}; it is from 0 to {TEMPERATURE_MAX}"
        )));
    }
    let p = top_p.unwrap_or(1.0);
    if !(p > 0.0 && p <= 1.0) {
        return Err(Refusal::invalid(format!("`top_p` is {p}; it is above 0 and at most 1")));
    }
    // Scores divided by next to nothing are infinite; at such temperatures the best token is the only one.
    Ok(if temperature < 1e-3 {
        Sampling::ArgMax
    } else if p < 1.0 {
        Sampling::TopP { p, temperature }
    } else {
        Sampling::All { temperature }
    })
}

/// The request's seed, else one that nobody can foresee.
fn seed(asked: Option<i64>) -> u64 {
    asked.map_or_else(|| RandomState::new().hash_one(()), i64::cast_unsigned)
}

fn stops(asked: Option<Value>) -> Result<Vec<String>, Refusal> {
    let wrong = || {
        let what =
            format!("`stop` is a text or a list of at most {STOPS_MAX} texts of 1 to {STOP_BYTES_MAX} bytes");
        Refusal::invalid(what)
    };
    let stops = match asked {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(stop)) => vec![stop],
        Some(Value::Array(stops)) => stops
            .iter()
            .map(|stop| stop.as_str().map(str::to_owned).ok_or_else(wrong))
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(wrong()),
    };
    let fits = |stop: &String| (1..=STOP_BYTES_MAX).contains(&stop.len());
    if stops.len() <= STOPS_MAX && stops.iter().all(fits) { Ok(stops) } else { Err(wrong()) }
}

fn wants_usage(options: Option<StreamOptions>) -> bool {
    options.and_then(|options| options.include_usage).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn chat(change: &Value) -> Result<Request, Refusal> {
        let mut body = json!({ "messages": [{ "role": "user", "content": "Hi" }] });
        for (key, value) in change.as_object().expect("an object") {
            body[key] = value.clone();
        }
        Request::chat(body.to_string().as_bytes())
    }

    #[test]
    fn the_smallest_request_is_enough() {
        let request = chat(&json!({})).expect("it is valid");
        let said = Message { role: "user".to_owned(), content: "Hi".to_owned() };
        assert_eq!(request.prompt, Prompt::Chat(vec![said]));
        assert_eq!(request.sampling, Sampling::All { temperature: TEMPERATURE_DEFAULT });
        assert_eq!((request.model, request.answer_tokens_max, request.stream), (None, None, false));
    }

    #[test]
    fn content_may_come_in_parts_and_roles_have_their_older_names() {
        let parts = json!([{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }]);
        let request =
            chat(&json!({ "messages": [{ "role": "developer", "content": parts }] })).expect("it is valid");
        let said = Message { role: "system".to_owned(), content: "ab".to_owned() };
        assert_eq!(request.prompt, Prompt::Chat(vec![said]));
    }

    #[test]
    fn the_settings_of_sampling_are_honoured() {
        let of = |change| chat(&change).expect("it is valid");
        assert_eq!(of(json!({ "temperature": 0 })).sampling, Sampling::ArgMax);
        let request =
            of(json!({ "temperature": 1.5, "top_p": 0.5, "seed": -1, "stop": "x", "max_tokens": 7 }));
        assert_eq!(request.sampling, Sampling::TopP { p: 0.5, temperature: 1.5 });
        assert_eq!((request.seed, request.answer_tokens_max), (u64::MAX, Some(7)));
        assert_eq!(request.stops, ["x"]);
        assert_ne!(of(json!({})).seed, of(json!({})).seed);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let table = [
            (json!({ "messages": [] }), "invalid_request", "`messages` is empty"),
            (json!({ "messages": "Hi" }), "invalid_request", "messages"),
            (
                json!({ "messages": [{ "role": "bot", "content": "" }] }),
                "invalid_request",
                "messages[0].role",
            ),
            (json!({ "messages": [{ "role": "user" }] }), "invalid_request", "messages[0].content"),
            (
                json!({ "messages": [{ "role": "user", "content": [{ "type": "image_url" }] }] }),
                "invalid_request",
                "content",
            ),
            (json!({ "temperature": 3 }), "invalid_request", "temperature"),
            (json!({ "temperature": "hot" }), "invalid_request", "temperature"),
            (json!({ "top_p": 0 }), "invalid_request", "top_p"),
            (json!({ "max_tokens": 0 }), "invalid_request", "max_tokens"),
            (json!({ "stop": [""] }), "invalid_request", "stop"),
            (json!({ "stop": vec!["x"; 17] }), "invalid_request", "stop"),
            (json!({ "n": 2 }), "unsupported_parameter", "`n`"),
            (json!({ "tools": [{}] }), "unsupported_parameter", "`tools`"),
            (
                json!({ "response_format": { "type": "json_object" } }),
                "unsupported_parameter",
                "`response_format`",
            ),
        ];
        for (change, code, named) in table {
            let body = chat(&change).expect_err("it is refused").body();
            assert_eq!(body["error"]["code"], code, "{change}");
            let message = body["error"]["message"].as_str().expect("a message");
            assert!(message.contains(named), "{change}: {message}");
        }
        assert!(Request::chat(b"{").is_err());
        assert!(Request::chat(br#"{"messages":[{"role":"user","content":"a"}]} trailing"#).is_err());
        assert!(Request::text(br#"{"prompt":""}"#).is_err());
    }
}
