//! The brain: it hears facts, thinks, and now and then is not there.

use model::gpu::{Inventory, Ram};
use model::link::{Phase, Reports};
use model::{AttemptKey, InventorySource, Millis};
use policy::World;
use policy::action::Action;
use policy::event::Event;

use super::{PLANS_MAX, Sim};
use crate::agenda::Happening;

/// How long nothing is done after an action that could not be.
const PAUSE_AFTER_UNDONE: Millis = Millis(1_000);
/// How long an hour is.
const HOUR: Millis = Millis(3_600_000);
/// How often all GPUs and the memory are read.
const READ_EVERY: Millis = Millis(300_000);

impl Sim {
    /// A fact for the brain: heard at once, later, or by nobody.
    pub(super) fn tell(&mut self, event: Event) {
        if !self.brain_is_up {
            return;
        }
        if self.stalled_until.is_some() {
            return self.backlog.push(event);
        }
        self.hear(event);
    }

    pub(super) fn hear(&mut self, event: Event) {
        self.checks.told(self.now, &event);
        let breaches = self.world.apply_by_law(self.now, event);
        self.note_breaches(breaches);
        self.checks.counted(self.now, self.world.anomalies());
    }

    fn note_breaches(&mut self, breaches: Vec<policy::Breach>) {
        for policy::Breach { law, detail } in breaches {
            self.checks.broken(self.now, law.name, format!("{detail}; promised is: {}", law.promise));
        }
    }

    /// Decides until there is nothing more to say; when time alone changes that.
    pub(super) fn think(&mut self) -> Option<Millis> {
        if !self.brain_is_up || self.stalled_until.is_some() {
            return None;
        }
        if self.now < self.paused_until {
            return Some(self.paused_until);
        }
        for _ in 0..PLANS_MAX {
            let plan = self.mind.plan(&self.world, self.now);
            self.record.plans += 1;
            if plan.actions.is_empty() && self.world.is_down() {
                self.freed();
                return None;
            }
            if plan.actions.is_empty() {
                self.checks.at_rest(self.now);
                let pause = policy::Pause { world: &self.world, now: self.now, plan: &plan };
                let breaches = policy::breaches_at_rest(&pause);
                self.note_breaches(breaches);
                let next = self.agenda.next_at();
                self.checks.sleeps(self.now, plan.wake_at, next, &self.world, &self.mind);
                return plan.wake_at;
            }
            self.checks.planned(self.now, &plan, &self.world, &self.mind);
            for action in plan.actions {
                if !self.issue(action) {
                    self.paused_until = self.now + PAUSE_AFTER_UNDONE;
                }
                if self.checks.is_broken() || !self.brain_is_up {
                    return None;
                }
            }
            if self.now < self.paused_until {
                return Some(self.paused_until);
            }
        }
        self.checks.broken(self.now, "comes to rest", format!("{PLANS_MAX} plans in a row wanted something"));
        None
    }

    /// Carries out one action; false where it could not be.
    fn issue(&mut self, action: Action) -> bool {
        self.trace.line(self.now, || format!("  → {}", crate::trace::brief(&action)));
        self.checks.issued(self.now, &action);
        self.record.issued(&action);
        self.hear(Event::Issued(Box::new(action.clone())));
        self.carry_out(action)
    }

    /// A brain starts: it reads what lies there.
    pub(super) fn brain_starts(&mut self, again: bool) {
        if self.brain_is_up {
            return;
        }
        self.brain_is_up = true;
        self.going_down = false;
        self.stalled_until = None;
        self.backlog.clear();
        self.paused_until = Millis::ZERO;
        let learned = self.world.learned().clone();
        if again {
            self.world = World::new(self.config.clone(), learned);
            self.checks.brain_is_new();
            self.record.brain_is_new();
        }
        self.turns_hour();
        let inventory = self.inventory();
        self.tell(Event::Inventory(inventory));
        self.adopt();
        let batches: Vec<_> = self.batches.keys().cloned().collect();
        for batch in batches {
            if let Some(facts) = self.recounted(&batch) {
                self.batches.insert(batch, facts.clone());
                self.tell(Event::Batch(facts));
            }
        }
        let mut files: Vec<_> = self.files.iter().map(|(entry, file)| (file.order, entry.clone())).collect();
        files.sort();
        for (_, entry) in files {
            self.seen(&entry);
        }
        self.reads_all();
    }

