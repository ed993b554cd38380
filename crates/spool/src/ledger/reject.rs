//! What can never be a task: its bytes are kept, and the reason lies beside them before they are moved there.

use std::io;
use std::path::{Path, PathBuf};

use model::fault::Place;
use model::{Entry, Fault, Priority, TaskClass, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Ledger, LedgerError, RECORD_BYTES_MAX, about};
use crate::atomic::{Folder, Staged, move_new, move_over, stage_all};
use crate::layout::Layout;
use crate::{clock, crash};

/// Schema version of rejections.
pub const REJECTION_SCHEMA_VERSION: u32 = 1;

/// `failed/<name>.rejected.reason.json`: why a drop was turned away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rejection {
    /// Version of this shape: 1.
    pub schema_version: u32,
    /// Its name in the queue folder.
    pub name: String,
    /// The queue's class.
    pub task_class: TaskClass,
    /// The folder's priority.
    pub priority: Priority,
    /// Machine-readable reason.
    pub code: model::Code,
    /// Where in the file.
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_step: Option<String>,
    /// The line of the file, with a caret under the place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shown: Vec<String>,
    /// The whole of it as one sentence.
    pub text: String,
    /// When.
    pub rejected_at: Timestamp,
}

impl Ledger {
    /// Moves a drop to `failed/<name>.rejected`, its reason beside it. Where the bytes lie now; none if the file is gone.
    ///
    /// # Errors
    /// [`LedgerError::Io`]: the file is still in its queue, and is rejected again.
    pub fn reject(&mut self, entry: &Entry, fault: &Fault) -> Result<Option<PathBuf>, LedgerError> {
        let mut done = self.reject_all(&[(entry, fault)]);
        done.pop().unwrap_or(Ok(None))
    }

    /// Rejects many drops; their reasons are synced together. One answer for each, as of [`Ledger::reject`].
    pub fn reject_all(&mut self, drops: &[(&Entry, &Fault)]) -> Vec<Result<Option<PathBuf>, LedgerError>> {
        let reasons: Vec<io::Result<Vec<u8>>> =
            drops.iter().map(|(entry, fault)| self.reason(entry, fault)).collect();
        let contents: Vec<&[u8]> = reasons.iter().map(|bytes| bytes.as_deref().unwrap_or_default()).collect();
        let staged = stage_all(&self.layout, &contents, self.durability, ["drop.D5", "drop.D5"]);
        drops
            .iter()
            .zip(staged.into_iter().zip(&reasons))
            .map(|((entry, _), (staged, reason))| {
                let moved = staged.and_then(|staged| match reason {
                    Ok(_) => self.turn_away(entry, &staged),
                    Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
                });
                moved.map_err(about(&entry.name))
            })
            .collect()
    }

    fn reason(&self, entry: &Entry, fault: &Fault) -> io::Result<Vec<u8>> {
        let queue = Folder::open(self.layout.queue(entry.class, entry.priority));
        let bytes = queue.and_then(|queue| queue.read(&entry.name, RECORD_BYTES_MAX)).unwrap_or_default();
        let mut reason = serde_json::to_vec_pretty(&reason(entry, fault, &bytes))?;
        reason.push(b'\n');
        Ok(reason)
    }

    /// D5 and D6. The reason comes first: what a crash leaves between the two is overwritten by the next try.
    fn turn_away(&mut self, entry: &Entry, staged: &Staged) -> io::Result<Option<PathBuf>> {
        let staging = self.open(self.layout.stage())?;
        let failed = self.open(self.layout.failed())?;
        let queue = Folder::open(self.layout.queue(entry.class, entry.priority));
        let queue = match queue {
            Ok(queue) if queue.has(&entry.name)? => queue,
            _ => {
                staging.remove(&staged.name)?;
                return Ok(None);
            }
        };
        let (mut reason_in, mut reason_at) = (&staging, staged.name.clone());
        for turn in 1..10_000_u32 {
            let bytes = rejected_name(&entry.name, turn);
            if failed.has(&bytes)? {
                continue;
            }
            let reason_to = format!("{bytes}{REASON}");
            move_over(reason_in, &reason_at, &failed, &reason_to)?;
            (reason_in, reason_at) = (&failed, reason_to);
            crash::point("drop.D5");
            match move_new(&queue, &entry.name, &failed, &bytes) {
                Ok(()) => {
                    crash::point("drop.D6");
                    self.pending.folder(queue.path());
                    self.pending.folder(failed.path());
                    return Ok(Some(failed.path().join(bytes)));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    failed.remove(&reason_at)?;
                    return Ok(None);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        reason_in.remove(&reason_at)?;
        Err(io::Error::from(io::ErrorKind::AlreadyExists))
    }
}

/// How the name of a reason ends.
const REASON: &str = ".reason.json";

fn rejected_name(name: &str, turn: u32) -> String {
    if turn == 1 { format!("{name}.rejected") } else { format!("{name}.rejected.{turn}") }
}

fn reason(entry: &Entry, fault: &Fault, bytes: &[u8]) -> Rejection {
    let caret = std::str::from_utf8(bytes).ok().and_then(|text| model::json::caret(text, fault));
    Rejection {
        schema_version: REJECTION_SCHEMA_VERSION,
        name: entry.name.clone(),
        task_class: entry.class,
        priority: entry.priority,
        code: fault.code,
        place: fault.place.clone(),
        message: fault.message.clone(),
        next_step: fault.next_step.clone(),
        shown: caret.map(|caret| caret.lines().map(str::to_owned).collect()).unwrap_or_default(),
        text: fault.to_string(),
        rejected_at: clock::wall(),
    }
}

/// The latest rejection of a file of this name, and where its bytes lie.
///
/// # Errors
/// As the system says.
pub fn rejection_of(layout: &Layout, name: &str) -> io::Result<Option<(PathBuf, Rejection)>> {
    let mut latest = None;
    for turn in 1..10_000_u32 {
        let bytes = layout.failed().join(rejected_name(name, turn));
        match std::fs::read(with_reason(&bytes)) {
            Ok(reason) => {
                if let Ok(reason) = serde_json::from_slice(&reason) {
                    latest = Some((bytes, reason));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    Ok(latest)
}

fn with_reason(bytes: &Path) -> PathBuf {
    let mut path = bytes.as_os_str().to_owned();
    path.push(REASON);
    PathBuf::from(path)
}
