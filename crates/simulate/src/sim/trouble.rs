//! What goes wrong, and how it is over again.

use model::{Millis, TaskId};
use policy::event::Event;

use super::Sim;
use crate::agenda::{ArmNumber, Happening};
use crate::faults::Fault;

impl Sim {
    pub(super) fn goes(&mut self, fault: Fault) {
        self.record.faults += 1;
        match fault {
            Fault::WorkerDies => {
                if let Some(number) = self.some_arm() {
                    self.dies(number, false);
                }
            }
            Fault::EngineDies => {
                if let Some(number) = self.some_arm() {
                    let now = self.now;
                    self.with_arm(number, |arm, _| arm.engine_dies(now));
                    self.turn(number);
                }
            }
            Fault::MachineDies => self.machine_dies(),
            Fault::BrainDies => self.brain_dies(),
            Fault::Down => self.goes_down(),
            Fault::GpuLost => self.loses_gpu(),
            Fault::Stall => self.stalls(),
            Fault::DiskFull => {
                self.disk_is_full = true;
                self.over_later(fault, 0);
            }
            Fault::Cancel => self.cancels(),
            Fault::RamLow => {
                self.ram_is_low = true;
                self.reads_all();
                self.over_later(fault, 0);
            }
            Fault::Foreign => self.foreigner_comes(),
        }
    }

    pub(super) fn over(&mut self, fault: Fault, number: usize) {
        match fault {
            Fault::DiskFull => self.disk_is_full = false,
            Fault::RamLow => {
                self.ram_is_low = false;
                self.reads_all();
            }
            Fault::Foreign => {
                if let Some(foreign) = self.foreign.get_mut(number) {
                    *foreign = 0;
                }
                self.reads(number);
            }
            Fault::GpuLost => {
                if let Some(since) = self.lost.remove(&number) {
                    self.record.lost(number, since, self.now);
                }
                for held in self.arms.values_mut().filter(|held| held.arm.gpu == Some(number)) {
                    held.arm.gpu_is_lost = false;
                }
                self.looks();
                let numbers: Vec<_> = self.arms.keys().copied().collect();
                for number in numbers {
                    self.turn(number);
                }
            }
            _ => {}
        }
    }

    fn over_later(&mut self, fault: Fault, number: usize) {
        let lasts = fault.lasts(&self.scenario.faults).map_or(Millis(1), |times| times.draw(&mut self.dice));
        // When the faults are off, the world is as it should be.
        let end = (self.now + lasts).min(self.faults_until).max(self.now);
        self.agenda.note(end, Happening::Over(fault, number));
    }

    fn some_arm(&mut self) -> Option<ArmNumber> {
        let living: Vec<ArmNumber> =
            self.arms.iter().filter(|(_, held)| !held.arm.dead).map(|(number, _)| *number).collect();
        self.dice.pick(&living).copied()
    }

    fn brain_dies(&mut self) {
        if self.brain_is_up {
            self.brain_goes();
            let away = self.scenario.faults.brain_away.draw(&mut self.dice);
            self.later(away, Happening::BrainBack);
        }
    }

    fn machine_dies(&mut self) {
        let numbers: Vec<_> = self.arms.keys().copied().collect();
        for number in numbers {
            if let Some(held) = self.arms.get_mut(&number) {
                held.arm.died_with_machine = !held.arm.dead;
            }
            self.dies(number, true);
        }
        self.brain_dies();
    }

    fn goes_down(&mut self) {
        if !self.brain_is_up || self.going_down {
            return;
        }
        self.going_down = true;
        let deadline = self.now + Millis::from_secs_f64(self.config.shutdown.timeout_s);
        let now = self.dice.chance(0.3);
        self.tell(Event::DownAsked { deadline, now });
    }

    fn loses_gpu(&mut self) {
        let gpu = usize::try_from(self.dice.below(self.facts.len() as u64)).unwrap_or(0);
        let now = self.now;
        if self.lost.contains_key(&gpu) {
            return;
        }
        self.lost.insert(gpu, now);
        let dies = self.dice.chance(0.4);
        let arms = self.arms.iter().filter(|(_, held)| held.arm.gpu == Some(gpu) && !held.arm.dead);
        let arms: Vec<ArmNumber> = arms.map(|(number, _)| *number).collect();
        for number in arms {
            self.with_arm(number, |arm, _| arm.gpu_goes(now));
            self.turn(number);
            if dies {
                self.dies(number, false);
            }
        }
        if self.dice.chance(0.5) {
            let uuid = self.facts[gpu].uuid.clone();
            self.tell(Event::Read(model::gpu::Reading {
                uuid,
                used_mib: None,
                processes: Vec::new(),
                lost: true,
            }));
        } else {
            let delay = Millis(self.dice.between(0, 5_000));
            self.later(delay, Happening::Looks);
        }
        self.over_later(Fault::GpuLost, gpu);
    }

    /// The brain stands still; what is told meanwhile comes all at once.
    fn stalls(&mut self) {
        if !self.brain_is_up || self.stalled_until.is_some() {
            return;
        }
        let until = self.now + self.scenario.faults.stall.draw(&mut self.dice);
        self.stalled_until = Some(until);
        self.agenda.note(until, Happening::Wakes);
    }

    fn cancels(&mut self) {
        let open: Vec<TaskId> = self.checks.open_tasks(40);
        let Some(task_id) = self.dice.pick(&open).cloned() else { return };
        if self.dice.chance(0.3) && self.delete(&task_id) {
            return;
        }
        if self.brain_is_up && self.stalled_until.is_none() {
            self.record.cancelled(&task_id);
            self.tell(Event::CancelAsked { task_id });
        }
    }

    fn foreigner_comes(&mut self) {
        let gpu = usize::try_from(self.dice.below(self.facts.len() as u64)).unwrap_or(0);
        let ours: u64 = self
            .arms
            .values()
            .filter(|held| held.arm.gpu == Some(gpu) && !held.arm.dead)
            .map(|held| held.held_mib)
            .sum();
        let total = self.facts[gpu].total_mib.unwrap_or(0);
        let wanted = self.scenario.faults.foreign_mib;
        // Another program gets what is free, and no more.
        self.foreign[gpu] = wanted.min(total.saturating_sub(ours));
        self.reads(gpu);
        self.over_later(Fault::Foreign, gpu);
    }
}
