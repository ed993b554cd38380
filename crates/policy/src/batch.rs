//! Batches as the mind knows them: their facts, and when they were last heard of.

use model::Millis;

use crate::event::BatchFacts;

/// How long an exclusive batch without a single known item keeps the GPUs: longer than its expansion into the queue
/// takes, short enough that a batch whose files somebody deleted does not hold the LLMs back for ever.
pub(crate) const UNSEEN_ITEMS_GRACE: Millis = Millis::from_secs(10);

/// A live batch.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// What is known.
    pub facts: BatchFacts,
    /// Since when.
    pub since: Millis,
    /// When an item was last seen, or the facts changed.
    pub heard_at: Millis,
    /// Place in the order of batches.
    pub order: u64,
    /// Whether the last thing said of it was that it is paused.
    pub said_paused: bool,
}
