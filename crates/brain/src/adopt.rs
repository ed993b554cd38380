//! A new brain takes up what the last one left: living workers are adopted, dead ones settled.
//!
//! It joins before it moves: the logs and outboxes of all workers, living and dead, are read first; only then are
//! task folders put right (`spool::recover::settle`), and only then are orders written.

use std::collections::{BTreeMap, BTreeSet};

use model::link::{Phase, Reports};
use model::{AttemptKey, Task, TaskId, WorkerId};
use policy::event::Event;
use spool::layout::Layout;
use spool::recover::{self, FoundWorker};

use crate::hands::Hands;

/// Takes up every worker of the spool; the answer is facts, the workers to bury first, and those that died with
/// the machine.
pub(crate) fn adopt(layout: &Layout, hands: &mut Hands) -> std::io::Result<Adopted> {
    let survey = recover::survey(layout)?;
    let live = live_attempts(&survey.workers);
    for note in recover::settle(layout, &mut hands.ledger, &live)? {
        tracing::info!("{note}");
    }
    for held in &survey.gpus_held {
        tracing::warn!(
            gpu = %held.gpu,
            pid = held.pid,
            "the GPU's lock is held by a process that is no living worker's; it is not used until that process ends"
        );
    }
    let mut adopted = Adopted::default();
    for found in survey.workers {
        take_up(found, hands, &mut adopted);
    }
    Ok(adopted)
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Adopted {
    /// Facts, in order.
    pub(crate) events: Vec<Event>,
    /// Dead workers of this boot: what they left running is ended before their tasks are taken back.
    pub(crate) to_bury: Vec<WorkerId>,
}

fn live_attempts(workers: &[FoundWorker]) -> BTreeMap<TaskId, (AttemptKey, Task)> {
    let orders = workers.iter().flat_map(|worker| worker.orders.attempts.iter());
    orders.map(|(key, order)| (key.task_id.clone(), (key.clone(), (*order.task).clone()))).collect()
}

fn take_up(found: FoundWorker, hands: &mut Hands, adopted: &mut Adopted) {
    let worker = found.id.clone();
    if found.alive {
        match hands.arms.take_up(&worker, found.orders.clone()) {
            Ok(Some(reports)) => {
                tracing::info!(%worker, "adopted");
                adopted.events.push(born(&worker, reports, &found));
                return;
            }
            Ok(None) => {
                tracing::warn!(%worker, "it lives and its reports do not say who it is; it is asked to report anew");
                return;
            }
            Err(error) => {
                // Its tasks stay with it, and its lock says when it is dead.
                tracing::error!(%worker, %error, "a living worker cannot be adopted yet");
                hands.arms.leave_for_later(worker, found.orders);
                return;
            }
        }
    }
    let open: BTreeSet<AttemptKey> =
        found.orders.attempts.keys().chain(found.reports.attempts.keys()).cloned().collect();
    // It will not serve any more, so the mind gives it nothing, and a living successor has its GPU at once.
    let reports = Reports { phase: Phase::Left, ..found.reports.clone() };
    adopted.events.push(born(&worker, reports, &found));
    if found.other_boot {
        adopted.events.push(Event::WorkerDied { worker: worker.clone(), with_machine: true });
    } else {
        adopted.to_bury.push(worker.clone());
    }
    hands.arms.bury_later(&worker, open, found.lock);
    if found.other_boot {
        hands.arms.quieten(&worker);
    }
}

fn born(worker: &WorkerId, reports: Reports, found: &FoundWorker) -> Event {
    Event::WorkerBorn {
        worker: worker.clone(),
        reports: Box::new(reports),
        orders: Some(Box::new(found.orders.clone())),
    }
}
