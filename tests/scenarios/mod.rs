//! Stories of the whole: real processes, a real spool, simulated GPUs, a fake engine that says so.

mod bad_input;
mod batch;
mod chat;
mod deaths;
mod exclusive;
mod foresight;
mod memory;
mod on_complete;
mod pause;
mod prompt;
mod scripts;
mod shutdown;
mod slots;
mod span;
mod wide;
mod yields;
