//! The verbs: one file each.

pub(crate) mod cancel;
pub(crate) mod check;
pub(crate) mod clean;
pub(crate) mod down;
pub(crate) mod eta;
pub(crate) mod explain;
pub(crate) mod logs;
pub(crate) mod pause;
pub(crate) mod result;
pub(crate) mod retry;
pub(crate) mod schema;
pub(crate) mod simulate;
pub(crate) mod status;
pub(crate) mod submit;
pub(crate) mod up;
pub(crate) mod wait;
pub(crate) mod why;

use spool::settings::Settings;

use crate::command::{Command, GpuSpool};
use crate::console::Console;
use crate::failure::Failure;

/// Carries out one command line; the exit code.
pub(crate) fn carry_out(asked: &GpuSpool, console: &mut Console<'_>) -> Result<u8, Failure> {
    // These also work where there is no spool and no valid configuration.
    match &asked.command {
        Command::Schema(options) => return schema::run(options, console),
        Command::Check(options) => return check::run(options, asked, console),
        Command::Simulate(options) => return simulate::run(options, asked, console),
        _ => {}
    }
    let settings = Settings::find(asked.spool.as_deref(), asked.config.as_deref())?;
    match &asked.command {
        Command::Up(options) => up::run(options, &settings, console),
        Command::Down(options) => down::run(options, &settings, console),
        Command::Submit(options) => submit::run(options, settings, console),
        Command::Status(options) => status::run(options, &settings, console),
        Command::Wait(options) => wait::run(options, &settings, console),
        Command::Result(options) => result::run(options, &settings, console),
        Command::Logs(options) => logs::run(options, &settings, console),
        Command::Cancel(options) => cancel::run(options, &settings, console),
        Command::Pause(options) => pause::run(options, true, &settings, console),
        Command::Resume(options) => pause::run(options, false, &settings, console),
        Command::Retry(options) => retry::run(options, &settings, console),
        Command::Why(options) => why::run(options, &settings, console),
        Command::Eta(options) => eta::run(options, &settings, console),
        Command::Explain(options) => explain::run(options, &settings, console),
        Command::Clean(options) => clean::run(options, &settings, console),
        Command::Check(_) | Command::Schema(_) | Command::Simulate(_) => Ok(crate::failure::exit::OK),
    }
}
