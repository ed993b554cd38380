//! What tests of this crate share. Not part of the program.

use tempfile::TempDir;

/// A folder in memory where there is one: what these stories tell is the order of steps, not the speed of a disk.
pub(crate) fn folder() -> TempDir {
    let in_memory = tempfile::tempdir_in("/dev/shm");
    in_memory.unwrap_or_else(|_| tempfile::tempdir().expect("a test needs a folder to work in"))
}
