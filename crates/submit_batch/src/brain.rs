//! Whether a brain is there, for a word to people. Nothing depends on it: batches are accepted without one.

use std::fs;

use model::picture::Picture;
use spool::clock;
use spool::layout::Layout;

/// The picture, where there is one.
#[must_use]
pub fn picture(layout: &Layout) -> Option<Picture> {
    serde_json::from_slice(&fs::read(layout.gpu_state()).ok()?).ok()
}

/// Whether the process that drew the picture still lives.
#[must_use]
pub fn is_up(picture: Option<&Picture>) -> bool {
    let Some(picture) = picture else { return false };
    let same_boot = match (&picture.boot_id, clock::boot_id()) {
        (Some(then), Ok(now)) => *then == now,
        _ => true,
    };
    same_boot && fs::exists(format!("/proc/{}", picture.brain_pid)).unwrap_or(false)
}
