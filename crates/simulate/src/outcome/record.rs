//! The record of a run as it goes.

use std::collections::{BTreeMap, BTreeSet};

use model::link::{AttemptState, EngineState, HostState, Reports};
use model::{AttemptKey, BatchId, GpuUuid, Millis, Task, TaskClass, TaskId, WorkerId};
use policy::action::Action;

use super::{Span, SpanKind, Story};
use crate::arm::Arm;
use crate::people::Arrival;
use crate::sim::BEGIN;

/// What is open on a worker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Open {
    Engine(u64),
    Host(usize),
    Attempt(AttemptKey),
    /// The same on another of its GPUs, by number.
    Beside(AttemptKey, usize),
}

/// A span that is not over.
#[derive(Clone, Debug)]
struct Begun {
    gpu: Option<usize>,
    lane: u32,
    from: Millis,
    kind: SpanKind,
    label: String,
}

/// The record.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub tasks: BTreeMap<TaskId, Story>,
    pub spans: Vec<Span>,
    pub loads: u64,
    pub evictions: u64,
    pub host_loads: u64,
    pub plans: u64,
    pub faults: u64,
    pub arrivals_left: usize,
    pub last_arrival: Millis,
    open: BTreeMap<(WorkerId, Open), Begun>,
    lanes: BTreeMap<Option<usize>, BTreeSet<u32>>,
    batches: BTreeMap<BatchId, (u64, u64)>,
    untold: BTreeSet<TaskId>,
    ready: BTreeSet<WorkerId>,
}

impl Record {
    pub(crate) fn new(arrivals: &[Arrival]) -> Self {
        let last = arrivals.iter().map(|arrival| arrival.at).max().unwrap_or_default();
        Self {
            tasks: BTreeMap::new(),
            spans: Vec::new(),
            loads: 0,
            evictions: 0,
            host_loads: 0,
            plans: 0,
            faults: 0,
            arrivals_left: arrivals.len(),
            last_arrival: BEGIN + last,
            open: BTreeMap::new(),
            lanes: BTreeMap::new(),
            batches: BTreeMap::new(),
            untold: BTreeSet::new(),
            ready: BTreeSet::new(),
        }
    }

    // ------------------------------------------------------------------------------------------ tasks

    pub(crate) fn arrived(&mut self, task: &Task, now: Millis) {
        let story = Story {
            class: task.class(),
            job_type: task.job_type.clone(),
            batch: task.batch_id.clone(),
            arrived: now - BEGIN,
            began: None,
            ended: None,
            runs: 0,
            cancelled: false,
        };
        self.tasks.insert(task.task_id.clone(), story);
    }

    pub(crate) fn deleted(&mut self, task_id: &TaskId) {
        self.tasks.remove(task_id);
    }

    pub(crate) fn cancelled(&mut self, task_id: &TaskId) {
        if let Some(story) = self.tasks.get_mut(task_id) {
            story.cancelled = true;
        }
    }

    pub(crate) fn ended(&mut self, task_id: &TaskId, now: Millis, complete: bool) {
        self.untold.insert(task_id.clone());
        let Some(story) = self.tasks.get_mut(task_id) else { return };
        story.ended = Some((now - BEGIN, complete));
        if let Some(batch) = &story.batch {
            let ends = self.batches.entry(batch.clone()).or_default();
            if complete {
                ends.0 += 1;
            } else {
                ends.1 += 1;
            }
        }
    }

    /// Completed and failed items of a batch, by the folders.
    pub(crate) fn batch_ends(&self, batch: &BatchId) -> (u64, u64) {
        self.batches.get(batch).copied().unwrap_or_default()
    }

    /// Whether the present brain has ended this task and not been told that it is durable.
    pub(crate) fn is_new_end(&self, task_id: &TaskId) -> bool {
        self.untold.contains(task_id)
    }

    pub(crate) fn end_is_told(&mut self, task_id: &TaskId) {
        self.untold.remove(task_id);
    }

    /// Another brain counts the folders anew: nothing is left to be told.
    pub(crate) fn brain_is_new(&mut self) {
        self.untold.clear();
    }

    pub(crate) fn issued(&mut self, action: &Action) {
        if let Action::Engine { worker, engine: None } = action
            && self.ready.contains(worker)
        {
            self.evictions += 1;
        }
    }

    // ------------------------------------------------------------------------------------------ spans

    /// A worker's reports have changed.
    pub(crate) fn said(&mut self, now: Millis, arm: &Arm, before: &Reports) {
        let after = &arm.told;
        if before.engine != after.engine {
            self.engine_said(now, arm, before);
        }
        if before.hosts != after.hosts {
            self.hosts_said(now, arm, before);
        }
        if before.attempts == after.attempts {
            return;
        }
        for (key, report) in &after.attempts {
            let was = before.attempts.get(key).map(|report| report.state);
            if report.state == AttemptState::Running && was.is_none() {
                self.runs(now, arm, key);
            } else if report.state == AttemptState::Ended && was == Some(AttemptState::Running) {
                self.runs_no_more(now, arm, key);
            } else if report.state == AttemptState::Ended && was.is_none() {
                self.runs(now, arm, key);
                self.runs_no_more(now, arm, key);
            }
        }
    }

