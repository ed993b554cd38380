//! The loop: drain, decide, act, publish, sleep.

use std::collections::BTreeSet;
use std::time::Duration;

use model::link::{Orders, Phase, Reports};
use model::{AttemptKey, Config, Durability, Entry, Millis, WorkerId};
use policy::action::Action;
use policy::event::Event;
use policy::{Rest, World};
use spool::clock;
use spool::journal::Journal;
use spool::layout::Layout;
use spool::lock::BrainLock;
use spool::watch::{Hint, Watch};

use serde_json::json;

use crate::arms::News;
use crate::audit;
use crate::batches::Batches;
use crate::ending::Ending;
use crate::flush::Flushed;
use crate::hands::Hands;
use crate::hour::HourHand;
use crate::inbox::{Inbox, Note, Signal};
use crate::publish::Publisher;
use crate::requests::{Requests, View};

/// Plans carried out in one turn before facts are drained again: a plan that never ends is a mistake in the mind,
/// and must not keep the loop from its signals.
const PLANS_PER_TURN: usize = 64;
/// How long the mind is left alone after an action could not be carried out.
const PAUSE_AFTER_UNDONE: Millis = Millis(200);
/// When a dead process's lock is tried again.
const LOCK_AGAIN: Duration = Duration::from_secs(1);
/// How long a freed machine's last worker folders may take to be put aside.
const BURIAL_MAX: Millis = Millis(3_000);
/// How often the brain makes sure that the lock is still its own.
const LOCK_CHECK_EVERY: Millis = Millis(5_000);

/// The brain, put together.
pub(crate) struct Body {
    pub(crate) config: Config,
    pub(crate) layout: Layout,
    pub(crate) world: World,
    pub(crate) hands: Hands,
    pub(crate) batches: Batches,
    pub(crate) requests: Requests,
    pub(crate) publisher: Publisher,
    pub(crate) journal: Journal,
    pub(crate) inbox: Inbox,
    pub(crate) watch: Watch,
    pub(crate) lock: BrainLock,
    pub(crate) until_idle: bool,
    pub(crate) clocks: Clocks,
}

/// Instants and levels the loop itself minds.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    /// The instant the mind named.
    pub(crate) wake_at: Option<Millis>,
    /// Not to think before.
    pub(crate) paused_until: Millis,
    /// Next look at everything, event or not.
    pub(crate) rescan_at: Millis,
    /// The hour that the mind was told.
    pub(crate) hour: HourHand,
    /// Next look at the lock.
    pub(crate) lock_check_at: Millis,
    /// When the machine was found to be free.
    pub(crate) down_since: Option<Millis>,
    /// Told to leave.
    pub(crate) leaving: bool,
    /// Tasks that were left when everything else was done.
    pub(crate) held: Vec<model::TaskId>,
    /// Asked to end once idle, and idle.
    pub(crate) idle_reached: bool,
    /// Why changes could not be made durable.
    pub(crate) storage_fault: Option<String>,
    /// The lock is not ours any more.
    pub(crate) lock_lost: bool,
}

impl Body {
    /// Runs until there is an ending.
    pub(crate) async fn run(mut self) -> Ending {
        loop {
            self.turn();
            if let Some(ending) = self.ending() {
                self.publisher.last(&self.world, clock::now(), self.hands.queues.notices());
                if matches!(ending, Ending::Freed | Ending::FreedWithHeld(_)) {
                    self.requests.freed();
                }
                return ending;
            }
            self.sleep().await;
        }
    }

    fn turn(&mut self) {
        let (notes, hints) = self.inbox.take();
        for note in notes {
            self.note(note);
        }
        for hint in coalesced(hints) {
            self.hint(hint);
        }
        self.keep_time();
        self.look_at_queues();
        self.work_on_batches();
        self.think();
        self.flush();
        self.hands.arms.bury_settled();
        self.mind_the_end();
        self.publisher.publish(&self.world, clock::now(), self.hands.queues.notices());
    }

