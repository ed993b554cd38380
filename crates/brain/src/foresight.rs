//! What the mind foresees, as answers to people: instants become seconds from now.
//!
//! Not here: the forecast itself (`policy`).

use model::Millis;
use model::request::{AboutBatch, AboutQueue, Answer, ExpectedIn};
use policy::{Expected, World};

/// Start and end in seconds from now.
pub(crate) fn from_now(expected: &Expected, now: Millis) -> ExpectedIn {
    let seconds = |at: Millis| (at - now).as_secs_f64();
    ExpectedIn {
        starts_in_s: seconds(expected.start),
        ends_in_s: seconds(expected.end).max(0.0),
        starts_in_p90_s: seconds(expected.start_p90),
        ends_in_p90_s: seconds(expected.end_p90).max(0.0),
        place: expected.place.clone(),
    }
}

/// The queues and all live batches.
pub(crate) fn everything(world: &World, now: Millis) -> Answer {
    let (queues, batches) = policy::forecast(world, now);
    let told = |expected: Option<Expected>| expected.map(|expected| from_now(&expected, now));
    let queues = queues.into_iter().map(|queue| AboutQueue {
        class: queue.class,
        waiting: queue.waiting,
        held: queue.held,
        expected: told(queue.expected),
    });
    let batches = batches.into_iter().map(|batch| AboutBatch {
        batch_id: batch.batch_id,
        remaining: batch.remaining,
        expected: told(batch.expected),
    });
    Answer { ok: true, queues: queues.collect(), batches: batches.collect(), ..Answer::default() }
}
