//! The spare engine of gpuspool: a small OpenAI-compatible server over candle, so that a machine with no Ollama,
//! llama-server or vLLM can still answer prompts.
//!
//! ```text
//!  HTTP ──► server ──► api (checks) ──► model::Lexicon (template, tokenizer) ──► engine's queue
//!                                                                                   │ one at a time
//!  HTTP ◄── server ◄── api / stream ◄── text (characters, stops) ◄── generate ◄── model::Weights
//! ```
//!
//! - It loads one GGUF file of the `qwen2` kind (Qwen2, Qwen2.5; quantised or not; output head tied or not) and
//!   takes tokenizer and chat template out of that same file. Nothing is ever downloaded.
//! - With `--demo` it serves the [demonstration model](demo), which says what it is.
//! - One sequence is computed at a time, since candle's model has one cache: requests queue, up to a bound, and
//!   then are refused. Whoever goes away is no longer computed for.
//! - Limits: body size, messages, context, answer, queue; each refusal is OpenAI's error object with a code.
//! - SIGTERM: no new connection, the request in flight is answered in full, those that still wait get 503, exit 0.
//!   A second signal, or one while loading, ends it at once. How long to wait is the starter's affair.
//! - `/health` is 503 `loading`, 200 `ok`, 503 `stopping`, and repeats `GPUSPOOL_NONCE`, so that the one who
//!   started this program can tell it from another that holds the port.
//!
//! **What is not here**: anything of gpuspool's spool, brain or workers (this package depends on no other crate
//! of the project; it is an engine like any other, spoken to over HTTP), batching, tool calls, access control,
//! model downloads.
//!
//! **The `cuda` feature** forwards to candle's, and the server then uses the first CUDA device it finds. It
//! needs the CUDA toolkit to build and has not been compiled or run by this project: take it as untried.
//!
//! This package lies outside the workspace's default members, because candle takes minutes to build:
//! `scripts/embedded` builds it. Its tests are made for `--release`, which they share with that build.

mod alphabet;
mod api;
mod cli;
pub mod demo;
mod engine;
mod failure;
mod generate;
mod model;
mod server;
mod stream;
mod template;
mod text;
mod threads;

/// Runs the program: reads the command line, does what it says, and tells by the exit code how it went.
pub fn main() -> std::process::ExitCode {
    cli::run()
}
