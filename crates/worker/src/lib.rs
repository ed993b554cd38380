//! THE ARM: one process for one GPU, or for the CPU lane. It folds orders, drives engines and scripts, and reports.
//!
//! ```text
//!  cli ─► birth ─► arm (the loop) ─┬─ hands ── llm, scripts (units)
//!                                  ├─ saving ── record ─► outbox
//!                                  └─ report ─► reports.jsonl
//! ```
//!
//! A worker chooses nothing: what is loaded and what runs comes from its orders. It outlives the brain: what runs ends,
//! its records wait in the outbox, its LLM stays warm for a while. Not here: choosing (`policy`), processes (`engine`),
//! files (`spool`).

mod arm;
mod attempt;
mod birth;
mod cli;
mod hands;
mod happening;
mod llm;
mod memory;
mod record;
mod report;
mod saving;
mod scripts;
mod stop;

/// Entry point of the `worker` binary.
pub fn main() -> std::process::ExitCode {
    cli::main()
}
