//! Virtual workers: they boot, run, stop and report at virtual times.

use super::*;

impl Rig {
    pub(in crate::tests) fn report(&mut self, worker: &WorkerId) {
        if let Some(found) = self.workers.get(worker).filter(|found| !found.dead) {
            let reports = Box::new(found.reports.clone());
            self.tell(Event::Reported { worker: worker.clone(), reports });
        }
    }

    pub(super) fn let_happen(&mut self, happening: Happening) {
        match happening {
            Happening::Born { launch, gpu } => drop(self.bear(Some(launch), gpu)),
            Happening::EngineReady { worker, generation } => {
                let boot = self.times.boot;
                let fails = self.boots_to_fail > 0;
                let now = self.now;
                let Some(engine) = self.engine_mut(&worker, generation, EngineState::Booting) else { return };
                engine.since = now;
                if fails {
                    engine.state = EngineState::Failed;
                    engine.error = Some("the model file is broken".into());
                    self.boots_to_fail -= 1;
                } else {
                    engine.state = EngineState::Ready;
                    engine.boot_ms = u64::try_from(boot).ok();
                }
                self.report(&worker);
            }
            Happening::EngineGone { worker, generation } => {
                if self.engine_mut(&worker, generation, EngineState::Unloading).is_some() {
                    if let Some(found) = self.workers.get_mut(&worker) {
                        found.reports.engine = None;
                    }
                    self.report(&worker);
                }
            }
            Happening::HostLoaded { worker, key } => self.host_loaded(worker, key),
            Happening::HostGone { worker } => {
                let Some(found) = self.workers.get_mut(&worker) else { return };
                let orders = &found.orders.hosts;
                let mut left: Vec<u32> = orders.iter().map(|order| order.count).collect();
                found.reports.hosts.retain(|host| {
                    let mine = |order: &HostOrder| order.script == host.script && order.model == host.model;
                    let at = orders.iter().position(mine).filter(|at| left[*at] > 0);
                    if let Some(at) = at {
                        left[at] -= 1;
                    }
                    at.is_some() || host.state == HostState::Busy
                });
                self.report(&worker);
            }
            Happening::Begin { worker, key } => self.begin(worker, key),
            Happening::End { worker, key } => self.end_attempt(&worker, &key, None),
            Happening::Stopped { worker, key } => {
                let class = match self.order(&worker, &key).and_then(|order| order.why) {
                    Some(StopWhy::Timeout) => FailureClass::Timeout,
                    _ => FailureClass::Cancelled,
                };
                self.end_attempt(&worker, &key, Some(class));
            }
            // Nobody leaves with a record in his outbox.
            Happening::Left { worker } if self.holds_records(&worker) => {
                self.later(100, Happening::Left { worker });
            }
            Happening::Left { worker } => {
                if let Some(found) = self.workers.get_mut(&worker) {
                    found.reports.engine = None;
                    found.reports.hosts.clear();
                    found.reports.phase = Phase::Left;
                    self.report(&worker);
                    self.workers.remove(&worker);
                    self.tell(Event::WorkerDied { worker, with_machine: false });
                }
            }
        }
    }

    fn holds_records(&self, worker: &WorkerId) -> bool {
        self.workers.get(worker).is_some_and(|found| !found.orders.attempts.is_empty())
    }

    pub(in crate::tests) fn order(&self, worker: &WorkerId, key: &AttemptKey) -> Option<&AttemptOrder> {
        self.workers.get(worker)?.orders.attempts.get(key)
    }

    pub(in crate::tests) fn engine_mut(
        &mut self,
        worker: &WorkerId,
        generation: u64,
        state: EngineState,
    ) -> Option<&mut EngineReport> {
        let engine = self.workers.get_mut(worker)?.reports.engine.as_mut()?;
        (engine.generation == generation && engine.state == state).then_some(engine)
    }

