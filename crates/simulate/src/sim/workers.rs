//! Workers: their births and deaths, and the two logs between them and the brain.

use std::collections::BTreeSet;

use model::link::{GpuIdentity, Reports};
use model::{Millis, WorkerId};
use policy::event::Event;

use super::{Held, Sim};
use crate::agenda::{ArmNumber, Happening};
use crate::arm::{Arm, Timer, Wants};

/// How long a worker's folder takes to appear after its launch, in milliseconds.
const BIRTH_MS: (i64, i64) = (40, 400);

/// The engine of every worker, for what the settings name no engine.
const COMMON_ENGINE: &str = "ollama";

impl Sim {
    /// Something was written into a worker's orders: it reads them in a moment, or late.
    pub(super) fn wrote(&mut self, number: ArmNumber) {
        let Some(held) = self.arms.get_mut(&number) else { return };
        if held.arm.dead || std::mem::replace(&mut held.reads, true) {
            return;
        }
        let delay = self.link_delay();
        self.later(delay, Happening::WorkerReads(number));
    }

    fn link_delay(&mut self) -> Millis {
        let delay = Millis(self.dice.between(1, 3));
        let faults = &self.scenario.faults;
        if faults.late > 0.0 && self.now < self.faults_until && self.dice.chance(faults.late) {
            return delay + faults.lateness.draw(&mut self.dice);
        }
        delay
    }

    pub(super) fn worker_reads(&mut self, number: ArmNumber) {
        let Some(held) = self.arms.get_mut(&number) else { return };
        held.reads = false;
        if !held.arm.dead {
            held.arm.orders = held.arm.written.clone();
            self.turn(number);
        }
    }

    pub(super) fn rings(&mut self, number: ArmNumber, timer: &Timer) {
        let mut wants = Wants::default();
        let now = self.now;
        self.with_arm(number, |arm, nature| arm.rings(now, timer, nature, &mut wants));
        self.note(number, wants);
        self.turn(number);
    }

    fn note(&mut self, number: ArmNumber, wants: Wants) {
        for (delay, timer) in wants.timers {
            self.later(delay, Happening::Rings(number, timer));
        }
        for (generation, model, mib) in wants.reads {
            if self.disk.want(self.now, (number, generation), &model, mib) {
                self.file_is_there(number, generation);
            }
            self.note_disk();
        }
    }

    fn note_disk(&mut self) {
        if let Some(at) = self.disk.next_at() {
            self.agenda.note(at, Happening::DiskReady(self.disk.version));
        }
    }

    pub(super) fn disk_ready(&mut self, version: u64) {
        if version != self.disk.version {
            return;
        }
        let ready = self.disk.done(self.now);
        let config = &self.config;
        self.disk.settle_cache(|model| config.models.get(model).and_then(|entry| entry.mib).unwrap_or(5_000));
        self.note_disk();
        for (number, generation) in ready {
            self.file_is_there(number, generation);
        }
    }

    fn file_is_there(&mut self, number: ArmNumber, generation: u64) {
        let mut wants = Wants::default();
        self.with_arm(number, |arm, nature| arm.file_read(generation, nature, &mut wants));
        self.note(number, wants);
    }

    /// A worker compares what it wants with what is there; what it says then is heard in a moment.
    pub(super) fn turn(&mut self, number: ArmNumber) {
        let mut wants = Wants::default();
        let now = self.now;
        let turned = self.with_arm(number, |arm, nature| {
            let before = arm.told.clone();
            (arm.turn(now, nature, &mut wants), before)
        });
        let Some((changed, before)) = turned else { return };
        self.note(number, wants);
        if !changed {
            return;
        }
        let Some(held) = self.arms.get_mut(&number) else { return };
        self.record.said(now, &held.arm, &before);
        let (gpu, mib) = (held.arm.gpu, held.arm.held_mib());
        if std::mem::replace(&mut held.held_mib, mib) != mib
            && let Some(gpu) = gpu
        {
            let room = self.facts.get(gpu).and_then(|facts| facts.total_mib);
            self.checks.memory(now, gpu, mib, room);
            if self.scenario.measured {
                self.later(Millis(2_000), Happening::Reads(gpu));
            }
        }
        self.speaks(number);
    }

    fn speaks(&mut self, number: ArmNumber) {
        let Some(held) = self.arms.get_mut(&number) else { return };
        if !std::mem::replace(&mut held.says, true) {
            let delay = self.link_delay();
            self.later(delay, Happening::BrainReads(number));
        }
    }

    pub(super) fn brain_reads(&mut self, number: ArmNumber) {
        let Some(held) = self.arms.get_mut(&number) else { return };
        held.says = false;
        if held.arm.dead || !held.known {
            return;
        }
        let gone = held.arm.phase == model::link::Phase::Left;
        let (worker, reports) = (held.arm.id.clone(), Box::new(held.arm.told.clone()));
        let again = self.now < self.faults_until && self.dice.chance(self.scenario.faults.duplicates);
        self.tell(Event::Reported { worker: worker.clone(), reports: reports.clone() });
        if again {
            self.tell(Event::Reported { worker, reports });
        }
        if gone {
            self.dies(number, false);
        }
    }

