//! Documents that people write, into files or on the command line: reading them, and saying what is wrong with them.

use std::io::Read;
use std::path::Path;

use model::fault::Fault;
use model::json::caret;

use crate::failure::{Failure, exit};

/// The word for standard input.
pub(crate) const STDIN: &str = "-";

/// A document that an argument names, or is.
#[derive(Debug)]
pub(crate) struct Given<'a> {
    /// What messages call it.
    pub(crate) name: String,
    /// The file it was read from; none for standard input and for the command line.
    pub(crate) file: Option<&'a str>,
    /// Its content.
    pub(crate) bytes: Vec<u8>,
}

/// The document of an argument: what begins with `{` is JSON that is written out there, which messages call `name`; `-`
/// is standard input, and anything else a file, of both at most `bytes_max` and one more byte.
pub(crate) fn given<'a>(argument: &'a str, name: &str, bytes_max: u64) -> Result<Given<'a>, Failure> {
    if argument.trim_start().starts_with('{') {
        return Ok(Given { name: name.to_owned(), file: None, bytes: argument.as_bytes().to_vec() });
    }
    let file = Some(argument).filter(|file| *file != STDIN);
    Ok(Given { name: shown(argument).to_owned(), file, bytes: read(argument, bytes_max)? })
}

/// What messages call a file.
fn shown(path: &str) -> &str {
    if path == STDIN { "standard input" } else { path }
}

/// The content of a file, or of standard input where `path` is `-`; at most `bytes_max` and one more byte of it, so
/// that what is too large is seen to be.
pub(crate) fn read(path: &str, bytes_max: u64) -> Result<Vec<u8>, Failure> {
    let limit = bytes_max.saturating_add(1);
    let mut bytes = Vec::new();
    let read = if path == STDIN {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        let path = Path::new(path);
        if path.is_dir() {
            return Err(Failure::new(exit::NO_INPUT, format!("{} is a folder", path.display()))
                .next("name the file in it"));
        }
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    match read {
        Ok(_) => Ok(bytes),
        Err(error) => {
            let failure = Failure::new(exit::NO_INPUT, format!("failed to read {path}: {error}"));
            Err(failure.next("check the name and that you may read it"))
        }
    }
}

/// What is wrong with a document, with the line it is in and a caret under the place.
pub(crate) fn told(path: &str, bytes: &[u8], fault: &Fault) -> String {
    let bare = Fault { next_step: None, ..fault.clone() };
    let mut text = format!("{}: {bare}", shown(path));
    if let Some(lines) = std::str::from_utf8(bytes).ok().and_then(|source| caret(source, fault)) {
        for line in lines.lines() {
            text.push_str("\n    ");
            text.push_str(line);
        }
    }
    text
}

/// The failure of a document.
pub(crate) fn failure(path: &str, bytes: &[u8], fault: &Fault) -> Failure {
    let failure = Failure::new(exit::DATA, told(path, bytes, fault));
    match &fault.next_step {
        Some(step) => failure.next(step.clone()),
        None => failure.next("correct it; `gpuspool schema task` prints what a task may say"),
    }
}
