//! What every line begins with, readable also where the rest of the line is not.

use std::fs;
use std::io;
use std::path::Path;

use model::link::{Head, Seen};
use serde::Deserialize;

/// The fields of a line whose meaning never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Stamp {
    pub(super) epoch: u64,
    pub(super) n: u64,
    #[serde(default)]
    pub(super) schema: u32,
    #[serde(default)]
    pub(super) leave: Option<bool>,
}

impl Stamp {
    pub(super) fn of(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    pub(super) const fn seen(&self) -> Seen {
        Seen { epoch: self.epoch, n: self.n }
    }
}

impl From<Head> for Stamp {
    fn from(head: Head) -> Self {
        Self { epoch: head.epoch, n: head.n, schema: head.schema, leave: None }
    }
}

/// The highest epoch and number that a log holds; nothing where it holds no whole line.
///
/// # Errors
/// As the system says; a log that is missing holds nothing.
pub fn last_stamp(path: &Path) -> io::Result<Seen> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Seen::default()),
        Err(error) => return Err(error),
    };
    // A last line without its newline counts too: the next writer's newline would complete it.
    let stamps = bytes.split(|byte| *byte == b'\n').filter_map(Stamp::of);
    Ok(stamps.map(|stamp| stamp.seen()).max().unwrap_or_default())
}
