//! Attempts: from the first order that names one to the first that no longer does.

use model::link::{EngineState, HostState, Outcome, StopWhy, Wish};
use model::task::Work;
use model::{AttemptKey, FailureClass, Millis};

use super::hosts::host_key;
use super::{Arm, Attempt, On, Stage, Timer, Wants};
use crate::nature::{Fate, Nature};

impl Arm {
    /// New keys, stops, and keys that orders have dropped.
    pub(super) fn heed(&mut self, now: Millis, nature: &Nature<'_>, wants: &mut Wants) {
        let orphan = self.is_orphan(now, nature.config);
        let leaving = self.is_leaving();
        for (key, order) in &self.orders.attempts {
            let attempt = self.attempts.entry(key.clone()).or_insert_with(|| Attempt {
                stage: Stage::Waiting,
                stop: None,
                yields: nature.yields(&order.task_id),
                order: order.clone(),
            });
            if order.wish == Wish::Stop {
                attempt.stop = order.why.or(Some(StopWhy::Cancel));
            }
        }
        for (key, attempt) in &mut self.attempts {
            if leaving || (orphan && attempt.is_waiting()) {
                attempt.stop.get_or_insert(StopWhy::TakenBack);
            }
            let Some(why) = attempt.stop else { continue };
            match &mut attempt.stage {
                Stage::Waiting => attempt.stage = Stage::NeverStarted,
                Stage::Running { stopping, since, before, .. } if *stopping != Some(why) => {
                    let softer = *stopping != Some(StopWhy::Yield) && stopping.is_some();
                    *stopping = Some(why);
                    if !softer {
                        let done = nature.work_done(self.gpu, now - *since);
                        let wait = nature.obeys_in(&attempt.order, why, *before + done, self.gpu);
                        wants.timers.push((wait, Timer::Stopped(key.clone())));
                    }
                }
                _ => {}
            }
        }
        let orders = &self.orders.attempts;
        self.attempts.retain(|key, attempt| orders.contains_key(key) || !attempt.is_over());
    }

    pub(super) fn start_attempts(&mut self, now: Millis, nature: &mut Nature<'_>, wants: &mut Wants) {
        if self.is_leaving() || self.is_orphan(now, nature.config) || self.gpu_is_lost {
            return;
        }
        let waiting = self.attempts.iter().filter(|(_, one)| one.is_waiting());
        let waiting: Vec<AttemptKey> = waiting.map(|(key, _)| key.clone()).collect();
        for key in waiting {
            let Some(attempt) = self.attempts.get(&key) else { continue };
            let on = match &attempt.order.task.work {
                Work::Llm(_) => self.on_llm(),
                Work::Script(_) => self.on_script(&key, now, nature, wants),
            };
            if let Some(on) = on {
                self.begin(&key, on, now, nature, wants);
            }
        }
    }

    fn on_llm(&self) -> Option<On> {
        let seat = self.seat.as_ref().filter(|seat| seat.state == EngineState::Ready)?;
        let wanted = self.orders.engine.as_ref().map(|order| order.generation);
        let running = self.attempts.values().filter(|one| one.on() == Some(On::Llm)).count();
        let free = running < seat.order.parallel.max(1) as usize && wanted == Some(seat.order.generation);
        free.then_some(On::Llm)
    }

    fn on_script(
        &mut self,
        key: &AttemptKey,
        now: Millis,
        nature: &mut Nature<'_>,
        wants: &mut Wants,
    ) -> Option<On> {
        let running =
            self.attempts.values().filter(|one| matches!(one.on(), Some(On::Once { .. } | On::Host(_))));
        // On a GPU the mind counts the memory: what is ordered fits.
        if self.gpu.is_none() && running.count() >= nature.cpu_slots() as usize {
            return None;
        }
        let attempt = self.attempts.get(key)?;
        match host_key(nature, attempt) {
            Some(host) => {
                let host = self.free_host(&host, now, nature, wants)?;
                host.busy = Some(key.clone());
                host.state = HostState::Busy;
                Some(On::Host(host.id))
            }
            None => {
                let mib = if self.gpu.is_some() { nature.task_mib(&attempt.order.task) } else { 0 };
                if self.gpu.is_some() && (self.is_unloading() || mib > nature.room(self)) {
                    // What it needs is not there yet, or somebody else has it: it tries again in a while.
                    wants.timers.push((Millis(2_000), Timer::Look));
                    return None;
                }
                Some(On::Once { pid: self.next_pid(), mib })
            }
        }
    }

