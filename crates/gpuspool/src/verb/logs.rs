//! `gpuspool logs`: what an attempt wrote.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use model::{AttemptKey, TaskId};
use spool::find::Place;
use spool::settings::Settings;

use crate::console::Console;
use crate::failure::{Failure, exit};
use crate::locate::{self, Meant};

/// Between two looks for more.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Read at a time, in bytes.
const PIECE: usize = 64 << 10;
/// Attempts looked for beyond the recorded one: the record of a running task may lag behind.
const ATTEMPTS_AHEAD: u32 = 3;

/// Options of `logs`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The task.
    id: String,
    /// Go on until the task has ended.
    #[arg(long, short)]
    follow: bool,
    /// The attempt [default: the latest that wrote anything].
    #[arg(long, value_name = "N")]
    attempt: Option<u32>,
}

pub(crate) fn run(options: &Options, settings: &Settings, console: &mut Console<'_>) -> Result<u8, Failure> {
    let name = &options.id;
    let id = match locate::meant(settings, name)? {
        Some(Meant::Task(id, _)) => id,
        Some(Meant::Batch(id, _)) => {
            return Err(Failure::new(
                exit::USAGE,
                format!("`{id}` is a batch: each of its items has a log of its own"),
            )
            .next(format!("ask for one of them: `gpuspool logs {id}.0`")));
        }
        None => return Err(locate::unknown(settings, name)),
    };
    let mut attempt = options.attempt.or(latest(settings, &id)?);
    while attempt.is_none() && options.follow && !ended(settings, &id)? {
        std::thread::sleep(LOOK_EVERY);
        attempt = latest(settings, &id)?;
    }
    let Some(attempt) = attempt else {
        if ended(settings, &id)? {
            return Err(Failure::new(exit::NOT_ALL, format!("`{name}` has left no log"))
                .next(format!("`gpuspool result {name}` says what came of it")));
        }
        return Err(Failure::new(exit::NOT_ALL, format!("`{name}` has written no log yet"))
            .next(format!("`gpuspool why {name}` says where it is, `logs -f` waits for its first line")));
    };
    let path = settings.layout.attempt_log(&AttemptKey { task_id: id.clone(), attempt });
    if console.json {
        let text = std::fs::read(&path).map_err(|error| unreadable(&path, &error))?;
        console.say_json(&serde_json::json!({
            "task_id": id, "attempt": attempt, "path": path, "text": String::from_utf8_lossy(&text),
        }))?;
        return Ok(exit::OK);
    }
    show(options, settings, &id, path, console)
}

fn unreadable(path: &std::path::Path, error: &std::io::Error) -> Failure {
    let failure = Failure::new(exit::NO_INPUT, format!("failed to read {}: {error}", path.display()));
    if error.kind() == ErrorKind::NotFound {
        failure.next("that attempt wrote nothing, or its log was cleaned away")
    } else {
        failure
    }
}

/// Prints a log; with `--follow` as it grows, and those of later attempts after it.
fn show(
    options: &Options,
    settings: &Settings,
    id: &TaskId,
    mut path: PathBuf,
    console: &mut Console<'_>,
) -> Result<u8, Failure> {
    let mut file = File::open(&path).map_err(|error| unreadable(&path, &error))?;
    let mut text = Text::default();
    loop {
        // Looked at before reading: what was written before the end is read for certain.
        let over = !options.follow || ended(settings, id)?;
        let mut piece = vec![0; PIECE];
        let length = file.read(&mut piece).map_err(|error| unreadable(&path, &error))?;
        if length > 0 {
            console.pass_on(&text.more(&piece[..length]))?;
            continue;
        }
        let newer = match options.attempt {
            None if options.follow => latest(settings, id)?
                .map(|attempt| settings.layout.attempt_log(&AttemptKey { task_id: id.clone(), attempt }))
                .filter(|newer| *newer != path),
            _ => None,
        };
        if let Some(newer) = newer {
            console.pass_on(&text.rest())?;
            console.note(&format!("— next attempt: {}", newer.display()));
            file = File::open(&newer).map_err(|error| unreadable(&newer, &error))?;
            path = newer;
        } else if over {
            console.pass_on(&text.rest())?;
            return Ok(exit::OK);
        } else {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn ended(settings: &Settings, id: &TaskId) -> Result<bool, Failure> {
    Ok(locate::task(settings, id)?
        .is_none_or(|located| !matches!(located.place, Place::Queue(_) | Place::Processing)))
}

/// The latest attempt that has a log.
fn latest(settings: &Settings, id: &TaskId) -> Result<Option<u32>, Failure> {
    let recorded = locate::task(settings, id)?.and_then(|located| located.record?.attempt).unwrap_or(1);
    Ok((1..=recorded.saturating_add(ATTEMPTS_AHEAD)).rev().find(|attempt| {
        settings.layout.attempt_log(&AttemptKey { task_id: id.clone(), attempt: *attempt }).is_file()
    }))
}

/// Bytes that come in pieces as text: a character cut in two waits for its other half.
#[derive(Debug, Default)]
struct Text {
    held: Vec<u8>,
}

impl Text {
    fn more(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.held) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.held.len() - self.cut_at_the_end(),
        };
        let rest = self.held.split_off(whole);
        String::from_utf8_lossy(&std::mem::replace(&mut self.held, rest)).into_owned()
    }

    /// How many bytes at the end begin a character that is not complete.
    fn cut_at_the_end(&self) -> usize {
        (1..=3.min(self.held.len()))
            .find(|back| {
                let byte = self.held[self.held.len() - back];
                let length = match byte {
                    0xc0..=0xdf => 2,
                    0xe0..=0xef => 3,
                    0xf0..=0xf7 => 4,
                    _ => 1,
                };
                length > *back
            })
            .unwrap_or(0)
    }

    fn rest(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_cut_anywhere_arrives_whole_and_garbage_passes_as_such() {
        let bytes = "añ€😀b".as_bytes();
        for cut in 0..=bytes.len() {
            let mut text = Text::default();
            let shown = text.more(&bytes[..cut]) + &text.more(&bytes[cut..]) + &text.rest();
            assert_eq!(shown, "añ€😀b", "cut at {cut}");
        }
        let mut text = Text::default();
        let shown = text.more(b"\xff\xfe ok \xe2\x82") + &text.more(b"\xac!\xc3") + &text.rest();
        assert_eq!(shown, "\u{fffd}\u{fffd} ok €!\u{fffd}");
    }
}
