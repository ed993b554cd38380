//! What the arm does about the difference between its orders and what is there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::protocol::{Job, Progress, Told};
use engine::server::Boot;
use model::config::{Auto, HostKind, ScriptEntry};
use model::link::{EngineOrder, EngineState, HostOrder, StopWhy, Wish};
use model::task::{Script, ScriptWork, TaskError, Work};
use model::{AttemptKey, FailureClass};
use spool::clock;
use tokio::time::Instant;

use crate::arm::{Arm, Haste};
use crate::attempt::{Attempt, On, Running, Stage};
use crate::happening::{Happening, HostTurn};
use crate::llm::{self, Question, Seat};
use crate::record::Ending;
use crate::scripts::{self, HostKey, HostSeat, Task};
use crate::stop::{Halt, stop};

/// How long a host that could not be loaded is not tried again without a task that needs it.
const HOST_PAUSE: Duration = Duration::from_secs(30);

/// What starting an attempt came to.
enum Start {
    Started(Begun),
    NotYet,
    Failed(TaskError),
}

/// What begins with an attempt.
struct Begun {
    on: On,
    log: Option<String>,
    halt: Option<Halt>,
    yields: bool,
}

impl Arm {
    /// One turn: compares and acts.
    pub(crate) fn act(&mut self) {
        // What is over gives its slot back before anything is decided.
        self.save_records();
        self.check_orphan();
        self.heed_orders();
        self.seat_engine();
        self.keep_hosts();
        self.start_attempts();
        self.save_records();
    }

    /// Takes in one happening.
    pub(crate) fn take(&mut self, happening: Happening) {
        match happening {
            Happening::Engine(generation, turn) => {
                let now = self.now();
                if let Some(seat) = self.seat.as_mut().filter(|seat| seat.order.generation == generation)
                    && !seat.take(turn, now)
                {
                    self.seat = None;
                }
            }
            Happening::Host(id, turn) => self.host_turned(id, &turn),
            Happening::Told(key, told) => {
                if let Some(Attempt { stage: Stage::Running(running), .. }) = self.attempts.get_mut(&key) {
                    match told {
                        Told::Progress(progress) => running.progress = progress,
                        Told::Checkpoint(state) => {
                            (running.yields, running.checkpoint) = (true, Some(state));
                        }
                    }
                }
            }
            Happening::Over(key, ending) => self.over(&key, *ending),
            Happening::Synced(keys, result) => self.synced(keys, result),
            Happening::BrainGone(brain) => self.brain_gone(&brain),
        }
    }

    fn host_turned(&mut self, id: u64, turn: &HostTurn) {
        let Some(at) = self.hosts.iter().position(|host| host.id == id) else { return };
        let key = self.hosts[at].key.clone();
        if !self.hosts[at].take(turn) {
            // What it took it has answered for before this. A task it still has came after its last look.
            if let Some(orphan) = self.hosts.remove(at).busy {
                self.over(&orphan, Ending::Failed(scripts::died_before_it_began()));
            }
        }
        if let HostTurn::Failed(error) = turn {
            self.refused.insert(key.clone(), Instant::now());
            // One task pays for one failed load; others try again by their own.
            let waiting = self
                .attempts
                .iter()
                .find(|(_, one)| one.is_waiting() && self.host_key(one).as_ref() == Some(&key));
            if let Some(attempt) = waiting.map(|(key, _)| key.clone()) {
                self.fail(&attempt, error.clone());
            }
        }
    }

    /// New keys, stops, and keys that orders have dropped.
    fn heed_orders(&mut self) {
        let leaving = self.leaving();
        let orders = self.home.orders.state();
        for (key, order) in &orders.attempts {
            let attempt = self.attempts.entry(key.clone()).or_insert_with(|| Attempt::new(order.clone()));
            if order.wish == Wish::Stop {
                attempt.stop(order.why.unwrap_or(StopWhy::Cancel));
            }
        }
        for attempt in self.attempts.values_mut() {
            match leaving {
                Some(Haste::Now) => attempt.stop(StopWhy::TakenBack),
                Some(Haste::WhenIdle) if attempt.is_waiting() => attempt.stop(StopWhy::TakenBack),
                _ => {}
            }
        }
        let mut forgotten: Vec<(AttemptKey, bool)> = Vec::new();
        for (key, attempt) in &mut self.attempts {
            if orders.attempts.contains_key(key) {
                if matches!(attempt.stage, Stage::Ended { .. } | Stage::NeverStarted { .. }) {
                    attempt.ordered_at_end = true;
                }
            } else if attempt.may_be_forgotten(orders.seen) {
                forgotten.push((key.clone(), attempt.ordered_at_end));
            }
        }
        for (key, dropped) in forgotten {
            self.attempts.remove(&key);
            // Only a key that was named to its end and then no more was really dropped; else its record stays.
            if let (true, Err(error)) = (dropped, self.home.forget_record(&key)) {
                tracing::warn!("cannot remove the record of {key}: {error}");
            }
        }
    }

