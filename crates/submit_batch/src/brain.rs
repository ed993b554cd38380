//! Whether a brain is there, for a word to people. Nothing depends on it: batches are accepted without one.

use std::fs;

use model::picture::Picture;
use spool::layout::Layout;
use spool::lock::living_brain;

/// The picture, where there is one.
#[must_use]
pub fn picture(layout: &Layout) -> Option<Picture> {
    serde_json::from_slice(&fs::read(layout.gpu_state()).ok()?).ok()
}

/// Whether a brain works on this spool.
#[must_use]
pub fn is_up(layout: &Layout) -> bool {
    living_brain(layout).is_some()
}
