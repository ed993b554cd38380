//! Whether a brain is there, for a word to people. Nothing depends on it: batches are accepted without one.

use std::fs::{self, File};

use model::picture::Picture;
use spool::layout::Layout;
use spool::lock::holder_of;
use spool::process::identity_of;

/// The picture, where there is one.
#[must_use]
pub fn picture(layout: &Layout) -> Option<Picture> {
    serde_json::from_slice(&fs::read(layout.gpu_state()).ok()?).ok()
}

/// Whether the process that signed the brain's lock still lives.
///
/// The lock itself is not tried: a brain that starts at this very moment would find it held.
#[must_use]
pub fn is_up(layout: &Layout) -> bool {
    let holder = File::open(layout.brain_lock()).ok().and_then(|file| holder_of(&file));
    holder.is_some_and(|holder| {
        identity_of(holder.pid).is_some_and(|process| process.starttime == holder.starttime)
    })
}
