//! What the mind foresees, as answers to people: instants become seconds from now.
//!
//! Not here: the forecast itself (`policy`).

use model::explained::BatchAsked;
use model::request::{AboutBatch, AboutQueue, Answer, Request};
use model::{Fault, Millis, TaskClass, TaskRecord};
use policy::{Expected, World};

use crate::queues::Queues;

/// What would become of a task or a batch that is asked about.
///
/// # Errors
/// The [`Fault`] for which its file would be rejected.
pub(crate) fn explained(
    world: &World,
    queues: &Queues,
    asked: &Request,
    now: Millis,
) -> Result<Answer, Fault> {
    let mut answer = Answer { ok: true, ..Answer::default() };
    if let Some(record) = &asked.task {
        let (task, not_before) = queues.judged(record, now)?;
        answer.explained = Some(Box::new(policy::explain(world, now, &task, not_before)));
    }
    if let Some(batch) = &asked.batch {
        let (item, _) = queues.judged(&item_of(batch), now)?;
        answer.batch_explained = Some(Box::new(policy::explain_batch(world, now, &item, batch)));
    }
    Ok(answer)
}

/// An item as the expansion of the batch would write it, as far as it matters to where it runs.
fn item_of(batch: &BatchAsked) -> TaskRecord {
    TaskRecord {
        task_class: Some(TaskClass::Script),
        task_type: Some(batch.task_type),
        script: Some(batch.script.clone()),
        model: batch.model.clone(),
        priority: Some(batch.priority),
        batch_id: Some(batch.batch_id.clone()),
        ..TaskRecord::default()
    }
}

/// The queues and all live batches.
pub(crate) fn everything(world: &World, now: Millis) -> Answer {
    let (queues, batches) = policy::forecast(world, now);
    let told = |expected: Option<Expected>| expected.map(|expected| expected.from_now(now));
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