    /// Workers, living and dead, are taken up.
    fn adopt(&mut self) {
        let numbers: Vec<_> = self.arms.keys().copied().collect();
        for number in numbers {
            let Some(held) = self.arms.get_mut(&number) else { continue };
            // What has ended is put right before orders are written.
            let ended = &self.ended;
            held.arm.written.attempts.retain(|key: &AttemptKey, _| !ended.contains_key(&key.task_id));
            held.arm.alone_since = None;
            (held.known, held.pronounced) = (true, false);
            let worker = held.arm.id.clone();
            let orders = Some(Box::new(held.arm.written.clone()));
            let (dead, phase) =
                (held.arm.dead, if held.arm.dead { Phase::Left } else { held.arm.told.phase });
            let told = if dead { held.arm.last_words() } else { held.arm.told.clone() };
            let reports = Box::new(Reports { phase, ..told });
            self.tell(Event::WorkerBorn { worker, reports, orders });
            if dead {
                let delay = Millis(self.dice.between(50, 3_000));
                self.later(delay, Happening::Buried(number));
            } else {
                self.wrote(number);
            }
        }
    }

    /// The brain is gone: workers notice, facts are lost.
    pub(super) fn brain_goes(&mut self) {
        self.brain_is_up = false;
        self.stalled_until = None;
        self.backlog.clear();
        let now = self.now;
        let mut alone = Vec::new();
        for (number, held) in &mut self.arms {
            held.known = false;
            if !held.arm.dead {
                held.arm.alone_since = Some(now);
                alone.push(*number);
            }
        }
        for number in alone {
            self.turn(number);
        }
    }

    /// The machine has been freed; somebody starts it again.
    fn freed(&mut self) {
        self.checks.freed(self.now, self.arms.values().filter(|held| !held.arm.dead).count());
        self.brain_goes();
        let away = self.scenario.faults.brain_away.draw(&mut self.dice) + Millis(1_000);
        self.later(away, Happening::BrainBack);
    }

    pub(super) fn wakes(&mut self) {
        if self.stalled_until.is_some_and(|until| until <= self.now) {
            self.stalled_until = None;
            for event in std::mem::take(&mut self.backlog) {
                self.hear(event);
            }
        }
    }

    // ---------------------------------------------------------------------------------------------- senses

    /// What the clock on the wall shows: a scenario begins at midnight.
    pub(super) fn turns_hour(&mut self) {
        let since = (self.now - super::BEGIN).0.max(0);
        let left = Millis(HOUR.0 - since % HOUR.0);
        let hour = u8::try_from(since / HOUR.0 % 24).unwrap_or(0);
        self.tell(Event::Hour { hour, left });
        if !std::mem::replace(&mut self.hour_noted, true) {
            self.later(left, Happening::HourIsOver);
        }
    }

    pub(super) fn inventory(&self) -> Inventory {
        let here = self.facts.iter().enumerate().filter(|(number, _)| !self.lost.contains_key(number));
        Inventory {
            source: if self.scenario.measured {
                InventorySource::Measured
            } else {
                InventorySource::Simulated
            },
            why: Some("simulated".into()),
            gpus: here.map(|(_, facts)| facts.clone()).collect(),
        }
    }

    pub(super) fn looks(&mut self) {
        let inventory = self.inventory();
        self.tell(Event::Inventory(inventory));
    }

    pub(super) fn reads_all(&mut self) {
        for gpu in 0..self.facts.len() {
            self.reads(gpu);
        }
        let available_mib = if self.ram_is_low { 1_500 } else { 48_000 };
        self.tell(Event::Ram(Ram { total_mib: 65_536, available_mib }));
        if !self.reads_noted {
            self.reads_noted = true;
            self.later(READ_EVERY, Happening::ReadsAll);
        }
    }

    pub(super) fn reads(&mut self, gpu: usize) {
        let Some(facts) = self.facts.get(gpu) else { return };
        if self.lost.contains_key(&gpu) || !self.scenario.measured {
            return;
        }
        let arms = self.arms.values().filter(|held| held.arm.gpu == Some(gpu) && !held.arm.dead);
        let ours: u64 = arms.clone().map(|held| held.arm.held_mib()).sum();
        let processes = arms.flat_map(|held| held.arm.processes()).collect();
        let foreign = self.foreign.get(gpu).copied().unwrap_or(0);
        self.tell(Event::Read(model::gpu::Reading {
            uuid: facts.uuid.clone(),
            used_mib: Some(ours + foreign),
            processes,
            lost: false,
        }));
    }
}
