//! What is answered: the objects of chat and text completions, whole or in pieces.

use crate::generate::Ending;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Which of the two kinds of completion is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Text,
}

/// What all objects of one answer have in common.
#[derive(Clone, Debug)]
pub(crate) struct Letterhead {
    kind: Kind,
    id: String,
    created: u64,
    model: String,
}

/// How many tokens were read and written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Tokens of the prompt, with the template's marks.
    pub(crate) prompt_tokens: usize,
    /// Tokens of the answer, without the one that ends it.
    pub(crate) answer_tokens: usize,
}

impl Letterhead {
    /// For an answer that begins now. Ids differ within a process and, by the second, between processes.
    pub(crate) fn new(kind: Kind, model: String) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // A clock before 1970 is wrong anyhow; the answer is not.
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let prefix = if kind == Kind::Chat { "chatcmpl" } else { "cmpl" };
        Self { kind, id: format!("{prefix}-{created:x}-{count}"), created, model }
    }

    /// The whole answer.
    pub(crate) fn whole(&self, text: &str, ending: Ending, usage: Usage) -> Value {
        let mut choice = match self.kind {
            Kind::Chat => json!({ "message": { "role": "assistant", "content": text } }),
            Kind::Text => json!({ "text": text }),
        };
        choice["index"] = json!(0);
        choice["finish_reason"] = json!(finish_reason(ending));
        let object = if self.kind == Kind::Chat { "chat.completion" } else { "text_completion" };
        let mut whole = self.object(object, json!([choice]));
        whole["usage"] = usage.object();
        whole
    }

    /// The piece of a stream that comes before all text; text completions have none.
    pub(crate) fn opening(&self) -> Option<Value> {
        let delta = json!({ "role": "assistant", "content": "" });
        (self.kind == Kind::Chat).then(|| self.chunk(json!({ "delta": delta }), None))
    }

    /// A piece of a stream.
    pub(crate) fn piece(&self, text: &str) -> Value {
        match self.kind {
            Kind::Chat => self.chunk(json!({ "delta": { "content": text } }), None),
            Kind::Text => self.chunk(json!({ "text": text }), None),
        }
    }

    /// The piece that says why the stream ends.
    pub(crate) fn closing(&self, ending: Ending) -> Value {
        match self.kind {
            Kind::Chat => self.chunk(json!({ "delta": {} }), Some(ending)),
            Kind::Text => self.chunk(json!({ "text": "" }), Some(ending)),
        }
    }

    /// The last piece where the counts were asked for.
    pub(crate) fn counts(&self, usage: Usage) -> Value {
        let mut counts = self.object(self.chunk_object(), json!([]));
        counts["usage"] = usage.object();
        counts
    }

    fn chunk(&self, mut choice: Value, ending: Option<Ending>) -> Value {
        choice["index"] = json!(0);
        choice["finish_reason"] = json!(ending.map(finish_reason));
        self.object(self.chunk_object(), json!([choice]))
    }

    fn chunk_object(&self) -> &'static str {
        if self.kind == Kind::Chat { "chat.completion.chunk" } else { "text_completion" }
    }

    fn object(&self, object: &str, choices: Value) -> Value {
        json!({
            "id": self.id, "object": object, "created": self.created, "model": self.model, "choices": choices,
        })
    }
}

impl Usage {
    fn object(self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.answer_tokens,
            "total_tokens": self.prompt_tokens + self.answer_tokens,
        })
    }
}

fn finish_reason(ending: Ending) -> &'static str {
    match ending {
        Ending::Stop => "stop",
        Ending::Length => "length",
    }
}
