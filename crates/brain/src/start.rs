//! From a command line to a running loop: settings, the lock, the senses, adoption, the watch.

use std::process::ExitCode;

use hardware::Senses;
use model::config::Auto;
use model::learned::Learned;
use model::link::ProcessIdentity;
use model::{Config, Millis};
use policy::World;
use policy::event::Event;
use spool::clock;
use spool::journal::Journal;
use spool::layout::Layout;
use spool::ledger::Ledger;
use spool::lock::{BrainLock, LockError};
use spool::settings::{Settings, SettingsError};
use spool::watch::Watch;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::UnboundedSender;

use crate::adopt;
use crate::args::Args;
use crate::arms::Arms;
use crate::batches::Batches;
use crate::body::{Body, Clocks};
use crate::ending::Ending;
use crate::flush::Flush;
use crate::hands::Hands;
use crate::inbox::{Inbox, Letterbox, Note, Signal};
use crate::launch::Launcher;
use crate::publish::Publisher;
use crate::queues::Queues;
use crate::read_ahead::ModelFiles;
use crate::requests::Requests;
use crate::senses;
use crate::tell::Tell;

/// Why a brain could not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The configuration or the spool cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Another brain runs, or the lock cannot be taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The GPUs as asked for make no sense.
    #[error("{0}")]
    Senses(#[from] hardware::SensesError),
    /// The system refused something.
    #[error("failed to {doing}: {source}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        source: std::io::Error,
    },
}

impl StartError {
    /// The exit code of this error.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Settings(error) => error.exit_code(),
            Self::Lock(LockError::Held { .. }) => 3,
            Self::Lock(_) | Self::System { .. } => 71,
            Self::Senses(_) => 78,
        }
    }
}

fn system(doing: &'static str) -> impl FnOnce(std::io::Error) -> StartError {
    move |source| StartError::System { doing, source }
}

/// Logs go to standard error; `RUST_LOG` sets what is said.
pub(crate) fn init_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
}

/// Runs a brain from its command line to its exit code.
pub(crate) fn run(args: &Args) -> Result<ExitCode, StartError> {
    let mut settings = Settings::find(args.spool.as_deref(), args.config.as_deref())?;
    settings.prepare()?;
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    if let Some(gpus) = &args.gpus {
        settings.config.gpus.clone_from(gpus);
    }
    settings.config.cpu_slots = Auto::Set(cpu_slots(&settings.config));
    let lock = BrainLock::take(&settings.layout)?;
    let senses = Senses::find(&settings.config.gpus)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("start the runtime"))?;
    let ending = runtime.block_on(async {
        let body = assemble(args, settings, lock, senses)?;
        Ok::<Ending, StartError>(body.run().await)
    })?;
    // Tasks that wait for other processes end with this one.
    runtime.shutdown_background();
    if let Some(sentence) = ending.sentence() {
        eprintln!("brain: {sentence}");
    }
    Ok(ExitCode::from(ending.code()))
}