    /// A worker is born; by hand where no launch is named.
    pub(in crate::tests) fn bear(&mut self, launch: Option<String>, gpu: Option<GpuUuid>) -> WorkerId {
        self.born += 1;
        let worker = WorkerId::new(format!("worker-{}", self.born)).expect("legal");
        let identity = gpu.as_ref().and_then(|uuid| self.gpus.iter().find(|facts| facts.uuid == *uuid));
        let reports = Reports {
            worker: Some(WorkerIdentity {
                uuid: worker.clone(),
                launch,
                pid: 100 + self.born,
                starttime: 1,
                boot_id: "boot".into(),
                exe: "worker".into(),
            }),
            gpu: identity.map(|facts| GpuIdentity {
                uuid: facts.uuid.clone(),
                index: facts.index,
                name: facts.name.clone(),
                vram_mib: facts.total_mib,
            }),
            can: if gpu.is_some() { self.can.clone() } else { Can::default() },
            ..Reports::default()
        };
        let virtual_worker = VirtualWorker {
            orders: Orders::default(),
            reports: reports.clone(),
            loads: BTreeMap::new(),
            line: Vec::new(),
            dead: false,
        };
        self.workers.insert(worker.clone(), virtual_worker);
        self.tell(Event::WorkerBorn { worker: worker.clone(), reports: Box::new(reports), orders: None });
        worker
    }

    pub(in crate::tests) fn host_loaded(&mut self, worker: WorkerId, key: AttemptKey) {
        let Some(order) = self.order(&worker, &key) else { return };
        let model::task::Work::Script(work) = &order.task.work else { return };
        let HostKey { script, model, .. } = place::host_key(&self.config, work);
        let boot_ms = u64::try_from(self.times.host_load).ok();
        if let Some(found) = self.workers.get_mut(&worker) {
            let loads = found.loads.entry((script.to_string(), model.clone())).or_default();
            *loads += 1;
            let host = HostReport {
                script: script.to_string(),
                model,
                state: HostState::Idle,
                pid: Some(
                    9_000 + self.born * 100 + *loads + u32::try_from(found.reports.hosts.len()).expect("few"),
                ),
                loads: *loads,
                boot_ms,
            };
            found.reports.hosts.push(host);
        }
        self.report(&worker);
        self.shed(&worker);
        self.begin(worker, key);
    }

    /// The warm host that runs a task.
    fn host_of(&self, task: &Task) -> Option<HostKey> {
        let model::task::Work::Script(work) = &task.work else { return None };
        Some(place::host_key(&self.config, work)).filter(|host| host.warm)
    }

    /// Whether a worker has a host of this key, or loads one.
    fn loads_or_has(&self, worker: &WorkerId, host: &HostKey) -> bool {
        let has = self.workers.get(worker).is_some_and(|found| {
            found.reports.hosts.iter().any(|report| host.is(&report.script, report.model.as_deref()))
        });
        let loads = |happening: &Happening| match happening {
            Happening::HostLoaded { worker: at, key } if at == worker => {
                let order = self.order(at, key);
                order.and_then(|order| self.host_of(&order.task)).as_ref() == Some(host)
            }
            _ => false,
        };
        has || self.agenda.values().any(loads)
    }

    pub(in crate::tests) fn begin(&mut self, worker: WorkerId, key: AttemptKey) {
        let now = self.now;
        let Some(task) =
            self.order(&worker, &key).filter(|order| order.wish == Wish::Run).map(|o| o.task.clone())
        else {
            return;
        };
        let host = self.host_of(&task);
        let loads_or_has = host.as_ref().is_some_and(|host| self.loads_or_has(&worker, host));
        let Some(found) = self.workers.get_mut(&worker) else { return };
        // One task at a time on a host, as a real one works off what it was given ahead.
        if let Some(host) = host {
            let free = |report: &&mut HostReport| {
                report.state == HostState::Idle && host.is(&report.script, report.model.as_deref())
            };
            match found.reports.hosts.iter_mut().find(free) {
                Some(report) => report.state = HostState::Busy,
                None if loads_or_has => return found.line.push(key),
                None => return self.later(self.times.host_load, Happening::HostLoaded { worker, key }),
            }
        }
        let report = AttemptReport {
            task_id: key.task_id.clone(),
            attempt: key.attempt,
            state: AttemptState::Running,
            since: Some(now),
            progress: Some(0.0),
            media_s: None,
            yields: self.boundary.is_some() && task.class() == TaskClass::Script,
            outcome: None,
        };
        found.reports.attempts.insert(key.clone(), report);
        self.report(&worker);
        let takes = self.takes(&task) - done(&task);
        if !self.hang.iter().any(|name| key.task_id.as_str() == name) {
            self.later(takes, Happening::End { worker, key });
        }
    }

