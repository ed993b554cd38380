//! THE BODY: one current-thread loop that owns the world.
//!
//! ```text
//!  folders, links, pidfds, senses, signals, requests ──► inbox ──► body ──► world.apply(now, event)
//!                                                                   │
//!                                                                   ├─► plan(&world, now) ──► hands ──► more events
//!                                                                   └─► picture(&world) ──► gpu_state.json
//! ```
//!
//! The loop drains everything that has happened, asks the mind once, carries out what it says, publishes the
//! picture, and sleeps until the next fact or the instant the mind named. Nothing here decides what runs where: a
//! choice in this crate is a mistake. Blocking work (syncing, NVML, burying) happens on other threads and comes back
//! as a note.

mod adopt;
mod args;
mod arms;
mod audit;
mod batches;
mod body;
mod ending;
mod flush;
mod foresight;
mod hands;
mod hour;
mod inbox;
mod launch;
mod publish;
mod queues;
mod read_ahead;
mod requests;
mod senses;
mod start;
mod tell;

use std::process::ExitCode;

use clap::Parser;

/// Entry point of the `brain` binary.
#[must_use]
pub fn main() -> ExitCode {
    let args = args::Args::parse();
    start::init_logging();
    match start::run(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("brain: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