    // ---------------------------------------------------------------------------------------------- engine

    fn seat_engine(&mut self) {
        let wanted = if self.leaving().is_some() { None } else { self.orders().engine.clone() };
        let now = self.now();
        let asked = self.attempts.values().any(|attempt| attempt.on() == Some(On::Llm));
        match (&mut self.seat, wanted) {
            (Some(seat), Some(order)) if seat.order.generation == order.generation => {}
            // No answer is cut short: orders that unload and do not stop what runs mean: when it has ended.
            (Some(seat), _) if !asked => seat.unload(now),
            (None, Some(order)) if !self.hosts.iter().any(HostSeat::is_ending) => self.boot(order),
            _ => {}
        }
        let useless = |seat: &&mut Seat| seat.refuses() && seat.ready().is_some();
        if !asked && let Some(seat) = self.seat.as_mut().filter(useless) {
            seat.give_up();
        }
    }

    fn boot(&mut self, mut order: EngineOrder) {
        if order.preset == "auto" {
            let can = &self.home.reports.state().can;
            if let Some(engine) = can.engines.iter().find(|engine| engine.models.contains(&order.model)) {
                order.preset.clone_from(&engine.preset);
            }
        }
        let boot = Boot {
            log: self.engine_log(order.generation),
            config: self.config.clone(),
            order,
            surroundings: self.shop.around.clone(),
            find: self.find.clone(),
        };
        self.seat = Some(Seat::boot(boot, self.shop.gate.clone(), self.now(), self.shop.tell.clone()));
    }

    // ---------------------------------------------------------------------------------------------- hosts

    fn host_orders(&self) -> Vec<HostOrder> {
        if self.leaving().is_some() { Vec::new() } else { self.orders().hosts.clone() }
    }

    /// Ends hosts that may not stay and are of no use to a waiting task; starts those that should be there.
    fn keep_hosts(&mut self) {
        let orders = self.host_orders();
        for at in 0..self.hosts.len() {
            let host = &self.hosts[at];
            if host.busy.is_some() || host.is_ending() {
                continue;
            }
            let same = |other: &&HostSeat| other.key == host.key && !other.is_ending();
            let rank = self.hosts[..at].iter().filter(same).count();
            let stays = rank < self.allowed(&orders, &host.key);
            let needed = self
                .attempts
                .values()
                .any(|one| one.is_waiting() && self.host_key(one).as_ref() == Some(&host.key));
            if !stays && !needed {
                self.hosts[at].end();
            }
        }
        // Nothing is loaded before the memory of what goes is free.
        let unloading = self.unloading();
        for order in orders.iter().filter(|_| !unloading) {
            let Some(entry) =
                self.config.scripts.get(&order.script).filter(|entry| entry.host == HostKind::Warm)
            else {
                continue;
            };
            let key = HostKey::new(&order.script, order.model.as_ref(), entry);
            let path = entry.path.clone();
            let refused = self.refused.get(&key).is_some_and(|at| at.elapsed() < HOST_PAUSE);
            let there = self.hosts.iter().filter(|host| host.key == key && !host.is_ending()).count();
            for _ in there..usize::try_from(order.count).unwrap_or(usize::MAX) {
                if !refused && let Err(error) = self.start_host(key.clone(), &path) {
                    tracing::warn!("cannot start the host of `{}`: {error}", key.script);
                    self.refused.insert(key.clone(), Instant::now());
                    break;
                }
            }
        }
    }

    /// Whether an engine or a host is on its way out.
    fn unloading(&self) -> bool {
        let engine = self.seat.as_ref().is_some_and(|seat| seat.report.state == EngineState::Unloading);
        engine || self.hosts.iter().any(HostSeat::is_ending)
    }

