//! Actions that could not be carried out: the world is as before, and they are tried again after a moment.

use model::{AttemptKey, Entry, Millis, WorkerId};

use crate::action::Action;
use crate::world::World;

/// How long something that could not be carried out rests: a full disk should not turn the loop into a spin.
pub(crate) const AGAIN_AFTER: Millis = Millis::from_secs(1);

impl World {
    pub(super) fn undone(&mut self, at: Millis, action: Action) {
        let again_at = Some(at + AGAIN_AFTER);
        match action {
            Action::Launch { gpu } => {
                self.launching.entry(gpu).or_default().failed(
                    at,
                    None,
                    Some("it could not be started".into()),
                );
            }
            Action::Start { entry, .. } => self.start_undone(at, entry),
            Action::Engine { worker, .. } => {
                self.engine_undone(&worker);
                if let Some(found) = self.workers.get_mut(&worker) {
                    found.again_at = again_at;
                }
                self.refresh_worker(at, &worker);
            }
            Action::Hosts { worker, .. } => {
                if let Some(found) = self.workers.get_mut(&worker) {
                    found.hosts = std::mem::take(&mut found.hosts_before);
                    found.again_at = again_at;
                }
                self.refresh_worker(at, &worker);
            }
            Action::Leave { worker } => {
                if let Some(found) = self.workers.get_mut(&worker) {
                    found.leave = false;
                    found.again_at = again_at;
                }
                self.refresh_worker(at, &worker);
            }
            Action::Stop { key, .. } => self.with_unit(&key, |unit| {
                unit.stop = None;
                unit.again_at = again_at;
            }),
            Action::Finish { key, .. } | Action::Requeue { key, .. } | Action::Fail { key, .. } => {
                self.with_unit(&key, |unit| {
                    unit.closing = None;
                    unit.again_at = again_at;
                });
            }
            Action::FailQueued { entry, .. } => {
                if let Some(mut item) = self.failing.remove(&entry) {
                    item.not_before = item.not_before.max(again_at);
                    self.queue.insert(entry, item, at);
                }
            }
            // They are a courtesy; none is repeated.
            Action::ShowRunning { .. }
            | Action::Reserve { .. }
            | Action::Keep { .. }
            | Action::ReadAhead { .. }
            | Action::Say(_) => {}
        }
    }

    fn start_undone(&mut self, at: Millis, entry: Entry) {
        let Some(claim) = self.take_claim(&entry) else { return self.anomaly("undone_unknown_start") };
        self.take_turn_back(&claim.task);
        let mut item = claim.queued;
        item.cancelled |= claim.cancelled;
        item.not_before = Some(at + AGAIN_AFTER);
        self.queue.insert(entry, item, at);
        self.refresh_worker(at, &claim.worker);
        self.bury(&claim.worker);
    }

    /// An LLM order came to nothing: what it was given for still stands, as a GPU that is to get its LLM back.
    fn engine_undone(&mut self, id: &WorkerId) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        let Some(before) = worker.before.take() else { return self.anomaly("undone_unknown_llm_order") };
        worker.engine = before.engine;
        worker.engine_at = before.engine_at;
        let gpu = worker.gpu.clone();
        if let Some(gpu) = gpu.and_then(|uuid| self.gpus.get_mut(&uuid)) {
            gpu.tenure = before.tenure;
            gpu.reload = before.reload;
        }
        self.kept_gpus = self.kept_gpus.take().or(before.kept);
    }

    fn with_unit(&mut self, key: &AttemptKey, change: impl FnOnce(&mut crate::unit::Unit)) {
        match self.units.get_mut(key) {
            Some(unit) => change(unit),
            None => self.anomaly("undone_for_unknown_attempt"),
        }
    }
}