    // ---------------------------------------------------------------------------------------------- births

    pub(super) fn launch(&mut self, gpu: Option<usize>) {
        self.launches += 1;
        let launch = format!("launch-{}", self.launches);
        let uuid = gpu.and_then(|gpu| self.facts.get(gpu)).map(|facts| facts.uuid.clone());
        self.tell(Event::Launched { launch: launch.clone(), gpu: uuid });
        let delay = Millis(self.dice.between(BIRTH_MS.0, BIRTH_MS.1));
        self.later(delay, Happening::Born { launch, gpu });
    }

    pub(super) fn born(&mut self, launch: String, gpu: Option<usize>) {
        let taken = self.arms.values().any(|held| !held.arm.dead && held.arm.gpu == gpu);
        let fails = self.faults_on() && self.dice.chance(self.scenario.faults.launch_fails);
        let gone = gpu.is_some_and(|gpu| self.lost.contains_key(&gpu));
        let status = match (taken, gone || fails) {
            (true, _) => 4,
            (false, true) => 69,
            (false, false) => 0,
        };
        if status != 0 {
            return self.tell(Event::LaunchEnded { launch, status: Some(status), message: None });
        }
        self.born += 1;
        let number = self.born;
        let Ok(id) = WorkerId::new(format!("worker-{number}")) else { return };
        let identity = gpu.and_then(|gpu| Some((gpu, self.facts.get(gpu)?))).map(|(gpu, facts)| {
            let identity = GpuIdentity {
                uuid: facts.uuid.clone(),
                index: facts.index,
                name: facts.name.clone(),
                vram_mib: facts.total_mib,
            };
            (gpu, identity)
        });
        let mut arm = Arm::new(id.clone(), number, identity, launch);
        if gpu.is_some() {
            arm.told.can = self.can();
        }
        if !self.brain_is_up {
            arm.alone_since = Some(self.now);
        }
        let reports: Reports = arm.told.clone();
        let known = self.brain_is_up;
        let held = Held { arm, reads: false, says: false, known, pronounced: false, held_mib: 0 };
        self.arms.insert(number, held);
        if known {
            self.tell(Event::WorkerBorn { worker: id, reports: Box::new(reports), orders: None });
        } else {
            self.turn(number);
        }
    }

    /// Every model, by the engine that the settings name for it, else by one that all workers here have; the demonstration
    /// model where the settings have none.
    fn can(&self) -> model::link::Can {
        let mut models: Vec<String> = self.config.models.keys().cloned().collect();
        if models.is_empty() {
            models.push(model::config::DEMO_MODEL.to_owned());
        }
        let of_models = self.config.models.values().filter_map(|entry| entry.engine.as_deref());
        let named: BTreeSet<&str> = of_models.chain([self.config.engine.as_str()]).collect();
        let named = named.into_iter().filter(|engine| !["auto", COMMON_ENGINE].contains(engine));
        let engine =
            |preset: &str| model::link::CanEngine { preset: preset.to_owned(), models: models.clone() };
        model::link::Can {
            engines: std::iter::once(COMMON_ENGINE).chain(named).map(engine).collect(),
            missing: Vec::new(),
        }
    }

    // ---------------------------------------------------------------------------------------------- deaths

    /// A worker is dead, with all it ran.
    pub(super) fn dies(&mut self, number: ArmNumber, with_machine: bool) {
        let now = self.now;
        let Some(held) = self.arms.get_mut(&number).filter(|held| !held.arm.dead) else { return };
        held.arm.dead = true;
        self.record.died(now, &held.arm);
        if !with_machine {
            let delay = Millis(self.dice.between(20, 5_000));
            self.later(delay, Happening::Buried(number));
        }
    }

    /// Nothing of a dead worker runs any more: its last words are read, then its death is a fact.
    pub(super) fn buried(&mut self, number: ArmNumber) {
        let Some(held) = self.arms.get_mut(&number) else { return };
        if !self.brain_is_up || !held.known || held.pronounced {
            return;
        }
        held.pronounced = true;
        let worker = held.arm.id.clone();
        let reports = Box::new(held.arm.last_words());
        let with_machine = held.arm.phase != model::link::Phase::Left && held.arm.died_with_machine;
        if !with_machine {
            self.tell(Event::Reported { worker: worker.clone(), reports });
        }
        self.tell(Event::WorkerDied { worker, with_machine });
        self.forget(number);
    }

    /// A dead worker of which nothing is left to settle is put aside.
    pub(super) fn forget(&mut self, number: ArmNumber) {
        let settled = self
            .arms
            .get(&number)
            .is_some_and(|held| held.arm.dead && held.pronounced && held.arm.written.attempts.is_empty());
        if settled {
            self.arms.remove(&number);
        }
    }
}
