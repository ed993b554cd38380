//! `gpuspool status`: the terminal picture, once or live.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use model::TaskClass;
use model::picture::Picture;
use spool::clock;
use spool::layout::JSON;
use spool::settings::Settings;
use tokio::signal::unix::{SignalKind, signal};

use crate::brain::{Presence, presence};
use crate::console::Console;
use crate::failure::{Failure, exit};
use crate::live::{Live, terminal_size, width};
use crate::screen::{Frame, draw};

/// Between two drawings of the live screen.
pub(crate) const DRAW_EVERY: Duration = Duration::from_millis(250);

/// Options of `status`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Keep drawing until Ctrl-C.
    #[arg(long, short)]
    watch: bool,
}

/// What there is to see.
#[derive(Debug)]
pub(crate) struct Sight {
    picture: Option<Picture>,
    brain: Presence,
    queued: BTreeMap<TaskClass, u64>,
}

impl Sight {
    /// Looks at the spool.
    pub(crate) fn of(settings: &Settings) -> Result<Self, Failure> {
        let picture = picture(settings)?;
        let brain = presence(&settings.layout);
        // A brain counts its queues itself; a million names need not be read again for every frame.
        let queued = match &picture {
            Some(picture) if matches!(brain, Presence::Runs { .. }) => {
                picture.queues.iter().map(|(class, queue)| (*class, queue.waiting)).collect()
            }
            _ => TaskClass::ALL.into_iter().map(|class| (class, waiting(settings, class))).collect(),
        };
        Ok(Self { picture, brain, queued })
    }

    /// The same for whoever has just started a brain.
    pub(crate) fn of_our_brain(self) -> Self {
        let brain = if self.brain == Presence::Absent { Presence::Starts } else { self.brain };
        Self { brain, ..self }
    }

    /// The sight as text.
    pub(crate) fn drawn(&self, width: usize) -> String {
        draw(&Frame {
            picture: self.picture.as_ref(),
            brain: self.brain.clone(),
            queued: self.queued.clone(),
            now: clock::wall(),
            zone: *chrono::Local::now().offset(),
            width,
        })
    }
}

/// The brain's last picture, where there is one.
pub(super) fn picture(settings: &Settings) -> Result<Option<Picture>, Failure> {
    let path = settings.layout.gpu_state();
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).map_err(|error| {
            Failure::new(exit::DATA, format!("{} cannot be read: {error}", path.display()))
                .next("it is derived: delete it, and the brain draws it anew")
        })?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::io(format_args!("read {}", path.display()), &error)),
    }
}

/// Task files in the queue folders of a class. Folders that cannot be read hold nothing that we could count.
pub(super) fn waiting(settings: &Settings, class: TaskClass) -> u64 {
    let files =
        settings.layout.queues().into_iter().filter(|(of, _)| *of == class).flat_map(|(_, priority)| {
            std::fs::read_dir(settings.layout.queue(class, priority)).into_iter().flatten().flatten()
        });
    let tasks = files.filter(|file| {
        let name = file.file_name();
        let name = name.to_string_lossy();
        name.ends_with(JSON) && !name.starts_with('.')
    });
    u64::try_from(tasks.count()).unwrap_or(u64::MAX)
}

pub(crate) fn run(options: &Options, settings: &Settings, console: &mut Console<'_>) -> Result<u8, Failure> {
    if options.watch && !console.json && terminal_size().is_some() {
        return watch(settings, console);
    }
    let sight = Sight::of(settings)?;
    if console.json {
        let pid = match sight.brain {
            Presence::Runs { pid } => Some(pid),
            Presence::Starts | Presence::Absent => None,
        };
        console.say_json(&serde_json::json!({
            "spool": settings.layout.root(),
            "brain": { "running": pid.is_some(), "pid": pid },
            "queued": sight.queued,
            "picture": sight.picture,
        }))?;
    } else {
        console.pass_on(&sight.drawn(width()))?;
    }
    Ok(exit::OK)
}

fn watch(settings: &Settings, console: &mut Console<'_>) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut live = Live::enter(console)?;
        loop {
            live.show(&Sight::of(settings)?.drawn(width()))?;
            tokio::select! {
                _ = interrupt.recv() => return Ok(exit::OK),
                _ = terminate.recv() => return Ok(exit::OK),
                () = tokio::time::sleep(DRAW_EVERY) => {}
            }
        }
    })
}