    /// Whoever waits for a host looks whether there is one now. Only after something has happened: who looked every
    /// millisecond would wake the brain as often, which hides an instant that it forgot to wake at, and takes for ever.
    pub(super) fn call_next(&mut self) {
        let waits = self.workers.iter_mut().filter(|(_, found)| !found.line.is_empty());
        let lines: Vec<_> =
            waits.map(|(worker, found)| (worker.clone(), std::mem::take(&mut found.line))).collect();
        for (worker, line) in lines {
            for key in line {
                self.begin(worker.clone(), key);
            }
        }
    }

    /// How long a task takes from its beginning.
    fn takes(&self, task: &Task) -> i64 {
        match (task.class(), task.media_s) {
            (TaskClass::Llm, _) => self.times.llm,
            (TaskClass::Script, Some(media_s)) => Millis::from_secs_f64(media_s / self.times.speed).0,
            (TaskClass::Script, None) => self.times.script,
        }
    }

    /// The state a script leaves: how many milliseconds of it are done, at its last boundary.
    fn checkpoint(&self, task: &Task, ran: Millis) -> Option<i64> {
        let every = self.boundary.filter(|_| task.class() == TaskClass::Script)?;
        let done = done(task) + ran.0 / every * every;
        assert!(done <= self.takes(task), "{} did more than there was to do", task.task_id);
        Some(done).filter(|done| *done > 0)
    }

    pub(in crate::tests) fn end_attempt(
        &mut self,
        worker: &WorkerId,
        key: &AttemptKey,
        stopped: Option<FailureClass>,
    ) {
        let now = self.now;
        let planned = match stopped {
            None => self.outcomes.get_mut(key.task_id.as_str()).and_then(VecDeque::pop_front).flatten(),
            stopped => stopped,
        };
        let Some(task) = self.order(worker, key).map(|order| order.task.clone()) else { return };
        let media_s = task.media_s;
        let since = self.world.report_of(worker, key).and_then(|report| report.since);
        let runs = self.world.report_of(worker, key).is_some_and(|report| report.outcome.is_none());
        let checkpoint = since.filter(|_| runs && planned.is_some());
        let checkpoint = checkpoint.and_then(|since| self.checkpoint(&task, now - since));
        let host = self.host_of(&task);
        let Some(found) = self.workers.get_mut(worker) else { return };
        let report = found.reports.attempts.entry(key.clone()).or_insert_with(|| AttemptReport {
            task_id: key.task_id.clone(),
            attempt: key.attempt,
            state: AttemptState::NeverStarted,
            since: None,
            progress: None,
            media_s: None,
            yields: false,
            outcome: None,
        });
        if report.state == AttemptState::Running {
            report.state = AttemptState::Ended;
            let busy = |report: &&mut HostReport| {
                report.state == HostState::Busy
                    && host.as_ref().is_some_and(|host| host.is(&report.script, report.model.as_deref()))
            };
            if let Some(host) = found.reports.hosts.iter_mut().find(busy) {
                host.state = HostState::Idle;
            }
            let since = report.since.unwrap_or(now);
            report.outcome = Some(Outcome {
                failure: planned,
                code: (self.refuses && planned == Some(FailureClass::Crash)).then(|| "http_503".into()),
                message: None,
                run_ms: u64::try_from((now - since).0).expect("time goes on"),
                media_s,
                checkpoint: checkpoint.map(Into::into),
                stopped: stopped.is_some(),
            });
        }
        self.report(worker);
        self.shed(worker);
    }

    /// What may not stay goes as soon as it has nothing to do.
    fn shed(&mut self, worker: &WorkerId) {
        if self.workers.get(worker).is_some_and(|found| !found.reports.hosts.is_empty()) {
            self.later(200, Happening::HostGone { worker: worker.clone() });
        }
    }
}

/// How many milliseconds of a task earlier attempts have done.
fn done(task: &Task) -> i64 {
    task.checkpoint.as_ref().map_or(0, |state| state.as_i64().expect("milliseconds"))
}
