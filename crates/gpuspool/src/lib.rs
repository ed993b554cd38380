//! The command line of gpuspool: each verb is one file in `verb/`.
//!
//! ```text
//! submit, retry ─► the spool's folders          status, wait, result, logs ─► read them and the picture
//! cancel, pause, resume, down, why, eta, explain ─► brain/requests ─► the brain ─► brain/answers          up ─► starts the brain beside it
//! ```
//! Everything shown goes through `console`, and so through `sanitize`. Not here: any decision about what runs, and
//! any path name of the spool.

mod ask;
mod brain;
mod command;
mod console;
mod document;
mod failure;
mod guess;
mod live;
mod locate;
mod sanitize;
mod screen;
mod verb;
mod words;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

pub use console::Console;
pub use failure::{Failure, exit};
pub use sanitize::{one_line, sanitize, sanitize_json};

use command::GpuSpool;

/// Entry point of the `gpuspool` binary.
#[must_use]
pub fn main() -> ExitCode {
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    ExitCode::from(run(std::env::args_os(), &mut Console::new(&mut out, &mut err)))
}

/// Runs one command line; the exit code.
pub fn run(words: impl IntoIterator<Item = impl Into<OsString> + Clone>, console: &mut Console<'_>) -> u8 {
    let parsed = match GpuSpool::try_parse_from(words) {
        Ok(parsed) => parsed,
        Err(error) => return unparsed(&error, console),
    };
    console.json = parsed.json;
    match verb::carry_out(&parsed, console) {
        Ok(code) => code,
        Err(failure) => {
            console.fail(&failure);
            failure.code
        }
    }
}

/// Help and version are answers; anything else is a usage error.
fn unparsed(error: &clap::Error, console: &mut Console<'_>) -> u8 {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => match console.pass_on(&text) {
            Ok(()) => exit::OK,
            Err(_) => exit::PIPE,
        },
        _ => {
            console.note(text.trim_end());
            exit::USAGE
        }
    }
}
