//! The LLM of a worker: one at a time, by generation.

use model::Millis;
use model::link::{EngineOrder, EngineReport, EngineState};

use super::{Arm, On, Seat, Timer, Wants};
use crate::nature::{Boot, Nature};

impl Seat {
    pub(super) fn report(&self) -> EngineReport {
        EngineReport {
            generation: self.order.generation,
            state: self.state,
            preset: self.order.preset.clone(),
            model: self.order.model.clone(),
            parallel: self.order.parallel,
            beside: self.order.beside.clone(),
            pid: (self.state != EngineState::Failed).then_some(self.pid),
            port: Some(18_100),
            since: self.since,
            boot_ms: self.boot_ms,
            error: self.error.clone(),
        }
    }
}

impl Arm {
    /// Boots what is wanted, unloads what is not. No answer is cut short by an unload.
    pub(super) fn seat_engine(&mut self, now: Millis, nature: &mut Nature<'_>, wants: &mut Wants) {
        let goes = self.is_leaving() || self.is_orphan(now, nature.config);
        let wanted = if goes { None } else { self.orders.engine.clone() };
        let asked = self.attempts.values().any(|attempt| attempt.on() == Some(On::Llm));
        match (&mut self.seat, wanted) {
            (Some(seat), Some(order)) if seat.order.generation == order.generation => {}
            (Some(seat), _) if !asked && seat.state != EngineState::Unloading => {
                (seat.state, seat.since) = (EngineState::Unloading, now);
                wants.timers.push((nature.unload(), Timer::EngineGone(seat.order.generation)));
            }
            (None, Some(order)) if !self.hosts.iter().any(super::Host::is_ending) => {
                self.boot(order, now, nature, wants);
            }
            _ => {}
        }
    }

    fn boot(&mut self, order: EngineOrder, now: Millis, nature: &mut Nature<'_>, wants: &mut Wants) {
        let generation = order.generation;
        let mib = nature.share_mib(&order.model);
        let room = nature.room(self);
        let mut seat = Seat {
            mib,
            state: EngineState::Booting,
            since: now,
            began: now,
            boot_ms: None,
            error: None,
            pid: self.next_pid(),
            order,
        };
        match nature.boot(&seat.order.model) {
            Boot::Ready(_) if mib > room => {
                seat.error = Some(format!("out of memory: {mib} MiB wanted, {room} MiB free"));
                seat.mib = 0;
                wants.timers.push((Millis(2_000), Timer::EngineFails(generation)));
            }
            Boot::Ready(_) if nature.reads_files() => {
                wants.reads.push((generation, seat.order.model.clone(), nature.model_mib(&seat.order.model)));
            }
            Boot::Ready(time) => wants.timers.push((time, Timer::EngineReady(generation))),
            Boot::Fails(time) => wants.timers.push((time, Timer::EngineFails(generation))),
            Boot::Hangs => {}
        }
        self.seat = Some(seat);
    }

    /// The model file of a boot is in memory.
    pub(crate) fn file_read(&mut self, generation: u64, nature: &mut Nature<'_>, wants: &mut Wants) {
        let seat = self.seat.as_ref().filter(|seat| seat.order.generation == generation);
        if let Some(seat) = seat {
            let time = nature.boot_time(&seat.order.model);
            wants.timers.push((time, Timer::EngineReady(generation)));
        }
    }

    pub(super) fn engine_rings(&mut self, now: Millis, timer: &Timer) {
        let Some(seat) = &mut self.seat else { return };
        match *timer {
            Timer::EngineReady(generation)
                if seat.order.generation == generation && seat.state == EngineState::Booting =>
            {
                (seat.state, seat.since) = (EngineState::Ready, now);
                seat.boot_ms = u64::try_from((now - seat.began).0).ok();
            }
            Timer::EngineFails(generation)
                if seat.order.generation == generation && seat.state == EngineState::Booting =>
            {
                (seat.state, seat.since) = (EngineState::Failed, now);
                seat.error.get_or_insert_with(|| "the engine ended with status 1".into());
            }
            Timer::EngineGone(generation) if seat.order.generation == generation => self.seat = None,
            _ => {}
        }
    }

    /// Its LLM dies, and what it was asked with it.
    pub(crate) fn engine_dies(&mut self, now: Millis) -> bool {
        let Some(seat) = &mut self.seat else { return false };
        if !matches!(seat.state, EngineState::Booting | EngineState::Ready) {
            return false;
        }
        (seat.state, seat.since) = (EngineState::Failed, now);
        seat.error = Some("killed by signal 9".into());
        self.fail_all(now, On::Llm, model::FailureClass::Crash);
        true
    }
}
