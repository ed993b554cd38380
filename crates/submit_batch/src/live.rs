//! Which media earlier batches have not ended with, so that nothing is submitted twice.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use model::batch::BatchStatus;
use model::{BatchId, Status};
use spool::batch::Batches;

/// Media of items that have not ended, with their batch.
///
/// # Errors
/// Where the spool cannot be read; a spool that does not exist yet has no batches.
pub fn media(batches: &Batches) -> io::Result<BTreeMap<PathBuf, BatchId>> {
    let ids = match batches.list() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        other => other?,
    };
    let mut live = BTreeMap::new();
    for id in ids {
        let record = batches.record(&id)?;
        if record.is_some_and(|record| is_over(record.status)) {
            continue;
        }
        let Some(manifest) = batches.manifest(&id)? else { continue };
        for (item, state) in manifest.items.iter().zip(batches.states(&manifest)?) {
            if !matches!(state, Some(Status::Complete | Status::Failed)) {
                live.insert(PathBuf::from(&item.video_path), id.clone());
            }
        }
    }
    Ok(live)
}

/// Whether a batch has no item left to end.
#[must_use]
pub const fn is_over(status: BatchStatus) -> bool {
    matches!(status, BatchStatus::Complete | BatchStatus::CompleteWithFailures)
}
