//! What goes wrong: deaths of workers, engines and brains.

use super::*;

impl Rig {
    /// Kills the worker of a GPU, and what it ran.
    pub(in crate::tests) fn kill_worker(&mut self, gpu: u32, with_machine: bool) -> &mut Self {
        let found = self
            .workers
            .iter()
            .find(|(_, worker)| worker.reports.gpu.as_ref().is_some_and(|identity| identity.index == gpu));
        if let Some(id) = found.map(|(id, _)| id.clone()) {
            if !with_machine {
                self.report(&id);
            }
            if let Some(found) = self.workers.get_mut(&id) {
                found.dead = true;
            }
            // Its records go with it here: they are put away before anything else happens.
            self.full = 0;
            self.tell(Event::WorkerDied { worker: id.clone(), with_machine });
            self.think();
            // Its folder stays until its records are put away.
            while self.workers.get(&id).is_some_and(|found| !found.orders.attempts.is_empty()) {
                self.run_for(1_000);
            }
            self.workers.remove(&id);
        }
        self
    }

    /// What the worker of a GPU runs has ended, its record lies there, and then it dies.
    pub(in crate::tests) fn kill_worker_after_end(&mut self, gpu: u32) -> &mut Self {
        let found = self
            .workers
            .iter()
            .find(|(_, worker)| worker.reports.gpu.as_ref().is_some_and(|identity| identity.index == gpu));
        let (id, worker) = found.map(|(id, worker)| (id.clone(), worker.clone())).expect("a worker");
        for key in worker.orders.attempts.keys() {
            self.end_attempt(&id, key, None);
        }
        self.kill_worker(gpu, false)
    }

    /// Whether the worker of a GPU has an engine that loads or serves.
    pub(in crate::tests) fn has_engine(&self, gpu: u32) -> bool {
        let of_gpu = |worker: &&VirtualWorker| {
            worker.reports.gpu.as_ref().is_some_and(|identity| identity.index == gpu)
        };
        let engine = self.workers.values().find(of_gpu).and_then(|worker| worker.reports.engine.as_ref());
        engine.is_some_and(|engine| matches!(engine.state, EngineState::Booting | EngineState::Ready))
    }

    /// The engine of a GPU dies.
    pub(in crate::tests) fn kill_engine(&mut self, gpu: u32) -> &mut Self {
        let found = self
            .workers
            .iter_mut()
            .find(|(_, worker)| worker.reports.gpu.as_ref().is_some_and(|identity| identity.index == gpu));
        let (id, worker) = found.expect("a worker");
        let engine = worker.reports.engine.as_mut().expect("an engine");
        engine.state = EngineState::Failed;
        engine.error = Some("killed by signal 9".into());
        let id = id.clone();
        let keys: Vec<AttemptKey> = worker.reports.attempts.keys().cloned().collect();
        self.report(&id);
        for key in keys {
            self.outcomes.entry(key.task_id.to_string()).or_default().push_front(Some(FailureClass::Crash));
            self.end_attempt(&id, &key, None);
        }
        self
    }

    /// An attempt of this task that was ordered and has not begun does not begin.
    pub(in crate::tests) fn hinder(&mut self, name: &str) -> &mut Self {
        let task_id = id(name);
        self.agenda.retain(
            |_, happening| !matches!(happening, Happening::Begin { key, .. } if key.task_id == task_id),
        );
        self
    }

    /// Somebody pauses a batch, or lets it go on.
    pub(in crate::tests) fn pause(&mut self, batch: &str, paused: bool) -> &mut Self {
        let facts = self.batches.get_mut(&BatchId::new(batch).expect("legal")).expect("a batch");
        facts.paused = paused;
        let facts = facts.clone();
        self.tell(Event::Batch(facts));
        self
    }

    /// The brain dies and another one adopts what is there.
    pub(in crate::tests) fn restart_brain(&mut self) -> &mut Self {
        self.world = World::new(self.config.clone(), self.world.learned().clone());
        if let Some(width) = self.width {
            self.world.queue.narrow(width);
        }
        self.agenda.retain(|_, happening| !matches!(happening, Happening::Born { .. }));
        let inventory = self.inventory();
        self.tell(Event::Inventory(inventory));
        for (worker, found) in self.workers.clone() {
            // What it reads is the fold of the lines that lie there.
            let mut orders = Orders::default();
            OrdersLine::whole_of(&found.orders).fold_into(&mut orders);
            let (reports, orders) = (Box::new(found.reports), Some(Box::new(orders)));
            self.tell(Event::WorkerBorn { worker, reports, orders });
        }
        for facts in self.batches.clone().into_values() {
            self.tell(Event::Batch(facts));
        }
        for (order, (entry, (task, not_before))) in self.files.clone().into_iter().enumerate() {
            self.tell(Event::Queued { entry, task: Box::new(task), order: order as u64, not_before });
        }
        self
    }

    /// What the worker of a GPU was given has run and ended before anything was reported.
    pub(in crate::tests) fn end_unseen(&mut self, gpu: u32) -> &mut Self {
        let now = self.now;
        let found = self
            .workers
            .iter_mut()
            .find(|(_, worker)| worker.reports.gpu.as_ref().is_some_and(|identity| identity.index == gpu));
        let (id, worker) = found.expect("a worker");
        for (key, order) in &worker.orders.attempts {
            let report = AttemptReport {
                task_id: order.task_id.clone(),
                attempt: order.attempt,
                state: AttemptState::Running,
                since: Some(now),
                progress: None,
                media_s: None,
                yields: false,
                outcome: None,
            };
            worker.reports.attempts.insert(key.clone(), report);
        }
        let keys: Vec<AttemptKey> = worker.orders.attempts.keys().cloned().collect();
        let id = id.clone();
        for key in keys {
            self.end_attempt(&id, &key, None);
        }
        self
    }
}
