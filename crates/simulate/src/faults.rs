//! What goes wrong, and when: drawn ahead from a stream of its own.
//!
//! Not here: what it does (`sim::trouble`).

use model::Millis;

use crate::dice::{Dice, Times};
use crate::scenario::Faults;

/// A kind of fault that comes at a time; those that are a share of other things are drawn there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    WorkerDies,
    MachineDies,
    BrainDies,
    Down,
    GpuLost,
    EngineDies,
    Stall,
    DiskFull,
    Cancel,
    RamLow,
    Foreign,
}

impl Fault {
    pub(crate) const ALL: [Self; 11] = [
        Self::WorkerDies,
        Self::MachineDies,
        Self::BrainDies,
        Self::Down,
        Self::GpuLost,
        Self::EngineDies,
        Self::Stall,
        Self::DiskFull,
        Self::Cancel,
        Self::RamLow,
        Self::Foreign,
    ];

    /// How often it comes, an hour.
    pub(crate) const fn per_hour(self, faults: &Faults) -> f64 {
        match self {
            Self::WorkerDies => faults.worker_dies,
            Self::MachineDies => faults.machine_dies,
            Self::BrainDies => faults.brain_dies,
            Self::Down => faults.downs,
            Self::GpuLost => faults.gpu_lost,
            Self::EngineDies => faults.engine_dies,
            Self::Stall => faults.stalls,
            Self::DiskFull => faults.disk_full,
            Self::Cancel => faults.cancels,
            Self::RamLow => faults.ram_low,
            Self::Foreign => faults.foreign,
        }
    }

    /// How long it lasts; none where it is over at once.
    pub(crate) const fn lasts(self, faults: &Faults) -> Option<Times> {
        match self {
            Self::GpuLost => Some(faults.gpu_away),
            Self::BrainDies | Self::MachineDies | Self::Down => Some(faults.brain_away),
            Self::Stall => Some(faults.stall),
            Self::DiskFull => Some(faults.disk_away),
            Self::RamLow => Some(faults.ram_away),
            Self::Foreign => Some(faults.foreign_stay),
            Self::WorkerDies | Self::EngineDies | Self::Cancel => None,
        }
    }

    /// All times at which it comes.
    pub(crate) fn times(self, faults: &Faults, seed: u64, end: Millis) -> Vec<Millis> {
        let rate = self.per_hour(faults);
        let mut times = Vec::new();
        if rate <= 0.0 {
            return times;
        }
        let mut dice = Dice::of(seed, &format!("fault {self:?}"));
        let mut at = 0.0;
        loop {
            at += dice.exponential(3_600.0 / rate);
            let time = Millis::from_secs_f64(at);
            if time >= end {
                return times;
            }
            times.push(time);
        }
    }
}
