//! An answer as a stream of events, OpenAI's way: pieces, why it ended, the counts if asked for, `[DONE]`.

use crate::api::refusal::Refusal;
use crate::api::reply::{Letterhead, Usage};
use crate::engine::{Replies, Reply};
use axum::response::sse::Event;
use futures_core::Stream;
use serde_json::Value;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The events of one answer. Dropping it tells the engine that nobody listens.
pub(crate) struct AnswerStream {
    letterhead: Letterhead,
    /// None when the last reply has been taken.
    replies: Option<Replies>,
    ready: VecDeque<Event>,
    prompt_tokens: usize,
    with_counts: bool,
}

impl AnswerStream {
    /// A stream that begins with `first`, which was already taken from `replies`.
    pub(crate) fn new(
        letterhead: Letterhead,
        replies: Replies,
        first: Reply,
        prompt_tokens: usize,
        with_counts: bool,
    ) -> Self {
        let ready = letterhead.opening().iter().map(event).collect();
        let mut stream = Self { letterhead, replies: Some(replies), ready, prompt_tokens, with_counts };
        stream.take(Some(first));
        stream
    }

    fn take(&mut self, reply: Option<Reply>) {
        let broken = match reply {
            Some(Reply::Text(text)) => return self.ready.push_back(event(&self.letterhead.piece(&text))),
            Some(Reply::Done { ending, answer_tokens }) => {
                self.ready.push_back(event(&self.letterhead.closing(ending)));
                if self.with_counts {
                    let usage = Usage { prompt_tokens: self.prompt_tokens, answer_tokens };
                    self.ready.push_back(event(&self.letterhead.counts(usage)));
                }
                self.ready.push_back(Event::default().data("[DONE]"));
                self.replies = None;
                return;
            }
            Some(Reply::Stopping) => Refusal::stopping(),
            Some(Reply::Failed(reason)) => Refusal::failed(&reason),
            None => Refusal::failed("the engine's thread has ended"),
        };
        // No `[DONE]` after an error: a client must not take half an answer for a whole one.
        self.ready.push_back(event(&broken.body()));
        self.replies = None;
    }
}

fn event(data: &Value) -> Event {
    Event::default().data(data.to_string())
}

impl Stream for AnswerStream {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            let Some(replies) = &mut self.replies else { return Poll::Ready(None) };
            match replies.poll_next(task) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(reply) => self.take(reply),
            }
        }
    }
}
