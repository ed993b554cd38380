//! What the command line asked through `brain/requests/`, and the answers that are still owed.
//!
//! A request file goes only once it is answered, so a brain that dies in between finds it again; every verb can be
//! done twice.

use std::collections::BTreeMap;

use model::reason::ReasonTold;
use model::request::{AboutTask, Answer, Request, Verb};
use model::{BatchId, Durability, FailureClass, Millis, TaskId, TaskRecord};
use policy::World;
use policy::event::Event;
use spool::clock;
use spool::find::{self, Place};
use spool::layout::Layout;
use spool::request::Requests as Counter;
use uuid::Uuid;

use crate::batches::Batches;
use crate::foresight;
use crate::queues::Queues;

/// A cancel whose tasks have not all ended.
#[derive(Debug)]
struct Owed {
    request: Uuid,
    about: Vec<AboutTask>,
    open: BTreeMap<TaskId, usize>,
    batch: Option<BatchId>,
}

/// Requests that are being worked on.
#[derive(Debug)]
pub(crate) struct Requests {
    layout: Layout,
    counter: Counter,
    owed: Vec<Owed>,
    down: Vec<Uuid>,
    /// Taken up, and not yet written into the journal.
    asked: Vec<Request>,
}

/// What a request may look at.
pub(crate) struct View<'a> {
    pub(crate) world: &'a World,
    pub(crate) queues: &'a Queues,
    pub(crate) batches: &'a mut Batches,
}

impl Requests {
    pub(crate) fn new(layout: Layout, durability: Durability) -> Self {
        let counter = Counter::new(layout.clone(), durability);
        Self { layout, counter, owed: Vec::new(), down: Vec::new(), asked: Vec::new() }
    }

