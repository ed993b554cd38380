//! The command line of `brain`.

use std::path::PathBuf;

use clap::Parser;

/// Watches the spool, keeps every GPU's state, and dispatches to one worker per GPU.
///
/// SIGINT frees the machine and ends (as `gpuspool down`); SIGTERM ends the brain alone and leaves its workers to be
/// adopted by the next one.
#[derive(Debug, Parser)]
#[command(name = "brain", version)]
pub(crate) struct Args {
    /// The spool folder.
    #[arg(long, env = "GPUSPOOL_SPOOL", value_name = "DIR")]
    pub(crate) spool: Option<PathBuf>,
    /// The configuration file.
    #[arg(long, env = "GPUSPOOL_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// `auto`, or invented GPUs: `simulated:24576,12227` (MiB each).
    #[arg(long, value_name = "GPUS")]
    pub(crate) gpus: Option<String>,
    /// Finish all work, free the machine, and exit 0; exit 1 if tasks are left that cannot run here.
    #[arg(long)]
    pub(crate) until_idle: bool,
    /// Free the machine at once: adopt what runs, end it, exit (what `gpuspool down` starts where no brain runs).
    #[arg(long, hide = true, value_name = "SECONDS")]
    pub(crate) down_within: Option<f64>,
}