    fn begin(&mut self, key: &AttemptKey, on: On, now: Millis, nature: &mut Nature<'_>, wants: &mut Wants) {
        let gpu = self.gpu;
        let Some(attempt) = self.attempts.get_mut(key) else { return };
        let before = nature.checkpoint_of(&attempt.order.task);
        attempt.stage = Stage::Running { since: now, on, stopping: None, before };
        let start = if matches!(on, On::Once { .. }) { nature.once_start() } else { Millis::ZERO };
        match nature.fate(key) {
            Fate::Ends => {
                let left = nature.takes(key, before, gpu);
                wants.timers.push((start + left, Timer::Ends(key.clone())));
            }
            Fate::Fails(_, share) => {
                let left = nature.takes(key, before, gpu).as_secs_f64() * share;
                wants.timers.push((start + Millis::from_secs_f64(left), Timer::Ends(key.clone())));
            }
            Fate::Hangs => {}
        }
        let limit = nature.limit_of(&attempt.order.task);
        if let Some(limit) = limit {
            wants.timers.push((limit, Timer::Limit(key.clone())));
        }
    }

    /// Takes a timer that rang.
    pub(crate) fn rings(&mut self, now: Millis, timer: &Timer, nature: &mut Nature<'_>, wants: &mut Wants) {
        if self.dead {
            return;
        }
        match timer {
            Timer::EngineReady(_) | Timer::EngineFails(_) | Timer::EngineGone(_) => {
                self.engine_rings(now, timer)
            }
            Timer::HostReady(_) | Timer::HostFails(_) | Timer::HostGone(_) => {
                self.host_rings(now, timer, nature, wants);
            }
            Timer::Ends(key) => {
                let failure = match nature.fate(key) {
                    Fate::Fails(class, _) => Some(class),
                    Fate::Ends | Fate::Hangs => None,
                };
                self.end(key, now, failure, false, None);
            }
            Timer::Limit(key) => self.end(key, now, Some(FailureClass::Timeout), false, None),
            Timer::Stopped(key) => self.stopped(key, now, nature),
            Timer::Look => {}
        }
    }

    fn stopped(&mut self, key: &AttemptKey, now: Millis, nature: &Nature<'_>) {
        let Some(attempt) = self.attempts.get(key) else { return };
        let Stage::Running { since, stopping: Some(why), before, .. } = attempt.stage else { return };
        let class = if why == StopWhy::Timeout { FailureClass::Timeout } else { FailureClass::Cancelled };
        let done = before + nature.work_done(self.gpu, now - since);
        let checkpoint = nature.checkpoint_at(key, done);
        self.end(key, now, Some(class), true, checkpoint);
    }

    /// An attempt is over, and its record lies in the outbox.
    pub(super) fn end(
        &mut self,
        key: &AttemptKey,
        now: Millis,
        failure: Option<FailureClass>,
        stopped: bool,
        checkpoint: Option<serde_json::Value>,
    ) {
        let Some(attempt) = self.attempts.get_mut(key) else { return };
        let (since, on) = match attempt.stage {
            Stage::Running { since, on, .. } => (Some(since), Some(on)),
            Stage::Waiting => (Some(now), None),
            Stage::Ended { .. } | Stage::NeverStarted => return,
        };
        let run_ms = since.map_or(0, |since| u64::try_from((now - since).0).unwrap_or(0));
        let outcome = Outcome {
            failure,
            code: None,
            message: None,
            run_ms,
            media_s: attempt.order.task.media_s.filter(|_| failure.is_none()),
            checkpoint,
            stopped,
        };
        attempt.stage = Stage::Ended { since, outcome };
        if let Some(On::Host(id)) = on
            && let Some(host) = self.hosts.iter_mut().find(|host| host.id == id)
        {
            host.busy = None;
            if host.state == HostState::Busy {
                host.state = HostState::Idle;
            }
        }
    }

    /// Everything that runs on `on` fails; the kind of `On` decides, not its number.
    pub(super) fn fail_all(&mut self, now: Millis, on: On, class: FailureClass) {
        let same = |one: &Attempt| {
            one.on().is_some_and(|it| std::mem::discriminant(&it) == std::mem::discriminant(&on))
        };
        let keys: Vec<AttemptKey> =
            self.attempts.iter().filter(|(_, one)| same(one)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.end(&key, now, Some(class), false, None);
        }
    }

    /// Its GPU is gone: what runs there fails, what is loaded is lost.
    pub(crate) fn gpu_goes(&mut self, now: Millis) {
        self.gpu_is_lost = true;
        let keys: Vec<AttemptKey> =
            self.attempts.iter().filter(|(_, one)| one.on().is_some()).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.end(&key, now, Some(FailureClass::GpuFault), false, None);
        }
        self.hosts.clear();
        if let Some(seat) = &mut self.seat
            && seat.state != EngineState::Unloading
        {
            (seat.state, seat.since) = (EngineState::Failed, now);
            seat.error = Some("the GPU is lost".into());
        }
    }
}