    fn apply(&mut self, event: Event) {
        let started = match &event {
            Event::Started { task_id, worker, attempt, .. } => {
                self.batches.started(task_id);
                let key = AttemptKey { task_id: task_id.clone(), attempt: *attempt };
                Some((key, worker.clone()))
            }
            Event::Batch(facts) if facts.completed + facts.failed == 0 => {
                self.write_down("batch", &audit::batch(facts));
                None
            }
            _ => None,
        };
        self.world.apply(clock::now(), event);
        if let Some((key, worker)) = started {
            let AttemptKey { task_id, attempt } = &key;
            let task = self.world.attempt(&key).filter(|_| *attempt == 1).map(|view| audit::task(view.task));
            let about = json!({"task_id": task_id, "attempt": attempt, "worker": worker, "task": task});
            self.write_down("start", &about);
        }
        self.publisher.touch();
    }

    /// A line for the audit; nothing depends on it.
    fn write_down(&mut self, what: &str, about: &serde_json::Value) {
        if let Err(error) = self.journal.append(clock::wall(), what, about) {
            tracing::warn!(%error, "failed to write the journal");
        }
    }

    fn apply_all(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.apply(event);
        }
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::Inventory(inventory) => self.apply(Event::Inventory(inventory)),
            Note::Readings(readings) => self.apply_all(readings.into_iter().map(Event::Read)),
            Note::Ram(ram) => self.apply(Event::Ram(ram)),
            Note::Blind(error) => tracing::warn!(error, "the GPUs could not be read; what was known stands"),
            Note::ProcessGone(worker) => self.process_gone(&worker),
            Note::LaunchExited { launch, status } => {
                self.apply(Event::LaunchEnded { launch, status, message: None });
            }
            Note::Buried(worker, outcome) => self.buried(&worker, outcome),
            Note::Flushed(flushed) => self.flushed(flushed),
            Note::Staged(key, staged) => self.hands.place_running(&key, &staged),
            Note::Told(task_id) => self.hands.tell.told(&task_id),
            Note::Signal(Signal::Leave) => self.clocks.leaving = true,
            Note::Signal(Signal::Down) => {
                // The first frees the machine in its own time, the second at once.
                let again = self.world.is_going_down();
                let timeout = Millis::from_secs_f64(self.config.shutdown.timeout_s);
                self.apply(Event::DownAsked { deadline: clock::now() + timeout, now: again });
            }
        }
    }

    fn hint(&mut self, hint: Hint) {
        match hint {
            Hint::Queue(class, priority) => self.hands.queues.folder_touched(class, priority),
            Hint::Created(entry) => self.hands.queues.appeared(entry, false),
            Hint::Closed(entry) => self.hands.queues.appeared(entry, true),
            Hint::Gone(entry) => {
                let event = self.hands.queues.gone(&entry);
                self.apply_all(event);
            }
            Hint::Workers => self.look_for_workers(),
            Hint::Worker(worker) => self.read_worker(&worker),
            Hint::Requests => self.look_at_requests(),
            Hint::Batches => {
                let events = self.batches.look();
                self.apply_all(events);
            }
            Hint::Rescan => {
                self.watch.renew();
                self.hands.queues.all_touched();
                self.look_at_everything();
            }
            Hint::Poll => self.look_at_everything(),
            // These are for waiting commands.
            Hint::Ended(_) | Hint::Answers => {}
        }
    }

    /// Scan is the truth: every folder and every log, events or not.
    fn look_at_everything(&mut self) {
        self.hands.queues.glance();
        self.look_for_workers();
        let workers: Vec<WorkerId> = self.hands.arms.living().cloned().collect();
        for worker in workers {
            self.read_worker(&worker);
        }
        let events = self.batches.look();
        self.apply_all(events);
        self.look_at_requests();
    }

    fn keep_time(&mut self) {
        let now = clock::now();
        if now >= self.clocks.rescan_at {
            let hour = self.clocks.hour.look(chrono::Local::now().time());
            self.apply_all(hour);
            self.clocks.rescan_at = now + Millis::from_secs_f64(self.config.timing.rescan_s);
            self.look_at_everything();
        }
        if now >= self.clocks.lock_check_at {
            self.clocks.lock_check_at = now + LOCK_CHECK_EVERY;
            self.clocks.lock_lost |= !self.lock.still_ours();
            self.requests.sweep();
        }
    }

    fn look_for_workers(&mut self) {
        let found = match spool::worker::named(&self.layout) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "failed to list the workers");
                return;
            }
        };
        for worker in found {
            if self.hands.arms.knows(&worker) {
                continue;
            }
            let left = self.hands.arms.left_orders(&worker);
            match self.hands.arms.take_up(&worker, left.clone().unwrap_or_default()) {
                Ok(said) => {
                    self.watch.add_worker(&worker);
                    if let Some(reports) = said {
                        self.born(&worker, reports, left);
                    }
                    self.read_worker(&worker);
                }
                Err(error) => {
                    tracing::warn!(%worker, %error, "a worker could not be taken up");
                    self.is_it_dead(&worker, left);
                }
            }
        }
        for worker in self.hands.arms.unheard() {
            self.is_it_dead(&worker, None);
        }
    }

    fn born(&mut self, worker: &WorkerId, reports: Reports, orders: Option<Orders>) {
        tracing::info!(%worker, "registered");
        let orders = orders.map(Box::new);
        self.apply(Event::WorkerBorn { worker: worker.clone(), reports: Box::new(reports), orders });
    }

    fn read_worker(&mut self, worker: &WorkerId) {
        match self.hands.arms.read(worker) {
            Ok(Some(News::Reported(reports))) => {
                self.apply(Event::Reported { worker: worker.clone(), reports: Box::new(reports) });
            }
            Ok(Some(News::Born(reports, orders))) => self.born(worker, reports, Some(orders)),
            Ok(None) => {}
            Err(error) => tracing::warn!(%worker, %error, "failed to read a worker's reports"),
        }
    }

    /// A pidfd fired: the lock decides whether the worker is dead, and is asked until it says so.
    fn process_gone(&mut self, worker: &WorkerId) {
        self.read_worker(worker);
        if !self.is_it_dead(worker, None) {
            tracing::warn!(%worker, "its process is gone but its lock is held; looking again in a second");
            let (notes, worker) = (self.hands.notes.clone(), worker.clone());
            tokio::spawn(async move {
                tokio::time::sleep(LOCK_AGAIN).await;
                drop(notes.send(Note::ProcessGone(worker)));
            });
        }
    }

    /// Tries a worker's lock; a dead one is buried. `orders` are those of one that was never taken up.
    fn is_it_dead(&mut self, worker: &WorkerId, orders: Option<Orders>) -> bool {
        match spool::recover::pronounce(&self.layout, worker) {
            Ok(Some(lock)) => {
                tracing::info!(%worker, "a worker is gone");
                let mut open = self.hands.arms.ordered(worker);
                if let Some(orders) = orders {
                    open.extend(orders.attempts.keys().cloned());
                    self.born(worker, Reports { phase: Phase::Left, ..Reports::default() }, Some(orders));
                }
                self.bury(worker, open, Some(lock));
                true
            }
            Ok(None) => {
                if let Some(orders) = orders {
                    self.hands.arms.leave_for_later(worker.clone(), orders);
                }
                false
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && self.hands.arms.lives(worker) => {
                tracing::error!(%worker, "a worker is gone; somebody removed its folder, and what it had finished there");
                let open = self.hands.arms.ordered(worker);
                self.bury(worker, open, None);
                true
            }
            Err(error) => {
                tracing::warn!(%worker, %error, "failed to try a worker's lock");
                true
            }
        }
    }

    /// A worker is dead: what it left behind is ended, and then its death is a fact (`buried`).
    fn bury(&mut self, worker: &WorkerId, open: BTreeSet<AttemptKey>, lock: Option<std::fs::File>) {
        self.watch.remove_worker(worker);
        self.hands.arms.bury_later(worker, open, lock);
        self.hands.launcher.bury(worker);
    }

    /// Nothing of a dead worker runs any more: its outbox is read, then its death is a fact.
    fn buried(&mut self, worker: &WorkerId, outcome: Result<(), String>) {
        if let Err(error) = outcome {
            tracing::error!(%worker, error, "what a dead worker left behind could not be ended");
        }
        match spool::recover::last_words(&self.layout, worker) {
            Ok(reports) => {
                self.apply(Event::Reported { worker: worker.clone(), reports: Box::new(reports) });
            }
            Err(error) => tracing::warn!(%worker, %error, "failed to read a dead worker's outbox"),
        }
        self.hands.arms.quieten(worker);
        self.apply(Event::WorkerDied { worker: worker.clone(), with_machine: false });
    }

    fn look_at_requests(&mut self) {
        let mut view = View { world: &self.world, queues: &self.hands.queues, batches: &mut self.batches };
        let events = self.requests.look(&mut view);
        for asked in self.requests.take_asked() {
            self.write_down("asked", &json!({"verb": asked.verb, "ids": asked.ids, "by": asked.by}));
        }
        self.apply_all(events);
    }

    fn look_at_queues(&mut self) {
        let events = self.hands.queues.look(&mut self.hands.ledger);
        for event in events {
            let cancelled = match &event {
                Event::Queued { task, .. } => {
                    task.batch_id.as_ref().is_some_and(|id| self.batches.is_cancelled(id))
                }
                _ => false,
            };
            let task_id = match &event {
                Event::Queued { task, .. } if cancelled => Some(task.task_id.clone()),
                _ => None,
            };
            self.apply(event);
            if let Some(task_id) = task_id {
                self.apply(Event::CancelAsked { task_id });
            }
        }
    }

    fn work_on_batches(&mut self) {
        let queued: Vec<Entry> = self.batches.work(&mut self.hands.ledger, clock::now());
        if queued.is_empty() {
            return;
        }
        for entry in queued {
            self.hands.queues.remember(entry);
        }
        self.look_at_queues();
    }

    fn think(&mut self) {
        if clock::now() < self.clocks.paused_until || self.clocks.storage_fault.is_some() {
            return;
        }
        for _ in 0..PLANS_PER_TURN {
            let plan = policy::plan(&self.world, clock::now());
            self.clocks.wake_at = plan.wake_at;
            if plan.actions.is_empty() {
                return;
            }
            for action in plan.actions {
                tracing::debug!(?action, "issued");
                if let Action::Say(saying) = &action {
                    let sentence = saying.to_string();
                    self.write_down("said", &json!({"sentence": sentence, "numbers": saying}));
                }
                self.apply(Event::Issued(Box::new(action.clone())));
                let events = self.hands.perform(action);
                if events.iter().any(|event| matches!(event, Event::Undone { .. })) {
                    self.clocks.paused_until = clock::now() + PAUSE_AFTER_UNDONE;
                }
                self.apply_all(events);
            }
            if clock::now() < self.clocks.paused_until {
                return;
            }
        }
        self.clocks.wake_at = Some(clock::now());
    }

    fn flush(&mut self) {
        if !self.hands.flush.may_start() {
            return;
        }
        let mut jobs = Vec::new();
        if self.config.durability == Durability::Power {
            jobs = self.hands.arms.sync_jobs();
        }
        if !self.hands.ledger.pending().is_empty() {
            jobs.push(self.hands.ledger.pending().take());
        }
        self.hands.flush.start(jobs);
    }

    /// A group is durable: its ends are told, and only then are the attempts dropped from the orders.
    fn flushed(&mut self, flushed: Flushed) {
        self.hands.flush.landed();
        if let Some(error) = flushed.error {
            tracing::error!(error, "changes could not be made durable; nothing more is started");
            self.clocks.storage_fault = Some(error);
        }
        for ended in flushed.ended {
            let complete = ended.record.status == Some(model::Status::Complete);
            self.write_down("end", &audit::end(&ended.record));
            self.hands.tell.tell(&ended.task_id, &ended.record);
            self.requests.ended(&ended.task_id, &ended.record);
            let counted = self.batches.ended(&ended.task_id, &ended.record);
            self.apply(Event::Finished { task_id: ended.task_id, complete });
            self.apply_all(counted);
            if let Some((worker, key)) = ended.at {
                self.hands.arms.drop_key(&worker, &key);
            }
        }
    }

    fn mind_the_end(&mut self) {
        if !self.until_idle || self.clocks.idle_reached || self.batches.any_under_way() {
            return;
        }
        if !self.hands.queues.is_settled() || !self.hands.flush.is_idle() {
            return;
        }
        let held = match self.world.rest() {
            Rest::Busy => return,
            Rest::Idle => Vec::new(),
            Rest::Held(held) => held,
        };
        self.clocks.idle_reached = true;
        self.clocks.held = held;
        let timeout = Millis::from_secs_f64(self.config.shutdown.timeout_s);
        self.apply(Event::DownAsked { deadline: clock::now() + timeout, now: false });
    }

    fn ending(&mut self) -> Option<Ending> {
        if self.clocks.lock_lost {
            return Some(Ending::LockLost);
        }
        if let Some(error) = &self.clocks.storage_fault {
            return Some(Ending::StorageFault(error.clone()));
        }
        if self.clocks.leaving && self.hands.flush.is_idle() {
            return Some(Ending::Left);
        }
        if self.world.is_down() && self.hands.flush.is_idle() && self.buried_all() {
            let held = std::mem::take(&mut self.clocks.held);
            return Some(if held.is_empty() { Ending::Freed } else { Ending::FreedWithHeld(held) });
        }
        None
    }

    /// Whether every worker's folder is put aside and every GPU has cooled, or has had its time.
    fn buried_all(&mut self) -> bool {
        let now = clock::now();
        let down_since = *self.clocks.down_since.get_or_insert(now);
        let done = self.hands.arms.is_empty() && self.publisher.all_cooled(&self.world, now);
        done || now - down_since > BURIAL_MAX
    }

    async fn sleep(&mut self) {
        if self.hands.queues.has_more() {
            tokio::task::yield_now().await;
            return;
        }
        let now = clock::now();
        let until = [
            self.clocks.wake_at.map(|at| at.max(self.clocks.paused_until)),
            Some(self.clocks.rescan_at),
            Some(self.clocks.lock_check_at),
            self.clocks.down_since.map(|since| since + BURIAL_MAX + Millis(1)),
            self.publisher.due(),
            self.batches.record_due(),
            self.batches.expand_due(),
            self.hands.queues.look_again(),
        ];
        let wait = until.into_iter().flatten().min().map_or(Millis(1_000), |at| at - now);
        if wait <= Millis::ZERO {
            tokio::task::yield_now().await;
            return;
        }
        let wait = Duration::from_millis(wait.0.unsigned_abs());
        // Either outcome is a reason to turn: a fact came, or it is time.
        drop(tokio::time::timeout(wait, self.inbox.wait()).await);
    }
}

/// One hint of each kind is enough, in the order of the first: hints say where to look, not what happened.
fn coalesced(hints: Vec<Hint>) -> Vec<Hint> {
    let mut kept: Vec<Hint> = Vec::with_capacity(hints.len().min(64));
    for hint in hints {
        // Hints about single files are all different; only the others repeat.
        let single = matches!(hint, Hint::Created(_) | Hint::Closed(_) | Hint::Gone(_));
        if single || !kept.contains(&hint) {
            kept.push(hint);
        }
    }
    kept
}