    /// Takes up requests that are new; the answer is facts.
    pub(crate) fn look(&mut self, view: &mut View<'_>) -> Vec<Event> {
        let mut events = Vec::new();
        let found = match self.counter.take() {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "failed to read requests");
                return events;
            }
        };
        for (id, asked) in found {
            tracing::info!(verb = ?asked.verb, by = asked.by, ids = ?asked.ids, "asked");
            match asked.verb {
                Verb::Why => self.why(id, &asked, view),
                Verb::Eta => self.eta(id, &asked, view),
                Verb::Explain => self.explain(id, &asked, view),
                Verb::Cancel => self.cancel(id, &asked, view, &mut events),
                Verb::Pause | Verb::Resume => self.pause(id, &asked, view, &mut events),
                Verb::Down => events.push(self.down(id, &asked)),
            }
            self.asked.push(asked);
        }
        events
    }

    /// What was asked since the last call, for the journal.
    pub(crate) fn take_asked(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.asked)
    }

    /// Removes answers that nobody came for.
    pub(crate) fn sweep(&mut self) {
        if let Err(error) = self.counter.sweep(clock::wall()) {
            tracing::warn!(%error, "failed to sweep old answers");
        }
    }

    fn answer(&mut self, id: Uuid, answer: &Answer) {
        if let Err(error) = self.counter.answer(&id, answer) {
            tracing::warn!(request = %id, %error, "failed to write an answer");
        }
    }

    fn why(&mut self, id: Uuid, asked: &Request, view: &View<'_>) {
        let about: Vec<AboutTask> = asked.ids.iter().map(|name| self.why_one(name, view)).collect();
        let ok = about.iter().all(|one| one.outcome != "unknown");
        self.answer(id, &Answer { ok, about, ..Answer::default() });
    }

    fn eta(&mut self, id: Uuid, asked: &Request, view: &View<'_>) {
        let answer = if asked.ids.is_empty() {
            foresight::everything(view.world, clock::now())
        } else {
            let about: Vec<AboutTask> = asked.ids.iter().map(|name| self.eta_of(name, view)).collect();
            Answer { ok: about.iter().all(|one| one.outcome != "unknown"), about, ..Answer::default() }
        };
        self.answer(id, &answer);
    }

    fn explain(&mut self, id: Uuid, asked: &Request, view: &View<'_>) {
        let explained = foresight::explained(view.world, view.queues, asked, clock::now());
        let answer =
            explained.unwrap_or_else(|fault| Answer { message: fault.to_string(), ..Answer::default() });
        self.answer(id, &answer);
    }

    /// As `why`, with start and end; a batch by its name.
    fn eta_of(&self, name: &str, view: &View<'_>) -> AboutTask {
        let now = clock::now();
        if let Some(batch) = BatchId::new(name).ok().filter(|batch| view.batches.is_live(batch)) {
            let expected = policy::batch_eta(view.world, now, &batch);
            let expected = expected.map(|expected| expected.from_now(now));
            let outcome = if expected.as_ref().is_some_and(|expected| expected.starts_in_s <= 0.0) {
                "running"
            } else {
                "waiting"
            };
            let paused = model::Reason::BatchPaused { batch: name.to_owned() };
            let reason = view.batches.is_paused(&batch).then(|| paused.told());
            return AboutTask { task_id: None, expected, ..about(name, outcome, reason, None) };
        }
        let expected = TaskId::new(name).ok().and_then(|task| policy::eta(view.world, now, &task));
        let expected = expected.map(|expected| expected.from_now(now));
        AboutTask { expected, ..self.why_one(name, view) }
    }

    fn why_one(&self, name: &str, view: &View<'_>) -> AboutTask {
        let now = clock::now();
        let task_id = TaskId::new(name).ok();
        if let Some((reason, start)) = task_id.as_ref().and_then(|task| policy::why(view.world, now, task)) {
            let outcome = if matches!(reason, model::Reason::Running { .. }) { "running" } else { "waiting" };
            let starts_in_s = start.map(|start: Millis| (start - now).as_secs_f64().max(0.0));
            return about(name, outcome, Some(reason.told()), starts_in_s);
        }
        if let Some(reason) = view.queues.waiting_outside(name) {
            return about(name, "waiting", Some(reason.told()), None);
        }
        match task_id.and_then(|task| find::locate(&self.layout, &task).ok().flatten()) {
            Some(located) => match located.place {
                Place::Queue(_) => {
                    let text = "thousands of tasks of its priority are ahead of it".to_owned();
                    about(name, "waiting", Some(ReasonTold { code: "behind".into(), text }), None)
                }
                Place::Processing => about(name, "running", None, None),
                _ => about(name, "already_ended", None, None),
            },
            None => match policy::why_gpu(view.world, now, name) {
                Some(gpu) => AboutTask { task_id: None, gpu: Some(gpu), ..about(name, "gpu", None, None) },
                None => about(name, "unknown", None, None),
            },
        }
    }

    fn cancel(&mut self, id: Uuid, asked: &Request, view: &mut View<'_>, events: &mut Vec<Event>) {
        let mut owed = Owed { request: id, about: Vec::new(), open: BTreeMap::new(), batch: None };
        let now = clock::now();
        for name in &asked.ids {
            let named = BatchId::new(name.as_str()).ok();
            let is_over = named.as_ref().is_some_and(|batch| view.batches.is_over(batch));
            let as_batch = named.filter(|batch| view.batches.is_live(batch));
            let tasks = match (&as_batch, TaskId::new(name.as_str())) {
                (Some(batch), _) => view.batches.cancel(batch),
                (None, Ok(task)) => vec![task],
                (None, Err(_)) => Vec::new(),
            };
            if tasks.is_empty() {
                // All items of a live batch may have ended a moment ago.
                let outcome = if as_batch.is_some() { "already_ended" } else { "unknown" };
                owed.about.push(about(name, outcome, None, None));
            }
            for task in tasks {
                let told = policy::why(view.world, now, &task);
                let known = told.is_some();
                if known {
                    events.push(Event::CancelAsked { task_id: task.clone() });
                }
                if known || as_batch.is_some() {
                    let ran = matches!(told, Some((model::Reason::Running { .. }, _)));
                    owed.open.insert(task.clone(), owed.about.len());
                    owed.about.push(AboutTask { ran, ..about(task.as_str(), "stopping", None, None) });
                } else {
                    let outcome = match self.where_is(&task) {
                        "unknown" if is_over => "already_ended",
                        outcome => outcome,
                    };
                    owed.about.push(about(name, outcome, None, None));
                }
            }
            owed.batch = as_batch.or(owed.batch);
        }
        self.owed.push(owed);
        self.settle();
    }

    /// Batches alone can be paused: a task that waits is cancelled and submitted again instead.
    fn pause(&mut self, id: Uuid, asked: &Request, view: &mut View<'_>, events: &mut Vec<Event>) {
        let paused = asked.verb == Verb::Pause;
        let mut told = Vec::new();
        for name in &asked.ids {
            let batch = BatchId::new(name.as_str()).ok();
            let outcome = match batch {
                Some(batch) if view.batches.is_live(&batch) => {
                    let (outcome, facts) = view.batches.pause(&batch, paused);
                    events.extend(facts);
                    outcome
                }
                Some(batch) if view.batches.is_over(&batch) => "already_ended",
                _ => match TaskId::new(name.as_str()).map(|task| self.where_is(&task)) {
                    Ok("already_ended" | "not_yet_read") => "not_a_batch",
                    _ => "unknown",
                },
            };
            told.push(about(name, outcome, None, None));
        }
        let wanted = if paused { ["paused", "already_paused"] } else { ["resumed", "not_paused"] };
        let ok = told.iter().all(|one| wanted.contains(&one.outcome.as_str()));
        self.answer(id, &Answer { ok, about: told, ..Answer::default() });
    }

    fn where_is(&self, task: &TaskId) -> &'static str {
        match find::locate(&self.layout, task).ok().flatten().map(|located| located.place) {
            Some(Place::Complete | Place::Failed) => "already_ended",
            Some(Place::Queue(_) | Place::Processing) => "not_yet_read",
            _ => "unknown",
        }
    }

    fn down(&mut self, id: Uuid, asked: &Request) -> Event {
        self.down.push(id);
        let timeout = Millis::from_secs_f64(asked.timeout_s.unwrap_or(60.0));
        Event::DownAsked { deadline: clock::now() + timeout, now: asked.now }
    }

    /// A task has ended: cancels that waited for it move on.
    pub(crate) fn ended(&mut self, task: &TaskId, record: &TaskRecord) {
        let cancelled = record.error.as_ref().is_some_and(|error| error.class == FailureClass::Cancelled);
        let outcome = if cancelled { "cancelled" } else { "already_ended" };
        for owed in &mut self.owed {
            if let Some(place) = owed.open.remove(task)
                && let Some(one) = owed.about.get_mut(place)
            {
                outcome.clone_into(&mut one.outcome);
            }
        }
        self.settle();
    }

    fn settle(&mut self) {
        let (done, open) = std::mem::take(&mut self.owed).into_iter().partition(|owed| owed.open.is_empty());
        self.owed = open;
        let done: Vec<Owed> = done;
        for owed in done {
            let ok = owed.about.iter().all(|one| one.outcome == "cancelled");
            let cancelled = owed.about.iter().filter(|one| one.outcome == "cancelled").count();
            let message = format!("{cancelled} of {} cancelled", owed.about.len());
            self.answer(owed.request, &Answer { ok, about: owed.about, message, ..Answer::default() });
        }
    }

    /// The machine is free: those who asked for it are told.
    pub(crate) fn freed(&mut self) {
        for id in std::mem::take(&mut self.down) {
            let message = "the machine is free: nothing runs, no model is loaded".to_owned();
            self.answer(id, &Answer { ok: true, message, ..Answer::default() });
        }
    }
}

fn about(id: &str, outcome: &str, reason: Option<ReasonTold>, starts_in_s: Option<f64>) -> AboutTask {
    AboutTask {
        id: id.to_owned(),
        task_id: TaskId::new(id).ok(),
        outcome: outcome.to_owned(),
        reason,
        starts_in_s,
        ..AboutTask::default()
    }
}
