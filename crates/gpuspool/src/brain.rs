//! Whether a brain lives, and starting one.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use spool::layout::Layout;
use spool::lock;
use spool::settings::{self, Settings};

use crate::failure::{Failure, exit};

/// Whether a brain works on a spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// One does.
    Runs {
        /// Its process id.
        pid: u32,
    },
    /// One has been started and has not taken its place yet.
    Starts,
    /// None does.
    Absent,
}

/// Looks who holds the brain's lock. Where that cannot be seen, nobody is taken to.
#[must_use]
pub(crate) fn presence(layout: &Layout) -> Presence {
    lock::living_brain(layout).map_or(Presence::Absent, |holder| Presence::Runs { pid: holder.pid })
}

/// Where the brain's own messages go while a screen is drawn over the terminal.
#[must_use]
pub(crate) fn log(layout: &Layout) -> PathBuf {
    layout.brain_log()
}

/// The command that starts a brain on this spool; its messages go to `log`, or where ours go.
///
/// It gets a process group of its own: Ctrl-C is for us to pass on.
pub(crate) fn command(settings: &Settings, log: Option<&PathBuf>) -> Result<Command, Failure> {
    use std::os::unix::process::CommandExt;
    let Some(program) = settings::program("brain") else {
        return Err(Failure::new(
            exit::UNAVAILABLE,
            "the program `brain` is neither beside this one nor on the PATH",
        )
        .next("build or install it: `cargo build --release` makes all programs"));
    };
    let mut command = Command::new(program);
    command.arg("--spool").arg(settings.layout.root());
    if let Some(config) = &settings.config_path {
        command.arg("--config").arg(config);
    }
    command.stdin(Stdio::null()).process_group(0);
    if let Some(path) = log {
        let file =
            open_log(path).map_err(|error| Failure::io(format_args!("write {}", path.display()), &error))?;
        let twin = file.try_clone()?;
        command.stdout(file).stderr(twin);
    }
    Ok(command)
}

fn open_log(path: &PathBuf) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}