    /// How many hosts of a key may stay.
    fn allowed(&self, orders: &[HostOrder], key: &HostKey) -> usize {
        let mine = |order: &&HostOrder| {
            let entry = self.config.scripts.get(&order.script);
            entry.is_some_and(|entry| HostKey::new(&order.script, order.model.as_ref(), entry) == *key)
        };
        orders.iter().filter(mine).map(|order| usize::try_from(order.count).unwrap_or(usize::MAX)).sum()
    }

    fn start_host(&mut self, key: HostKey, path: &Path) -> Result<(), TaskError> {
        let entry = self.config.scripts.get(&key.script);
        let recipe = self.shop.recipe(path, entry, key.model.clone(), &key.gpus)?;
        let loads = self.loads.entry(key.clone()).or_default();
        *loads += 1;
        self.hosts_made += 1;
        self.hosts.push(HostSeat::start(&self.shop, self.hosts_made, key, recipe, *loads));
        Ok(())
    }

    /// The host that an attempt needs; none if it needs none.
    fn host_key(&self, attempt: &Attempt) -> Option<HostKey> {
        let Work::Script(work) = &attempt.order.task.work else { return None };
        let (name, entry) = self.registered(work)?;
        let gpus = attempt.order.gpus.clone();
        (entry.host == HostKind::Warm)
            .then(|| HostKey { gpus, ..HostKey::new(name, work.model.as_ref(), entry) })
    }

