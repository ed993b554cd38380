//! The words between brain and worker: lines of two append-only logs, and the state they fold into.
//!
//! An amendment names only the fields that change. A named field replaces the old value whole, except `attempts`,
//! which merges by key; `drop` removes keys. Not here: files, epochs' persistence, rotation (`spool::link`).

mod orders;
mod reports;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

pub use orders::*;
pub use reports::*;

/// Version of these lines.
pub const LINK_SCHEMA: u32 = 1;

/// How far the other log has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Seen {
    /// Epoch of the last line folded.
    pub epoch: u64,
    /// Number of that line.
    pub n: u64,
}

/// Who a process is, beyond its reusable pid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessIdentity {
    /// Process id.
    pub pid: u32,
    /// Field 22 of `/proc/<pid>/stat`, in clock ticks since boot.
    pub starttime: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
}

/// What every line begins with; these four never change their meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Head {
    /// The writer's life: of orders the brain's epoch, of reports always 1.
    pub epoch: u64,
    /// Counts up without gaps within an epoch.
    pub n: u64,
    /// Schema of the rest.
    pub schema: u32,
    /// Whether this line is a snapshot.
    pub whole: bool,
}

/// A log's line type together with its fold.
pub trait Line: Serialize + serde::de::DeserializeOwned + Clone {
    /// What the lines fold into.
    type State: Clone + Default + PartialEq + std::fmt::Debug;

    /// The line's head.
    fn head(&self) -> Head;
    /// The same line under another head.
    fn set_head(&mut self, head: Head);
    /// Replaces (a `whole` line) or amends `state`.
    fn fold_into(&self, state: &mut Self::State);
    /// The snapshot of `state`, without a head.
    fn whole_of(state: &Self::State) -> Self;
}

fn set<T: Clone>(place: &mut T, value: Option<&T>) {
    if let Some(value) = value {
        place.clone_from(value);
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// Tells a stated `null` (nothing loaded) from an absent field (unchanged).
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}
