//! What the brain wants done, done.

use super::*;

impl Rig {
    pub(in crate::tests) fn carry_out(&mut self, action: Action) {
        match action {
            Action::Say(_) | Action::Reserve { .. } | Action::Keep { .. } | Action::ReadAhead { .. } => {}
            Action::Launch { gpu } => {
                let launch =
                    format!("launch-{}", self.count(|action| matches!(action, Action::Launch { .. })));
                self.tell(Event::Launched { launch: launch.clone(), gpu: gpu.clone() });
                self.later(50, Happening::Born { launch, gpu });
            }
            Action::Start { entry, worker, task, gpus } => self.carry_out_start(entry, worker, *task, gpus),
            Action::Engine { worker, engine } => {
                let Some(found) = self.workers.get_mut(&worker) else { return };
                found.orders.engine.clone_from(&engine);
                let since = self.now;
                match engine {
                    Some(order) => {
                        found.reports.engine = Some(EngineReport {
                            generation: order.generation,
                            state: EngineState::Booting,
                            preset: order.preset,
                            model: order.model,
                            parallel: order.parallel,
                            beside: order.beside,
                            pid: Some(4_711),
                            port: Some(18_100),
                            since,
                            boot_ms: None,
                            error: None,
                        });
                        self.later(
                            self.times.boot,
                            Happening::EngineReady { worker: worker.clone(), generation: order.generation },
                        );
                    }
                    None => {
                        if let Some(engine) = &mut found.reports.engine {
                            engine.state = EngineState::Unloading;
                            let generation = engine.generation;
                            self.later(
                                self.times.unload,
                                Happening::EngineGone { worker: worker.clone(), generation },
                            );
                        }
                    }
                }
                self.report(&worker);
            }
            Action::Hosts { worker, hosts } => {
                if let Some(found) = self.workers.get_mut(&worker) {
                    found.orders.hosts = hosts;
                    self.later(200, Happening::HostGone { worker });
                }
            }
            Action::Stop { worker, key, why } => self.carry_out_stop(worker, key, why),
            Action::Finish { worker, key } => self.carry_out_finish(worker, key),
            Action::Requeue { worker, key, task, error, charged, back_off } => {
                self.carry_out_requeue(worker, key, *task, error, charged, back_off);
            }
            Action::Fail { worker, key, error, .. } => {
                self.end(&key, Some(error), &worker);
                self.drop_key(&worker, &key);
            }
            Action::FailQueued { entry, task, error } => {
                self.files.remove(&entry).expect("failed from its queue");
                let key = AttemptKey { task_id: task.task_id.clone(), attempt: task.attempt };
                self.tell(Event::Claimed { entry, task_id: key.task_id.clone() });
                self.note_end(&key, Some(error), None);
                self.count_batch(task.batch_id.as_ref(), false);
            }
            Action::ShowRunning { .. } => {}
            Action::Leave { worker } => {
                if let Some(found) = self.workers.get_mut(&worker) {
                    found.orders.leave = true;
                    found.reports.phase = Phase::Leaving;
                    let wait = if found.reports.engine.is_some() { self.times.unload } else { 10 };
                    self.report(&worker);
                    self.later(wait, Happening::Left { worker });
                }
            }
        }
    }

    pub(in crate::tests) fn carry_out_start(
        &mut self,
        entry: Entry,
        worker: WorkerId,
        mut task: Task,
        gpus: Vec<GpuUuid>,
    ) {
        let there = self.files.remove(&entry);
        let Some(found) = self.workers.get_mut(&worker).filter(|_| there.is_some()) else {
            if let Some(file) = there {
                self.files.insert(entry.clone(), file);
            }
            return self.tell(Event::StartLost { entry, why: "not there".into() });
        };
        let wish = task.task_id.clone();
        let taken = |id: &TaskId| self.ended.contains_key(id) && task.attempt == 1;
        let numbered = (1..).map(|turn| wish.candidate(turn).expect("short")).find(|id| !taken(id));
        task.task_id = numbered.expect("endless");
        let key = AttemptKey { task_id: task.task_id.clone(), attempt: task.attempt };
        let order = AttemptOrder {
            task_id: key.task_id.clone(),
            attempt: key.attempt,
            wish: Wish::Run,
            why: None,
            gpus,
            task: Box::new(task.clone()),
        };
        found.orders.attempts.insert(key.clone(), order);
        self.tell(Event::Started {
            entry,
            task_id: key.task_id.clone(),
            worker: worker.clone(),
            attempt: key.attempt,
        });
        self.begin_later(worker, key, &task);
    }

