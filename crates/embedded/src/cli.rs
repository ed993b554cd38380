//! The command line, and what each of its verbs does.

use crate::demo;
use crate::engine::Engine;
use crate::failure::Failure;
use crate::model::Source;
use crate::server::{self, Desk};
use crate::threads;
use candle_core::Device;
use clap::{Args, Parser, Subcommand};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

/// The variable whose value `/health` repeats, so that whoever started this program knows that the port is its.
const NONCE_VARIABLE: &str = "GPUSPOOL_NONCE";
/// The variable that sets what is logged, as `tracing` filters are written: `info`, `warn`, …
const LOG_VARIABLE: &str = "GPUSPOOL_LOG";

/// A small OpenAI-compatible server for Qwen2 and Qwen2.5 models in GGUF files.
#[derive(Parser)]
#[command(name = "gpuspool-embedded", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Load a model and serve it until SIGTERM or Ctrl-C.
    Serve(ServeArgs),
    /// Write the tiny demonstration model, which answers one fixed sentence, to a file.
    WriteDemo {
        /// The GGUF file to write; an existing one is replaced.
        out: PathBuf,
    },
}

#[derive(Args)]
struct ServeArgs {
    /// A Qwen2 or Qwen2.5 model, quantised or not.
    #[arg(long, value_name = "FILE.gguf", required_unless_present = "demo", conflicts_with = "demo")]
    model: Option<PathBuf>,
    /// Serve the built-in demonstration model, which answers one fixed sentence.
    #[arg(long)]
    demo: bool,
    /// The model's name in requests and answers [default: the file's name without its ending, or `demo-model`].
    #[arg(long)]
    name: Option<String>,
    /// The address to listen on. There is no access control: other machines may ask if it is not a loopback one.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// The port to listen on; 0 takes a free one and names it.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// How many threads compute [default: RAYON_NUM_THREADS, or idle cores less one].
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// How many tokens prompt and answer may have together [default: 4096, at most what the model was made for].
    #[arg(long, value_name = "TOKENS")]
    ctx: Option<NonZeroUsize>,
    /// How many tokens an answer may have, whatever a request asks for.
    #[arg(long, value_name = "TOKENS", default_value = "2048")]
    max_tokens_cap: NonZeroUsize,
    /// How many requests may wait while one is answered; more are refused with status 429.
    #[arg(long, value_name = "REQUESTS", default_value_t = 32)]
    queue_max: usize,
}

/// Reads the command line and does what it says.
pub(crate) fn run() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Serve(args) => serve(args),
        Verb::WriteDemo { out } => demo::write(&out).map(|bytes| {
            let path = out.display();
            eprintln!("gpuspool-embedded: wrote `{path}` ({bytes} bytes), a demonstration model: it answers one fixed sentence");
        }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("gpuspool-embedded: {failure}");
            failure.exit_code()
        }
    }
}

fn serve(args: ServeArgs) -> Result<(), Failure> {
    let threads = threads::settle(args.threads)?;
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Failure::System { what: "start the runtime", source })?;
    let served = runtime.block_on(serve_on(threads, args));
    // Not dropped: that would wait for a tokenizer at work, for nobody.
    runtime.shutdown_background();
    served
}

async fn serve_on(threads: NonZeroUsize, args: ServeArgs) -> Result<(), Failure> {
    let source = args.model.map_or(Source::Demo, Source::File);
    let name = args.name.unwrap_or_else(|| source.default_name());
    let model = source.open()?;
    let (listener, address) = listen(&args.host, args.port).await?;
    let (device, device_name) = device();
    announce(&name, threads, device_name, address, &source);

    let stopping = Arc::new(AtomicBool::new(false));
    let (engine, loaded) = Engine::start(model, device, args.ctx, args.queue_max, Arc::clone(&stopping))?;
    let desk = Desk {
        name,
        nonce: std::env::var(NONCE_VARIABLE).ok(),
        answer_tokens_max: args.max_tokens_cap,
        engine,
        lexicon: OnceLock::new(),
        stopping,
    };
    server::run(listener, desk, loaded).await
}

async fn listen(host: &str, port: u16) -> Result<(TcpListener, SocketAddr), Failure> {
    let failed = |source: std::io::Error| {
        let address = format!("{host}:{port}");
        match source.kind() {
            ErrorKind::AddrInUse => Failure::PortInUse { address, port },
            _ => Failure::Listen { address, source },
        }
    };
    let listener = TcpListener::bind((host, port)).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// The first CUDA device if this program was built with the `cuda` feature and there is one, else the processor.
fn device() -> (Device, &'static str) {
    match Device::cuda_if_available(0) {
        Ok(device) if device.is_cuda() => (device, "cuda:0"),
        Ok(device) => (device, "cpu"),
        Err(error) => {
            let reason = error.to_string();
            eprintln!(
                "gpuspool-embedded: failed to use the CUDA device, so the processor computes: {reason}"
            );
            (Device::Cpu, "cpu")
        }
    }
}

/// One line that says what is served, where, and with what.
fn announce(name: &str, threads: NonZeroUsize, device: &str, address: SocketAddr, source: &Source) {
    let what = match source {
        Source::Demo => "; this is the DEMONSTRATION model: it answers every prompt with one fixed sentence",
        Source::File(_) => "",
    };
    eprintln!("gpuspool-embedded: model {name}, threads {threads}, device {device}, http://{address}{what}");
}
