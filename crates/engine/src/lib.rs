//! THE HANDS: start, probe, drive and stop one program, and leave nothing of it behind.
//!
//! ```text
//!  preset ── fills a command ──► server ── health, canary ──► openai (requests)
//!  interpreter ── a command ──► host (one process, many tasks) │ once (one process, one task) ── protocol
//!                                        all of them through `group`: own session, death signal, kill ladder
//! ```
//!
//! Not here: which program should run, when, and what becomes of its result (`worker`, `policy`); paths of the spool.
//! This is the one crate with `unsafe`, twice in `group`: the `pre_exec`, and files that were inherited without an owner.

pub mod environment;
pub mod group;
pub mod host;
pub mod interpreter;
pub mod log;
pub mod once;
pub mod openai;
pub mod outcome;
pub mod preset;
pub mod protocol;
pub mod server;
pub mod tree;

mod end;
mod port;

pub use environment::Surroundings;
pub use group::{Group, Program};
pub use log::Log;
pub use protocol::Job;
