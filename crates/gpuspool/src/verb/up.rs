//! `gpuspool up`: starts the brain and shows what it does until it ends.
//!
//! The brain is a process of its own. If this one is killed, the brain goes on; if this one is asked to end, it passes
//! that on: an interrupt frees the machine (a second one at once), a hang-up or a termination lets the brain leave
//! and its workers finish what they have.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use spool::settings::Settings;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::status::{DRAW_EVERY, Sight};
use crate::brain::{self, Presence, presence};
use crate::console::Console;
use crate::failure::{Failure, exit};
use crate::live::{Live, terminal_size, width};
use crate::sanitize::one_line;

/// A brain that has not taken its lock by then will not.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// Lines of the log shown when a brain ends badly behind a screen.
const LAST_LINES: usize = 12;

/// Options of `up`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// `auto`, or invented GPUs: `simulated:24576,12227` (MiB each) [default: `gpus` of the configuration].
    #[arg(long, value_name = "GPUS")]
    gpus: Option<String>,
    /// Exit once all work is done.
    #[arg(long, conflicts_with = "detach")]
    until_idle: bool,
    /// Start it and return; its messages go to `logs/brain.log` in the spool.
    #[arg(long)]
    detach: bool,
    /// Draw no live status; the brain's messages stay on the terminal.
    #[arg(long)]
    plain: bool,
}

pub(crate) fn run(options: &Options, settings: &Settings, console: &mut Console<'_>) -> Result<u8, Failure> {
    if let Presence::Runs { pid } = presence(&settings.layout) {
        return Err(Failure::new(
            exit::BRAIN_RUNS,
            format!("a brain already works on {} (pid {pid})", settings.layout.root().display()),
        )
        .next("`gpuspool status --watch` shows what it does, `gpuspool down` ends it"));
    }
    let mut prepared = settings.clone();
    prepared.prepare()?;
    let live = terminal_size().is_some() && !options.plain && !options.detach && !console.json;
    if live || options.detach {
        // Otherwise the brain itself says them where they are seen.
        for warning in &prepared.warnings {
            console.note(&format!("warning: {warning}"));
        }
    }
    let log = brain::log(&settings.layout);
    let logged = std::fs::metadata(&log).map_or(0, |meta| meta.len());
    let mut command = brain::command(settings, (live || options.detach).then_some(&log))?;
    if let Some(gpus) = &options.gpus {
        command.arg("--gpus").arg(gpus);
    }
    if options.until_idle {
        command.arg("--until-idle");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let shown = Shown { log, logged };
    if options.detach {
        return runtime.block_on(detach(command.into(), settings, &shown, console));
    }
    let (status, asked) =
        runtime.block_on(attend(command.into(), settings, live.then_some(&shown), console))?;
    if asked && status.success() {
        console.note("the machine is free");
    }
    if live && !status.success() {
        shown.last_lines(console);
    }
    Ok(code(status))
}

/// The brain's exit code; 128 and the signal's number if it was killed.
fn code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let number = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    number.and_then(|number| u8::try_from(number).ok()).unwrap_or(exit::NOT_ALL)
}

/// The log behind the screen, and how long it was before.
#[derive(Debug)]
struct Shown {
    log: PathBuf,
    logged: u64,
}

impl Shown {
    fn last_lines(&self, console: &mut Console<'_>) {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let from = usize::try_from(self.logged).unwrap_or(0).min(text.len());
        let text = String::from_utf8_lossy(&text[from..]);
        let lines: Vec<&str> = text.lines().collect();
        for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
            console.note(line);
        }
        console.note(&format!("all of it: {}", self.log.display()));
    }
}

fn start(mut command: Command) -> Result<Child, Failure> {
    command.spawn().map_err(|error| Failure::io("start the brain", &error))
}

/// Stays with the brain until it ends; whether it was asked to free the machine.
async fn attend(
    command: Command,
    settings: &Settings,
    live: Option<&Shown>,
    console: &mut Console<'_>,
) -> Result<(ExitStatus, bool), Failure> {
    // Listening before the brain is there: no signal falls between.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut child = start(command)?;
    let mut asked = false;
    let mut screen = match live {
        Some(shown) => Screen::Live { live: Live::enter(console)?, log: &shown.log, interrupts: 0 },
        None => Screen::Plain(console),
    };
    loop {
        screen.draw(settings);
        tokio::select! {
            status = child.wait() => return Ok((status?, asked)),
            _ = interrupt.recv() => {
                asked = true;
                screen.interrupted();
                pass_on(&child, Signal::INT)?;
            }
            _ = terminate.recv() => pass_on(&child, Signal::TERM)?,
            _ = hangup.recv() => pass_on(&child, Signal::TERM)?,
            () = tokio::time::sleep(DRAW_EVERY) => {}
        }
    }
}

/// To our own child, which nobody but us takes away: its pid is nobody else's.
fn pass_on(child: &Child, signal: Signal) -> io::Result<()> {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    match pid.map(|pid| kill_process(pid, signal)) {
        Some(Err(rustix::io::Errno::SRCH)) | None => Ok(()),
        Some(result) => Ok(result?),
    }
}

/// What the person sees meanwhile.
enum Screen<'s, 'c, 'a> {
    Live { live: Live<'c, 'a>, log: &'s Path, interrupts: u32 },
    Plain(&'c mut Console<'a>),
}

impl Screen<'_, '_, '_> {
    /// A picture that cannot be read or shown now is shown the next time: the brain goes on without it.
    fn draw(&mut self, settings: &Settings) {
        if let Self::Live { live, log, interrupts } = self {
            let foot = match interrupts {
                0 => "Ctrl-C frees the machine",
                1 => "Freeing the machine … Ctrl-C again stops running tasks at once",
                _ => "Stopping everything …",
            };
            let sight = Sight::of(settings).map(|sight| sight.of_our_brain().drawn(width()));
            let sight = sight.unwrap_or_else(|failure| failure.message + "\n");
            let foot = one_line(&format!("  {foot} · messages: {}", log.display()), width());
            drop(live.show(&format!("{sight}{foot}\n")));
        }
    }

    fn interrupted(&mut self) {
        match self {
            Self::Live { interrupts, .. } => *interrupts += 1,
            Self::Plain(console) => {
                console.note("freeing the machine; Ctrl-C again stops running tasks at once")
            }
        }
    }
}

/// Starts the brain and leaves it once it holds its lock.
async fn detach(
    command: Command,
    settings: &Settings,
    shown: &Shown,
    console: &mut Console<'_>,
) -> Result<u8, Failure> {
    let mut child = start(command)?;
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            shown.last_lines(console);
            return Err(Failure::new(code(status).max(1), format!("the brain ended at once with {status}"))
                .next("its last messages stand above"));
        }
        if let Presence::Runs { pid } = presence(&settings.layout) {
            if console.json {
                console.say_json(&serde_json::json!({ "pid": pid, "log": shown.log }))?;
            } else {
                console.say(&format!(
                    "the brain runs (pid {pid}); `gpuspool status` shows it, `gpuspool down` ends it"
                ))?;
            }
            return Ok(exit::OK);
        }
        if begun.elapsed() > START_PATIENCE {
            return Err(Failure::new(exit::TRY_AGAIN, "the brain was started and has not taken its lock")
                .next(format!("its messages are in {}", shown.log.display())));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
