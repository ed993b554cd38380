//! What is looked at when something is issued: starts, orders for LLMs, stops.

use model::link::EngineState;
use std::collections::BTreeSet;

use model::task::GpuRequirement;
use model::{AttemptKey, GpuUuid, Millis, Task, TaskClass, WorkerId};
use policy::action::Action;

use super::{Checks, Live, Seen};

impl Checks {
    pub(crate) fn issued(&mut self, at: Millis, action: &Action) {
        match action {
            Action::Start { worker, task, gpus, .. } => self.starts(at, worker, task, gpus),
            Action::Engine { worker, engine } => {
                self.engine_changes(at, worker);
                if let Some(order) = engine {
                    self.llm_has_its_gpus(at, worker, &order.beside);
                }
                self.workers.entry(worker.clone()).or_default().ordered.clone_from(engine);
            }
            Action::Leave { worker } => self.workers.entry(worker.clone()).or_default().leaves = true,
            Action::Stop { worker, key, why } => {
                if let Some(live) = self.workers.get_mut(worker).and_then(|seen| seen.live.get_mut(key)) {
                    live.stopped = Some(*why);
                }
            }
            _ => {}
        }
    }

    fn starts(&mut self, at: Millis, worker: &WorkerId, task: &Task, gpus: &[GpuUuid]) {
        let key = AttemptKey { task_id: task.task_id.clone(), attempt: task.attempt };
        let Some(known) = self.tasks.get(&task.task_id).cloned() else {
            // Its file was deleted a moment ago: the claim will find nothing.
            return;
        };
        let mut complain =
            |law: &str, what: String| self.broken.push(super::Broken { at, law: law.into(), what });
        match known.waits {
            None => complain("only what waits starts", format!("{key} started and was not known to wait")),
            Some((_, Some(time))) if time > at => {
                complain("back-off is kept", format!("{key} started before {time:?}"));
            }
            Some((since, not_before)) => {
                let since = not_before.unwrap_or(since).max(since);
                self.longest_wait = self.longest_wait.max(at - since);
                if at - since > self.bound {
                    complain("waiting is bounded", format!("{key} waited {}", at - since));
                }
            }
        }
        if task.charged > task.max_attempts || known.charged >= known.most {
            let told = (task.charged, known.charged, known.most);
            complain("charges are bounded", format!("{key} started with charges {told:?}"));
        }
        let twin = self.workers.iter().find_map(|(id, seen)| {
            seen.live.keys().find(|live| live.task_id == key.task_id).map(|live| (id.clone(), live.clone()))
        });
        if let Some((id, live)) = twin {
            complain("one live attempt a task", format!("{key} started on {worker} while {live} is on {id}"));
        }
        if self.used.contains(&key) {
            complain("numbers of attempts are used once", format!("{key} started twice"));
        }
        if known.class == TaskClass::Llm {
            self.llm_starts(at, worker, &key, known.chatbot, known.model.as_deref());
        }
        self.has_its_gpus(at, worker, task, gpus);
        self.used.insert(key.clone());
        self.waits_no_more(&task.task_id);
        let live = Live { class: known.class, stopped: None, over: false, gpus: gpus.to_vec() };
        self.workers.entry(worker.clone()).or_default().live.insert(key, live);
        if self.started_at != at {
            self.started_now.clear();
            self.started_at = at;
        }
        self.started_now.push((worker.clone(), task.task_id.clone()));
    }

    /// A task gets as many GPUs as it needs, and one that has several has them for itself.
    fn has_its_gpus(&mut self, at: Millis, worker: &WorkerId, task: &Task, gpus: &[GpuUuid]) {
        let Some(own) = self.workers.get(worker).and_then(|seen| seen.gpu.clone()) else { return };
        let needs = if task.gpu == GpuRequirement::None { 1 } else { task.needs.gpus.max(1) };
        let distinct: BTreeSet<&GpuUuid> = gpus.iter().collect();
        let given = if gpus.is_empty() { 1 } else { distinct.len() };
        if given != needs as usize || (!gpus.is_empty() && gpus.first() != Some(&own)) {
            let what = format!("{} needs {needs} GPUs and got {gpus:?} on {worker} of {own}", task.task_id);
            self.broken(at, "a task gets as many GPUs as it needs", what);
        }
        let mine = |gpu: &GpuUuid| *gpu == own || gpus.contains(gpu);
        let is_wide = gpus.len() > 1;
        let mut beside = None;
        for seen in self.workers.values() {
            let is_here = seen.gpu.as_ref().is_some_and(&mine);
            if is_wide && is_here && seen.ordered.is_some() {
                beside = Some(format!("an LLM on {:?}", seen.gpu));
            }
            let live = seen.live.iter().filter(|(_, live)| !live.over);
            let mut shared = live.filter(|(_, live)| {
                let over_mine = live.gpus.iter().any(&mine);
                if is_wide { is_here || over_mine } else { live.gpus.len() > 1 && over_mine }
            });
            beside = beside.or_else(|| shared.next().map(|(key, _)| key.to_string()));
        }
        let is_there = |seen: &Seen| !seen.leaves || seen.told.is_some();
        let is_spread_here =
            |seen: &Seen| is_there(seen) && seen.ordered.iter().flat_map(|order| &order.beside).any(&mine);
        if !self.colocates
            && let Some(id) = self.workers.iter().find_map(|(id, seen)| is_spread_here(seen).then_some(id))
        {
            beside = beside.or_else(|| Some(format!("the LLM of {id}")));
        }
        if let Some(other) = beside {
            let what = format!("{} starts on {own} {gpus:?} beside {other}", task.task_id);
            self.broken(at, "a task of several GPUs has them for itself", what);
        }
    }