fn assemble(args: &Args, settings: Settings, lock: BrainLock, senses: Senses) -> Result<Body, StartError> {
    let (inbox, letterbox) = Inbox::new();
    listen_for_signals(&letterbox.notes).map_err(system("listen for signals"))?;
    let inventory = senses::start(senses, letterbox.notes.clone()).map_err(system("start the senses"))?;
    let me = spool::process::me().map_err(system("read this process's own identity"))?;
    let pid = me.pid;
    let layout = settings.layout.clone();
    let mut world = World::new(settings.config.clone(), learned(&layout));
    let now = clock::now();
    let least_mib = settings.config.resource_manager.min_system_ram_mb;
    let ram = senses::watch_ram(least_mib, letterbox.notes.clone()).map_err(system("watch the memory"))?;
    if let Some(ram) = ram {
        world.apply(now, Event::Ram(ram));
    }
    if let Some(inventory) = inventory {
        world.apply(now, Event::Inventory(inventory));
    }
    let mut hands = hands(&settings, &lock, me, &letterbox).map_err(system("read which calls are owed"))?;
    let adopted = adopt::adopt(&layout, &mut hands).map_err(system("take up what the last brain left"))?;
    for event in adopted.events {
        world.apply(now, event);
    }
    for worker in &adopted.to_bury {
        hands.launcher.bury(worker);
    }
    hands.tell.catch_up();
    if let Some(seconds) = args.down_within {
        world.apply(now, Event::DownAsked { deadline: now + Millis::from_secs_f64(seconds), now: false });
    }
    // Watches stand before the first scan, so that nothing falls between the two.
    let mut watch = Watch::start(&layout, letterbox.hints);
    if let Some(warning) = watch.warning() {
        tracing::warn!("{warning}");
    }
    for worker in hands.arms.living() {
        watch.add_worker(worker);
    }
    let config = settings.config;
    tracing::info!(spool = %layout.root().display(), epoch = lock.epoch(), "brain ready");
    Ok(Body {
        batches: Batches::new(&layout, &config),
        requests: Requests::new(layout.clone(), config.durability),
        journal: Journal::new(&layout),
        publisher: Publisher::new(layout.clone(), lock.epoch(), pid),
        until_idle: args.until_idle,
        clocks: Clocks::default(),
        config,
        layout,
        world,
        hands,
        inbox,
        watch,
        lock,
    })
}

fn hands(
    settings: &Settings,
    lock: &BrainLock,
    me: ProcessIdentity,
    letterbox: &Letterbox,
) -> std::io::Result<Hands> {
    let Settings { config, layout, config_path, .. } = settings;
    let durability = config.durability;
    let root = layout.root().to_owned();
    let mut ledger = Ledger::new(layout.clone(), durability);
    ledger.set_epoch(lock.epoch());
    Ok(Hands {
        ledger,
        arms: Arms::new(layout.clone(), lock.epoch(), durability, me, letterbox.notes.clone()),
        queues: Queues::new(layout.clone(), config, settings.config_owner()),
        flush: Flush::new(letterbox.notes.clone()),
        launcher: Launcher::new(root, config_path.clone(), config.gpus.clone(), letterbox.notes.clone()),
        layout: layout.clone(),
        model_files: ModelFiles::of(config),
        durability,
        notes: letterbox.notes.clone(),
        tell: Tell::open(layout.clone(), config.on_complete.clone(), letterbox.notes.clone())?,
    })
}

/// Tasks that run at once in the CPU lane: as set, else half the cores; the worker counts the same way.
fn cpu_slots(config: &Config) -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let half = u32::try_from(cores / 2).unwrap_or(u32::MAX).max(1);
    config.cpu_slots.set().copied().unwrap_or(half)
}

/// What earlier brains learned; a file that cannot be read is put aside, since it is only an estimate.
fn learned(layout: &Layout) -> Learned {
    let path = layout.learned();
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Learned::default(),
        Err(error) => {
            tracing::warn!(%error, "failed to read learned.json; estimates start anew");
            return Learned::default();
        }
    };
    serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        tracing::warn!(%error, "learned.json makes no sense; estimates start anew");
        let aside = path.with_extension(format!("corrupt-{}", clock::now().0));
        if let Err(error) = std::fs::rename(&path, aside) {
            tracing::warn!(%error, "failed to put learned.json aside");
        }
        Learned::default()
    })
}

fn listen_for_signals(notes: &UnboundedSender<Note>) -> std::io::Result<()> {
    for (kind, meaning) in [
        (SignalKind::interrupt(), Signal::Down),
        (SignalKind::terminate(), Signal::Leave),
        (SignalKind::hangup(), Signal::Leave),
    ] {
        let (mut stream, notes) = (signal(kind)?, notes.clone());
        tokio::spawn(async move {
            while stream.recv().await.is_some() && notes.send(Note::Signal(meaning)).is_ok() {}
        });
    }
    Ok(())
}