    fn runs(&mut self, now: Millis, arm: &Arm, key: &AttemptKey) {
        let mut kind = SpanKind::Script;
        if let Some(story) = self.tasks.get_mut(&key.task_id) {
            story.began.get_or_insert(now - BEGIN);
            story.runs += 1;
            if story.class == TaskClass::Llm {
                kind = if story.job_type == "chatbot" { SpanKind::Chat } else { SpanKind::Request };
            }
        }
        let label = key.task_id.to_string();
        for gpu in beside(arm, key) {
            self.begins(now, (arm, Some(gpu)), Open::Beside(key.clone(), gpu), kind, label.clone());
        }
        self.begins(now, (arm, arm.gpu), Open::Attempt(key.clone()), kind, label);
    }

    fn runs_no_more(&mut self, now: Millis, arm: &Arm, key: &AttemptKey) {
        self.over(now, &arm.id, &Open::Attempt(key.clone()));
        for gpu in beside(arm, key) {
            self.over(now, &arm.id, &Open::Beside(key.clone(), gpu));
        }
    }

    fn engine_said(&mut self, now: Millis, arm: &Arm, before: &Reports) {
        if let Some(engine) = &before.engine {
            self.over(now, &arm.id, &Open::Engine(engine.generation));
        }
        self.ready.remove(&arm.id);
        let Some(engine) = &arm.told.engine else { return };
        let kind = match engine.state {
            EngineState::Booting => SpanKind::LlmLoads,
            EngineState::Ready => SpanKind::LlmReady,
            EngineState::Unloading => SpanKind::LlmGoes,
            EngineState::Failed => return,
        };
        if kind == SpanKind::LlmLoads {
            self.loads += 1;
        } else if kind == SpanKind::LlmReady {
            self.ready.insert(arm.id.clone());
        }
        let (open, model) = (Open::Engine(engine.generation), engine.model.clone());
        self.begins(now, (arm, arm.gpu), open, kind, model);
    }

    fn hosts_said(&mut self, now: Millis, arm: &Arm, before: &Reports) {
        let booting = |reports: &Reports| {
            let hosts = reports.hosts.iter().enumerate();
            let booting = hosts.filter(|(_, host)| host.state == HostState::Booting);
            booting.map(|(at, host)| (at, host.script.clone())).collect::<BTreeMap<usize, String>>()
        };
        let (were, are) = (booting(before), booting(&arm.told));
        for at in were.keys().filter(|at| !are.contains_key(*at)) {
            self.over(now, &arm.id, &Open::Host(*at));
        }
        for (at, script) in are.into_iter().filter(|(at, _)| !were.contains_key(at)) {
            self.host_loads += 1;
            self.begins(now, (arm, arm.gpu), Open::Host(at), SpanKind::HostLoads, script);
        }
    }

    fn begins(
        &mut self,
        now: Millis,
        (arm, gpu): (&Arm, Option<usize>),
        open: Open,
        kind: SpanKind,
        label: String,
    ) {
        let is_ground = matches!(kind, SpanKind::LlmReady | SpanKind::LlmLoads | SpanKind::LlmGoes);
        let lane = if is_ground {
            0
        } else {
            let lanes = self.lanes.entry(gpu).or_default();
            let free = (0..).find(|lane| !lanes.contains(lane)).unwrap_or(0);
            lanes.insert(free);
            free
        };
        let begun = Begun { gpu, lane, from: now - BEGIN, kind, label };
        self.open.insert((arm.id.clone(), open), begun);
    }

    fn over(&mut self, now: Millis, worker: &WorkerId, open: &Open) {
        let Some(begun) = self.open.remove(&(worker.clone(), open.clone())) else { return };
        let is_ground = matches!(begun.kind, SpanKind::LlmReady | SpanKind::LlmLoads | SpanKind::LlmGoes);
        if !is_ground && let Some(lanes) = self.lanes.get_mut(&begun.gpu) {
            lanes.remove(&begun.lane);
        }
        let Begun { gpu, lane, from, kind, label } = begun;
        self.spans.push(Span { gpu, lane, from, to: now - BEGIN, kind, label });
    }

    /// A worker is dead: what it had is over.
    pub(crate) fn died(&mut self, now: Millis, arm: &Arm) {
        self.ready.remove(&arm.id);
        let open: Vec<Open> =
            self.open.keys().filter(|(worker, _)| *worker == arm.id).map(|(_, open)| open.clone()).collect();
        for open in open {
            self.over(now, &arm.id, &open);
        }
    }

    pub(crate) fn lost(&mut self, gpu: usize, from: Millis, to: Millis) {
        let (from, to) = (from - BEGIN, to - BEGIN);
        self.spans.push(Span {
            gpu: Some(gpu),
            lane: 0,
            from,
            to,
            kind: SpanKind::Lost,
            label: "lost".into(),
        });
    }

    /// The run is over.
    pub(crate) fn close(&mut self, now: Millis) {
        let open: Vec<(WorkerId, Open)> = self.open.keys().cloned().collect();
        for (worker, open) in open {
            self.over(now, &worker, &open);
        }
        self.spans.sort_by_key(|span| (span.gpu, span.from, span.lane, span.kind));
    }
}

/// The GPUs that an attempt has besides that of its worker, by number.
fn beside(arm: &Arm, key: &AttemptKey) -> Vec<usize> {
    let gpus = arm.attempts.get(key).map_or(&[][..], |attempt| &attempt.order.gpus);
    let number = |uuid: &GpuUuid| uuid.as_str().strip_prefix(crate::sim::GPU_PREFIX)?.parse().ok();
    gpus.iter().filter_map(number).filter(|gpu| Some(*gpu) != arm.gpu).collect()
}