    pub(in crate::tests) fn begin_later(&mut self, worker: WorkerId, key: AttemptKey, task: &Task) {
        let Some(found) = self.workers.get_mut(&worker) else { return };
        let model::task::Work::Script(work) = &task.work else {
            return self.later(2, Happening::Begin { worker, key });
        };
        let host = place::host_key(&self.config, work);
        let mine = |report: &&HostReport| host.is(&report.script, report.model.as_deref());
        let loaded = found.reports.hosts.iter().filter(mine).count();
        let kept = found.orders.hosts.iter().filter(|order| host.is(&order.script, order.model.as_deref()));
        let kept: usize = kept.map(|order| order.count as usize).sum();
        let given = found.orders.attempts.iter().filter(|(key, order)| {
            let ended = found.reports.attempts.get(*key).is_some_and(|report| report.outcome.is_some());
            let model::task::Work::Script(work) = &order.task.work else { return false };
            !ended && place::host_key(&self.config, work) == host
        });
        let given = given.count();
        let loading = self.agenda.values().filter(
            |happening| matches!(happening, Happening::HostLoaded { worker: at, .. } if *at == worker),
        );
        if host.warm && loaded + loading.count() < kept.max(1).min(given) {
            self.later(self.times.host_load, Happening::HostLoaded { worker, key });
        } else {
            self.later(if host.warm { 1 } else { 300 }, Happening::Begin { worker, key });
        }
    }

    pub(in crate::tests) fn carry_out_stop(&mut self, worker: WorkerId, key: AttemptKey, why: StopWhy) {
        if let Some(order) =
            self.workers.get_mut(&worker).and_then(|found| found.orders.attempts.get_mut(&key))
        {
            (order.wish, order.why) = (Wish::Stop, Some(why));
            let is_script = order.task.class() == TaskClass::Script;
            if let Some(wait) = self.until_it_stops(&worker, &key, why == StopWhy::Yield && is_script) {
                self.later(wait, Happening::Stopped { worker, key });
            }
        }
    }

    /// How long until a stop is obeyed; never, where there is no boundary to give way at.
    fn until_it_stops(&self, worker: &WorkerId, key: &AttemptKey, at_boundary: bool) -> Option<i64> {
        let report = self.workers.get(worker)?.reports.attempts.get(key);
        match report.and_then(|report| report.since) {
            Some(since) if at_boundary => {
                let every = self.boundary?;
                Some(every - (self.now - since).0 % every)
            }
            _ => Some(100),
        }
    }

    pub(in crate::tests) fn carry_out_finish(&mut self, worker: WorkerId, key: AttemptKey) {
        let report = self.workers.get(&worker).and_then(|found| found.reports.attempts.get(&key)).cloned();
        let outcome = report.and_then(|report| report.outcome).expect("a record in the outbox");
        let error = outcome.failure.map(|class| TaskError::new(class, class.name(), "as its record says"));
        self.end(&key, error, &worker);
        self.drop_key(&worker, &key);
    }

    pub(in crate::tests) fn carry_out_requeue(
        &mut self,
        worker: WorkerId,
        key: AttemptKey,
        mut task: Task,
        error: Option<TaskError>,
        charged: bool,
        back_off: Millis,
    ) {
        task.history.push(PastAttempt {
            attempt: key.attempt,
            worker: Some(worker.clone()),
            gpu: self.gpu_key(&worker),
            started_at: None,
            ended_at: None,
            charged,
            error,
            was: None,
        });
        self.tell(Event::Requeued { task_id: key.task_id.clone() });
        self.drop_key(&worker, &key);
        self.count += 1;
        let entry =
            Entry { class: task.class(), priority: task.priority, name: format!("{}.json", key.task_id) };
        let not_before = (back_off > Millis::ZERO).then(|| self.now + back_off);
        self.files.insert(entry.clone(), (task.clone(), not_before));
        self.tell(Event::Queued { entry, task: Box::new(task), order: self.count, not_before });
    }

    pub(in crate::tests) fn gpu_key(&self, worker: &WorkerId) -> Option<String> {
        self.workers.get(worker)?.reports.gpu.as_ref().map(|gpu| gpu.index.to_string())
    }

    pub(in crate::tests) fn end(&mut self, key: &AttemptKey, error: Option<TaskError>, worker: &WorkerId) {
        let complete = error.is_none();
        let found = self.workers.get(worker).and_then(|found| found.orders.attempts.get(key));
        let batch = found.and_then(|order| order.task.batch_id.clone());
        self.note_end(key, error, Some(worker));
        self.count_batch(batch.as_ref(), complete);
    }

    pub(in crate::tests) fn note_end(
        &mut self,
        key: &AttemptKey,
        error: Option<TaskError>,
        worker: Option<&WorkerId>,
    ) {
        let complete = error.is_none();
        let gpu = worker.and_then(|worker| self.gpu_key(worker));
        let ended = Ended { complete, error, attempt: key.attempt, gpu, at: self.now };
        self.ended.entry(key.task_id.clone()).or_default().push(ended);
        self.tell(Event::Finished { task_id: key.task_id.clone(), complete });
    }

    pub(in crate::tests) fn count_batch(&mut self, batch: Option<&BatchId>, complete: bool) {
        let Some(facts) = batch.and_then(|batch| self.batches.get_mut(batch)) else { return };
        if complete {
            facts.completed += 1;
        } else {
            facts.failed += 1;
        }
        let facts = facts.clone();
        self.tell(Event::Batch(facts));
    }

    pub(in crate::tests) fn drop_key(&mut self, worker: &WorkerId, key: &AttemptKey) {
        if let Some(found) = self.workers.get_mut(worker) {
            found.orders.attempts.remove(key);
            found.reports.attempts.remove(key);
            self.report(worker);
        }
    }
}
