//! Says once that a batch was paused, and that it goes on. That its items do not start is a matter of `queue::lines`.

use model::Saying;

use super::draft::Draft;

pub(super) fn tell(draft: &mut Draft<'_>) {
    for batch in draft.world.batches.values() {
        let (facts, remaining) = (&batch.facts, batch.facts.remaining());
        if facts.paused == batch.said_paused {
            continue;
        }
        let batch = facts.batch_id.clone();
        draft.say(if facts.paused {
            Saying::BatchPaused { batch, remaining }
        } else {
            Saying::BatchResumed { batch, remaining }
        });
    }
}
