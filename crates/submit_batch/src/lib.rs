//! The batch command of gpuspool: a folder of media becomes a batch.
//!
//! ```text
//! arguments -> walk (list) -> naming, done, live -> probe -> order (label) -> forecast -> spool::batch -> wait (progress) -> report
//! ```
//!
//! It writes one thing, the manifest, and needs no brain for that; the brain expands it into tasks. Not here: tasks,
//! their order, their retries, and the transcription itself.

pub mod arguments;
pub mod brain;
pub mod done;
pub mod failure;
pub mod forecast;
pub mod interrupt;
pub mod label;
pub mod list;
pub mod live;
pub mod naming;
pub mod order;
pub mod probe;
pub mod progress;
pub mod report;
pub mod run;
pub mod say;
pub mod wait;
pub mod walk;
pub mod words;

use std::path::Path;
use std::process::ExitCode;

use arguments::Asked;
use failure::Failure;
use interrupt::Interrupt;
use say::Voice;

/// Entry point of the `submit_batch` binary.
#[must_use]
pub fn main() -> ExitCode {
    let mut voice = Voice::new();
    match answer(&mut voice) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            voice.note(&format!("submit_batch: {failure}"));
            ExitCode::from(failure.exit_code())
        }
    }
}

fn answer(voice: &mut Voice) -> Result<u8, Failure> {
    match arguments::parse(std::env::args_os())? {
        Asked::Text(text) => {
            voice.result(&text);
            Ok(0)
        }
        Asked::Batch(wish) => {
            let interrupt = Interrupt::listen().map_err(|error| {
                Failure::Spool(format!("failed to listen for signals: {}", words::io(&error)))
            })?;
            let done = run::run(&wish, Path::new("ffprobe"), &interrupt, voice);
            if let (true, Err(failure)) = (wish.json, &done) {
                let error =
                    serde_json::json!({ "code": failure.exit_code(), "message": failure.to_string() });
                voice.result(&format!("{:#}\n", serde_json::json!({ "schema_version": 1, "error": error })));
            }
            done
        }
    }
}
