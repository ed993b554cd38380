//! The command line of `worker`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use spool::layout::ORDERS;
use spool::link::LinkWatch;
use spool::settings::Settings;
use tokio::sync::mpsc::unbounded_channel;
use tracing_subscriber::EnvFilter;

use crate::arm::{Arm, Ears};
use crate::birth::{Born, be_born};
use crate::scripts::Workshop;

/// The variable that sets what is logged, as `tracing` filters are written: `info`, `warn`, …
const LOG_VARIABLE: &str = "GPUSPOOL_LOG";

/// Serves one GPU: boots an LLM or runs scripts as the brain's orders say, until it is told to leave.
///
/// Exit status: 0 gone as told; 4 the GPU is held by another worker, which is named; 69 no such GPU;
/// 73, 77, 78 spool or configuration unusable.
#[derive(Debug, Parser)]
#[command(name = "worker", version)]
struct Cli {
    /// The GPU's uuid or index, or `cpu` for the lane without one [default: the first GPU that is free].
    #[arg(long, value_name = "UUID")]
    gpu: Option<String>,
    /// The launch this process answers to.
    #[arg(long, value_name = "ID")]
    launch: Option<String>,
    /// The spool folder [env: GPUSPOOL_SPOOL].
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    /// The configuration file [env: GPUSPOOL_CONFIG].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where GPUs come from: `auto` or `simulated:MiB,MiB,…` [default: as configured].
    #[arg(long, value_name = "SETTING")]
    gpus: Option<String>,
    /// End what the dead worker UUID left running, and nothing else.
    #[arg(long, value_name = "UUID", conflicts_with_all = ["gpu", "launch"])]
    bury: Option<String>,
}

pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; a broken pipe while printing them is none either.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, why)) => {
            let _ = writeln!(io::stderr(), "worker: {why}");
            ExitCode::from(code)
        }
    }
}

type Failure = (u8, String);

fn run(cli: Cli) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| (71, format!("cannot start: {error}")))?;
    let settings = Settings::find(cli.spool.as_deref(), cli.config.as_deref());
    if let Some(worker) = &cli.bury {
        let grace = settings.map_or(10.0, |settings| settings.config.timing.kill_grace_s);
        return runtime.block_on(bury(worker, Duration::from_secs_f64(grace)));
    }
    let mut settings = settings.map_err(|error| (error.exit_code(), error.to_string()))?;
    settings.prepare().map_err(|error| (error.exit_code(), error.to_string()))?;
    // A process group's leader, as a shell starts it, cannot leave its session; then the terminal's end is its end.
    let _ = rustix::process::setsid();
    engine::group::keep_files_from_children()
        .map_err(|error| (71, format!("cannot list the open files: {error}")))?;
    engine::group::adopt_orphans().map_err(|error| (71, format!("cannot adopt orphans: {error}")))?;
    let gpus = cli.gpus.unwrap_or_else(|| settings.config.gpus.clone());
    let born = be_born(&settings, &gpus, cli.gpu.as_deref(), cli.launch)
        .map_err(|error| (error.exit_code(), error.to_string()))?;
    let log = settings.layout.worker_log(born.home.id());
    announce(&born, &log);
    write_to_log(&log).map_err(|error| (73, format!("cannot write the worker's log: {error}")))?;
    settings.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    tracing::info!("born as {} for {:?}", born.home.id(), born.around.gpu);
    runtime.block_on(serve(settings, born)).map_err(|error| (71, format!("cannot serve: {error}")))
}

/// One line for whoever started this by hand; afterwards everything goes into the log.
fn announce(born: &Born, log: &Path) {
    let gpu = born.around.gpu.as_ref().map_or_else(|| "the CPU lane".to_owned(), |gpu| format!("GPU {gpu}"));
    // Nobody may be listening, which is no reason not to serve.
    let _ = writeln!(io::stdout(), "worker {} serves {gpu}; its log is {}", born.home.id(), log.display());
}

async fn serve(settings: Settings, born: Born) -> io::Result<()> {
    let (tell, happenings) = unbounded_channel();
    let config = Arc::new(settings.config);
    let (watch, hints) = LinkWatch::start(born.home.folder(), ORDERS);
    let shop = Workshop {
        config: Arc::clone(&config),
        around: born.around,
        interpreters: born.interpreters,
        gate: born.gate,
        tell,
    };
    let arm = Arm::new(born.home, config, settings.layout, shop, born.find);
    arm.serve(Ears { watch, hints, happenings }).await
}

async fn bury(worker: &str, grace: Duration) -> Result<(), Failure> {
    match engine::group::bury(worker, grace).await {
        Ok(_) => Ok(()),
        Err(stuck) => Err((1, stuck.to_string())),
    }
}

/// From here on nothing is held open of whoever started this: a terminal, a pipe that would block it.
fn write_to_log(path: &Path) -> io::Result<()> {
    let log = OpenOptions::new().create(true).append(true).open(path)?;
    let nothing = File::open("/dev/null")?;
    let level = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(level).with_ansi(false).with_writer(log.try_clone()?).init();
    rustix::stdio::dup2_stdin(&nothing)?;
    rustix::stdio::dup2_stdout(&log)?;
    rustix::stdio::dup2_stderr(&log)?;
    Ok(())
}
