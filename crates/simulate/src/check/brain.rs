//! What is looked at as the brain hears, decides and sleeps.

use std::collections::BTreeSet;

use model::link::{AttemptState, Orders, Reports, Wish};
use model::{Millis, TaskClass, TaskId, WorkerId};
use policy::event::{BatchFacts, Event};
use policy::{Plan, World};

use super::{Checks, Live, Seen};
use crate::mind::Mind;

/// How many sleeps are looked into: one of so many.
const SLEEPS_LOOKED_INTO: f64 = 0.04;
/// How many plans are asked for again: one of so many.
const PLANS_REPEATED: f64 = 0.02;

impl Checks {
    pub(crate) fn batch_accepted(&mut self, facts: &BatchFacts) {
        self.batch_ends.insert(facts.batch_id.clone(), 0);
    }

    /// The brain hears something.
    pub(crate) fn told(&mut self, at: Millis, event: &Event) {
        match event {
            Event::Queued { task, not_before, .. } => self.waits(at, &task.task_id, *not_before),
            Event::Batch(facts) => {
                let told = self.batches.get(&facts.batch_id).map_or(at, |(_, told)| *told);
                self.batches.insert(facts.batch_id.clone(), (facts.clone(), told));
            }
            Event::Inventory(inventory) => {
                self.gpus.values_mut().for_each(|gpu| gpu.1 = true);
                for facts in &inventory.gpus {
                    self.gpus.insert(facts.uuid.clone(), (facts.total_mib, false));
                }
            }
            Event::Read(reading) if self.gpus.contains_key(&reading.uuid) => {
                if let Some(gpu) = self.gpus.get_mut(&reading.uuid) {
                    gpu.1 = reading.lost;
                }
            }
            Event::WorkerBorn { worker, reports, orders } => {
                self.worker_born(worker, reports, orders.as_deref())
            }
            Event::Reported { worker, reports } => self.reported(worker, reports),
            Event::WorkerDied { worker, .. } => {
                if let Some(seen) = self.workers.get_mut(worker) {
                    (seen.ordered, seen.told) = (None, None);
                    seen.live.values_mut().for_each(|live| live.over = true);
                }
            }
            Event::CancelAsked { task_id } => {
                self.chats.remove(task_id);
            }
            _ => {}
        }
    }

    /// A task is known to wait.
    pub(super) fn waits(&mut self, at: Millis, task_id: &TaskId, not_before: Option<Millis>) {
        let Some(known) = self.tasks.get_mut(task_id).filter(|known| known.ends == 0) else { return };
        if known.waits.is_none()
            && let Some(batch) = &known.batch
        {
            *self.waiting_items.entry(batch.clone()).or_default() += 1;
        }
        known.waits = Some((at, not_before));
        if known.chatbot && not_before.is_none_or(|time| time <= at) && known.class == TaskClass::Llm {
            self.chats.insert(task_id.clone());
        }
    }

    fn worker_born(&mut self, worker: &WorkerId, reports: &Reports, orders: Option<&Orders>) {
        let gpu = reports.gpu.as_ref().map(|gpu| gpu.uuid.clone());
        let mut seen = Seen { gpu, ..Seen::default() };
        if let Some(orders) = orders {
            seen.ordered.clone_from(&orders.engine);
            seen.leaves = orders.leave;
            for (key, order) in &orders.attempts {
                let stopped = order.why.filter(|_| order.wish == Wish::Stop);
                let (class, gpus) = (order.task.class(), order.gpus.clone());
                seen.live.insert(key.clone(), Live { class, stopped, over: false, gpus });
            }
        }
        self.workers.insert(worker.clone(), seen);
        self.reported(worker, reports);
    }

    fn reported(&mut self, worker: &WorkerId, reports: &Reports) {
        let Some(seen) = self.workers.get_mut(worker) else { return };
        seen.told = reports.engine.as_ref().map(|engine| (engine.generation, engine.state));
        for (key, live) in &mut seen.live {
            let report = reports.attempts.get(key);
            live.over |= report.is_some_and(|report| report.state != AttemptState::Running);
        }
    }

    /// Another brain begins; it will be told everything anew.
    pub(crate) fn brain_is_new(&mut self) {
        self.workers.clear();
        self.batches.clear();
        self.chats.clear();
        self.waiting_items.clear();
        self.gpus.clear();
        self.tasks.values_mut().for_each(|known| known.waits = None);
    }

    /// The mind has nothing more to say at this instant.
    pub(crate) fn at_rest(&mut self, at: Millis) {
        let started = std::mem::take(&mut self.started_now);
        if self.started_at != at || self.chats.is_empty() {
            return;
        }
        for (worker, task_id) in started {
            let Some(task) = self.tasks.get(&task_id).filter(|task| !task.chatbot) else { continue };
            if task.class != TaskClass::Llm {
                continue;
            }
            let model =
                self.workers.get(&worker).and_then(|seen| seen.ordered.as_ref()).map(|order| &order.model);
            let could = |chat: &&TaskId| {
                let wanted = self.tasks.get(*chat).and_then(|chat| chat.model.as_ref());
                wanted.is_none() || wanted == model
            };
            if let Some(chat) = self.chats.iter().find(could).cloned() {
                let what = format!("{task_id} started on {worker}, where {chat} could have");
                self.broken(at, "a chatbot goes first", what);
            }
        }
    }

    /// The mind sleeps: at any instant before the one it named it would still have nothing to say.
    pub(crate) fn sleeps(
        &mut self,
        at: Millis,
        wake: Option<Millis>,
        next: Option<Millis>,
        world: &World,
        mind: &Mind,
    ) {
        if !self.dice.chance(SLEEPS_LOOKED_INTO) {
            return;
        }
        let until = [wake, next].into_iter().flatten().min().unwrap_or(at + Millis::from_secs(3_600));
        if until - at < Millis(2) {
            return;
        }
        let then = at + Millis(self.dice.between(1, (until - at).0 - 1));
        let plan = mind.plan(world, then);
        if let Some(action) = plan.actions.first() {
            let what = format!("{wake:?} was named, and at {then:?} it wants {action:?}");
            self.broken(at, "wake_at names every instant that matters", what);
        }
    }

    /// The mind wants something: once that is issued it is not wanted again.
    pub(crate) fn planned(&mut self, at: Millis, plan: &Plan, world: &World, mind: &Mind) {
        if !self.dice.chance(PLANS_REPEATED) {
            return;
        }
        let mut after = world.clone();
        for action in &plan.actions {
            after.apply(at, Event::Issued(Box::new(action.clone())));
        }
        let again = mind.plan(&after, at);
        let twice = again.actions.iter().find(|action| plan.actions.contains(action));
        if let Some(action) = twice {
            self.broken(at, "nothing is wanted twice", format!("{action:?} was issued and is wanted again"));
        }
        let keys: Vec<_> = plan.actions.iter().filter_map(started).collect();
        let distinct: BTreeSet<_> = keys.iter().collect();
        if distinct.len() != keys.len() {
            self.broken(at, "nothing is wanted twice", format!("one plan starts a task twice: {keys:?}"));
        }
    }
}

fn started(action: &policy::Action) -> Option<&TaskId> {
    match action {
        policy::Action::Start { task, .. } => Some(&task.task_id),
        _ => None,
    }
}