    /// On the GPUs that an LLM is spread to nothing runs and nothing else is loaded when it is ordered.
    fn llm_has_its_gpus(&mut self, at: Millis, worker: &WorkerId, beside: &[GpuUuid]) {
        let is_there = |seen: &Seen| seen.gpu.as_ref().is_some_and(|gpu| beside.contains(gpu));
        let others = self.workers.iter().filter(|(id, seen)| *id != worker && is_there(seen));
        let taken = others.clone().find_map(|(id, seen)| {
            let runs = seen.live.values().any(|live| !live.over);
            (runs || seen.ordered.is_some()).then(|| id.clone())
        });
        let spread =
            |seen: &Seen| seen.ordered.iter().flat_map(|order| &order.beside).any(|gpu| beside.contains(gpu));
        let twice =
            self.workers.iter().find(|(id, seen)| *id != worker && spread(seen)).map(|(id, _)| id.clone());
        if let Some(other) = taken.or(twice) {
            let what = format!("an LLM is spread from {worker} to {beside:?}, which {other} has");
            self.broken(at, "an LLM of several GPUs has them for itself", what);
        }
    }

    fn llm_starts(
        &mut self,
        at: Millis,
        worker: &WorkerId,
        key: &AttemptKey,
        chatbot: bool,
        model: Option<&str>,
    ) {
        let seen = self.workers.entry(worker.clone()).or_default();
        let ready = match (&seen.ordered, seen.told) {
            (Some(order), Some((generation, EngineState::Ready))) => order.generation == generation,
            _ => false,
        };
        let told = (seen.ordered.clone(), seen.told);
        let right = seen.ordered.as_ref().is_some_and(|order| model.is_none_or(|model| order.model == model));
        let busy = seen.live.values().filter(|live| live.class == TaskClass::Llm && !live.over).count();
        let slots = seen.ordered.as_ref().map_or(1, |order| order.parallel.max(1) as usize);
        if !ready {
            self.broken(
                at,
                "requests go to a ready LLM",
                format!("{key} started on {worker}, which has {told:?}"),
            );
        } else if !right {
            self.broken(at, "a task gets its model", format!("{key} wants {model:?} and got {told:?}"));
        } else if busy >= slots {
            self.broken(
                at,
                "an LLM has so many slots",
                format!("{key} is one too many on {worker}: {busy} of {slots}"),
            );
        }
        let admitted = chatbot && self.admits_chat;
        if !admitted && let Some(batch) = self.exclusive(at) {
            let what = format!("{key} started while {batch} has the GPUs");
            self.broken(at, "an exclusive batch holds LLM tasks back", what);
        }
    }

    /// No request is cut: what runs has ended, or was told to stop, before its LLM goes.
    fn engine_changes(&mut self, at: Millis, worker: &WorkerId) {
        let Some(seen) = self.workers.get(worker) else { return };
        let ready = matches!(seen.told, Some((_, EngineState::Ready)));
        let cut = seen
            .live
            .iter()
            .find(|(_, live)| live.class == TaskClass::Llm && !live.over && live.stopped.is_none());
        if let Some((key, _)) = cut.filter(|_| ready) {
            let what = format!("{worker} is to change its LLM while it has {key}");
            self.broken(at, "no LLM goes under a request", what);
        }
    }

    /// What could not be carried out is as it was.
    pub(crate) fn undone(&mut self, at: Millis, action: &Action, before: Option<model::link::EngineOrder>) {
        match action {
            Action::Start { worker, task, .. } => {
                let key = AttemptKey { task_id: task.task_id.clone(), attempt: task.attempt };
                if let Some(seen) = self.workers.get_mut(worker) {
                    seen.live.remove(&key);
                }
                self.used.remove(&key);
                self.waits(at, &task.task_id, None);
            }
            Action::Engine { worker, .. } => {
                if let Some(seen) = self.workers.get_mut(worker) {
                    seen.ordered = before;
                }
            }
            Action::Leave { worker } => {
                if let Some(seen) = self.workers.get_mut(worker) {
                    seen.leaves = false;
                }
            }
            Action::Stop { worker, key, .. } => {
                if let Some(live) = self.workers.get_mut(worker).and_then(|seen| seen.live.get_mut(key)) {
                    live.stopped = None;
                }
            }
            _ => {}
        }
    }
}