    fn registered<'a>(&'a self, work: &'a ScriptWork) -> Option<(&'a str, &'a ScriptEntry)> {
        match &work.script {
            Script::Registered(name) => Some((name, self.config.scripts.get(name)?)),
            Script::File(_) => None,
        }
    }

    // ---------------------------------------------------------------------------------------------- attempts

    fn start_attempts(&mut self) {
        if self.leaving().is_some() {
            return;
        }
        let waiting: Vec<AttemptKey> =
            self.attempts.iter().filter(|(_, one)| one.is_waiting()).map(|(key, _)| key.clone()).collect();
        for key in waiting {
            let Some(attempt) = self.attempts.get(&key) else { continue };
            let task = attempt.order.task.clone();
            let start = match &task.work {
                Work::Llm(_) => self.start_llm(&key),
                Work::Script(work) => self.start_script(&key, work),
            };
            match start {
                Start::NotYet => {}
                Start::Started(begun) => self.begin(&key, begun),
                Start::Failed(error) => self.fail(&key, error),
            }
        }
    }

    fn begin(&mut self, key: &AttemptKey, begun: Begun) {
        let since = self.now();
        let Some(attempt) = self.attempts.get_mut(key) else { return };
        attempt.stage = Stage::Running(Running {
            since,
            started_at: clock::wall(),
            begun: std::time::Instant::now(),
            halt: begun.halt,
            progress: Progress::default(),
            yields: begun.yields,
            checkpoint: None,
            log: begun.log,
            on: begun.on,
        });
    }

    /// Ends an attempt that has not begun, with an error.
    fn fail(&mut self, key: &AttemptKey, error: TaskError) {
        self.begin(key, Begun { on: On::Nothing, log: None, halt: None, yields: false });
        self.over(key, Ending::Failed(error));
    }

    fn start_llm(&self, key: &AttemptKey) -> Start {
        let (Some(seat), Some(attempt)) = (&self.seat, self.attempts.get(key)) else { return Start::NotYet };
        let Some(client) = seat.ready().filter(|_| !seat.refuses()) else { return Start::NotYet };
        let Work::Llm(work) = &attempt.order.task.work else { return Start::NotYet };
        let running = self.attempts.values().filter(|one| one.on() == Some(On::Llm)).count();
        let slots = usize::try_from(seat.order.parallel.max(1)).unwrap_or(usize::MAX);
        let wanted = self.orders().engine.as_ref().map(|order| order.generation);
        if running >= slots || wanted != Some(seat.order.generation) {
            return Start::NotYet;
        }
        let preset = self.config.preset(&seat.order.preset).unwrap_or_default();
        let limit = attempt.order.task.timeout_s.unwrap_or(preset.request_timeout_s);
        let (halt, stop) = stop();
        let question = Question {
            key: key.clone(),
            work: work.clone(),
            client: client.clone(),
            limit: seconds(limit),
            model: seat.order.model.clone(),
            preset: seat.order.preset.clone(),
            input_bytes_max: self.config.limits.result_bytes_max,
        };
        llm::ask(question, stop, self.shop.tell.clone());
        Start::Started(Begun { on: On::Llm, log: None, halt: Some(halt), yields: false })
    }

    fn start_script(&mut self, key: &AttemptKey, work: &ScriptWork) -> Start {
        if self.scripts_running() >= self.script_slots().unwrap_or(usize::MAX) {
            return Start::NotYet;
        }
        if let Err(error) = scripts::check_input(work) {
            return Start::Failed(error);
        }
        let Some(attempt) = self.attempts.get(key) else { return Start::NotYet };
        if let Some(host) = self.host_key(attempt) {
            return self.start_on_host(key, work, &host);
        }
        let entry = self.registered(work).map(|(_, entry)| entry);
        let path: PathBuf = match (&work.script, entry) {
            (Script::File(path), _) => path.clone(),
            (Script::Registered(_), Some(entry)) => entry.path.clone(),
            (Script::Registered(name), None) => {
                let why =
                    format!("no script is called `{name}`; registered are: {}", self.config.script_names());
                return Start::Failed(TaskError::new(FailureClass::BadInput, "unknown_script", why));
            }
        };
        let model = work.model.clone().or_else(|| entry.and_then(|entry| entry.model.clone()));
        let gpus = self.attempts.get(key).map(|attempt| attempt.order.gpus.clone()).unwrap_or_default();
        match self.shop.recipe(&path, entry, model, &gpus) {
            Err(error) => Start::Failed(error),
            Ok(recipe) => {
                let (task, halt, log) = self.task(key, work);
                self.shop.run_once(recipe, task);
                Start::Started(Begun { on: On::Once, log: Some(log), halt: Some(halt), yields: false })
            }
        }
    }

    fn start_on_host(&mut self, key: &AttemptKey, work: &ScriptWork, host: &HostKey) -> Start {
        let (task, halt, log) = self.task(key, work);
        if let Some(seat) = self.hosts.iter_mut().find(|seat| seat.key == *host && seat.is_free()) {
            seat.give(task);
            let on = On::Host(seat.id);
            return Start::Started(Begun { on, log: Some(log), halt: Some(halt), yields: seat.yields });
        }
        // One that runs may be waited for; more than may stay are never loaded.
        let orders = self.host_orders();
        let there = self.hosts.iter().filter(|seat| seat.key == *host && !seat.is_ending()).count();
        if !self.unloading() && there < self.allowed(&orders, host).max(1) {
            let path =
                self.config.scripts.get(&host.script).map(|entry| entry.path.clone()).unwrap_or_default();
            if let Err(error) = self.start_host(host.clone(), &path) {
                return Start::Failed(error);
            }
        }
        Start::NotYet
    }

    fn task(&self, key: &AttemptKey, work: &ScriptWork) -> (Task, Halt, String) {
        let (halt, stop) = stop();
        let log = self.layout.attempt_log(key);
        let shown = log.strip_prefix(self.layout.root()).unwrap_or(&log).display().to_string();
        let task = self.attempts.get(key).map(|attempt| &attempt.order.task);
        let limit = task.and_then(|task| task.timeout_s).unwrap_or(self.config.timing.script_timeout_s);
        let checkpoint = task.and_then(|task| task.checkpoint.clone());
        let job = Job { key: key.clone(), args: work.args.clone(), checkpoint };
        let limit = (limit > 0.0).then(|| seconds(limit));
        (Task { job, log, limit, stop }, halt, shown)
    }

    fn scripts_running(&self) -> usize {
        self.attempts.values().filter(|one| matches!(one.on(), Some(On::Once | On::Host(_)))).count()
    }

    /// In the CPU lane as many as configured. On a GPU the brain counts its memory and orders what fits: a host runs one
    /// task at a time, as many hosts are loaded as may stay, and a script of one process a task begins at once.
    fn script_slots(&self) -> Option<usize> {
        if self.shop.around.gpu.is_some() {
            return None;
        }
        Some(match self.config.cpu_slots {
            Auto::Set(slots) => usize::try_from(slots.max(1)).unwrap_or(usize::MAX),
            Auto::Auto => std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1)),
        })
    }
}

fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or(Duration::from_secs(u32::MAX.into()))
}
