//! The words of the command line. What a verb does stands in `verb/<verb>.rs`, beside its own options.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::verb;

/// Run LLM and script tasks on the GPUs of this machine.
///
/// Tasks are files in a spool folder; results are files too. `gpuspool up` starts the work, `gpuspool status` shows
/// it, and submitting never needs anything to be running.
#[derive(Debug, Parser)]
#[command(name = "gpuspool", version, after_help = EXIT_CODES)]
pub(crate) struct GpuSpool {
    /// The spool folder [default: `spool` in the configuration, else `shared` beside it].
    #[arg(long, global = true, help_heading = EVERYWHERE, env = "GPUSPOOL_SPOOL", value_name = "DIR", hide_env_values = true)]
    pub(crate) spool: Option<PathBuf>,
    /// The configuration file [default: ./config.json, else built in].
    #[arg(long, global = true, help_heading = EVERYWHERE, env = "GPUSPOOL_CONFIG", value_name = "FILE", hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
    /// Answer in JSON.
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub(crate) json: bool,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Heading of the options that every verb has.
const EVERYWHERE: &str = "Options of every command";

const EXIT_CODES: &str = "\
Exit codes: 0 all done · 1 something was not found or failed · 3 another brain runs · 64 usage · 65 bad document ·
66 no such input · 69 a program is missing · 73 the spool cannot be written · 74 the system refused · 75 not now ·
77 wrong rights · 78 bad configuration";

/// One verb, one file in `verb/`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the work and watch it; Ctrl-C frees the machine, a second Ctrl-C at once.
    Up(verb::up::Options),
    /// Free the machine: finish or requeue what runs, unload every model.
    Down(verb::down::Options),
    /// Queue tasks and print their ids.
    Submit(verb::submit::Options),
    /// Show GPUs, queues and batches.
    Status(verb::status::Options),
    /// Wait until tasks or batches have ended; exit 0 only when all of them completed.
    Wait(verb::wait::Options),
    /// Print what came of a task.
    Result(verb::result::Options),
    /// Print the log of a task's latest attempt.
    Logs(verb::logs::Options),
    /// End tasks, or all items of batches.
    Cancel(verb::cancel::Options),
    /// Pause batches: what runs ends, nothing more of them starts, and an exclusive one gives the GPUs back.
    Pause(verb::pause::Options),
    /// Let paused batches go on.
    Resume(verb::pause::Options),
    /// Queue failed tasks again.
    Retry(verb::retry::Options),
    /// Say why a task waits, or why a GPU does what it does.
    Why(verb::why::Options),
    /// Say when tasks and batches are expected to start and to end.
    Eta(verb::eta::Options),
    /// Say what would happen to a task file now: where and when it would run, and what makes room; queue nothing.
    Explain(verb::explain::Options),
    /// Validate task, configuration or manifest files without queueing anything.
    Check(verb::check::Options),
    /// Remove finished records and logs.
    Clean(verb::clean::Options),
    /// Try policies on invented GPUs, engines, people and faults, and compare them.
    Simulate(verb::simulate::Options),
    /// Print the JSON Schema of a document.
    Schema(verb::schema::Options),
}
